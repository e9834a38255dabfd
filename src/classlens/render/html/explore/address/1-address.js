// Any class of the model, and the state of the page in its address.
const ADDRESSED = ["category", "rival", "method", "block", "site", "coloring", "mapBlock", "mapHead", "headBlock", "headNumber", "detailBlock"];
const defaults = Object.fromEntries(ADDRESSED.map((key) => [key, state[key]]));

/** Values of the address that the page can show. */
function addressedState() {
  const values = readHash();
  const changes = {};
  const whole = (text, limit) => (/^\d{1,6}$/.test(text) && Number(text) < limit ? Number(text) : undefined);
  const holds = (index) => currentImage().classes.some(({ target }) => target.index === index);
  const readers = {
    category: (text) => [Number(text)].find(holds),
    rival: (text) => [Number(text)].find(holds),
    method: (text) => (Object.hasOwn(imageAt(0).classes[0].explanations, text) ? text : undefined),
    block: (text) => whole(text, model.blocks),
    site: (text) => (record.sites.includes(text) ? text : undefined),
    coloring: (text) => (["identifiability", "top1", "norm", "none"].includes(text) ? text : undefined),
    mapBlock: (text) => whole(text, model.blocks),
    mapHead: (text) => whole(text, model.heads),
    headBlock: (text) => whole(text, model.blocks),
    headNumber: (text) => whole(text, model.heads),
    detailBlock: (text) => whole(text, model.blocks),
  };
  for (const key of ADDRESSED) changes[key] = (key in values ? readers[key](values[key]) : undefined) ?? defaults[key];
  if (changes.rival === changes.category) changes.rival = null;
  if (changes.mapBlock === null) changes.mapHead = null;
  return changes;
}

function writeState() {
  const values = readHash();
  for (const key of ADDRESSED) values[key] = state[key] === defaults[key] ? null : state[key];
  writeHash(values);
}

function setUpClasses() {
  if (!site.live) {
    byId("other-class").remove();
    return;
  }
  byId("class-names").append(...photo.classes.map((name) => make("option", { value: name })));
  byId("save-report").setAttribute("href", `${site.root}${photo.api}/report.html${location.search}`);
  byId("class-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const query = new URLSearchParams();
    for (const [name, id] of [["class", "any-class"], ["against", "any-rival"]]) {
      const text = byId(id).value.trim();
      if (!text) continue;
      if (!photo.classes.includes(text) && !/^\d+$/.test(text)) {
        showError(`${text} is not a class of ${model.name}: choose one of the list.`);
        return;
      }
      query.set(name, text);
    }
    // Edits stay; the class of interest is that of the query.
    const { category: _, rival: __, ...kept } = readHash();
    location.href = `${location.pathname}?${query}#${new URLSearchParams(kept)}`;
  });
}

setUpClasses();
update(addressedState());
onChange(ADDRESSED, writeState);
onHash(() => update(addressedState()));
