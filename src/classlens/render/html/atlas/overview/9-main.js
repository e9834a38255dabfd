// The first page: search, accuracy by class, and the strength of heads and MLPs.
const FOLDERS = { class: "classes", block: "blocks", head: "heads", unit: "units" };
const RESULTS = 30;
const addressOf = ([kind, number]) => `${FOLDERS[kind]}/${number}.html`;
const entryName = ([kind, number, name]) => (kind === "class" ? name : `${kind} ${number}`);

/** How well an entry fits the words, from 0; null where one of them does not occur. */
function fit(entry, words) {
  const name = entryName(entry).toLowerCase();
  const text = `${entry[0]} ${entry[1]} ${entry[2]}`.toLowerCase();
  let worst = 0;
  for (const word of words) {
    if (!text.includes(word)) return null;
    const starts = name.startsWith(word) || entry[1] === word || entry[0] === word;
    const begins = starts || text.split(/[\s,]+/).some((part) => part.startsWith(word));
    worst += entry[1] === word ? 0 : starts ? 1 : begins ? 2 : 3;
  }
  return worst;
}

function search(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return [];
  const kinds = Object.keys(FOLDERS);
  return page.entries.map((entry, i) => ({ entry, i, score: fit(entry, words) })).filter(({ score }) => score !== null)
    .sort((a, b) => a.score - b.score || kinds.indexOf(a.entry[0]) - kinds.indexOf(b.entry[0]) || a.i - b.i).map(({ entry }) => entry);
}

function setUpSearch() {
  const input = make("input", { id: "search", type: "search", role: "combobox", autocomplete: "off", spellcheck: "false", "aria-expanded": "false",
    "aria-controls": "results", "aria-autocomplete": "list", "aria-label": "Search classes, heads, blocks and units", placeholder: "A class, or head 4.3, block 4, unit 4.117" });
  const results = make("ul", { id: "results", role: "listbox", "aria-label": "Pages" });
  const count = make("p", { class: "hint", id: "count", role: "status" });
  byId("main").append(make("section", { class: "card", "aria-label": "Search" },
    make("h2", {}, "Search"),
    make("div", { id: "search-box" }, input, results), count));
  let chosen = -1;
  const choose = (next) => {
    chosen = next;
    [...results.children].forEach((item, i) => item.setAttribute("aria-selected", String(i === chosen)));
    results.children[chosen]?.scrollIntoView({ block: "nearest" });
    if (chosen >= 0) input.setAttribute("aria-activedescendant", `result-${chosen}`);
    else input.removeAttribute("aria-activedescendant");
  };
  const draw = () => {
    const matches = search(input.value);
    results.replaceChildren(...matches.slice(0, RESULTS).map((entry, i) => make("li", { id: `result-${i}`, role: "option", "aria-selected": "false" },
      make("a", { href: addressOf(entry), tabindex: "-1" }, make("span", {}, entry[0]), make("span", {}, nameText(entry[0] === "class" ? entry[2] : entry[1])),
        ...(entry[0] === "unit" && entry[2] ? [make("span", {}, "points at ", nameText(entry[2]))] : [])))));
    input.setAttribute("aria-expanded", String(matches.length > 0));
    count.replaceChildren(...(!input.value.trim() ? ["Press ", make("kbd", {}, "/"), " to search from any page, arrow keys to choose, ", make("kbd", {}, "Enter"), " to open."]
      : [matches.length ? `${grouped(matches.length)} of ${grouped(page.entries.length)} pages${matches.length > RESULTS ? `; the first ${RESULTS} are listed` : ""}.`
        : "No page has these words."]));
    choose(matches.length ? 0 : -1);
  };
  input.addEventListener("input", draw);
  input.addEventListener("keydown", (event) => {
    const listed = results.children.length;
    if (event.key === "ArrowDown" && listed) choose((chosen + 1) % listed);
    else if (event.key === "ArrowUp" && listed) choose((chosen - 1 + listed) % listed);
    else if (event.key === "Enter" && chosen >= 0) location.href = results.children[chosen].firstChild.href;
    else if (event.key === "Escape") {
      input.value = "";
      draw();
    } else return;
    event.preventDefault();
  });
  draw();
}

setUpFrame();
const labeled = shell.labels;
const notes = [...shell.notes,
  ...(shell.pending ? [`${images(shell.pending)} of the store ${shell.pending === 1 ? "is" : "are"} not measured yet, and not part of the atlas.`] : []),
  ...(shell.skipped ? [`${images(shell.skipped)} of the store ${shell.skipped === 1 ? "was" : "were"} skipped as unreadable.`] : [])];
const right = sum(page.classes.map((row) => row.correct));
const total = sum(page.classes.map((row) => row.images));
facts(`data ${shell.data}${shell.split ? `, split ${shell.split}` : ""}`, images(total || sum(page.classes.map((row) => row.predicted))), counted(page.classes.length, "class"),
  counted(new Set(page.parts.map((part) => part.block)).size, "block"), counted(page.parts.filter((part) => part.head >= 0).length, "head"),
  labeled && `${percent(right / total)} right`);
setUpSearch();
byId("main").append(make("section", { class: "card", "aria-label": "About the atlas" }, make("p", { class: "lead" },
  "This atlas shows how a Vision Transformer builds its classes. The model adds up contributions of its parts: heads, which move information between image tokens (patches), " +
  "and MLPs, made of hidden units, which work on each token alone. A contribution is what a part adds to the logit of a class beyond what it adds to the mean of all classes: " +
  "above zero it speaks for the class, below zero against it. These contributions are exact: with the embeddings and biases they sum up to the decision."),
  ...notes.map((note) => make("p", { class: "note-card hint", role: "note" }, nameText(note)))));
if (labeled) {
  const order = [...page.classes].sort((a, b) => (b.accuracy ?? -1) - (a.accuracy ?? -1) || a.category - b.category);
  section("classes", "Accuracy by class", "The share of the images of each class that the model predicts right, with the interval in which it lies for further images.", "",
    make("div", { class: "tall", tabindex: "0", role: "region", "aria-label": "Classes" }, bars(order.map((row) => ({
      label: linked(row.class_name, row.page), value: row.accuracy, low: row.accuracy_low, high: row.accuracy_high,
      note: `${grouped(row.correct)} of ${images(row.images)} right, predicted ${grouped(row.predicted)} times`,
    })), { text: percent, sign: false, scale: { low: 0, high: 1 }, label: "Accuracy by class" })));
} else {
  section("classes", "Classes", "The data set has no labels: the class of an image is the one that the model predicts.", "",
    make("div", { class: "tall", tabindex: "0", role: "region", "aria-label": "Classes" }, bars(page.classes.map((row) => ({ label: linked(row.class_name, row.page), value: row.predicted })),
      { text: grouped, sign: false, label: "Predicted images by class" })));
}
const card = section("heads", "Strength of heads and MLPs", "How much each part says of the class of an image, for or against it: the mean over the classes of the size of its mean contribution. Intervals are on the pages of the parts.",
  "--attribution", partsGrid(page.parts, { text: significant, label: "Mean absolute contribution by block and head",
    tips: (part) => [`mean absolute contribution ${significant(part.value)}`, part.page ? "Enter or click opens its page" : "has no page"] }));
card.insertBefore(make("p", { class: "hint" }, "Blocks go down, heads to the right. Point at a cell for its number; with the keyboard, Tab to the first cell and use the arrow keys."), card.lastChild);
const blockLists = [...new Set(page.parts.map((part) => part.block))];
if (!shell.units) emptySection("units", "Units", ["This atlas has no hidden units: measure the store with ", "--attribution --units 64 for them."].join(""));
else section("units", "Units", "The hidden units that class pages name, by block: search for their numbers or for the class that they point at.", "--attribution --units N",
  make("div", { class: "tall", tabindex: "0", role: "region", "aria-label": "Units" }, ...blockLists.map((block) => {
    const units = page.entries.filter(([kind, number]) => kind === "unit" && number.startsWith(`${block}.`));
    return units.length > 0 && make("p", {}, linked(`Block ${block}`, `blocks/${block}.html`), ": ", ...units.flatMap((entry, i) => [...(i ? [", "] : []), linked(entry[1], addressOf(entry))]));
  }).filter(Boolean))).classList.add("wide-card");
finish();
