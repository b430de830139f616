// shared.js: what the page's files have in common: the state, words for letters and numbers, and making
// elements.

export const $ = (id) => document.getElementById(id);

/**
 * The page's state. pieces[i], nats[i], counts[i]: a letter and what it cost the model and the 5-gram (null:
 * not known).
 */
export const app = {
  worker: null,
  about: null,
  place: null, // where the model's files come from, as fetching.js takes it
  site: {},
  state: "loading", // state: loading, ready, writing, failed
  pieces: [],
  nats: [],
  counts: [],
  n_prompt: 0,
  chosen: -1,
  used: { seed: 1, temperature: 0.7, top_k: 0, max: 300 }, // how the text on the page was written
};

export function set_state(state) {
  document.body.dataset.state = app.state = state;
}

const GLYPHS = { " ": "\u2423", "\n": "\u23CE", "\t": "\u21E5" };
const NAMES = { " ": "space", "\n": "new line", "\t": "tab" };
const NUMBERS = [
  "no",
  "one",
  "two",
  "three",
  "four",
  "five",
  "six",
  "seven",
  "eight",
  "nine",
  "ten",
  "eleven",
  "twelve",
];

const FROM_THE_RIGHT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/; // Hebrew, Arabic and their kin

/** A piece of text as a person would call it: 'e', space, new line. */
export const name_of = (piece) => NAMES[piece] ?? `\u2018${isolated(glyphs(piece))}\u2019`;
export const glyphs = (text) => [...text].map((c) => GLYPHS[c] ?? c).join("");
/** A letter that is read from the right must not turn the sentence around it. */
const isolated = (text) => (FROM_THE_RIGHT.test(text) ? `\u2068${text}\u2069` : text);

export const percent = (p) =>
  p >= 0.995
    ? "over 99%"
    : p >= 0.0995
      ? `${(100 * p).toFixed(0)}%`
      : p >= 0.001
        ? `${(100 * p).toFixed(1)}%`
        : "under 0.1%";
export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
export const plural = (n, unit) => `${n.toLocaleString("en")} ${unit}${n === 1 ? "" : "s"}`;
export const in_words = (n, unit) => `${NUMBERS[n] ?? n} ${unit}${n === 1 ? "" : "s"}`;
export const mean = (numbers) => numbers.reduce((a, b) => a + b, 0) / numbers.length;

/** An element with text and attributes; text is never read as HTML. */
export function make(tag, text = "", attributes = {}, ...children) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export function status(message) {
  if ($("status").textContent !== message) $("status").textContent = message;
}

export function problem(message) {
  $("problem").hidden = !message;
  $("said").textContent = message;
  $("retry").hidden = true;
}

/** What the model learned from, as a friend would call it; "" where nobody wrote it down. */
export function learned_text(card) {
  const name = card?.corpus?.name ?? "";
  return { tinyshakespeare: "Shakespeare", standin: "a made-up text" }[name] ?? name;
}

/** " from what four other models would guess", where their probabilities were its targets; "" otherwise. */
export function taught_by(card) {
  const named = card?.config?.teacher;
  const n = typeof named === "string" ? named.split(",").filter(Boolean).length : 0;
  return n ? ` from what ${in_words(n, "other model")} would guess` : "";
}
