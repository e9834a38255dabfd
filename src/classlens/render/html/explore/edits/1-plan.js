// The plan of edits: what is chosen, its history, and its place in the address.
const edits = {
  plan: { edits: [], source: null },
  past: [],
  future: [],
  setting: null,
};
const samePlan = (one, other) => JSON.stringify(one) === JSON.stringify(other);

/** Replaces the plan as one step that can be undone. */
function choosePlan(plan) {
  if (samePlan(plan, edits.plan)) return;
  edits.past.push(edits.plan);
  edits.future = [];
  showPlan(plan);
}
const chooseEdits = (list) => choosePlan({
  edits: list, source: list.some((edit) => editForm(edit.edit)?.options.some((option) => option.kind === "source")) ? edits.plan.source : null,
});

function stepPlan(from, to) {
  if (!from.length) return;
  to.push(edits.plan);
  showPlan(from.pop());
}

/** Draws a plan, writes it into the address, and asks for its result. */
function showPlan(plan, { write = true } = {}) {
  edits.plan = plan;
  drawEditControls();
  if (write) writeEdits();
  requestEdits();
}

const editForm = (name) => edits.setting.forms.find((form) => form.name === name);

// The notation of the command line: AblateHeads:heads=0,3:blocks=5.
function editText({ edit, ...options }) {
  const text = (value) => (Array.isArray(value) ? rangesText(value) : String(value));
  return [edit, ...Object.entries(options).map(([name, value]) => `${name}=${text(value)}`)].join(":");
}

/** Ascending numbers with ranges, such as `0-2,5`. */
function rangesText(numbers) {
  const runs = [];
  for (const number of [...numbers].sort((a, b) => a - b)) {
    if (runs.length && number === runs.at(-1)[1] + 1) runs.at(-1)[1] = number;
    else runs.push([number, number]);
  }
  return runs.map(([first, last]) => (first === last ? String(first) : `${first}-${last}`)).join(",");
}

/** Numbers of a text with ranges; null where it is none. */
function numbersOf(text) {
  const parts = text.replaceAll(/\s/g, "").split(",");
  if (!parts.every((part) => /^\d{1,6}(-\d{1,6})?$/.test(part))) return null;
  const numbers = parts.flatMap((part) => {
    const [first, last = first] = part.split("-").map(Number);
    return Array.from({ length: Math.min(Math.max(last - first + 1, 0), 100_000) }, (_, i) => first + i);
  });
  return [...new Set(numbers)].sort((a, b) => a - b);
}

/** An edit from its notation; values that the server does not take are left to it to refuse. */
function editOf(text) {
  const [name, ...parts] = text.split(":");
  const edit = { edit: name };
  for (const part of parts) {
    const [option, ...rest] = part.split("=");
    edit[option] = optionValue(editForm(name)?.options.find((one) => one.name === option)?.kind, rest.join("="));
  }
  return edit;
}

function optionValue(kind, text) {
  if (kind === "flag") return text === "true" ? true : text === "false" ? false : text;
  if (kind === "number") return text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
  return ["indices", "tokens", "mask"].includes(kind) ? numbersOf(text) ?? text : text;
}

function writeEdits() {
  const { edits: list, source } = edits.plan;
  const { edits: _, source: __, ...others } = readHash();
  const hash = { ...others };
  if (list.length) hash.edits = list.map(editText).join(";");
  if (source) hash.source = source.photo !== undefined ? `photo-${source.photo}` : source.dropped;
  writeHash(hash);
}

function planOfHash() {
  const { edits: text, source } = readHash();
  const photo = /^photo-(\d{1,9})$/.exec(source ?? "");
  return {
    edits: text ? text.split(";").filter(Boolean).map(editOf) : [],
    source: !source ? null : photo ? { photo: Number(photo[1]) } : { dropped: source },
  };
}
