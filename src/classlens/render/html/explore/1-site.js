// The site that a page belongs to: links, requests to its server, and photos that are dropped on it.
const site = read("site-record");

/** The answer of the server to a request of a path such as `api/photos`; an error carries its sentence. */
async function api(path, { method = "GET", body, type = "application/json", signal } = {}) {
  const content = body === undefined || type !== "application/json" ? body : JSON.stringify(body);
  let response;
  try {
    response = await fetch(site.root + path, { method, body: content, signal, headers: body === undefined ? {} : { "Content-Type": type } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer: start classlens explore again, and reload the page.");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) {
    const error = new Error(sentence(answer.error ?? `the server answered with status ${response.status}`));
    throw Object.assign(error, { status: response.status });
  }
  return answer;
}
const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;

function showError(text) {
  byId("site-error").textContent = text;
  byId("site-error").hidden = !text;
}

async function openPhoto(file) {
  if (!file) return;
  if (file.size > site.largest_photo) {
    showError(`Photo ${file.name} is larger than ${site.largest_photo / 2 ** 20} MB: open a smaller one.`);
    return;
  }
  showError("");
  byId("site-state").textContent = `Opening ${file.name || "the photo"} …`;
  document.documentElement.dataset.busy = "true";
  try {
    const name = encodeURIComponent(file.name || "photo");
    const { address } = await api(`api/photos?name=${name}`, { method: "POST", body: file, type: "application/octet-stream" });
    location.href = site.root + address;
  } catch (error) {
    showError(error.message);
  } finally {
    byId("site-state").textContent = "";
    delete document.documentElement.dataset.busy;
  }
}

/** Open the photo that a reader chooses; the same file may be chosen again. */
function opensPhotos(input) {
  input.addEventListener("change", async () => {
    await openPhoto(input.files[0]);
    input.value = "";
  });
}

function setUpSite() {
  byId("site-name").setAttribute("href", `${site.root}index.html`);
  const current = (address) => (address === site.path ? "page" : null);
  byId("site-links").append(...site.links.slice(1).map(([label, address]) =>
    make("a", { href: site.root + address, "aria-current": current(address) }, label)));
  if (!site.takes_photos) return;
  byId("site-photo").hidden = false;
  opensPhotos(byId("site-file"));
  const holdsFiles = (event) => event.dataTransfer?.types?.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    document.documentElement.dataset.dragging = "true";
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) delete document.documentElement.dataset.dragging;
  });
  document.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    delete document.documentElement.dataset.dragging;
    openPhoto(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((item) => item.type.startsWith("image/"));
    if (file) openPhoto(file);
  });
}
setUpSite();
