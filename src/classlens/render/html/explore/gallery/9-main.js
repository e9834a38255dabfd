// Draw the page as its address says, and again whenever that changes.
setUpQuestions();
setUpClasses("label", gallery.label, "any");
setUpClasses("prediction", gallery.prediction, "any");
setUpPairs();
setUpSelects();
setUpSegments("sizes", "size", SIZES, { small: ["S", "Small photos"], medium: ["M", "Photos of medium size"], large: ["L", "Large photos"] });
setUpSegments("views", "view", VIEWS, { grid: ["Grid", "Photos"], table: ["Table", "Names and numbers"] });
setUpFilters();

const rightPhotos = gallery.correct.filter((value) => value === 1).length;
const labeledPhotos = gallery.correct.filter((value) => value !== null).length;
byId("title").replaceChildren("Photos of ", nameText(gallery.data));
byId("model-facts").replaceChildren(...[
  gallery.model,
  gallery.split && `split ${gallery.split}`,
  gallery.total > total ? `${grouped(total)} of ${photosText(gallery.total)}` : photosText(total),
  labeledPhotos && `${percent(rightPhotos / labeledPhotos)} right`,
].filter(Boolean).map((text) => make("span", {}, nameText(text))));
byId("notes").append(...gallery.notes.map((note) => make("p", { class: "hint" }, `${sentence(note)}`)));
if (narrow.matches) byId("panel").open = false;

drawEverything();
if (state.photo !== null && places().has(state.photo) && state.view === "grid") goTo(state.photo, { focus: false });
onHash(() => {
  update(fromAddress(readHash()));
  paintAll();
  if (state.photo !== null && places().has(state.photo) && state.view === "grid") goTo(state.photo, { focus: false });
});
document.documentElement.dataset.ready = "true";
