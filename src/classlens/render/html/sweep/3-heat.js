// The heatmap: blocks go down, parts of a block to the right.
const FEW = 32; // parts of a block up to which tiles have numbers

function drawHeat() {
  const image = currentImage();
  const host = byId("heat");
  const few = image.parts.length <= FEW;
  const { whole, ofImageTokens, shown } = scaleOf(image);
  const what = { heads: "head", sublayers: "sublayer", tokens: "token", units: "unit" }[record.over];
  byId("heat-title").textContent = `${capital(record.estimate || "effect")} by block and ${what}`;
  host.setAttribute("aria-label", `${capital(measured)}s by block and ${what}`);
  host.classList.toggle("fine", !few);
  host.style.gridTemplateColumns = `max-content repeat(${image.parts.length}, minmax(${few ? 27 : 5}px, 1fr))`;
  host.style.maxWidth = few ? `${80 + 84 * image.parts.length}px` : "";
  const cells = new Map();
  const rows = image.effect.map((effects, row) => {
    const tiles = effects.map((effect, place) => {
      const tile = make("div", { role: "gridcell", class: effect === null ? "tile undefined" : "tile",
        "aria-label": `${capital(nameOf(image, row, place))}: ${effect === null ? "not defined" : share(effect)}` });
      if (effect !== null) tile.style.setProperty("--color", divergingCss(effect, shown));
      if (few) tile.textContent = effect === null ? "–" : share(effect).slice(0, -1);
      cells.set(`${row},${place}`, tile);
      return tile;
    });
    return make("div", { role: "row" }, make("div", { role: "rowheader" }, few ? `block ${record.blocks[row]}` : String(record.blocks[row])), ...tiles);
  });
  host.replaceChildren(make("div", { role: "row" }, ...headers(image, few)), ...rows);
  lattice(host, cells, (row, place) => tipLines(nameOf(image, row, place), image.effect[row][place], image.patched[row][place]));
  drawLegend(byId("heat-legend"), shown, shown < whole, "pale");
  byId("heat-scale").hidden = !(ofImageTokens > 0 && ofImageTokens < whole);
  byId("heat-hint").textContent = (few ? "Numbers are percent. " : "Columns are tokens, row by row of the picture; numbers at the top are rows. ") +
    `Point at a cell for its exact ${measured}; with the keyboard, Tab to the first cell and use the arrow keys.`;
}

/** A header for each part, or for the special tokens and each row of the picture. */
function headers(image, few) {
  const corner = make("div", { role: "columnheader" }, few ? "" : make("span", { class: "corner" }, "block"));
  const header = (text, parts, title) => {
    const element = make("div", { role: "columnheader", title }, text);
    element.style.gridColumn = `span ${parts}`;
    return element;
  };
  if (few) return [corner, ...image.labels.map((label) => header(label, 1, label))];
  const runs = [];
  image.parts.forEach((position) => {
    const row = isImageToken(position) ? Math.floor((position - model.prefix.length) / image.grid[1]) : -1;
    if (runs.at(-1)?.row === row) runs.at(-1).parts++;
    else runs.push({ row, parts: 1 });
  });
  return [corner, ...runs.map(({ row, parts }) => (row < 0
    ? header("", parts, model.prefix.map(prefixName).join(", ")) : header(String(row), parts, `row ${row}`)))];
}
