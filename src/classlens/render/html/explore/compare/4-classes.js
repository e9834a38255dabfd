// Accuracy by class: both shares on one line.
const LISTED = 20;
let allClasses = false;

function drawClasses() {
  if (!comparison.classes.length) {
    byId("classes-card").replaceChildren(byId("classes-title"), make("p", { class: "lead" }, `No class can be compared: ${comparison.missing.classes}.`));
    return;
  }
  const rows = [...comparison.classes];
  if (state.order === "gain") rows.reverse();
  if (state.order === "name") rows.sort((a, b) => a.class_name.localeCompare(b.class_name));
  byId("class-order").value = state.order;
  const list = make("div", { class: "dumbbells", role: "list", "aria-label": "Accuracy by class" }, ...(allClasses ? rows : rows.slice(0, LISTED)).map(dumbbell));
  byId("classes").replaceChildren(list);
  if (!allClasses && rows.length > LISTED) {
    const more = make("button", { type: "button" }, `Show all ${grouped(rows.length)} classes`);
    more.addEventListener("click", () => {
      allClasses = true;
      drawClasses();
    });
    byId("classes").append(more);
  }
}

function dumbbell(row) {
  const track = make("span", { class: "line", "aria-hidden": "true" });
  const place = (element, low, high) => {
    element.style.left = `${100 * Math.min(low, high)}%`;
    if (element.classList.contains("span")) element.style.width = `${100 * Math.abs(high - low)}%`;
    track.append(element);
  };
  place(make("span", { class: `span ${row.difference < 0 ? "loss" : "gain"}` }), row.first, row.second);
  for (const side of SIDES) place(mark(side), row[side], row[side]);
  const index = comparison.class_names.indexOf(row.class_name);
  const label = make("button", { type: "button", class: "link", title: `Images of ${row.class_name} that flipped` }, nameText(row.class_name));
  label.addEventListener("click", () => {
    update({ kind: "all", label: String(index), pair: "", page: 0 });
    byId("flips-card").scrollIntoView();
    byId("flip-label").focus({ preventScroll: true });
  });
  const sure = row.p_adjusted < SURE;
  return make("div", { class: "dumbbell", role: "listitem", "data-class": row.class_name },
    make("span", { class: "label" }, label), track,
    make("span", { class: sure ? "number sure" : "number" }, `${signedPoints(row.difference)} `, make("small", {}, interval(row, "difference_", signedPoints))),
    make("span", { class: "note" }, `${points(row.first)} to ${points(row.second)} of ${imageCount(row.images)}; ${grouped(row.broken)} broken, ${grouped(row.fixed)} fixed; adjusted p ${pText(row.p_adjusted)}`));
}

function setUpClasses() {
  byId("class-keys").append(...SIDES.map((side) => keyOf(side)), make("span", {}, "numbers: change in percentage points and its interval, ", make("strong", {}, "bold"), " where adjusted p is below 0.05"));
  byId("class-order").addEventListener("change", (event) => update({ order: event.target.value }));
  onChange(["order"], drawClasses);
}
