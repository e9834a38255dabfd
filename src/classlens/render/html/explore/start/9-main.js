const start = read("start-record");
const { model } = start;

byId("start-title").textContent = start.stores.length ? "Photos, classes and heads" : `Photos, read by ${model?.name ?? "no model"}`;
byId("model-facts").textContent = model ? `Live model: ${model.name}, ${counted(model.classes, "class")}`
  : "No model is loaded: pages show what was measured.";

function card(store) {
  const fact = (term, text) => make("div", {}, make("dt", {}, term), make("dd", {}, text));
  const accuracy = store.labeled ? `${percent(store.correct / store.labeled)} of ${store.labeled.toLocaleString("en")} with a label` : "no labels";
  const links = [make("a", { href: store.address }, "Photos")];
  if (store.atlas) links.push(make("a", { href: store.atlas }, "Classes and heads"));
  for (const [title, address] of store.compared) links.push(make("a", { href: address }, `Compare with ${title}`));
  const photos = make("div", { class: "first-photos", "aria-hidden": "true" }, ...store.first_photos.map((source) => {
    const image = make("img", { src: source, alt: "" });
    image.addEventListener("error", () => image.remove());
    return image;
  }));
  return make("article", { class: "card store" }, make("h2", {}, make("a", { href: store.address }, store.title)), photos,
    make("dl", {}, fact("model", store.model), fact("data", store.data), fact("photos", store.images.toLocaleString("en")),
      fact("right", accuracy), fact("size", `${counted(store.blocks, "block")}, ${counted(store.classes, "class")}`)),
    ...store.notes.map((note) => make("p", { class: "hint" }, sentence(note))), make("p", { class: "links" }, ...links));
}

byId("stores").append(...start.stores.map(card));
byId("drop").hidden = !site.takes_photos;
opensPhotos(byId("drop-file"));
document.documentElement.dataset.ready = "true";
