// The units of all blocks with the largest effects, as bars.
function drawBars() {
  const image = currentImage();
  const limit = largestOf(image.largest.map((part) => part.effect)) || 1;
  byId("bars-words").textContent = `${image.largest.length} of ${image.count * record.blocks.length} units, the largest ${measured}s of ` +
    "either sign first. To the right: toward the " + (record.direction === "denoise" ? "clean" : "corrupt") + " image.";
  const cells = new Map();
  byId("bars").replaceChildren(...image.largest.map((part, row) => {
    const fill = make("span", { class: `fill ${part.effect >= 0 ? "for" : "against"}` });
    fill.style.width = `${50 * Math.abs(part.effect) / limit}%`;
    fill.style[part.effect >= 0 ? "left" : "right"] = "50%";
    const bar = make("div", { class: "bar", role: "listitem", "aria-label": `${capital(part.name)}: ${share(part.effect)}` },
      make("span", { class: "label" }, part.name), make("span", { class: "track", "aria-hidden": "true" }, fill),
      make("span", { class: "number" }, share(part.effect)));
    cells.set(`${row},0`, bar);
    return bar;
  }));
  lattice(byId("bars"), cells, (row) => tipLines(image.largest[row].name, image.largest[row].effect, image.largest[row].patched));
}
