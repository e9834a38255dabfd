// Requests of edited passes, copied code, and the start of the section.
let editRequest = 0;
let editTimer = null;
let editCode = null;
let editAbort = null;

function showEditError(text) {
  byId("edits-error").hidden = !text;
  byId("edits-error").textContent = text ?? "";
}

const editBusy = (busy) => {
  byId("edits").setAttribute("aria-busy", String(busy));
  byId("edits-result").classList.toggle("stale", busy);
  byId("edits-copy-python").disabled = byId("edits-copy-command").disabled = busy;
};

/** Asks for the result of the plan, once it has rested; an answer to an older plan is dropped. */
function requestEdits() {
  clearTimeout(editTimer);
  editAbort?.abort();
  const number = ++editRequest;
  showEditError(null);
  delete byId("edits").dataset.shown;
  if (!edits.plan.edits.length) {
    editBusy(false);
    byId("edits-result").hidden = true;
    byId("edits-status").textContent = "";
    byId("edits").dataset.shown = "none";
    return;
  }
  editBusy(true);
  byId("edits-status").textContent = "Running the model …";
  editTimer = setTimeout(async () => {
    const body = { ...edits.plan, target: state.category, against: state.rival };
    try {
      editAbort = new AbortController();
      const result = await api(edits.setting.address, { method: "POST", body, signal: editAbort.signal });
      if (number !== editRequest) return;
      for (const one of result.record.classes) record.class_names[one.index] ??= one.name;
      Object.assign(record.class_names, result.record.names);
      editCode = result;
      hideEditCode();
      drawEditResult(result.record);
      editBusy(false);
      byId("edits").dataset.shown = result.key;
    } catch (error) {
      if (number !== editRequest) return;
      editBusy(false);
      byId("edits-result").hidden = true;
      byId("edits-status").textContent = "";
      showEditError(error.message);
      byId("edits").dataset.shown = "error";
    }
  }, 200);
}

function hideEditCode() {
  byId("edits-code").hidden = true;
  byId("edits-copied").textContent = "";
}

/** Puts a text on the clipboard; where the browser refuses, shows it selected. */
async function copyEditCode(text, words) {
  const field = byId("edits-code");
  field.value = text;
  try {
    await navigator.clipboard.writeText(text);
    field.hidden = true;
    byId("edits-copied").textContent = `${words} copied.`;
  } catch {
    field.hidden = false;
    field.focus();
    field.select();
    byId("edits-copied").textContent = "The browser does not let the page copy: the text is selected.";
  }
}

function setUpEdits() {
  edits.setting = read("edit-setting");
  if (edits.setting.address === null) {
    byId("edits").remove();
    return;
  }
  const means = document.querySelector("[name=edits-to][value=means]");
  means.disabled = !edits.setting.means;
  if (!edits.setting.means) means.parentElement.append(" (with --edit-means FILE)");
  setUpBrush();
  setUpMatrix();
  setUpSwitches();
  setUpUnits();
  setUpPatch();
  setUpOtherEdits();
  byId("edits-undo").addEventListener("click", () => stepPlan(edits.past, edits.future));
  byId("edits-redo").addEventListener("click", () => stepPlan(edits.future, edits.past));
  byId("edits-reset").addEventListener("click", () => chooseEdits([]));
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input:not([type=checkbox], [type=radio], [type=range]), textarea, select");
    if (!(event.ctrlKey || event.metaKey) || event.altKey || typing) return;
    const key = event.key.toLowerCase();
    if (key !== "z" && key !== "y") return;
    event.preventDefault();
    if (key === "y" || event.shiftKey) stepPlan(edits.future, edits.past);
    else stepPlan(edits.past, edits.future);
  });
  byId("edits-copy-python").addEventListener("click", () => copyEditCode(`${editCode.python.join("\n")}\n`, "Python"));
  byId("edits-copy-command").addEventListener("click", () => copyEditCode(editCode.command, "Command"));
  onChange(["category", "rival"], requestEdits);
  onHash(() => {
    const plan = planOfHash();
    if (!samePlan(plan, edits.plan)) {
      edits.past.push(edits.plan);
      edits.future = [];
      showPlan(plan, { write: false });
    }
  });
  edits.plan = planOfHash();
  drawEditControls();
  requestEdits();
}

setUpEdits();
