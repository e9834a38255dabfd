// The page of a hidden unit.
setUpFrame();
facts(`block ${page.block}`, `active at ${percent(page.active_share ?? 0)} of the image tokens`, shell.model);
drawTokens();
drawValues();
drawClasses();
finish();

function drawTokens() {
  if (!page.tokens.length) return;
  section("tokens", "Tokens that excite it most", ["The image tokens of the data set at which the unit is most active, at most one of an image: the larger its coefficient, the more of its value it writes there. ", CROP_WORDS], "--attribution --units N",
    crops(page.tokens, (row) => [...decision(row), `coefficient ${significant(row.coefficient)}`]),
    make("p", { class: "hint" }, known(page.active_share) ? `Its coefficient is positive at ${percent(page.active_share)} of all image tokens, counted one by one.` : ""));
}

function drawValues() {
  if (!page.values.length) return;
  section("values", "Classes that its value points at", "A unit writes one fixed vector, its value, in proportion to its coefficient. These classes score it highest, from the parameters alone.", "--attribution --units N",
    cosines(page.values.map((row) => ({ label: linked(row.class_name, row.page), value: row.cosine, note: `score ${significant(row.value)}` })), "Cosines of value and class"),
    make("p", { class: "hint" }, "Bars are cosines of value and class, between −1 and 1; they are exact and have no interval."));
}

function drawClasses() {
  const title = "Classes that it really adds to";
  if (!page.classes.length) return emptySection("classes", title, "The unit is not among the strongest of any class: it is shown for its value or by choice.");
  const rows = [...page.classes].sort((a, b) => b.value - a.value);
  section("classes", title, "What the unit adds on average to the logit of a class in the images of that class, beyond the mean of all logits.", "--attribution --units N",
    bars(rows.map((row) => ({ label: linked(row.class_name, row.page), ...row, note: `listed in ${grouped(row.listed)} of ${images(row.images)}${row.bound ? `; error of at most ${significant(row.bound)}` : ""}` })), { label: "Contribution to classes" }),
    make("p", { class: "hint" }, "Images in which the unit is not among the strongest count as 0; the error that this can make is given."));
}
