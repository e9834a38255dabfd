// Tokens to drop: drawn over the photo, or chosen by the map.
let editBrush = null;
let editDraft = null;

const keepEdits = () => edits.plan.edits.filter((edit) => edit.edit === "KeepTokens" && Array.isArray(edit.mask));
/** Dropped tokens of the plan, or of the stroke that is being drawn. */
function droppedTokens() {
  if (editDraft) return editDraft;
  const dropped = new Set();
  for (const { mask } of keepEdits()) {
    const kept = new Set(mask);
    for (let token = 0; token < tokenCount; token++) if (!kept.has(token)) dropped.add(token);
  }
  return dropped;
}

/** Drops exactly these tokens: one edit in the place of the first that dropped some, or before all others. */
function dropTokens(dropped) {
  const kept = Array.from({ length: tokenCount }, (_, token) => token).filter((token) => !dropped.has(token));
  const edit = { edit: "KeepTokens", mask: kept };
  const others = edits.plan.edits.filter((one) => one.edit !== "KeepTokens");
  chooseEdits(dropped.size ? [edit, ...others] : others);
}

function setUpBrush() {
  editBrush = tokenGrid(byId("edits-brush"), { label: "Tokens of the photo to drop", prefix: true, inspects: false });
  editBrush.setPicture(record.pictures[state.image], "");
  for (const button of editBrush.buttons.values()) button.tabIndex = -1;
  editBrush.buttons.get(prefixCount).tabIndex = 0;
  const { root } = editBrush;
  const tokenAt = (event) => {
    const cell = document.elementFromPoint(event.clientX, event.clientY)?.closest?.(".cell");
    return cell && root.contains(cell) ? Number(cell.dataset.token) : null;
  };
  let drops = true;
  let drawn = false;
  const draw = (token) => {
    if (token === null || editDraft.has(token) === drops) return;
    if (drops) editDraft.add(token);
    else editDraft.delete(token);
    drawBrush();
  };
  const finish = () => {
    if (!editDraft) return;
    const dropped = editDraft;
    editDraft = null;
    dropTokens(dropped);
    drawBrush();
  };
  root.addEventListener("pointerdown", (event) => {
    const token = tokenAt(event);
    if (token === null || event.button !== 0) return;
    editDraft = new Set(droppedTokens());
    drops = !(event.shiftKey || event.altKey || editDraft.has(token));
    drawn = true;
    root.setPointerCapture(event.pointerId);
    draw(token);
  });
  root.addEventListener("pointermove", (event) => {
    if (editDraft) draw(tokenAt(event));
  });
  root.addEventListener("pointerup", finish);
  // A vertical swipe scrolls the page: it is no stroke.
  root.addEventListener("pointercancel", () => {
    editDraft = null;
    drawBrush();
  });
  // Space and Enter click a cell without a pointer.
  root.addEventListener("click", (event) => {
    const cell = event.target.closest(".cell");
    if (cell && !drawn) {
      const dropped = new Set(droppedTokens());
      const token = Number(cell.dataset.token);
      if (!dropped.delete(token)) dropped.add(token);
      dropTokens(dropped);
    }
    drawn = false;
  });
  root.addEventListener("keydown", () => { drawn = false; });
  root.addEventListener("focusin", (event) => {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    for (const button of editBrush.buttons.values()) button.tabIndex = -1;
    cell.tabIndex = 0;
  });
  byId("edits-most").addEventListener("click", () => dropByMap(1));
  byId("edits-least").addEventListener("click", () => dropByMap(-1));
  byId("edits-invert").addEventListener("click", () => {
    const dropped = droppedTokens();
    dropTokens(new Set(Array.from({ length: tokenCount - prefixCount }, (_, i) => prefixCount + i).filter((token) => !dropped.has(token))));
  });
  byId("edits-clear-tokens").addEventListener("click", () => dropTokens(new Set()));
  onChange(["image", "category", "rival", "method"], drawBrush);
}

/** Drops the share of the image tokens with the largest values of the map, or with the smallest. */
function dropByMap(sign) {
  const map = mapOf(null, null);
  const share = Math.min(Math.max(Number(byId("edits-share").value) || 10, 1), 99);
  const count = Math.max(1, Math.round((share / 100) * map.length));
  const order = map.map((value, i) => [value, i]).sort((a, b) => sign * (b[0] - a[0]) || a[1] - b[1]);
  dropTokens(new Set(order.slice(0, count).map(([, i]) => prefixCount + i)));
}

function drawBrush() {
  const dropped = droppedTokens();
  editBrush.paint({
    colors: () => null,
    gray: false,
    labels: (token) => `${tokenName(token)}: ${dropped.has(token) ? "dropped" : "kept"}`,
    tip: (token) => [tokenName(token), dropped.has(token) ? "dropped" : "kept"],
  });
  for (const [token, button] of editBrush.buttons) {
    button.classList.toggle("dropped", dropped.has(token));
    button.setAttribute("aria-pressed", String(dropped.has(token)));
  }
  byId("edits-invert").disabled = byId("edits-clear-tokens").disabled = dropped.size === 0;
}
