// The header, the choice of an image, and the start.
const POOLING = {
  cls: "decides at [CLS]",
  avg: "decides at the mean of its tokens",
  map: "pools its tokens by attention",
  "cls+dist": "decides at [CLS] and [DIST]",
  "cls+avg": "decides at [CLS] and the mean of image tokens",
};

function setUpHeader() {
  byId("model-name").textContent = model.name;
  const pooled = POOLING[model.pooling] ?? `pools with ${model.pooling}`;
  const extra = prefixCount ? `${model.prefix.map(prefixName).join(" + ")} + ` : "";
  const offBy = (error) => (error === 0 ? "exact" : `off by ${significant(error)}`);
  const facts = [
    `${counted(model.blocks, "block")} × ${counted(model.heads, "head")}`,
    exclusive ? `${model.num_classes} classes` : multiLabel ? `${counted(model.num_classes, "label")}, each with a sigmoid`
      : `${counted(model.num_classes, "output")} in its own unit`,
    pooled,
    `${tokenCount} tokens: ${extra}${gridColumns} × ${gridRows} of the picture (${model.input_size[1]} × ${model.input_size[0]} pixels, width × height)`,
    `self-check: residual sums ${offBy(model.checks.law1)}, logits ${offBy(model.checks.law2)}`,
  ];
  byId("model-facts").replaceChildren(...facts.map((fact) => make("span", {}, fact)));
  byId("model-edits").hidden = !record.edits.length;
  if (record.edits.length) {
    byId("model-edits").replaceChildren(make("strong", {}, "The model runs with edits: "), ...record.edits.flatMap((text, i) =>
      [i ? ", " : "", make("code", {}, text)]), ". Everything on this page is of the edited pass; values at dropped tokens mean nothing.");
  }
  byId("left-out").textContent = record.left_out;
  byId("left-out").hidden = record.left_out === "";

  const choice = byId("image-choice");
  choice.hidden = record.images.length < 2;
  record.images.forEach((image, index) => {
    const button = make("button", { type: "button", class: "thumb", "data-image": index, title: image.name },
      make("img", { src: record.pictures[index], alt: "" }), make("span", {}, image.name));
    button.addEventListener("click", () => {
      chooseImage(index);
      // A page within a page of others, such as a notebook, has no address of its own.
      if (location.protocol !== "about:") history.replaceState(null, "", `#image-${index}`);
    });
    choice.append(button);
  });
  byId("class-choice").addEventListener("change", (event) => {
    const category = Number(event.target.value);
    update({ category, rival: state.rival === category ? null : state.rival });
  });
  byId("rival-choice").addEventListener("change", (event) =>
    update({ rival: event.target.value === "" ? null : Number(event.target.value) }));
  onChange(["image", "category", "rival"], drawHeader);
}

function chooseImage(index) {
  stopPlaying();
  hideTip();
  update({ image: index, pinned: false, ...classesFor(index) });
}

/** The image that the address names, such as `report.html#image-3`. */
function chooseLinkedImage() {
  const index = Number(/^#image-(\d+)$/.exec(location.hash)?.[1]);
  if (index < record.images.length && index !== state.image) chooseImage(index);
}

/** The chosen class and rival, where another image holds their maps; else its own. */
function classesFor(index) {
  const { classes, against } = imageAt(index);
  const holds = (category) => classes.some(({ target }) => target.index === category);
  const category = holds(state.category) && state.category !== currentImage().classes[0].target.index
    ? state.category : classes[0].target.index;
  const rival = state.rival !== null && holds(state.rival) ? state.rival : against?.index ?? null;
  return { category, rival: rival === category ? null : rival };
}

function drawChoices(image) {
  const option = (value, text, chosen) => make("option", { value, selected: chosen }, text);
  byId("class-choice").replaceChildren(...image.classes.map(({ target }) =>
    option(target.index, target.name, target.index === state.category)));
  byId("rival-choice").replaceChildren(option("", "no other class", state.rival === null),
    ...image.classes.filter(({ target }) => target.index !== state.category)
      .map(({ target }) => option(target.index, target.name, target.index === state.rival)));
  byId("class-choices").hidden = image.classes.length < 2;
}

function drawHeader() {
  const image = currentImage();
  const { target } = image;
  const { target: initial } = imageAt(state.image);
  drawChoices(image);
  for (const button of byId("image-choice").children) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.image) === state.image));
  }
  const [height, width] = model.input_size;
  // Small pictures show their pixels, large ones are smoothed.
  document.documentElement.style.setProperty("--rendering", Math.max(height, width) <= 96 ? "pixelated" : "auto");
  byId("seen-picture").src = record.pictures[state.image];
  byId("seen-picture").alt = `What the model saw of ${image.name}`;
  byId("seen-caption").textContent = image.name;
  for (const element of document.querySelectorAll("[data-target]")) element.textContent = target.name;
  const likeliest = image.predictions[0];
  byId("target").replaceChildren("Class of interest: ", make("strong", {}, target.name),
    target.index !== initial.index ? " (chosen here)" : initial.chosen === "given" ? " (given)"
      : exclusive ? " (the prediction)" : " (the largest output)",
    target.index === likeliest.index ? "." : exclusive ? `. The model predicts ${likeliest.name} instead.`
      : `. The largest output is ${likeliest.name}.`);
  byId("predictions").replaceChildren(...image.predictions.map((guess) => {
    const fill = make("span", { class: "fill" });
    const value = guess.probability === null ? fixed(guess.logit) : percent(guess.probability);
    fill.style.width = `${100 * (guess.probability ?? 0)}%`;
    return make("li", { class: guess.index === target.index ? "target" : null },
      make("span", { class: "label", title: guess.name }, guess.name),
      make("span", { class: "track", "aria-hidden": "true" }, fill),
      make("span", { class: "number", title: `${unit} ${fixed(guess.logit)}` }, value));
  }));
  byId("story").replaceChildren(...story(image).map((line) => make("li", {}, line)));
}

/** A summary of the numbers below, in a few sentences. */
function story(image) {
  const { target, blocks, largest, attribution, rival } = image;
  const last = blocks[blocks.length - 1];
  const lines = [];
  if (!exclusive) {
    lines.push("Its outputs are no classes that exclude each other, so they have no ranks: " +
      (multiLabel ? "a label is assigned where its logit is above 0, a probability of 50%." : "each is shown in its own unit."));
    if (clsToken >= 0) lines.push(`After the last block the ${unit} of ${target.name} is ${fixed(last.cls_logit)} at [CLS]` +
      ` and ${fixed(last.mean_logit)} at the mean image token.`);
  } else if (last.cls_rank === 0) {
    let first = blocks.length - 1;
    while (first > 0 && blocks[first - 1].cls_rank === 0) first--;
    const earlier = blocks.slice(0, first).flatMap((block, number) => block.cls_rank === 0 ? [number] : []);
    lines.push(first === 0 ? `[CLS] has ${target.name} on top after every block.`
      : `[CLS] has ${target.name} on top ${first < blocks.length - 1 ? `from block ${first} on`
        : earlier.length ? "after the last block" : "only after the last block"}` +
        `${earlier.length ? `, and for a while after block ${earlier.join(", ")}` : ""}.`);
  } else if (last.cls_rank !== null) {
    lines.push(`[CLS] ends with ${target.name} at ${rankWords(last.cls_rank)} (0 is on top).`);
  }
  if (exclusive) lines.push(`After the last block ${percent(last.identifiable)} of the image tokens have ${target.name} on top.`);
  if (largest?.value > 0) lines.push(`The ${largest.sublayer === "mlp" ? "MLP" : "attention"} of block ${largest.block} adds most to ` +
    (rival ? `${classWords(image)}: ${signed(largest.value)} of a difference of ` : `its ${unit}: ${signed(largest.value)} of `) +
    `${fixed(attribution.logit)}.`);
  else if (largest) lines.push("No attention and no MLP raises it.");
  return lines;
}

setUpHeader();
setUpTokens();
setUpEvolution();
setUpTrajectory();
setUpExplanation();
setUpHeads();
setUpAttribution();
drawEverything();
chooseLinkedImage();
window.addEventListener("hashchange", chooseLinkedImage);
window.addEventListener("scroll", hideTip, { passive: true });
document.documentElement.dataset.ready = "true";
