// The page of a block.
const LISTED = 16;

setUpFrame();
facts(counted(page.heads.length, "head"), page.units.length > 0 && `${counted(page.units.length, "unit")} with a page`, shell.model);
drawHeads();
drawMlp();
drawUnits();
drawClasses();
finish();

function drawHeads() {
  const copies = page.heads.some((row) => known(row.copy_share));
  const decimals = (value) => fixed(value, 2);
  const cell = (text, range = "") => make("td", { class: "number" }, text, make("small", {}, range));
  const number = (row, name) => cell(known(row[name]) ? decimals(row[name]) : "–", interval({ low: row[`${name}_low`], high: row[`${name}_high`] }, decimals));
  const names = ["strength", "distance", "entropy", ...(copies ? ["copied"] : [])];
  section("heads", "Its heads", "Strength is the mean over the classes of the size of the mean contribution. Distance, in widths of a token, tells how far a token looks; entropy, in nats, how evenly." +
    (copies ? " Copied is the share of classes that the head writes where it reads them." : ""), "--attribution",
  make("div", { class: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, make("th", {}, "head"), ...names.map((text) => make("th", { class: "number" }, text)))),
    make("tbody", {}, ...page.heads.map((row) => make("tr", {}, make("td", { class: "fixed" }, linked(`${row.block}.${row.head}`, row.page)),
      cell(known(row.strength) ? significant(row.strength) : "–"), number(row, "distance"), number(row, "entropy"),
      ...(copies ? [cell(known(row.copy_share) ? percent(row.copy_share) : "–")] : [])))))));
}

function drawMlp() {
  const rows = page.mlp.filter((row) => known(row.all.value)).sort((a, b) => b.all.value - a.all.value);
  if (!rows.length) return;
  section("mlp", "Its MLP", "What the MLP of the block adds on average to the logit of a class in the images of that class, beyond the mean of all logits.", "--attribution",
    foldedBars(rows.map((row) => ({ label: linked(row.class_name, row.page), ...row.all, ...groupMarks(row) })), LISTED, { label: "Contribution of the MLP to each class" }), groupLegend());
}

/** Classes go down; heads and the MLP to the right. */
function drawClasses() {
  const columns = [...page.parts, ...(page.mlp.length ? [{ head: -1, page: null, classes: page.mlp }] : [])];
  const rows = new Map(columns.flatMap(({ classes }) => classes.map((row) => [row.category, row])));
  if (!rows.size) return;
  const categories = [...rows.keys()].sort((a, b) => a - b);
  const values = columns.map(({ classes }) => new Map(classes.map((row) => [row.category, row.all])));
  const limit = largestOf(values.flatMap((column) => [...column.values()].map((row) => row.value ?? 0)));
  const text = signedOn({ low: 0, high: limit });
  const grid = make("div", { class: "parts classes-by-parts", role: "grid", "aria-label": "Contribution to each class by head" });
  grid.style.gridTemplateColumns = `minmax(5em, max-content) repeat(${columns.length}, minmax(32px, 1fr))`;
  grid.append(make("div", { role: "row" }, make("div", { role: "columnheader" }), ...columns.map((column) =>
    make("div", { role: "columnheader" }, column.head < 0 ? "MLP" : linked(`${page.block}.${column.head}`, column.page)))));
  const cells = new Map();
  categories.forEach((category, line) => {
    const { class_name: name, page: address } = rows.get(category);
    grid.append(make("div", { role: "row" }, make("div", { role: "rowheader", title: name }, linked(name, address)), ...columns.map((column, place) => {
      const value = values[place].get(category)?.value;
      if (!known(value)) return make("div", { role: "gridcell", class: "tile undefined" });
      const tile = make("div", { role: "gridcell", class: "tile", "aria-label": `${name}, ${column.head < 0 ? "MLP" : `head ${page.block}.${column.head}`}: ${text(value)}` }, short(value, limit));
      tile.style.setProperty("--color", divergingCss(value, limit));
      cells.set(`${line},${place}`, tile);
      return tile;
    })));
  });
  lattice(grid, cells, (line, place) => {
    const row = values[place].get(categories[line]);
    return [`${rows.get(categories[line]).class_name}, ${columns[place].head < 0 ? "MLP" : `head ${page.block}.${columns[place].head}`}`,
      `${text(row.value)} (${interval(row, text)})`, images(row.images)];
  });
  const legend = make("div", { class: "legend" });
  divergingLegend(legend, limit, "against the class", "for the class", { zero: "pale" });
  section("classes", "Contribution to each class", "The mean contribution of each head and of the MLP to each class over the images of that class. Point at a cell for its interval.", "--attribution",
    make("div", { class: "scroll tall" }, grid), legend).classList.add("wide-card");
}

function drawUnits() {
  if (!page.units.length) return;
  section("units", "Its units", "Hidden units of the MLP that a class page names.", "--attribution --units N",
    make("ul", { class: "lists" }, ...page.units.map((row) => make("li", {}, linked(`${page.block}.${row.unit}`, row.page)))));
}
