"use strict";
// Whatever comes from the pool or from people is put in as text (textContent), never as markup.

const $ = (id) => document.getElementById(id);
const FORM = document.querySelector('meta[name="svp-form"]').content;
const BUTTONS = [...document.querySelectorAll("[data-key], [data-said]")];
const CLASSES = [...document.querySelectorAll(".answer .name")].map((name) => name.textContent);
const READING = "The pictures are being read, once, for the model to learn from.";
const WORDS = { skip: "skipped", unsure: "unsure", none: "none of these" };

let who = stored("who") || "";
let card = null; // the example that is shown
let busy = true; // an answer is on its way, or the example is not seen yet: no key means anything

function stored(name, value) {
  try {
    if (value === undefined) return localStorage.getItem(`svp-${name}`);
    localStorage.setItem(`svp-${name}`, value);
  } catch {
    // a browser that keeps nothing
  }
  return null;
}

// --- the server ------------------------------------------------------------------------------------------------------------

class Refused extends Error {}
class Failed extends Error {} // the server says why: its disk is full

async function call(path, said) {
  const options = said === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-SVP-Form": FORM },
    body: JSON.stringify({ who, ...said }),
  };
  const answer = await fetch(path, { ...options, signal: AbortSignal.timeout(20000) });
  if (answer.status === 403 || answer.status === 421) {
    throw new Refused("svp was started anew. Open the link that it printed this time; all answers before this one are stored.");
  }
  const state = await answer.json();
  if (!answer.ok) throw answer.status >= 500 ? new Failed(state.error) : new Refused(state.error);
  return state;
}

// Says it until it is heard. An answer that is said twice is one answer.
async function insist(path, said) {
  for (;;) {
    try {
      const state = await call(path, said);
      trouble("");
      return state;
    } catch (error) {
      if (error instanceof Refused) throw error;
      const why = error instanceof Failed ? `This cannot be stored: ${error.message}.` : "svp does not answer.";
      trouble(`${why} All answers before this one are stored; this one is tried again until it is.`);
      await new Promise((wake) => setTimeout(wake, 1500));
    }
  }
}

// --- what is shown ---------------------------------------------------------------------------------------------------------

function trouble(words) {
  if ($("trouble").textContent !== words) $("trouble").textContent = words;
}

// Not disabled: a button that has the focus would lose it.
function enable() {
  for (const button of BUTTONS) button.setAttribute("aria-disabled", busy || (button.id !== "undo" && card === null));
  document.body.classList.toggle("idle", card === null);
}

function show(state) {
  progress(state);
  const [next, ...later] = state.cards;
  for (const other of later) if (other.text === null) new Image().src = other.image;
  if (next === undefined) {
    card = null;
    pause(state);
    ready();
  } else if (card !== null && card.id === next.id) {
    ready();
  } else {
    lay(next);
  }
}

function lay(next) {
  card = next;
  busy = true;
  enable();
  const image = $("image"), text = $("text");
  image.hidden = next.text !== null;
  text.hidden = next.text === null;
  $("pause").hidden = true;
  $("key").textContent = next.key;
  $("next").textContent = next.text === null ? `Next: picture ${next.key}` : `Next: ${next.text.slice(0, 300)}`;
  $("note").textContent = next.again ? "People are divided on this one" : `Chosen: ${next.origin}`;
  $("note").classList.toggle("again", next.again);
  if (next.text !== null) {
    text.textContent = next.text;
    if (next.letters > next.text.length) text.append(` … (the beginning; ${next.letters.toLocaleString("en")} letters in all)`);
    text.scrollTop = 0;
    ready();
    return;
  }
  image.classList.toggle("tiny", next.tiny);
  image.alt = `Picture ${next.key}`;
  image.onload = ready;
  image.onerror = () => {
    image.hidden = true;
    $("pause").hidden = false;
    $("pause").textContent = `The picture ${next.key} cannot be shown. Skip it, or say what it is if you know.`;
    ready();
  };
  image.src = next.image;
}

function pause(state) {
  $("image").hidden = $("text").hidden = true;
  $("key").textContent = $("note").textContent = $("next").textContent = "";
  $("pause").hidden = false;
  const waits = state.behind.learning === "read"
    ? `${READING} You can wait, or come back.`
    : state.behind.learning
    ? `The model is learning from ${number(state.behind.learns_from, "label")} and chooses the next. You can wait, or come back.`
    : "Choosing the next examples …";
  const all = "That was all: nothing is left to label.";
  $("pause").textContent = state.behind.trouble || (state.exhausted ? all : waits);
}

function ready() {
  busy = false;
  enable();
}

function number(n, word) {
  return `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;
}

function progress(state) {
  const { labelled, others, people, right, curve } = state.progress;
  const total = labelled.reduce((sum, n) => sum + n, 0), most = Math.max(1, ...labelled);
  if (labelled.length > CLASSES.length) location.reload(); // somebody added a class
  $("n-labelled").textContent = total.toLocaleString("en");
  [...$("classes").rows].forEach((row, i) => {
    row.cells[1].firstElementChild.value = labelled[i] / most;
    row.cells[2].textContent = labelled[i].toLocaleString("en");
  });
  const beside = [];
  if (others.none) beside.push(`${others.none.toLocaleString("en")} of none of the classes`);
  if (others.open) beside.push(`${others.open.toLocaleString("en")} skipped or unsure`);
  if (others.tie) beside.push(`people are divided on ${others.tie.toLocaleString("en")}`);
  if (people.length > 1) beside.push(`labelling now: ${people.join(", ")}`);
  $("beside").textContent = beside.join(" · ");
  model(state.behind, right, curve);
  finish(state.behind, labelled.filter((n) => n > 0).length, total);
}

function model(behind, right, curve) {
  let words = "It learns once there are some answers.";
  if (behind.learned_from) words = `It has learned from ${number(behind.learned_from, "label")}.`;
  if (behind.learning) words = `The model is learning from ${number(behind.learns_from, "label")}.`;
  if (behind.learning === "read") words = READING;
  if (behind.learning === "finish") words = `The final model is being trained on ${number(behind.learns_from, "label")}.`;
  else if (behind.finish_wanted) words += " The training of the final model is waiting.";
  if (behind.trouble) words = `${behind.finish_wanted ? "The final model is waiting" : "Something failed"}: ${behind.trouble}`;
  if ($("learning").textContent !== words) $("learning").textContent = words;
  const enough = behind.may_stop.length ? `You may stop: ${behind.may_stop.join("; and ")}.` : "";
  if ($("enough").textContent !== enough) $("enough").textContent = enough;
  $("learning").classList.toggle("busy", Boolean(behind.learning));
  $("curve").hidden = curve.length < 2;
  if (curve.length < 2) return;
  const from = curve[0][0], to = curve[curve.length - 1][0];
  const at = ([n, share]) => [((n - from) / (to - from)) * 264, 88 - share * 80];
  document.querySelector("#curve .line").setAttribute("points", curve.map((point) => at(point).join()).join(" "));
  const [x, y] = at(curve[curve.length - 1]);
  document.querySelector("#curve .dot").setAttribute("cx", x);
  document.querySelector("#curve .dot").setAttribute("cy", y);
  $("right").textContent = `It was right about ${right[0]} of the last ${right[1]}, before you said what they are.`;
}

function finish(behind, classes, total) {
  const button = $("finish");
  button.disabled = behind.finish_wanted || classes < 2 || who === "";
  const result = behind.result, told = result ? `${result.folder} ${result.n_labelled}` : "";
  if ($("result").dataset.told === told) return;
  $("result").dataset.told = told;
  $("result").textContent = "";
  if (!result) return;
  const words = document.createElement("p");
  words.textContent = `Done, from ${number(result.n_labelled, "label")}. The model, your labels and what it takes the other ` +
    `${result.n_predicted.toLocaleString("en")} for are in this folder:`;
  const list = document.createElement("ul");
  for (const file of [result.folder, ...result.files]) {
    const item = document.createElement("li"), code = document.createElement("code");
    code.textContent = file;
    item.append(code);
    list.append(item);
  }
  $("result").append(words, list);
}

// --- what people say -------------------------------------------------------------------------------------------------------

async function answer(said) {
  if (busy || card === null) return;
  busy = true;
  enable();
  const about = card, words = typeof said === "number" ? CLASSES[said] : WORDS[said];
  for (const button of BUTTONS) button.classList.toggle("said", button.dataset.said === String(said));
  try {
    const state = await insist("/answer", { id: about.id, said });
    tell(words, typeof said === "number" && $("show-guess").checked ? state.guess : null);
    show(state);
  } catch (error) {
    trouble(error.message);
    await again();
  }
}

function tell(words, guess) {
  const line = $("said"), bold = document.createElement("b");
  bold.textContent = words;
  line.textContent = "Stored: ";
  line.append(bold);
  if (guess === null) return;
  const agrees = guess[0] === words, note = document.createElement("span");
  note.className = agrees ? "agrees" : "";
  note.textContent = ` · the model had thought ${agrees ? "so too" : `${guess[0]}`} (${Math.round(guess[1] * 100)} %)`;
  line.append(note);
}

async function undo() {
  if (busy) return;
  busy = true;
  enable();
  try {
    const state = await call("/undo", {});
    trouble("");
    $("said").textContent = "Taken back. What is it?";
    for (const button of BUTTONS) button.classList.remove("said");
    show(state);
  } catch (error) {
    trouble(error instanceof Refused ? error.message : "svp does not answer; nothing was taken back.");
    await again();
  }
}

// What is asked now: after something was refused, and while nothing is there.
async function again() {
  try {
    show(await call("/next", {}));
  } catch (error) {
    if (error instanceof Refused) trouble(error.message);
    ready();
  }
}

function begin(name) {
  who = name.trim().replace(/\s+/g, " ");
  if (!who) return;
  stored("who", who);
  $("welcome").hidden = true;
  $("work").hidden = $("person").hidden = false;
  $("who").textContent = who;
  $("pause").hidden = false;
  $("pause").textContent = "Choosing the first examples …";
  card = null;
  again();
}

function welcome() {
  busy = true;
  card = null;
  $("work").hidden = $("person").hidden = true;
  $("welcome").hidden = false;
  if (who) $("name").value = who;
  $("name").focus();
  $("name").select();
}

// --- events ----------------------------------------------------------------------------------------------------------------

for (const button of BUTTONS) {
  if (button.id === "undo") button.addEventListener("click", undo);
  else {
    const said = button.dataset.said;
    button.addEventListener("click", () => answer(/^\d+$/.test(said) ? Number(said) : said));
  }
}

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.isComposing || !$("use-keys").checked) return;
  if ($("work").hidden || event.target.closest("input:not([type=checkbox]), textarea, select, [contenteditable]")) return;
  const key = event.key === "Backspace" ? "z" : event.key.toLowerCase();
  const button = BUTTONS.find((one) => one.dataset.key === key);
  if (!button) return;
  event.preventDefault();
  button.click();
});

$("welcome").addEventListener("submit", (event) => {
  event.preventDefault();
  begin($("name").value);
});
$("change").addEventListener("click", welcome);
$("finish").addEventListener("click", async () => {
  $("finish").disabled = true;
  try {
    progress(await call("/finish", {}));
  } catch (error) {
    trouble(error.message);
  }
});
for (const name of ["use-keys", "show-guess"]) {
  const box = $(name);
  if (stored(name) === "no") box.checked = false;
  box.addEventListener("change", () => {
    stored(name, box.checked ? "yes" : "no");
    document.body.classList.toggle("keyless", !$("use-keys").checked);
  });
}
document.body.classList.toggle("keyless", !$("use-keys").checked);

// How far it is: often while something is going on, else now and then.
let quiet = 0;
setInterval(async () => {
  if (document.hidden || busy) return;
  const waits = who && card === null && !$("work").hidden;
  if (!waits && quiet-- > 0) return;
  try {
    if (waits) show(await call("/next", {}));
    else {
      const state = await call("/progress");
      if (!busy) progress(state);
      quiet = state.behind.learning || state.behind.choosing ? 0 : 5;
    }
  } catch {
    quiet = 5; // said when the next answer is given
  }
}, 1000);

if (who) begin(who);
else welcome();
call("/progress").then(progress, () => {});
