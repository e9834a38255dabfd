// Lines over depth with bands of their intervals.
const GROUPS = ["all", "right", "wrong"];

function depthChart(host, rows, name, { text, low, high }) {
  const depths = [...new Set(rows.map((row) => row.depth))].sort((a, b) => a - b);
  const groups = GROUPS.filter((group) => rows.some((row) => row.group === group && known(row[name])));
  const shown = groups.length > 2 ? groups.filter((group) => group !== "all") : groups;
  const draw = () => {
    const width = Math.max(host.clientWidth, 240);
    const size = { left: 46, right: 10, top: 10, bottom: 172, height: 214 };
    const values = rows.filter((row) => shown.includes(row.group)).map((row) => row[name]).filter(known);
    const bounds = rows.filter((row) => shown.includes(row.group)).map((row) => row[`${name}_low`]).filter(known);
    // Intervals of a few images reach far below the lines, which would be flat: bands are cut there.
    const lowest = Math.min(...values);
    const top = high ?? Math.max(...values);
    const ends = [low ?? Math.max(Math.min(lowest, ...bounds), lowest - 0.25 * (top - lowest)), top];
    const x = (depth) => size.left + ((width - size.left - size.right) * (depth - depths[0])) / (depths.at(-1) - depths[0] || 1);
    const y = (value) => size.bottom - ((size.bottom - size.top) * (Math.max(ends[0], Math.min(ends[1], value)) - ends[0])) / (ends[1] - ends[0] || 1);
    const svg = makeSvg("svg", { viewBox: `0 0 ${width} ${size.height}`, width, height: size.height, role: "img", "aria-label": host.dataset.label });
    for (const share of [0, 0.5, 1]) {
      const value = ends[0] + share * (ends[1] - ends[0]);
      svg.append(makeSvg("line", { class: "rule", x1: size.left, x2: width - size.right, y1: y(value), y2: y(value) }),
        makeSvg("text", { x: size.left - 7, y: y(value) + 4, "text-anchor": "end" }, text(value)));
    }
    const step = depths.length > 1 ? x(depths[1]) - x(depths[0]) : width;
    const every = Math.ceil(24 / step);
    depths.forEach((depth) => {
      if (depth > 0 && (depth - 1) % every) return;
      svg.append(makeSvg("text", { x: x(depth), y: size.bottom + 18, "text-anchor": "middle" }, depth === 0 ? "emb." : depth === 1 && step < 34 ? "" : String(depth - 1)));
    });
    svg.append(makeSvg("text", { x: (size.left + width - size.right) / 2, y: size.height - 6, "text-anchor": "middle" }, "block"));
    const lines = [];
    for (const group of shown) {
      const points = rows.filter((row) => row.group === group && known(row[name]));
      const band = points.filter((row) => known(row[`${name}_low`]) && known(row[`${name}_high`]));
      svg.append(makeSvg("polygon", { class: `band ${group}`, points: [...band.map((row) => `${x(row.depth)},${y(row[`${name}_high`])}`),
        ...band.reverse().map((row) => `${x(row.depth)},${y(row[`${name}_low`])}`)].join(" ") }));
      lines.push(makeSvg("polyline", { class: `line ${group}`, points: points.map((row) => `${x(row.depth)},${y(row[name])}`).join(" ") }),
        ...points.map((row) => makeSvg("circle", { class: `point ${group}`, cx: x(row.depth), cy: y(row[name]), r: 2.6, "data-depth": row.depth, "data-value": row[name] })));
    }
    svg.append(...lines);
    for (const depth of depths) {
      const strip = makeSvg("rect", { class: "strip", x: x(depth) - step / 2, y: size.top, width: step, height: size.bottom - size.top });
      strip.addEventListener("pointerenter", () => showTip(strip, [depth === 0 ? "After the embeddings" : `After block ${depth - 1}`,
        ...shown.flatMap((group) => rows.filter((row) => row.group === group && row.depth === depth && known(row[name])).map((row) =>
          `${group}: ${text(row[name])} (${interval({ low: row[`${name}_low`], high: row[`${name}_high`] }, text)}), ${images(row.images)}`))]));
      strip.addEventListener("pointerleave", hideTip);
      svg.append(strip);
    }
    host.replaceChildren(svg);
  };
  new ResizeObserver(draw).observe(host);
  return shown;
}
