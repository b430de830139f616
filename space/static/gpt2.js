// gpt2.js: GPT-2 in plain JavaScript. Read it beside model_gpt2.py: the same names in the same order.
//
// Shapes in the comments, with GPT-2 small's numbers. There is no batch: B = 1.
//     T positions worked on at once (64 while reading, 1 while writing), S positions seen so far, at most block_size
//     V vocab_size, C n_embd = 768, nh n_head = 12, hs head size = 64, so nh * hs = C
//
// Everything lies in one heap (kernels.js). A Tensor is an address in it; row(t) is the address of its row t.

import { hasWasm, makeKernels } from "./kernels.js";
import { openSafetensors } from "./safetensors.js";

const CHUNK = 64;                                            // positions read at once: a weight fetched once serves all

export class GPTConfig {
  /** hf: the content of config.json. Throws one sentence for anything but a GPT-2. */
  constructor(hf) {
    for (const [name, ours] of FIXED) {
      const n_inner = name === "n_inner" && hf[name] === 4 * hf.n_embd;
      if ((hf[name] ?? ours) !== ours && !n_inner) {
        throw new Error(`config.json describes another model than GPT-2: ${name} is ${JSON.stringify(hf[name])}.`);
      }
    }
    this.block_size = hf.n_positions;
    this.vocab_size = hf.vocab_size;
    this.n_layer = hf.n_layer;
    this.n_head = hf.n_head;
    this.n_embd = hf.n_embd;
    this.n_tokens = hf.n_tokens ?? hf.vocab_size;            // ids in use; the rest of the table is padding
    this.tie_weights = hf.tie_word_embeddings ?? true;
    this.epsilon = hf.layer_norm_epsilon ?? 1e-5;
    for (const name of ["block_size", "vocab_size", "n_layer", "n_head", "n_embd"]) {
      if (!(Number.isInteger(this[name]) && this[name] > 0)) {
        throw new Error(`config.json gives ${name} as ${this[name]}: save the model again with save_pretrained.`);
      }
    }
    if (this.n_embd % this.n_head) throw new Error("config.json has an n_embd that n_head does not divide: save the model again.");
  }
}

const FIXED = [["model_type", "gpt2"], ["activation_function", "gelu_new"], ["n_inner", null],
  ["scale_attn_weights", true], ["scale_attn_by_inverse_layer_idx", false]];

class Tensor {
  constructor(heap, address, cols, half = false) { Object.assign(this, { heap, address, cols, half }); }
  row(t) { return this.address + t * this.cols * (this.half ? 2 : 4); }
  data(from, n) { return this.heap.f32.subarray(this.address / 4 + from, this.address / 4 + from + n); }
}

/** GPT-2's Linear: the weight is stored (in, out), so that y = x @ W + b. */
class Conv1D {
  constructor(params, name) {
    this.weight = params(name + ".weight");                  // (in, out)
    this.bias = params(name + ".bias");                      // (out)
    this.strip = params.strip;
  }

  forward(y, x, T) {                                         // x (T, in) -> y (T, out)
    const { heap, cols, half } = this.weight, rows = x.cols, T4 = T === 1 ? 1 : pad4(T);
    for (let t = 0; t < T4; t++) y.data(t * cols, cols).set(this.bias.data(0, cols));
    if (T === 1) (half ? heap.vecmat16 : heap.vecmat32)(y.row(0), x.row(0), this.weight.row(0), rows, cols);
    else heap.matmul(y.row(0), x.row(0), this.weight.row(0), T4, rows, cols, half, this.strip.address);
    return y;
  }
}

class LayerNorm {
  constructor(params, name, epsilon) {
    this.weight = params(name + ".weight");                  // (C)
    this.bias = params(name + ".bias");                      // (C)
    this.epsilon = epsilon;
  }

  forward(y, x, T) {                                         // (T, C) -> (T, C)
    const C = x.cols, w = this.weight.data(0, C), b = this.bias.data(0, C);
    for (let t = 0; t < T; t++) {
      const from = x.data(t * C, C), to = y.data(t * C, C);
      let mean = 0, variance = 0;
      for (let i = 0; i < C; i++) mean += from[i];
      mean /= C;
      for (let i = 0; i < C; i++) variance += (from[i] - mean) ** 2;
      const scale = 1 / Math.sqrt(variance / C + this.epsilon);
      for (let i = 0; i < C; i++) to[i] = (from[i] - mean) * scale * w[i] + b[i];
    }
    return y;
  }
}

class CausalSelfAttention {
  constructor(config, params, name) {
    this.n_head = config.n_head;
    this.layer = Number(name.split(".")[1]);
    this.c_attn = new Conv1D(params, name + ".c_attn");      // query, key, value in one
    this.c_proj = new Conv1D(params, name + ".c_proj");
    this.k = params.room(config.n_head * pad4(config.block_size), config.n_embd / config.n_head);  // (nh, block_size, hs)
    this.v = params.room(config.n_head * pad4(config.block_size), config.n_embd / config.n_head);
    this.rows = pad4(config.block_size);
  }

  /** look.patterns collects what each head looked at; look.off(h) is true for a head that is switched off. */
  forward(room, x, T, start, look) {                         // x (T, C) at positions start..start+T-1
    const { heap } = x, nh = this.n_head, C = x.cols, hs = C / nh, scale = 1 / Math.sqrt(hs);
    const qkv = this.c_attn.forward(room.qkv, x, T);         // (T, 3C)
    for (let t = 0; t < T; t++) {
      for (let h = 0; h < nh; h++) {                         // the cache is appended to: keys and values of position start+t
        const to = (h * this.rows + start + t) * hs;
        this.k.data(to, hs).set(qkv.data(t * 3 * C + C + h * hs, hs));
        this.v.data(to, hs).set(qkv.data(t * 3 * C + 2 * C + h * hs, hs));
      }
    }
    room.y.data(0, T * C).fill(0);
    for (let t = 0; t < T; t++) {
      const S = start + t + 1;                               // a position sees itself and what came before
      for (let h = 0; h < nh; h++) {
        const q = qkv.row(t) + 4 * h * hs;
        heap.matvec32(room.pattern.address, q, this.k.row(h * this.rows), S, hs);          // scores (S)
        softmax(room.pattern.data(0, S), scale);
        room.pattern.data(S, pad4(S) - S).fill(0);           // the kernel takes four rows at a time
        look.patterns?.push(room.pattern.data(0, S).slice());
        if (look.off?.(this.layer, h)) continue;             // it says nothing: its part of y stays 0
        heap.vecmat32(room.y.row(t) + 4 * h * hs, room.pattern.address, this.v.row(h * this.rows), pad4(S), hs);
      }
    }
    return this.c_proj.forward(room.out, room.y, T);         // heads side by side again: (T, C)
  }
}

class MLP {
  constructor(config, params, name) {
    this.c_fc = new Conv1D(params, name + ".c_fc");
    this.c_proj = new Conv1D(params, name + ".c_proj");
  }

  forward(room, x, T) {                                      // (T, C) -> (T, 4C) -> (T, C)
    const hidden = this.c_fc.forward(room.hidden, x, T);
    gelu(hidden.data(0, T * hidden.cols));
    return this.c_proj.forward(room.out, hidden, T);
  }
}

class Block {
  constructor(config, params, name) {
    this.ln_1 = new LayerNorm(params, name + ".ln_1", config.epsilon);
    this.attn = new CausalSelfAttention(config, params, name + ".attn");
    this.ln_2 = new LayerNorm(params, name + ".ln_2", config.epsilon);
    this.mlp = new MLP(config, params, name + ".mlp");
  }

  forward(room, x, T, start, look) {
    const station = () => look.path?.push(x.data((T - 1) * x.cols, x.cols).slice());
    add(x, this.attn.forward(room, this.ln_1.forward(room.ln, x, T), T, start, look), T);          // look back
    station();
    add(x, this.mlp.forward(room, this.ln_2.forward(room.ln, x, T), T), T);                        // think
    station();
  }
}

export class GPT {
  constructor(config, params) {
    this.config = config;
    this.wte = params("wte.weight");                         // (V, C)  what: a vector for each id
    this.wpe = params("wpe.weight");                         // (block_size, C)  where: a vector for each position
    this.h = Array.from({ length: config.n_layer }, (_, layer) => new Block(config, params, `h.${layer}`));
    this.ln_f = new LayerNorm(params, "ln_f", config.epsilon);
    this.lm_head = config.tie_weights ? this.wte : params("lm_head.weight");                       // (V, C)
    const C = config.n_embd;
    this.room = { x: params.room(CHUNK, C), ln: params.room(CHUNK, C), qkv: params.room(CHUNK, 3 * C),
      y: params.room(CHUNK, C), out: params.room(CHUNK, C), hidden: params.room(CHUNK, 4 * C),
      pattern: params.room(1, pad4(config.block_size) + 4), logits: params.room(1, config.vocab_size) };
    this.window = [];                                        // the ids whose keys and values are in the cache
    this.off = new Set();                                    // the heads that are switched off
  }

  /**
   * Run ids, at most CHUNK of them, behind the `start` positions that are in the cache.
   * Returns the logits (V) of the last one. What `look` holds is filled: patterns, n_layer * nh for each position;
   * path, the last position's vector after each station; each(logits, position) is called for every position.
   */
  forward(ids, start = 0, look = {}) {
    const { config, room } = this, C = config.n_embd, T = ids.length, off = this.off.size ? this.is_off : null;
    ids.forEach((id, t) => embed(room.x.data(t * C, C), this.wte, id, this.wpe, start + t));       // (T, C)
    look.path?.push(room.x.data((T - 1) * C, C).slice());
    for (const block of this.h) block.forward(room, room.x, T, start, { ...look, off });
    this.ln_f.forward(room.ln, room.x, T);
    for (let t = look.each ? 0 : T; t < T - 1; t++) look.each(this.head(t), start + t);
    const logits = this.head(T - 1);
    look.each?.(logits, start + T - 1);
    if (ids.some((id, t) => this.window[start + t] !== id)) this.window = [...this.window.slice(0, start), ...ids];
    return logits;
  }

  /** The logits (V) of row t of room.ln; the padding rows are never looked at. They are overwritten by the next call. */
  head(t) {
    const { room, config, lm_head } = this, matvec = lm_head.half ? room.x.heap.matvec16 : room.x.heap.matvec32;
    matvec(room.logits.address, room.ln.row(t), lm_head.address, config.vocab_size, config.n_embd);
    return room.logits.data(0, config.n_tokens);
  }

  /** What a vector (C) from the middle of the model would say: straight through the last norm and the head ("logit lens"). */
  lens(vector) {
    this.room.out.data(0, vector.length).set(vector);
    this.ln_f.forward(this.room.ln, this.room.out, 1);
    return this.head(0).slice();
  }

  /** Switch heads off: a Set of layer * n_head + head. What the cache holds came through other heads, so it is dropped. */
  switch_off(heads) {
    this.off = heads;
    this.window = [];
  }

  /** The two vectors (C) that a letter starts from: what it is, and where it stands. */
  embedding(id, position) {
    const C = this.config.n_embd, sum = new Float32Array(C), where = this.wpe.data(position * C, C).slice();
    embed(sum, this.wte, id, this.wpe, position);
    return { what: sum.map((x, i) => x - where[i]), where };
  }

  is_off = (layer, head) => this.off.has(layer * this.config.n_head + head);

  /**
   * Make the cache hold `window`, reusing what it has in common with it. Yields after each chunk; returns the logits.
   * look: as in forward; patterns and path are of the last position; each sees every position from look.from on.
   */
  *read(window, look = {}) {
    const first = Math.min(window.length - 1, look.each ? look.from ?? 0 : Infinity), one = look.patterns || look.path;
    let start = 0, logits;
    while (start < first && start < this.window.length && this.window[start] === window[start]) start++;
    while (start < window.length) {
      const end = Math.min(start + CHUNK, window.length);
      // a picture shows one position: the last one goes alone
      const stop = one && end === window.length && end - start > 1 ? end - 1 : end;
      const { each } = look;
      logits = this.forward(window.slice(start, stop), start, stop === window.length ? look : { each });
      start = stop;
      if (start < window.length) yield { read: start, of: window.length };
    }
    if (!logits.every(Number.isFinite)) throw new Error("model.safetensors holds numbers that are not finite: upload the file again.");
    return logits;
  }

  /**
   * Sample ids one step at a time. Yields { id, window, logits } for each, and { read, of } while it still reads.
   * temperature 0 is greedy; top_k: among the k likeliest, 0 for all; top_p: among the fewest that hold this probability.
   * The same seed gives the same text in every browser. It is not torch's generator: Python's text differs.
   * Positions are learned, so a full window starts afresh from its last block_size // 2 ids.
   */
  *stream(idx, max_new_tokens, { temperature = 1, top_k = 0, top_p = 1, seed = 1 } = {}) {
    const random = generator(seed);
    let window = [...idx].slice(-this.config.block_size);                    // a long prompt: its last ids, as in Python
    if (!window.length) throw new Error("The prompt is empty: give at least one character.");
    for (let n = 0; n < max_new_tokens; n++) {
      window = this.fit(window);
      const logits = yield* this.read(window);
      const id = temperature === 0 ? argmax(logits) : draw(filter_probs(logits, temperature, top_k, top_p), random());
      yield { id, window: window.length, logits };
      window.push(id);
    }
  }

  /** The ids that the model sees of these: all, or the last half of a window that is full. */
  fit(ids) {
    const { block_size } = this.config;
    return ids.length > block_size ? ids.slice(-Math.max(1, block_size >> 1)) : ids;
  }

  /**
   * Load config.json and model.safetensors. open(name) gives a Response (fetch, or a file in node).
   * kernels "auto", "wasm" or "plain"; line(response): what openSafetensors does while it downloads.
   * Throws one sentence for a missing or damaged file.
   */
  static async from_pretrained(open, { line = () => ({}), kernels = "auto", half = true } = {}) {
    const config = new GPTConfig(await readJSON(open, "config.json")), response = await open("model.safetensors");
    const file = await openSafetensors(response, "model.safetensors", line(response));
    try {
      return await load(config, file, kernels, half);
    } catch (error) {
      file.cancel();
      if (error instanceof RangeError && half) return GPT.from_pretrained(open, { line, kernels, half: false });
      throw error;
    }
  }

  num_params() { return this.parameters; }
}

// ---------------------------------------------------------------- loading

export async function readJSON(open, name) {
  const text = await (await open(name)).text();
  try { return JSON.parse(text); } catch { throw new Error(`${name} is not JSON: upload the file again, whole.`); }
}

/** OpenAI's own file lacks the prefix. */
const plainName = (name) => name.replace(/^transformer\./, "");
const isMask = (name) => /\.attn\.(masked_)?bias$/.test(name);             // OpenAI's file carries the causal mask

/** The shape that each tensor of this config must have. */
function shapes({ n_layer, n_embd: C, vocab_size, block_size, tie_weights }) {
  const want = { "wte.weight": [vocab_size, C], "wpe.weight": [block_size, C], "ln_f.weight": [C], "ln_f.bias": [C] };
  for (let layer = 0; layer < n_layer; layer++) {
    for (const ln of ["ln_1", "ln_2"]) for (const kind of ["weight", "bias"]) want[`h.${layer}.${ln}.${kind}`] = [C];
    for (const [name, rows, cols] of [["attn.c_attn", C, 3 * C], ["attn.c_proj", C, C], ["mlp.c_fc", C, 4 * C], ["mlp.c_proj", 4 * C, C]]) {
      want[`h.${layer}.${name}.weight`] = [rows, cols];
      want[`h.${layer}.${name}.bias`] = [cols];
    }
  }
  if (!tie_weights) want["lm_head.weight"] = [vocab_size, C];
  return want;
}

async function load(config, file, kernels, half) {
  const want = shapes(config), found = new Map();
  for (const tensor of file.tensors) {
    const name = plainName(tensor.name);
    if (want[name]?.join() === tensor.shape.join()) found.set(name, tensor);
    else if (!isMask(name) && name !== "lm_head.weight") {
      throw new Error(`model.safetensors does not fit config.json at ${tensor.name}: upload both files of one model.`);
    }
  }
  const missing = Object.keys(want).find((name) => !found.has(name));
  if (missing) throw new Error(`model.safetensors lacks ${missing}, which config.json asks for: upload both files of one model.`);

  const hs = config.n_embd / config.n_head;
  const fits = hs % 8 === 0 && hasWasm();                    // the WebAssembly takes eight columns at a time
  if (kernels === "auto") kernels = fits ? "wasm" : "plain";
  const plan = new Plan();
  for (const [name, tensor] of found) {
    tensor.half = half && kernels === "wasm" && tensor.dtype === "F16" && tensor.shape.length === 2 && name !== "wpe.weight";
    tensor.address = plan.take(tensor.shape.reduce((a, b) => a * b, tensor.half ? 2 : 4));
  }
  // build the model twice: first only to learn how much room it wants beside its weights, then on the real heap
  new GPT(config, parameters(config, null, found, plan));
  const heap = await makeRoom(plan.bytes, kernels);
  plan.rewind();
  const model = new GPT(config, parameters(config, heap, found, plan));
  await file.read((tensor) => tensor.address ?? null, heap);
  model.parameters = [...found.values()].reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0);
  return Object.assign(model, { kernels: heap.kind, bytes: plan.bytes, file_bytes: file.bytes });
}

async function makeRoom(bytes, kernels) {
  try { return await makeKernels(bytes, kernels); } catch {
    throw new Error(`The model needs ${(bytes / 1e6).toFixed(0)} MB of memory and this browser did not give them: close other tabs, or use a smaller model.`);
  }
}

/** Gives out addresses, 16 bytes apart at least. */
class Plan {
  bytes = 0;
  mark = null;
  take(n) { const address = this.bytes; this.bytes += Math.ceil(n / 16) * 16; return address; }
  room(n) { this.mark ??= this.bytes; return this.take(n); }
  rewind() { this.bytes = this.mark; }
}

function parameters(config, heap, found, plan) {
  const params = (name) => {
    const { address, shape, half } = found.get(name);
    return new Tensor(heap, address, shape.at(-1), half);
  };
  params.room = (rows, cols) => new Tensor(heap, plan.room(4 * rows * cols), cols);
  params.strip = params.room(4 * config.n_embd, 8);          // eight columns of the largest weight
  return params;
}

// ---------------------------------------------------------------- arithmetic

const pad4 = (n) => (n + 3) & ~3;

function add(x, y, T) {                                      // x += y, both (T, C)
  const to = x.data(0, T * x.cols), from = y.data(0, T * x.cols);
  for (let i = 0; i < to.length; i++) to[i] += from[i];
}

function embed(x, wte, id, wpe, position) {                  // wte[id] + wpe[position]: (C)
  const where = wpe.data(position * x.length, x.length);
  if (wte.half) {                                            // a float16 table: its row is the identity's row of W
    const bits = wte.heap.u16.subarray(wte.row(id) / 2, wte.row(id) / 2 + x.length);
    for (let i = 0; i < x.length; i++) x[i] = from16(bits[i]) + where[i];
  } else {
    const what = wte.data(id * x.length, x.length);
    for (let i = 0; i < x.length; i++) x[i] = what[i] + where[i];
  }
}

/** A weight as kernels.js keeps it, 2^10 times a float16, as a number. */
function from16(bits) {
  const size = bits & 0x7fff;
  return size ? (bits & 0x8000 ? -1 : 1) * (1 + (size & 1023) / 1024) * 2 ** ((size >> 10) - 25) : 0;
}

function softmax(scores, scale) {                            // (S) -> (S), in place
  let max = -Infinity, sum = 0;
  for (let i = 0; i < scores.length; i++) if (scores[i] > max) max = scores[i];
  for (let i = 0; i < scores.length; i++) sum += scores[i] = Math.exp((scores[i] - max) * scale);
  for (let i = 0; i < scores.length; i++) scores[i] /= sum;
}

function gelu(x) {                                           // GPT-2's own, with tanh
  for (let i = 0; i < x.length; i++) {
    const u = x[i];                                          // 0.5 (1 + tanh z) is 1 / (1 + exp(-2z)), and faster so
    x[i] = u / (1 + Math.exp(-1.5957691216057308 * (u + 0.044715 * u * u * u)));
  }
}

// ---------------------------------------------------------------- sampling

/** logits (V) -> the probabilities (V) that sampling draws from, as model_gpt2.filter_probs. temperature > 0. */
export function filter_probs(logits, temperature = 1, top_k = 0, top_p = 1) {
  const max = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  let probs = Float64Array.from(logits, (z) => Math.exp((z - max) / temperature));
  if (top_k > 0 && top_k < logits.length) {
    const kth = Float64Array.from(logits).sort().at(-top_k);
    probs = probs.map((p, i) => (logits[i] < kth ? 0 : p));
  }
  normalize(probs);
  if (top_p < 1) {
    const order = [...probs.keys()].sort((a, b) => probs[b] - probs[a]);
    let before = 0;                                          // what the likelier ones hold; 0 for the first, so one always stays
    for (const i of order) {
      const p = probs[i];
      if (before >= top_p) probs[i] = 0;
      before += p;
    }
    normalize(probs);
  }
  return probs;
}

function normalize(probs) {
  const sum = probs.reduce((a, b) => a + b, 0);
  for (let i = 0; i < probs.length; i++) probs[i] /= sum;
}

function argmax(logits) {
  let best = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[best]) best = i;
  return best;
}

/** The id whose share of 0..1 holds u. */
export function draw(probs, u) {
  let last = 0;
  for (let i = 0; i < probs.length; i++) {
    if (!probs[i]) continue;
    if (u < probs[i]) return i;
    u -= probs[i];
    last = i;
  }
  return last;                                               // rounding left u a hair too large
}

/** A small generator of numbers in [0, 1): a counter through a 32-bit mixing of bits. */
export function generator(seed) {
  let counter = seed >>> 0;
  return () => {
    counter = (counter + 0x9e3779b9) >>> 0;                  // the golden ratio: visits every 32-bit number once
    let z = counter;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);               // MurmurHash3's finalizer
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return ((z ^ (z >>> 16)) >>> 0) / 2 ** 32;
  };
}
