// Signed values, in the colors of the figures: vermillion for the class, blue against it, transparent at zero.
const cssValue = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const cssColor = (name) => [1, 3, 5].map((at) => parseInt(cssValue(name).slice(at, at + 2), 16));
const FOR = cssColor("--map-for");
const AGAINST = cssColor("--map-against");
const MAP_OPACITY = Number(cssValue("--map-opacity"));
function diverging(value, largest) {
  return { rgb: value >= 0 ? FOR : AGAINST, share: largest > 0 ? Math.min(Math.abs(value) / largest, 1) : 0 };
}
function divergingCss(value, largest) {
  const { rgb, share } = diverging(value, largest);
  return `rgba(${rgb.join(", ")}, ${Number((MAP_OPACITY * share).toFixed(3))})`;
}

/** A color bar from −largest to +largest, and the meaning of its two ends; `zero`: how zero looks. */
function divergingLegend(host, largest, against, supports, { text = significant, zero = "transparent" } = {}) {
  host.replaceChildren(
    make("div", { class: "scale" },
      make("span", {}, largest > 0 ? `−${text(largest)}` : "0"),
      make("span", { class: "ramp signed", "aria-hidden": "true" }),
      make("span", {}, largest > 0 ? `+${text(largest)}` : "0")),
    make("p", { class: "signs" },
      make("span", {}, make("span", { class: "swatch against", "aria-hidden": "true" }), ` blue: ${against}`),
      make("span", {}, make("span", { class: "swatch for", "aria-hidden": "true" }), ` orange-red: ${supports}`),
      make("span", {}, make("span", { class: "swatch zero", "aria-hidden": "true" }), ` ${zero}: zero`)),
  );
}
