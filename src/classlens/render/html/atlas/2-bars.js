// Bars with intervals, on one scale that holds zero.

const WIDEST = 2.5; // times the largest value: intervals of a few images reach further, and would leave bars of no width

/** The ends of a scale for rows of `value`, `low` and `high`, with zero in it. */
function scaleOf(rows) {
  const values = rows.map((row) => row.value).filter(known);
  const limit = WIDEST * largestOf(values);
  const ends = rows.flatMap(({ low, high }) => [low, high]).filter(known).map((end) => Math.max(-limit, Math.min(limit, end)));
  return { low: Math.min(0, ...values, ...ends), high: Math.max(0, ...values, ...ends) };
}
/** The place on a scale in percent; what lies beyond it is at its end. */
const at = (scale, value) => Math.max(0, Math.min(100, (100 * (value - scale.low)) / (scale.high - scale.low || 1)));

/** Signed numbers with as many decimals as the largest of their scale needs for two digits. */
function signedOn(scale) {
  const limit = Math.max(scale.high, -scale.low);
  const digits = limit > 0 ? Math.min(Math.max(1 - Math.floor(Math.log10(limit)), 2), 6) : 2;
  return (value) => signed(value, digits);
}
const scaleWithMarks = (rows) => scaleOf([...rows, ...rows.flatMap((row) => row.marks ?? [])]);
const cosines = (rows, label) => bars(rows, { text: (value) => fixed(value, 2), scale: { ...scaleOf(rows), high: 1 }, label });

/**
 * A row each: `label` (an element), `value`, `low`, `high`, `note`, and `marks`, other values as dots. `text` writes a
 * number. Colors tell signs apart where `sign` is set.
 */
function bars(rows, { sign = true, scale = scaleWithMarks(rows), text = signedOn(scale), label = "Values" } = {}) {
  const list = make("div", { class: "bars", role: "list", "aria-label": label });
  for (const row of rows) {
    const track = make("span", { class: "track", "aria-hidden": "true" });
    const zero = make("span", { class: "zero-line" });
    zero.style.left = `${at(scale, 0)}%`;
    track.append(zero);
    if (known(row.value)) {
      const fill = make("span", { class: `fill ${sign ? (row.value >= 0 ? "for" : "against") : "plain"}` });
      const ends = [at(scale, 0), at(scale, row.value)].sort((a, b) => a - b);
      fill.style.left = `${ends[0]}%`;
      fill.style.width = `${ends[1] - ends[0]}%`;
      track.append(fill);
    }
    if (known(row.low) && known(row.high)) {
      const whisker = make("span", { class: `whisker${row.low < scale.low ? " from-beyond" : ""}${row.high > scale.high ? " to-beyond" : ""}` });
      whisker.style.left = `${at(scale, row.low)}%`;
      whisker.style.width = `${at(scale, row.high) - at(scale, row.low)}%`;
      track.append(whisker);
    }
    for (const mark of row.marks ?? []) {
      if (!known(mark.value)) continue;
      const dot = make("span", { class: `mark ${mark.group}` });
      dot.style.left = `${at(scale, mark.value)}%`;
      track.append(dot);
    }
    const range = interval(row, text);
    list.append(make("div", { class: row.current ? "bar current" : "bar", role: "listitem" },
      make("span", { class: "label" }, row.label), track,
      make("span", { class: "number" }, known(row.value) ? text(row.value) : "–",
        make("small", {}, range))));
    const note = typeof row.note === "function" ? row.note(text) : row.note;
    if (note) list.lastChild.append(make("span", { class: "note" }, note));
  }
  return list;
}

/** The first rows, and a button for the others. */
function foldedBars(rows, shown, options) {
  const scale = options.scale ?? scaleWithMarks(rows);
  const host = make("div", {}, bars(rows.slice(0, shown), { ...options, scale }));
  if (rows.length > shown) {
    const more = make("button", { type: "button", class: "more" }, `Show all ${grouped(rows.length)}`);
    more.addEventListener("click", () => host.replaceChildren(bars(rows, { ...options, scale })));
    host.append(more);
  }
  return host;
}

/** The meaning of dots for right and wrong images. */
const groupLegend = () => make("p", { class: "hint keys" },
  make("span", {}, make("span", { class: "key fill-key", "aria-hidden": "true" }), " bar: mean over all images; line: its interval"),
  make("span", {}, make("span", { class: "key mark right", "aria-hidden": "true" }), " right predictions"),
  make("span", {}, make("span", { class: "key mark wrong", "aria-hidden": "true" }), " wrong predictions"));

/** Dots for the means over right and wrong images, and a note with their numbers. */
function groupMarks(row) {
  const shown = ["right", "wrong"].filter((group) => row[group]);
  return {
    marks: shown.map((group) => ({ ...row[group], group, low: null, high: null })),
    note: (text) => shown.filter((group) => known(row[group].value)).map((group) => {
      const range = interval(row[group], text);
      return `${group} ${text(row[group].value)}${range && ` (${range})`}`;
    }).join(" · "),
  };
}
