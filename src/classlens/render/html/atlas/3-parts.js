// Heads and MLPs as a grid of blocks and heads, colored by a number; each cell leads to its page.

/**
 * `parts`: rows of `block`, `head` (-1 for the MLP), `value` and `page`. `tips(part)` gives further lines of the tip.
 * Unsigned values are colored in one direction.
 */
function partsGrid(parts, { tips = () => [], label, limit = largestOf(parts.map((part) => part.value ?? 0)), text = signedOn({ low: 0, high: limit }) }) {
  const blocks = [...new Set(parts.map((part) => part.block))].sort((a, b) => a - b);
  const heads = [...new Set(parts.map((part) => part.head))].sort((a, b) => a - b).filter((head) => head >= 0);
  const columns = parts.some((part) => part.head < 0) ? [...heads, -1] : heads;
  const places = new Map(parts.map((part) => [`${part.block},${part.head}`, part]));
  const grid = make("div", { class: "parts", role: "grid", "aria-label": label });
  grid.style.gridTemplateColumns = `max-content repeat(${heads.length}, minmax(30px, 1fr))${columns.length > heads.length ? " 6px minmax(38px, 1.2fr)" : ""}`;
  const gap = () => make("span", { class: "gap", "aria-hidden": "true" });
  const row = (first, cells) => make("div", { role: "row" }, first,
    ...cells.flatMap((cell, i) => (columns[i] < 0 ? [gap(), cell] : [cell])));
  grid.append(row(make("div", { role: "columnheader" }, ""), columns.map((head) =>
    make("div", { role: "columnheader" }, head < 0 ? "MLP" : make("span", {}, make("span", { class: "wide" }, "head "), String(head))))));
  const cells = new Map();
  blocks.forEach((block, number) => {
    grid.append(row(make("div", { role: "rowheader" }, make("a", { href: `${shell.root}blocks/${block}.html` }, make("span", { class: "wide" }, "block "), String(block))),
      columns.map((head, place) => {
        const part = places.get(`${block},${head}`);
        const value = part?.value;
        if (!known(value)) return make("div", { role: "gridcell", class: "tile undefined" });
        const tile = make(part.page ? "a" : "span", { class: "tile", href: part.page && shell.root + part.page, "aria-label": `${capital(partName(part))}: ${text(value)}` }, short(value, limit));
        tile.style.setProperty("--color", divergingCss(value, limit));
        cells.set(`${number},${place}`, tile);
        return make("div", { role: "gridcell" }, tile);
      })));
  });
  lattice(grid, cells, (line, place) => {
    const part = places.get(`${blocks[line]},${columns[place]}`);
    return [capital(partName(part)), ...tips(part)];
  });
  return make("div", { class: "scroll" }, grid);
}

/** A number for a small cell: as many decimals as the largest needs. */
const short = (value, limit) => fixed(value, limit >= 100 ? 0 : limit >= 9.95 ? 1 : limit >= 0.095 ? 2 : 3).replace(/^(−?)0\./, "$1.");

/** Buttons of which one is pressed. */
function choices(label, names, chosen, choose) {
  const group = make("div", { class: "choices", role: "group", "aria-label": label });
  for (const [key, text] of names) {
    const button = make("button", { type: "button", "data-key": key, "aria-pressed": String(key === chosen) }, text);
    button.addEventListener("click", () => {
      for (const other of group.children) other.setAttribute("aria-pressed", String(other === button));
      choose(key);
    });
    group.append(button);
  }
  return group;
}
