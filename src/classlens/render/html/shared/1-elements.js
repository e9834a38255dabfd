// Elements, the data of the page, and a state that redraws the parts that depend on it.
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

const kept = new Map();
function keep(key, compute) {
  if (!kept.has(key)) kept.set(key, compute());
  return kept.get(key);
}

// `update` changes some keys of the page's `state` and redraws the parts that depend on them.
const parts = [];
const onChange = (keys, draw) => parts.push({ keys: new Set(keys), draw });
function update(changes) {
  const changed = Object.keys(changes).filter((key) => state[key] !== changes[key]);
  Object.assign(state, changes);
  for (const part of parts) if (changed.some((key) => part.keys.has(key))) part.draw();
}
const drawEverything = () => parts.forEach((part) => part.draw());
