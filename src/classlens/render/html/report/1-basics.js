// Basics: the data of the record, and what the page shows of it.
const record = read("record");
const { model } = record;
const [gridRows, gridColumns] = model.grid;
const prefixCount = model.prefix.length;
const tokenCount = prefixCount + gridRows * gridColumns;
const clsToken = model.prefix.indexOf("cls");

// The numbers of an image may take megabytes, so they are parsed when the image is first chosen.
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
const sumMaps = (maps) => maps[0].map((_, token) => sum(maps.map((map) => map[token])));

/** Digits of an identifiability that show a difference of one rank. */
const rankDigits = Math.max(2, Math.ceil(Math.log10(model.num_classes)));
const identifiability = (rank) => 1 - rank / model.num_classes;

function tokenName(token) {
  if (token < prefixCount) return `${prefixName(model.prefix[token])} token`;
  const position = token - prefixCount;
  return `Row ${Math.floor(position / gridColumns)}, column ${position % gridColumns}`;
}

// The state of the page.
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
