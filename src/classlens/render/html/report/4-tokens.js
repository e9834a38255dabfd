// The main panel: all tokens colored by rank or top class, and one token in full.
const SITES = {
  embed: ["before the first block", "Before the first block"],
  attn_out: ["what attention adds", "What attention adds"],
  resid_mid: ["after attention", "After attention"],
  mlp_out: ["what the MLP adds", "What the MLP adds"],
  resid_post: ["after the block", "After the whole block"],
};
const siteLabel = (site) => (SITES[site] ? `${SITES[site][0]} (${site})` : site);
const siteWords = () => {
  if (state.site === "embed") return "Before the first block";
  const number = state.block;
  return {
    attn_out: `In what attention adds in block ${number}`,
    resid_mid: `After the attention of block ${number}`,
    mlp_out: `In what the MLP adds in block ${number}`,
  }[state.site] ?? `After block ${number}`;
};
/** The current block's index in the lists of the current site; the embedding has one entry. */
const blockIndex = () => (state.site === "embed" ? 0 : state.block);
const currentFacts = () => {
  const site = currentImage().tokens[state.site];
  return { values: valuesAt(site)[blockIndex()], top: site.top[blockIndex()] };
};
/** Lengths of the tokens at the current block and site, and which of them are outliers. */
function currentNorms() {
  const { norm, outlier } = currentImage().norms[state.site];
  return { norms: norm[blockIndex()], isOutlier: (token) => outlier[blockIndex()][token] === 1 };
}
const rankWords = (rank) => `rank ${rank} of ${model.num_classes}`;
/** Where a class stands at a token: its rank, or the logit of an output that has none. */
const unit = model.problem_type === "regression" ? "output" : "logit";
const standing = (value) => (exclusive ? rankWords(value) : `${unit} ${fixed(value)}`);

/** By block and token, ranks of the class of interest, or logits. */
const valuesAt = (site) => site.rank ?? site.logit;

function setUpTokens() {
  const main = tokenGrid(byId("token-grid"), { label: "Tokens of the picture", prefix: true });
  const slider = byId("block");
  slider.max = model.blocks - 1;
  if (!exclusive) {
    byId("coloring").querySelector("[value=top1]").parentElement.remove();
    byId("coloring-value").textContent = unit;
    byId("tokens-question").textContent = `what is the ${unit} of`;
  }
  slider.addEventListener("input", () => {
    stopPlaying();
    update({ block: Number(slider.value) });
  });
  for (const site of record.sites) byId("site").append(make("option", { value: site }, siteLabel(site)));
  byId("site").addEventListener("change", (event) => {
    stopPlaying();
    update({ site: event.target.value });
  });
  byId("coloring").addEventListener("change", (event) => update({ coloring: event.target.value }));
  byId("opacity").addEventListener("input", (event) => update({ opacity: Number(event.target.value) / 100 }));
  byId("play").addEventListener("click", () => (playing ? stopPlaying() : startPlaying()));
  byId("unpin").addEventListener("click", () => update({ pinned: false }));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      hideTip();
      update({ pinned: false });
    }
  });

  onChange(["image", "block", "site"], drawBlockControls);
  onChange(["opacity"], () => {
    document.documentElement.style.setProperty("--overlay", state.opacity);
    byId("opacity").setAttribute("aria-valuetext", `${Math.round(100 * state.opacity)} per cent`);
  });
  onChange(["image", "category", "block", "site", "coloring"], () => drawTokens(main));
  onChange(["image"], () => main.setPicture(record.pictures[state.image], `What the model saw of ${currentImage().name}`));
  onChange(["image", "category", "block", "site", "token", "pinned"], drawInspector);
}

let playing = null;
function startPlaying() {
  if (state.block === model.blocks - 1) update({ block: 0 });
  playing = setInterval(() => {
    if (state.block === model.blocks - 1) stopPlaying();
    else update({ block: state.block + 1 });
  }, 600);
  drawPlay();
}
function stopPlaying() {
  clearInterval(playing);
  playing = null;
  drawPlay();
}
function drawPlay() {
  byId("play").textContent = playing ? "❚❚ Pause" : "▶ Play";
  byId("play").setAttribute("aria-pressed", String(Boolean(playing)));
}

function drawBlockControls() {
  const embed = state.site === "embed";
  const slider = byId("block");
  slider.value = state.block;
  slider.disabled = byId("play").disabled = embed;
  byId("site").value = state.site;
  byId("block-value").textContent = embed ? "before block 0" : `${state.block} of 0–${model.blocks - 1}`;
  slider.setAttribute("aria-valuetext", `block ${state.block} of 0 to ${model.blocks - 1}`);
}

function drawTokens(grid) {
  const { values, top } = currentFacts();
  const palette = categoryColors();
  const largest = largestOf(values);
  const onTop = (token) => exclusive && values[token] === 0;
  const { norms, isOutlier } = currentNorms();
  const colors = {
    identifiability: (token) => (exclusive ? viridis(identifiability(values[token])) : divergingCss(values[token], largest)),
    top1: (token) => palette.get(top[token][0]) ?? OTHER,
    norm: (token) => viridis(norms[token] / (largestOf(norms) || 1)),
    none: () => null,
  }[state.coloring];
  const target = currentImage().target.name;
  const topClass = (token) => (exclusive ? [`top class: ${className(top[token][0])}`] : []);
  grid.paint({
    colors,
    gray: state.coloring !== "none",
    marked: (token) => (state.coloring === "identifiability" && onTop(token)) || (state.coloring === "norm" && isOutlier(token)),
    labels: (token) => [`${tokenName(token)}: ${target} at ${standing(values[token])}`, ...topClass(token)].join(", "),
    tip: (token) => [
      tokenName(token),
      `${target}: ${standing(values[token])}${onTop(token) ? " (on top)" : ""}`,
      ...(exclusive ? [`identifiability ${fixed(identifiability(values[token]), rankDigits)}`] : []),
      ...topClass(token),
      ...(state.coloring === "norm" ? [`norm ${significant(norms[token])}${isOutlier(token) ? " (outlier)" : ""}`] : []),
    ],
  });
  drawLegend(palette, top, largest);
  const image = values.slice(prefixCount);
  const atCls = clsToken >= 0 ? `; at [CLS] it has ${standing(values[clsToken])}.` : ".";
  const count = image.filter((value) => (exclusive ? value === 0 : value > 0)).length;
  const share = `${count} of ${counted(image.length, "image token")} (${percent(count / image.length)})`;
  byId("summary").textContent = `${siteWords()}, ` + (exclusive ? `${share} have ${target} on top`
    : multiLabel ? `${share} have a logit of ${target} above 0`
    : `the mean of ${target} over image tokens is ${fixed(sum(image) / image.length)}`) + atCls;
}

function drawLegend(palette, top, largest) {
  const legend = byId("legend");
  const target = currentImage().target;
  if (state.coloring === "none") {
    legend.replaceChildren(make("p", {}, "The picture as the model sees it, with the borders of its tokens."));
    return;
  }
  if (state.coloring === "norm") {
    const { norms, isOutlier } = currentNorms();
    const outliers = norms.filter((_, token) => isOutlier(token)).length;
    legend.replaceChildren(
      make("div", { class: "scale" },
        make("span", {}, "0"), make("span", { class: "ramp viridis", "aria-hidden": "true" }), make("span", {}, significant(largestOf(norms)))),
      make("p", {}, "Length of each token's vector. ", make("span", { class: "dot", "aria-hidden": "true" }),
        ` marks outliers, above median + 5 MAD of the image tokens: ${counted(outliers, "token")} here.`));
    return;
  }
  if (state.coloring === "identifiability" && !exclusive) {
    divergingLegend(legend, largest, `${unit} of ${target.name} below 0`, "above 0");
    return;
  }
  if (state.coloring === "identifiability") {
    legend.replaceChildren(
      make("div", { class: "scale" },
        make("span", {}, "0"), make("span", { class: "ramp viridis", "aria-hidden": "true" }), make("span", {}, "1")),
      make("p", {},
        `Class identifiability of ${target.name}: 1 − rank ÷ ${model.num_classes} classes, where the rank counts the classes that ` +
        "score higher. Dark: far down the list. Yellow: near the top. ",
        make("span", { class: "dot", "aria-hidden": "true" }), " marks tokens with the class on top (rank 0)."),
    );
    return;
  }
  const counts = new Map();
  for (const classes of top.slice(prefixCount)) counts.set(classes[0], (counts.get(classes[0]) ?? 0) + 1);
  const others = [...counts].filter(([index]) => !palette.has(index));
  const row = (color, name, count, note = "") =>
    make("li", { class: count ? "" : "absent" }, swatch(color), make("span", {}, name + note), make("b", {}, String(count)));
  const rows = [...palette].map(([index, color]) =>
    row(color, className(index), counts.get(index) ?? 0, index === target.index ? " (class of interest)" : ""));
  if (others.length || model.num_classes > palette.size) {
    rows.push(row(OTHER, others.length ? `other (${counted(others.length, "class")})` : "other",
      sum(others.map(([, count]) => count))));
  }
  legend.replaceChildren(
    make("p", {}, "The class each token would choose, with the number of image tokens that choose it here. The colors belong to " +
      "the class of interest and the classes chosen most often over all blocks."),
    make("ul", { class: "classes" }, ...rows));
}

function swatch(color) {
  const element = make("span", { class: "swatch", "aria-hidden": "true" });
  element.style.background = color;
  return element;
}

function drawInspector() {
  const { token } = state;
  const site = currentImage().tokens[state.site];
  const value = valuesAt(site)[blockIndex()][token];
  const target = currentImage().target;
  byId("inspector-title").textContent = tokenName(token) + (state.pinned ? " (held)" : "");
  byId("unpin").hidden = !state.pinned;
  byId("inspector-now").textContent =
    `${siteWords()}: ${target.name} has ${standing(value)}` +
    (exclusive ? `, identifiability ${fixed(identifiability(value), rankDigits)}.` : ".");
  const places = Array.from({ length: record.top_k }, (_, place) => place);
  const ordinal = (place) => ["1st", "2nd", "3rd"][place] ?? `${place + 1}th`;
  const head = make("thead", {}, make("tr", {},
    make("th", { scope: "col" }, "Block"),
    make("th", { scope: "col", title: exclusive ? `Number of classes that score higher than ${target.name}` : target.name },
      exclusive ? "Rank" : unit),
    ...places.map((place) => make("th", { scope: "col" }, `${ordinal(place)} ${exclusive ? "class" : "output"}`))));
  const rows = site.top.map((tokens, block) => {
    const current = block === blockIndex();
    const number = state.site === "embed" ? "input"
      : make("button", { type: "button", class: "link", "aria-label": `Go to block ${block}` }, String(block));
    if (state.site !== "embed") number.addEventListener("click", () => update({ block }));
    return make("tr", { "aria-current": current && "true", "data-block": block },
      make("th", { scope: "row" }, number),
      make("td", { class: "number" }, exclusive ? String(site.rank[block][token]) : fixed(site.logit[block][token])),
      ...tokens[token].map((index, place) => {
        const name = make("span", { class: "name", title: className(index) }, className(index));
        return make("td", { class: index === target.index ? "target" : null }, name, " ",
          make("small", {}, fixed(site.top_logit[block][token][place], 1)));
      }));
  });
  byId("token-classes").replaceChildren(
    make("caption", {}, make("span", {}, `${exclusive ? "Classes" : "Outputs"} with the highest logits, ${siteLabel(state.site)}; ${target.name} is highlighted.`)),
    head, make("tbody", {}, ...rows));
  keepInView(rows[blockIndex()], head);
}

/** Scrolls the table, but not the page, until the row of the current block is visible. */
function keepInView(row, head) {
  const scroller = byId("token-classes").parentElement;
  const above = row.offsetTop - head.offsetHeight;
  const below = row.offsetTop + row.offsetHeight - scroller.clientHeight;
  if (scroller.scrollTop > above) scroller.scrollTop = above;
  else if (scroller.scrollTop < below) scroller.scrollTop = below;
}
