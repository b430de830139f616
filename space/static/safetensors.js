// safetensors.js: read model.safetensors while it arrives, so that no second copy of the file is ever in
// memory.
//
// The format: 8 bytes, the length of a JSON header; the header, { name: { dtype, shape, data_offsets } }; the
// data.

import { LARGEST16, scale16, spot, table16 } from "./kernels.js";

const BYTES = { F32: 4, F16: 2, BF16: 2 };
const BLOCK = 1 << 18; // bytes moved at a time: a multiple of 4

const megabytes = (n) => (n / 1e6).toFixed(1);

/**
 * The bytes of a Response in order, in pieces of the size that we ask for. A stream that breaks is asked for
 * again.
 */
class ByteReader {
  constructor(response, { progress = () => {}, again = null, keep = null }) {
    Object.assign(this, { progress, again, keep, source: response.body.getReader() });
    this.total = Number(response.headers.get("Content-Length")) || 0;
    this.piece = new Uint8Array(0);
    this.arrived = 0; // bytes that came over the line
    this.done = 0; // bytes that were handed on
    this.skip = 0; // bytes that come a second time: a server without ranges
  }

  /** The next piece from the line, or null at the end. */
  async next() {
    for (;;) {
      try {
        const { value, done } = await this.source.read();
        if (done) return null;
        const piece = value.subarray(Math.min(this.skip, value.length));
        this.skip -= value.length - piece.length;
        if (!piece.length) continue;
        this.arrived += piece.length;
        this.progress(this.arrived, this.total);
        await this.keep?.write(piece);
        return piece;
      } catch (error) {
        if (!this.again) throw error;
        const response = await this.again(this.arrived);
        this.skip = response.status === 206 ? 0 : this.arrived;
        this.source = response.body.getReader();
      }
    }
  }

  /** Fill `target`; returns the number of bytes written, fewer than asked only at the end of the file. */
  async fill(target) {
    let at = 0;
    while (at < target.length) {
      if (!this.piece.length) this.piece = (await this.next()) ?? new Uint8Array(0);
      if (!this.piece.length) break;
      const part = this.piece.subarray(0, target.length - at);
      target.set(part, at);
      at += part.length;
      this.piece = this.piece.subarray(part.length);
    }
    this.done += at;
    return at;
  }
}

/**
 * Open a file: reads the header only.
 * Returns { tensors: [{ name, dtype, shape, start, end }] in file order, bytes, read(place, half) }.
 * place(tensor) gives the byte address at which to put it, or null to skip it.
 * line: { progress(done, total), again(from) -> Response from that byte on, keep: { write(piece), close(),
 * drop() } }, all optional.
 */
export async function openSafetensors(response, label, line = {}) {
  const damaged = (why) => new Error(`${label} ${why}: upload the file again, whole.`);
  const reader = new ByteReader(response, line);
  const start = new Uint8Array(8);
  if ((await reader.fill(start)) < 8) throw damaged("is empty or cut off");
  if (new TextDecoder().decode(start) === "version ")
    throw damaged("is Git LFS's note about the file and not the file");
  const length = Number(new DataView(start.buffer).getBigUint64(0, true));
  if (length > 1e8 || length < 2) throw damaged("does not begin as a safetensors file does");
  const text = new Uint8Array(length);
  if ((await reader.fill(text)) < length) throw damaged("is cut off inside its header");
  let header;
  try {
    header = JSON.parse(new TextDecoder().decode(text));
  } catch {
    throw damaged("has a header that is not JSON");
  }

  const tensors = Object.entries(header)
    .filter(([name]) => name !== "__metadata__")
    .map(([name, t]) => {
      if (!(t?.dtype in BYTES) || !Array.isArray(t.shape)) {
        throw new Error(`${label} holds ${name} as ${t?.dtype}: save the model as float32 or float16.`);
      }
      return { name, dtype: t.dtype, shape: t.shape, start: t.data_offsets[0], end: t.data_offsets[1] };
    })
    .sort((a, b) => a.start - b.start);
  let end = 0;
  for (const t of tensors) {
    if (t.start !== end || t.end - t.start !== t.shape.reduce((a, b) => a * b, BYTES[t.dtype])) {
      throw damaged(`has a header that does not add up at ${t.name}`);
    }
    end = t.end;
  }
  const total = (reader.total = 8 + length + end);

  async function read(place, heap) {
    const block = new Uint8Array(BLOCK);
    for (const tensor of tensors) {
      const address = place(tensor);
      for (let at = tensor.start; at < tensor.end; at += BLOCK) {
        const part = block.subarray(0, Math.min(BLOCK, tensor.end - at));
        if ((await reader.fill(part)) < part.length) {
          throw damaged(`ends after ${megabytes(reader.done)} of ${megabytes(total)} MB`);
        }
        if (address !== null) convert(tensor, part, heap, address, (at - tensor.start) / BYTES[tensor.dtype]);
      }
    }
    line.keep?.close();
  }
  return {
    tensors,
    bytes: total,
    read,
    cancel() {
      line.keep?.drop();
      reader.source.cancel();
    },
  };
}

let halves;

/** Write the numbers in `part` from element `from` of the tensor at `address` on. */
function convert(tensor, part, heap, address, from) {
  const numbers = decode(tensor, part),
    to = tensor.half ? heap.u16 : heap.f32,
    start = address / (tensor.half ? 2 : 4);
  if (!tensor.panels) return to.set(numbers, start + from);
  const {
    shape: [rows, cols],
    turned,
  } = tensor;
  for (let n = 0; n < numbers.length; ) {
    const i = Math.floor((from + n) / cols),
      j = (from + n) % cols;
    if (turned) {
      to[start + spot(j, i, cols)] = numbers[n++];
      continue;
    }
    // up to eight numbers of a row lie side by side in a panel
    const run = Math.min(8 - (j & 7), cols - j, numbers.length - n),
      at = start + spot(i, j, rows);
    for (let k = 0; k < run; k++) to[at + k] = numbers[n + k];
    n += run;
  }
}

/** The numbers in `part` as float32, or, for a tensor that stays in float16, as kernels.js keeps those. */
function decode({ dtype, half }, part) {
  if (dtype === "F32") return new Float32Array(part.buffer, 0, part.length / 4);
  const bits = new Uint16Array(part.buffer, 0, part.length / 2);
  if (half) return lift(bits);
  // the upper half of a float32
  if (dtype === "BF16") return new Float32Array(Uint32Array.from(bits, (b) => b << 16).buffer);
  halves ??= table16();
  return Float32Array.from(bits, (b) => halves[b]);
}

let lifted;

/** scale16 of each, by a table: a call for every weight would take longer than the download. */
function lift(bits) {
  const fits = (half) => (half & 0x7fff) < LARGEST16;
  lifted ??= Int32Array.from({ length: 65536 }, (_, half) => (fits(half) ? scale16(half) : -1));
  for (let n = 0; n < bits.length; n++) {
    if (lifted[bits[n]] < 0) scale16(bits[n]); // which says what is wrong
    bits[n] = lifted[bits[n]];
  }
  return bits;
}
