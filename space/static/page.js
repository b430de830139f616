// page.js: what the visitor touches. The model works in worker.js; this file sends it messages and draws what comes back.

const $ = (id) => document.getElementById(id);
const EXAMPLES = ["ROMEO:\n", "To be, or not to be", "KATHARINA:\nWhy, sir, ", "The moon", "Enough, you fool"];
const GLYPHS = { " ": "\u2423", "\n": "\u23CE", "\t": "\u21E5" };
const NAMES = { " ": "space", "\n": "new line", "\t": "tab" };
const FULL_SURPRISE = 6;                                     // nats drawn at full height: one chance in 400
const LARGE = 30e6;                                          // bytes that a phone should not fetch unasked

let worker, about = null, site = {}, loading = false;
let job = 0, used_seed = 0, writing = false, pending = false;              // pending: Generate was pressed before the model was here
let pieces = [], nats = [], n_seed = 0, spoken = 0;
let chosen = -1, ask = 0, inside = null, picked_head = false;

// ---------------------------------------------------------------- words

/** A piece of text as a person would call it: 'e', space, new line. */
const name_of = (piece) => NAMES[piece] ?? `\u2018${[...piece].map((c) => GLYPHS[c] ?? c).join("")}\u2019`;

const percent = (p) => p >= 0.995 ? "over 99%" : p >= 0.0995 ? `${(100 * p).toFixed(0)}%` : p >= 0.001 ? `${(100 * p).toFixed(1)}%` : "under 0.1%";
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
const plural = (n, unit) => `${n.toLocaleString("en")} ${unit}${n === 1 ? "" : "s"}`;

/** An element with text and children; text is never read as HTML. */
function make(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function status(message) { if ($("status").textContent !== message) $("status").textContent = message; }

function problem(message) {
  $("problem").hidden = !message;
  $("problem").textContent = message;
}

// ---------------------------------------------------------------- loading

async function start() {
  for (const example of EXAMPLES) {
    const button = make("button", example.trim().replace(/\s+/g, " "), { type: "button" });
    button.onclick = () => { $("seed_text").value = example; $("seed_text").focus(); };
    $("examples").append(button);
  }
  site = await fetch("site.json").then((response) => (response.ok ? response.json() : {})).catch(() => ({}));
  if (site.title) document.title = $("title").textContent = site.title;
  for (const [text, address] of site.links ?? []) $("links").append(make("a", text, { href: address, target: "_blank", rel: "noopener" }));
  if (site.bytes > LARGE) {
    status(`The model is ${megabytes(site.bytes)}. It is fetched when you press Generate.`);
    $("go").disabled = false;
  } else load();
}

function load() {
  loading = true;
  status("Fetching the model.");
  worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  worker.onmessage = ({ data }) => on[data.type](data);
  worker.onerror = (event) => { event.preventDefault(); on.failed({ what: "load", message: "The page's own files could not be loaded: reload the page." }); };
  worker.postMessage({ type: "load", kernels: new URLSearchParams(location.search).get("kernels") ?? "auto" });
}

/** The model in one line, from its measured numbers only. */
function describe({ parameters, bytes, card }) {
  const size = `${(parameters / 1e6).toFixed(parameters < 1e7 ? 2 : 1)} million parameters, ${megabytes(bytes)}`;
  const loss = card?.val_loss_char ?? card?.val_loss, counts = card?.ngram5_val_loss;
  const what = card?.corpus?.name === "standin" ? "stand-in text" : "text";
  $("card").replaceChildren(size);
  if (Number.isFinite(loss)) $("card").append(". ", make("b", loss.toFixed(3)), ` nats per character on ${what} it never saw`);
  if (Number.isFinite(loss) && Number.isFinite(counts)) $("card").append(" (a table of 5-letter counts: ", make("b", counts.toFixed(3)), ")");
  $("card").append(". It runs on this device: nothing you type leaves it.");
}

const on = {
  progress({ done, total }) {
    $("bar").hidden = false;
    $("progress").value = total ? done / total : 0;
    $("fetched").textContent = `${megabytes(done)} of ${megabytes(total)}`;
  },

  ready(message) {
    about = message;
    loading = false;
    $("bar").hidden = true;
    describe(about);
    fill_heads();
    $("table_key").hidden = !about.has_table;
    $("go").disabled = false;
    status("Ready.");
    if (pending) generate();
  },

  seed(message) {
    if (message.job !== job) return;
    show_dropped(message.dropped);
    n_seed = spoken = message.pieces.length;
    add(message.pieces.map((piece) => ({ piece, nats: null })));
  },

  reading({ job: from, read, of }) {
    if (from === job) status(`Reading the text again: ${read} of ${of}.`);
  },

  tokens({ job: from, items, seconds, count }) {
    if (from !== job) return;
    add(items);
    speak();
    const speed = seconds > 0 ? `, ${Math.round(count / seconds).toLocaleString("en")} tok/s computed` : "";
    status(`${plural(count, "token")}${speed}, random seed ${used_seed}.`);
  },

  done({ job: from, stopped, tokens }) {
    if (from !== job) return;
    set_writing(false);
    const speed = /, [\d,]+ tok\/s computed/.exec($("status").textContent)?.[0] ?? "";
    status(`${stopped ? "Stopped after" : "Done:"} ${plural(tokens, "token")}${speed}, random seed ${used_seed}.`);
    speak(true);
  },

  inside(message) {
    if (message.ask === ask) { inside = message; draw_inside(); }
  },

  failed({ what, message }) {
    problem(message);
    set_writing(false);
    if (what !== "load") return;
    $("bar").hidden = true;
    $("go").disabled = true;
    status("There is no model to write with.");
  },
};

// ---------------------------------------------------------------- writing

function generate() {
  if (!about) {
    pending = true;
    $("go").disabled = true;
    if (!loading) load();
    return;
  }
  pending = false;
  clear();
  problem("");
  set_writing(true);
  status("Writing.");
  const number = (id, otherwise) => ($(id).value === "" ? otherwise : Math.trunc(Number($(id).value)));
  used_seed = number("seed", crypto.getRandomValues(new Uint32Array(1))[0] % 1e6);
  worker.postMessage({ type: "generate", job: ++job, text: $("seed_text").value, max: number("max", 100),
    temperature: Number($("temperature").value), top_k: number("top_k", 0), seed: used_seed, fast: $("fast").checked });
}

/** The page rests at once; the model ends with the token that it is at. */
function stop() {
  pending = false;
  if (!writing) return;
  worker.postMessage({ type: "stop" });
  set_writing(false);
}

function set_writing(now) {
  writing = now;
  document.body.classList.toggle("writing", now);
  $("stop").disabled = !now;
  $("go").disabled = now || (!about && loading);
  $("go").textContent = now ? "Writing" : "Generate";
  $("copy").hidden = now || !pieces.length;
}

function clear() {
  [pieces, nats, n_seed, spoken] = [[], [], 0, 0];
  $("text").replaceChildren();
  $("empty").hidden = true;
  $("spoken").textContent = "";
  choose(-1);
}

/** Put new characters on the page; it scrolls along as long as the visitor has not scrolled up. */
function add(items) {
  const paper = $("paper"), along = paper.scrollHeight - paper.scrollTop - paper.clientHeight < 60;
  const fragment = document.createDocumentFragment();
  for (const item of items) {
    const newline = item.piece.includes("\n");
    const span = make("span", item.piece, { class: `ch${item.nats === null ? " seed" : ""}${newline ? " nl" : ""}` });
    if (item.nats !== null) span.style.setProperty("--h", `${Math.min(100, (100 * item.nats) / FULL_SURPRISE).toFixed(0)}%`);
    fragment.append(span);
    pieces.push(item.piece);
    nats.push(item.nats);
  }
  $("text").append(fragment);
  $("text").setAttribute("aria-valuemax", pieces.length - 1);
  if (along) paper.scrollTop = paper.scrollHeight;
}

/** A screen reader hears whole lines, not letters. */
function speak(all = false) {
  const end = all ? pieces.length : pieces.findLastIndex((piece) => piece.includes("\n")) + 1;
  if (end <= spoken) return;
  $("spoken").append(make("p", pieces.slice(spoken, end).join("")));
  spoken = end;
  while ($("spoken").children.length > 5) $("spoken").firstChild.remove();
}

function show_dropped(dropped) {
  $("dropped").hidden = !dropped.length;
  const shown = (c) => (/^[\p{L}\p{N}\p{P}\p{S}]$/u.test(c) ? c : `U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`);
  const more = dropped.length > 12 ? ` and ${dropped.length - 12} more` : "";
  $("dropped").textContent = `Left out, because the model never saw ${dropped.length === 1 ? "it" : "them"} in training: `
    + `${dropped.slice(0, 12).map(shown).join(", ")}${more}.`;
}

// ---------------------------------------------------------------- look inside

/** Look at one character of the text; -1 looks at none. */
function choose(at) {
  $("text").children[chosen]?.classList.remove("at");
  chosen = at;
  for (const span of $("text").querySelectorAll(".seen")) span.classList.remove("seen");
  $("arcs").replaceChildren();
  document.body.classList.toggle("inspecting", at >= 0);
  $("inside").hidden ||= at < 0;
  if (at < 0) { inside = null; return; }
  const span = $("text").children[at];
  span.classList.add("at");
  span.scrollIntoView({ block: "nearest" });
  $("text").setAttribute("aria-valuenow", at);
  worker.postMessage({ type: "inspect", at, ask: ++ask });
}

/** The chances of the likeliest ids at one temperature, over all ids. */
function chances(temperature) {
  const { logits } = inside, max = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const sum = logits.reduce((total, z) => total + Math.exp((z - max) / temperature), 0);
  return (id) => Math.exp((logits[id] - max) / temperature) / sum;
}

function draw_inside() {
  $("inside").hidden = false;
  const { at, id, table } = inside, piece = pieces[at];
  const before = pieces.slice(Math.max(0, at - 24), at).join("");
  const p = inside.logits ? Math.exp(-inside.nats) : null;
  const came = $("came");
  if (p === null) {
    came.replaceChildren(`${name_of(piece)} is the first: there is nothing before it, so the model did not guess.`);
  } else {
    came.replaceChildren("After ", make("q", (at > 24 ? "\u2026" : "") + [...before].map((c) => GLYPHS[c] ?? c).join("")), " came ",
      make("b", name_of(piece)), `. The model gave it ${percent(p)}: a surprise of `, make("b", `${inside.nats.toFixed(2)} nats`),
      table ? `. The 5-gram gave it ${percent(table[id])}, ${(-Math.log(table[id])).toFixed(2)} nats.` : ".");
  }
  $("text").setAttribute("aria-valuetext", `${name_of(piece)}, ${p === null ? "no guess" : percent(p)}`);
  draw_bars();
  draw_heads();
  draw_attention();
}

function draw_bars() {
  const temperature = Number($("reshape").value), rows = [];
  $("reshape_out").textContent = temperature.toFixed(2);
  if (inside?.logits) {
    const chance = chances(temperature);
    for (const { id, piece } of inside.names.slice(0, 8)) {
      const name = make("span", name_of(piece), { class: "char" });
      if (id === inside.id) name.append(make("b", "\u25C0 came"));
      const row = make("li");
      row.append(name, lanes(chance(id), inside.table?.[id]));
      rows.push(row);
    }
    const others = 1 - inside.names.slice(0, 8).reduce((sum, { id }) => sum + chance(id), 0);
    $("reshape_note").textContent = `The other ${inside.logits.length - rows.length} share ${percent(Math.max(0, others))}. `
      + `At 1 these are the model's own odds; this text was sampled at ${Number($("temperature").value).toFixed(2)}.`;
  }
  $("bars").replaceChildren(...rows);
}

function lanes(p, p_table) {
  const both = make("div");
  for (const [kind, chance] of [["model", p], ["table", p_table]]) {
    if (chance === undefined) continue;
    const lane = make("div", "", { class: "lane" }), bar = make("i", "", { class: kind, "aria-hidden": "true" });
    bar.style.setProperty("--w", `${(100 * chance).toFixed(1)}%`);
    lane.append(bar, make("span", `${kind === "table" ? "5-gram " : ""}${percent(chance)}`));
    both.append(lane);
  }
  return both;
}

function fill_heads() {
  const option = (value, text) => make("option", text, { value });
  $("layer").replaceChildren(...Array.from({ length: about.n_layer }, (_, l) => option(l, l + 1)));
  $("head").replaceChildren(...Array.from({ length: about.n_head }, (_, h) => option(h, h + 1)));
  $("heads").style.setProperty("--n", about.n_head);
}

const pattern_of = (layer, head) => inside.patterns[layer * about.n_head + head];

/** A small picture of each head; the first time, the head that looks at one character the hardest is picked. */
function draw_heads() {
  if (!inside.patterns.length) { $("heads").replaceChildren(); return; }
  if (!picked_head) {
    const peaks = inside.patterns.map((pattern) => Math.max(0, ...pattern.subarray(1, -1)));
    const best = peaks.indexOf(Math.max(...peaks));
    [$("layer").value, $("head").value] = [Math.floor(best / about.n_head), best % about.n_head];
    picked_head = true;
  }
  $("heads").innerHTML = inside.patterns.map((pattern) =>
    `<svg viewBox="0 0 60 20" preserveAspectRatio="none"><path d="${outline(pattern)}"/></svg>`).join("");
  [...$("heads").children].forEach((svg, i) => {
    svg.onclick = () => {
      [$("layer").value, $("head").value] = [Math.floor(i / about.n_head), i % about.n_head];
      draw_attention();
    };
  });
}

/** One pattern as an area 60 wide and 20 high, as tall as its peak: the largest weight in each of 60 places. */
function outline(pattern) {
  const heights = Array(60).fill(0);
  pattern.forEach((weight, i) => {
    const place = Math.min(59, Math.floor((60 * (i + 60 - Math.min(60, pattern.length))) / Math.max(60, pattern.length)));
    heights[place] = Math.max(heights[place], weight);
  });
  const peak = Math.max(...heights);
  return `M0 20${heights.map((height, x) => `V${(20 - (18 * height) / peak).toFixed(1)}H${x + 1}`).join("")}V20Z`;
}

function draw_attention() {
  for (const span of $("text").querySelectorAll(".seen")) span.classList.remove("seen");
  $("arcs").replaceChildren();
  if (!inside?.patterns.length) { $("looked").textContent = "Nothing to look at yet."; return; }
  const [layer, head] = [Number($("layer").value), Number($("head").value)], pattern = pattern_of(layer, head);
  [...$("heads").children].forEach((svg, i) => svg.classList.toggle("at", i === layer * about.n_head + head));
  const strongest = [...pattern.keys()].sort((a, b) => pattern[b] - pattern[a]).filter((i) => pattern[i] > 0.02).slice(0, 12);
  const last = pattern.length - 1;
  const words = strongest.slice(0, 4).map((i) => `${name_of(pieces[inside.start + i])}`
    + `${i === last ? " just before" : `, ${last - i + 1} back`} (${percent(pattern[i])})`);
  $("looked").textContent = `To guess ${name_of(pieces[inside.at])}, head ${head + 1} of layer ${layer + 1} looked most at ${words.join("; ")}.`;
  for (const i of strongest) arc(inside.start + i, inside.at, pattern[i]);
}

/** An arc over the text from the character that was guessed to one that a head looked at; wider is more. */
function arc(from, to, weight) {
  const page = $("page").getBoundingClientRect(), middle = (i) => {
    const rect = $("text").children[i].getClientRects()[0] ?? $("text").getBoundingClientRect();
    return { x: rect.left + rect.width / 2 - page.left, y: rect.top - page.top + 3 };
  };
  $("text").children[from].classList.add("seen");
  const a = middle(to), b = middle(from);
  const rise = a.y === b.y ? Math.min(26, 7 + Math.abs(a.x - b.x) / 6) : 16;
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", `M${a.x} ${a.y}C${a.x} ${a.y - rise} ${b.x} ${b.y - rise} ${b.x} ${b.y}`);
  path.setAttribute("stroke-width", (1 + 3 * weight).toFixed(2));
  path.setAttribute("opacity", (0.3 + 0.7 * weight).toFixed(2));
  $("arcs").append(path);
}

// ---------------------------------------------------------------- what the visitor does

$("ask").onsubmit = (event) => { event.preventDefault(); if (!writing) generate(); };
$("ask").addEventListener("invalid", () => { $("settings").open = true; }, true);      // a browser cannot point at what is folded
$("stop").onclick = stop;
$("seed_text").onkeydown = (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit(); };
document.onkeydown = (event) => { if (event.key === "Escape") stop(); };
$("temperature").oninput = () => { $("temperature_out").textContent = Number($("temperature").value).toFixed(2); };
$("shade").onchange = () => $("text").classList.toggle("shade", $("shade").checked);
$("text").classList.add("shade");
$("reshape").oninput = draw_bars;
$("layer").onchange = $("head").onchange = () => { picked_head = true; draw_attention(); };
addEventListener("resize", () => { if (inside) draw_attention(); });

$("text").onclick = (event) => {
  const span = event.target.closest(".ch");
  if (span) choose([...$("text").children].indexOf(span));
};
$("text").onkeydown = (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -Infinity, End: Infinity }[event.key];
  if (step === undefined || !pieces.length) return;
  event.preventDefault();
  const to = chosen < 0 ? n_seed : chosen + step;            // the first key shows the first character that was written
  choose(Math.min(pieces.length - 1, Math.max(0, to)));
};
$("copy").onclick = async () => {
  await navigator.clipboard.writeText(pieces.join("")).catch(() => getSelection().selectAllChildren($("text")));
  $("copy").textContent = "Copied";
  setTimeout(() => { $("copy").textContent = "Copy text"; }, 1500);
};

if (matchMedia("(max-width: 52rem)").matches) $("settings").open = false;     // a phone shows the text first
start();
