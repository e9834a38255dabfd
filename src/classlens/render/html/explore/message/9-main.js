const message = read("message-record");

/** Ask for the state of the job until it has ended; then the address shows its result. */
async function follow() {
  try {
    const job = await api(`api/jobs/${message.job}`);
    if (job.state === "done") {
      location.reload();
      return;
    }
    if (job.state === "failed") {
      end("This did not work", sentence(job.error));
      return;
    }
    byId("message-text").textContent = job.state === "running" ? sentence(job.text)
      : `${counted(job.ahead, "request")} before this one.`;
  } catch (error) {
    byId("message-text").textContent = error.message;
  }
  setTimeout(follow, 250);
}

function end(title, text) {
  byId("message-title").textContent = title;
  byId("message-text").textContent = text;
  byId("message-progress").hidden = true;
  document.documentElement.dataset.ready = "true";
}

byId("message-title").textContent = message.title;
byId("message-text").textContent = sentence(message.text);
byId("message-back").setAttribute("href", `${site.root}index.html`);
if (message.job !== null) {
  byId("message-progress").hidden = false;
  follow();
}
document.documentElement.dataset.ready = message.job === null ? "true" : "waiting";
