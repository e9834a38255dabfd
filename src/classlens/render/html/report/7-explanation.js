// The explanation: one large map, and a small map for every block and head.
function setUpExplanation() {
  const large = tokenGrid(byId("map-grid"), { label: "Explanation map", prefix: true });
  const blockSelect = byId("map-block");
  const headSelect = byId("map-head");
  blockSelect.append(make("option", { value: "" }, "all, summed"));
  headSelect.append(make("option", { value: "" }, "all, summed"));
  for (const block of blockNumbers()) blockSelect.append(make("option", { value: block }, String(block)));
  for (const head of headNumbers()) headSelect.append(make("option", { value: head }, String(head)));
  const methods = Object.entries(imageAt(0).classes[0].explanations);
  byId("method").hidden = methods.length < 2;
  for (const [name, { label }] of methods) {
    byId("method").append(make("label", {},
      make("input", { type: "radio", name: "method", value: name, checked: name === state.method }),
      name === "class_gradient" ? `${label} (the paper)` : label));
  }
  byId("method").addEventListener("change", (event) => update({ method: event.target.value }));
  const chosen = (select) => (select.value === "" ? null : Number(select.value));
  blockSelect.addEventListener("change", () => {
    const mapBlock = chosen(blockSelect);
    update({ mapBlock, mapHead: mapBlock === null ? null : state.mapHead });
  });
  headSelect.addEventListener("change", () => update({ mapHead: chosen(headSelect) }));
  byId("map-all").addEventListener("click", () => update({ mapBlock: null, mapHead: null }));
  byId("own-scale").addEventListener("change", (event) => update({ ownScale: event.target.checked }));
  buildMultiples();
  onChange(["image"], () => large.setPicture(record.pictures[state.image], ""));
  onChange(["image", "category", "rival", "method", "mapBlock", "mapHead"], () => drawLargeMap(large));
  onChange(["image", "category", "rival", "method", "ownScale"], drawMultiples);
  onChange(["mapBlock", "mapHead"], markMultiple);
}

const currentMaps = () => currentImage().explanations[state.method];

/** The map of a block and head; null sums over all blocks or heads. */
function mapOf(block, head) {
  const { values } = currentMaps();
  if (block === null) return sumMaps(values.map(sumMaps));
  return head === null ? sumMaps(values[block]) : values[block][head];
}
function mapName(block, head) {
  if (block === null) return "All blocks and heads";
  return head === null ? `Block ${block}, all heads` : `Block ${block}, head ${head}`;
}

/** The tokens whose attention is explained, in words. */
const QUERIES = {
  cls: "[CLS]",
  "mean of pooled tokens": "the tokens that the head pools",
  "cls and mean of pooled tokens": "[CLS] and the tokens that the head averages",
  "tokens of both heads": "the tokens that the two heads read",
};

/** What a method asks, and the meaning of its negative and positive values. */
function methodWords() {
  const image = currentImage();
  const { loss } = currentMaps();
  const words = make("strong", {}, classWords(image));
  const queries = QUERIES[model.query];
  if (state.method === "class_gradient") {
    return {
      lead: ["Tokens learn from one another through attention. For each image token: would more attention to it from ", queries,
        " make ", words, " likelier (positive) or less likely (negative)? ",
        `The value is the negative gradient of the ${loss.replaceAll("_", " ")} loss with respect to that attention weight.`],
      signs: [`more attention here would speak against ${classWords(image)}`, `more attention here would speak for ${classWords(image)}`],
    };
  }
  const added = image.rival ? " (the difference of the two logits)"
    : exclusive ? " (its logit beyond those of its rivals, of which the likeliest count most)" : ` (its ${unit})`;
  const subject = image.rival || !exclusive ? [words, added] : ["the log odds of ", words, added];
  return {
    lead: ["What does each image token add to ", ...subject, `, through the attention of ${queries} in every block and head? ` +
      "With the scale of every norm held at its value, the contributions are exact."],
    signs: [`speaks against ${classWords(image)}`, `speaks for ${classWords(image)}`],
  };
}

// Where all image tokens are queries, a mark on each would say nothing.
const imageQueries = model.queries.filter((token) => token >= prefixCount).length;
const isQuery = (token) => model.queries.includes(token) && (token < prefixCount || imageQueries < tokenCount - prefixCount);

function drawLargeMap(grid) {
  const { mapBlock, mapHead } = state;
  const map = mapOf(mapBlock, mapHead);
  const largest = largestOf(map);
  const { lead, signs } = methodWords();
  byId("explanation-words").replaceChildren(...lead);
  byId("map-title").textContent = mapName(mapBlock, mapHead);
  byId("map-block").value = mapBlock ?? "";
  byId("map-head").value = mapHead ?? "";
  byId("map-head").disabled = mapBlock === null;
  byId("map-head").title = mapBlock === null ? "Choose a block first" : "";
  byId("map-all").disabled = mapBlock === null;
  const value = (token) => (token < prefixCount ? null : map[token - prefixCount]);
  const role = (token) => (isQuery(token) ? " (query)" : "");
  grid.paint({
    colors: (token) => (value(token) === null ? null : divergingCss(value(token), largest)),
    labels: (token) => tokenName(token) + role(token) + (value(token) === null ? "" : `: ${significant(value(token))}`),
    tip: (token) => [
      tokenName(token) + role(token),
      value(token) === null ? "no image token, so it has no place on the map" : `${mapName(mapBlock, mapHead)}: ${significant(value(token))}`,
    ],
    query: isQuery,
  });
  divergingLegend(byId("map-legend"), largest, ...signs);
  const mark = make("span", { class: "ring", "aria-hidden": "true" });
  const every = imageQueries === tokenCount - prefixCount;
  byId("map-legend").append(make("p", {}, ...(every
    ? [`Queries, whose attention is explained: ${QUERIES[model.query]}.`]
    : [mark, " query: its attention is explained"])));
}

function buildMultiples() {
  const table = byId("multiples");
  const header = make("tr", {}, make("th", { scope: "col" }, "Block"), make("th", { scope: "col" }, "all"),
    ...headNumbers().map((head) => make("th", { scope: "col", "aria-label": `head ${head}` }, String(head))));
  const body = blockNumbers().map((block) => make("tr", {}, make("th", { scope: "row" }, String(block)),
    ...[null, ...headNumbers()].map((head) => {
      const canvas = make("canvas", { width: gridColumns, height: gridRows });
      return make("td", {}, make("button", { type: "button", class: "mini", "data-block": block, "data-head": head ?? "all", tabindex: -1 }, canvas));
    })));
  const over = make("tr", { "aria-hidden": "true" }, make("td", { colspan: 2 }), make("th", { colspan: model.heads, class: "over" }, model.heads > 1 ? "Heads" : "Head"));
  table.replaceChildren(make("thead", {}, over, header), make("tbody", {}, ...body));
  table.style.setProperty("--heads", model.heads + 1);
  table.style.setProperty("--cells", `${gridColumns} / ${gridRows}`);
  const mapAt = (button) => ({
    mapBlock: Number(button.dataset.block),
    mapHead: button.dataset.head === "all" ? null : Number(button.dataset.head),
  });
  table.addEventListener("click", (event) => {
    const button = event.target.closest(".mini");
    if (button) update(mapAt(button));
  });
  const showMapTip = (event) => {
    const button = event.target.closest(".mini");
    if (!button) return;
    const { mapBlock, mapHead } = mapAt(button);
    const map = mapOf(mapBlock, mapHead);
    showTip(button, [mapName(mapBlock, mapHead), `sum ${significant(sum(map))}, largest value ${significant(largestOf(map))}`]);
  };
  table.addEventListener("pointerover", showMapTip);
  table.addEventListener("focusin", showMapTip);
  table.addEventListener("pointerleave", hideTip);
  table.addEventListener("focusout", hideTip);
  table.addEventListener("keydown", (event) => {
    const button = event.target.closest(".mini");
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!button || !move) return;
    event.preventDefault();
    const { mapBlock, mapHead } = mapAt(button);
    const column = (mapHead ?? -1) + move[1];
    const next = miniAt(mapBlock + move[0], column < 0 ? (column < -1 ? undefined : null) : column);
    if (next) next.focus();
  });
}

const miniAt = (block, head) =>
  byId("multiples").querySelector(`.mini[data-block="${block}"][data-head="${head === null ? "all" : head}"]`);

function drawMultiples() {
  const { values } = currentMaps();
  const summed = values.map(sumMaps);
  // Sums over heads are larger than single heads, so each kind has its own scale.
  const shared = { all: largestOf(summed.flat()), head: largestOf(values.flat(2)) };
  byId("multiples-words").textContent =
    "Choose a map to enlarge it. Blocks run down, heads across; “all” sums a block's heads. " +
    (state.ownScale
      ? "Each map is stretched to its own largest value, so compare shapes, not strengths."
      : `One scale for all heads (±${significant(shared.head)}), one for the sums (±${significant(shared.all)}).`);
  for (const button of byId("multiples").querySelectorAll(".mini")) {
    const block = Number(button.dataset.block);
    const all = button.dataset.head === "all";
    const map = all ? summed[block] : values[block][Number(button.dataset.head)];
    paintCanvas(button.firstChild, map, state.ownScale ? largestOf(map) : shared[all ? "all" : "head"]);
    button.setAttribute("aria-label", `${mapName(block, all ? null : Number(button.dataset.head))}: sum ${significant(sum(map))}`);
  }
  markMultiple();
}

function paintCanvas(canvas, map, largest) {
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(gridColumns, gridRows);
  map.forEach((value, i) => {
    // No picture lies below small maps, so their strongest color is opaque.
    const { rgb, share } = diverging(value, largest);
    pixels.data.set([...rgb, Math.round(255 * share)], 4 * i);
  });
  context.putImageData(pixels, 0, 0);
}

function markMultiple() {
  const { mapBlock, mapHead } = state;
  const chosen = mapBlock === null ? null : miniAt(mapBlock, mapHead);
  const reachable = chosen ?? miniAt(0, null);
  for (const button of byId("multiples").querySelectorAll(".mini")) {
    button.setAttribute("aria-pressed", String(button === chosen));
    button.tabIndex = button === reachable ? 0 : -1;
  }
}
