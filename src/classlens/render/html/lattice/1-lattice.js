// Cells in rows and columns that the pointer and the arrow keys reach; each has a tip.
const lattices = new Map();
let pointed = null;

/**
 * `cells`: a map from "row,column" to an element; `lines(row, column)`: the lines of its tip. One cell of each lattice is
 * reached with Tab, the others from there.
 */
function lattice(root, cells, lines) {
  const place = (event) => event.target.closest?.("[data-at]");
  const show = (event) => {
    const cell = place(event);
    if (!cell) return;
    pointed = { cell, tip: lines(...cell.dataset.at.split(",").map(Number)) };
    showTip(cell, pointed.tip);
  };
  const [first] = cells.values();
  for (const [at, cell] of cells) {
    cell.dataset.at = at;
    cell.tabIndex = cell === first ? 0 : -1;
  }
  if (!lattices.has(root)) {
    root.addEventListener("pointerover", (event) => lattices.get(root).show(event));
    root.addEventListener("focusin", (event) => lattices.get(root).focus(event));
    root.addEventListener("pointerleave", hideTip);
    root.addEventListener("focusout", hideTip);
    root.addEventListener("keydown", (event) => lattices.get(root).move(event));
  }
  lattices.set(root, {
    show,
    focus(event) {
      const cell = place(event);
      if (!cell) return;
      for (const other of cells.values()) other.tabIndex = other === cell ? 0 : -1;
      show(event);
    },
    move(event) {
      const cell = place(event);
      const next = cell && neighbor(cells, ...cell.dataset.at.split(",").map(Number), event.key);
      if (!next) return;
      event.preventDefault();
      next.focus();
    },
  });
}

/** The cell that a key moves to; null at an edge. A shorter row is entered at its last cell. */
function neighbor(cells, row, column, key) {
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  const columns = [...cells.keys()].filter((at) => at.startsWith(`${row},`)).map((at) => Number(at.split(",")[1]));
  if (key === "Home") return cells.get(`${row},${Math.min(...columns)}`);
  if (key === "End") return cells.get(`${row},${Math.max(...columns)}`);
  if (!(key in steps)) return null;
  const [down, right] = steps[key];
  for (let at = column + right; at >= 0; at--) {
    const next = cells.get(`${row + down},${at}`);
    if (next || down === 0) return next ?? null;
  }
  return null;
}

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideTip();
});
// A tip goes with its cell, which focus may scroll into view.
window.addEventListener("scroll", () => {
  if (byId("tip").hidden) return;
  if (pointed.cell.matches(":hover, :focus")) showTip(pointed.cell, pointed.tip);
  else hideTip();
}, { passive: true, capture: true });
