// train.js: GPT-2 learns in the page. Forward and backward of everything in gpt2.js, AdamW and Muon, without a library.
//
// Read it beside notebooks/gradients.ipynb, where each backward is explained, and train_gpt2.py: same names, same order.
//   B batch, T time, N = B T rows, C n_embd, nh heads of size hs = C / nh, V vocab_size (padded to a multiple of 8)
// Every array is a Float32Array on one heap. A matrix (rows, columns) lies row after row; weights lie as in GPT-2's file,
// (in, out). An operation comes as two functions, `name` and `name_back`; a _back ADDS to the grads of its inputs.

import { assemble } from "./kernels.js";

const EPSILON = 1e-5;                                        // LayerNorm's
const pad8 = (n) => (n + 7) & ~7;

// ---------------------------------------------------------------- the one product that everything is made of

export const SOURCE = String.raw`
  ;; c (n, m) += a (n, k) @ b (k, m). Four rows and eight columns of c stay in registers while k runs through.
  func matmul param i32 c i32 a i32 b i32 n i32 k i32 m
    local i32 ka i32 row i32 end i32 cj i32 cend i32 bj i32 w i32 a0 i32 a1 i32 a2 i32 a3 i32 aend i32 c1 i32 c2 i32 c3
      v128 b0 v128 b1 v128 x v128 s0 v128 t0 v128 s1 v128 t1 v128 s2 v128 t2 v128 s3 v128 t3
    get k  i32.const 4  i32.mul  set ka
    get m  i32.const 4  i32.mul  set row
    get c  get n  get row  i32.mul  i32.add  set end
    loop rows
      get c  set cj
      get c  get row  i32.add  set cend
      get b  set bj
      loop columns
        get cj  get row  i32.add  set c1
        get c1  get row  i32.add  set c2
        get c2  get row  i32.add  set c3
        get cj v128.load 0  set s0   get cj v128.load 16  set t0
        get c1 v128.load 0  set s1   get c1 v128.load 16  set t1
        get c2 v128.load 0  set s2   get c2 v128.load 16  set t2
        get c3 v128.load 0  set s3   get c3 v128.load 16  set t3
        get a  set a0
        get a0  get ka  i32.add  tee a1  set aend
        get a1  get ka  i32.add  set a2
        get a2  get ka  i32.add  set a3
        get bj  set w
        loop inner
          get w  v128.load 0  set b0
          get w  v128.load 16  set b1
          get a0  v128.load32_splat 0  set x
          get s0  get x  get b0  f32x4.mul  f32x4.add  set s0
          get t0  get x  get b1  f32x4.mul  f32x4.add  set t0
          get a1  v128.load32_splat 0  set x
          get s1  get x  get b0  f32x4.mul  f32x4.add  set s1
          get t1  get x  get b1  f32x4.mul  f32x4.add  set t1
          get a2  v128.load32_splat 0  set x
          get s2  get x  get b0  f32x4.mul  f32x4.add  set s2
          get t2  get x  get b1  f32x4.mul  f32x4.add  set t2
          get a3  v128.load32_splat 0  set x
          get s3  get x  get b0  f32x4.mul  f32x4.add  set s3
          get t3  get x  get b1  f32x4.mul  f32x4.add  set t3
          get w  get row  i32.add  set w
          get a1  i32.const 4  i32.add  set a1
          get a2  i32.const 4  i32.add  set a2
          get a3  i32.const 4  i32.add  set a3
          get a0  i32.const 4  i32.add  tee a0
          get aend  i32.lt_u  br_if inner
        end
        get cj  get s0  v128.store 0   get cj  get t0  v128.store 16
        get c1  get s1  v128.store 0   get c1  get t1  v128.store 16
        get c2  get s2  v128.store 0   get c2  get t2  v128.store 16
        get c3  get s3  v128.store 0   get c3  get t3  v128.store 16
        get bj  i32.const 32  i32.add  set bj
        get cj  i32.const 32  i32.add  tee cj
        get cend  i32.lt_u  br_if columns
      end
      get a3  set a
      get c  get row  i32.const 4  i32.mul  i32.add  tee c
      get end  i32.lt_u  br_if rows
    end
  end
`;

/** The same in plain JavaScript: two rows and four columns of c at a time. */
function matmulPlain(c, a, b, n, k, m) {
  for (let i = 0; i < n; i += 2) {
    for (let j = 0; j < m; j += 4) {
      const at = i * m + j, below = at + m;
      let s0 = c[at], s1 = c[at + 1], s2 = c[at + 2], s3 = c[at + 3];
      let t0 = c[below], t1 = c[below + 1], t2 = c[below + 2], t3 = c[below + 3];
      for (let p = 0, w = j, q = i * k; p < k; p++, w += m, q++) {
        const x = a[q], y = a[q + k], b0 = b[w], b1 = b[w + 1], b2 = b[w + 2], b3 = b[w + 3];
        s0 += x * b0; s1 += x * b1; s2 += x * b2; s3 += x * b3;
        t0 += y * b0; t1 += y * b1; t2 += y * b2; t3 += y * b3;
      }
      c[at] = s0; c[at + 1] = s1; c[at + 2] = s2; c[at + 3] = s3;
      c[below] = t0; c[below + 1] = t1; c[below + 2] = t2; c[below + 3] = t3;
    }
  }
}

/** y (columns, rows) = x (rows, columns) turned over. */
function transpose(y, x, rows, columns) {
  for (let i0 = 0; i0 < rows; i0 += 16) {                    // in squares: both arrays stay near
    const i1 = Math.min(i0 + 16, rows);
    for (let j = 0; j < columns; j++) for (let i = i0; i < i1; i++) y[j * rows + i] = x[i * columns + j];
  }
}

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

/** y = w n + b with n = (x - mean) / spread, row by row; n and 1 / spread are kept for the way back. */
function layer_norm(y, x, w, b, kept, N, C) {
  for (let row = 0; row < N; row++) {
    const at = row * C;
    let mean = 0, square = 0;
    for (let c = at; c < at + C; c++) mean += x[c];
    mean /= C;
    for (let c = at; c < at + C; c++) square += (x[c] - mean) ** 2;
    const scale = kept.scale[row] = 1 / Math.sqrt(square / C + EPSILON);
    for (let c = 0; c < C; c++) {
      const n = kept.n[at + c] = (x[at + c] - mean) * scale;
      y[at + c] = n * w[c] + b[c];
    }
  }
}

/** Take out what would only shift the row and what would only stretch it; the rest comes through. */
function layer_norm_back(dx, dy, w, dw, db, kept, N, C) {
  for (let row = 0; row < N; row++) {
    const at = row * C, scale = kept.scale[row], n = kept.n;
    let shift = 0, stretch = 0;
    for (let c = 0; c < C; c++) {
      const g = dy[at + c], d = g * w[c];
      shift += d;
      stretch += d * n[at + c];
      dw[c] += g * n[at + c];
      db[c] += g;
    }
    shift /= C; stretch /= C;
    for (let c = 0; c < C; c++) dx[at + c] += (dy[at + c] * w[c] - shift - n[at + c] * stretch) * scale;
  }
}

/** GPT-2's own, with tanh; the tanh is kept. */
function gelu(y, x, kept) {
  for (let i = 0; i < x.length; i++) {
    const u = x[i];                                          // tanh z = 1 - 2 / (e^2z + 1): half the price of Math.tanh
    const t = kept[i] = 1 - 2 / (Math.exp(1.5957691216057308 * (u + 0.044715 * u * u * u)) + 1);
    y[i] = 0.5 * u * (1 + t);
  }
}

function gelu_back(dx, dy, x, kept) {
  for (let i = 0; i < x.length; i++) {
    const u = x[i], t = kept[i];
    dx[i] = dy[i] * (0.5 * (1 + t) + 0.5 * u * (1 - t * t) * 0.7978845608028654 * (1 + 0.134145 * u * u));
  }
}

/** Row by row, in place; row i of each square (T, T) may look at columns 0 .. i. */
function causal_softmax(P, T, scale) {
  for (let at = 0, i = 0; at < P.length; at += T, i = (i + 1) % T) {
    let max = -Infinity, sum = 0;
    for (let j = at; j <= at + i; j++) if (P[j] > max) max = P[j];
    for (let j = at; j <= at + i; j++) sum += P[j] = Math.exp((P[j] - max) * scale);
    for (let j = at; j <= at + i; j++) P[j] /= sum;
    P.fill(0, at + i + 1, at + T);
  }
}

/** dS = P (dP - the row's mean of dP weighed by P), into dP's place. */
function causal_softmax_back(dP, P, T, scale) {
  for (let at = 0, i = 0; at < P.length; at += T, i = (i + 1) % T) {
    let mean = 0;
    for (let j = at; j <= at + i; j++) mean += P[j] * dP[j];
    for (let j = at; j <= at + i; j++) dP[j] = P[j] * (dP[j] - mean) * scale;
    dP.fill(0, at + i + 1, at + T);
  }
}

/** Mean of nats (N), each -ln p(target). `logits` (N, Vp) become their own grads: p minus the truth, over N. */
function cross_entropy(nats, logits, targets, V, Vp) {
  const N = targets.length;
  let loss = 0;
  for (let n = 0; n < N; n++) {
    const row = logits.subarray(n * Vp, (n + 1) * Vp);
    let max = -Infinity, sum = 0;
    for (let v = 0; v < V; v++) if (row[v] > max) max = row[v];
    for (let v = 0; v < V; v++) sum += Math.exp(row[v] - max);
    loss += nats[n] = max + Math.log(sum) - row[targets[n]];
    for (let v = 0; v < V; v++) row[v] = Math.exp(row[v] - max) / sum / N;
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

const size = (shape) => shape.reduce((a, b) => a * b, 1);

/** One sentence if train.js cannot train a model of this config, else null. */
export function whyNot({ n_layer, n_head, n_embd, block_size, vocab_size }) {
  if ([n_layer, n_head, n_embd, block_size, vocab_size].some((n) => !Number.isInteger(n) || n < 1)) return "Layers, heads, width, context and alphabet must be whole numbers above 0.";
  if (n_embd % n_head || (n_embd / n_head) % 8) return `The width must be heads times a multiple of 8, and ${n_embd} is not, with ${n_head} heads.`;
  if (block_size % 8) return `The context must be a multiple of 8, and ${block_size} is not.`;
  return null;
}

/** A GPT-2 in training: params, grads, and room for what a batch of B sequences leaves on its way forward. */
export class GPT {
  /** config as in config.json's terms of model_gpt2.GPTConfig. kernels "wasm" or "plain". */
  constructor(config, B, kernels = "wasm") {
    const problem = whyNot(config);
    if (problem) throw new Error(problem);
    Object.assign(this, { config, B, shapes: shapes(config), kernels, Vp: pad8(config.vocab_size) });
    let bytes = 0;
    this.build((n) => { bytes += Math.ceil(n / 4) * 16; return null; });         // first only to learn how much room
    const pages = Math.ceil(bytes / 65536), memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    let next = 0;
    this.build((n) => {
      const array = new Float32Array(memory.buffer, next, n);
      next += Math.ceil(n / 4) * 16;
      return array;
    });
    this.bytes = bytes;
    if (kernels === "wasm") {
      const { exports } = new WebAssembly.Instance(new WebAssembly.Module(assemble(SOURCE)), { page: { memory } });
      this.product = (c, a, b, n, k, m) => exports.matmul(c.byteOffset, a.byteOffset, b.byteOffset, n, k, m);
    } else this.product = matmulPlain;
  }

  build(room) {
    const { config: { n_layer, n_head: nh, n_embd: C, block_size: T }, B, Vp } = this, N = B * T;
    const named = () => Object.fromEntries(Object.entries(this.shapes).map(([name, shape]) =>
      [name, room(name === "transformer.wte.weight" ? Vp * C : size(shape))]));  // wte padded: its last rows stay 0
    this.params = named();
    this.grads = named();
    const norm = () => ({ out: room(N * C), n: room(N * C), scale: room(N) });
    this.acts = Array.from({ length: n_layer }, () => ({ ln_1: norm(), qkv: room(3 * N * C), P: room(B * nh * T * T),
      y: room(N * C), ln_2: norm(), fc: room(4 * N * C), tanh: room(4 * N * C), gelu: room(4 * N * C) }));
    this.ln_f = norm();
    this.x = room(N * C);                                    // the stream
    this.dx = room(N * C);
    this.logits = room(N * Vp);
    this.nats = new Float64Array(N);
    this.head = { q: room(T * C / nh), k: room(T * C / nh), v: room(T * C / nh), y: room(T * C / nh), dP: room(T * T),
      turned: room(T * Math.max(T, C / nh)) };
    this.wide = room(4 * N * C);                             // grads of what is wider than the stream
    this.narrow = room(N * C);
    this.turned = room(Math.max(4 * N * C, 4 * C * C, N * Vp, Vp * C));
    this.muon = { x: room(4 * C * C), y: room(4 * C * C), xT: room(4 * C * C), a: room(C * C), b: room(C * C) };
  }

  /** GPT-2's start: every matrix normal with 0.02, the last of each block smaller; random() in [0, 1). */
  init(random) {
    const small = 0.02 / Math.sqrt(2 * this.config.n_layer);
    for (const [name, shape] of Object.entries(this.shapes)) {
      const p = this.params[name], std = name.endsWith("c_proj.weight") ? small : 0.02;
      p.fill(0);
      if (shape.length === 1) p.fill(name.endsWith("weight") ? 1 : 0);
      else for (let i = 0; i < size(shape); i++) p[i] = std * Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    }
  }

  /** y (N, to) = x (N, from) @ weight + bias. */
  linear(y, x, name, from, to) {
    const bias = this.params[`${name}.bias`], N = x.length / from;
    for (let n = 0; n < N; n++) y.set(bias, n * to);
    this.product(y, x, this.params[`${name}.weight`], N, from, to);
  }

  /** dx (N, from) += dy @ weightᵀ; weight's grad xᵀ @ dy, bias' grad the sum of the rows of dy. */
  linear_back(dx, dy, x, name, from, to) {
    const N = x.length / from, db = this.grads[`${name}.bias`];
    for (let n = 0, i = 0; n < N; n++) for (let c = 0; c < to; c++) db[c] += dy[i++];
    const xT = this.turned.subarray(0, N * from);
    transpose(xT, x, N, from);
    this.product(this.grads[`${name}.weight`], xT, dy, from, N, to);
    const wT = this.turned.subarray(0, from * to);
    transpose(wT, this.params[`${name}.weight`], from, to);
    this.product(dx, dy, wT, N, to, from);
  }

  /** Copy one head's part of qkv (which: 0 q, 1 k, 2 v) into `to` (T, hs), or add `to` to it where `back`. */
  each(qkv, b, h, which, to, back = false) {
    const { n_head: nh, n_embd: C, block_size: T } = this.config, hs = C / nh;
    for (let t = 0; t < T; t++) {
      const at = (b * T + t) * 3 * C + which * C + h * hs;
      if (back) qkv.set(to.subarray(t * hs, (t + 1) * hs), at);
      else to.set(qkv.subarray(at, at + hs), t * hs);
    }
  }

  /** y (N, C) from qkv (N, 3C); the votes P (B, nh, T, T) are kept. */
  attention(y, qkv, P) {
    const { n_head: nh, n_embd: C, block_size: T } = this.config, hs = C / nh, { q, k, v, y: out, turned } = this.head;
    P.fill(0);
    for (let b = 0; b < this.B; b++) for (let h = 0; h < nh; h++) {
      const votes = P.subarray((b * nh + h) * T * T, (b * nh + h + 1) * T * T);
      this.each(qkv, b, h, 0, q); this.each(qkv, b, h, 1, k); this.each(qkv, b, h, 2, v);
      transpose(turned, k, T, hs);
      this.product(votes, q, turned, T, hs, T);
      causal_softmax(votes, T, 1 / Math.sqrt(hs));
      out.fill(0);
      this.product(out, votes, v, T, T, hs);
      for (let t = 0; t < T; t++) y.set(out.subarray(t * hs, (t + 1) * hs), (b * T + t) * C + h * hs);
    }
  }

  attention_back(dqkv, dy, qkv, P) {
    const { n_head: nh, n_embd: C, block_size: T } = this.config, hs = C / nh;
    const { q, k, v, y: g, dP, turned } = this.head, s = 1 / Math.sqrt(hs);
    for (let b = 0; b < this.B; b++) for (let h = 0; h < nh; h++) {
      const votes = P.subarray((b * nh + h) * T * T, (b * nh + h + 1) * T * T);
      for (let t = 0; t < T; t++) g.set(dy.subarray((b * T + t) * C + h * hs, (b * T + t) * C + (h + 1) * hs), t * hs);
      this.each(qkv, b, h, 0, q); this.each(qkv, b, h, 1, k); this.each(qkv, b, h, 2, v);
      transpose(turned, v, T, hs);
      dP.fill(0);
      this.product(dP, g, turned, T, hs, T);                 // P gets g vᵀ
      transpose(turned, votes, T, T);
      v.fill(0);
      this.product(v, turned, g, T, T, hs);                  // v gets Pᵀ g
      this.each(dqkv, b, h, 2, v, true);
      causal_softmax_back(dP, votes, T, s);
      transpose(turned, dP, T, T);
      g.fill(0);
      this.product(g, dP, k, T, T, hs);                      // q gets dS k
      this.each(dqkv, b, h, 0, g, true);
      g.fill(0);
      this.product(g, turned, q, T, T, hs);                  // k gets dSᵀ q
      this.each(dqkv, b, h, 1, g, true);
    }
  }

  /** The loss of a batch: x and y are B * T ids each. backward() may follow once. */
  forward(x, y) {
    const { params: p, acts, config: { n_layer, n_embd: C, block_size: T, vocab_size: V }, Vp } = this, N = x.length;
    this.ids = x;
    embed(this.x, p["transformer.wte.weight"], p["transformer.wpe.weight"], x, T, C);
    const norm = (name, kept) => layer_norm(kept.out, this.x, p[`${name}.weight`], p[`${name}.bias`], kept, N, C);
    for (let layer = 0; layer < n_layer; layer++) {
      const h = `transformer.h.${layer}`, a = acts[layer];
      norm(`${h}.ln_1`, a.ln_1);
      this.linear(a.qkv, a.ln_1.out, `${h}.attn.c_attn`, C, 3 * C);
      this.attention(a.y, a.qkv, a.P);
      this.linear(this.narrow, a.y, `${h}.attn.c_proj`, C, C);
      add(this.x, this.narrow);
      norm(`${h}.ln_2`, a.ln_2);
      this.linear(a.fc, a.ln_2.out, `${h}.mlp.c_fc`, C, 4 * C);
      gelu(a.gelu, a.fc, a.tanh);
      this.linear(this.narrow, a.gelu, `${h}.mlp.c_proj`, 4 * C, C);
      add(this.x, this.narrow);
    }
    norm("transformer.ln_f", this.ln_f);
    const wteT = this.turned.subarray(0, Vp * C);
    transpose(wteT, p["transformer.wte.weight"], Vp, C);
    this.logits.fill(0);
    this.product(this.logits, this.ln_f.out, wteT, N, C, Vp);
    return cross_entropy(this.nats, this.logits, y, V, Vp);
  }

  /** Add the slopes of the last forward's loss to grads. */
  backward() {
    const { params: p, grads: d, acts, dx, narrow, wide, config: { n_layer, n_embd: C, block_size: T }, Vp, ids } = this;
    const N = ids.length;
    const norm = (name, kept) => layer_norm_back(dx, narrow, p[`${name}.weight`], d[`${name}.weight`], d[`${name}.bias`], kept, N, C);
    const through = (dy, x, name, from, to) => { narrow.fill(0); this.linear_back(narrow, dy, x, name, from, to); };
    narrow.fill(0);
    this.product(narrow, this.logits, p["transformer.wte.weight"], N, Vp, C);
    const turned = this.turned.subarray(0, N * Vp);
    transpose(turned, this.logits, N, Vp);
    this.product(d["transformer.wte.weight"], turned, this.ln_f.out, Vp, N, C);
    dx.fill(0);
    norm("transformer.ln_f", this.ln_f);
    for (let layer = n_layer - 1; layer >= 0; layer--) {
      const h = `transformer.h.${layer}`, a = acts[layer], qkv = wide.subarray(0, 3 * N * C);
      wide.fill(0);
      this.linear_back(wide, dx, a.gelu, `${h}.mlp.c_proj`, 4 * C, C);
      gelu_back(wide, wide, a.fc, a.tanh);
      through(wide, a.ln_2.out, `${h}.mlp.c_fc`, C, 4 * C);
      norm(`${h}.ln_2`, a.ln_2);
      through(dx, a.y, `${h}.attn.c_proj`, C, C);
      this.attention_back(qkv, narrow, a.qkv, a.P);
      through(qkv, a.ln_1.out, `${h}.attn.c_attn`, C, 3 * C);
      norm(`${h}.ln_1`, a.ln_1);
    }
    embed_back(dx, d["transformer.wte.weight"], d["transformer.wpe.weight"], ids, T, C);
  }

  zero_grad() { for (const g of Object.values(this.grads)) g.fill(0); }
}

function add(x, y) { for (let i = 0; i < x.length; i++) x[i] += y[i]; }

// ---------------------------------------------------------------- schedule, step, exact loss: as in train_gpt2.py

/** Up over warmup_steps, then down to min_lr at max_steps: "linear" or "cosine". */
export function lr_at({ lr, min_lr = 0, warmup_steps, max_steps, schedule = "linear" }, step) {
  const warmup = Math.min(warmup_steps, Math.floor(max_steps / 2));
  if (step < warmup) return lr * (step + 1) / warmup;
  if (step >= max_steps) return min_lr;
  const left = (max_steps - step) / (max_steps - warmup);
  return min_lr + (schedule === "cosine" ? 0.5 - 0.5 * Math.cos(Math.PI * left) : left) * (lr - min_lr);
}

/** torch.optim.AdamW for the params of these names. Weight decay pulls on matrices, never on biases and LayerNorm. */
export class AdamW {
  constructor(model, names, { lr, beta1 = 0.9, beta2 = 0.99, weight_decay = 0.1, epsilon = 1e-8 }) {
    Object.assign(this, { model, names, lr, beta1, beta2, weight_decay, epsilon, t: 0 });
    this.mean = names.map((name) => new Float32Array(model.params[name].length));
    this.square = names.map((name) => new Float32Array(model.params[name].length));
  }

  /** One step at `share` of the learning rate; the grads are multiplied by `scale` first, which is how they are clipped. */
  step(share, scale = 1) {
    const { model, beta1, beta2, epsilon } = this, lr = share * this.lr, t = ++this.t;
    const fix1 = 1 - beta1 ** t, fix2 = Math.sqrt(1 - beta2 ** t);
    this.names.forEach((name, n) => {
      const p = model.params[name], g = model.grads[name], m = this.mean[n], s = this.square[n];
      const keep = model.shapes[name].length > 1 ? 1 - lr * this.weight_decay : 1;
      for (let i = 0; i < p.length; i++) {
        const slope = g[i] * scale;
        m[i] += (1 - beta1) * (slope - m[i]);
        s[i] += (1 - beta2) * (slope * slope - s[i]);
        p[i] = p[i] * keep - lr / fix1 * m[i] / (Math.sqrt(s[i]) / fix2 + epsilon);
      }
    });
  }
}

/** Momentum whose step is made orthogonal (gpt2/optim.py; Jordan et al. 2024). For the matrices of the blocks. */
export class Muon {
  constructor(model, names, { lr, momentum = 0.95, weight_decay = 0 }) {
    Object.assign(this, { model, names, lr, momentum, weight_decay });
    this.mean = names.map((name) => new Float32Array(model.params[name].length));
  }

  step(share, scale = 1) {
    const { model: { params, grads, shapes, muon }, momentum } = this, lr = share * this.lr;
    this.names.forEach((name, n) => {
      const p = params[name], g = grads[name], m = this.mean[n], [rows, all] = shapes[name];
      const parts = all === 3 * rows ? 3 : 1, columns = all / parts;           // c_attn is three matrices side by side
      const size = Math.sqrt(Math.max(1, columns / rows)), keep = 1 - lr * this.weight_decay;
      for (let i = 0; i < p.length; i++) m[i] += (1 - momentum) * (g[i] * scale - m[i]);
      for (let part = 0; part < parts; part++) {
        const at = (i, j) => i * all + part * columns + j;
        for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) {     // Nesterov: look one step ahead
          const k = at(i, j), slope = g[k] * scale;
          muon.x[i * columns + j] = slope + momentum * (m[k] - slope);
        }
        const x = orthogonalize(this.model, rows, columns);
        for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) p[at(i, j)] = keep * p[at(i, j)] - lr * size * x[i * columns + j];
      }
    });
  }
}

/** model.muon.x (rows, columns) -> nearly the closest matrix whose singular values are all 1: five Newton-Schulz steps. */
function orthogonalize(model, rows, columns) {
  const { muon } = model, n = rows * columns, small = Math.min(rows, columns), large = Math.max(rows, columns);
  let [x, y, xT] = [muon.x, muon.y, muon.xT].map((room) => room.subarray(0, n)), square = 0;
  const [a, b] = [muon.a, muon.b].map((room) => room.subarray(0, small * small));
  for (let i = 0; i < n; i++) square += x[i] * x[i];
  for (let i = 0, size = Math.sqrt(square) + 1e-7; i < n; i++) x[i] /= size;
  if (rows > columns) { transpose(y, x, rows, columns); [x, y] = [y, x]; }
  for (let turn = 0; turn < 5; turn++) {
    transpose(xT, x, small, large);
    a.fill(0);
    model.product(a, x, xT, small, large, small);
    b.fill(0);
    model.product(b, a, a, small, small, small);
    for (let i = 0; i < b.length; i++) b[i] = 2.0315 * b[i] - 4.775 * a[i];
    for (let i = 0; i < n; i++) y[i] = 3.4445 * x[i];
    model.product(y, b, x, small, small, large);
    [x, y] = [y, x];
  }
  if (rows <= columns) return x;
  transpose(xT, x, columns, rows);
  return xT;
}

/** [AdamW] or [Muon, AdamW], as `law` says: { optimizer, lr, muon_lr, beta1, beta2, weight_decay }. */
export function make_optimizers(model, law) {
  const muon = law.optimizer === "muon" ? Object.keys(model.shapes).filter((name) => name.includes(".h.") && model.shapes[name].length === 2) : [];
  const adamw = new AdamW(model, Object.keys(model.shapes).filter((name) => !muon.includes(name)), law);
  return muon.length ? [new Muon(model, muon, { lr: law.muon_lr, weight_decay: law.weight_decay }), adamw] : [adamw];
}

/** Forward, backward, clip, step at `share` of the learning rates. Returns { loss, norm, moved }; a norm that is not finite moves nothing. */
export function optimizer_step(model, optimizers, x, y, share, grad_clip = 1) {
  model.zero_grad();
  const loss = model.forward(x, y);
  model.backward();
  let square = 0;
  for (const g of Object.values(model.grads)) for (let i = 0; i < g.length; i++) square += g[i] * g[i];
  const norm = Math.sqrt(square), moved = Number.isFinite(norm);
  if (moved) for (const optimizer of optimizers) optimizer.step(share, Math.min(1, grad_clip / (norm + 1e-6)));
  return { loss, norm, moved };
}

/** Exact loss in nats a token: every target of ids scored once, in windows of block_size. A generator: yields now and then. */
export function* evaluate(model, ids) {
  const { B, config: { block_size: T } } = model, targets = ids.length - 1, x = new Int32Array(B * T), y = new Int32Array(B * T);
  let total = 0;
  for (let first = 0; first < targets; first += B * T) {
    const n = Math.min(B * T, targets - first);
    x.fill(0); y.fill(0);                                    // what lies behind the last target is not counted
    x.set(ids.subarray(first, first + n));
    y.set(ids.subarray(first + 1, first + n + 1));
    model.forward(x, y);
    for (let i = 0; i < n; i++) total += model.nats[i];
    yield first + n;
  }
  return total / targets;
}
