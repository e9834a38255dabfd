// The line chart over blocks: share on top and mean identifiability of image tokens, identifiability at [CLS].
function setUpEvolution() {
  const hasCls = clsToken >= 0;
  const key = (kind, words) => make("span", {}, make("span", { class: `key ${kind}`, "aria-hidden": "true" }), ` ${words}`);
  byId("evolution-legend").replaceChildren(...(exclusive
    ? [key("image", "share of image tokens with the class on top"), key("mean", "mean identifiability of image tokens"),
      ...(hasCls ? [key("cls", "identifiability at [CLS]")] : []),
      key("chance", `chance: 1 token in ${model.num_classes} would have the class on top`)]
    : [key("image", `mean ${unit} of image tokens`), ...(hasCls ? [key("cls", `${unit} at [CLS]`)] : []), key("chance", "0")]));
  onChange(["image", "category", "block"], drawEvolution);
  new ResizeObserver(drawEvolution).observe(byId("evolution-chart"));
}

/** The lines of the chart, its range, and the words for a block. */
function evolutionOf(image) {
  const { blocks } = image;
  if (!exclusive) {
    const mean = blocks.map((facts) => facts.mean_logit);
    const cls = clsToken >= 0 ? blocks.map((facts) => facts.cls_logit) : [];
    const [low, high] = [Math.min(0, ...mean, ...cls), Math.max(0, ...mean, ...cls)];
    const ticks = [0, 0.25, 0.5, 0.75, 1].map((share) => low + share * (high - low || 1));
    return {
      lines: { cls, image: mean }, ticks, chance: 0,
      words: (block) => [`image tokens: mean ${fixed(mean[block])}`, ...(cls.length ? [`[CLS]: ${fixed(cls[block])}`] : [])],
    };
  }
  const mean = blockNumbers().map((block) => meanIdentifiability(image, block));
  const cls = clsToken >= 0 ? blocks.map((facts) => identifiability(facts.cls_rank)) : [];
  return {
    lines: { mean, cls, image: blocks.map((facts) => facts.identifiable) }, ticks: [0, 0.25, 0.5, 0.75, 1], chance: 1 / model.num_classes,
    words: (block) => [
      `${percent(blocks[block].identifiable)} of image tokens on top`,
      `image tokens: mean identifiability ${fixed(mean[block], rankDigits)}`,
      ...(cls.length ? [`[CLS]: identifiability ${fixed(cls[block], rankDigits)}, ${rankWords(blocks[block].cls_rank)}`] : []),
    ],
  };
}

function meanIdentifiability(image, block) {
  const ranks = image.tokens.resid_post.rank[block].slice(prefixCount);
  return sum(ranks.map(identifiability)) / ranks.length;
}

function drawEvolution() {
  const host = byId("evolution-chart");
  const image = currentImage();
  const target = image.target.name;
  byId("evolution-words").replaceChildren(...(exclusive
    ? ["After each block (resid_post): how many image tokens have ", make("strong", {}, target),
      " on top, and how near the top it is on average."]
    : [`After each block (resid_post): the ${unit} of `, make("strong", {}, target), " at [CLS] and at image tokens, if they decided."]),
  " Choose a point to go to its block.");
  const { lines, ticks, chance, words } = evolutionOf(image);
  const size = { width: Math.max(host.clientWidth, 260), height: 240, left: 44, right: 14, top: 12, bottom: 40 };
  const x = (block) => size.left + (model.blocks === 1 ? 0.5 : block / (model.blocks - 1)) * (size.width - size.left - size.right);
  const span = ticks[4] - ticks[0];
  const y = (value) => size.height - size.bottom - ((value - ticks[0]) / span) * (size.height - size.top - size.bottom);
  const svg = makeSvg("svg", { viewBox: `0 0 ${size.width} ${size.height}`, width: size.width, height: size.height, role: "img" });
  svg.setAttribute("aria-label", `Line chart of ${target} over ${model.blocks} blocks. After the last block: ${words(model.blocks - 1).join("; ")}.`);
  for (const tick of ticks) {
    svg.append(
      makeSvg("line", { class: "rule", x1: size.left, x2: size.width - size.right, y1: y(tick), y2: y(tick) }),
      makeSvg("text", { x: size.left - 8, y: y(tick) + 4, "text-anchor": "end" }, exclusive ? String(tick) : fixed(tick, 1)));
  }
  const every = Math.ceil(model.blocks / ((size.width - size.left) / 28));
  for (const block of blockNumbers()) {
    if (block % every === 0) svg.append(makeSvg("text", { x: x(block), y: size.height - size.bottom + 18, "text-anchor": "middle" }, String(block)));
  }
  svg.append(
    makeSvg("text", { x: (size.left + size.width - size.right) / 2, y: size.height - 4, "text-anchor": "middle" }, "block"),
    makeSvg("line", { class: "now", id: "evolution-now", "data-block": state.block, x1: x(state.block), x2: x(state.block), y1: y(ticks[4]), y2: y(ticks[0]) }),
    makeSvg("line", { class: "chance", x1: size.left, x2: size.width - size.right, y1: y(chance), y2: y(chance) }));
  const line = (kind, values) => {
    svg.append(makeSvg("polyline", { class: `line ${kind}`, points: values.map((value, block) => `${x(block)},${y(value)}`).join(" ") }));
    values.forEach((value, block) => {
      const shape = kind === "cls"
        ? makeSvg("rect", { x: x(block) - 4, y: y(value) - 4, width: 8, height: 8 })
        : makeSvg("circle", { cx: x(block), cy: y(value), r: kind === "mean" ? 2.5 : 4.5 });
      shape.setAttribute("class", `point ${kind}`);
      shape.setAttribute("data-block", block);
      shape.setAttribute("data-value", value);
      svg.append(shape);
    });
  };
  for (const [kind, values] of Object.entries(lines)) line(kind, values);
  // Wide invisible strips catch the pointer, as dots are hard to hit.
  const step = model.blocks === 1 ? size.width : x(1) - x(0);
  for (const block of blockNumbers()) {
    const strip = makeSvg("rect", { class: "strip", "data-block": block, x: x(block) - step / 2, y: size.top, width: step, height: size.height - size.top });
    strip.addEventListener("click", () => update({ block }));
    strip.addEventListener("pointerenter", () => showTip(strip, [`Block ${block}`, ...words(block)]));
    strip.addEventListener("pointerleave", hideTip);
    svg.append(strip);
  }
  host.replaceChildren(svg);
}
