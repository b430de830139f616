// gpt2.js: GPT-2 in plain JavaScript. Read it beside model_gpt2.py: the same names in the same order.
//
// Shapes in the comments, with GPT-2 small's numbers. There is no batch: B = 1.
//     T positions worked on at once (64 while reading, 1 while writing), S positions seen, at most block_size
//     V vocab_size, C n_embd = 768, nh n_head = 12, hs head size = 64, so nh * hs = C
//
// Everything lies in one heap (kernels.js). A Tensor is an address in it; row(t) is the address of its row t.
// A matrix of weights, and each head's keys and values, lie in panels of eight columns: spot(i, j, rows) says
// where.

import { hasWasm, hire, makeKernels, spot } from "./kernels.js";
import { openSafetensors } from "./safetensors.js";
import { speculate } from "./speculate.js";

const HAND_ABOVE = 20e6;  // bytes: a smaller model has read a long prompt before a second thread is there
const CHUNK = 64;  // positions read at once: a weight fetched once serves all

export class GPTConfig {
  /** hf: the content of config.json. Throws one sentence for anything but a GPT-2. */
  constructor(hf) {
    for (const [name, ours] of FIXED) {
      const n_inner = name === "n_inner" && hf[name] === 4 * hf.n_embd;
      if ((hf[name] ?? ours) !== ours && !n_inner) {
        const value = JSON.stringify(hf[name]);
        throw new Error(`config.json describes another model than GPT-2: ${name} is ${value}.`);
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
        const todo = "save the model again with save_pretrained";
        throw new Error(`config.json gives ${name} as ${this[name]}: ${todo}.`);
      }
    }
    if (this.n_embd % this.n_head) {
      throw new Error("config.json has an n_embd that n_head does not divide: save the model again.");
    }
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
  }

  forward(y, x, T) {                                         // x (T, in) -> y (T, out)
    const { heap, address, cols, half } = this.weight;
    for (let t = 0; t < T; t++) y.data(t * cols, cols).set(this.bias.data(0, cols));
    heap.matmul(y.address, x.address, address, T, x.cols, cols, half);
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
    // for each head, keys as a matrix (hs, block_size) and values as one (block_size, hs): what a score and a
    // sum want
    const hs = config.n_embd / config.n_head;
    this.S = pad8(config.block_size);
    this.k = params.room(config.n_head * this.S, hs);
    this.v = params.room(config.n_head * this.S, pad8(hs));
  }

  /** look.patterns collects what each head looked at; look.off(h) is true for a head that is switched off. */
  forward(room, x, T, start, look) {                         // x (T, C) at positions start..start+T-1
    const qkv = this.c_attn.forward(room.qkv, x, T);         // (T, 3C)
    this.remember(qkv, T, start);
    room.y.data(0, pad4(T) * x.cols).fill(0);
    for (let t = 0; t < T; t += 4) {
      for (let h = 0; h < this.n_head; h++) this.head(room, t, Math.min(4, T - t), start + t, h, look);
    }
    return this.c_proj.forward(room.out, room.y, T);         // heads side by side again: (T, C)
  }

  /** The cache is appended to: keys and values of positions start..start+T-1. */
  remember(qkv, T, start) {
    const C = qkv.cols / 3, hs = C / this.n_head;
    const keys = this.k.data(0, this.n_head * this.S * hs);
    const values = this.v.data(0, this.n_head * this.S * pad8(hs));
    for (let t = 0; t < T; t++) {
      const row = qkv.data(t * 3 * C, 3 * C), s = start + t;
      for (let c = 0; c < C; c++) {
        const h = Math.floor(c / hs), d = c - h * hs;
        keys[h * this.S * hs + spot(d, s, hs)] = row[C + c];
        values[h * this.S * pad8(hs) + spot(s, d, this.S)] = row[2 * C + c];
      }
    }
  }

  /** Head h at n positions from row t on, at most four: a position sees itself and what came before. */
  head(room, t, n, start, h, look) {
    const { qkv, y, pattern } = room, { heap } = qkv, C = y.cols, hs = C / this.n_head, S = pad8(start + n);
    const k = this.k.row(h * this.S), v = this.v.address + 4 * h * this.S * pad8(hs);
    for (let i = 0; i < n; i++) pattern.data(i * pattern.cols, S).fill(0);
    // scores (n, S)
    heap.matmul(pattern.address, qkv.row(t) + 4 * h * hs, k, n, hs, S, false, 3 * C, pattern.cols);
    for (let i = 0; i < n; i++) softmax(pattern, i, start + i + 1, S, 1 / Math.sqrt(hs));
    if (t + n === look.T) look.patterns?.push(pattern.data((n - 1) * pattern.cols, start + n).slice());
    if (look.off?.(this.layer, h)) return;                   // it says nothing: its part of y stays 0
    heap.matmul(y.row(t) + 4 * h * hs, pattern.address, v, n, S, hs, false, pattern.cols, C, 8 * this.S);
  }
}

class MLP {
  constructor(config, params, name) {
    this.c_fc = new Conv1D(params, name + ".c_fc");
    this.c_proj = new Conv1D(params, name + ".c_proj");
  }

  forward(room, x, T) {                                      // (T, C) -> (T, 4C) -> (T, C)
    const hidden = this.c_fc.forward(room.hidden, x, T);
    hidden.heap.gelu(hidden.address, T * hidden.cols);
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
    add(x, this.attn.forward(room, this.ln_1.forward(room.ln, x, T), T, start, look), T);  // look back
    station();
    add(x, this.mlp.forward(room, this.ln_2.forward(room.ln, x, T), T), T);                        // think
    station();
  }
}

export class GPT {
  constructor(config, params) {
    this.config = config;
    this.wte = params("wte.weight");                         // (V, C)  what: a vector for each id
    this.wpe = params("wpe.weight");  // (block_size, C)  where: a vector for each position
    this.h = Array.from({ length: config.n_layer }, (_, layer) => new Block(config, params, `h.${layer}`));
    this.ln_f = new LayerNorm(params, "ln_f", config.epsilon);
    this.lm_head = config.tie_weights ? this.wte : params("lm_head.weight");                       // (V, C)
    const C = config.n_embd;
    this.room = { x: params.room(CHUNK, C), ln: params.room(CHUNK, C), qkv: params.room(CHUNK, 3 * C),
      y: params.room(CHUNK, C), out: params.room(CHUNK, C), hidden: params.room(CHUNK, 4 * C),
      pattern: params.room(4, pad8(config.block_size)), logits: params.room(4, pad8(config.vocab_size)) };
    this.window = [];                                        // the ids whose keys and values are in the cache
    this.off = new Set();                                    // the heads that are switched off
  }

  /**
   * Run ids, at most CHUNK of them, behind the `start` positions that are in the cache.
   * Returns the logits (V) of the last one. What `look` holds is filled: patterns, n_layer * nh of the last
   * position; path, the last position's vector after each station; each(logits, position) is called for every
   * position.
   */
  forward(ids, start = 0, look = {}) {
    const { config, room } = this, C = config.n_embd, T = ids.length;
    const off = this.off.size ? this.is_off : null;
    ids.forEach((id, t) => embed(room.x.data(t * C, C), this.wte, id, this.wpe, start + t));       // (T, C)
    look.path?.push(room.x.data((T - 1) * C, C).slice());
    for (const block of this.h) block.forward(room, room.x, T, start, { ...look, T, off });
    this.ln_f.forward(room.ln, room.x, T);
    let logits;
    for (let t = look.each ? 0 : T - 1; t < T; t += 4) {
      logits = this.head(t, Math.min(4, T - t));
      if (look.each) logits.forEach((row, i) => look.each(row, start + t + i));
    }
    const known = ids.every((id, t) => this.window[start + t] === id);
    if (!known) this.window = [...this.window.slice(0, start), ...ids];
    return logits.at(-1);
  }

  /** [logits (V)] of n rows of room.ln from row t on, at most four. They are overwritten by the next call. */
  head(t, n) {
    const { logits, ln } = this.room, { n_embd: C, vocab_size: V } = this.config;
    const { heap, address, half } = this.lm_head;
    logits.data(0, n * logits.cols).fill(0);
    heap.matmul(logits.address, ln.row(t), address, n, C, V, half, C, logits.cols);
    return Array.from({ length: n }, (_, i) => logits.data(i * logits.cols, this.config.n_tokens));
  }

  /**
   * What a vector (C) from the middle of the model would say: straight through the last norm and the head
   * ("logit lens").
   */
  lens(vector) {
    this.room.out.data(0, vector.length).set(vector);
    this.ln_f.forward(this.room.ln, this.room.out, 1);
    return this.head(0, 1)[0].slice();
  }

  /**
   * Switch heads off: a Set of layer * n_head + head. What the cache holds came through other heads, so it is
   * dropped.
   */
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
   * Make the cache hold `window`, reusing what it has in common with it. Yields after each chunk; returns the
   * logits. look: as in forward; patterns and path are of the last position; each sees every position from
   * look.from on.
   */
  *read(window, look = {}) {
    const first = Math.min(window.length - 1, look.each ? look.from ?? 0 : Infinity);
    const one = look.patterns || look.path;
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
    if (!logits.every(Number.isFinite)) {
      throw new Error("model.safetensors holds numbers that are not finite: upload the file again.");
    }
    return logits;
  }

  /**
   * Sample ids one step at a time. Yields { id, window, logits } for each, and { read, of } while it still
   * reads. temperature 0 is greedy; top_k: among the k likeliest, 0 for all; top_p: among the fewest that
   * hold this probability. The same seed gives the same text in every browser. It is not torch's generator:
   * Python's text differs. Positions are learned, so a full window starts afresh from its last block_size //
   * 2 ids. draft: a smaller GPT over the same ids, which proposes `ahead` of them at once (speculate.js). The
   * law of the text stays this model's own; which text a seed gives changes.
   */
  *stream(idx, max_new_tokens, settings = {}) {
    const { temperature = 1, top_k = 0, top_p = 1, seed = 1, draft = null, ahead = 3 } = settings;
    const random = generator(seed);
    const pick = (probs) => draw(probs, random());
    const drawn = (logits) => filter_probs(logits, temperature, top_k, top_p);
    const law = temperature === 0 ? certain : drawn;
    let window = [...idx].slice(-this.config.block_size);  // a long prompt: its last ids, as in Python
    if (!window.length) throw new Error("The prompt is empty: give at least one character.");
    if (draft) return yield* speculate(this, draft, window, max_new_tokens, { law, pick, ahead });
    for (let n = 0; n < max_new_tokens; n++) {
      window = this.fit(window);
      const logits = yield* this.read(window);
      const id = temperature === 0 ? argmax(logits) : pick(law(logits));
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
    const asked = [readJSON(open, "config.json"), open("model.safetensors")];
    const [json, response] = await Promise.all(asked);
    const config = new GPTConfig(json);
    const file = await openSafetensors(response, "model.safetensors", line(response));
    try {
      return await load(config, file, kernels, half);
    } catch (error) {
      file.cancel();
      const large = error instanceof RangeError && half;     // a weight above 64, which scale16 cannot lift
      if (large) return GPT.from_pretrained(open, { line, kernels, half: false });
      throw error;
    }
  }

  num_params() { return this.parameters; }
}

// ---------------------------------------------------------------- loading

export async function readJSON(open, name) {
  const text = await (await open(name)).text();
  try { return JSON.parse(text); } catch {
    throw new Error(`${name} is not JSON: upload the file again, whole.`);
  }
}

/** OpenAI's own file lacks the prefix. */
const plainName = (name) => name.replace(/^transformer\./, "");
const isMask = (name) => /\.attn\.(masked_)?bias$/.test(name);  // OpenAI's file carries the causal mask

/** The shape that each tensor of this config must have. */
function shapes({ n_layer, n_embd: C, vocab_size, block_size, tie_weights }) {
  const want = { "wte.weight": [vocab_size, C], "wpe.weight": [block_size, C] };
  const norm = (name) => Object.assign(want, { [`${name}.weight`]: [C], [`${name}.bias`]: [C] });
  const linear = (name, rows, cols) =>
    Object.assign(want, { [`${name}.weight`]: [rows, cols], [`${name}.bias`]: [cols] });
  norm("ln_f");
  for (let layer = 0; layer < n_layer; layer++) {
    const h = `h.${layer}`;
    norm(`${h}.ln_1`);
    norm(`${h}.ln_2`);
    linear(`${h}.attn.c_attn`, C, 3 * C);
    linear(`${h}.attn.c_proj`, C, C);
    linear(`${h}.mlp.c_fc`, C, 4 * C);
    linear(`${h}.mlp.c_proj`, 4 * C, C);
  }
  if (!tie_weights) want["lm_head.weight"] = [vocab_size, C];
  return want;
}

const BOTH = "upload both files of one model";

async function load(config, file, kernels, half) {
  const want = shapes(config), found = new Map();
  for (const tensor of file.tensors) {
    const name = plainName(tensor.name);
    if (want[name]?.join() === tensor.shape.join()) found.set(name, tensor);
    else if (!isMask(name) && name !== "lm_head.weight") {
      throw new Error(`model.safetensors does not fit config.json at ${tensor.name}: ${BOTH}.`);
    }
  }
  const missing = Object.keys(want).find((name) => !found.has(name));
  if (missing) throw new Error(`model.safetensors lacks ${missing}, which config.json asks for: ${BOTH}.`);

  const hs = config.n_embd / config.n_head;
  const fits = hs % 8 === 0 && hasWasm();                    // the WebAssembly takes eight columns at a time
  if (kernels === "auto") kernels = fits ? "wasm" : "plain";
  const plan = new Plan();
  for (const [name, tensor] of found) {
    // (V, C): lies as the head uses it, (C, V)
    tensor.turned = name === "wte.weight" || name === "lm_head.weight";
    tensor.panels = tensor.shape.length === 2 && name !== "wpe.weight";
    tensor.half = half && kernels === "wasm" && tensor.dtype === "F16" && tensor.panels;
    tensor.address = plan.take(size_of(tensor));
  }
  // build the model twice: first only to learn how much room it wants beside its weights, then on the real
  // heap
  new GPT(config, parameters(config, null, found, plan));
  const heap = await makeRoom(plan.bytes, kernels, file.bytes > HAND_ABOVE);
  plan.rewind();
  const model = new GPT(config, parameters(config, heap, found, plan));
  const hired = heap.common ? hire(heap, new_hand, heap.board, heap.second) : null;
  await file.read((tensor) => tensor.address ?? null, heap);
  await hired;
  model.parameters = [...found.values()].reduce((sum, { shape }) => sum + count(shape), 0);
  return Object.assign(model, { kernels: heap.kind, bytes: plan.bytes, file_bytes: file.bytes });
}

/** The bytes that a tensor takes on the heap: panels are eight columns wide. */
function size_of({ shape, half, panels, turned }) {
  const [rows, cols] = turned ? [shape[1], shape[0]] : shape;
  return (half ? 2 : 4) * (panels ? rows * pad8(cols) : count(shape));
}

const count = (shape) => shape.reduce((a, b) => a * b, 1);

/** From a blob, as begin.js makes worker.js: so it lives under the page's security policy too. */
function new_hand() {
  const script = `import ${JSON.stringify(new URL("hand.js", import.meta.url).href)};`;
  const blob = new Blob([script], { type: "text/javascript" });
  return new Worker(URL.createObjectURL(blob), { type: "module" });
}

async function makeRoom(bytes, kernels, shared) {
  try { return await makeKernels(bytes, kernels, shared); } catch {
    const need = `${(bytes / 1e6).toFixed(0)} MB`;
    throw new Error(`The model needs ${need} of memory and this browser did not give them: ` +
      "close other tabs, or use a smaller model.");
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
  const strip = params.room(4 * config.n_embd, 8);           // a panel of the tallest matrix
  const second = params.room(4 * config.n_embd, 8), board = params.room(4, 8);
  if (heap) Object.assign(heap, { strip: strip.address, second: second.address, board: board.address });
  return params;
}

// ---------------------------------------------------------------- arithmetic

const pad4 = (n) => (n + 3) & ~3;
const pad8 = (n) => (n + 7) & ~7;

function add(x, y, T) {                                      // x += y, both (T, C)
  const to = x.data(0, T * x.cols), from = y.data(0, T * x.cols);
  for (let i = 0; i < to.length; i++) to[i] += from[i];
}

function embed(x, wte, id, wpe, position) {                  // wte[id] + wpe[position]: (C)
  const C = x.length, where = wpe.data(position * C, C), at = wte.address / (wte.half ? 2 : 4);
  const { u16, f32 } = wte.heap;
  for (let c = 0; c < C; c++) {
    const i = at + spot(c, id, C);
    x[c] = (wte.half ? from16(u16[i]) : f32[i]) + where[c];
  }
}

/** A weight as kernels.js keeps it, 2^10 times a float16, as a number. */
function from16(bits) {
  const size = bits & 0x7fff;
  return size ? (bits & 0x8000 ? -1 : 1) * (1 + (size & 1023) / 1024) * 2 ** ((size >> 10) - 25) : 0;
}

/** Row i of `pattern`: its first n of S scores become chances, the others 0. In place. */
function softmax(pattern, i, n, S, scale) {
  const row = pattern.data(i * pattern.cols, S);
  let max = -Infinity, sum = 0;
  for (let j = 0; j < n; j++) if (row[j] > max) max = row[j];
  for (let j = 0; j < n; j++) row[j] = (row[j] - max) * scale;
  pattern.heap.exp(pattern.row(i), pad4(n));
  for (let j = 0; j < n; j++) sum += row[j];
  for (let j = 0; j < n; j++) row[j] /= sum;
  row.fill(0, n);
}

// ---------------------------------------------------------------- sampling

/**
 * logits (V) -> the probabilities (V) that sampling draws from, as model_gpt2.filter_probs. temperature > 0.
 */
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
    let before = 0;  // what the likelier ones hold; 0 for the first, so one always stays
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

/** All probability on the likeliest id: what temperature 0 means. */
function certain(logits) {
  const probs = new Float64Array(logits.length);
  probs[argmax(logits)] = 1;
  return probs;
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
    counter = (counter + 0x9e3779b9) >>> 0;  // the golden ratio: visits every 32-bit number once
    let z = counter;
    z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);               // MurmurHash3's finalizer
    z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
    return ((z ^ (z >>> 16)) >>> 0) / 2 ** 32;
  };
}
