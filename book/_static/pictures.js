// pictures.js: what the live pictures share: models as they arrive, elements, controls, places.

import { CharTokenizer } from "./tokenizer.js";
import { NGram } from "./ngram.js";
import { Rung, SmallGPT, sum } from "./rungs.js";

// ---- files: each is a script that calls `arrived` (from a file, a browser fetches nothing)

const waiting = new Map(), promised = new Map();
let home = "";

export function arrived(name, data) {
  waiting.get(name)(Uint8Array.from(atob(data), (c) => c.charCodeAt(0)));
}

function bytes(name) {
  return new Promise((resolve, reject) => {
    waiting.set(name, resolve);
    const script = make("script", { src: `${home}models/${name}.js` });
    script.onerror = () => reject(new Error(`${name} is missing`));
    document.head.append(script);
  });
}

/** Promise of what `load` makes, once for each name. */
function once(name, load) {
  if (!promised.has(name)) promised.set(name, load());
  return promised.get(name);
}

/** rungs.json, with a tokenizer for its alphabet. */
export const facts = () => once("facts", async () => {
  const found = JSON.parse(new TextDecoder().decode(await bytes("rungs.json")));
  found.tokenizer = new CharTokenizer(Object.fromEntries(found.chars.map((c, id) => [c, id])));
  return found;
});

/** A rung by its file's name: anything with block_size and forward(ids, look). */
export const rung = (name) => once(name, async () => name === "small_gpt"
  ? SmallGPT.load(async (file) => new Response(await bytes(`small_gpt/${file}`)))
  : Rung.load(await bytes(`${name}.safetensors`), name));

/** Counts of n letters, 1 to 5; all are read from the one table of five. */
export const counts = (n) => once(`counts ${n}`, async () => {
  if (n === 5) return NGram.load((await bytes("ngram5.npz")).buffer);
  const { vocab_size, grams } = await counts(5);
  return Object.assign(Object.create(NGram.prototype), { n, vocab_size, grams: grams.slice(0, n) });
});

// ---- surprise

/** -ln p of the letter `id` under these logits. */
export function surprise(logits, id) {
  const largest = Math.max(...logits);
  return Math.log(sum(logits.map((z) => Math.exp(z - largest)))) + largest - logits[id];
}

/** Nats of each of ids from `from` on. A line longer than the model's window is read in halves of it. */
export function surprises(model, ids, from) {
  if (model.next_probs) {
    return ids.slice(from).map((id, i) => -Math.log(model.next_probs(ids.slice(0, from + i))[id]));
  }
  const T = model.block_size, step = ids.length - from <= T ? T : T >> 1, nats = [];
  for (let start = from; start < ids.length; start += step) {
    const end = Math.min(start + step, ids.length), window = ids.slice(Math.max(0, end - 1 - T), end);
    const logits = model.forward(window.slice(0, -1));
    nats.push(...logits.map((row, i) => surprise(row, window[i + 1])).slice(start - end));
  }
  return nats;
}

// ---- elements

export function make(tag, attributes = {}, ...children) {
  const drawn = /^(svg|g|path|circle|text)$/.test(tag) ? "http://www.w3.org/2000/svg" : null;
  const element = drawn ? document.createElementNS(drawn, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const visible = (text) => text.replaceAll("\n", "\u23CE").replaceAll(" ", "\u2423");
export const named = (letter) => ({ " ": "space", "\n": "new line" }[letter] ?? letter);
export const percent = (p) => p > 0 && p < 0.001 ? "under 0.1%"
  : `${(100 * p).toFixed(p > 0 && p < 0.0995 ? 1 : 0)}%`;

/** A labelled text, of one line or of `rows`; change(text) is called as it is typed. */
export function field(label, value, maxlength, change, rows = 1) {
  const input = make(rows > 1 ? "textarea" : "input", { maxlength, spellcheck: "false" });
  if (rows > 1) input.rows = rows;
  input.value = value;
  input.addEventListener("input", () => change(input.value));
  return make("label", {}, label, input);
}

/** A labelled slider with its number beside it; change(number) is called at each move. */
export function slider(label, min, max, step, value, change) {
  const input = make("input", { type: "range", min, max, step, value }), told = make("output", {}, value);
  input.addEventListener("input", () => {
    told.textContent = input.value;
    change(Number(input.value));
  });
  return make("label", {}, label, input, told);
}

export function tick(label, checked, change) {
  const input = make("input", { type: "checkbox" });
  input.checked = checked;
  input.addEventListener("change", () => change(input.checked));
  return make("label", {}, input, label);
}

export function choice(label, options, change) {
  const select = make("select", {}, ...options.map(([value, text]) => make("option", { value }, text)));
  select.addEventListener("change", () => change(select.value));
  return make("label", {}, label, select);
}

export function button(text, press) {
  const element = make("button", { type: "button" }, text);
  element.addEventListener("click", press);
  return element;
}

/** From paper (0) to the darkest shade (1). */
export const shade = (share) => `color-mix(in oklab, #9a3412 ${Math.round(100 * share)}%, #fffaf5)`;

/** A letter's box: pale where it was expected, dark where it surprised by 8 nats or more. */
export function letterBox(letter, nats) {
  const share = Math.min(nats / 8, 1), ink = share > 0.77 ? "#fff" : "#000";
  const style = `background: ${shade(share)}; color: ${ink}`;
  const title = `${named(letter)}: ${nats.toFixed(2)} nats`;
  return make("span", { class: "letter", style, title }, visible(letter));
}

/** Bars as a table, so that a screen reader reads the same. rows: [name, share of 0..1, text] */
export function bars(caption, rows) {
  const longest = Math.max(...rows.map((row) => row[1]), 1e-9);
  return make("table", { class: "bars" }, make("caption", {}, caption), ...rows.map(([name, share, text]) =>
    make("tr", {}, make("th", { scope: "row" }, name),
      make("td", {}, make("i", { style: `width: ${75 * share / longest}%` }), text))));
}

// ---- places

/** Fill each <div data-live="NAME"> (or NAME-PART) with its picture, once it is near the screen. */
export function start(folder) {
  home = folder;
  const near = new IntersectionObserver((entries) => {
    for (const { target } of entries.filter((entry) => entry.isIntersecting)) {
      near.unobserve(target);
      fill(target);
    }
  }, { rootMargin: "600px" });
  document.querySelectorAll("[data-live]").forEach((place) => near.observe(place));
}

async function fill(place) {
  const [name, part] = place.dataset.live.split("-"), picture = LIVE[`live_${name}`];
  if (!picture) return;
  try {
    const box = make("div", { role: "group", "aria-label": picture.title });
    await picture.draw(box, part);
    const { date, corpus, rungs } = await facts(), own = rungs.some(({ file }) => file === "small_gpt");
    const note = make("p", { class: "live-note" },
      `Runs in your browser, on the models of Build (${corpus.name}, trained ${date}`
      + `${own ? "" : "; the small GPT is the one that the project keeps in space/model"}).`);
    place.append(make("p", { class: "live-title" }, picture.title), box, note);
    place.classList.add("on");
    place.classList.toggle("replaces", Boolean(picture.replaces));
  } catch (error) {
    console.warn(`${name}: ${error.message}`);               // the picture of the notebook stays
  }
}
