// Heads, sublayers and hidden units to take out, and switches of attention.
const isWhole = (edit) => edit.tokens === undefined || edit.tokens === "all";
const inMatrix = (edit) => (edit.edit === "AblateHeads" || edit.edit === "AblateSublayer") && isWhole(edit);
const indicesOf = (value, count) =>
  Array.isArray(value) ? value : value === "all" || value === undefined ? Array.from({ length: count }, (_, i) => i) : [];
const editTo = () => document.querySelector("[name=edits-to]:checked").value;
const withTo = (edit, to) => (to === "zero" ? edit : { ...edit, to });

/** What takes the place of each part: from `block head`, such as `4 3`, `4 attn` or `4 mlp`, to `zero` or `means`. */
function replacedParts() {
  const parts = new Map();
  for (const edit of edits.plan.edits.filter(inMatrix)) {
    const names = edit.edit === "AblateHeads" ? indicesOf(edit.heads, model.heads) : [edit.sublayer];
    for (const block of indicesOf(edit.blocks, model.blocks)) for (const name of names) parts.set(`${block} ${name}`, edit.to ?? "zero");
  }
  return parts;
}

/** The edits of all parts, in the place of the first of them. */
function chooseParts(parts) {
  const ablations = [];
  for (const to of ["zero", "means"]) {
    const heads = new Map();
    const sublayers = { attn: [], mlp: [] };
    for (const block of blockNumbers()) {
      const chosen = headNumbers().filter((head) => parts.get(`${block} ${head}`) === to);
      if (chosen.length) heads.set(String(chosen), { chosen, blocks: [...(heads.get(String(chosen))?.blocks ?? []), block] });
      for (const name of ["attn", "mlp"]) if (parts.get(`${block} ${name}`) === to) sublayers[name].push(block);
    }
    for (const { chosen, blocks } of heads.values()) ablations.push(withTo({ edit: "AblateHeads", heads: chosen, blocks }, to));
    for (const [sublayer, blocks] of Object.entries(sublayers)) if (blocks.length) ablations.push(withTo({ edit: "AblateSublayer", sublayer, blocks }, to));
  }
  const list = edits.plan.edits;
  const first = list.findIndex(inMatrix);
  const others = list.filter((edit) => !inMatrix(edit));
  const before = first < 0 ? others.length : list.slice(0, first).length;
  chooseEdits([...others.slice(0, before), ...ablations, ...others.slice(before)]);
}

function setUpMatrix() {
  const table = byId("edits-matrix");
  const columns = [...headNumbers().map(String), "attn", "mlp"];
  const title = { attn: "Attention", mlp: "MLP" };
  table.replaceChildren(
    make("thead", {},
      make("tr", { "aria-hidden": "true" }, make("td", {}), make("th", { colspan: model.heads, class: "over" }, model.heads > 1 ? "Heads" : "Head"), make("th", { colspan: 2, class: "over" }, "Whole")),
      make("tr", {}, make("th", { scope: "col" }, "Block"),
        ...columns.map((name) => make("th", { scope: "col", "aria-label": title[name] ?? `head ${name}` }, { attn: "Att.", mlp: "MLP" }[name] ?? name)))),
    make("tbody", {}, ...blockNumbers().map((block) => make("tr", {}, make("th", { scope: "row" }, String(block)),
      ...columns.map((name) => make("td", {}, make("button", {
        type: "button", class: "edit-part", "data-block": block, "data-part": name, "aria-pressed": "false", tabindex: block || name !== "0" ? -1 : 0,
      })))))));
  const buttonAt = (block, name) => table.querySelector(`.edit-part[data-block="${block}"][data-part="${name}"]`);
  table.addEventListener("click", (event) => {
    const button = event.target.closest(".edit-part");
    if (!button) return;
    const parts = replacedParts();
    const key = `${button.dataset.block} ${button.dataset.part}`;
    if (parts.get(key) === editTo()) parts.delete(key);
    else parts.set(key, editTo());
    chooseParts(parts);
  });
  table.addEventListener("keydown", (event) => {
    const button = event.target.closest(".edit-part");
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!button || !move) return;
    event.preventDefault();
    buttonAt(Number(button.dataset.block) + move[0], columns[columns.indexOf(button.dataset.part) + move[1]])?.focus();
  });
  table.addEventListener("focusin", (event) => {
    const button = event.target.closest(".edit-part");
    if (!button) return;
    for (const other of table.querySelectorAll(".edit-part")) other.tabIndex = other === button ? 0 : -1;
    showTip(button, partTip(button));
  });
  table.addEventListener("pointerover", (event) => {
    const button = event.target.closest(".edit-part");
    if (button) showTip(button, partTip(button));
  });
  table.addEventListener("pointerleave", hideTip);
  table.addEventListener("focusout", hideTip);
  onChange(["image", "category", "rival"], drawMatrix);
}

const partName = (block, part) => ({ attn: `Attention of block ${block}`, mlp: `MLP of block ${block}` }[part] ?? `Block ${block}, head ${part}`);
/** What a part adds to the logit of the class of interest; null where the logit is no sum. */
function partAdds(block, part) {
  const { attribution } = currentImage();
  if (!attribution) return null;
  return part === "mlp" ? attribution.mlp[block] : part === "attn" ? sum(attribution.attention[block]) : attribution.attention[block][Number(part)];
}
function partTip({ dataset: { block, part } }) {
  const to = replacedParts().get(`${block} ${part}`);
  const adds = partAdds(Number(block), part);
  return [partName(block, part), ...(adds === null ? [] : [`adds ${significant(adds)} to the ${unit} of ${classWords(currentImage())}`]),
    ...(to ? [to === "means" ? "replaced by its mean" : "replaced by zero"] : [])];
}

function drawMatrix() {
  const parts = replacedParts();
  const buttons = [...byId("edits-matrix").querySelectorAll(".edit-part")];
  const adds = buttons.map(({ dataset: { block, part } }) => partAdds(Number(block), part) ?? 0);
  const isHead = buttons.map(({ dataset: { part } }) => part !== "attn" && part !== "mlp");
  // Whole sublayers add more than single heads, so each kind has its own scale.
  const largest = { true: largestOf(adds.filter((_, i) => isHead[i])), false: largestOf(adds.filter((_, i) => !isHead[i])) };
  buttons.forEach((button, i) => {
    const { block, part } = button.dataset;
    const to = parts.get(`${block} ${part}`);
    button.textContent = to === undefined ? "" : to === "means" ? "μ" : "✕";
    button.style.setProperty("--adds", divergingCss(adds[i], largest[isHead[i]]));
    button.setAttribute("aria-pressed", String(to !== undefined));
    button.setAttribute("aria-label", partName(block, part) + (to === undefined ? "" : to === "means" ? ", replaced by its mean" : ", replaced by zero"));
  });
}

function setUpSwitches() {
  const words = { NoCls: "Image tokens do not see [CLS]", SelfOnly: "Each image token sees itself alone" };
  const forms = edits.setting.forms.filter((form) => form.control === "switch");
  byId("edits-switches").hidden = !forms.length;
  byId("edits-switches").replaceChildren(...forms.map(({ name, about }) => {
    const button = make("button", { type: "button", "data-switch": name, "aria-pressed": "false", title: about }, words[name] ?? about);
    button.addEventListener("click", () => {
      const others = edits.plan.edits.filter((edit) => edit.edit !== name);
      chooseEdits(others.length < edits.plan.edits.length ? others : [...others, { edit: name }]);
    });
    return button;
  }));
}
function drawSwitches() {
  for (const button of byId("edits-switches").children) {
    button.setAttribute("aria-pressed", String(edits.plan.edits.some((edit) => edit.edit === button.dataset.switch)));
  }
}

function setUpUnits() {
  byId("edits-units-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const field = byId("edits-units");
    const pairs = field.value.split(/[\s,;]+/).filter(Boolean).map((text) => /^(\d{1,5})\.(\d{1,6})$/.exec(text));
    if (!pairs.length || pairs.some((pair) => pair === null)) {
      showEditError(`Units ${JSON.stringify(field.value)} are not understood: write BLOCK.UNIT, such as 4.117.`);
      return;
    }
    const to = editTo();
    const isUnits = (edit) => edit.edit === "AblateNeurons" && isWhole(edit) && (edit.sublayer ?? "mlp") === "mlp" && (edit.to ?? "zero") === to &&
      Array.isArray(edit.units) && Array.isArray(edit.blocks) && edit.blocks.length === 1;
    const byBlock = new Map();
    for (const [, block, unit] of pairs) byBlock.set(Number(block), [...(byBlock.get(Number(block)) ?? []), Number(unit)]);
    let list = edits.plan.edits;
    for (const [block, units] of byBlock) {
      const same = list.find((edit) => isUnits(edit) && edit.blocks[0] === block);
      const all = [...new Set([...(same?.units ?? []), ...units])].sort((a, b) => a - b);
      const edit = withTo({ edit: "AblateNeurons", units: all, blocks: [block] }, to);
      list = same ? list.map((one) => (one === same ? edit : one)) : [...list, edit];
    }
    field.value = "";
    chooseEdits(list);
  });
}
