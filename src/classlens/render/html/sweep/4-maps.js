// Effects of tokens over the clean picture: one map for each block, and special tokens as cells below it.

/** Maps in a row of a wide window: four to seven, so that the last row is as full as can be. */
const acrossOf = (count) => [6, 4, 5, 7].reduce((best, across) =>
  (Math.ceil(count / across) * across - count < Math.ceil(count / best) * best - count ? across : best));

function drawMaps() {
  const image = currentImage();
  const { whole, shown } = scaleOf(image);
  const [gridRows, gridColumns] = image.grid;
  const places = new Map(image.parts.map((position, place) => [position, place]));
  byId("maps").style.setProperty("--across", acrossOf(record.blocks.length));
  const source = record.pictures[record.images[state.image].pictures[0]];
  const paint = (cell, effect) => {
    cell.classList.toggle("undefined", effect === null);
    cell.style.setProperty("--color", effect === null ? "transparent" : divergingCss(effect, shown));
  };
  byId("maps").replaceChildren(...record.blocks.map((block, row) => {
    const cells = new Map();
    const at = new Map();
    const add = (position, line, column, ...children) => {
      const place = places.get(position);
      const effect = image.effect[row][place];
      const cell = make("div", { class: "cell", role: "img",
        "aria-label": `${capital(nameOf(image, row, place))}: ${effect === null ? "not defined" : share(effect)}` }, ...children);
      paint(cell, effect);
      cells.set(`${line},${column}`, cell);
      at.set(`${line},${column}`, place);
      return cell;
    };
    const grid = make("div", { class: "cells" });
    grid.style.gridTemplateColumns = `repeat(${gridColumns}, 1fr)`;
    for (let number = 0; number < gridRows * gridColumns; number++) {
      const position = model.prefix.length + number;
      grid.append(places.has(position) ? add(position, Math.floor(number / gridColumns), number % gridColumns) : make("div"));
    }
    const picture = make("div", { class: "picture" }, make("img", { src: source, alt: "", draggable: "false" }), grid);
    const specials = model.prefix.flatMap((name, position) => {
      if (!places.has(position)) return [];
      const effect = image.effect[row][places.get(position)];
      return [add(position, gridRows, position, make("span", {}, `${prefixName(name)} ${effect === null ? "–" : share(effect)}`))];
    });
    const figure = make("figure", { role: "group", "aria-label": `Block ${block}` },
      make("figcaption", {}, `block ${block}`), picture,
      ...(specials.length ? [make("div", { class: "specials" }, ...specials)] : []));
    lattice(figure, cells, (line, column) => {
      const place = at.get(`${line},${column}`);
      return tipLines(nameOf(image, row, place), image.effect[row][place], image.patched[row][place]);
    });
    return figure;
  }));
  const below = model.prefix.length ? ` Below each map: ${model.prefix.map(prefixName).join(", ")}.` : "";
  byId("maps-words").textContent = `The clean picture; each token has the color of its ${measured} in that block.${below}`;
  drawLegend(byId("maps-legend"), shown, shown < whole, "transparent");
}
