// Heads and MLPs that changed: a grid of blocks and heads, and a list with intervals.
const PARTS = { difference: "change", effect: "effect", first: "first", second: "second" };
const PART_WORDS = {
  difference: "The mean change of the contribution, second minus first.",
  effect: "The mean change over the standard deviation of the changes of images: how steady it is, whatever its size.",
  first: "The mean contribution in the first.",
  second: "The mean contribution in the second.",
};
const SHOWN_PARTS = 12;
const sureOf = (row) => row.p_adjusted < SURE;
let allParts = false;

function drawHeads() {
  const host = byId("heads");
  if (!comparison.heads.length) {
    host.replaceChildren(make("p", {}, `No part can be compared: ${comparison.missing.heads}.`));
    return;
  }
  const group = make("div", { class: "choices", role: "group", "aria-label": "Colors of the grid" });
  choices(group, Object.entries(PARTS), state.parts, (parts) => {
    update({ parts });
    byId("heads").querySelector(`[data-key="${parts}"]`).focus();
  });
  const both = state.parts === "first" || state.parts === "second";
  const limit = largestOf(comparison.heads.flatMap((row) => (both ? SIDES.map((side) => row[side]) : [row[state.parts] ?? 0])));
  const legend = make("div", { class: "legend" });
  divergingLegend(legend, limit, both ? "against the label" : "less for the label", both ? "for the label" : "more for the label", { zero: "pale" });
  host.replaceChildren(make("div", { class: "split heads" },
    make("div", {}, group, make("p", { class: "hint" }, PART_WORDS[state.parts]), partsGrid(limit), legend,
      make("p", { class: "hint" }, make("span", { class: "swatch unsure", "aria-hidden": "true" }), " dashed: the change may be chance (adjusted p of 0.05 or more). Blocks go down, heads to the right; Tab reaches the grid, arrow keys its cells.")),
    make("div", {}, make("h3", {}, byEffect() ? "Largest effects" : "Largest changes"), partList(),
      make("p", { class: "hint" }, `The effect is the mean change over the standard deviation of the changes of images. p values are those of paired t tests, adjusted for the number of parts: few of those below 0.05 are false. The classes named are the largest changes among all classes, so that chance makes them look larger than they are.`))));
}

function headPage(row) {
  const i = [1, 0].find((side) => comparison.links?.[side]?.heads);
  if (i === undefined) return null;
  return row.head < 0 ? `${comparison.links[i].folder}atlas/blocks/${row.block}.html` : `${comparison.links[i].folder}atlas/heads/${row.block}.${row.head}.html`;
}

const short = (value, limit) => fixed(value, limit >= 9.95 ? 1 : limit >= 0.095 ? 2 : 3).replace(/^(−?)0\./, "$1.");

function partsGrid(limit) {
  const blocks = [...new Set(comparison.heads.map((row) => row.block))].sort((a, b) => a - b);
  const heads = [...new Set(comparison.heads.map((row) => row.head))].sort((a, b) => a - b);
  const columns = [...heads.filter((head) => head >= 0), ...heads.filter((head) => head < 0)];
  const parts = new Map(comparison.heads.map((row) => [`${row.block},${row.head}`, row]));
  const grid = make("div", { class: "parts", role: "grid", "aria-label": `${capital(PARTS[state.parts])} by block and head` });
  grid.style.gridTemplateColumns = `max-content repeat(${columns.length}, minmax(30px, 1fr))`;
  grid.append(make("div", { role: "row" }, make("div", { role: "columnheader" }, ""), ...columns.map((head) => make("div", { role: "columnheader" }, head < 0 ? "MLP" : String(head)))));
  const cells = new Map();
  blocks.forEach((block, line) => grid.append(make("div", { role: "row" }, make("div", { role: "rowheader" }, String(block)), ...columns.map((head, column) => {
    const row = parts.get(`${block},${head}`);
    const value = row?.[state.parts];
    if (!known(value)) return make("div", { role: "gridcell", class: "tile undefined" });
    const address = headPage(row);
    const tile = make(address ? "a" : "span", { class: sureOf(row) ? "tile" : "tile unsure", href: address, "aria-label": `${capital(partName(row))}: ${signed(value, 3)}` }, short(value, limit));
    tile.style.setProperty("--color", divergingCss(value, limit));
    cells.set(`${line},${column}`, tile);
    return make("div", { role: "gridcell" }, tile);
  }))));
  lattice(grid, cells, (line, column) => {
    const row = parts.get(`${blocks[line]},${columns[column]}`);
    const text = (value) => signed(value, 3);
    return [capital(partName(row)), `first ${text(row.first)}, second ${text(row.second)}`, `change ${text(row.difference)} (${interval(row, "difference_", text)})`,
      `${known(row.effect) ? `effect ${signed(row.effect)}` : "the same in every image"}, ${known(row.p_adjusted) ? `adjusted p ${pText(row.p_adjusted)}` : "one image"}`];
  });
  return make("div", { class: "scroll" }, grid);
}

const byEffect = () => state.parts === "effect";

function partList() {
  // The table goes by effect.
  const every = byEffect() ? comparison.heads : [...comparison.heads].sort((a, b) => Math.abs(b.difference) - Math.abs(a.difference));
  const rows = allParts ? every : every.slice(0, SHOWN_PARTS);
  const ends = every.slice(0, SHOWN_PARTS).flatMap((row) => [row.difference, row.difference_low ?? 0, row.difference_high ?? 0]);
  const limit = largestOf(ends) || 1;
  const at = (value) => 50 + 50 * Math.max(-1, Math.min(1, value / limit));
  const list = make("div", { class: "changes", role: "list", "aria-label": `Heads and MLPs by ${byEffect() ? "effect" : "change"}` }, ...rows.map((row) => {
    const text = (value) => signed(value, Math.abs(row.difference) < 0.095 ? 3 : 2);
    const track = make("span", { class: "track", "aria-hidden": "true" });
    const place = (name, low, high) => {
      const element = make("span", { class: name });
      element.style.left = `${at(Math.min(low, high))}%`;
      element.style.width = `${at(Math.max(low, high)) - at(Math.min(low, high))}%`;
      track.append(element);
    };
    place(`fill ${row.difference < 0 ? "against" : "for"}`, 0, row.difference);
    if (known(row.difference_low)) place("whisker", row.difference_low, row.difference_high);
    const address = headPage(row);
    const most = row.classes.slice(0, 3).flatMap((each, i) => [i ? ", " : "; most in ", nameText(each.class_name), ` ${text(each.difference)}`]);
    return make("div", { class: "bar", role: "listitem", "data-part": `${row.block}.${row.head}` },
      make("span", { class: "label" }, address ? make("a", { href: address }, capital(partName(row))) : capital(partName(row))), track,
      make("span", { class: sureOf(row) ? "number sure" : "number" }, `${text(row.difference)} `, make("small", {}, interval(row, "difference_", text))),
      make("span", { class: "note" }, known(row.effect) ? `effect ${signed(row.effect)}, ` : "", known(row.p_adjusted) ? `adjusted p ${pText(row.p_adjusted)}` : "", ...most));
  }));
  if (allParts || comparison.heads.length <= SHOWN_PARTS) return list;
  const more = make("button", { type: "button" }, `Show all ${grouped(comparison.heads.length)} parts`);
  more.addEventListener("click", () => {
    allParts = true;
    drawHeads();
  });
  return make("div", {}, list, more);
}
