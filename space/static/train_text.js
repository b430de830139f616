// train_text.js: a reader's text for train.js: alphabet, split, and what counting scores. As data/corpus.py and data/ngram.py.

const MOST_BYTES = 20e6, MOST_SYMBOLS = 1000, FEWEST = 1000;

/** The text of a file's bytes (Uint8Array). Throws one sentence for what nobody can learn from. */
export function read_text(bytes) {
  if (bytes.length > MOST_BYTES) throw new Error(`The text has ${(bytes.length / 1e6).toFixed(0)} MB, and this page reads up to ${MOST_BYTES / 1e6}: use a part of it.`);
  let text;
  try { text = new TextDecoder("utf-8", { fatal: true }).decode(bytes); } catch {
    throw new Error("The file is not UTF-8 text: save it as UTF-8, or choose another.");
  }
  return text.replaceAll("\r\n", "\n").replaceAll("\0", "");
}

/** { chars, train, val }: the alphabet in order, and the ids (Int32Array) of the first 90% and of the rest. */
export function corpus_from_text(text, block_size = 64) {
  const symbols = [...text].filter((c) => !/^[\ud800-\udfff]$/.test(c));      // half a surrogate pair cannot be saved
  const chars = [...new Set(symbols)].sort((a, b) => a.codePointAt(0) - b.codePointAt(0));
  if (symbols.length < FEWEST) throw new Error(`The text has ${symbols.length} characters: bring at least ${FEWEST.toLocaleString("en")}.`);
  if (chars.length < 2) throw new Error("The text has one symbol only: there is nothing to learn.");
  if (chars.length > MOST_SYMBOLS) throw new Error(`The text has ${chars.length.toLocaleString("en")} different symbols, and this page learns up to ${MOST_SYMBOLS.toLocaleString("en")}: use a text in fewer.`);
  const id = new Map(chars.map((c, i) => [c, i])), ids = Int32Array.from(symbols, (c) => id.get(c));
  const cut = Math.floor(0.9 * ids.length);
  if (cut < block_size + 1) throw new Error("The text is shorter than one window of the model: bring more of it.");
  return { chars, train: ids.subarray(0, cut), val: ids.subarray(cut) };
}

/** Exact loss of counting 1 .. longest letters, nats a character: add one up to 2 letters, Witten-Bell from 3 on. */
export function marks(train, val, V, longest = 5) {
  const grams = [], totals = [], types = [];                 // by order k - 1: counts of k symbols, and of what begins them
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
      code += val[i - k + 1] * size;                         // the last k symbols, the newest as the last digit
      const start = Math.floor(code / V), seen = grams[k - 1].get(code) ?? 0, total = totals[k - 1].get(start) ?? 0;
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
