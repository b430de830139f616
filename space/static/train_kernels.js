// train_kernels.js: the inner loops of train.js, once in plain JavaScript, to be read, and once in
// WebAssembly, to be fast.
//
//   product(c, a, b, n, k, m)          c (n, m) = a (n, k) @ b (k, m)
//   add                                y += x
//   gelu, gelu_back                    GPT-2's own, with tanh
//   softmax, softmax_back              of one row
//   layer_norm, layer_norm_back        of one row
//
// The WebAssembly is assembled from the text below by kernels.js. Where the browser has relaxed SIMD, a
// multiplication and the addition behind it are one instruction. Sizes are multiples of 8.

import { assemble } from "./kernels.js";

const EPSILON = 1e-5;                                        // LayerNorm's
const DEEP = 256, TALL = 128;                      // of k and of n, worked on at once: they stay in the cache
const SHARED = [3, 0, 0x80, 0x80, 0x04];            // limits of a memory that several workers see: up to 4 GB

// ---------------------------------------------------------------- plain

/**
 * c = a @ b, or a @ b + bias, or c += a @ b where `add`. turn_a: a lies as (k, n), turn_b: b lies as (m, k).
 * cs, as, bs: how far apart the rows of c, a and b are, where they are not side by side.
 */
function product(c, a, b, n, k, m, options = {}) {
  const { turn_a, turn_b, add, bias, cs, as, bs } = fill_in(n, k, m, options);
  const [ai, ap] = turn_a ? [1, as] : [as, 1], [bp, bj] = turn_b ? [1, bs] : [bs, 1];
  for (let i = 0; i < n; i++) {
    for (let j = 0; j < m; j++) {
      let sum = add ? c[i * cs + j] : bias ? bias[j] : 0;
      for (let p = 0, x = i * ai, w = j * bj; p < k; p++, x += ap, w += bp) sum += a[x] * b[w];
      c[i * cs + j] = sum;
    }
  }
}

const fill_in = (n, k, m, { turn_a, turn_b, add, bias, cs = m, as = turn_a ? n : k, bs = turn_b ? k : m }) =>
  ({ turn_a, turn_b, add, bias, cs, as, bs });

function add(y, x, from = 0, n = y.length) { for (let i = 0; i < n; i++) y[i] += x[from + i]; }

const ROOT = 2 * Math.sqrt(2 / Math.PI), CUBE = 0.044715;

/** y = u s with s = (1 + tanh z) / 2, which is 1 / (1 + e^-2z); s is kept. */
function gelu(y, x, s) {
  for (let i = 0; i < x.length; i++) {
    const u = x[i];
    s[i] = 1 / (1 + Math.exp(-ROOT * (u + CUBE * u * u * u)));
    y[i] = u * s[i];
  }
}

/** dx = dy times gelu's slope. */
function gelu_back(dx, dy, x, s) {
  for (let i = 0; i < x.length; i++) {
    const u = x[i], slope = ROOT * (1 + 3 * CUBE * u * u);
    dx[i] = dy[i] * (s[i] + u * s[i] * (1 - s[i]) * slope);
  }
}

/** P[at .. at + n) becomes its own softmax, after scaling. */
function softmax(P, at, n, scale) {
  let max = -Infinity, sum = 0;
  for (let j = at; j < at + n; j++) max = Math.max(max, P[j]);
  for (let j = at; j < at + n; j++) sum += P[j] = Math.exp((P[j] - max) * scale);
  for (let j = at; j < at + n; j++) P[j] /= sum;
}

/** dS = P (dP - the row's mean of dP weighed by P), scaled, into dP's place. */
function softmax_back(dP, P, at, n, scale) {
  let mean = 0;
  for (let j = at; j < at + n; j++) mean += P[j] * dP[j];
  for (let j = at; j < at + n; j++) dP[j] = P[j] * (dP[j] - mean) * scale;
}

/** Row at .. at + C: y = w n + b with n = (x - mean) / spread; n and, in scale[row], 1 / spread are kept. */
function layer_norm(y, x, w, b, n, scale, row, C) {
  const at = row * C;
  let mean = 0, square = 0;
  for (let c = at; c < at + C; c++) mean += x[c];
  mean /= C;
  for (let c = at; c < at + C; c++) square += (x[c] - mean) ** 2;
  scale[row] = 1 / Math.sqrt(square / C + EPSILON);
  for (let c = 0; c < C; c++) {
    n[at + c] = (x[at + c] - mean) * scale[row];
    y[at + c] = n[at + c] * w[c] + b[c];
  }
}

/** Take out what would only shift the row and what would only stretch it; the rest comes through. */
function layer_norm_back(dx, dy, w, dw, db, n, scale, row, C) {
  const at = row * C;
  let shift = 0, stretch = 0;
  for (let c = 0; c < C; c++) {
    const g = dy[at + c], d = g * w[c];
    shift += d;
    stretch += d * n[at + c];
    dw[c] += g * n[at + c];
    db[c] += g;
  }
  shift /= C; stretch /= C;
  for (let c = 0; c < C; c++) dx[at + c] += (dy[at + c] * w[c] - shift - n[at + c] * stretch) * scale[row];
}

// ---------------------------------------------------------------- WebAssembly

const EXP = { low: -87, high: 87, log2e: Math.LOG2E, magic: 1.5 * 2 ** 23, ln2: Math.LN2, one: 1, half: 0.5,
  e3: 1 / 6, e4: 1 / 24, e5: 1 / 120, e6: 1 / 720, e7: 1 / 5040 };
const names = (constants) => Object.keys(constants).map((name) => `v128 ${name}`).join(" ");
const values = (constants) =>
  Object.entries(constants).map(([name, x]) => `f32.const ${x}  f32x4.splat  set ${name}`).join("\n");

const times_z_plus = (c) => `get z  f32x4.mul  get ${c}  f32x4.add`;

/**
 * z -> e^z, on the stack: e^z = 2^n e^r with r below ln2 / 2, where the series of e^r is short. Takes a local
 * t.
 */
const exp = `
  get z  get low  f32x4.pmax  get high  f32x4.pmin  tee z
  get log2e  f32x4.mul  get magic  f32x4.add  set t          ;; n stands in the last bits of t
  get z  get t  get magic  f32x4.sub  get ln2  f32x4.mul  f32x4.sub  set z
  get e7  ${["e6", "e5", "e4", "e3", "half", "one", "one"].map(times_z_plus).join("  ")}
  get t  i32.const 23  i32x4.shl  i32x4.add                  ;; n more in the exponent: times 2^n
`;

const four = (line) => [0, 1, 2, 3].map(line).join("\n");

/** The whole text; fused: with relaxed SIMD. */
function source(fused) {
  const madd = (sum, x, b) => fused ? `get ${x}  get ${b}  get ${sum}  f32x4.relaxed_madd  set ${sum}`
    : `get ${sum}  get ${x}  get ${b}  f32x4.mul  f32x4.add  set ${sum}`;
  return `
  ;; strips of four: y[p] = x[p step] .. x[p step + 3] for p < k; the next strip is four columns further on
  func pack param i32 y i32 x i32 k i32 step i32 strips
    local i32 from i32 yend i32 end
    get k  i32.const 16  i32.mul  set k
    get y  get strips  get k  i32.mul  i32.add  set end
    loop each
      get x  set from
      get y  get k  i32.add  set yend
      loop rows
        get y  get from  v128.load 0  v128.store 0
        get from  get step  i32.add  set from
        get y  i32.const 16  i32.add  tee y
        get yend  i32.lt_u  br_if rows
      end
      get x  i32.const 16  i32.add  set x
      get y  get end  i32.lt_u  br_if each
    end
  end

  ;; the same of a matrix that lies turned over: the four numbers stand in four rows
  func pack_turned param i32 y i32 x i32 k i32 step i32 strips
    local i32 x0 i32 x1 i32 x2 i32 x3 i32 yend i32 end
    get k  i32.const 16  i32.mul  set k
    get y  get strips  get k  i32.mul  i32.add  set end
    loop each
      get x  tee x0  get step  i32.add  tee x1  get step  i32.add  tee x2  get step  i32.add  tee x3
      get step  i32.add  set x
      get y  get k  i32.add  set yend
      loop columns
        ${four((r) => `get y  get x${r}  f32.load 0  f32.store ${4 * r}`)}
        ${four((r) => `get x${r}  i32.const 4  i32.add  set x${r}`)}
        get y  i32.const 16  i32.add  tee y
        get yend  i32.lt_u  br_if columns
      end
      get y  get end  i32.lt_u  br_if each
    end
  end

  ;; c (n, m) = a @ b, plus what stands at "from" where keep is -1 and not 0: c itself, or a bias (row 0).
  ;; a and b lie in strips of four along k. Four rows, eight columns of c stay in registers while k runs.
  func matmul param i32 c i32 a i32 b i32 n i32 k i32 m i32 row i32 keep i32 from i32 from_row
    local i32 end i32 cj i32 cend i32 c1 i32 c2 i32 c3 i32 f i32 w i32 w1 i32 p i32 pend
      v128 b0 v128 b1 v128 x v128 s0 v128 t0 v128 s1 v128 t1 v128 s2 v128 t2 v128 s3 v128 t3
    get k  i32.const 16  i32.mul  set k
    get c  get n  get row  i32.mul  i32.add  set end
    loop rows
      get c  tee cj  get m  i32.const 4  i32.mul  i32.add  set cend
      get a  get k  i32.add  set pend
      get b  set w
      get from  set f
      loop columns
        get f  get from_row  i32.add  tee c1  get from_row  i32.add  tee c2  get from_row  i32.add  set c3
        get keep  i32x4.splat  set x
        get f v128.load 0  get x  v128.and  set s0    get f v128.load 16  get x  v128.and  set t0
        get c1 v128.load 0  get x  v128.and  set s1   get c1 v128.load 16  get x  v128.and  set t1
        get c2 v128.load 0  get x  v128.and  set s2   get c2 v128.load 16  get x  v128.and  set t2
        get c3 v128.load 0  get x  v128.and  set s3   get c3 v128.load 16  get x  v128.and  set t3
        get cj  get row  i32.add  tee c1  get row  i32.add  tee c2  get row  i32.add  set c3
        get f  i32.const 32  i32.add  set f
        get a  set p
        get w  get k  i32.add  set w1
        loop inner
          get w  v128.load 0  set b0   get w1  v128.load 0  set b1
          ${four((r) => `get p  v128.load32_splat ${4 * r}  set x
            ${madd(`s${r}`, "x", "b0")}   ${madd(`t${r}`, "x", "b1")}`)}
          get w   i32.const 16  i32.add  set w        ;; written out for four k at a time, it is half as fast:
          get w1  i32.const 16  i32.add  set w1          ;; the browser loads too early, and registers run out
          get p   i32.const 16  i32.add  tee p
          get pend  i32.lt_u  br_if inner
        end
        get cj  get s0  v128.store 0   get cj  get t0  v128.store 16
        get c1  get s1  v128.store 0   get c1  get t1  v128.store 16
        get c2  get s2  v128.store 0   get c2  get t2  v128.store 16
        get c3  get s3  v128.store 0   get c3  get t3  v128.store 16
        get w1  set w
        get cj  i32.const 32  i32.add  tee cj
        get cend  i32.lt_u  br_if columns
      end
      get pend  set a
      get from  get from_row  i32.const 4  i32.mul  i32.add  set from
      get c  get row  i32.const 4  i32.mul  i32.add  tee c
      get end  i32.lt_u  br_if rows
    end
  end

  func add param i32 y i32 x i32 n
    local i32 end
    get y  get n  i32.const 4  i32.mul  i32.add  set end
    loop all
      get y  get y  v128.load 0  get x  v128.load 0  f32x4.add  v128.store 0
      get x  i32.const 16  i32.add  set x
      get y  i32.const 16  i32.add  tee y
      get end  i32.lt_u  br_if all
    end
  end

  func gelu param i32 y i32 x i32 s i32 n
    local i32 end v128 z v128 t v128 u v128 root v128 cube ${names(EXP)}
    ${values({ ...EXP, root: -ROOT, cube: CUBE })}
    get x  get n  i32.const 4  i32.mul  i32.add  set end
    loop all
      get x  v128.load 0  tee u
      get u  get u  f32x4.mul  get cube  f32x4.mul  get one  f32x4.add  f32x4.mul  get root  f32x4.mul  set z
      get s  get one  get one  ${exp}  f32x4.add  f32x4.div  tee z  v128.store 0
      get y  get u  get z  f32x4.mul  v128.store 0
      get y  i32.const 16  i32.add  set y
      get s  i32.const 16  i32.add  set s
      get x  i32.const 16  i32.add  tee x
      get end  i32.lt_u  br_if all
    end
  end

  func gelu_back param i32 dx i32 dy i32 x i32 s i32 n
    local i32 end v128 u v128 z v128 one v128 root v128 cube
    ${values({ one: 1, root: ROOT, cube: 3 * CUBE })}
    get x  get n  i32.const 4  i32.mul  i32.add  set end
    loop all
      get x  v128.load 0  set u
      get s  v128.load 0  set z
      get dx
      get u  get u  f32x4.mul  get cube  f32x4.mul  get one  f32x4.add  get root  f32x4.mul  get u  f32x4.mul
      get one  get z  f32x4.sub  f32x4.mul  get one  f32x4.add  get z  f32x4.mul
      get dy  v128.load 0  f32x4.mul  v128.store 0
      get dx  i32.const 16  i32.add  set dx
      get dy  i32.const 16  i32.add  set dy
      get s   i32.const 16  i32.add  set s
      get x   i32.const 16  i32.add  tee x
      get end  i32.lt_u  br_if all
    end
  end

  ;; P (n) -> e^(scale (P - max)) over its sum
  func softmax param i32 P i32 n f32 scale
    local i32 end i32 j v128 z v128 t v128 max v128 sum ${names(EXP)}
    ${values(EXP)}
    get P  tee j  get n  i32.const 4  i32.mul  i32.add  set end
    get j  v128.load 0  set max
    loop highest
      get max  get j  v128.load 0  f32x4.pmax  set max
      get j  i32.const 16  i32.add  tee j
      get end  i32.lt_u  br_if highest
    end
    ${lanes("max", "f32.max")}  f32x4.splat  set max
    f32.const0  f32x4.splat  set sum
    get P  set j
    loop powers
      get j  v128.load 0  get max  f32x4.sub  get scale  f32x4.splat  f32x4.mul  set z
      get j  ${exp}  tee z  v128.store 0
      get sum  get z  f32x4.add  set sum
      get j  i32.const 16  i32.add  tee j
      get end  i32.lt_u  br_if powers
    end
    get one  ${lanes("sum", "f32.add")}  f32x4.splat  f32x4.div  set sum
    loop shares
      get P  get P  v128.load 0  get sum  f32x4.mul  v128.store 0
      get P  i32.const 16  i32.add  tee P
      get end  i32.lt_u  br_if shares
    end
  end

  func softmax_back param i32 dP i32 P i32 n f32 scale
    local i32 end i32 i i32 j v128 mean
    get P  get n  i32.const 4  i32.mul  i32.add  set end
    f32.const0  f32x4.splat  set mean
    get dP  set i
    get P  set j
    loop weigh
      get mean  get i  v128.load 0  get j  v128.load 0  f32x4.mul  f32x4.add  set mean
      get i  i32.const 16  i32.add  set i
      get j  i32.const 16  i32.add  tee j
      get end  i32.lt_u  br_if weigh
    end
    ${lanes("mean", "f32.add")}  f32x4.splat  set mean
    loop all
      get dP
      get dP  v128.load 0  get mean  f32x4.sub  get P  v128.load 0  f32x4.mul
      get scale  f32x4.splat  f32x4.mul  v128.store 0
      get dP  i32.const 16  i32.add  set dP
      get P   i32.const 16  i32.add  tee P
      get end  i32.lt_u  br_if all
    end
  end

  func layer_norm param i32 y i32 x i32 w i32 b i32 n i32 scale i32 C f32 share
    local i32 end i32 j v128 mean v128 sum v128 z
    get x  tee j  get C  i32.const 4  i32.mul  i32.add  set end
    loop total
      get mean  get j  v128.load 0  f32x4.add  set mean
      get j  i32.const 16  i32.add  tee j
      get end  i32.lt_u  br_if total
    end
    ${lanes("mean", "f32.add")}  get share  f32.mul  f32x4.splat  set mean
    get x  set j
    loop squares
      get j  v128.load 0  get mean  f32x4.sub  tee z
      get z  f32x4.mul  get sum  f32x4.add  set sum
      get j  i32.const 16  i32.add  tee j
      get end  i32.lt_u  br_if squares
    end
    f32.const 1  ${lanes("sum", "f32.add")}  get share  f32.mul  f32.const ${EPSILON}  f32.add  f32.sqrt
    f32.div  f32x4.splat  set sum
    get scale  get sum  f32x4.extract_lane 0  f32.store 0
    loop all
      get n  get x  v128.load 0  get mean  f32x4.sub  get sum  f32x4.mul  tee z  v128.store 0
      get y  get z  get w  v128.load 0  f32x4.mul  get b  v128.load 0  f32x4.add  v128.store 0
      ${step(["y", "n", "w", "b", "x"])}
      get x  get end  i32.lt_u  br_if all
    end
  end

  func layer_norm_back param i32 dx i32 dy i32 w i32 dw i32 db i32 n i32 scale i32 C f32 share
    local i32 end i32 i i32 j i32 k v128 g v128 d v128 shift v128 stretch
    get dy  tee i  get C  i32.const 4  i32.mul  i32.add  set end
    get n  set j
    get w  set k
    loop sums
      get i  v128.load 0  tee g  get k  v128.load 0  f32x4.mul  tee d
      get shift  f32x4.add  set shift
      get d  get j  v128.load 0  f32x4.mul  get stretch  f32x4.add  set stretch
      get dw  get dw  v128.load 0  get g  get j  v128.load 0  f32x4.mul  f32x4.add  v128.store 0
      get db  get db  v128.load 0  get g  f32x4.add  v128.store 0
      ${step(["dw", "db", "j", "k", "i"])}
      get i  get end  i32.lt_u  br_if sums
    end
    ${lanes("shift", "f32.add")}  get share  f32.mul  f32x4.splat  set shift
    ${lanes("stretch", "f32.add")}  get share  f32.mul  f32x4.splat  set stretch
    get scale  v128.load32_splat 0  set g
    loop all
      get dx
      get dy  v128.load 0  get w  v128.load 0  f32x4.mul  get shift  f32x4.sub
      get n  v128.load 0  get stretch  f32x4.mul  f32x4.sub  get g  f32x4.mul
      get dx  v128.load 0  f32x4.add  v128.store 0
      ${step(["dx", "w", "n", "dy"])}
      get dy  get end  i32.lt_u  br_if all
    end
  end
  `;
}

/** Each address goes four numbers on. */
const step = (addresses) => addresses.map((a) => `get ${a}  i32.const 16  i32.add  set ${a}`).join("\n");

/** The four numbers of v, joined two by two. */
function lanes(v, join) {
  const lane = (i) => `get ${v}  f32x4.extract_lane ${i}`;
  return `${lane(0)}  ${lane(1)}  ${join}  ${lane(2)}  ${lane(3)}  ${join}  ${join}`;
}

/** The module for this browser: { module, fused }. shared: for a memory that several workers see. */
function compile(shared) {
  const limits = shared ? SHARED : undefined, best = assemble(source(true), limits);
  const fused = WebAssembly.validate(best);
  return { module: new WebAssembly.Module(fused ? best : assemble(source(false), limits)), fused };
}

/** The kernels on arrays of this memory. kind: "wasm" or "plain"; room(n): n floats for what is packed. */
export function make_kernels(memory, room, widest, kind = "wasm") {
  const strips_a = room(TALL * DEEP), strips_b = room(DEEP * widest);
  const plain = { product, add, gelu, gelu_back, softmax, softmax_back, layer_norm, layer_norm_back };
  if (kind === "plain" || !memory) return plain;
  const { module, fused } = compile(!(memory.buffer instanceof ArrayBuffer));
  const { exports: w } = new WebAssembly.Instance(module, { page: { memory } });
  const at = (array, i = 0) => array.byteOffset + 4 * i, [A, B] = [at(strips_a), at(strips_b)];
  return {
    fused,
    product(c, a, b, n, k, m, options = {}) {
      const { turn_a, turn_b, add, bias, cs, as, bs } = fill_in(n, k, m, options);
      const [pack_a, ai, ap] = turn_a ? [w.pack, 4, 4 * as] : [w.pack_turned, 4 * as, 4];
      const [pack_b, bp] = turn_b ? [w.pack_turned, 4] : [w.pack, 4 * bs];
      for (let p = 0; p < k; p += DEEP) {
        const deep = Math.min(DEEP, k - p);
        pack_b(B, at(b) + p * bp, deep, 4 * bs, m >> 2);
        for (let i = 0; i < n; i += TALL) {
          const tall = Math.min(TALL, n - i);
          pack_a(A, at(a) + i * ai + p * ap, deep, 4 * as, tall >> 2);
          const to = at(c, i * cs), [from, row] = bias && !p ? [at(bias), 0] : [to, 4 * cs];
          w.matmul(to, A, B, tall, deep, m, 4 * cs, add || bias || p ? -1 : 0, from, row);
        }
      }
    },
    add: (y, x, from = 0) => w.add(at(y), at(x, from), y.length),
    gelu: (y, x, s) => w.gelu(at(y), at(x), at(s), x.length),
    gelu_back: (dx, dy, x, s) => w.gelu_back(at(dx), at(dy), at(x), at(s), x.length),
    softmax: (P, from, n, scale) => w.softmax(at(P, from), n, scale),
    softmax_back: (dP, P, from, n, scale) => w.softmax_back(at(dP, from), at(P, from), n, scale),
    layer_norm: (y, x, weight, b, n, scale, row, C) => {
      const i = row * C;
      w.layer_norm(at(y, i), at(x, i), at(weight), at(b), at(n, i), at(scale, row), C, 1 / C);
    },
    layer_norm_back: (dx, dy, weight, dw, db, n, scale, row, C) => {
      const i = row * C;
      w.layer_norm_back(at(dx, i), at(dy, i), at(weight), at(dw), at(db), at(n, i), at(scale, row), C, 1 / C);
    },
  };
}
