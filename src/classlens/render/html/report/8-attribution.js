// The logit as a sum: a bar for each part, the heads of a block, and the contribution of each image token.
function setUpAttribution() {
  if (!currentImage().attribution) {
    byId("attribution-words").textContent =
      "This head pools its tokens by attention, which is not linear in them: the logit is no sum of contributions.";
    byId("attribution-parts").hidden = true;
    return;
  }
  const sources = tokenGrid(byId("source-grid"), { label: "Contribution of image tokens to the logit" });
  byId("detail-all").addEventListener("click", () => update({ detailBlock: null }));
  onChange(["image"], () => sources.setPicture(record.pictures[state.image], ""));
  onChange(["image", "category", "rival"], drawBars);
  onChange(["image", "category", "rival", "detailBlock"], () => drawDetail(sources));
}

/** Every part of the sum, in the order in which the model computes them. */
function attributionParts({ embed, attention, mlp, bias, edit }) {
  return [
    { id: "embed", name: "Embeddings", value: embed },
    ...blockNumbers().flatMap((block) => [
      { id: `attention-${block}`, name: `Block ${block} attention`, value: sum(attention[block]), block },
      { id: `mlp-${block}`, name: `Block ${block} MLP`, value: mlp[block] },
    ]),
    { id: "bias", name: "Biases", value: bias },
    ...(edit ? [{ id: "edit", name: "Put in by edits", value: sum(edit) }] : []),
  ];
}

/** A row with a name, a bar that starts at zero in the middle, and the value. */
function barRow({ id, name, value, largest, digits = 2, tag = "div", className = "", title = null, attributes = {} }) {
  const fill = make("span", { class: `fill ${value < 0 ? "against" : "for"}` });
  const width = largest > 0 ? (50 * Math.abs(value)) / largest : 0;
  fill.style.width = `${width}%`;
  fill.style.left = `${value < 0 ? 50 - width : 50}%`;
  return make(tag, { class: `bar ${className}`, id, title, ...attributes },
    make("span", { class: "label" }, name),
    make("span", { class: "track", "aria-hidden": "true" }, fill),
    make("span", { class: "number" }, signed(value, digits)));
}

function drawBars() {
  const image = currentImage();
  const { attribution, target, rival } = image;
  const rows = attributionParts(attribution);
  const largest = largestOf(rows.map((row) => row.value));
  byId("attribution-words").replaceChildren(
    `The ${unit} of `, make("strong", {}, target.name), ...(rival ? [` less that of `, make("strong", {}, rival.name)] : []),
    ` is ${fixed(attribution.logit)}. It is exactly the sum of the contributions ` +
    "of the model's parts: embeddings, the attention and MLP of each block, and all biases (the scale of every norm is held at its value).");
  byId("bars").replaceChildren(...rows.map(({ id, name, value, block }) => {
    if (block === undefined) return barRow({ id: `bar-${id}`, name, value, largest });
    const row = barRow({
      id: `bar-${id}`, name, value, largest, tag: "button", title: "Show its heads",
      attributes: { type: "button", "data-block": block, "aria-controls": "attribution-detail" },
    });
    row.addEventListener("click", () => update({ detailBlock: state.detailBlock === block ? null : block }));
    return row;
  }));
  byId("bars-total").replaceChildren(
    make("span", {}, rival ? "Sum of all parts = difference of the logits" : `Sum of all parts = ${unit}`), make("strong", { id: "total" }, fixed(sum(rows.map((row) => row.value)))));
}

function drawDetail(sources) {
  const image = currentImage();
  const { attribution } = image;
  const goal = `the ${unit} of ${classWords(image)}`;
  const block = state.detailBlock;
  for (const bar of byId("bars").querySelectorAll("button")) {
    bar.setAttribute("aria-pressed", String(Number(bar.dataset.block) === block));
  }
  byId("detail-all").hidden = block === null;
  byId("detail-title").textContent = block === null ? "Through the attention of all blocks" : `Through the attention of block ${block}`;
  const map = block === null ? sumMaps(attribution.image_tokens) : attribution.image_tokens[block];
  const total = block === null ? sum(attribution.attention.map(sum)) : sum(attribution.attention[block]);
  const fromImage = sum(map);
  const otherTokens = prefixCount ? `, ${signed(total - fromImage)} from ${counted(prefixCount, "other token")} (${model.prefix.map(prefixName).join(", ")})` : "";
  byId("detail-words").textContent =
    `Attention adds ${signed(total)}: ${signed(fromImage)} comes from the image tokens below${otherTokens}.` +
    (block === null ? " Choose an attention bar to see the heads of its block." : " Its heads:");
  const heads = block === null ? [] : attribution.attention[block];
  const largest = largestOf(heads);
  const digits = largest >= 1 ? 2 : largest >= 0.1 ? 3 : 4;
  byId("head-bars").replaceChildren(...heads.map((value, head) =>
    barRow({ id: `head-${head}`, name: `Head ${head}`, value, largest, digits })));
  const top = largestOf(map);
  const name = (token) => `${tokenName(token)}: ${significant(map[token - prefixCount])}`;
  sources.paint({
    colors: (token) => divergingCss(map[token - prefixCount], top),
    labels: name,
    tip: (token) => [tokenName(token), `adds ${significant(map[token - prefixCount])} to ${goal}`],
  });
  divergingLegend(byId("source-legend"), top,
    `lowers ${goal}`, `raises it`);
}
