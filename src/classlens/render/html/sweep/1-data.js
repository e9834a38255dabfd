// The record of a sweep, and what the page says of a part.
const record = read("record");
const { model } = record;
const imageAt = (index) => keep(`image ${index}`, () => read(`image-${index}`));
const currentImage = () => imageAt(state.image);
const state = { image: 0, wholeScale: false };

/** A share as whole percent, or with a decimal below 10 %. */
function share(value) {
  const text = (100 * value).toFixed(Math.abs(value) >= 0.0995 ? 0 : 1);
  return `${withMinus(Number(text) === 0 ? text.replace("-", "") : text)}%`;
}

const nameOf = (image, row, place) => record.name_template
  .replace("{block}", () => record.blocks[row]).replace("{part}", () => image.labels[place]);
const capital = (text) => text[0].toUpperCase() + text.slice(1);

// What the numbers are: patched passes, or estimates.
const measured = record.estimate ? "estimate" : "effect";
const patchedWords = record.estimate ? "estimated with this part patched" : "with this part patched";

/** Lines of the tip of a part. */
function tipLines(name, effect, patched) {
  const words = effect === null ? `${measured} not defined` : `${measured} ${exact(effect)} (${share(effect)})`;
  return [capital(name), words, `${record.metric_name} ${exact(patched)} ${patchedWords}`];
}
/** Six digits, as in the record of the page. */
const exact = (value) => withMinus(String(Number(value.toPrecision(6))));

const finite = (values) => values.filter((value) => value !== null);
/** The largest effect of the parts that `takes` takes; 0 where none is defined. */
const limitOf = (image, takes = () => true) =>
  largestOf(image.effect.flatMap((row) => finite(row.filter((_, place) => takes(image.parts[place])))));
const isImageToken = (position) => position >= model.prefix.length;
const byToken = record.over === "tokens";

/** The scale of colors: that of image tokens, unless special tokens are to have a color of their own. */
function scaleOf(image) {
  const whole = limitOf(image);
  const ofImageTokens = byToken ? limitOf(image, isImageToken) : whole;
  return { whole, ofImageTokens, shown: state.wholeScale || ofImageTokens === 0 ? whole : ofImageTokens };
}

/** The scale of colors; `clipped`: some special token is beyond its ends. */
function drawLegend(host, limit, clipped, zero) {
  const [against, supports] = record.direction === "denoise"
    ? ["away from the clean image", "toward the clean image"] : ["away from the corrupt image", "toward the corrupt image"];
  host.hidden = limit === 0;
  divergingLegend(host, limit, against, supports, { text: share, zero });
  if (clipped) {
    const [low, , high] = host.querySelector(".scale").children;
    low.textContent = `≤ ${low.textContent}`;
    high.textContent = `≥ ${high.textContent}`;
  }
}
