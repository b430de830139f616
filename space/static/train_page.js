// train_page.js: the page around train_worker.js. Everything that computes is in the worker.

import { MOST_BYTES } from "./train_text.js";

const $ = (id) => document.getElementById(id);
const worker = new Worker("train_worker.js", { type: "module" });
const speeds = {}, query = new URLSearchParams(location.search);
let facts = null, marks = [], steps = [], validations = [], max_steps = 1, running = false, paused = false;

const number = (n) => n.toLocaleString("en");
const visible = (c) => ({ "\n": "⏎", " ": "␣", "\t": "⇥" })[c] ?? c;

// ---------------------------------------------------------------- a text

/** A file of any size: the worker refuses what is larger than MOST_BYTES, and no more than that is read. */
async function give_file(file) {
  try { give(await file.slice(0, MOST_BYTES + 1).arrayBuffer(), file.name); } catch {
    problem(`${file.name} could not be read: choose it again.`);
  }
}

/** The play that lies beside this page, if its owner put it there; else a made-up text of the same size. */
async function give_own() {
  for (const name of ["input.txt", "standin.txt"]) {
    const response = await fetch(name).catch(() => null);
    if (response?.ok) return give(await response.arrayBuffer(), name);
  }
  problem("No text lies beside this page: drop one of your own.");
}

function give(bytes, name) {
  if (running) return say("A model is in training: stop it before you choose another text.");
  problem("");
  $("go").disabled = true;
  facts = null; marks = [];
  for (const size of Object.keys(speeds)) delete speeds[size];
  say(`Reading ${name} and counting its letters.`);
  worker.postMessage({ type: "read", bytes, name }, [bytes]);
}

$("file").addEventListener("change", ({ target }) => { if (target.files[0]) give_file(target.files[0]); });
$("own").addEventListener("click", give_own);
$("use").addEventListener("click", () => {
  give(new TextEncoder().encode($("paste").value).buffer, "a pasted text");
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    const file = kind === "drop" ? event.dataTransfer.files[0] : null;
    if (file) give_file(file);
  });
}

// ---------------------------------------------------------------- the run

$("go").addEventListener("click", () => {
  const minutes = Number($("minutes").value);
  if (!(minutes > 0 && minutes <= 240)) return problem("Minutes must be a number above 0 and at most 240.");
  begin();
  say("Measuring this device.");
  // for comparisons: so many steps, whatever the clock says, and so many workers
  const [max_steps, members] = ["steps", "workers"].map((name) => Number(query.get(name)) || undefined);
  worker.postMessage({ type: "start", size: $("size").value, minutes, max_steps, members });
});
$("go_on").addEventListener("click", () => {
  begin();
  say("Reading what was kept.");
  worker.postMessage({ type: "go_on" });
});

function begin() {
  problem("");
  steps = []; validations = []; running = true; paused = false;
  $("left").hidden = true;
  $("samples").replaceChildren();
  $("files").replaceChildren();
  buttons();
}

$("pause").addEventListener("click", () => {
  paused = !paused;
  worker.postMessage({ type: paused ? "pause" : "resume" });
  buttons();
  if (paused) say("Paused.");
});
$("stop").addEventListener("click", () => {
  paused = false;
  worker.postMessage({ type: "stop" });
  say("Stopping after an examination.");
});
$("folder").addEventListener("click", () => worker.postMessage({ type: "folder" }));
for (const id of ["size", "minutes"]) $(id).addEventListener("input", plan);
addEventListener("beforeunload", (event) => { if (running && !query.has("steps")) event.preventDefault(); });
addEventListener("pagehide", () => worker.postMessage({ type: "keep" }));

function buttons() {
  $("go").disabled = running || !facts || !speeds.medium;
  $("pause").disabled = $("stop").disabled = !running;
  $("pause").textContent = paused ? "Go on" : "Pause";
  $("folder").disabled = running || !validations.length;
  $("open").hidden = running || !validations.length;
}

function plan() {
  const seconds = speeds[$("size").value], minutes = Number($("minutes").value);
  const steps = number(Math.round(60 * minutes / seconds));
  $("plan").textContent = seconds && minutes > 0
    ? `On this device a step takes ${(1000 * seconds).toFixed(0)} ms: about ${steps} steps.` : "";
}

function say(text) { $("status").textContent = text; }
function problem(text) { $("problem").textContent = text; $("problem").hidden = !text; }

// ---------------------------------------------------------------- what the worker tells

const on = {
  text({ name, symbols, chars, train, val }) {
    facts = { name, chars };
    $("facts").textContent = `${name}: ${number(symbols)} characters, ${chars.length} different ones. `
      + `It learns from the first ${number(train)} and is examined on the last ${number(val)}.`;
    $("alphabet").textContent = chars.slice(0, 300).map(visible).join(" ");
  },
  marks(message) { marks = message.marks; draw(); say("Measuring this device."); },
  speed({ size, seconds }) {
    speeds[size] = seconds;
    plan();
    if (speeds.medium) { say("Ready: press Train."); buttons(); }
  },
  kept({ name, step, seconds }) {
    $("left").hidden = false;
    const when = `step ${number(step)}, after ${(seconds / 60).toFixed(1)} minutes`;
    $("left_at").textContent = `A run on ${name} was left at ${when}.`;
  },
  begun({ parameters, bytes, members, losses, validations: examined, samples }) {
    steps = losses;
    samples.forEach(([step, text], i) => {
      on.validation({ step, val_loss: examined[i][1] });
      on.sample({ step, text });
    });
    const workers = members > 1 ? `${members} workers` : "one worker";
    say(`${number(parameters)} parameters, ${workers}, ${(bytes / 1e6).toFixed(0)} MB.`);
  },
  steps({ items, seconds, over }) {
    steps.push(...items);
    const [step, loss] = steps.at(-1) ?? [0, NaN];
    max_steps = Math.max(step, Math.round(step / over) || 1);
    if (step && !paused) {
      const minutes = (seconds / 60).toFixed(1);
      say(`Step ${number(step)} of about ${number(max_steps)}, ${minutes} minutes, `
        + `loss of the batch ${loss.toFixed(3)}.`);
    }
    draw();
  },
  told({ message }) { problem(message); },
  validation({ step, val_loss }) { validations.push([step, val_loss]); draw(); },
  sample({ step, text }) {
    const [box, title, pre] = ["details", "summary", "pre"].map((tag) => document.createElement(tag));
    const [, loss] = validations.at(-1), past = passed(loss) ? `, past counting ${passed(loss)}` : "";
    title.textContent = `Step ${number(step)}: ${loss.toFixed(3)} nats a character${past}`;
    pre.textContent = text;
    box.open = true;
    if ($("samples").firstElementChild) $("samples").firstElementChild.open = false;
    box.append(title, pre);
    $("samples").prepend(box);
  },
  done({ step, seconds, val_loss }) {
    running = false;
    max_steps = step;
    draw();
    buttons();
    const n = passed(val_loss), minutes = (seconds / 60).toFixed(1);
    const how = n === 1 ? "better than counting letters" : n ? `better than counting ${n} letters`
      : "counting letters is still better";
    say(`Done: ${number(step)} steps in ${minutes} minutes. `
      + `Exact loss on the unseen tenth: ${val_loss.toFixed(3)} nats a character, ${how}.`);
  },
  folder({ files }) {
    $("files").replaceChildren(...Object.entries(files).map(([name, body]) => {
      const item = document.createElement("li"), link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([body]));
      link.download = link.textContent = name;
      item.append(link);
      return item;
    }));
  },
  failed({ message }) {
    running = false;
    buttons();
    problem(message);
    say("");
  },
};
worker.addEventListener("message", ({ data }) => on[data.type](data));
worker.addEventListener("error", ({ message = "no reason given" }) => {
  problem(`The training could not be started (${message}): this page needs a web server, and a browser with `
    + "WebAssembly SIMD.");
});

/** How many letters counting needs to be as good: the marks that this loss has passed. */
/** The marks in a row that a loss has passed: on a small text a longer table may be the worse one. */
function passed(loss) {
  const first = marks.findIndex((mark) => !(loss < mark));
  return first < 0 ? marks.length : first;
}

// ---------------------------------------------------------------- the picture

const W = 640, H = 300, LEFT = 46, RIGHT = 110, TOP = 12, BOTTOM = 28;

function draw() {
  const all = [...marks, ...steps.map(([, loss]) => loss), ...validations.map(([, loss]) => loss)];
  if (!all.length) return;
  const low = Math.min(...all) - 0.1, high = Math.max(...all) + 0.1;
  const x = (step) => LEFT + (W - LEFT - RIGHT) * step / max_steps;
  const y = (loss) => TOP + (H - TOP - BOTTOM) * (high - loss) / (high - low);
  const best = validations.length ? Math.min(...validations.map(([, loss]) => loss)) : Infinity;
  const parts = marks.map((mark, i) => [
    svg("line", { class: best < mark ? "mark passed" : "mark", x1: LEFT, x2: W - RIGHT,
      y1: y(mark), y2: y(mark) }),
    svg("text", { x: W - RIGHT + 6, y: y(mark) + 4 }, `counting ${i + 1}: ${mark.toFixed(2)}`)]).flat();
  parts.push(path("train", steps, x, y), path("val", validations, x, y));
  parts.push(...validations.map(([step, loss]) => svg("circle", { cx: x(step), cy: y(loss), r: 3.5 })));
  for (const loss of [low + 0.1, high - 0.1]) {
    parts.push(svg("text", { x: 6, y: y(loss) + 4 }, loss.toFixed(2)));
  }
  parts.push(svg("text", { x: LEFT, y: H - 8 }, "step 0"));
  parts.push(svg("text", { x: W - RIGHT - 60, y: H - 8 }, `step ${number(max_steps)}`));
  $("curve").replaceChildren(...parts);
  const last = validations.at(-1);
  const so_far = last ? `Exact loss ${last[1].toFixed(3)} at step ${last[0]}, past ${passed(last[1])} marks.`
    : "Nothing is examined yet.";
  const what = `Loss against steps, with ${marks.length} marks of counting letters. ${so_far}`;
  $("curve").setAttribute("aria-label", what);
}

function path(kind, points, x, y) {
  const skip = Math.ceil(points.length / 600) || 1;          // the picture has no more columns
  const d = points.filter((_, i) => i % skip === 0).map(([step, loss], i) =>
    `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(loss).toFixed(1)}`);
  return svg("path", { class: kind, d: d.join("") });
}

function svg(tag, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

worker.postMessage({ type: "look" });
