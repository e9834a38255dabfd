// The line chart over blocks: share on top and mean identifiability of image tokens, identifiability at [CLS].
function setUpEvolution() {
  const hasCls = clsToken >= 0;
  byId("evolution-legend").replaceChildren(
    make("span", {}, make("span", { class: "key image", "aria-hidden": "true" }), " share of image tokens with the class on top"),
    make("span", {}, make("span", { class: "key mean", "aria-hidden": "true" }), " mean identifiability of image tokens"),
    ...(hasCls ? [make("span", {}, make("span", { class: "key cls", "aria-hidden": "true" }), " identifiability at [CLS]")] : []),
    make("span", {}, make("span", { class: "key chance", "aria-hidden": "true" }),
      ` chance: 1 token in ${model.num_classes} would have the class on top`));
  onChange(["image", "block"], drawEvolution);
  new ResizeObserver(drawEvolution).observe(byId("evolution-chart"));
}

function meanIdentifiability(image, block) {
  const ranks = image.tokens.resid_post.rank[block].slice(prefixCount);
  return sum(ranks.map(identifiability)) / ranks.length;
}

function drawEvolution() {
  const host = byId("evolution-chart");
  const image = currentImage();
  const target = image.target.name;
  byId("evolution-words").replaceChildren(
    "After each block (resid_post): how many image tokens have ", make("strong", {}, target),
    " on top, and how near the top it is on average. Choose a point to go to its block.");
  const size = { width: Math.max(host.clientWidth, 260), height: 240, left: 44, right: 14, top: 12, bottom: 40 };
  const x = (block) => size.left + (model.blocks === 1 ? 0.5 : block / (model.blocks - 1)) * (size.width - size.left - size.right);
  const y = (share) => size.height - size.bottom - share * (size.height - size.top - size.bottom);
  const svg = makeSvg("svg", { viewBox: `0 0 ${size.width} ${size.height}`, width: size.width, height: size.height, role: "img" });
  const last = image.blocks[model.blocks - 1];
  svg.setAttribute("aria-label",
    `Line chart over ${model.blocks} blocks. After the last block ${percent(last.identifiable)} of the image tokens have ${target} on top` +
    (last.cls_rank === null ? "." : `, and [CLS] has it at ${rankWords(last.cls_rank)}.`));
  for (const tick of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(
      makeSvg("line", { class: "rule", x1: size.left, x2: size.width - size.right, y1: y(tick), y2: y(tick) }),
      makeSvg("text", { x: size.left - 8, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  const every = Math.ceil(model.blocks / ((size.width - size.left) / 28));
  for (const block of blockNumbers()) {
    if (block % every === 0) svg.append(makeSvg("text", { x: x(block), y: size.height - size.bottom + 18, "text-anchor": "middle" }, String(block + 1)));
  }
  svg.append(
    makeSvg("text", { x: (size.left + size.width - size.right) / 2, y: size.height - 4, "text-anchor": "middle" }, "block"),
    makeSvg("line", { class: "now", id: "evolution-now", "data-block": state.block, x1: x(state.block), x2: x(state.block), y1: y(1), y2: y(0) }),
    makeSvg("line", { class: "chance", x1: size.left, x2: size.width - size.right, y1: y(1 / model.num_classes), y2: y(1 / model.num_classes) }));
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
  line("mean", blockNumbers().map((block) => meanIdentifiability(image, block)));
  if (clsToken >= 0) line("cls", image.blocks.map((facts) => identifiability(facts.cls_rank)));
  line("image", image.blocks.map((facts) => facts.identifiable));
  // Wide invisible strips catch the pointer, as dots are hard to hit.
  const step = model.blocks === 1 ? size.width : x(1) - x(0);
  for (const block of blockNumbers()) {
    const facts = image.blocks[block];
    const strip = makeSvg("rect", { class: "strip", "data-block": block, x: x(block) - step / 2, y: size.top, width: step, height: size.height - size.top });
    strip.addEventListener("click", () => update({ block }));
    strip.addEventListener("pointerenter", () => showTip(strip, [
      `Block ${block + 1}`,
      `${percent(facts.identifiable)} of image tokens on top`,
      `image tokens: mean identifiability ${fixed(meanIdentifiability(image, block), rankDigits)}`,
      ...(facts.cls_rank === null ? [] : [`[CLS]: identifiability ${fixed(identifiability(facts.cls_rank), rankDigits)}, ${rankWords(facts.cls_rank)}`]),
    ]));
    strip.addEventListener("pointerleave", hideTip);
    svg.append(strip);
  }
  host.replaceChildren(svg);
}
