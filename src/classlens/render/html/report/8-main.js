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
    `${model.num_classes} classes`,
    pooled,
    `${tokenCount} tokens: ${extra}${gridColumns} × ${gridRows} of the picture (${model.input_size[1]} × ${model.input_size[0]} pixels, width × height)`,
    `self-check: residual sums ${offBy(model.checks.law1)}, logits ${offBy(model.checks.law2)}`,
  ];
  byId("model-facts").replaceChildren(...facts.map((fact) => make("span", {}, fact)));

  const choice = byId("image-choice");
  choice.hidden = record.images.length < 2;
  record.images.forEach((image, index) => {
    const button = make("button", { type: "button", class: "thumb", "data-image": index, title: image.name },
      make("img", { src: record.pictures[index], alt: "" }), make("span", {}, image.name));
    button.addEventListener("click", () => {
      stopPlaying();
      hideTip();
      update({ image: index, pinned: false });
    });
    choice.append(button);
  });
  onChange(["image"], drawHeader);
}

function drawHeader() {
  const image = currentImage();
  const { target } = image;
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
    target.chosen === "given" ? " (given)" : " (the prediction)",
    target.index === likeliest.index ? "." : `. The model predicts ${likeliest.name} instead.`);
  byId("predictions").replaceChildren(...image.predictions.map((guess) => {
    const fill = make("span", { class: "fill" });
    fill.style.width = `${100 * guess.probability}%`;
    return make("li", { class: guess.index === target.index ? "target" : null },
      make("span", { class: "label", title: guess.name }, guess.name),
      make("span", { class: "track", "aria-hidden": "true" }, fill),
      make("span", { class: "number", title: `logit ${fixed(guess.logit)}` }, percent(guess.probability)));
  }));
  byId("story").replaceChildren(...story(image).map((line) => make("li", {}, line)));
}

/** A summary of the numbers below, in a few sentences. */
function story(image) {
  const { target, blocks, largest, attribution } = image;
  const last = blocks[blocks.length - 1];
  const lines = [];
  if (last.cls_rank === 0) {
    let first = blocks.length - 1;
    while (first > 0 && blocks[first - 1].cls_rank === 0) first--;
    lines.push(first === 0 ? `[CLS] has ${target.name} on top after every block.`
      : first === blocks.length - 1 ? `[CLS] has ${target.name} on top only after the last block.`
      : `[CLS] has ${target.name} on top from block ${first + 1} on.`);
  } else if (last.cls_rank !== null) {
    lines.push(`[CLS] ends with ${target.name} at ${rankWords(last.cls_rank)} (0 is on top).`);
  }
  lines.push(`After the last block ${percent(last.identifiable)} of the image tokens have ${target.name} on top.`);
  if (largest) lines.push(`The ${largest.sublayer === "mlp" ? "MLP" : "attention"} of block ${largest.block + 1} adds most to its logit: ` +
    `${signed(largest.value)} of ${fixed(attribution.logit)}.`);
  return lines;
}

setUpHeader();
setUpTokens();
setUpEvolution();
setUpExplanation();
setUpAttribution();
drawEverything();
window.addEventListener("scroll", hideTip, { passive: true });
document.documentElement.dataset.ready = "true";
