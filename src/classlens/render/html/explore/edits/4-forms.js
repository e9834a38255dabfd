// Forms made of the options of an edit: any edit of the registry, and patches.
const KIND_HINTS = {
  indices: "all, or numbers such as 0,3-5", tokens: "all, cls, image, or numbers such as 0-12", mask: "tokens to keep, such as 0-12", number: "a number",
};

/** A label and a field for one option. */
function optionField(prefix, { name, kind, choices, required, default: initial }) {
  const id = `${prefix}-${name}`;
  const field = choices.length
    ? make("select", { id, "data-option": name }, ...choices.map((choice) => make("option", { value: choice, selected: choice === initial }, choice)))
    : kind === "flag" ? make("input", { id, type: "checkbox", "data-option": name, checked: initial === true })
    : make("input", { id, type: "text", "data-option": name, placeholder: KIND_HINTS[kind] ?? "", autocomplete: "off", spellcheck: "false", required });
  return make("div", { class: "control" }, make("label", { for: id }, name), field);
}

/** The options that a form gives; those left at their default are not. */
function optionsOf(form, options) {
  const given = {};
  for (const { name, kind, default: initial } of options) {
    const field = form.querySelector(`[data-option="${name}"]`);
    if (!field) continue;
    const value = kind === "flag" ? field.checked : optionValue(kind, field.value.trim());
    if (value !== "" && value !== initial) given[name] = value;
  }
  return given;
}

function setUpOtherEdits() {
  const host = byId("edits-more-form");
  const forms = edits.setting.forms.filter(({ options }) => !options.some(({ kind }) => kind === "source"));
  const select = make("select", { id: "edits-more-name" }, ...forms.map(({ name, label }) => make("option", { value: name }, `${label} (${name})`)));
  const about = make("p", { class: "hint" });
  const fields = make("div", { class: "controls" });
  const draw = () => {
    const form = editForm(select.value);
    about.textContent = form.about;
    fields.replaceChildren(...form.options.map((option) => optionField("edits-more", option)));
  };
  select.addEventListener("change", draw);
  host.replaceChildren(make("div", { class: "control" }, make("label", { for: "edits-more-name" }, "Edit"), select), about, fields,
    make("button", { type: "submit" }, "Add edit"));
  host.addEventListener("submit", (event) => {
    event.preventDefault();
    const { name, options } = editForm(select.value);
    chooseEdits([...edits.plan.edits, { edit: name, ...optionsOf(host, options) }]);
  });
  draw();
}

function setUpPatch() {
  const form = edits.setting.forms.find(({ control }) => control === "patch");
  byId("edits-patch").hidden = !form;
  if (!form) return;
  const host = byId("edits-patch-form");
  const { photos } = edits.setting;
  const number = make("input", { id: "edits-source", type: "number", min: 0, max: Math.max(photos - 1, 0), step: 1 });
  const file = make("input", { id: "edits-source-file", type: "file", accept: "image/*" });
  host.replaceChildren(
    make("p", { class: "hint" }, "Activations of the other photo take the place of those of this one, at a place of some blocks and tokens. All patches come from one photo."),
    make("div", { class: "controls" },
      photos ? make("div", { class: "control" }, make("label", { for: "edits-source" }, `Photo 0 to ${photos - 1} of the store`), number) : "",
      make("div", { class: "control" }, make("label", { for: "edits-source-file" }, photos ? "or a file" : "Photo"), file),
      ...form.options.filter(({ kind }) => kind !== "source").map((option) => optionField("edits-patch", option))),
    make("button", { type: "submit" }, "Add patch"));
  host.addEventListener("submit", async (event) => {
    event.preventDefault();
    let source = number.value !== "" ? { photo: Number(number.value) } : edits.plan.source;
    try {
      if (file.files.length) source = { dropped: await droppedPhoto(file.files[0]) };
    } catch (error) {
      showEditError(error.message);
      return;
    }
    if (!source) {
      showEditError("A patch needs the photo that it comes from: choose one.");
      return;
    }
    choosePlan({ edits: [...edits.plan.edits, { edit: form.name, ...optionsOf(host, form.options) }], source });
  });
}

/** Sends a photo to the server; the answer names it. */
const droppedPhoto = (file) => keep(`dropped ${file.name} ${file.size} ${file.lastModified}`, async () => {
  const { id } = await api(`api/photos?name=${encodeURIComponent(file.name || "photo")}`, { method: "POST", body: file, type: "application/octet-stream" });
  return id;
});

/** An edit in words, where its control has some; else its name. */
function editPhrase(edit) {
  const listed = (noun, value) => (Array.isArray(value) ? `${noun}${value.length === 1 ? "" : "s"} ${rangesText(value)}` : `all ${noun}s`);
  const at = (value) => (value === undefined ? "" : ` of ${listed("block", value)}`);
  const to = edit.to === "means" ? "their means" : "zero";
  if (edit.edit === "KeepTokens" && Array.isArray(edit.mask)) return `${counted(tokenCount - edit.mask.length, "token")} dropped`;
  if (edit.edit === "AblateHeads") return `${listed("head", edit.heads)}${at(edit.blocks)} → ${to}`;
  if (edit.edit === "AblateSublayer") return `${edit.sublayer === "mlp" ? "MLP" : "attention"}${at(edit.blocks ?? "all")} → ${to}`;
  if (edit.edit === "AblateNeurons") return `${listed("unit", edit.units)}${at(edit.blocks)} → ${to}`;
  if (edit.edit === "Patch") return `${edit.site}${at(edit.blocks ?? "all")} from the other photo`;
  const form = editForm(edit.edit);
  return form ? form.label : edit.edit;
}

function drawEditList() {
  const list = edits.plan.edits;
  byId("edits-list").replaceChildren(...(list.length ? list.map((edit, i) => {
    const words = editPhrase(edit);
    const remove = make("button", { type: "button", class: "edit-remove", "aria-label": `Remove ${words}` }, "Remove");
    remove.addEventListener("click", () => {
      chooseEdits(list.filter((_, other) => other !== i));
      (byId("edits-list").querySelectorAll(".edit-remove")[i] ?? byId("edits-list-title")).focus?.();
    });
    return make("li", {}, make("strong", {}, words), " ", make("code", {}, shortText(editText(edit))), remove);
  }) : [make("li", { class: "hint" }, "None: choose tokens, heads or another edit above.")]));
  byId("edits-undo").disabled = !edits.past.length;
  byId("edits-redo").disabled = !edits.future.length;
  byId("edits-reset").disabled = !list.length;
}
const shortText = (text) => (text.length > 120 ? `${text.slice(0, 118)} …` : text);

function drawEditControls() {
  drawBrush();
  drawMatrix();
  drawSwitches();
  drawEditList();
  const needed = edits.plan.source?.photo;
  if (needed !== undefined && byId("edits-source")) byId("edits-source").value = needed;
}
