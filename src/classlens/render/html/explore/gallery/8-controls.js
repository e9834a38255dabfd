// Questions, filters, the choice of color and order, and the table.
const narrow = matchMedia("(max-width: 900px)");
const SHOWN_PAIRS = 12;
const TABLE_ROWS = 100;

/** Numbers of photos by a key, the most frequent first. */
function frequent(keys) {
  const counts = new Map();
  for (const key of keys) counts.set(key, (counts.get(key) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
}

function setUpQuestions() {
  const usableOnes = [...questions.values()].filter((question) => !question.missing);
  byId("questions").append(...usableOnes.map((question) => {
    const button = make("button", { type: "button", class: "question", "data-question": question.name, title: question.about }, question.label);
    button.addEventListener("click", () => {
      ask(question.name);
      if (narrow.matches) byId("panel").open = false; // the photos lie below it
    });
    return button;
  }));
  const lacking = [...gallery.missing];
  byId("missing-box").hidden = !lacking.length;
  byId("missing").append(...lacking.flatMap(([label, reason]) => [make("dt", {}, label), make("dd", {}, reason)]));
}
onChange(["question"], () => {
  for (const button of byId("questions").children) button.setAttribute("aria-pressed", String(button.dataset.question === state.question));
  byId("about").textContent = questions.get(state.question).about;
});

function setUpClasses(id, indices, words) {
  const select = byId(id);
  const counts = new Map(frequent(indices.filter((index) => index >= 0)));
  const named = [...counts.keys()].sort((a, b) => (className(a) < className(b) ? -1 : 1));
  select.append(make("option", { value: "" }, words), ...named.map((index) => make("option", { value: index }, `${className(index)} (${grouped(counts.get(index))})`)));
  select.addEventListener("change", () => choose({ [id]: select.value === "" ? null : Number(select.value) }, { step: true }));
  onChange([id], () => { select.value = state[id] ?? ""; });
  if (id === "label" && !counts.size) select.closest(".field").hidden = true;
}

function setUpPairs() {
  const wrong = gallery.index.map((_, i) => i).filter(isWrong);
  const pairs = frequent(wrong.map((i) => `${gallery.label[i]} ${gallery.prediction[i]}`)).slice(0, SHOWN_PAIRS);
  byId("pairs-box").hidden = !pairs.length;
  byId("pairs").append(...pairs.map(([pair, count]) => {
    const [label, prediction] = pair.split(" ").map(Number);
    const button = make("button", { type: "button", class: "pair", "data-pair": pair },
      make("span", { class: "pair-names" }, nameText(className(label)), make("span", { class: "arrow" }, " → "), nameText(className(prediction))), make("span", { class: "number" }, grouped(count)));
    button.addEventListener("click", () => {
      const again = state.label === label && state.prediction === prediction;
      choose({ label: again ? null : label, prediction: again ? null : prediction }, { step: true });
    });
    return button;
  }));
  onChange(["label", "prediction"], () => {
    for (const button of byId("pairs").children) button.setAttribute("aria-pressed", String(button.dataset.pair === `${state.label} ${state.prediction}`));
  });
}

function setUpSelects() {
  byId("color").append(...colorable.map((name) => make("option", { value: name }, columns.get(name).label)));
  byId("color").closest(".choices-row").hidden = !colorable.length;
  byId("sort").append(...[...columns].map(([name, column]) => make("option", { value: name }, column.label)));
  byId("color").addEventListener("change", (event) => choose({ color: event.target.value, range: null }, { step: true }));
  byId("sort").addEventListener("change", (event) => choose({ sort: event.target.value }, { step: true }));
  byId("order").addEventListener("click", () => choose({ falling: !state.falling }, { step: true }));
  onChange(["color", "sort", "falling"], () => {
    byId("color").value = state.color ?? "";
    byId("sort").value = state.sort;
    byId("order").textContent = state.falling ? "↓ falling" : "↑ rising";
    byId("order").setAttribute("aria-label", state.falling ? "Falling: the largest comes first" : "Rising: the smallest comes first");
  });
}

function setUpSegments(id, key, values, words) {
  byId(id).append(...values.map((value) => {
    const input = make("input", { type: "radio", name: id, value, id: `${id}-${value}` });
    input.addEventListener("change", () => choose({ [key]: value }));
    onChange([key], () => { input.checked = state[key] === value; });
    return make("label", { for: `${id}-${value}`, title: words[value][1] }, input, make("span", {}, words[value][0]));
  }));
}

function setUpFilters() {
  const search = byId("search");
  search.addEventListener("input", () => choose({ name: search.value }));
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && shown.length && state.view === "grid") goTo(shown[0]);
  });
  onChange(["name"], () => { if (search.value !== state.name) search.value = state.name; });
  const clear = () => choose({ label: null, prediction: null, range: null, name: "" }, { step: true });
  byId("clear-filters").addEventListener("click", clear);
  byId("clear-all").addEventListener("click", () => ask("all"));
  onChange(FILTERS, () => {
    byId("clear-filters").disabled = state.label === null && state.prediction === null && state.range === null && state.name === "";
    byId("shown").replaceChildren(make("strong", {}, grouped(shown.length)), ` of ${photosText(total)}`);
  });
  byId("select-shown").addEventListener("click", () => select(shown, true));
  byId("select-none").addEventListener("click", () => select([...selected], false));
  byId("download").addEventListener("click", download);
  byId("command").textContent = gallery.command;
}

// The table: the same photos with all their numbers, a part at a time.
let tableRows = TABLE_ROWS;
function tableRow(position) {
  const mark = make("input", { type: "checkbox", "aria-label": `Select ${gallery.names[position]}` });
  mark.checked = selected.has(position);
  mark.addEventListener("change", () => select([position], mark.checked));
  return make("tr", {}, make("td", {}, mark), make("th", { scope: "row" }, gallery.opens ? make("a", { href: address(position) }, nameText(gallery.names[position])) : nameText(gallery.names[position])),
    make("td", {}, ...decisionOf(position), ...(isWrong(position) ? [make("span", { class: "wrong-word" }, " ✗ wrong")] : [])),
    ...colorable.filter((name) => name !== "correct").map((name) => make("td", { class: "number" }, valueText(name, columns.get(name).values[position]))));
}
function drawTable() {
  const box = byId("table-box");
  box.hidden = state.view !== "table" || !shown.length;
  box.replaceChildren();
  if (box.hidden) return;
  const numbers = colorable.filter((name) => name !== "correct");
  const heading = (name) => {
    const button = make("button", { type: "button", class: "quiet", title: columns.get(name).about ?? "" }, columns.get(name).label, state.sort === name ? (state.falling ? " ↓" : " ↑") : "");
    button.addEventListener("click", () => choose({ sort: name, falling: state.sort === name ? !state.falling : name !== "name" }, { step: true }));
    return make("th", { scope: "col", class: name === "name" ? "" : "number", "aria-sort": state.sort === name ? (state.falling ? "descending" : "ascending") : false }, button);
  };
  const body = make("tbody", {}, ...shown.slice(0, tableRows).map(tableRow));
  box.append(make("table", {}, make("thead", {}, make("tr", {}, make("th", { scope: "col" }, make("span", { class: "hidden-words" }, "Selected")), heading("name"),
    make("th", { scope: "col" }, "Label → prediction"), ...numbers.map(heading))), body));
  if (shown.length > tableRows) {
    const more = make("button", { type: "button" }, `Show ${grouped(Math.min(TABLE_ROWS, shown.length - tableRows))} more`);
    more.addEventListener("click", () => {
      tableRows += TABLE_ROWS;
      drawTable();
    });
    box.append(make("p", {}, more));
  }
}
onChange([...FILTERS, "view"], () => {
  tableRows = TABLE_ROWS;
  drawTable();
});
