// train_page.js: the page around train_worker.js. Everything that computes is in the worker.

const $ = (id) => document.getElementById(id);
const worker = new Worker("train_worker.js", { type: "module" });
const speeds = {};
let facts = null, marks = [], steps = [], validations = [], max_steps = 1, running = false, paused = false;

const number = (n) => n.toLocaleString("en");
const visible = (c) => ({ "\n": "⏎", " ": "␣", "\t": "⇥" })[c] ?? c;

// ---------------------------------------------------------------- a text

function give(bytes, name) {
  if (running) return say("A model is in training: stop it before you choose another text.");
  problem("");
  $("go").disabled = true;
  facts = null; marks = [];
  for (const size of Object.keys(speeds)) delete speeds[size];
  say(`Reading ${name} and counting its letters.`);
  worker.postMessage({ type: "read", bytes, name }, [bytes]);
}

$("file").addEventListener("change", async ({ target }) => { const [file] = target.files; if (file) give(await file.arrayBuffer(), file.name); });
$("use").addEventListener("click", () => give(new TextEncoder().encode($("paste").value).buffer, "a pasted text"));
for (const kind of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(kind, async (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    const file = kind === "drop" ? event.dataTransfer.files[0] : null;
    if (file) give(await file.arrayBuffer(), file.name);
  });
}

// ---------------------------------------------------------------- the run

$("go").addEventListener("click", () => {
  const minutes = Number($("minutes").value);
  if (!(minutes > 0 && minutes <= 240)) return problem("Minutes must be a number above 0 and at most 240.");
  problem("");
  steps = []; validations = []; running = true; paused = false;
  $("samples").replaceChildren();
  $("files").replaceChildren();
  buttons();
  say("Measuring this device.");
  worker.postMessage({ type: "start", size: $("size").value, minutes });
});
$("pause").addEventListener("click", () => { paused = !paused; worker.postMessage({ type: paused ? "pause" : "resume" }); buttons(); if (paused) say("Paused."); });
$("stop").addEventListener("click", () => { paused = false; worker.postMessage({ type: "stop" }); say("Stopping after an examination."); });
$("folder").addEventListener("click", () => worker.postMessage({ type: "folder" }));
for (const id of ["size", "minutes"]) $(id).addEventListener("input", plan);
addEventListener("beforeunload", (event) => { if (running) event.preventDefault(); });

function buttons() {
  $("go").disabled = running || !facts || !speeds.medium;
  $("pause").disabled = $("stop").disabled = !running;
  $("pause").textContent = paused ? "Go on" : "Pause";
  $("folder").disabled = running || !validations.length;
}

function plan() {
  const seconds = speeds[$("size").value], minutes = Number($("minutes").value);
  $("plan").textContent = seconds && minutes > 0
    ? `On this device a step takes ${(1000 * seconds).toFixed(0)} ms: about ${number(Math.round(60 * minutes / seconds))} steps.` : "";
}

function say(text) { $("status").textContent = text; }
function problem(text) { $("problem").textContent = text; $("problem").hidden = !text; }

// ---------------------------------------------------------------- what the worker tells

const on = {
  text({ name, symbols, chars, train, val }) {
    facts = { name, chars };
    $("facts").textContent = `${name}: ${number(symbols)} characters, ${chars.length} different ones. It learns from the first ${number(train)} and is examined on the last ${number(val)}.`;
    $("alphabet").textContent = chars.slice(0, 300).map(visible).join(" ");
  },
  marks(message) { marks = message.marks; draw(); say("Measuring this device."); },
  speed({ size, seconds }) {
    speeds[size] = seconds;
    plan();
    if (speeds.medium) { say("Ready: press Train."); buttons(); }
  },
  begun(message) {
    max_steps = message.max_steps;
    say(`${number(message.parameters)} parameters, ${number(max_steps)} steps, ${(message.bytes / 1e6).toFixed(0)} MB.`);
  },
  steps({ items, seconds }) {
    steps.push(...items);
    if (items.length && !paused) say(`Step ${number(steps.at(-1)[0])} of ${number(max_steps)}, ${(seconds / 60).toFixed(1)} minutes, loss of the batch ${steps.at(-1)[1].toFixed(3)}.`);
    draw();
  },
  validation({ step, val_loss }) { validations.push([step, val_loss]); draw(); },
  sample({ step, text }) {
    const box = document.createElement("details"), title = document.createElement("summary"), pre = document.createElement("pre");
    const [, loss] = validations.at(-1);
    title.textContent = `Step ${number(step)}: ${loss.toFixed(3)} nats a character${passed(loss) ? `, past counting ${passed(loss)}` : ""}`;
    pre.textContent = text;
    box.open = true;
    if ($("samples").firstElementChild) $("samples").firstElementChild.open = false;
    box.append(title, pre);
    $("samples").prepend(box);
  },
  done({ step, seconds, val_loss }) {
    running = false;
    buttons();
    const how = passed(val_loss) ? `better than counting ${passed(val_loss)} letter${passed(val_loss) > 1 ? "s" : ""}` : "counting letters is still better";
    say(`Done: ${number(step)} steps in ${(seconds / 60).toFixed(1)} minutes. Exact loss on the unseen tenth: ${val_loss.toFixed(3)} nats a character, ${how}.`);
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
worker.addEventListener("error", (event) => problem(`The training could not be started (${event.message || "no reason given"}): this page needs a browser with WebAssembly SIMD and a web server.`));

/** How many letters counting needs to be as good: the marks that this loss has passed. */
const passed = (loss) => marks.filter((mark) => loss < mark).length;

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
    svg("line", { class: best < mark ? "mark passed" : "mark", x1: LEFT, x2: W - RIGHT, y1: y(mark), y2: y(mark) }),
    svg("text", { x: W - RIGHT + 6, y: y(mark) + 4 }, `counting ${i + 1}: ${mark.toFixed(2)}`)]).flat();
  parts.push(path("train", steps, x, y), path("val", validations, x, y));
  parts.push(...validations.map(([step, loss]) => svg("circle", { cx: x(step), cy: y(loss), r: 3.5 })));
  for (const loss of [low + 0.1, high - 0.1]) parts.push(svg("text", { x: 6, y: y(loss) + 4 }, loss.toFixed(2)));
  parts.push(svg("text", { x: LEFT, y: H - 8 }, "step 0"), svg("text", { x: W - RIGHT - 60, y: H - 8 }, `step ${number(max_steps)}`));
  $("curve").replaceChildren(...parts);
  const last = validations.at(-1);
  $("curve").setAttribute("aria-label", `Loss against steps, with ${marks.length} marks of counting letters. ` +
    (last ? `Exact loss ${last[1].toFixed(3)} at step ${last[0]}, past ${passed(last[1])} marks.` : "Nothing is examined yet."));
}

function path(kind, points, x, y) {
  const skip = Math.ceil(points.length / 600) || 1;          // more than the picture has columns would only slow it down
  const d = points.filter((_, i) => i % skip === 0).map(([step, loss], i) => `${i ? "L" : "M"}${x(step).toFixed(1)} ${y(loss).toFixed(1)}`);
  return svg("path", { class: kind, d: d.join("") });
}

function svg(tag, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}
