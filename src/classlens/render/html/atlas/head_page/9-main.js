// The page of a head.
const LISTED = 16;

setUpFrame();
const total = page.heads.length;
facts(`block ${page.block}, one of ${counted(total, "head")}`, images(page.contribution_images), shell.model);
drawClasses();
drawAttention();
drawTokens();
drawMap();
finish();

function drawClasses() {
  const rows = page.classes.filter((row) => known(row.all.value)).sort((a, b) => b.all.value - a.all.value);
  if (!rows.length) return emptySection("classes", "Classes that it writes", "No class has contributions of the head in the store.");
  const top = rows[0].all.value > 0 ? ["Most of all it writes ", linked(rows[0].class_name, rows[0].page), ". "] : [];
  section("classes", "Classes that it writes", ["What the head adds on average to the logit of a class in the images of that class, beyond the mean of all logits. ", ...top], "--attribution",
    foldedBars(rows.map((row) => ({ label: linked(row.class_name, row.page), ...row.all, ...groupMarks(row) })), LISTED, { label: "Contribution to each class" }), groupLegend());
}

/** The place of the head among those of its block, from 1 for the largest. */
function placeWords(name, most, least) {
  const values = page.heads.filter((row) => known(row[name])).sort((a, b) => b[name] - a[name]);
  const place = values.findIndex((row) => row.head === page.head);
  if (place < 0 || values.length < 2) return "";
  if (place === 0) return `Head ${page.block}.${page.head} is the ${most} of its block.`;
  if (place === values.length - 1) return `Head ${page.block}.${page.head} is the ${least} of its block.`;
  return `Head ${page.block}.${page.head} is no. ${place + 1} of ${values.length} in its block, counted from the ${most}.`;
}

function drawAttention() {
  const list = (name) => bars(page.heads.map((row) => ({ label: linked(partName(row), row.page), value: row[name], low: row[`${name}_low`], high: row[`${name}_high`], current: row.head === page.head })),
    { text: (value) => fixed(value, 2), sign: false, label: name });
  const card = section("attention", "Where it attends", "How far a token looks with this head, and how evenly: a small distance is a local head, a small entropy one that picks few tokens. The other heads of the block stand beside it.", "--attribution",
    make("h3", {}, "Distance, in widths of a token"), make("p", { class: "hint" }, placeWords("distance", "farthest", "nearest")), list("distance"),
    make("h3", {}, "Entropy, in nats"), make("p", { class: "hint" }, placeWords("entropy", "most even", "sharpest")), list("entropy"));
  card.insertBefore(make("p", { class: "hint" }, "See all of them on the page of ", linked(`block ${page.block}`, page.block_page), "."), card.lastChild);
}

function drawTokens() {
  if (!page.tokens.length) return;
  section("tokens", "Patches that it reads", ["The tokens of the data set through which the head adds most to the class of their image, at most one of an image: what it reads there. ", CROP_WORDS], "--attribution",
    crops(page.tokens, (row) => [...decision(row), signed(row.contribution)]));
}

function drawMap() {
  if (!page.map.length) return;
  const cell = (name, address) => make("td", {}, linked(name, address));
  section("map", "Its value-output map", "From the parameters alone: if a token holds one class, which class does the head write? These are the largest entries; rows in color copy the class that they read.", "--attribution",
    known(page.copy_share) ? make("dl", { class: "figures" }, make("div", {}, make("dt", {}, "Copied classes"), make("dd", {}, percent(page.copy_share), make("small", {}, "of the classes are what the head writes most where it reads them; exact, without interval")))) : "",
    make("table", {}, make("thead", {}, make("tr", {}, make("th", {}, "reads"), make("th", {}, "writes"), make("th", { class: "number" }, "score"))),
      make("tbody", {}, ...page.map.map((row) => make("tr", { class: row.input_class === row.output_class && "copies" }, cell(row.input_name, row.input_page), cell(row.output_name, row.output_page),
        make("td", { class: "number" }, significant(row.score)))))));
}
