// The edited pass beside the original one: outputs, decisions over depth, maps.
let editMaps = null;
const EDIT_PASSES = ["original", "edited"];

function drawEditResult(result) {
  byId("edits-result").hidden = false;
  drawEditBars(result);
  drawEditTrajectory(result);
  drawEditMaps(result);
  byId("edits-status").textContent = editWords(result);
}

/** The change in one sentence. */
function editWords({ classes, predictions }) {
  const [target] = classes;
  const { original, edited, change } = target;
  const logits = `${unit} ${fixed(original.logit)} → ${fixed(edited.logit)} (${signed(change.logit)})`;
  const shares = original.probability === null ? "" : `, probability ${percent(original.probability)} → ${percent(edited.probability)}`;
  const same = predictions.original.index === predictions.edited.index;
  const decision = !exclusive ? "" : same ? ` The prediction stays ${predictions.edited.name}.`
    : ` The prediction changes from ${predictions.original.name} to ${predictions.edited.name}.`;
  return `${target.name}: ${logits}${shares}.${decision}`;
}

function drawEditBars({ classes }) {
  const shown = classes.some(({ original }) => original.probability !== null) ? "probability" : "logit";
  const largest = shown === "probability" ? 1 : largestOf(classes.flatMap((one) => EDIT_PASSES.map((name) => one[name].logit)));
  const text = (value) => (shown === "probability" ? percent(value) : fixed(value));
  byId("edits-bars").replaceChildren(...classes.map((one, i) => {
    const { name, change } = one;
    const bars = EDIT_PASSES.map((pass) => {
      const fill = make("span", { class: `fill ${pass}` });
      fill.style.width = `${(100 * Math.max(one[pass][shown], 0)) / (largest || 1)}%`;
      return make("div", { class: "edit-bar" },
        make("span", { class: "when" }, pass === "original" ? "before" : "after"),
        make("span", { class: "track", "aria-hidden": "true" }, fill),
        make("span", { class: "number", title: `${unit} ${fixed(one[pass].logit)}` }, text(one[pass][shown])));
    });
    const points = shown === "probability" ? `${signed(100 * change.probability, 1)} points` : signed(change.logit);
    return make("div", {
      role: "listitem", class: `edit-class${i === 0 ? " target" : ""}`, "data-class": one.index, "data-original": one.original.logit, "data-edited": one.edited.logit,
      "data-change": change.logit, "data-probability": one.edited.probability ?? "",
    }, make("div", { class: "edit-name" }, make("span", { class: "name" }, name), make("span", { class: "number" }, points, shown === "probability" ? `, ${unit} ${signed(change.logit)}` : "")), ...bars);
  }));
}

/** Probability of the class of interest at each depth in both passes, over strips of the top class. */
function drawEditTrajectory({ trajectory, target }) {
  byId("edits-trajectory-part").hidden = !trajectory;
  if (!trajectory) return;
  const host = byId("edits-trajectory");
  const size = { width: Math.max(host.clientWidth, 260), height: 274, left: 58, right: 10, top: 10, bottom: 170 };
  const step = (size.width - size.left - size.right) / (model.blocks + 1);
  const x = (depth) => size.left + (depth + 0.5) * step;
  const y = (share) => size.bottom - share * (size.bottom - size.top);
  const svg = makeSvg("svg", { viewBox: `0 0 ${size.width} ${size.height}`, width: size.width, height: size.height, role: "img" });
  const last = model.blocks;
  svg.setAttribute("aria-label", `Probability of ${target.name} after each block. At the end it is ${percent(trajectory.original.target[last])} before and ${percent(trajectory.edited.target[last])} after the edits.`);
  for (const share of [0, 0.5, 1]) {
    svg.append(makeSvg("line", { class: "rule", x1: size.left, x2: size.width - size.right, y1: y(share), y2: y(share) }),
      makeSvg("text", { x: size.left - 8, y: y(share) + 4, "text-anchor": "end" }, percent(share)));
  }
  const counts = new Map();
  for (const pass of EDIT_PASSES) for (const [top] of trajectory[pass].top) counts.set(top, (counts.get(top) ?? 0) + 1);
  counts.delete(target.index);
  const frequent = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]).map(([index]) => index);
  const colors = new Map([target.index, ...frequent].slice(0, CATEGORIES.length).map((index, i) => [index, CATEGORIES[i]]));
  EDIT_PASSES.forEach((pass, row) => {
    const { target: shares, top } = trajectory[pass];
    svg.append(makeSvg("polyline", { class: `line ${pass}`, points: shares.map((share, depth) => `${x(depth)},${y(share)}`).join(" ") }));
    shares.forEach((share, depth) => svg.append(pass === "original"
      ? makeSvg("circle", { class: `point ${pass}`, cx: x(depth), cy: y(share), r: 3.5, "data-depth": depth, "data-value": share })
      : makeSvg("rect", { class: `point ${pass}`, x: x(depth) - 3.5, y: y(share) - 3.5, width: 7, height: 7, "data-depth": depth, "data-value": share })));
    const at = size.bottom + 12 + 24 * row;
    svg.append(makeSvg("text", { x: size.left - 8, y: at + 13, "text-anchor": "end" }, pass === "original" ? "before" : "after"));
    top.forEach(([index], depth) => svg.append(makeSvg("rect", {
      class: colors.has(index) ? "share" : "share rest", fill: colors.get(index) ?? "", x: x(depth) - 0.46 * step, width: 0.92 * step, y: at, height: 18, "data-pass": pass, "data-depth": depth, "data-class": index,
    })));
  });
  const every = Math.ceil(28 / step);
  const below = size.bottom + 78;
  for (const depth of depthNumbers()) {
    if (depth === 0 || (depth - 1) % every === 0) svg.append(makeSvg("text", { x: x(depth), y: below, "text-anchor": "middle" }, depth === 0 ? "emb." : String(depth - 1)));
    const strip = makeSvg("rect", { class: "strip still", x: x(depth) - step / 2, y: size.top, width: step, height: size.bottom + 54 - size.top });
    strip.addEventListener("pointerenter", () => showTip(strip, [`After ${depthName(depth)}`, ...EDIT_PASSES.map((pass) =>
      `${pass === "original" ? "before" : "after"}: ${className(trajectory[pass].top[depth][0])} on top, ${target.name} ${percent(trajectory[pass].target[depth])}`)]));
    strip.addEventListener("pointerleave", hideTip);
    svg.append(strip);
  }
  svg.append(makeSvg("text", { x: (size.left + size.width - size.right) / 2, y: size.height - 4, "text-anchor": "middle" }, "block"));
  host.replaceChildren(svg);
  byId("edits-trajectory-legend").replaceChildren(
    make("span", {}, make("span", { class: "key original", "aria-hidden": "true" }), ` ${target.name} before`),
    make("span", {}, make("span", { class: "key edited", "aria-hidden": "true" }), ` ${target.name} after`),
    ...[...colors].filter(([index]) => counts.has(index) || EDIT_PASSES.some((pass) => trajectory[pass].top.some(([top]) => top === index)))
      .map(([index, color]) => make("span", {}, swatch(color), ` ${className(index)} on top`)),
    ...(frequent.length >= CATEGORIES.length ? [make("span", {}, make("span", { class: "swatch other", "aria-hidden": "true" }), " other classes")] : []));
}

/** The rank of the class at a token after the last block, in both passes. */
const rankLines = (ranks, token, { name }) => (!ranks || ranks.edited[token] === null ? []
  : [`rank of ${name} after the last block: ${ranks.original[token]} → ${ranks.edited[token]}`]);

function drawEditMaps({ map, ranks, target, against }) {
  const titles = { original: "Before", edited: "After", difference: "Change" };
  if (!editMaps) {
    editMaps = Object.entries(titles).map(([name, title]) => {
      const host = make("div", {});
      byId("edits-maps").append(make("figure", {}, make("figcaption", {}, title), host));
      const grid = tokenGrid(host, { label: `Map: ${title.toLowerCase()}`, inspects: false });
      grid.buttons.get(prefixCount).tabIndex = 0;
      grid.root.addEventListener("focusin", (event) => {
        for (const button of grid.buttons.values()) button.tabIndex = button === event.target ? 0 : -1;
      });
      for (const button of grid.buttons.values()) button.removeAttribute("aria-pressed");
      return { name, grid };
    });
  }
  const words = against ? `${target.name} rather than ${against.name}` : target.name;
  const shown = Object.keys(titles).filter((name) => map[name] !== null);
  byId("edits-maps-words").textContent = `What each image token adds for ${words}, by ${map.label}; one scale for all three. Crossed tokens are dropped.` +
    (map.reason ? ` It cannot be computed here: ${map.reason}.` : "");
  const largest = largestOf(shown.flatMap((name) => map[name].flat()).filter((value) => value !== null));
  for (const { name, grid } of editMaps) {
    grid.root.closest("figure").hidden = map[name] === null;
    if (map[name] === null) continue;
    const values = map[name].flat();
    const value = (token) => values[token - prefixCount];
    grid.setPicture(record.pictures[state.image], "");
    const text = (token) => (value(token) === null ? "dropped" : significant(value(token)));
    grid.paint({
      colors: (token) => (value(token) === null ? null : divergingCss(value(token), largest)),
      labels: (token) => `${tokenName(token)}: ${text(token)}`,
      tip: (token) => [tokenName(token), `${titles[name].toLowerCase()}: ${text(token)}`, ...rankLines(ranks, token, target)],
    });
    for (const [token, button] of grid.buttons) {
      button.classList.toggle("dropped", value(token) === null);
      button.dataset.value = value(token) ?? "";
    }
  }
  divergingLegend(byId("edits-map-legend"), largest, `against ${words}, or less than before`, `for ${words}, or more than before`);
}
