// The frame of every page of an atlas: data, links, sections, breadcrumbs and the way to the search.
const shell = read("shell");
const page = read("page");

/** Text in an isolate of its own, so that a name in another direction leaves its surroundings as they are. */
const nameText = (text) => make("bdi", {}, text);
/** A link to a page of the atlas; plain text where there is no such page. */
function linked(text, address, attributes = {}) {
  if (!address) return make("span", attributes, nameText(text));
  return make("a", { href: shell.root + address, ...attributes }, nameText(text));
}
const partName = (row) => (row.head < 0 ? `MLP ${row.block}` : `head ${row.block}.${row.head}`);
const unitName = (row) => `unit ${row.block}.${row.unit}`;
const capital = (text) => text[0].toUpperCase() + text.slice(1);
const grouped = (number) => number.toLocaleString("en-US");
const images = (count) => `${grouped(count)} ${count === 1 ? "image" : "images"}`;
const known = (value) => value !== null && value !== undefined;
const code = (text) => make("code", {}, text);
/** An interval in words; nothing where it is not known. */
const interval = (row, text) => (known(row.low) && known(row.high) ? `${text(row.low)} to ${text(row.high)}` : "");

/**
 * A card with a title, a sentence for readers who are new to it, its contents, and how it is measured. `options`: the
 * option of `classlens measure` that it needs.
 */
function section(id, title, words, options, ...children) {
  const card = make("section", { class: "card", id, "aria-labelledby": `${id}-title` },
    make("h2", { id: `${id}-title` }, title), make("p", { class: "lead" }, ...[words].flat()), ...children,
    make("p", { class: "hint measured" }, "Measured by ", code(`classlens measure …${options ? ` ${options}` : ""}`), ", summed up by ",
      code("classlens atlas"), "."));
  byId("main").append(card);
  return card;
}

/** A card that says why it is empty. */
const emptySection = (id, title, words) => byId("main").append(make("section", { class: "card", id, "aria-labelledby": `${id}-title` },
  make("h2", { id: `${id}-title` }, title), make("p", { class: "lead" }, words)));

function setUpFrame() {
  byId("title").replaceChildren(nameText(shell.title || `Atlas of ${shell.model}`));
  const crumbs = [["Atlas", shell.kind === "overview" ? null : "index.html"], ...shell.crumbs];
  const last = crumbs.length - 1;
  if (last > 0) {
    byId("crumbs").append(make("ol", {}, ...crumbs.map(([text, address], i) =>
      make("li", {}, linked(text, address, i === last ? { "aria-current": "page" } : {})))));
    const [before, after] = shell.neighbors;
    byId("crumbs").append(make("span", { class: "turns" }, ...[
      before && make("a", { href: shell.root + before[1], rel: "prev" }, "← ", nameText(before[0])),
      after && make("a", { href: shell.root + after[1], rel: "next" }, nameText(after[0]), " →"),
      make("a", { href: `${shell.root}index.html#search`, id: "to-search" }, "Search ", make("kbd", {}, "/")),
    ].filter(Boolean)));
  }
  byId("confidence").textContent = `Intervals are those of ${Number((100 * shell.confidence).toFixed(2))} % confidence; one with an arrow reaches beyond the scale.`;
  byId("commands").replaceChildren("The numbers come from ", code(shell.commands.measure), " and ", code(shell.commands.atlas), ".");
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || /^(input|select|textarea)$/i.test(event.target.tagName)) return;
    event.preventDefault();
    if (byId("search")) byId("search").focus();
    else location.href = `${shell.root}index.html#search`;
  });
}

const facts = (...texts) => byId("model-facts").replaceChildren(...texts.filter(Boolean).map((text) => make("span", {}, text)));

/** Cards in two columns, each below the shorter one. */
function pack() {
  const observer = new ResizeObserver((entries) => entries.forEach(({ target }) => fitRows(target)));
  for (const card of byId("main").children) {
    fitRows(card);
    observer.observe(card);
  }
}
const fitRows = (card) => {
  card.style.gridRowEnd = matchMedia("(min-width: 960px)").matches ? `span ${Math.ceil((card.getBoundingClientRect().height + 14) / 2)}` : "auto";
};

/** The part of the page that its address names exists once the page is drawn. */
function finish() {
  pack();
  const target = location.hash.length > 1 && byId(decodeURIComponent(location.hash.slice(1)));
  if (target) {
    target.scrollIntoView();
    if (target.matches("input")) target.focus();
  }
  document.documentElement.dataset.ready = "true";
}
