// Right answers over depth, as a chart and as numbers.
function drawTrajectory() {
  const rows = comparison.trajectory;
  if (!rows.length) {
    byId("trajectory-card").replaceChildren(byId("trajectory-title"), make("p", { class: "lead" }, `No trajectory can be compared: ${comparison.missing.trajectory}.`));
    return;
  }
  const paired = rows.every((row) => known(row.first) && known(row.second));
  byId("trajectory-keys").append(...SIDES.map((side) => keyOf(side, `, ${counted(comparison[side].blocks, "block")}`)), make("span", {}, "bands: intervals"));
  new ResizeObserver(() => drawChart(rows, paired)).observe(byId("trajectory"));
  byId("trajectory-numbers").append(make("table", {},
    make("thead", {}, make("tr", {}, ...["Blocks passed", "Share of depth", "First", "Second", "Difference"].map((text) => make("th", { scope: "col", class: "number" }, text)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, make("th", { scope: "row", class: "number" }, String(row.block)), make("td", { class: "number" }, percent(row.depth)),
      ...[...SIDES, "difference"].map((name) => {
        const text = name === "difference" ? signedPoints : (value) => points(value);
        return make("td", { class: "number" }, known(row[name]) ? text(row[name]) : "–", make("small", {}, interval(row, `${name}_`, text)));
      }))))));
}

function drawChart(rows, paired) {
  const host = byId("trajectory");
  const width = Math.max(host.clientWidth, 240);
  const size = { left: 46, right: 14, top: 10, bottom: 222, height: 268 };
  const x = (depth) => size.left + (width - size.left - size.right) * depth;
  const y = (share) => size.bottom - (size.bottom - size.top) * share;
  const svg = makeSvg("svg", { viewBox: `0 0 ${width} ${size.height}`, width, height: size.height, role: "img", "aria-label": "Share of right answers over depth, of both" });
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    svg.append(makeSvg("line", { class: "rule", x1: size.left, x2: width - size.right, y1: y(share), y2: y(share) }),
      makeSvg("text", { x: size.left - 7, y: y(share) + 4, "text-anchor": "end" }, percent(share)),
      makeSvg("text", { x: x(share), y: size.bottom + 18, "text-anchor": "middle" }, share === 0 ? "0" : share === 1 ? "1" : String(share)));
  }
  svg.append(makeSvg("text", { x: (size.left + width - size.right) / 2, y: size.height - 8, "text-anchor": "middle" }, "share of the blocks passed"));
  for (const side of SIDES) {
    const of = rows.filter((row) => known(row[side]));
    svg.append(makeSvg("polygon", { class: `band ${side}`, points: [...of.map((row) => `${x(row.depth)},${y(row[`${side}_high`])}`), ...[...of].reverse().map((row) => `${x(row.depth)},${y(row[`${side}_low`])}`)].join(" ") }),
      makeSvg("polyline", { class: `curve ${side}`, points: of.map((row) => `${x(row.depth)},${y(row[side])}`).join(" ") }),
      ...of.map((row) => {
        const [a, b] = [x(row.depth), y(row[side])];
        return side === "first" ? makeSvg("circle", { class: "dot first", cx: a, cy: b, r: 4, "data-block": row.block })
          : makeSvg("path", { class: "dot second", d: `M${a} ${b - 5}L${a + 5} ${b}L${a} ${b + 5}L${a - 5} ${b}Z`, "data-block": row.block });
      }));
  }
  const depths = [...new Set(rows.map((row) => row.depth))];
  depths.forEach((depth, i) => {
    const ends = [(depths[i - 1] ?? depth) + depth, depth + (depths[i + 1] ?? depth)].map((twice) => x(twice / 2));
    const strip = makeSvg("rect", { class: "strip", x: ends[0], y: size.top, width: Math.max(ends[1] - ends[0], 1), height: size.bottom - size.top });
    strip.addEventListener("pointerenter", () => showTip(strip, [`After ${percent(depth)} of the blocks`,
      ...rows.filter((row) => row.depth === depth).flatMap((row) => [
        ...SIDES.filter((side) => known(row[side])).map((side) => `${side} (${counted(row.block, "block")}): ${points(row[side])} (${interval(row, `${side}_`, (value) => points(value))})`),
        ...(paired ? [`difference: ${signedPoints(row.difference)} (${interval(row, "difference_", signedPoints)})`] : [])])]));
    strip.addEventListener("pointerleave", hideTip);
    svg.append(strip);
  });
  host.replaceChildren(svg);
}
