// Image tokens as crops of their photos.

/** `lines(row)` gives the text below a crop. */
function crops(rows, lines) {
  if (!shell.crops) {
    return make("div", {}, make("p", { class: "hint" }, "The atlas was written without photos (", code("--no-photos"), "). The tokens are:"),
      make("ol", { class: "tokens" }, ...rows.map((row) => make("li", {}, nameText(row.image), `, row ${row.row}, column ${row.column} · `, ...lines(row).flatMap((line) => [line, " "])))));
  }
  return make("div", { class: rows.length > 3 ? "crops nine" : "crops" }, ...rows.map((row, i) => {
    const source = page.crops[i];
    const place = `token in row ${row.row}, column ${row.column} of ${row.image}`;
    const picture = source ? make("img", { src: source, alt: capital(place), title: capital(place) }) : make("span", {}, "photo missing");
    // A site has a page for each photo.
    const hasPage = shell.photos && (shell.photos.images?.includes(row.image_index) ?? true);
    const crop = hasPage ? make("a", { class: "crop", href: `${shell.photos.root}${row.image_index}.html` }, picture) : make("div", { class: "crop" }, picture);
    return make("figure", {}, crop,
      make("figcaption", {}, ...lines(row).map((line) => make("span", {}, line)), make("span", { class: "file", title: row.image }, nameText(row.image))));
  }));
}

/** The label of an image, and its prediction where that differs. */
function decision(row) {
  if (row.label === null) return [nameText(row.prediction)];
  if (row.label === row.prediction) return [nameText(row.label)];
  return [make("span", {}, nameText(row.label), make("em", {}, " taken for "), nameText(row.prediction))];
}

const CROP_WORDS = "Each crop is a part of a photo of the data set, five tokens wide; the outlined square is the token.";
