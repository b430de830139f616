// train.js: GPT-2 learns in the page. Forward and backward of everything in gpt2.js, AdamW and Muon.
//
// Read it beside notebooks/gradients.ipynb, where each backward is explained, and train_gpt2.py: same names,
// same order. The inner loops are in train_kernels.js.
//   B batch, T time, N = B T rows, C n_embd, nh heads of size hs = C / nh, V vocab_size, Vp padded to 8
// Every array is a Float32Array on one heap. A matrix (rows, columns) lies row after row; weights lie as in
// GPT-2's file, (in, out). An operation comes as two functions, `name` and `name_back`.

import { make_kernels } from "./train_kernels.js";

const pad8 = (n) => (n + 7) & ~7;
const pad4 = (n) => (n + 3) & ~3;

// ---------------------------------------------------------------- operations, each with its backward

/** x (N, C) = wte[id] + wpe[position]. */
function embed(x, wte, wpe, ids, T, C) {
  ids.forEach((id, n) => {
    const what = id * C, where = (n % T) * C, to = n * C;
    for (let c = 0; c < C; c++) x[to + c] = wte[what + c] + wpe[where + c];
  });
}

function embed_back(dx, dwte, dwpe, ids, T, C) {
  ids.forEach((id, n) => {
    const what = id * C, where = (n % T) * C, from = n * C;
    for (let c = 0; c < C; c++) { dwte[what + c] += dx[from + c]; dwpe[where + c] += dx[from + c]; }
  });
}

/** Row by row, in place; row i of a square (T, T) may look at columns 0 .. i. Kernels take four at a time. */
function causal_softmax({ softmax }, P, T, scale) {
  for (let i = 0, at = 0; i < T; i++, at += T) {
    for (let j = i + 1; j < pad4(i + 1); j++) P[at + j] = -Infinity;
    softmax(P, at, pad4(i + 1), scale);
    P.fill(0, at + i + 1, at + T);
  }
}

function causal_softmax_back({ softmax_back }, dP, P, T, scale) {
  for (let i = 0, at = 0; i < T; i++, at += T) {
    softmax_back(dP, P, at, pad4(i + 1), scale);
    dP.fill(0, at + pad4(i + 1), at + T);
  }
}

/**
 * Mean of nats (N), each -ln p(target). `logits` (N, Vp) become their own grads: p minus the truth, over N.
 */
function cross_entropy(nats, logits, targets, V, Vp) {
  const N = targets.length;
  let loss = 0;
  for (let n = 0; n < N; n++) {
    const row = logits.subarray(n * Vp, (n + 1) * Vp);
    let max = -Infinity, sum = 0;
    for (let v = 0; v < V; v++) if (row[v] > max) max = row[v];
    const right = row[targets[n]];
    for (let v = 0; v < V; v++) sum += row[v] = Math.exp(row[v] - max);
    loss += nats[n] = max + Math.log(sum) - right;
    for (let v = 0; v < V; v++) row[v] /= sum * N;
    row[targets[n]] -= 1 / N;
    row.fill(0, V);                                          // the padding rows are never right
  }
  return loss / N;
}

// ---------------------------------------------------------------- the model

/** Names and shapes of a GPT-2 with a tied head, in the file's order of names. */
export function shapes({ n_layer, n_embd: C, vocab_size, block_size }) {
  const all = { "transformer.wte.weight": [vocab_size, C], "transformer.wpe.weight": [block_size, C] };
  for (let layer = 0; layer < n_layer; layer++) {
    const h = `transformer.h.${layer}`;
    Object.assign(all, {
      [`${h}.ln_1.weight`]: [C], [`${h}.ln_1.bias`]: [C],
      [`${h}.attn.c_attn.weight`]: [C, 3 * C], [`${h}.attn.c_attn.bias`]: [3 * C],
      [`${h}.attn.c_proj.weight`]: [C, C], [`${h}.attn.c_proj.bias`]: [C],
      [`${h}.ln_2.weight`]: [C], [`${h}.ln_2.bias`]: [C],
      [`${h}.mlp.c_fc.weight`]: [C, 4 * C], [`${h}.mlp.c_fc.bias`]: [4 * C],
      [`${h}.mlp.c_proj.weight`]: [4 * C, C], [`${h}.mlp.c_proj.bias`]: [C],
    });
  }
  return Object.assign(all, { "transformer.ln_f.weight": [C], "transformer.ln_f.bias": [C] });
}

const WTE = "transformer.wte.weight", WPE = "transformer.wpe.weight";
const size = (shape) => shape.reduce((a, b) => a * b, 1);

/** How many bytes build(room) asks for. */
function room_for(build) {
  let floats = 0;
  build((n) => { floats += pad4(n); return new Float32Array(0); });
  return 4 * floats;
}

/** One sentence if train.js cannot train a model of this config, else null. */
export function whyNot({ n_layer, n_head, n_embd, block_size, vocab_size }) {
  if ([n_layer, n_head, n_embd, block_size, vocab_size].some((n) => !Number.isInteger(n) || n < 1)) {
    return "Layers, heads, width, context and alphabet must be whole numbers above 0.";
  }
  if (n_embd % n_head || (n_embd / n_head) % 8) {
    return `The width must be heads times a multiple of 8, and ${n_embd} is not, with ${n_head} heads.`;
  }
  if (block_size % 8) return `The context must be a multiple of 8, and ${block_size} is not.`;
  return null;
}

/**
 * A GPT-2 in training: params, grads, and room for what a batch of B sequences leaves on its way forward.
 *
 * Several workers may share a batch (train_team.js): each makes a GPT on the same memory and is one of its
 * members, with B sequences, grads and room of its own. Params, moments, batch and nats are common.
 */
export class GPT {
  /** config as in config.json's terms of model_gpt2.GPTConfig. kernels "wasm" or "plain". */
  constructor(config, B, { kernels = "wasm", members = 1, member = 0, memory = null } = {}) {
    const problem = whyNot(config);
    if (problem) throw new Error(problem);
    Object.assign(this, { config, B, members, member, shapes: shapes(config), Vp: pad8(config.vocab_size) });
    const common = room_for((room) => this.build_common(room));
    const own = room_for((room) => this.build_own(room));
    this.bytes = common + members * own;
    const pages = Math.ceil(this.bytes / 65536);
    this.memory = memory ?? new WebAssembly.Memory({ initial: pages, maximum: pages, shared: members > 1 });
    const rooms = (next) => (length) => {
      const array = new Float32Array(this.memory.buffer, next, length);
      next += 4 * pad4(length);
      return array;
    };
    const place = (who) => common + who * own;
    this.build_common(rooms(0));
    this.build_own(rooms(place(member)), kernels);
    this.all_grads = Array.from({ length: members }, (_, who) => rooms(place(who))(this.length));
    this.sums = this.named(this.all_grads[0]);               // the first member's become the whole batch's
  }

  /** How many numbers a tensor takes. wte is padded: its last rows stay 0. */
  length_of(name) { return name === WTE ? this.Vp * this.config.n_embd : pad4(size(this.shapes[name])); }

  /** { name: its part of flat }. */
  named(flat) {
    let at = 0;
    return Object.fromEntries(Object.keys(this.shapes).map((name) =>
      [name, flat.subarray(at, at += this.length_of(name))]));
  }

  build_common(room) {
    const { config: { block_size: T }, B, members } = this, N = members * B * T;
    this.length = Object.keys(this.shapes).reduce((sum, name) => sum + this.length_of(name), 0);
    [this.flat, this.mean, this.square] = [room(this.length), room(this.length), room(this.length)];
    this.params = this.named(this.flat);
    const whole = (array) => new Int32Array(array.buffer, array.byteOffset, array.length);
    [this.x_ids, this.y_ids] = [whole(room(N)), whole(room(N))];
    this.nats = room(N);
    this.cells = room(2 * members + 2);                // what members tell each other: losses, squares, order
    [this.meeting, this.moves] = [whole(room(4)), whole(room(4))];
  }

  build_own(room, kernels) {
    const { config: { n_layer, n_head: nh, n_embd: C, block_size: T }, B, Vp } = this, N = B * T;
    this.grads = this.named(this.flat_grads = room(this.length));
    const norm = () => ({ out: room(N * C), n: room(N * C), scale: room(N) });
    this.acts = Array.from({ length: n_layer }, () => ({
      ln_1: norm(), qkv: room(3 * N * C), P: room(B * nh * T * T), y: room(N * C),
      ln_2: norm(), fc: room(4 * N * C), s: room(4 * N * C), gelu: room(4 * N * C),
    }));
    this.ln_f = norm();
    this.x = room(N * C);                                    // the stream
    this.dx = room(N * C);
    this.logits = room(N * Vp);
    this.dP = room(T * T);
    this.wide = room(4 * N * C);                             // grads of what is wider than the stream
    this.dqkv = this.wide.subarray(0, 3 * N * C);
    this.narrow = room(N * C);
    this.views = new Map();
    this.muon = { x: room(4 * C * C), y: room(4 * C * C), a: room(C * C), b: room(C * C) };
    this.kernels = make_kernels(this.memory, room, Math.max(4 * C, Vp, T), kernels);
  }

  /** GPT-2's start: every matrix normal with 0.02, the last of each block smaller; random() in [0, 1). */
  init(random) {
    const small = 0.02 / Math.sqrt(2 * this.config.n_layer);
    const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    for (const [name, shape] of Object.entries(this.shapes)) {
      const p = this.params[name], std = name.endsWith("c_proj.weight") ? small : 0.02;
      p.fill(0);
      if (shape.length === 1) p.fill(name.endsWith("weight") ? 1 : 0);
      else for (let i = 0; i < size(shape); i++) p[i] = std * normal();
    }
  }

  /** y (N, to) = x (N, from) @ weight + bias. */
  linear(y, x, name, from, to) {
    const { [`${name}.weight`]: weight, [`${name}.bias`]: bias } = this.params;
    this.kernels.product(y, x, weight, x.length / from, from, to, { bias });
  }

  /** dx (N, from) = dy @ weightᵀ; weight's grad xᵀ @ dy, bias' grad the sum of the rows of dy. */
  linear_back(dx, dy, x, name, from, to) {
    const N = x.length / from, db = this.grads[`${name}.bias`];
    for (let i = 0; i < N * to; i += to) this.kernels.add(db, dy, i);
    this.kernels.product(this.grads[`${name}.weight`], x, dy, from, N, to, { turn_a: true, add: true });
    this.kernels.product(dx, dy, this.params[`${name}.weight`], N, to, from, { turn_b: true });
  }

  /** For each head of each sequence, its parts of an array with parts * C columns; made once an array. */
  heads(array, parts) {
    const { B, views, config: { n_head: nh, n_embd: C, block_size: T } } = this;
    const part = (i, j) => array.subarray(Math.floor(i / nh) * T * parts * C + j * C + (i % nh) * (C / nh));
    const head = (i) => Array.from({ length: parts }, (_, j) => part(i, j));
    if (!views.has(array)) views.set(array, Array.from({ length: B * nh }, (_, i) => head(i)));
    return views.get(array);
  }

  /** y (N, C) from qkv (N, 3C); the votes P (B, nh, T, T) are kept. */
  attention(y, qkv, P) {
    const { n_head: nh, n_embd: C, block_size: T } = this.config, hs = C / nh, { product } = this.kernels;
    const outs = this.heads(y, 1);
    this.heads(qkv, 3).forEach(([q, k, v], i) => {
      const votes = P.subarray(i * T * T, (i + 1) * T * T);
      product(votes, q, k, T, hs, T, { as: 3 * C, bs: 3 * C, turn_b: true });
      causal_softmax(this.kernels, votes, T, 1 / Math.sqrt(hs));
      product(outs[i][0], votes, v, T, T, hs, { bs: 3 * C, cs: C });
    });
  }

  attention_back(dqkv, dy, qkv, P) {
    const { dP, kernels: { product }, config: { n_head: nh, n_embd: C, block_size: T } } = this, hs = C / nh;
    const grads = this.heads(dqkv, 3), outs = this.heads(dy, 1);
    this.heads(qkv, 3).forEach(([q, k, v], i) => {
      const [dq, dk, dv] = grads[i], [g] = outs[i], votes = P.subarray(i * T * T, (i + 1) * T * T);
      product(dP, g, v, T, hs, T, { as: C, bs: 3 * C, turn_b: true });           // P gets g vᵀ
      product(dv, votes, g, T, T, hs, { turn_a: true, bs: C, cs: 3 * C });       // v gets Pᵀ g
      causal_softmax_back(this.kernels, dP, votes, T, 1 / Math.sqrt(hs));
      product(dq, dP, k, T, T, hs, { bs: 3 * C, cs: 3 * C });                    // q gets dS k
      product(dk, dP, q, T, T, hs, { turn_a: true, bs: 3 * C, cs: 3 * C });      // k gets dSᵀ q
    });
  }

  /** The loss of a batch: x and y are B * T ids each. backward() may follow once. */
  forward(x, y) {
    const { params: p, acts, config: { n_layer, n_embd: C, block_size: T, vocab_size: V }, Vp } = this;
    const N = x.length;
    const { layer_norm, add, gelu, product } = this.kernels;
    const norm = (name, { out, n, scale }) => {
      const { [`${name}.weight`]: w, [`${name}.bias`]: b } = p;
      for (let row = 0; row < N; row++) layer_norm(out, this.x, w, b, n, scale, row, C);
    };
    this.ids = x;
    embed(this.x, p[WTE], p[WPE], x, T, C);
    for (let layer = 0; layer < n_layer; layer++) {
      const h = `transformer.h.${layer}`, a = acts[layer];
      norm(`${h}.ln_1`, a.ln_1);
      this.linear(a.qkv, a.ln_1.out, `${h}.attn.c_attn`, C, 3 * C);
      this.attention(a.y, a.qkv, a.P);
      this.linear(this.narrow, a.y, `${h}.attn.c_proj`, C, C);
      add(this.x, this.narrow);
      norm(`${h}.ln_2`, a.ln_2);
      this.linear(a.fc, a.ln_2.out, `${h}.mlp.c_fc`, C, 4 * C);
      gelu(a.gelu, a.fc, a.s);
      this.linear(this.narrow, a.gelu, `${h}.mlp.c_proj`, 4 * C, C);
      add(this.x, this.narrow);
    }
    norm("transformer.ln_f", this.ln_f);
    product(this.logits, this.ln_f.out, p[WTE], N, C, Vp, { turn_b: true });
    return cross_entropy(this.nats.subarray(this.member * N), this.logits, y, V, Vp);
  }

  /** Add the slopes of the last forward's loss to grads. */
  backward() {
    const { params: p, grads: d, acts, dx, narrow, wide, dqkv, Vp, ids } = this, N = ids.length;
    const { n_layer, n_embd: C, block_size: T } = this.config;
    const { product, gelu_back, layer_norm_back } = this.kernels;
    const norm = (name, { n, scale }) => {
      const { [`${name}.weight`]: dw, [`${name}.bias`]: db } = d, w = p[`${name}.weight`];
      for (let row = 0; row < N; row++) layer_norm_back(dx, narrow, w, dw, db, n, scale, row, C);
    };
    product(narrow, this.logits, p[WTE], N, Vp, C);
    product(d[WTE], this.logits, this.ln_f.out, Vp, N, C, { turn_a: true, add: true });
    dx.fill(0);
    norm("transformer.ln_f", this.ln_f);
    for (let layer = n_layer - 1; layer >= 0; layer--) {
      const h = `transformer.h.${layer}`, a = acts[layer];
      this.linear_back(wide, dx, a.gelu, `${h}.mlp.c_proj`, 4 * C, C);
      gelu_back(wide, wide, a.fc, a.s);
      this.linear_back(narrow, wide, a.ln_2.out, `${h}.mlp.c_fc`, C, 4 * C);
      norm(`${h}.ln_2`, a.ln_2);
      this.linear_back(narrow, dx, a.y, `${h}.attn.c_proj`, C, C);
      this.attention_back(dqkv, narrow, a.qkv, a.P);
      this.linear_back(narrow, dqkv, a.ln_1.out, `${h}.attn.c_attn`, C, 3 * C);
      norm(`${h}.ln_1`, a.ln_1);
    }
    embed_back(dx, d[WTE], d[WPE], ids, T, C);
  }

  zero_grad() { this.flat_grads.fill(0); }

  /** What a run needs to go on: weights, moments, and how often they moved. */
  state() {
    const { flat, mean, square, moves } = this;
    return { flat: flat.slice(), mean: mean.slice(), square: square.slice(), moves: moves[0] };
  }

  load_state({ flat, mean, square, moves }) {
    this.flat.set(flat);
    this.mean.set(mean);
    this.square.set(square);
    this.moves[0] = moves;
  }

  /** Wait until every member has come here. `most`: milliseconds until one counts as lost. */
  meet(most = 30_000) {
    const { meeting, members } = this, [COUNT, TURN] = [0, 1];
    if (members === 1) return;
    const turn = Atomics.load(meeting, TURN);
    if (Atomics.add(meeting, COUNT, 1) === members - 1) {
      Atomics.store(meeting, COUNT, 0);
      Atomics.add(meeting, TURN, 1);
      Atomics.notify(meeting, TURN);
    } else while (Atomics.load(meeting, TURN) === turn) {
      if (Atomics.wait(meeting, TURN, turn, most) === "timed-out") {
        throw new Error("One of the page's workers was lost: reload the page.");
      }
    }
  }
}

// ---------------------------------------------------------------- schedule, step, exact loss: train_gpt2.py

/**
 * Up over warmup_steps, then down to min_lr at horizon: "linear" or "cosine". A clock gives its own horizon.
 */
export function lr_at(law, step, horizon = law.max_steps) {
  const { lr, min_lr = 0, warmup_steps, schedule = "linear" } = law;
  const warmup = Math.min(warmup_steps, Math.floor(horizon / 2));
  if (step < warmup) return lr * (step + 1) / warmup;
  if (step >= horizon) return min_lr;
  const left = (horizon - step) / (horizon - warmup);
  return min_lr + (schedule === "cosine" ? 0.5 - 0.5 * Math.cos(Math.PI * left) : left) * (lr - min_lr);
}

/** torch.optim.AdamW for these params. Weight decay pulls on matrices, never on biases and LayerNorm. */
export class AdamW {
  constructor(model, names, { lr, beta1 = 0.9, beta2 = 0.99, weight_decay = 0.1, epsilon = 1e-8 }) {
    Object.assign(this, { model, names, lr, beta1, beta2, weight_decay, epsilon });
    [this.mean, this.square] = [model.named(model.mean), model.named(model.square)];
  }

  /**
   * One step at `share` of the learning rate; the grads are multiplied by `scale`, which is how they are
   * clipped.
   */
  step(share, scale = 1) {
    const { model, beta1, beta2, epsilon } = this, lr = share * this.lr, t = model.moves[0] + 1;
    const fix1 = 1 - beta1 ** t, fix2 = Math.sqrt(1 - beta2 ** t);
    for (const name of this.names) {
      const p = model.params[name], g = model.sums[name], m = this.mean[name], s = this.square[name];
      const keep = model.shapes[name].length > 1 ? 1 - lr * this.weight_decay : 1;
      for (let i = 0; i < p.length; i++) {
        const slope = g[i] * scale;
        m[i] += (1 - beta1) * (slope - m[i]);
        s[i] += (1 - beta2) * (slope * slope - s[i]);
        p[i] = p[i] * keep - lr / fix1 * m[i] / (Math.sqrt(s[i]) / fix2 + epsilon);
      }
    }
  }
}

/**
 * Momentum whose step is made orthogonal (gpt2/optim.py; Jordan et al. 2024). For the matrices of the blocks.
 */
export class Muon {
  constructor(model, names, { lr, momentum = 0.95, weight_decay = 0 }) {
    Object.assign(this, { model, names, lr, momentum, weight_decay });
    this.mean = model.named(model.mean);
  }

  step(share, scale = 1) {
    const { model, momentum } = this, lr = share * this.lr, keep = 1 - lr * this.weight_decay;
    const { x } = model.muon;
    for (const name of this.names) {
      const p = model.params[name], g = model.sums[name], m = this.mean[name];
      const [rows, all] = model.shapes[name];
      const parts = all === 3 * rows ? 3 : 1, columns = all / parts;           // c_attn is three matrices
      const size = Math.sqrt(Math.max(1, columns / rows));
      for (let part = 0; part < parts; part++) {
        for (let i = 0, at = 0; i < rows; i++) {
          for (let k = i * all + part * columns, end = k + columns; k < end; k++, at++) {
            const slope = g[k] * scale;
            m[k] += (1 - momentum) * (slope - m[k]);
            x[at] = slope + momentum * (m[k] - slope);       // Nesterov: look one step ahead
          }
        }
        const update = orthogonalize(model, rows, columns);
        for (let i = 0, at = 0; i < rows; i++) {
          for (let k = i * all + part * columns, end = k + columns; k < end; k++, at++) {
            p[k] = keep * p[k] - lr * size * update[at];
          }
        }
      }
    }
  }
}

/**
 * muon.x (rows, columns) -> nearly the closest matrix with all singular values 1: five Newton-Schulz steps.
 */
function orthogonalize({ muon, kernels: { product } }, rows, columns) {
  const n = rows * columns, tall = rows > columns, [small, large] = tall ? [columns, rows] : [rows, columns];
  let [x, y] = [muon.x, muon.y].map((room) => room.subarray(0, n)), square = 0;
  const [a, b] = [muon.a, muon.b].map((room) => room.subarray(0, small * small));
  for (let i = 0; i < n; i++) square += x[i] * x[i];
  for (let i = 0, size = Math.sqrt(square) + 1e-7; i < n; i++) x[i] /= size;
  for (let turn = 0; turn < 5; turn++) {
    if (tall) product(a, x, x, small, large, small, { turn_a: true });         // the short side squared
    else product(a, x, x, small, large, small, { turn_b: true });
    product(b, a, a, small, small, small);
    for (let i = 0; i < b.length; i++) b[i] = 2.0315 * b[i] - 4.775 * a[i];
    for (let i = 0; i < b.length; i += small + 1) b[i] += 3.4445;       // the diagonal: 3.4445 times x itself
    if (tall) product(y, x, b, large, small, small);
    else product(y, b, x, small, small, large);
    [x, y] = [y, x];
  }
  return x;
}

/** [AdamW] or [Muon, AdamW], a member's part. law: { optimizer, lr, muon_lr, beta1, beta2, weight_decay }. */
export function make_optimizers(model, law) {
  const { members, member, shapes } = model, muon = law.optimizer === "muon";
  const names = Object.keys(shapes).sort((a, b) => size(shapes[b]) - size(shapes[a]));
  const for_muon = (name) => muon && name.includes(".h.") && shapes[name].length === 2;
  const mine = (test) => names.filter(test).filter((_, i) => i % members === member);
  const adamw = new AdamW(model, mine((name) => !for_muon(name)), law);
  if (!muon) return [adamw];
  return [new Muon(model, mine(for_muon), { lr: law.muon_lr, weight_decay: law.weight_decay }), adamw];
}

/**
 * Forward, backward, clip, step at `share` of the learning rates. Returns { loss, norm, moved }; a norm that
 * is not finite moves nothing. x, y: the B * T ids of this member; loss and norm are the whole batch's.
 */
export function optimizer_step(model, optimizers, x, y, share, grad_clip = 1) {
  const { member, members, cells } = model;
  const losses = cells.subarray(0, members), squares = cells.subarray(members, 2 * members);
  model.zero_grad();
  losses[member] = model.forward(x, y);
  model.backward();
  model.meet();
  squares[member] = mean_grads(model);
  model.meet();
  const norm = Math.sqrt(squares.reduce((a, b) => a + b)), moved = Number.isFinite(norm);
  const scale = Math.min(1, grad_clip / (norm + 1e-6));
  if (moved) for (const optimizer of optimizers) optimizer.step(share, scale);
  const loss = losses.reduce((a, b) => a + b) / members;
  model.meet();
  if (moved && member === 0) model.moves[0]++;
  return { loss, norm, moved };
}

/** The first member's grads become the mean of all; each sees to a part, and returns its sum of squares. */
function mean_grads({ all_grads: [sum, ...others], members, member }) {
  const part = Math.ceil(sum.length / members), end = Math.min(sum.length, (member + 1) * part);
  let square = 0;
  for (const other of others) for (let i = member * part; i < end; i++) sum[i] += other[i];
  for (let i = member * part; i < end; i++) {
    sum[i] /= members;
    square += sum[i] * sum[i];
  }
  return square;
}

/**
 * Exact loss in nats a token: every target of ids scored once, in windows of block_size. Yields now and then.
 */
export function* evaluate(model, ids) {
  const { B, config: { block_size: T } } = model, targets = ids.length - 1;
  const x = new Int32Array(B * T), y = new Int32Array(B * T);
  let total = 0;
  for (let first = 0; first < targets; first += B * T) {
    const n = Math.min(B * T, targets - first);
    x.fill(0); y.fill(0);                                   // what lies behind the last target is not counted
    x.set(ids.subarray(first, first + n));
    y.set(ids.subarray(first + 1, first + n + 1));
    model.forward(x, y);
    for (let i = 0; i < n; i++) total += model.nats[i];
    yield first + n;
  }
  return total / targets;
}
