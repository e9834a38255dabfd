// Images that flipped, by kind, label and pair of predictions, a page at a time.
const PER_PAGE = 24;
const pairOf = (row) => `${row.prediction_first}-${row.prediction_second}`;

/** The rows that the choices leave; `without` names a choice that is left out. */
function chosenRows(without) {
  return comparison.listed.filter((row) => (without === "kind" || state.kind === "all" || row.kind === state.kind)
    && (without === "label" || state.label === "" || String(row.label ?? "none") === state.label)
    && (without === "pair" || state.pair === "" || pairOf(row) === state.pair));
}

function tally(rows, key) {
  const counts = new Map();
  for (const row of rows) counts.set(key(row), (counts.get(key(row)) ?? 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]);
}

function drawFlips() {
  const total = comparison.broken + comparison.fixed + comparison.changed;
  if (!total) {
    byId("flips-card").replaceChildren(byId("flips-title"), make("p", { class: "lead" }, "No image flipped: both predict the same class for every image."));
    return;
  }
  const byKind = new Map(tally(chosenRows("kind"), (row) => row.kind));
  const every = [...byKind.values()].reduce((a, b) => a + b, 0);
  choices(byId("kinds"), [["all", `all (${grouped(every)})`], ...Object.keys(KINDS).map((kind) => [kind, `${KINDS[kind]} (${grouped(byKind.get(kind) ?? 0)})`])], state.kind,
    (kind) => {
      update({ kind, page: 0 });
      byId("kinds").querySelector(`[data-key="${kind}"]`).focus();
    });
  const options = (id, everything, entries, words, chosen) => {
    if (chosen && !entries.some(([key]) => key === chosen)) entries = [...entries, [chosen, 0]];
    byId(id).replaceChildren(make("option", { value: "" }, everything), ...entries.map(([key, count]) => make("option", { value: key }, `${words(key)} (${grouped(count)})`)));
    byId(id).value = chosen;
  };
  options("flip-label", "every label", tally(chosenRows("label"), (row) => String(row.label ?? "none")), (key) => className(key === "none" ? null : Number(key)), state.label);
  options("flip-pair", "every pair", tally(chosenRows("pair"), pairOf), (key) => key.split("-").map((part) => className(Number(part))).join(" → "), state.pair);
  const rows = chosenRows();
  const pages = Math.max(1, Math.ceil(rows.length / PER_PAGE));
  const page = Math.min(state.page, pages - 1);
  const shown = rows.slice(page * PER_PAGE, (page + 1) * PER_PAGE);
  const listed = comparison.listed.length < total ? `; the page lists ${grouped(comparison.listed.length)} of all ${grouped(total)}` : "";
  byId("flip-count").textContent = rows.length ? `${grouped(page * PER_PAGE + 1)} to ${grouped(page * PER_PAGE + shown.length)} of ${imageCount(rows.length)}${listed}` : `No image has all of this${listed}.`;
  const turn = (text, to, id) => {
    const button = make("button", { type: "button", id, disabled: to < 0 || to >= pages }, text);
    button.addEventListener("click", () => {
      update({ page: to });
      (byId(id).disabled ? byId("flip-pages").querySelector("button:not(:disabled)") : byId(id))?.focus();
    });
    return button;
  };
  byId("flip-pages").replaceChildren(...(pages > 1 ? [turn("← before", page - 1, "flips-before"), turn("next →", page + 1, "flips-next")] : []));
  byId("flips").className = comparison.links ? "gallery" : "gallery plain";
  byId("flips").replaceChildren(...shown.map(flipCard));
}

const has = (positions, index) => positions === null || positions.includes(index);

/** Address of an image's thumbnail, in the first store that has it. */
function thumbOf(row) {
  for (const [i, side] of SIDES.entries()) {
    const links = comparison.links?.[i];
    if (links && has(links.thumbs, row[`index_${side}`])) return `${links.folder}thumbs/${row[`index_${side}`]}.jpg`;
  }
  return null;
}

function flipCard(row) {
  const thumb = comparison.links && thumbOf(row);
  const photo = thumb ? make("img", { src: thumb, alt: `Photo ${row.image}`, loading: "lazy", decoding: "async" }) : make("span", {}, "no photo");
  if (thumb) photo.addEventListener("error", () => photo.replaceWith(make("span", {}, "photo missing")));
  const guess = (side, i) => {
    const links = comparison.links?.[i];
    const words = [nameText(className(row[`prediction_${side}`])), ` ${percent(row[`confidence_${side}`])}`];
    const index = row[`index_${side}`];
    const right = row.label !== null && row.label === row[`prediction_${side}`];
    return make("span", { class: "guess" }, mark(side), make("span", { class: "hidden" }, `${side}: `), " ",
      links && has(links.photos, index) ? make("a", { href: `${links.folder}photos/${index}.html`, title: `Photo page of ${comparison[side].name}` }, ...words) : make("span", {}, ...words),
      right ? make("small", {}, " right") : "",
      known(row[`commitment_${side}`]) ? make("small", {}, ` from ${percent(row[`commitment_${side}`])} of depth`) : "");
  };
  return make("figure", { class: "flip", "data-kind": row.kind },
    ...(comparison.links ? [make("div", { class: "photo" }, photo)] : []),
    make("figcaption", {}, make("span", { class: `kind ${row.kind}`, title: KIND_WORDS[row.kind] }, KINDS[row.kind]), make("strong", {}, nameText(className(row.label))),
      ...SIDES.map(guess), make("span", { class: "file", title: row.image_second ? `${row.image}, in the second ${row.image_second}` : row.image }, nameText(row.image))));
}

function setUpFlips() {
  byId("flip-label").addEventListener("change", (event) => update({ label: event.target.value, page: 0 }));
  byId("flip-pair").addEventListener("change", (event) => update({ pair: event.target.value, page: 0 }));
  onChange(["kind", "label", "pair", "page"], drawFlips);
}
