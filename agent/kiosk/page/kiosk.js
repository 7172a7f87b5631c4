"use strict";
/*
 * The screen of a locker. It shows what the agent says, and sends what a keypad would: it decides nothing,
 * keeps nothing, and knows nothing that is not to be seen here anyway.
 */
const ALONE_MS = 45_000; // Nobody has touched anything for so long: what was typed is forgotten.
const AWAY_MS = 4_000; // The agent is silent for so long: it is not just starting anew.
const ANSWER_MS = 10_000; // Whatever was typed is answered, or shown as before.
const LETTERS = ["1234567890", "ABCDEFGHIJ", "KLMNOPQRST", "UVWXYZ"];
const DIGITS = ["123", "456", "789", "0"];
const CODE = 10, PIN = 32;
const WAVED = ["thanks", "left", "empty"]; // What a touch anywhere, or Enter, makes room for the next person.

const $ = (id) => document.getElementById(id);
let shown = null; // What the agent said last.
let away = true; // It does not answer now.
let language = null; // Chosen here; the locker's own until then.
let typed = null; // What is being typed; null while nobody types.
let skipped = 0; // What passes and was waved away.
let asking = null; // What was sent and has no answer yet: the face and count at that time.
let awayTimer = 0, aloneTimer = 0, askTimer = 0;

const words = () => WORDS[language || (shown && shown.language) || "en"];
const door = (text) => text.replace("{door}", shown && shown.door ? shown.door.toUpperCase() : "");

/* -- what there is to see ---------------------------------------------------------------------- */

const TYPES = ["idle", "identify"];

function face() {
  if (away || !shown) return "wait";
  if (shown.face !== shown.beneath && skipped === shown.times) return shown.beneath;
  if (asking && asking.face === shown.face && asking.times === shown.times) return "wait";
  return shown.face;
}

function draw() {
  const now = face();
  if (typed !== null && !TYPES.includes(now)) typed = null;
  document.documentElement.lang = language || (shown && shown.language) || "en";
  document.body.dataset.face = typed === null ? now : "keys";
  document.body.dataset.size = (shown && shown.size) || "";
  for (const each of document.querySelectorAll("[data-words]")) each.textContent = words()[each.dataset.words];
  for (const each of $("languages").children)
    each.setAttribute("aria-pressed", String(each.lang === document.documentElement.lang));
  const [title, lead] = words()[spoken(now)];
  say("title", door(title));
  say("lead", door(lead));
  say("hint", now === "idle" ? words().couriers : "");
  const doors = shown && !away ? shown.ajar.map((each) => each.toUpperCase()).join(", ") : "";
  say("ajar", doors && words().ajar.replace("{doors}", doors));
  $("door").textContent = door("{door}");
  $("door").className = ["", "", "", "long", "longer", "longer"][$("door").textContent.length] ?? "longest";
  offer("sizes", now === "size" || now === "courier" ? shown.sizes.map(sizeButton) : []);
  offer("actions", actions(now));
  if (now === "receipt") $("receipt").src = `receipt.svg?${shown.times}`;
  else $("receipt").removeAttribute("src");
  drawKeys(now);
}

/** The words of a face; those of an open door depend on what the person is there for. */
function spoken(now) {
  if (now === "open") return shown.task;
  return now === "identify" && shown.second ? "second" : now;
}

function say(id, text) {
  // Only what is new is said again to somebody who listens to the screen.
  if ($(id).textContent !== text) $(id).textContent = text;
}

function actions(now) {
  const is = words();
  switch (now) {
    case "idle": return [button(is.typeCode, "main", () => begin())];
    case "identify": return shown.second ? [] : [button(is.typePin, "main", () => begin())];
    case "courier": return [button(is.retrieve, "", () => press("retrieve")), button(is.end, "", () => press("end"))];
    case "size": return [button(is.cancel, "", () => press("cancel"))];
    case "receipt": return [button(is.next, "main", skip), button(is.end, "", () => press("end"))];
    case "refused": case "failed": return [button(is.again, "main", skip)];
    default: return [];
  }
}

function sizeButton(size) {
  const made = button(words().sizes[size], "size", () => press(`size-${size.toLowerCase()}`));
  made.dataset.of = size;
  made.setAttribute("aria-pressed", String(shown.size === size));
  const picture = document.createElement("span");
  picture.className = "cube";
  made.prepend(picture);
  return made;
}

/** Buttons in their row. Those that stay are left alone, so that the one with the focus keeps it. */
function offer(id, buttons) {
  const row = $(id);
  const same = row.children.length === buttons.length
    && buttons.every((each, place) => each.outerHTML === row.children[place].outerHTML);
  if (!same) row.replaceChildren(...buttons);
}

function button(text, kind, act) {
  const made = document.createElement("button");
  made.type = "button";
  made.className = kind;
  made.append(text);
  made.addEventListener("click", act);
  return made;
}

/* -- typing ------------------------------------------------------------------------------------ */

function begin() {
  typed = "";
  draw();
}

function drawKeys(now) {
  const pin = now === "identify";
  say("asked", words()[pin ? "askPin" : "askCode"]);
  const layout = typed === null ? "" : (pin ? "pin" : "code") + document.documentElement.lang;
  if ($("pad").dataset.layout !== layout) {
    $("pad").dataset.layout = layout;
    $("pad").replaceChildren(...(layout ? keyRows(pin) : []));
  }
  offer("leave", typed !== null && pin ? [button(words().back, "key wide", leave)] : []);
  $("keys").className = pin ? "keys pin" : "keys";
  $("typed").replaceChildren(...(typed === null ? [] : pin ? dots() : places()));
  $("typed").setAttribute("aria-label", pin ? String((typed || "").length) : (typed || "").split("").join(" "));
}

function keyRows(pin) {
  const rows = (pin ? DIGITS : LETTERS).map((keys) => [...keys].map((key) => button(key, "key", () => type(key))));
  const last = rows[rows.length - 1];
  last[pin ? "unshift" : "push"](button(words().erase, "key wide", erase));
  last.push(button(words().ok, "key main", send));
  if (!pin) last.unshift(button(words().back, "key wide", leave));
  return rows.map((keys) => {
    const row = document.createElement("div");
    row.append(...keys);
    return row;
  });
}

/** Ten places: four for the selector, six for the PIN of a parcel. */
function places() {
  return Array.from({ length: CODE }, (_, place) => {
    const made = document.createElement("span");
    made.textContent = typed[place] || "";
    made.className = place === typed.length ? "here" : "";
    return made;
  });
}

function dots() {
  const made = document.createElement("span");
  made.className = "dots";
  made.textContent = "●".repeat(typed.length);
  return [made];
}

function type(key) {
  const most = face() === "identify" ? PIN : CODE;
  if (typed.length < most) typed += key;
  draw();
}

function erase() {
  typed = typed.slice(0, -1);
  draw();
}

function leave() {
  typed = null;
  draw();
}

function send() {
  if (!typed) return;
  const keys = typed;
  typed = null;
  hand("typed", { keys });
}

/* -- what is handed in, and what is heard -------------------------------------------------------- */

const press = (name) => hand("pressed", { button: name });

async function hand(path, said) {
  const mine = { face: shown.face, times: shown.times };
  if (path === "typed") {
    asking = mine;
    clearTimeout(askTimer);
    askTimer = setTimeout(() => { asking = null; draw(); }, ANSWER_MS);
    draw();
  }
  const heard = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(said),
  }).catch(() => null);
  if (!(heard && heard.ok) && asking === mine) {
    asking = null;
    draw();
  }
}

function skip() {
  skipped = shown.times;
  draw();
}

function listen() {
  const events = new EventSource("events");
  events.onmessage = (event) => {
    shown = JSON.parse(event.data);
    away = false;
    clearTimeout(awayTimer);
    awayTimer = 0;
    if (asking && (asking.face !== shown.face || asking.times !== shown.times)) asking = null;
    draw();
  };
  events.onerror = () => {
    if (!awayTimer) awayTimer = setTimeout(() => { away = true; typed = null; draw(); }, AWAY_MS);
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, AWAY_MS);
  };
}

/** Somebody is there. Once nobody is, the next one finds the screen as the first one did. */
function touched() {
  clearTimeout(aloneTimer);
  aloneTimer = setTimeout(() => {
    typed = null;
    language = null;
    draw();
  }, ALONE_MS);
}

document.addEventListener("keydown", (event) => {
  touched();
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const now = face();
  if (WAVED.includes(now) && event.key === "Enter" && event.target === document.body) skip();
  if (!TYPES.includes(now) || (now === "identify" && shown.second)) return;
  const allowed = now === "identify" ? /^[0-9]$/ : /^[0-9A-Za-z]$/;
  if (allowed.test(event.key)) {
    if (typed === null) typed = "";
    type(event.key.toUpperCase());
  } else if (event.key === "Backspace" && typed) erase();
  else if (event.key === "Escape") leave();
  else if (event.key === "Enter" && typed && event.target === document.body) send();
});
document.addEventListener("pointerdown", touched);
document.querySelector("main").addEventListener("click", () => { if (WAVED.includes(face())) skip(); });
document.addEventListener("contextmenu", (event) => event.preventDefault());

for (const [lang, is] of Object.entries(WORDS)) {
  const made = button(is.language, "", () => { language = lang; draw(); });
  made.lang = lang;
  $("languages").append(made);
}
draw();
listen();
