// The legend: how the photos spread over the column that colors them, as bars that filter by it.
const edgeText = (name, edge) => {
  const { kind } = columns.get(name);
  return kind === "share" ? `${Number((100 * edge).toFixed(1))}%` : kind === "whole" ? grouped(edge) : significant(edge);
};

/** The values of a bar in words. */
function barText(name, bar) {
  const { kind, edges } = columns.get(name);
  if (bar < 0) return kind === "correct" ? "no label" : "not known";
  if (kind === "correct") return bar ? "✓ right" : "✗ wrong";
  const last = edges.length - 2;
  const [low, high] = [edges[bar], edges[bar + 1]];
  if (kind === "share") return `${edgeText(name, low)} to ${edgeText(name, high)}`;
  if (last === 0) return "all values";
  const top = kind === "whole" ? high - 1 : high;
  if (bar === 0) return kind === "whole" ? `${edgeText(name, top)} or less` : `below ${edgeText(name, high)}`;
  if (bar === last) return `${edgeText(name, low)} or more`;
  return low === top ? edgeText(name, low) : `${edgeText(name, low)} to ${edgeText(name, top)}`;
}

/** The range that a bar filters by; the outer bars have one border. */
function barRange(name, bar) {
  if (bar < 0) return "unknown";
  const { edges } = columns.get(name);
  return [bar === 0 ? null : edges[bar], bar === edges.length - 2 ? null : edges[bar + 1]];
}
/** Both ranges, and all between them. */
function joinedRange(first, second) {
  const low = [first[0], second[0]].includes(null) ? null : Math.min(first[0], second[0]);
  const high = [first[1], second[1]].includes(null) ? null : Math.max(first[1], second[1]);
  return low === null && high === null ? null : [low, high];
}
/** Whether the range takes photos of a bar. */
function barChosen(name, bar) {
  if (state.range === null || state.range === "unknown" || bar < 0) return state.range === null || (state.range === "unknown") === (bar < 0);
  const [from, to] = barRange(name, bar);
  const [low, high] = state.range;
  return (high === null || from === null || from < high) && (low === null || to === null || to > low);
}

/** The smallest and the largest value. */
const extremes = (name) => keep(`extremes of ${name}`, () => columns.get(name).values.reduce(
  ([low, high], value) => (Number.isNaN(value) ? [low, high] : [Math.min(low, value), Math.max(high, value)]), [Infinity, -Infinity]));

function pressBar(bar, extend) {
  const range = barRange(state.color, bar);
  if (extend && Array.isArray(state.range) && Array.isArray(range)) return choose({ range: joinedRange(state.range, range) });
  const again = rangeText(state.range) === rangeText(range);
  const whole = Array.isArray(range) && range.every((border) => border === null);
  return choose({ range: again || whole ? null : range }, { step: true });
}

function drawScale() {
  const box = byId("scale");
  box.hidden = state.color === null;
  if (box.hidden) return;
  const { label, about, edges } = columns.get(state.color);
  const of = barsOf(state.color);
  const counts = new Map(edges.slice(1).map((_, bar) => [bar, 0]));
  for (const i of candidates()) counts.set(of[i], (counts.get(of[i]) ?? 0) + 1);
  const bars = [...counts.keys()].sort((a, b) => (a < 0) - (b < 0) || a - b);
  const outcomes = columns.get(state.color).kind === "correct";
  const all = Math.max(1, candidates().length);
  byId("bars").className = outcomes ? "outcomes" : "";
  const most = Math.max(1, ...counts.values());
  byId("scale-title").replaceChildren(make("strong", {}, label), `: ${about}`);
  const focused = document.activeElement?.dataset?.bar;
  byId("bars").replaceChildren(...bars.map((bar) => {
    const count = counts.get(bar);
    const words = barText(state.color, bar);
    const fill = make("span", { class: "level" });
    fill.style.height = count ? `${outcomes ? 100 : Math.max(4, 100 * Math.sqrt(count / most))}%` : "0";
    fill.style.background = barColor(state.color, bar);
    const button = make("button", {
      type: "button", "data-bar": bar, class: bar < 0 ? "level-bar unknown" : "level-bar",
      "aria-label": `${words}: ${photosText(count)}`, "aria-pressed": String(state.range !== null && barChosen(state.color, bar)),
      "data-faint": !barChosen(state.color, bar),
    }, fill);
    if (outcomes) button.style.flexGrow = Math.max(count / all, 0.04);
    button.addEventListener("click", (event) => pressBar(bar, event.shiftKey));
    button.addEventListener("mouseenter", () => showTip(button, [words, photosText(count)]));
    button.addEventListener("mouseleave", hideTip);
    button.addEventListener("blur", hideTip);
    return button;
  }));
  if (focused !== undefined) byId("bars").querySelector(`[data-bar="${focused}"]`)?.focus();
  drawRange(edges, counts);
}

function drawRange(edges, counts) {
  const { kind } = columns.get(state.color);
  const ends = kind === "correct" ? [0, 1].map((bar) => `${barText("correct", bar)} ${grouped(counts.get(bar))}`)
    : kind === "share" ? ["0%", "100%"] : extremes(state.color).map((value) => valueText(state.color, value));
  const clear = make("button", { type: "button", class: "quiet", id: "clear-range" }, "Clear range ✕");
  clear.addEventListener("click", () => choose({ range: null }, { step: true }));
  byId("range").replaceChildren(make("span", {}, ends[0]), ...(state.range === null ? [] : [clear]), make("span", {}, ends[1]));
}
onChange(FILTERS, drawScale);
