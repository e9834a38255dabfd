// The photos that are shown and their order, and how the address holds that choice.
const SIZES = ["small", "medium", "large"];
const VIEWS = ["grid", "table"];
const FIRST = { question: "all", label: null, prediction: null, range: null, name: "", view: "grid", size: "medium", photo: null };

const defaultsOf = (name) => {
  const { sort, falling, color } = questions.get(name);
  return { sort: usable(sort) ? sort : "index", falling, color: colorable.includes(color) ? color : colorable[0] ?? null };
};
const state = { ...FIRST, ...defaultsOf("all"), ...fromAddress(readHash()) };

/** The state that an address describes; anything that the page does not have is as if it were not there. */
function fromAddress(words) {
  const some = (value, values, otherwise) => (values.includes(value) ? value : otherwise);
  const asked = questions.get(words.question);
  const question = asked && !asked.missing ? asked.name : "all";
  const defaults = defaultsOf(question);
  const index = (text) => (/^\d+$/.test(text ?? "") && Number(text) < gallery.classes.length ? Number(text) : null);
  const photo = /^\d+$/.test(words.photo ?? "") ? gallery.index.indexOf(Number(words.photo)) : -1;
  return {
    question,
    label: index(words.label),
    prediction: index(words.prediction),
    range: readRange(words.range),
    name: words.name ?? "",
    color: some(words.color, colorable, defaults.color),
    sort: some(words.sort, [...columns.keys()], defaults.sort),
    falling: words.order ? words.order === "falling" : defaults.falling,
    view: some(words.view, VIEWS, FIRST.view),
    size: some(words.size, SIZES, FIRST.size),
    photo: photo < 0 ? null : photo,
  };
}

function readRange(text) {
  if (text === "unknown") return text;
  const [from, to, ...more] = (text ?? "").split("..");
  const border = (part) => (part === "" ? null : Number(part));
  if (to === undefined || more.length || Number.isNaN(Number(from)) || Number.isNaN(Number(to))) return null;
  return from === "" && to === "" ? null : [border(from), border(to)];
}
const rangeText = (range) => (range === null || range === "unknown" ? range : range.map((border) => border ?? "").join(".."));

/** The address holds what differs from the question alone. */
function toAddress() {
  const defaults = { ...FIRST, ...defaultsOf(state.question) };
  const words = {
    ...Object.fromEntries(["question", "label", "prediction", "name", "color", "sort", "view", "size"].map((key) => [key, state[key]])),
    range: rangeText(state.range),
    order: state.falling ? "falling" : "rising",
    photo: state.photo === null ? null : gallery.index[state.photo],
  };
  defaults.order = defaults.falling ? "falling" : "rising";
  return Object.fromEntries(Object.entries(words).filter(([key, value]) => value !== null && value !== "" && value !== defaults[key]));
}

/** Change the choice. `step`: the browser's way back leads to the choice before. */
function choose(changes, { step = false } = {}) {
  update(changes);
  if (step) history.pushState(null, "", location.href);
  writeHash(toAddress());
}
const ask = (question) => choose({ ...FIRST, view: state.view, size: state.size, question, ...defaultsOf(question) }, { step: true });

const RELATIONS = { equals: (a, b) => a === b, above: (a, b) => a > b, below: (a, b) => a < b };

function inRange(value, range) {
  if (range === null) return true;
  if (range === "unknown") return Number.isNaN(value);
  return (range[0] === null ? !Number.isNaN(value) : value >= range[0]) && (range[1] === null || value < range[1]);
}

/** Photos that pass every filter but the range, in the order of the data. */
const candidates = () => keep(`candidates ${JSON.stringify([state.question, state.label, state.prediction, state.name])}`, () => {
  const tests = questions.get(state.question).where.map(([name, relation, number]) => {
    const { values } = columns.get(name);
    return (i) => RELATIONS[relation](values[i], number);
  });
  if (state.label !== null) tests.push((i) => gallery.label[i] === state.label);
  if (state.prediction !== null) tests.push((i) => gallery.prediction[i] === state.prediction);
  const words = state.name.toLowerCase().split(/\s+/).filter(Boolean);
  const lower = words.length ? keep("names in lower case", () => gallery.names.map((name) => name.toLowerCase())) : [];
  if (words.length) tests.push((i) => words.every((word) => lower[i].includes(word)));
  return gallery.index.map((_, i) => i).filter((i) => tests.every((test) => test(i)));
});

/** Photos that are shown, in their order: what is not known comes last; of those that tie, close calls come first. */
function shownPhotos() {
  const { values } = columns.get(state.sort);
  const colored = state.color === null ? null : columns.get(state.color).values;
  const chosen = candidates().filter((i) => colored === null || inRange(colored[i], state.range));
  const sign = state.falling ? -1 : 1;
  const compare = (of, direction) => (a, b) => {
    const unknown = Number.isNaN(of[a]) - Number.isNaN(of[b]);
    return unknown || Number.isNaN(of[a]) ? unknown : direction * (of[a] - of[b]);
  };
  const first = compare(values, sign);
  const ties = columns.has("margin") ? compare(columns.get("margin").values, 1) : () => 0;
  return chosen.sort((a, b) => first(a, b) || ties(a, b) || a - b);
}
let shown = [];
const FILTERS = ["question", "label", "prediction", "name", "range", "color", "sort", "falling"];
onChange(FILTERS, () => {
  // Only the latest candidates are worth their memory.
  for (const key of kept.keys()) if (key.startsWith("candidates ")) kept.delete(key);
  shown = shownPhotos();
});
