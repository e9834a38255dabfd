// The photos of the gallery, column by column, and their numbers in words.
const gallery = read("gallery");
const total = gallery.index.length;

const numbersOf = (values) => Float64Array.from(values, (value) => value ?? NaN);
const ordered = (values) => {
  const order = values.map((_, i) => i).sort((a, b) => (values[a] < values[b] ? -1 : values[a] > values[b] ? 1 : a - b));
  const places = new Float64Array(values.length);
  order.forEach((position, place) => { places[position] = place; });
  return places;
};
const hasLabels = gallery.correct.some((value) => value !== null);

/** Numbers of photos by name; `edges` are the borders of the bars of those that color. */
const columns = new Map([
  ["index", { label: "Order of the data", values: numbersOf(gallery.index) }],
  ["name", { label: "Name", get values() { return keep("names in order", () => ordered(gallery.names)); } }],
  ...(hasLabels ? [
    ["confusion", { label: "Confusion pair", values: numbersOf(gallery.confusion) }],
    ["correct", { ...gallery.correct_column, kind: "correct", values: numbersOf(gallery.correct), edges: [0, 1, 2] }],
  ] : []),
  ...Object.entries(gallery.columns).map(([name, column]) => [name, { ...column, values: numbersOf(column.values) }]),
]);
const colorable = [...columns.keys()].filter((name) => columns.get(name).edges?.length);
const questions = new Map(gallery.questions.map((question) => [question.name, question]));
const usable = (name) => columns.has(name);

const className = (index) => (index < 0 ? "no class" : gallery.classes[index] ?? `class ${index}`);
const grouped = (number) => number.toLocaleString("en-US");
const photosText = (number) => `${grouped(number)} ${number === 1 ? "photo" : "photos"}`;
const nameText = (text) => make("bdi", {}, text);
const isWrong = (position) => gallery.correct[position] === 0;
const address = (position) => `photos/${gallery.index[position]}.html`;

/** A value of a column in words. */
function valueText(name, value) {
  const { kind } = columns.get(name);
  if (Number.isNaN(value)) return kind === "correct" ? "no label" : "not known";
  if (kind === "correct") return value ? "✓ right" : "✗ wrong";
  if (kind === "share") return percent(value);
  return kind === "whole" ? grouped(value) : significant(value);
}

/** The bar that holds a value; −1 for one that is not known. The outer bars hold all beyond. */
function barOf(edges, value) {
  if (Number.isNaN(value)) return -1;
  let bar = 0;
  while (bar < edges.length - 2 && value >= edges[bar + 1]) bar += 1;
  return bar;
}
const barsOf = (name) => keep(`bars of ${name}`, () =>
  Int16Array.from(columns.get(name).values, (value) => barOf(columns.get(name).edges, value)));

// From dark blue to yellow, in an order that all common kinds of color blindness keep (after cividis).
const RAMP = ["#1f3d73", "#3d5378", "#5c6a75", "#7b8073", "#9d9866", "#c4b352", "#efd33f"]
  .map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
function ramp(share) {
  const place = share * (RAMP.length - 1);
  const low = Math.min(Math.floor(place), RAMP.length - 2);
  return `rgb(${RAMP[low].map((value, i) => Math.round(value + (place - low) * (RAMP[low + 1][i] - value))).join(", ")})`;
}
/** Color of a bar, and of the frames of its photos. */
function barColor(name, bar) {
  const { kind, edges } = columns.get(name);
  if (bar < 0) return "var(--unknown)";
  if (kind === "correct") return bar ? "var(--against)" : "var(--for)";
  return ramp(edges.length > 2 ? bar / (edges.length - 2) : 0.5);
}
