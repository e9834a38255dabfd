// The grid: only the rows in sight and a few beyond are in the page, so that its size does not grow with the photos.
const GAP = 8;
const CAPTION = 42;
const BEYOND = 2;
const PATIENCE = 90; // milliseconds
const WIDTHS = { small: 92, medium: 136, large: 190 };
const LEAST_COLUMNS = { small: 4, medium: 3, large: 2 };

const grid = byId("grid");
const mounted = new Map();
let layout = { columns: 1, rowHeight: 1, rows: 0 };
/** Place of each shown photo in the order. */
const places = () => keep("places", () => new Map(shown.map((position, place) => [position, place])));
/** The photo that the keys move from. */
const cursorPhoto = () => (state.photo !== null && places().has(state.photo) ? state.photo : shown[0]);

function measure() {
  const width = grid.clientWidth;
  const columns = Math.max(LEAST_COLUMNS[state.size], Math.floor((width + GAP) / (WIDTHS[state.size] + GAP)));
  const side = (width - GAP * (columns - 1)) / columns;
  layout = { columns, side, rowHeight: Math.round(side) + CAPTION + GAP, rows: Math.ceil(shown.length / columns) };
  grid.style.height = `${Math.max(0, layout.rows * layout.rowHeight - GAP)}px`;
  grid.setAttribute("aria-rowcount", layout.rows);
  grid.setAttribute("aria-colcount", columns);
}

function rowElement(row) {
  const start = row * layout.columns;
  const element = make("div", { role: "row", class: "photo-row", "aria-rowindex": row + 1 },
    ...shown.slice(start, start + layout.columns).map((position, column) => tile(position, column)));
  element.style.transform = `translateY(${row * layout.rowHeight}px)`;
  element.style.gridTemplateColumns = `repeat(${layout.columns}, minmax(0, 1fr))`;
  return element;
}

/** Ask for the pictures of a row; in a fast scroll, once it has stayed for a moment. */
function load(element, fast) {
  if (fast) {
    setTimeout(() => element.isConnected && load(element, false), PATIENCE);
    return;
  }
  for (const picture of element.querySelectorAll("img[data-src]")) {
    picture.src = picture.dataset.src;
    delete picture.dataset.src;
  }
}

/** Rows in sight, some beyond them, and that of the photo that the keys move from. */
function wantedRows() {
  const top = -grid.getBoundingClientRect().top;
  const first = Math.max(0, Math.floor(top / layout.rowHeight) - BEYOND);
  const last = Math.min(layout.rows - 1, Math.ceil((top + innerHeight) / layout.rowHeight) + BEYOND);
  const wanted = new Set();
  for (let row = first; row <= last; row += 1) wanted.add(row);
  const place = places().get(cursorPhoto());
  if (place !== undefined) wanted.add(Math.floor(place / layout.columns));
  return wanted;
}

let drawnAt = 0;
function drawRows() {
  if (state.view !== "grid") return;
  const fast = Math.abs(scrollY - drawnAt) > innerHeight / 5;
  drawnAt = scrollY;
  const wanted = wantedRows();
  for (const [row, element] of mounted) {
    if (wanted.has(row)) continue;
    // A picture that is still on its way would go on loading.
    for (const picture of element.querySelectorAll("img")) if (!picture.complete) picture.removeAttribute("src");
    element.remove();
    mounted.delete(row);
  }
  for (const row of [...wanted].sort((a, b) => a - b)) {
    if (mounted.has(row)) continue;
    const element = rowElement(row);
    // Rows stand in the page in their order, which is the order of reading.
    const next = [...mounted.keys()].filter((other) => other > row).sort((a, b) => a - b)[0];
    grid.insertBefore(element, next === undefined ? null : mounted.get(next));
    mounted.set(row, element);
    load(element, fast);
  }
}

function drawGrid() {
  kept.delete("places");
  mounted.clear();
  grid.replaceChildren();
  grid.hidden = state.view !== "grid" || !shown.length;
  byId("empty").hidden = shown.length > 0;
  if (grid.hidden) return;
  measure();
  drawRows();
}
onChange([...FILTERS, "view", "size"], drawGrid);

const cells = () => grid.querySelectorAll(".photo");
const cellOf = (position) => grid.querySelector(`[data-photo="${position}"]`);
const paintAll = () => cells().forEach(paint);

/** Move the cursor to a photo, and the window so that it is in sight. */
function goTo(position, { focus = true } = {}) {
  choose({ photo: position });
  const row = Math.floor(places().get(position) / layout.columns);
  const top = grid.getBoundingClientRect().top + row * layout.rowHeight;
  const covered = byId("toolbar").getBoundingClientRect().bottom;
  const least = getComputedStyle(byId("toolbar")).position === "sticky" && covered < innerHeight / 2 ? Math.max(covered, 0) : 0;
  if (top < least + GAP) scrollBy(0, top - least - GAP);
  else if (top + layout.rowHeight > innerHeight - GAP) scrollBy(0, top + layout.rowHeight - innerHeight + GAP);
  drawRows();
  paintAll();
  if (focus) cellOf(position).querySelector("a").focus({ preventScroll: true });
}

let waiting = false;
function soon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    drawRows();
  });
}
addEventListener("scroll", soon, { passive: true });
let width = 0;
new ResizeObserver(() => {
  if (state.view !== "grid" || grid.clientWidth === width) return soon();
  width = grid.clientWidth;
  return drawGrid();
}).observe(grid);
addEventListener("resize", soon);
