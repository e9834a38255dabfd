// The page of a class.
const LISTED = 12;

setUpFrame();
const own = make("strong", {}, nameText(page.class_name));
facts(shell.labels ? images(page.images) : images(page.predicted), shell.labels && `predicted ${grouped(page.predicted)} times`, `class ${page.category} of ${shell.model}`);
if (shell.labels) drawDecisions();
drawTrajectory();
drawWriters();
drawUnits();
drawTip();
drawTokens();
finish();

function drawDecisions() {
  const scale = { low: 0, high: Math.max(0, ...[...page.confusions, ...page.taken].map((row) => row.high ?? row.value)) };
  const rows = (list) => list.map((row) => ({ label: linked(row.class_name, row.page), value: row.value, low: row.low, high: row.high, note: `${images(row.images)}` }));
  const card = section("decisions", "Right and wrong", ["How often the model says ", own.cloneNode(true), " to its images, and what it says in its place."], "",
    make("dl", { class: "figures" }, make("div", {}, make("dt", {}, "Accuracy"), make("dd", {}, percent(page.accuracy),
      make("small", {}, `${interval({ low: page.accuracy_low, high: page.accuracy_high }, percent)}; ${grouped(page.correct)} of ${grouped(page.images)} right`)))),
    make("h3", {}, "Said in its place"),
    page.confusions.length ? foldedBars(rows(page.confusions), 5, { text: percent, sign: false, scale, label: "Confusions" }) : make("p", {}, "Every image of the class is predicted right."));
  if (page.taken.length) {
    card.insertBefore(make("h3", {}, "Said to images of other classes"), card.lastChild);
    card.insertBefore(foldedBars(rows(page.taken).map((row, i) => ({ ...row, note: `${page.taken[i].images} of its images` })), 5, { text: percent, sign: false, scale, label: "Other classes taken for it" }), card.lastChild);
  }
}

function drawTrajectory() {
  if (!page.trajectory.length) return;
  const hosts = ["on_top", "log_probability"].map((name) => make("div", { class: "chart", "data-chart": name,
    "data-label": name === "on_top" ? "Share of images with the class on top, by depth" : "Mean log probability of the class, by depth" }));
  const legend = make("p", { class: "hint keys" });
  section("trajectory", "The decision over depth", ["After each block one can ask what the model would decide there. When ", own.cloneNode(true), " comes out on top, and how its probability grows, for images that end right and wrong."], "",
    make("div", { class: "charts" }, make("div", {}, make("h3", {}, "Share with the class on top"), hosts[0]), make("div", {}, make("h3", {}, "Mean log probability"), hosts[1])), legend);
  const shown = depthChart(hosts[0], page.trajectory, "on_top", { text: percent, low: 0, high: 1 });
  depthChart(hosts[1], page.trajectory, "log_probability", { text: (value) => fixed(value, 1), high: 0 });
  const count = (group) => page.trajectory.find((row) => row.group === group).images;
  legend.replaceChildren(...shown.map((group) => make("span", {}, make("span", { class: `key line-key ${group}`, "aria-hidden": "true" }),
    ` ${group === "all" ? "all" : `predicted ${group}`} (${images(count(group))})`)), make("span", {}, "bands: intervals, cut at the borders"));
}

function drawWriters() {
  const title = "Heads and MLPs that write it";
  if (!page.writers.length) return emptySection("writers", title, "No image of the class has contributions in the store.");
  const groups = ["all", "right", "wrong"].filter((group) => page.writers.some((part) => part[group]));
  const limit = largestOf(page.writers.flatMap((part) => groups.map((group) => part[group]?.value ?? 0)));
  const host = make("div", {});
  const text = signedOn({ low: 0, high: limit });
  const counts = Object.fromEntries(groups.map((group) => [group, Math.max(...page.writers.map((part) => part[group]?.images ?? 0))]));
  const draw = (group) => host.replaceChildren(partsGrid(page.writers.map((part) => ({ ...part, value: part[group]?.value ?? null })), {
    limit, label: "Mean contribution by block and head",
    tips: (part) => groups.map((name) => (known(part[name]?.value) ? `${name}: ${text(part[name].value)} (${interval(part[name], text)})` : `${name}: –`)),
  }));
  draw("all");
  const legend = make("div", { class: "legend" });
  divergingLegend(legend, limit, "against the class", "for the class", { zero: "pale" });
  const card = section("writers", title, ["The mean contribution of each part to ", own.cloneNode(true), " over its images: how much it raises this logit beyond the mean of all logits."], "--attribution",
    choices("Images", groups.map((group) => [group, `${group === "all" ? "all images" : `predicted ${group}`} (${grouped(counts[group])})`]), "all", draw), host, legend);
  card.insertBefore(make("p", { class: "hint" }, "A cell leads to the page of the head; MLP cells lead to the page of the block."), card.lastChild);
  card.classList.add("map-card");
  const ranked = page.writers.filter((part) => part.all && known(part.all.value)).sort((a, b) => Math.abs(b.all.value) - Math.abs(a.all.value));
  section("ranked", "The strongest parts", "The same contributions, the largest of either sign first, with intervals over images.", "--attribution",
    foldedBars(ranked.map((part) => ({ label: linked(partName(part), part.page), ...part.all, ...groupMarks(part) })), LISTED, { label: "Strongest parts" }), groupLegend());
}

function drawUnits() {
  if (!shell.units) return emptySection("units", "Units", "This atlas has no hidden units: measure the store with --attribution --units 64 for them.");
  const unit = (row) => linked(unitName(row), row.page);
  if (page.value_units.length) {
    section("values", "Units whose values point at it", ["A hidden unit of an MLP writes one fixed vector, its value. These units have values that score ", own.cloneNode(true), " highest: they would write the class if they were active."], "--attribution --units N",
      cosines(page.value_units.map((row) => ({ label: unit(row), value: row.cosine, note: `score ${significant(row.score)}${row.class_rank ? `, its class no. ${row.class_rank + 1}` : ""}` +
        `${known(row.active_share) ? `, active at ${percent(row.active_share)} of the tokens` : ""}` })), "Cosines of units"),
      make("p", { class: "hint" }, "Bars are cosines of value and class, between −1 and 1, from the parameters alone: they are exact and have no interval."));
  }
  if (page.unit_writers.length) {
    section("unit-writers", "Units that really add to it", ["The units that add most to ", own.cloneNode(true), " in its images, whatever their values point at."], "--attribution --units N",
      bars(page.unit_writers.map((row) => ({ label: unit(row), ...row, note: `among the strongest units in ${grouped(row.listed)} of ${images(row.images)}${row.bound ? `; error of at most ${significant(row.bound)}` : ""}` })), { label: "Contributions of units" }),
      make("p", { class: "hint" }, "The store lists the strongest units of each image alone; where a unit is not listed it counts as 0, and the error that this can make is given."));
  }
}

function drawTip() {
  if (!page.tip) return;
  const rival = linked(page.tip.class_name, page.tip.page);
  const parts = [...page.tip.parts].filter((part) => known(part.value)).sort((a, b) => b.value - a.value);
  const card = section("tips", "What tips it", ["Its most frequent confusion is ", rival, ` (${images(page.tip.images)}). In these images, which parts give more to `, rival.cloneNode(true), " than to ", own.cloneNode(true), "?"], "--attribution",
    foldedBars(parts.map((part) => ({ label: linked(partName(part), part.page), ...part })), LISTED, { label: "Parts that tip the confusion" }));
  card.insertBefore(make("p", { class: "hint" }, "Above zero: toward the wrong class. The parts that speak most for the right class come last."), card.lastChild);
}

function drawTokens() {
  if (!page.tokens.length) return;
  section("tokens", "Image tokens that say it most", ["The tokens that speak most clearly for ", own.cloneNode(true), " after the last block, at most one of an image. ", CROP_WORDS], "",
    crops(page.tokens, (row) => [`logit ${fixed(row.logit, 1)}`]));
}
