// One photo of the grid: its picture in a frame of its color, and what was decided.
const selected = new Set();

/** Label and prediction; one name where they agree. */
function decisionOf(position) {
  const [label, prediction] = [gallery.label[position], gallery.prediction[position]];
  const text = (index) => nameText(className(index));
  if (label < 0) return [make("span", { class: "hidden-words" }, "predicted "), text(prediction)];
  if (!isWrong(position)) return [text(label)];
  return [text(label), make("span", { class: "arrow" }, " → "), text(prediction)];
}

/** All numbers of a photo, for the tip. */
function numbersInWords(position) {
  const { label, prediction } = { label: gallery.label[position], prediction: gallery.prediction[position] };
  return [
    gallery.names[position],
    ...(label < 0 ? [] : [`label: ${className(label)}`]),
    `prediction: ${className(prediction)}${isWrong(position) ? " ✗" : ""}`,
    ...colorable.filter((name) => name !== "correct").map((name) => {
      const column = columns.get(name);
      return `${column.label.toLowerCase()}: ${valueText(name, column.values[position])}`;
    }),
  ];
}

/** A cell of the grid. */
function tile(position, column) {
  const frame = make("span", { class: "frame" });
  if (gallery.photos) {
    const picture = make("img", {
      "data-src": `thumbs/${gallery.index[position]}.jpg`, alt: gallery.names[position], loading: "lazy", decoding: "async", draggable: "false",
    });
    picture.addEventListener("error", () => picture.replaceWith(placeholder(position, "photo missing")));
    frame.append(picture);
  } else {
    frame.append(placeholder(position, "no photo"));
  }
  if (isWrong(position)) frame.append(make("span", { class: "badge", "aria-hidden": "true" }, "✗"));
  const link = make("a", { href: gallery.opens && address(position), tabindex: "-1" }, frame,
    make("span", { class: "caption" },
      make("span", { class: "decision" }, ...(isWrong(position) ? [make("span", { class: "hidden-words" }, "wrong: ")] : []), ...decisionOf(position)),
      make("span", { class: "value" }, make("span", { class: "tone", "aria-hidden": "true" }), make("span", { class: "number-text" }))));
  const pick = make("button", { type: "button", class: "pick", tabindex: "-1", "aria-label": `Select ${gallery.names[position]}` }, "✓");
  const cell = make("div", { role: "gridcell", class: "photo", "aria-colindex": column + 1, "data-photo": position }, link, pick);
  paint(cell);
  return cell;
}

/** In place of a photo that is not there. */
const placeholder = (position, words) => make("span", { class: "no-photo" },
  make("span", { class: "hidden-words" }, `${gallery.names[position]}: `), words);

/** What changes while a photo stays where it is: its color, selection and focus. */
function paint(cell) {
  const position = Number(cell.dataset.photo);
  const colored = state.color !== null;
  cell.style.setProperty("--tone", colored ? barColor(state.color, barsOf(state.color)[position]) : "var(--unknown)");
  const text = colored ? valueText(state.color, columns.get(state.color).values[position]) : "";
  cell.querySelector(".number-text").replaceChildren(
    ...(colored && state.color !== "correct" ? [make("span", { class: "hidden-words" }, `${columns.get(state.color).label}: `)] : []), text);
  cell.setAttribute("aria-selected", String(selected.has(position)));
  cell.querySelector(".pick").setAttribute("aria-pressed", String(selected.has(position)));
  cell.querySelector("a").tabIndex = position === cursorPhoto() ? 0 : -1;
}
