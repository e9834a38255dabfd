const message = read("message-record");

const begun = Date.now();
const say = (text) => {
  // A text that is set again would be read out again.
  if (byId("message-text").textContent !== text) byId("message-text").textContent = text;
};

/** Ask for the state of the job until it has ended; then the address shows its result. */
async function follow() {
  let pause = 250;
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
    say(job.state === "running" || !job.ahead ? sentence(job.text)
      : `${counted(job.ahead, "request")} of the model before this one.`);
    byId("message-time").textContent = `${Math.round((Date.now() - begun) / 1000)} s`;
  } catch (error) {
    if (error.status === 404) {
      location.reload();  // a server that was started again, or work that made room for other work
      return;
    }
    say(error.message);
    pause = 1000;
  }
  setTimeout(follow, pause);
}

function end(title, text) {
  byId("message-title").textContent = title;
  byId("message-text").textContent = text;
  byId("message-work").hidden = true;
  document.documentElement.dataset.ready = "true";
}

byId("message-title").textContent = message.title;
byId("message-text").textContent = sentence(message.text);
byId("message-back").setAttribute("href", `${site.root}index.html`);
if (message.job !== null) {
  byId("message-work").hidden = false;
  follow();
}
document.documentElement.dataset.ready = message.job === null ? "true" : "waiting";
