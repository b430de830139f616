// kernels.js: the inner loops of GPT-2, once in plain JavaScript and once in WebAssembly.
//
//   one(y, x, w, rows, cols, next)          y[j] += sum_i x[i] w[i][j]: a vector times a matrix
//   four(y, x, w, rows, T, xs, ys)          the same for one panel of w and four rows of x at once
//   exp(x, n), gelu(x, n)                   in place
//
// A matrix lies in panels: eight columns side by side, all rows of them, then the next eight (spot() says
// where). So a product walks through memory in one direction, and the sums of eight columns stay in the
// processor's registers. y, x and w are byte addresses in one shared heap; x and y are float32, w is float32
// or (names ending in 16) float16. The WebAssembly is the text below: this file assembles it when the page
// loads, so the source is what runs and there is nothing to build. It needs rows % 4 == 0; GPT picks `plain`
// where that does not hold.

/** The number whose float32 has these bits, and the other way round. */
const bits_of = (x) => new Int32Array(new Float32Array([x]).buffer)[0];
const constant = (x) => `i32.const ${bits_of(x)}  i32x4.splat`;

// A float16 is s eeeee mmmmmmmmmm. Sign-extended to 32 bits, moved 13 up and masked, it is a float32 with the
// right sign and mantissa and an exponent that is 112 too small: `up` lifts it, less what scale16 lifted when
// the file was read.
const SCALE = 10;  // float16 weights are kept 2^10 too large: then none of them is subnormal,
                                     // which many processors multiply a hundred times slower
const MASK = "i32.const -1879056384  i32x4.splat", UP = constant(2 ** (112 - SCALE));
const load32 = (p, k) => `get ${p}  v128.load ${4 * k}`;
const load16 = (p, k) => `get ${p}  v128.load16x4_s ${2 * k}  i32.const 13  i32x4.shl  get mask  v128.and`;
/** sum += a b: in one instruction where the browser has relaxed SIMD, which rounds once and not twice. */
const adder = (fused) => (sum, a, b) => fused ? `get ${a}  ${b}  get ${sum}  f32x4.relaxed_madd  set ${sum}`
  : `get ${a}  ${b}  f32x4.mul  get ${sum}  f32x4.add  set ${sum}`;
const each = (n, line) => Array.from({ length: n }, (_, k) => line(k)).join("\n");

/** One position: two pairs of sums take turns, so that no addition waits for the one before it. */
const one = (size, load, add) => String.raw`
  func one${size} param i32 y i32 x i32 w i32 rows i32 cols i32 next
    local i32 xend i32 yend i32 p i32 i v128 s v128 a0 v128 b0 v128 a1 v128 b1 v128 mask v128 up
    ${MASK}  set mask  ${UP}  set up
    get x  get rows  i32.const 4  i32.mul  i32.add  set xend
    get y  get cols  i32.const 4  i32.mul  i32.add  set yend
    loop panels
      get y  v128.load 0  set a0  get y  v128.load 16  set b0  f32.const0  f32x4.splat  tee a1  set b1
      get w  set p  get x  set i
      loop four
        ${each(4, (k) => `get i  v128.load32_splat ${4 * k}  ${size === 16 ? "get up  f32x4.mul" : ""}  set s
        ${add(`a${k % 2}`, "s", load("p", 8 * k))}
        ${add(`b${k % 2}`, "s", load("p", 8 * k + 4))}`)}
        get p  i32.const ${4 * size}  i32.add  set p
        get i  i32.const 16  i32.add  tee i
        get xend  i32.lt_u  br_if four
      end
      get y  get a0  get a1  f32x4.add  v128.store 0
      get y  get b0  get b1  f32x4.add  v128.store 16
      get w  get next  i32.add  set w
      get y  i32.const 32  i32.add  tee y
      get yend  i32.lt_u  br_if panels
    end
  end`;

/** T positions, four at a time, and one panel. xs, ys: bytes from one row of x and y to the next. */
const four = (size, load, add) => String.raw`
  func four${size} param i32 y i32 x i32 w i32 rows i32 T i32 xs i32 ys
    local i32 wend i32 tend i32 p i32 x0 i32 x1 i32 x2 i32 x3 v128 u v128 v v128 s v128 mask v128 up
      v128 a0 v128 b0 v128 a1 v128 b1 v128 a2 v128 b2 v128 a3 v128 b3
    ${MASK}  set mask  ${UP}  set up
    get w  get rows  i32.const ${size}  i32.mul  i32.add  set wend
    get y  get T  get ys  i32.mul  i32.add  set tend
    loop positions
      get x  tee x0  get xs  i32.add  tee x1  get xs  i32.add  tee x2  get xs  i32.add  tee x3
      get xs  i32.add  set x
      f32.const0  f32x4.splat  tee a0  tee b0  tee a1  tee b1  tee a2  tee b2  tee a3  set b3
      get w  set p
      loop rows_
        ${each(4, (k) => `${load("p", 8 * k)}  ${size === 16 ? "get up  f32x4.mul" : ""}  set u
        ${load("p", 8 * k + 4)}  ${size === 16 ? "get up  f32x4.mul" : ""}  set v
        ${each(4, (t) => `get x${t}  v128.load32_splat ${4 * k}  set s
        ${add(`a${t}`, "s", "get u")}
        ${add(`b${t}`, "s", "get v")}`)}`)}
        ${each(4, (t) => `get x${t}  i32.const 16  i32.add  set x${t}`)}
        get p  i32.const ${4 * size}  i32.add  tee p
        get wend  i32.lt_u  br_if rows_
      end
      ${each(4, (t) => `get y  get y  v128.load 0  get a${t}  f32x4.add  v128.store 0
      get y  get y  v128.load 16  get b${t}  f32x4.add  v128.store 16  get y  get ys  i32.add  set y`)}
      get y  get tend  i32.lt_u  br_if positions
    end
  end`;

/**
 * A panel of float16 as float32, `count` numbers: for many positions that is cheaper than doing it for each
 * four.
 */
const WIDEN = String.raw`
  func widen param i32 y i32 w i32 count
    local i32 yend v128 mask v128 up
    ${MASK}  set mask  ${UP}  set up
    get y  get count  i32.const 4  i32.mul  i32.add  set yend
    loop numbers
      get y  ${load16("w", 0)}  get up  f32x4.mul  v128.store 0
      get y  ${load16("w", 4)}  get up  f32x4.mul  v128.store 16
      get w  i32.const 16  i32.add  set w
      get y  i32.const 32  i32.add  tee y
      get yend  i32.lt_u  br_if numbers
    end
  end`;

// exp(z) = 2^n exp(r), n whole and |r| at most ln 2 / 2: exp(r) by its series up to r^7, 2^n into the
// exponent's bits. ln 2 is taken away in two parts, so that r keeps its digits.
const EXP = `
  get z  ${constant(-87)}  f32x4.max  ${constant(87)}  f32x4.min  tee z
  ${constant(Math.LOG2E)}  f32x4.mul  f32x4.nearest  set n
  get z  get n  ${constant(0.693359375)}  f32x4.mul  f32x4.sub
  get n  ${constant(Math.LN2 - 0.693359375)}  f32x4.mul  f32x4.sub  set z
  ${constant(1 / 5040)}
  ${[720, 120, 24, 6, 2, 1, 1].map((k) => `get z  f32x4.mul  ${constant(1 / k)}  f32x4.add`).join("\n")}
  get n  i32x4.trunc_sat_f32x4_s  i32.const 23  i32x4.shl  i32x4.add`;

/** x[i] = what `code` makes of it (u is x[i]), n of them, four at a time. */
const inPlace = (title, code) => `
  func ${title} param i32 x i32 count
    local i32 xend v128 u v128 z v128 n
    get x  get count  i32.const 4  i32.mul  i32.add  set xend
    loop numbers
      get x  get x  v128.load 0  set u
      ${code}
      v128.store 0
      get x  i32.const 16  i32.add  tee x
      get xend  i32.lt_u  br_if numbers
    end
  end`;

// GPT-2's GELU, with tanh: 0.5 (1 + tanh t) is 1 / (1 + exp(-2t))
const CUBE = "get u  get u  f32x4.mul  get u  f32x4.mul";
const GELU = `
  get u  ${CUBE}  ${constant(0.044715)}  f32x4.mul  f32x4.add
  ${constant(-2 * Math.sqrt(2 / Math.PI))}  f32x4.mul  set z
  get u  ${EXP}  ${constant(1)}  f32x4.add  f32x4.div`;

const source = (add) => [one(32, load32, add), one(16, load16, add), four(32, load32, add),
  four(16, load16, add), WIDEN, inPlace("exp", `get u  set z  ${EXP}`), inPlace("gelu", GELU)].join("\n");

// ---------------------------------------------------------------- the assembler: words in, bytes out

const TYPES = { i32: 0x7f, f32: 0x7d, v128: 0x7b };
const LABEL = "label", LOCAL = "local", SIGNED = "signed", FLOAT = "float", LANE = "lane", OFFSET = "offset";
const OPS = {       // word: [bytes of the opcode, what follows it, log2 of the alignment we promise]
  "get": [[0x20], LOCAL], "set": [[0x21], LOCAL], "tee": [[0x22], LOCAL],
  "br_if": [[0x0d], LABEL], "i32.const": [[0x41], SIGNED], "f32.const0": [[0x43, 0, 0, 0, 0]],
  "f32.const": [[0x43], FLOAT], "f32.load": [[0x2a], OFFSET, 2], "f32.max": [[0x97]], "f32.mul": [[0x94]],
  "f32.div": [[0x95]], "f32.sqrt": [[0x91]],
  "i32.add": [[0x6a]], "i32.mul": [[0x6c]], "i32.lt_u": [[0x49]],
  "f32.add": [[0x92]], "f32.store": [[0x38], OFFSET, 2],
  "v128.load": [[0xfd, 0x00], OFFSET, 2], "v128.load16x4_s": [[0xfd, 0x03], OFFSET, 2],
  "v128.load32_splat": [[0xfd, 0x09], OFFSET, 2], "v128.store": [[0xfd, 0x0b], OFFSET, 2],
  "i32x4.splat": [[0xfd, 0x11]], "f32x4.splat": [[0xfd, 0x13]], "f32x4.extract_lane": [[0xfd, 0x1f], LANE],
  "v128.and": [[0xfd, 0x4e]], "i32x4.shl": [[0xfd, 0xab, 0x01]], "i32x4.add": [[0xfd, 0xae, 0x01]],
  "f32x4.add": [[0xfd, 0xe4, 0x01]], "f32x4.sub": [[0xfd, 0xe5, 0x01]], "f32x4.mul": [[0xfd, 0xe6, 0x01]],
  "f32x4.div": [[0xfd, 0xe7, 0x01]], "f32x4.min": [[0xfd, 0xe8, 0x01]], "f32x4.max": [[0xfd, 0xe9, 0x01]],
  "f32x4.nearest": [[0xfd, 0x6a]], "i32x4.trunc_sat_f32x4_s": [[0xfd, 0xf8, 0x01]],
  "f32x4.sqrt": [[0xfd, 0xe3, 0x01]], "f32x4.pmin": [[0xfd, 0xea, 0x01]], "f32x4.pmax": [[0xfd, 0xeb, 0x01]],
  "f32x4.relaxed_madd": [[0xfd, 0x85, 0x02]],
};

/** LEB128, WebAssembly's way to write an integer: seven bits a byte, the low ones first. */
function leb(n, signed = false) {
  const bytes = [];
  for (;;) {
    const low = n & 0x7f;
    n >>= 7;
    const last = signed ? (n === 0 && !(low & 0x40)) || (n === -1 && (low & 0x40) !== 0) : n === 0;
    bytes.push(last ? low : low | 0x80);
    if (last) return bytes;
  }
}

const vector = (items) => [...leb(items.length), ...items.flat()];
const section = (id, items) => { const body = vector(items); return [id, ...leb(body.length), ...body]; };
const name = (text) => vector([...text].map((c) => [c.charCodeAt(0)]));

function assembleFunction(words) {
  const locals = [], labels = [];
  let params = 0, i = 2;
  for (const kind of ["param", "local"]) {
    if (words[i] === kind) for (i++; words[i] in TYPES; i += 2) locals.push([words[i], words[i + 1]]);
    if (kind === "param") params = locals.length;
  }
  const code = [];
  while (i < words.length) {
    const word = words[i++];
    if (word === "loop") { code.push(0x03, 0x40); labels.push(words[i++]); continue; }
    if (word === "end") { code.push(0x0b); labels.pop(); continue; }
    if (!(word in OPS)) throw new Error(`kernels.js: unknown word ${word}`);
    const [bytes, operand, align] = OPS[word];
    code.push(...bytes);
    if (operand === LOCAL) code.push(...leb(locals.findIndex(([, local]) => local === words[i])));
    if (operand === LABEL) code.push(...leb(labels.length - 1 - labels.lastIndexOf(words[i])));
    if (operand === SIGNED) code.push(...leb(Number(words[i]), true));
    if (operand === FLOAT) code.push(...new Uint8Array(Float32Array.of(Number(words[i])).buffer));
    if (operand === LANE) code.push(Number(words[i]));
    if (operand === OFFSET) code.push(align, ...leb(Number(words[i])));
    if (operand) i++;
  }
  const own = locals.slice(params).map(([type]) => [1, TYPES[type]]);
  const body = [...vector(own), ...code];
  const types = locals.slice(0, params).map(([type]) => [TYPES[type]]);
  return { name: words[1], type: [0x60, ...vector(types), 0], body: [...leb(body.length), ...body] };
}

/**
 * The text of SOURCE as a WebAssembly module (Uint8Array). It imports its memory, of these limits, as
 * `page.memory`.
 */
export function assemble(source, limits = [0, 0]) {
  const plain = source.replace(/;;.*/g, "");
  const texts = plain.split(/\bfunc\b/).slice(1);
  const functions = texts.map((text) => assembleFunction(["func", ...text.trim().split(/\s+/)]));
  return new Uint8Array([
    0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, functions.map((f) => f.type)),
    ...section(2, [[...name("page"), ...name("memory"), 2, ...limits]]),
    ...section(3, functions.map((_, i) => leb(i))),
    ...section(7, functions.map((f, i) => [...name(f.name), 0, ...leb(i)])),
    ...section(10, functions.map((f) => f.body)),
  ]);
}

// ---------------------------------------------------------------- a heap, and the loops on it

export const LARGEST16 = 0x5400;            // 64 in float16: 2^10 times more would no longer fit

/**
 * One float16 (16 bits) times 2^10, as a float16 again: exact, because 2^10 lifts the smallest subnormal to a
 * normal.
 */
export function scale16(half) {
  const sign = half & 0x8000, size = half & 0x7fff;
  if (size >= LARGEST16) throw new RangeError("a float16 weight is larger than 64");
  if (size >= 0x0400) return half + (SCALE << 10);
  if (size === 0) return half;
  const log = 31 - Math.clz32(size);                       // size = 2^log * (1 + rest), worth 2^(log - 24)
  return sign | ((log - 24 + SCALE + 15) << 10) | ((size << (10 - log)) & 0x3ff);
}

/** 65,536 entries: the float32 that each float16 stands for. */
export function table16() {
  const table = new Float32Array(65536);
  for (let half = 0; half < 65536; half++) {
    const exponent = (half >> 10) & 31, mantissa = half & 1023;
    const size = exponent === 31 ? (mantissa ? NaN : Infinity)
      : exponent ? 2 ** (exponent - 15) * (1 + mantissa / 1024) : 2 ** -24 * mantissa;
    table[half] = half & 0x8000 ? -size : size;
  }
  return table;
}

/** Where element (i, j) of a matrix with `rows` rows lies: eight columns side by side make a panel. */
export const spot = (i, j, rows) => (j >> 3) * 8 * rows + 8 * i + (j & 7);

const modules = new Map();
const SHARED = [3, 0, 0x80, 0x80, 0x04];     // limits of a memory that two threads see: up to 4 GB

/** The loops as a module: the fused ones, or those of a browser without relaxed SIMD; null without any. */
function compiled(fused = true, shared = false) {
  const key = `${fused} ${shared}`;
  if (modules.has(key)) return modules.get(key);
  let module;
  try {
    module = new WebAssembly.Module(assemble(source(adder(fused)), shared ? SHARED : undefined));
  } catch { module = fused ? compiled(false, shared) : null; }
  modules.set(key, module);
  return module;
}

/**
 * A heap of `bytes` bytes with the loops that work on it.
 * kind: "wasm", "unfused" (as where the browser has no relaxed SIMD), "plain", or "auto" (the best there is).
 * shared: in a memory that hire() can show to a second thread, where the browser allows that.
 * Returns { kind, buffer, f32, u16, matmul, exp, gelu }.
 */
export async function makeKernels(bytes, kind = "auto", shared = false) {
  if (kind !== "plain") {
    try {
      const pages = Math.ceil(bytes / 65536);
      shared = shared && globalThis.crossOriginIsolated === true && navigator.hardwareConcurrency > 1;
      const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared });
      const module = compiled(kind !== "unfused", shared);
      const instance = new WebAssembly.Instance(module, { page: { memory } });
      const common = shared ? { module, memory } : null;
      return with_product({ kind: "wasm", common, ...views(memory.buffer), ...instance.exports });
    } catch (error) {
      if (kind !== "auto") throw error;
    }
  }
  const heap = views(new ArrayBuffer(Math.ceil(bytes / 8) * 8));
  return with_product({ kind: "plain", ...heap, ...plainLoops(heap.f32) });
}

/** True where the browser runs our WebAssembly: SIMD is in every browser since 2023. */
export const hasWasm = () => compiled() !== null;

const views = (buffer) => ({ buffer, f32: new Float32Array(buffer), u16: new Uint16Array(buffer) });

const MANY = 8;                              // positions from which a panel is widened once for all of them
const WORTH = 16;                            // panels from which a second thread is worth its order

/**
 * Add to a heap matmul(y, x, w, T, rows, cols, half, xs, ys, next): y (T, cols) += x (T, rows) @ w (rows,
 * cols). xs, ys: numbers from one row of x and y to the next; next: numbers from one panel of w to the next.
 * T = 1, or as many positions as the next multiple of 4: there must be room for them. heap.strip, where it is
 * set: the address of room for one panel in float32.
 */
function with_product(heap) {
  heap.matmul = (y, x, w, T, rows, cols, half = false, xs = rows, ys = cols, next = 8 * rows) => {
    const size = half ? 2 : 4, T4 = (T + 3) & ~3;
    if (T === 1) return (half ? heap.one16 : heap.one32)(y, x, w, rows, cols, size * next);
    const wide = half && T > MANY && heap.strip !== undefined;
    const part = (from, to) => [wide, size, y + 4 * from, x, w + size * next * (from >> 3), T4, rows,
      to - from, 4 * xs, 4 * ys, size * next];
    const mine = heap.order && T > MANY && cols >= 8 * WORTH ? 8 * (cols >> 4) : cols;
    const finished = mine < cols ? heap.order(part(mine, cols)) : null;
    panels(heap, heap.strip, ...part(0, mine));
    finished?.();
  };
  return heap;
}

/** The panels of a product for many positions. xs, ys, next: bytes to the next row of x and y, panel of w. */
export function panels(loops, strip, wide, size, y, x, w, T4, rows, cols, xs, ys, next) {
  const four = size === 2 && !wide ? loops.four16 : loops.four32;
  for (let j = 0; j < cols; j += 8, w += next) {
    if (wide) loops.widen(strip, w, 8 * rows);
    four(y + 4 * j, x, wide ? strip : w, rows, T4, xs, ys);
  }
}

// places on the board of two threads
export const TURN = 0;
export const DONE = 1;
export const ORDER = 4;
const PATIENCE = 20_000; // milliseconds

/**
 * Give a heap in a common memory a second thread, made by `make()`; where that fails it stays alone.
 * cells: the address of room for the board; strip: of the thread's own panel.
 */
export async function hire(heap, make, cells, strip) {
  const board = new Int32Array(heap.buffer, cells, ORDER + 16);
  board.fill(0);
  const hand = make();
  const there = await new Promise((resolve) => {
    hand.onmessage = () => resolve(true);
    hand.onerror = (event) => { event.preventDefault(); resolve(false); };
    hand.postMessage({ ...heap.common, cells, strip });
  });
  if (!there) return;
  let turn = 0;
  heap.order = (words) => {
    board.set(words, ORDER);
    Atomics.store(board, TURN, ++turn);
    Atomics.notify(board, TURN);
    return () => {
      while (Atomics.load(board, DONE) !== turn) {
        if (Atomics.wait(board, DONE, turn - 1, PATIENCE) === "timed-out")
          throw new Error("The page's second thread does not answer: reload the page.");
      }
    };
  };
}

/** The same in plain JavaScript, on an array of float32. */
function plainLoops(f32) {
  /** One position, one panel. */
  function panel(y, x, w, rows) {
    let a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0;
    for (let i = 0; i < rows; i++, w += 8) {
      const s = f32[x + i];
      a += s * f32[w];
      b += s * f32[w + 1];
      c += s * f32[w + 2];
      d += s * f32[w + 3];
      e += s * f32[w + 4];
      f += s * f32[w + 5];
      g += s * f32[w + 6];
      h += s * f32[w + 7];
    }
    f32[y] += a;
    f32[y + 1] += b;
    f32[y + 2] += c;
    f32[y + 3] += d;
    f32[y + 4] += e;
    f32[y + 5] += f;
    f32[y + 6] += g;
    f32[y + 7] += h;
  }
  const at = (x, n) => f32.subarray(x >> 2, (x >> 2) + n);
  return {
    one32(y, x, w, rows, cols, next) {
      for (let j = 0; j < cols; j += 8, w += next) panel((y >> 2) + j, x >> 2, w >> 2, rows);
    },
    four32(y, x, w, rows, T, xs, ys) {
      for (let t = 0; t < T; t++) panel((y + t * ys) >> 2, (x + t * xs) >> 2, w >> 2, rows);
    },
    exp(x, n) { at(x, n).forEach((z, i, all) => { all[i] = Math.exp(z); }); },
    gelu(x, n) {
      const t2 = (u) => -2 * Math.sqrt(2 / Math.PI) * (u + 0.044715 * u * u * u);
      at(x, n).forEach((u, i, all) => { all[i] = u / (1 + Math.exp(t2(u))); });
    },
  };
}
