// Color maps of ranks and classes, legible with the common kinds of color blindness.
const VIRIDIS = (
  "440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d " +
  "2f6b8e 2c728e 297a8e 26828e 23898e 21918c 1f988b 1fa088 22a785 28ae80 32b67a " +
  "3fbc73 4ec36b 5ec962 70cf57 84d44b 98d83e addc30 c2df23 d8e219 ece51b fde725"
).split(" ").map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

/** Viridis at a share from 0 to 1. */
function viridis(share) {
  const position = Math.min(Math.max(share, 0), 1) * (VIRIDIS.length - 1);
  const low = Math.min(Math.floor(position), VIRIDIS.length - 2);
  const mixed = VIRIDIS[low].map((value, i) => Math.round(value + (position - low) * (VIRIDIS[low + 1][i] - value)));
  return `rgb(${mixed.join(", ")})`;
}

// Okabe and Ito's palette. The class of interest always has the first color; classes without a color are gray.
const CATEGORIES = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7"];
const OTHER = "#8d9399";

/** Colors of the most frequent top-1 classes of image tokens at the current site, over all blocks. */
function categoryColors() {
  const image = currentImage();
  const counts = new Map();
  for (const tokens of image.tokens[state.site].top) {
    for (const top of tokens.slice(prefixCount)) counts.set(top[0], (counts.get(top[0]) ?? 0) + 1);
  }
  const target = image.target.index;
  counts.delete(target);
  const frequent = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]).map(([index]) => index);
  return new Map([target, ...frequent].slice(0, CATEGORIES.length).map((index, i) => [index, CATEGORIES[i]]));
}
