// train_npz.js: letter counts as ngram5.npz, the file that data/ngram.py and ngram.js read: the rival of a trained model.

const LONGEST = 5;

/** Counts of strings of five symbols in ids (fewer where the alphabet is large), as the bytes of an .npz. */
export function ngram_file(ids, V) {
  let n = LONGEST;
  while (V ** n >= Number.MAX_SAFE_INTEGER) n--;
  const count = new Map();
  for (let i = 0, code = 0; i < ids.length; i++) {
    code = (code % V ** (n - 1)) * V + ids[i];
    if (i >= n - 1) count.set(code, (count.get(code) ?? 0) + 1);
  }
  const codes = Float64Array.from(count.keys()).sort();
  const steps = codes.map((code, i) => code - (i ? codes[i - 1] : 0));
  return zip({ "n.npy": npy([n], true), "vocab_size.npy": npy([V], true), "head.npy": npy(ids.slice(0, n - 1)),
    "steps.npy": npy(steps), "counts.npy": npy(codes.map((code) => count.get(code))) });
}

/** Whole numbers as a .npy file of int64: a header in Python's words, padded to 64, and eight bytes a number. */
function npy(numbers, scalar = false) {
  const shape = scalar ? "()" : `(${numbers.length},)`;
  const words = `{'descr': '<i8', 'fortran_order': False, 'shape': ${shape}, }`;
  const header = words.padEnd(64 * Math.ceil((words.length + 11) / 64) - 11) + "\n";
  const head = [0x93, ...new TextEncoder().encode("NUMPY"), 1, 0, header.length & 255, header.length >> 8];
  const body = BigInt64Array.from(numbers, (x) => BigInt(x));
  return join([Uint8Array.from(head), new TextEncoder().encode(header), new Uint8Array(body.buffer)]);
}

/** Files side by side as a zip archive, not compressed: each with a header, then a directory of all, then its end. */
function zip(files) {
  const parts = [], directory = [];
  let at = 0;
  for (const [name, body] of Object.entries(files)) {
    const about = [20, 0, 0, 0, 0x21, [crc32(body)], [body.length], [body.length], name.length, 0];   // 1980-01-01
    const local = record(0x04034b50, about, name), entry = [20, ...about, 0, 0, 0, [0], [at]];
    parts.push(local, body);
    directory.push(record(0x02014b50, entry, name));
    at += local.length + body.length;
  }
  const list = join(directory), n = directory.length;
  return join([...parts, list, record(0x06054b50, [0, 0, n, n, [list.length], [at], 0], "")]);
}

/** A signature, numbers of two bytes (or, as [x], of four), and a name. */
function record(signature, numbers, name) {
  const bytes = [];
  const put = (x, size) => { for (let i = 0; i < size; i++) bytes.push((x >>> (8 * i)) & 255); };
  put(signature, 4);
  for (const x of numbers) Array.isArray(x) ? put(x[0], 4) : put(x, 2);
  return join([Uint8Array.from(bytes), new TextEncoder().encode(name)]);
}

function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ -1) >>> 0;
}

function join(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) { whole.set(part, at); at += part.length; }
  return whole;
}
