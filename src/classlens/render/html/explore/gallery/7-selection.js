// Keys and clicks in the grid, and the selection as a list of files.
let anchor = null;

function select(positions, on) {
  for (const position of positions) on ? selected.add(position) : selected.delete(position);
  paintAll();
  drawSelection();
}
/** All photos between the anchor and a photo, in the order shown. */
function selectTo(position) {
  const start = places().get(anchor) ?? places().get(position);
  const end = places().get(position);
  select(shown.slice(Math.min(start, end), Math.max(start, end) + 1), true);
}
function toggle(position) {
  select([position], !selected.has(position));
  anchor = position;
}

const STEPS = { ArrowLeft: () => -1, ArrowRight: () => 1, ArrowUp: () => -layout.columns, ArrowDown: () => layout.columns };
const rowsInSight = () => Math.max(1, Math.floor(innerHeight / layout.rowHeight) - 1);

/** The place that a key moves to; null for other keys. */
function targetOf(event, place) {
  const last = shown.length - 1;
  const start = place - (place % layout.columns);
  const step = STEPS[event.key]?.() ?? { PageUp: -rowsInSight() * layout.columns, PageDown: rowsInSight() * layout.columns }[event.key];
  if (step !== undefined) {
    const next = place + step;
    if (next >= 0 && next <= last) return next;
    return Math.abs(step) === 1 ? place : next < 0 ? place % layout.columns : last;
  }
  if (event.key === "Home") return event.ctrlKey ? 0 : start;
  if (event.key === "End") return event.ctrlKey ? last : Math.min(start + layout.columns - 1, last);
  return null;
}

grid.addEventListener("keydown", (event) => {
  const cell = event.target.closest(".photo");
  if (!cell || event.altKey || event.metaKey) return;
  const position = Number(cell.dataset.photo);
  if (event.key === " ") event.shiftKey ? selectTo(position) : toggle(position);
  else if (event.key === "a" && event.ctrlKey) select(shown, true);
  else {
    const place = targetOf(event, places().get(position));
    if (place === null) return;
    if (event.shiftKey) {
      anchor ??= position;
      selectTo(shown[place]);
    }
    goTo(shown[place]);
  }
  event.preventDefault();
});
grid.addEventListener("click", (event) => {
  const cell = event.target.closest(".photo");
  if (!cell) return;
  const position = Number(cell.dataset.photo);
  const pick = event.target.closest(".pick");
  if (event.shiftKey) selectTo(position);
  else if (pick) toggle(position);
  if (event.shiftKey || pick) {
    event.preventDefault();
    choose({ photo: position });
    paintAll();
  } else if (!event.ctrlKey && !event.metaKey) {
    choose({ photo: position }); // the way back leads here
  }
});
grid.addEventListener("focusin", (event) => {
  const cell = event.target.closest(".photo");
  if (cell && Number(cell.dataset.photo) !== state.photo && event.target.matches(":focus-visible")) {
    choose({ photo: Number(cell.dataset.photo) });
    paintAll();
  }
});

let tipTimer = 0;
grid.addEventListener("mouseover", (event) => {
  const cell = event.target.closest(".photo");
  clearTimeout(tipTimer);
  hideTip();
  if (cell) tipTimer = setTimeout(() => cell.isConnected && showTip(cell, numbersInWords(Number(cell.dataset.photo))), 550);
});
grid.addEventListener("mouseleave", () => {
  clearTimeout(tipTimer);
  hideTip();
});
addEventListener("scroll", () => {
  clearTimeout(tipTimer);
  hideTip();
}, { passive: true });

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || /^(input|select|textarea)$/i.test(event.target.tagName)) return;
  event.preventDefault();
  byId("panel").open = true;
  byId("search").focus();
});

/** The path of a photo as a list takes it; null for one that cannot stand in a line. */
function pathOf(position) {
  const { root, paths } = gallery.list;
  const path = position in paths ? paths[position] : root + gallery.names[position];
  return path === null || !fitsLine(path) || path.includes("\t") ? null : path;
}
// A line ends where Python ends one; half of a surrogate pair is no text.
const fitsLine = (text) => !/[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]|\p{Surrogate}/u.test(text) && text === text.trim() && text !== "";

/** The lines of a list of photos, with their labels where all have one, and the number of those left out. */
function listOf(positions) {
  const kept = positions.filter((position) => pathOf(position) !== null);
  const labels = kept.map((position) => gallery.list.classes[gallery.label[position]] ?? gallery.classes[gallery.label[position]]);
  const labeled = labels.every((label) => label !== undefined && fitsLine(label));
  const lines = kept.map((position, i) => pathOf(position) + (labeled ? `\t${labels[i]}` : ""));
  return { text: `${lines.join("\n")}\n`, count: kept.length, left: positions.length - kept.length };
}

function download() {
  const { text, count, left } = listOf([...selected].sort((a, b) => a - b));
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/plain" })), download: "selection.txt" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  byId("download-note").textContent = `selection.txt names ${photosText(count)}.${left ? ` ${photosText(left)} cannot stand in a list: the file is not known, or its name has a line break or a tab.` : ""}`;
}

function drawSelection() {
  byId("selection-count").textContent = selected.size ? `${photosText(selected.size)} selected` : "No photo is selected.";
  byId("select-none").disabled = byId("download").disabled = !selected.size;
  byId("select-shown").textContent = `Select ${grouped(shown.length)} shown`;
  byId("select-shown").disabled = !shown.length;
  byId("selection-use").hidden = !selected.size;
  const { reason } = gallery.list;
  byId("download").hidden = Boolean(reason);
  byId("command").parentElement.hidden = byId("command").parentElement.previousElementSibling.hidden = Boolean(reason);
  byId("download-note").textContent = reason ? `No list: ${reason}.` : "";
}
onChange(FILTERS, drawSelection);
