// A picture cut into tokens: one button for each token, with prefix tokens as named cells beside it.
const grids = [];

/** `inspects`: pointing at a token inspects it in every picture, and a click keeps it; else cells are buttons alone. */
function tokenGrid(host, { label, prefix = false, inspects = true }) {
  const image = make("img", { alt: "", draggable: "false" });
  const cells = make("div", { class: "cells" });
  cells.style.gridTemplateColumns = `repeat(${gridColumns}, 1fr)`;
  const picture = make("div", { class: "picture" }, image, cells);
  const root = make("div", { class: "token-grid", role: "group", "aria-label": label }, picture);
  root.style.setProperty("--ratio", model.input_size[1] / model.input_size[0]);
  // Small cells get a smaller mark.
  root.classList.toggle("fine", Math.max(gridRows, gridColumns) > 16);
  const buttons = new Map();
  const cell = (token) => {
    const button = make("button", { type: "button", class: "cell", "data-token": token, tabindex: -1, "aria-pressed": "false" });
    buttons.set(token, button);
    return button;
  };
  if (prefix && prefixCount) {
    const column = make("div", { class: "prefix" });
    model.prefix.forEach((name, token) =>
      column.append(make("div", {}, cell(token), make("span", { "aria-hidden": "true" }, prefixName(name)))));
    root.prepend(column);
  }
  for (let token = prefixCount; token < tokenCount; token++) cells.append(cell(token));
  host.replaceChildren(root);

  let tips = () => [];
  const tokenOf = (event) => {
    const button = event.target.closest?.(".cell");
    return button ? Number(button.dataset.token) : null;
  };
  const point = (token) => {
    if (inspects && !state.pinned) update({ token });
    showTip(buttons.get(token), tips(token));
  };
  root.addEventListener("pointerover", (event) => {
    const token = tokenOf(event);
    if (token !== null) point(token);
  });
  root.addEventListener("pointerleave", hideTip);
  root.addEventListener("focusin", (event) => {
    const token = tokenOf(event);
    if (token !== null) point(token);
  });
  root.addEventListener("focusout", hideTip);
  root.addEventListener("click", (event) => {
    const token = tokenOf(event);
    if (token === null || !inspects) return;
    update(state.pinned && state.token === token ? { pinned: false } : { token, pinned: true });
  });
  root.addEventListener("keydown", (event) => {
    const token = tokenOf(event);
    const next = token === null ? null : neighbor(token, event.key, buttons);
    if (next === null) return;
    event.preventDefault();
    buttons.get(next).focus();
  });

  const grid = {
    root,
    buttons,
    setPicture(source, alt) {
      image.src = source;
      image.alt = alt;
    },
    /** `colors(token)`: a CSS color or null; `labels(token)`: its name for screen readers; `tip(token)`: lines of its tip. */
    paint({ colors, labels, tip, marked = () => false, query = () => false, gray = true }) {
      tips = tip;
      root.classList.toggle("gray", gray);
      for (const [token, button] of buttons) {
        button.style.setProperty("--color", colors(token) ?? "transparent");
        button.setAttribute("aria-label", labels(token));
        button.classList.toggle("marked", marked(token));
        button.classList.toggle("query", query(token));
      }
    },
  };
  if (inspects) grids.push(grid);
  return grid;
}

/** The token that an arrow key moves to; null at an edge. */
function neighbor(token, key, buttons) {
  const position = token - prefixCount;
  const column = position % gridColumns;
  let next = null;
  if (position < 0) {
    if (key === "ArrowUp") next = token - 1;
    if (key === "ArrowDown") next = token + 1 < prefixCount ? token + 1 : null;
    if (key === "ArrowRight") next = prefixCount;
  } else {
    if (key === "ArrowUp") next = position >= gridColumns ? token - gridColumns : null;
    if (key === "ArrowDown") next = token + gridColumns;
    if (key === "ArrowRight") next = column + 1 < gridColumns ? token + 1 : null;
    if (key === "ArrowLeft") next = column > 0 ? token - 1 : prefixCount - 1;
  }
  return next !== null && buttons.has(next) ? next : null;
}

// The inspected token is outlined in every picture, and Tab reaches it.
let outlined = null;
onChange(["token", "pinned"], () => {
  for (const { buttons } of grids) {
    const reachable = buttons.has(state.token) ? state.token : prefixCount;
    for (const token of new Set([outlined ?? state.token, state.token, prefixCount])) {
      const button = buttons.get(token);
      if (!button) continue;
      const shown = token === state.token;
      button.classList.toggle("shown", shown);
      button.classList.toggle("pinned", shown && state.pinned);
      button.setAttribute("aria-pressed", String(shown && state.pinned));
      button.tabIndex = token === reachable ? 0 : -1;
    }
  }
  outlined = state.token;
});
