// The state of a page in its address, which can be kept, sent and opened again.
/** The values after `#` in the address, such as `#sort=doubt&filter=wrong`. */
const readHash = () => Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
function writeHash(values) {
  const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== ""));
  history.replaceState(history.state, "", `${location.pathname}${location.search}${String(query) ? `#${query}` : ""}`);
}
const onHash = (callback) => window.addEventListener("hashchange", () => callback(readHash()));
