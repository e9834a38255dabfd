// Basics: elements, the data, numbers as text, and a state that redraws the parts that depend on it.
const byId = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text, never markup. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

function makeSvg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const read = (id) => JSON.parse(byId(id).textContent);
const record = read("record");
const { model } = record;
const [gridRows, gridColumns] = model.grid;
const prefixCount = model.prefix.length;
const tokenCount = prefixCount + gridRows * gridColumns;
const clsToken = model.prefix.indexOf("cls");

// The numbers of an image may take megabytes, so they are parsed when the image is first chosen.
const kept = new Map();
function keep(key, compute) {
  if (!kept.has(key)) kept.set(key, compute());
  return kept.get(key);
}
const imageAt = (index) => keep(`image ${index}`, () => unpacked(read(`image-${index}`)));

/** Arrays of 16-bit numbers in base64 as nested lists, wherever they stand in a value. */
function unpacked(value) {
  if (Array.isArray(value)) return value.map((inner) => (typeof inner === "object" ? unpacked(inner) : inner));
  if (value === null || typeof value !== "object") return value;
  if (value.base64 === undefined) return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, unpacked(inner)]));
  const bytes = Uint8Array.from(atob(value.base64), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const { scale = [1] } = value;
  const rowLength = bytes.length / 2 / scale.length;
  let next = 0;
  const number = () => scale[Math.floor(next / rowLength)] * view.getInt16(2 * next++, true);
  const nested = ([size, ...inner]) => Array.from({ length: size }, () => (inner.length ? nested(inner) : number()));
  return nested(value.shape);
}

/** The image as its chosen class sees it, and that class rather than its rival, if one is chosen. */
function currentImage() {
  const { image, category, rival } = state;
  return keep(`image ${image}, class ${category}, rival ${rival}`, () => {
    const whole = imageAt(image);
    const [chosen, other] = [category, rival].map((index) => whole.classes.find((one) => one.target.index === index));
    const tokens = Object.fromEntries(record.sites.map((site) =>
      [site, { ...whole.classes[0].tokens[site], ...chosen.tokens[site] }]));
    const classes = other ? { ...chosen, ...ratherThan(chosen, other) } : chosen;
    return { ...whole, ...classes, tokens, rival: other?.target ?? null };
  });
}

/** Maps and contributions to one class less those to another; `weight` makes every map that of a logit. */
function ratherThan(chosen, other) {
  const less = (one, two, first = 1, second = 1) => Array.isArray(one)
    ? one.map((value, i) => less(value, two[i], first, second)) : first * one - second * two;
  const explanations = Object.fromEntries(Object.entries(chosen.explanations).map(([name, maps]) => {
    const rival = other.explanations[name];
    return [name, { ...maps, loss: maps.loss && "logit", values: less(maps.values, rival.values, maps.weight, rival.weight) }];
  }));
  const attribution = chosen.attribution && Object.fromEntries(
    Object.entries(chosen.attribution).map(([part, value]) => [part, less(value, other.attribution[part])]));
  return { explanations, attribution, largest: attribution && largestPart(attribution) };
}

function largestPart({ attention, mlp }) {
  const parts = mlp.flatMap((value, block) =>
    [{ block, sublayer: "attention", value: sum(attention[block]) }, { block, sublayer: "mlp", value }]);
  return parts.reduce((best, part) => (part.value > best.value ? part : best));
}

/** Whether outputs are classes that exclude each other, and so have ranks. */
const exclusive = model.problem_type === "single_label_classification";
const multiLabel = model.problem_type === "multi_label_classification";
/** The class of interest in words, with its rival. */
const classWords = ({ target, rival }) => (rival ? `${target.name} rather than ${rival.name}` : target.name);

const className = (index) => record.class_names[index] ?? `class ${index}`;
const blockNumbers = () => Array.from({ length: model.blocks }, (_, block) => block);
const headNumbers = () => Array.from({ length: model.heads }, (_, head) => head);
const sum = (values) => values.reduce((total, value) => total + value, 0);
const sumMaps = (maps) => maps[0].map((_, token) => sum(maps.map((map) => map[token])));
const largestOf = (values) => values.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);

const withMinus = (text) => text.replaceAll("-", "−");
/** Fixed decimals, for logits. */
const fixed = (value, digits = 2) => withMinus((Math.abs(value) < 0.5 * 10 ** -digits ? 0 : value).toFixed(digits));
const signed = (value, digits = 2) => (Math.abs(value) < 0.5 * 10 ** -digits || value < 0 ? "" : "+") + fixed(value, digits);
/** Three significant digits, for values of any size. */
function significant(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  const rounded = Number(value.toPrecision(3));
  return withMinus(size >= 1e-3 && size < 1e4 ? String(rounded) : rounded.toExponential());
}
function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 0.1) return "<0.1%";
  if (value > 99.9 && value < 100) return ">99.9%";
  return `${Number(value.toFixed(value < 10 ? 1 : 0))}%`;
}
/** Digits of an identifiability that show a difference of one rank. */
const rankDigits = Math.max(2, Math.ceil(Math.log10(model.num_classes)));
const identifiability = (rank) => 1 - rank / model.num_classes;
const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : noun.endsWith("s") ? "es" : "s"}`;

const prefixName = (name) => `[${name.toUpperCase()}]`;
function tokenName(token) {
  if (token < prefixCount) return `${prefixName(model.prefix[token])} token`;
  const position = token - prefixCount;
  return `Row ${Math.floor(position / gridColumns)}, column ${position % gridColumns}`;
}

// The state of the page. `update` changes some keys and redraws the parts that depend on them.
const state = {
  image: 0,
  category: imageAt(0).target.index,
  rival: imageAt(0).against?.index ?? null,
  method: Object.keys(imageAt(0).classes[0].explanations)[0],
  block: model.blocks - 1,
  site: "resid_post",
  coloring: "identifiability",
  opacity: 0.7,
  token: Math.max(clsToken, 0),
  pinned: false,
  mapBlock: null,
  mapHead: null,
  ownScale: false,
  detailBlock: null,
  headBlock: model.blocks - 1,
  headNumber: 0,
};
const parts = [];
const onChange = (keys, draw) => parts.push({ keys: new Set(keys), draw });
function update(changes) {
  const changed = Object.keys(changes).filter((key) => state[key] !== changes[key]);
  Object.assign(state, changes);
  for (const part of parts) if (changed.some((key) => part.keys.has(key))) part.draw();
}
const drawEverything = () => parts.forEach((part) => part.draw());
