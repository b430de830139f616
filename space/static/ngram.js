// ngram.js: the 5-gram beside the model, read from ngram5.npz as data/ngram.py saves it, with the same
// formula.

/** Counts of orders 1 to n. next_probs is Witten-Bell's mix; n = 1 and 2 add one to every count. */
export class NGram {
  constructor(n, vocab_size, codes, counts, head) {
    this.n = n;
    this.vocab_size = vocab_size;
    this.grams = [{ codes, counts }]; // order k at k - 1: sorted codes and their counts
    for (let k = n - 1; k >= 1; k--) this.grams.unshift(shorter(this.grams[0], k, vocab_size, head));
  }

  /** (V) probabilities of the next symbol behind `context`, ids of any length. */
  next_probs(context) {
    const V = this.vocab_size;
    let p = new Float64Array(V).fill(1 / V);
    for (let k = 1; k <= Math.min(this.n, context.length + 1); k++) {
      const code = context.slice(context.length - k + 1).reduce((c, id) => c * V + id, 0);
      const { count, total, types } = this.row(k, code);
      if (this.n <= 2) p = count.map((c) => (c + 1) / (total + V));
      else if (total > 0) p = count.map((c, i) => (c + types * p[i]) / (total + types));
    }
    return p;
  }

  /** How often each symbol followed the k - 1 symbols that `code` stands for. */
  row(k, code) {
    const { codes, counts } = this.grams[k - 1],
      V = this.vocab_size,
      count = new Float64Array(V);
    let total = 0,
      types = 0;
    for (let i = lowest(codes, code * V); i < codes.length && codes[i] < (code + 1) * V; i++, types++) {
      count[codes[i] - code * V] = counts[i];
      total += counts[i];
    }
    return { count, total, types };
  }

  /** bytes: the whole .npz (ArrayBuffer). Throws if it is damaged or another file. */
  static async load(bytes) {
    const data = await read_npz(bytes);
    const [n, vocab_size] = [data.n[0], data.vocab_size[0]];
    if (vocab_size ** n > Number.MAX_SAFE_INTEGER)
      throw new Error("the n-gram's codes do not fit JavaScript's numbers");
    let code = 0;
    const codes = Float64Array.from(data.steps, (step) => (code += step));
    return new NGram(n, vocab_size, codes, Float64Array.from(data.counts), [...data.head]);
  }
}

/**
 * Order k from order k + 1: its suffixes, and the one k-gram at the start of the text that has no letter
 * before it.
 */
function shorter({ codes, counts }, k, V, head) {
  const sum = new Map(),
    size = V ** k;
  const put = (code, count) => sum.set(code, (sum.get(code) ?? 0) + count);
  codes.forEach((code, i) => put(code % size, counts[i]));
  if (head.length >= k)
    put(
      head.slice(0, k).reduce((c, id) => c * V + id, 0),
      1,
    );
  const sorted = Float64Array.from(sum.keys()).sort();
  return { codes: sorted, counts: sorted.map((code) => sum.get(code)) };
}

/** The first place in sorted `codes` whose value is at least `code`. */
function lowest(codes, code) {
  let low = 0,
    high = codes.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (codes[mid] < code) low = mid + 1;
    else high = mid;
  }
  return low;
}

// ---------------------------------------------------------------- .npz: a zip archive of .npy files

async function read_npz(buffer) {
  const view = new DataView(buffer),
    arrays = {};
  let end = buffer.byteLength - 22; // the archive's last record, before a comment if there is one
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw new Error("it is no zip archive");
  let at = view.getUint32(end + 16, true);
  for (let n = view.getUint16(end + 10, true); n > 0; n--) {
    // the directory: one entry a file
    const [method, size, nameLength, extra, comment, start] = [
      view.getUint16(at + 10, true),
      view.getUint32(at + 20, true),
      view.getUint16(at + 28, true),
      view.getUint16(at + 30, true),
      view.getUint16(at + 32, true),
      view.getUint32(at + 42, true),
    ];
    const name = new TextDecoder().decode(new Uint8Array(buffer, at + 46, nameLength));
    const from = start + 30 + view.getUint16(start + 26, true) + view.getUint16(start + 28, true);
    const packed = new Uint8Array(buffer, from, size);
    arrays[name.replace(/\.npy$/, "")] = read_npy(
      method === 8 ? await inflate(packed) : packed.slice().buffer,
    );
    at += 46 + nameLength + extra + comment;
  }
  return arrays;
}

async function inflate(bytes) {
  return new Response(
    new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw")),
  ).arrayBuffer();
}

const NPY = {
  u1: Uint8Array,
  u2: Uint16Array,
  u4: Uint32Array,
  i4: Int32Array,
  u8: BigUint64Array,
  i8: BigInt64Array,
};

/** The whole numbers of a .npy file, in C order, as a plain array. */
function read_npy(buffer) {
  const view = new DataView(buffer),
    wide = view.getUint8(6) > 1;
  const start = wide ? 12 + view.getUint32(8, true) : 10 + view.getUint16(8, true);
  const header = new TextDecoder("latin1").decode(new Uint8Array(buffer, 0, start));
  const type = NPY[/'descr': *'[<|=]([a-z]\d)'/.exec(header)?.[1]];
  if (!type) throw new Error("it holds numbers of a type that was not expected");
  return Array.from(new type(buffer.slice(start)), Number);
}
