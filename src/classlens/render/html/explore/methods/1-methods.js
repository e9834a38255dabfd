// Maps of all methods for the chosen class; they are asked for when the section comes into view.
const photo = read("photo-record");

function methodMap(method) {
  const caption = make("figcaption", {}, make("strong", {}, method.label));
  if (!method.values) {
    caption.append(` ${method.reason}`);
    return make("figure", { class: "method-map" }, caption);
  }
  const largest = largestOf(method.values.flat());
  const canvas = make("canvas", { width: gridColumns, height: gridRows, role: "img", "aria-label": `Map of ${method.label}` });
  const context = canvas.getContext("2d");
  method.values.forEach((row, y) => row.forEach((value, x) => {
    context.fillStyle = divergingCss(value, largest);
    context.fillRect(x, y, 1, 1);
  }));
  // Formulas stand between backticks.
  caption.append(make("span", { class: "hint" }, ...method.about.split("`").map((text, i) => (i % 2 ? make("code", {}, text) : text))));
  return make("figure", { class: "method-map gray", "data-method": method.name },
    make("div", { class: "picture" }, make("img", { src: record.pictures[0], alt: "" }), canvas), caption);
}

let asked = null;
async function drawMethods() {
  const query = new URLSearchParams({ class: state.category });
  if (state.rival !== null) query.set("against", state.rival);
  const question = String(query);
  if (asked === question) return;
  asked = question;
  byId("methods-state").textContent = "Computing the maps …";
  byId("method-maps").classList.add("stale");
  try {
    const { methods } = await api(`${photo.api}/maps?${question}`);
    if (asked !== question) return;
    byId("method-maps").replaceChildren(...methods.map(methodMap));
    byId("method-maps").classList.remove("stale");
    byId("methods-state").textContent = "";
    divergingLegend(byId("methods-legend"), 1, "against the class", "for the class", { text: () => "largest" });
  } catch (error) {
    if (asked !== question) return;
    asked = null;
    byId("method-maps").replaceChildren();
    byId("methods-state").textContent = error.message;
  }
}

if (site.live) {
  let visible = false;
  new IntersectionObserver(([entry]) => {
    visible = entry.isIntersecting;
    if (visible) drawMethods();
  }, { rootMargin: "200px" }).observe(byId("methods"));
  onChange(["category", "rival"], () => visible && drawMethods());
} else byId("methods").remove();
