// The header, the pair, the list of the largest effects, the choice of an image, and the start.
const LISTED = 10;
const units = record.over === "units";

function setUpHeader() {
  byId("title").textContent = `What the ${units ? "hidden units" : record.over} of ${model.name} do to its decision` +
    (record.estimate ? `: ${record.estimate}` : "");
  byId("largest-title").textContent = `Largest ${measured}s`;
  byId("bars-title").textContent = `Units with the largest ${measured}s`;
  const facts = [
    `${counted(model.blocks, "block")} × ${counted(model.heads, "head")}`,
    `metric: ${record.metric_name}`,
    `direction: ${record.direction}`,
    ...(record.site ? [`site: ${record.site}`] : []),
    ...(record.blocks.length < model.blocks ? [`blocks ${record.blocks.join(", ")}`] : []),
  ];
  byId("model-facts").replaceChildren(...facts.map((fact) => make("span", {}, fact)));
  const choice = byId("image-choice");
  choice.hidden = record.images.length < 2;
  record.images.forEach((image, index) => {
    const button = make("button", { type: "button", class: "thumb", "data-image": index, title: image.name },
      make("img", { src: record.pictures[image.pictures[0]], alt: "" }), make("span", {}, image.name));
    button.addEventListener("click", () => {
      update({ image: index });
      history.replaceState(null, "", `#image-${index}`);
    });
    choice.append(button);
  });
  byId("whole-scale").addEventListener("change", (event) => update({ wholeScale: event.target.checked }));
}

function drawPair() {
  const image = currentImage();
  const [height, width] = model.input_size;
  const root = document.documentElement.style;
  root.setProperty("--rendering", Math.max(height, width) <= 96 ? "pixelated" : "auto");
  root.setProperty("--ratio", width / height);
  for (const button of byId("image-choice").children) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.image) === state.image));
  }
  const { pictures } = record.images[state.image];
  for (const [number, which] of ["clean", "corrupt"].entries()) {
    const figure = document.querySelector(`#pair [data-which=${which}]`);
    const name = which === "clean" ? image.name : image.corrupt_name;
    const picture = figure.querySelector("img");
    picture.src = record.pictures[pictures[number]];
    picture.alt = `What the model saw of the ${which} image, ${name}`;
    figure.querySelector("figcaption").replaceChildren(
      make("span", {}, make("strong", {}, capital(which)), `: ${name}`),
      make("span", {}, `Prediction: ${image.predictions[which]}`),
      make("span", { class: "value" }, `${capital(image.metric_words)}: `, make("strong", {}, significant(image[which]))));
  }
  const ends = record.direction === "denoise" ? ["corrupt", "clean"] : ["clean", "corrupt"];
  byId("question").textContent = `${record.direction_words}.` + (image.equal !== null ? ""
    : ` An effect of 0% leaves the ${record.metric_name} at ${significant(image[ends[0]])}, that of the ${ends[0]} image; ` +
      `100% moves it to ${significant(image[ends[1]])}, that of the ${ends[1]} image.`);
  byId("equal").hidden = image.equal === null;
  byId("equal").textContent = image.equal ?? "";
}

function drawLargest() {
  const image = currentImage();
  byId("largest-card").hidden = byId("bars-card").hidden = image.largest.length === 0;
  byId("bars-card").hidden ||= !units;
  byId("agreement").hidden = image.agreement === null;
  byId("agreement").textContent = image.agreement ?? "";
  byId("largest").replaceChildren(...image.largest.slice(0, LISTED).map((part, number) => {
    const { name, words } = part;
    if (units) return make("li", {}, make("strong", {}, words.slice(0, name.length)), words.slice(name.length) + ".");
    const button = make("button", { type: "button", class: "link", "data-number": number }, words.slice(0, name.length));
    button.addEventListener("click", () => {
      const at = `${record.blocks.indexOf(part.block)},${image.parts.indexOf(part.part)}`;
      byId("heat").querySelector(`[data-at="${at}"]`).focus();
    });
    return make("li", {}, button, `${words.slice(name.length)}.`);
  }));
  const example = { heads: "Head 7.3 is head 3 of block 7. ", units: "Unit 7.3 is unit 3 of block 7. " }[record.over] ?? "";
  const far = image.largest.length > 0 && Math.abs(image.largest[0].effect) > 2;
  byId("largest-hint").textContent = example + (units ? "" : "A name leads to its cell below. ") +
    (record.estimate ? "Estimates are linear: check the largest with an exact sweep of their blocks." : "Effects need not sum to 100%, as parts interact.") +
    (far ? ` ${capital(measured)}s far beyond 100% come from a small difference between the two images: choose a pair or a metric that differs more.` : "");
}

function chooseLinkedImage() {
  const index = Number(/^#image-(\d+)$/.exec(location.hash)?.[1]);
  if (index < record.images.length) update({ image: index });
}

setUpHeader();
onChange(["image"], () => {
  hideTip();
  drawPair();
  drawLargest();
});
byId("maps-card").hidden = !byToken;
byId("heat-card").hidden = units;
if (byToken) onChange(["image", "wholeScale"], drawMaps);
onChange(["image", ...(units ? [] : ["wholeScale"])], units ? drawBars : drawHeat);
drawEverything();
chooseLinkedImage();
window.addEventListener("hashchange", chooseLinkedImage);
document.documentElement.dataset.ready = "true";
