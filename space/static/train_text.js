// train_text.js: a reader's text for train.js: alphabet, split, and what counting scores. As data/corpus.py
// and data/ngram.py.

import { generator } from "./gpt2.js";

export const MOST_BYTES = 20e6;
const MOST_SYMBOLS = 1000, FEWEST = 1000;

const refuse = (sentence) => { throw new Error(sentence); };

/** The text of a file's bytes (Uint8Array). Throws one sentence for what nobody can learn from. */
export function read_text(bytes) {
  if (bytes.length > MOST_BYTES) refuse(`The text has more than ${MOST_BYTES / 1e6} MB: use a part of it.`);
  let text;
  try { text = new TextDecoder("utf-8", { fatal: true }).decode(bytes); } catch {
    refuse("The file is not UTF-8 text: save it as UTF-8, or choose another.");
  }
  return text.replaceAll("\r\n", "\n").replaceAll("\0", "");
}

/**
 * { chars, train, val }: the alphabet in order, and the ids (Int32Array) of the first 90% and of the rest.
 */
export function corpus_from_text(text) {
  const symbols = [...text].filter((c) => !/^[\ud800-\udfff]$/.test(c));     // no half of a surrogate pair
  const chars = [...new Set(symbols)].sort((a, b) => a.codePointAt(0) - b.codePointAt(0));
  if (symbols.length < FEWEST) refuse(`The text has ${symbols.length} characters: bring at least 1,000.`);
  if (chars.length < 2) refuse("The text has one symbol only: there is nothing to learn.");
  if (chars.length > MOST_SYMBOLS) {
    refuse(`The text has ${chars.length.toLocaleString("en")} different symbols, and this page learns up to `
      + `${MOST_SYMBOLS.toLocaleString("en")}: use a text in fewer.`);
  }
  const id = new Map(chars.map((c, i) => [c, i])), ids = Int32Array.from(symbols, (c) => id.get(c));
  const cut = Math.floor(0.9 * ids.length);
  return { chars, train: ids.subarray(0, cut), val: ids.subarray(cut) };
}

/**
 * (x, y): B windows of ids (x) and the same one symbol later (y), B * T ids each. A pure function of (seed,
 * step), as shuffled_batch in data/batches.py: each window once an epoch, in a fresh order and from a fresh
 * offset.
 */
export function get_batch(ids, { B, config: { block_size: T } }, seed, step) {
  const x = new Int32Array(B * T), y = new Int32Array(B * T), windows = Math.floor((ids.length - T) / T);
  for (let b = 0; b < B; b++) {
    const place = step * B + b, epoch = Math.floor(place / windows);
    const start = epoch_starts(windows, T, seed, epoch)[place % windows];
    x.set(ids.subarray(start, start + T), b * T);
    y.set(ids.subarray(start + 1, start + T + 1), b * T);
  }
  return [x, y];
}

let drawn = { key: "", starts: null };                       // the epoch that was asked for last

function epoch_starts(windows, T, seed, epoch) {
  const key = `${windows} ${T} ${seed} ${epoch}`;
  if (drawn.key === key) return drawn.starts;
  const random = generator(Math.imul(seed, 7919) + epoch), offset = Math.floor(random() * T);
  const starts = Int32Array.from({ length: windows }, (_, i) => offset + T * i);
  for (let i = windows - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [starts[i], starts[j]] = [starts[j], starts[i]];
  }
  drawn = { key, starts };
  return starts;
}

/** Exact loss of counting 1 .. longest letters, nats a character: add one up to 2, Witten-Bell from 3 on. */
export function marks(train, val, V, longest = 5) {
  const grams = [], totals = [], types = [];   // by order k - 1: counts of k symbols, and of what begins them
  for (let k = 1; k <= longest && V ** k < Number.MAX_SAFE_INTEGER; k++) {
    const count = new Map(), total = new Map(), kinds = new Map();
    codes(train, k, V, (code) => count.set(code, (count.get(code) ?? 0) + 1));
    for (const [code, n] of count) {
      const start = Math.floor(code / V);
      total.set(start, (total.get(start) ?? 0) + n);
      kinds.set(start, (kinds.get(start) ?? 0) + 1);
    }
    grams.push(count); totals.push(total); types.push(kinds);
  }
  const sums = grams.map(() => 0);
  for (let i = 1; i < val.length; i++) {
    let p = 1 / V;
    for (let k = 1, code = 0, size = 1; k <= grams.length && k <= i + 1; k++, size *= V) {
      code += val[i - k + 1] * size;                       // the last k symbols, the newest as the last digit
      const start = Math.floor(code / V), seen = grams[k - 1].get(code) ?? 0;
      const total = totals[k - 1].get(start) ?? 0;
      if (total) { const kinds = types[k - 1].get(start); p = (seen + kinds * p) / (total + kinds); }
      if (k <= 2) sums[k - 1] -= Math.log((seen + 1) / (total + V));
      else sums[k - 1] -= Math.log(p);
    }
    for (let k = i + 2; k <= grams.length; k++) sums[k - 1] -= Math.log(k > 2 ? p : 1 / V);
  }
  return sums.map((sum) => sum / (val.length - 1));
}

function codes(ids, k, V, put) {
  const size = V ** (k - 1);
  for (let i = 0, code = 0; i < ids.length; i++) {
    code = (code % size) * V + ids[i];
    if (i >= k - 1) put(code);
  }
}
