// The comparison, its names and numbers as text, and the state of the page.
const comparison = read("comparison");
const SIDES = ["first", "second"];
const KINDS = { broken: "broken", fixed: "fixed", changed: comparison.labeled_images === comparison.images ? "wrong in both" : "changed" };
const KIND_WORDS = { broken: "right, then wrong", fixed: "wrong, then right", changed: "another prediction, neither known to be right" };
const SURE = 0.05;

const known = (value) => value !== null && value !== undefined;
const grouped = (number) => number.toLocaleString("en-US");
const imageCount = (count) => `${grouped(count)} ${count === 1 ? "image" : "images"}`;
/** Text in an isolate of its own, so that a name in another direction leaves its surroundings as they are. */
const nameText = (text) => make("bdi", {}, text);
const className = (index) => (known(index) ? comparison.class_names[index] : "no label");
const points = (share, digits = 1) => `${fixed(100 * share, digits)}%`;
const signedPoints = (share) => `${signed(100 * share, 1)}`;
const pText = (p) => (p < 0.001 ? "< 0.001" : fixed(p, 3));
const interval = (row, prefix, text) => (known(row[`${prefix}low`]) && known(row[`${prefix}high`]) ? `${text(row[`${prefix}low`])} to ${text(row[`${prefix}high`])}` : "");
const partName = (row) => (row.head < 0 ? `MLP ${row.block}` : `head ${row.block}.${row.head}`);
const capital = (text) => text[0].toUpperCase() + text.slice(1);
const mark = (side) => make("span", { class: `mark ${side}`, "aria-hidden": "true" });
const keyOf = (side, ...more) => make("span", {}, make("span", { class: `mark key ${side}`, "aria-hidden": "true" }), " ", nameText(comparison[side].name), ...more);

const state = { kind: "all", label: "", pair: "", page: 0, order: "loss", parts: "difference" };
const DEFAULTS = { ...state };

/** Values of the address that the page can show. */
function addressedState() {
  const values = { ...DEFAULTS, ...readHash() };
  const index = (text) => (/^\d{1,6}$/.test(text) && Number(text) < comparison.class_names.length ? String(Number(text)) : text === "none" ? text : "");
  return {
    kind: values.kind in KINDS ? values.kind : "all",
    label: index(values.label),
    pair: /^\d{1,6}-\d{1,6}$/.test(values.pair) && values.pair.split("-").every((part) => Number(part) < comparison.class_names.length) ? values.pair : "",
    page: /^\d{1,6}$/.test(values.page) ? Number(values.page) : 0,
    order: ["loss", "gain", "name"].includes(values.order) ? values.order : "loss",
    parts: values.parts in PARTS ? values.parts : "difference",
  };
}
function writeState() {
  writeHash(Object.fromEntries(Object.keys(state).map((key) => [key, state[key] === DEFAULTS[key] ? null : state[key]])));
}

/** Buttons of which one is pressed. */
function choices(host, names, chosen, choose) {
  host.replaceChildren(...names.map(([key, text]) => {
    const button = make("button", { type: "button", "data-key": key, "aria-pressed": String(key === chosen) }, text);
    button.addEventListener("click", () => choose(key));
    return button;
  }));
}
