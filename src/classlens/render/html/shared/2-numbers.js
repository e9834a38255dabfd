// Numbers and names as text.
const sum = (values) => values.reduce((total, value) => total + value, 0);
const largestOf = (values) => values.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);

const withMinus = (text) => text.replaceAll("-", "−");
/** Fixed decimals, for logits. */
const fixed = (value, digits = 2) => withMinus((Math.abs(value) < 0.5 * 10 ** -digits ? 0 : value).toFixed(digits));
const signed = (value, digits = 2) => (Math.abs(value) < 0.5 * 10 ** -digits || value < 0 ? "" : "+") + fixed(value, digits);
/** Three significant digits, for values of any size. */
function significant(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  const rounded = Number(value.toPrecision(3));
  return withMinus(size >= 1e-3 && size < 1e4 ? String(rounded) : rounded.toExponential());
}
function percent(share) {
  const value = 100 * share;
  if (value > 0 && value < 0.1) return "<0.1%";
  if (value > 99.9 && value < 100) return ">99.9%";
  return `${Number(value.toFixed(value < 10 ? 1 : 0))}%`;
}
const counted = (count, noun) => `${count} ${noun}${count === 1 ? "" : noun.endsWith("s") ? "es" : "s"}`;

const prefixName = (name) => `[${name.toUpperCase()}]`;
