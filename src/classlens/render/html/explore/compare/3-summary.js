// Both measurements and their measures.
const FACTS = [["model", "model"], ["data", "data"], ["classes", "classes"], ["blocks", "blocks"], ["images", "measured images"], ["only", "in this one alone"]];

function drawSides() {
  byId("title").replaceChildren(nameText(comparison.first.name), make("span", { class: "and" }, " and "), nameText(comparison.second.name));
  const flipped = comparison.broken + comparison.fixed + comparison.changed;
  const facts = [
    `${imageCount(comparison.images)} in common, by ${comparison.matched_by}`,
    `${grouped(flipped)} flipped: ${grouped(comparison.broken)} broken, ${grouped(comparison.fixed)} fixed, ${grouped(comparison.changed)} otherwise`,
    `${counted(comparison.common_classes, "class")} in common`,
    comparison.other_labels && `${imageCount(comparison.other_labels)} with other labels left out of what goes by label`,
  ];
  byId("model-facts").replaceChildren(...facts.filter(Boolean).map((text) => make("span", {}, text)));
  const number = (side, key) => (typeof side[key] === "number" ? grouped(side[key]) : `${side[key]}${key === "data" && side.split ? `, split ${side.split}` : ""}`);
  byId("sides").append(...SIDES.map((name) => make("div", { class: "side" },
    make("h3", {}, mark(name), ` ${capital(name)}: `, nameText(comparison[name].name)),
    make("dl", {}, ...FACTS.map(([key, label]) => make("div", {}, make("dt", {}, label), make("dd", {}, nameText(number(comparison[name], key)))))))));
}

function drawSummary() {
  const text = (row) => (row.unit ? (value) => fixed(value, 2) : (value) => points(value));
  const change = (row) => (row.unit ? (value) => signed(value, 2) : signedPoints);
  const cell = (row, prefix, format) => make("td", { class: "number" }, `${format(row[prefix])} `, make("small", {}, interval(row, `${prefix}_`, format)));
  const body = comparison.summary.map((row) => make("tr", { "data-measure": row.measure },
    make("th", { scope: "row" }, row.label, make("small", {}, row.about)),
    cell(row, "first", text(row)), cell(row, "second", text(row)), cell(row, "difference", change(row))));
  byId("summary").append(make("table", { class: "measures" },
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Measure"), ...SIDES.map((side) => make("th", { scope: "col", class: "number" }, mark(side), ` ${capital(side)}`)),
      make("th", { scope: "col", class: "number" }, "Difference"))),
    make("tbody", {}, ...body)));
  const accuracy = comparison.summary.find((row) => row.measure === "accuracy");
  if (!accuracy) {
    byId("verdict").textContent = comparison.missing.classes ? `No accuracy: ${comparison.missing.classes}.` : "";
    return;
  }
  byId("verdict").textContent = `Of ${imageCount(accuracy.images)} with a label, ${grouped(comparison.broken)} right predictions were broken and ` +
    `${grouped(comparison.fixed)} wrong ones fixed; if flips went either way by chance, such a difference or a larger one would have a probability of ${pText(accuracy.p).replace("< ", "less than ")} ` +
    "(McNemar's exact test). Differences of shares are in percentage points.";
}
