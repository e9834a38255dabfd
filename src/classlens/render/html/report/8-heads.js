// Where each head looks: the attention of one query token in one head, over the picture.
function setUpHeads() {
  if (!imageAt(0).attention) {
    byId("heads").hidden = true;
    return;
  }
  const grid = tokenGrid(byId("head-grid"), { label: "Attention of the query token", prefix: true });
  const [blockSelect, headSelect] = [byId("head-block"), byId("head-number")];
  for (const block of blockNumbers()) blockSelect.append(make("option", { value: block }, String(block)));
  for (const head of headNumbers()) headSelect.append(make("option", { value: head }, String(head)));
  blockSelect.addEventListener("change", () => update({ headBlock: Number(blockSelect.value) }));
  headSelect.addEventListener("change", () => update({ headNumber: Number(headSelect.value) }));
  onChange(["image"], () => grid.setPicture(record.pictures[state.image], ""));
  onChange(["image", "token", "headBlock", "headNumber", "attentionOf"], () => drawHead(grid));
}

// Weights are unpacked when they are first shown: a promise for each image, then its bytes.
const unpackedWeights = new Map();
function weightsOf(index) {
  if (!unpackedWeights.has(index)) {
    unpackedWeights.set(index, null);
    const bytes = Uint8Array.from(atob(imageAt(index).attention.deflate), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    new Response(stream).arrayBuffer().then((buffer) => {
      unpackedWeights.set(index, new Uint8Array(buffer));
      if (state.image === index) update({ attentionOf: index });
    });
  }
  return unpackedWeights.get(index);
}

function drawHead(grid) {
  const { attention } = imageAt(state.image);
  const { headBlock, headNumber } = state;
  const levels = weightsOf(state.image);
  byId("head-block").value = headBlock;
  byId("head-number").value = headNumber;
  const every = attention.queries.length === tokenCount;
  const query = attention.queries.includes(state.token) ? state.token : attention.queries[0];
  const place = attention.queries.indexOf(query);
  const [, heads, queries, tokens] = attention.shape;
  const row = ((headBlock * heads + headNumber) * queries + place) * tokens;
  const largest = attention.largest[headBlock][headNumber][place];
  const weight = (token) => (levels === null ? 0 : largest * (levels[row + token] / attention.levels) ** 2);
  const about = (token) => (weight(token) > 0 ? `about ${percent(weight(token))}` : "hardly any");
  grid.paint({
    colors: (token) => (levels === null ? null : viridis(weight(token) / (largest || 1))),
    labels: (token) => `${tokenName(token)}${token === query ? " (query)" : ""}: ${about(token)}`,
    tip: (token) => [tokenName(token), `${about(token)} of the attention of ${tokenName(query)}`],
    query: (token) => token === query,
  });
  const entropy = attention.entropy[headBlock][headNumber][place];
  const distance = attention.distance[headBlock][headNumber][place];
  byId("head-words").replaceChildren(
    make("strong", {}, tokenName(query)), ` in block ${headBlock}, head ${headNumber}: entropy ${fixed(entropy)} of at most `,
    `${fixed(Math.log(tokens))} nats`, ...(distance < 0 ? [] : [`, mean distance ${fixed(distance, 1)} tokens`]), ".",
    every ? "" : " The page holds only the queries that the head pools.");
  byId("head-legend").replaceChildren(make("div", { class: "scale" },
    make("span", {}, "0"), make("span", { class: "ramp viridis", "aria-hidden": "true" }), make("span", {}, percent(largest))));
}
