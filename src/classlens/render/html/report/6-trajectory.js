// The decision trajectory: the likeliest classes after each block as stacked bars, and the margin of the class of interest.
function setUpTrajectory() {
  if (!imageAt(0).trajectory) {
    byId("trajectory").hidden = true;
    return;
  }
  onChange(["image", "category", "rival", "block"], drawTrajectory);
  new ResizeObserver(drawTrajectory).observe(byId("trajectory-chart"));
}

const depthNumbers = () => Array.from({ length: model.blocks + 1 }, (_, depth) => depth);
const depthName = (depth) => (depth === 0 ? "the embeddings" : `block ${depth - 1}`);

/** Runs of depths with the same top class: `{ top, first, last }`. */
function decisionRuns({ top }) {
  const runs = [];
  top.forEach(([first], depth) => {
    if (runs.at(-1)?.top === first) runs.at(-1).last = depth;
    else runs.push({ top: first, first: depth, last: depth });
  });
  return runs;
}

/** When the decision falls, and what it was before, in words. */
function decisionWords(trajectory) {
  const runs = decisionRuns(trajectory);
  const final = runs.at(-1);
  const name = make("strong", {}, className(final.top));
  if (runs.length === 1) return ["The decision for ", name, " stands from the embeddings on."];
  const span = ({ first, last }) => (first === last ? `after ${depthName(first)}`
    : first === 0 ? `up to ${depthName(last)}` : `after blocks ${first - 1} to ${last - 1}`);
  const before = runs.slice(0, -1).slice(-3).map((run) => `${className(run.top)} (${span(run)})`).join(", ");
  const longer = runs.length > 4 ? ", after other classes" : "";
  return ["The decision for ", name, ` falls at ${depthName(final.first)}. Before that it was ${before}${longer}.`];
}

/** A color for each class that is on top at some depth, the class of interest first; the others are as gray as the rest. */
function trajectoryColors(image) {
  const counts = new Map();
  image.trajectory.top.forEach((places, depth) => places.forEach((index, place) =>
    counts.set(index, (counts.get(index) ?? 0) + image.trajectory.probability[depth][place])));
  counts.delete(image.target.index);
  const likely = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]).map(([index]) => index);
  return new Map([image.target.index, ...likely].slice(0, CATEGORIES.length).map((index, i) => [index, CATEGORIES[i]]));
}

function drawTrajectory() {
  const image = currentImage();
  const { trajectory, margin, target } = image;
  const colors = trajectoryColors(image);
  byId("trajectory-words").replaceChildren(...decisionWords(trajectory));
  byId("margin-words").replaceChildren("Margin: the logit of ", make("strong", {}, target.name),
    " minus the largest of the other classes. Above 0 it is the decision.");
  const host = byId("trajectory-chart");
  const size = { width: Math.max(host.clientWidth, 260), left: 44, right: 8, bars: [10, 170], margins: [200, 300], height: 340 };
  const step = (size.width - size.left - size.right) / (model.blocks + 1);
  const x = (depth) => size.left + (depth + 0.5) * step;
  const svg = makeSvg("svg", { viewBox: `0 0 ${size.width} ${size.height}`, width: size.width, height: size.height, role: "img" });
  const runs = decisionRuns(trajectory);
  svg.setAttribute("aria-label", `Decisions over depth: ${runs.map((run) => `${className(run.top)} from ${depthName(run.first)} on`).join(", then ")}.`);
  const [top, bottom] = size.bars;
  const yShare = (share) => bottom - share * (bottom - top);
  for (const share of [0, 0.5, 1]) {
    svg.append(
      makeSvg("line", { class: "rule", x1: size.left, x2: size.width - size.right, y1: yShare(share), y2: yShare(share) }),
      makeSvg("text", { x: size.left - 8, y: yShare(share) + 4, "text-anchor": "end" }, percent(share)));
  }
  const [low, high] = [Math.min(0, ...margin), Math.max(0, ...margin)];
  const yMargin = (value) => size.margins[1] - ((value - low) / (high - low || 1)) * (size.margins[1] - size.margins[0]);
  for (const value of new Set([low, 0, high])) {
    // Ends that would be printed over the zero line are left out.
    if (value !== 0 && Math.abs(yMargin(value) - yMargin(0)) < 14) continue;
    svg.append(
      makeSvg("line", { class: value === 0 ? "chance" : "rule", x1: size.left, x2: size.width - size.right, y1: yMargin(value), y2: yMargin(value) }),
      makeSvg("text", { x: size.left - 8, y: yMargin(value) + 4, "text-anchor": "end" }, fixed(value, 1)));
  }
  const every = Math.ceil(28 / step);
  for (const depth of depthNumbers()) {
    let below = 0;
    trajectory.top[depth].forEach((index, place) => {
      const share = trajectory.probability[depth][place];
      svg.append(makeSvg("rect", {
        class: colors.has(index) ? "share" : "share rest", fill: colors.get(index) ?? "", "data-depth": depth, "data-class": index, "data-value": share,
        x: x(depth) - 0.38 * step, width: 0.76 * step, y: yShare(below + share), height: Math.max(0, yShare(below) - yShare(below + share)),
      }));
      below += share;
    });
    svg.append(makeSvg("rect", { class: "rest", x: x(depth) - 0.38 * step, width: 0.76 * step, y: top, height: Math.max(0, yShare(below) - top) }));
    if (depth > 0 && (depth - 1) % every === 0) {
      svg.append(makeSvg("text", { x: x(depth), y: size.height - 22, "text-anchor": "middle" }, String(depth - 1)));
    }
  }
  svg.append(
    makeSvg("text", { x: x(0), y: size.height - 22, "text-anchor": "middle" }, "emb."),
    makeSvg("text", { x: (size.left + size.width - size.right) / 2, y: size.height - 4, "text-anchor": "middle" }, "block"),
    makeSvg("line", { class: "now", x1: x(state.block + 1), x2: x(state.block + 1), y1: size.bars[0], y2: size.margins[1] }),
    makeSvg("polyline", { class: "line margin", points: margin.map((value, depth) => `${x(depth)},${yMargin(value)}`).join(" ") }),
    ...margin.map((value, depth) => makeSvg("circle", { class: "point margin", cx: x(depth), cy: yMargin(value), r: 3.5, "data-depth": depth, "data-value": value })));
  for (const depth of depthNumbers()) {
    const strip = makeSvg("rect", { class: "strip", "data-depth": depth, x: x(depth) - step / 2, y: size.bars[0], width: step, height: size.margins[1] - size.bars[0] });
    const tip = () => [`After ${depthName(depth)}`,
      ...trajectory.top[depth].map((index, place) => `${className(index)}: ${percent(trajectory.probability[depth][place])}`),
      `margin of ${target.name}: ${signed(margin[depth])}`];
    if (depth > 0) strip.addEventListener("click", () => update({ block: depth - 1 }));
    strip.addEventListener("pointerenter", () => showTip(strip, tip()));
    strip.addEventListener("pointerleave", hideTip);
    svg.append(strip);
  }
  host.replaceChildren(svg);
  byId("trajectory-legend").replaceChildren(
    ...[...colors].filter(([index]) => trajectory.top.some((places) => places.includes(index))).map(([index, color]) => {
      const swatch = make("span", { class: "swatch", "aria-hidden": "true" });
      swatch.style.background = color;
      return make("span", {}, swatch, ` ${className(index)}`);
    }),
    make("span", {}, make("span", { class: "swatch other", "aria-hidden": "true" }), " other classes"));
}
