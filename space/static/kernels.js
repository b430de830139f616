// kernels.js: the inner loops of GPT-2, once in plain JavaScript and once in WebAssembly.
//
//   vecmat(y, x, w, rows, cols)     y[j] += sum_i x[i] * w[i][j]    y = x @ W, the way a Conv1D weight lies in the file
//   matvec(y, x, w, rows, cols)     y[i]  = sum_j w[i][j] * x[j]    y = W @ x, the way wte and the key cache lie
//   matmul(y, x, w, T, rows, cols)  vecmat for T rows of x and y at once: each weight is fetched once for all of them
//
// y, x and w are byte addresses in one shared heap; x and y are float32, w is float32 or (names ending in 16) float16.
// The WebAssembly is the text below: this file assembles it when the page loads, so the source is what runs and there
// is nothing to build. It needs rows % 4 == 0 in vecmat and cols % 8 == 0 everywhere; GPT pads or picks `plain`.

export const SOURCE = String.raw`
  ;; y[j] += x[i] w[i][j], four rows of w at a time: y is loaded and stored once for the four
  func vecmat32 param i32 y i32 x i32 w i32 rows i32 cols
    local i32 xend i32 j i32 yend i32 w1 i32 w2 i32 w3 i32 stride v128 x0 v128 x1 v128 x2 v128 x3
    get cols  i32.const 4  i32.mul  set stride
    get y  get stride  i32.add  set yend
    get x  get rows  i32.const 4  i32.mul  i32.add  set xend
    loop four
      get x  v128.load32_splat 0   set x0
      get x  v128.load32_splat 4   set x1
      get x  v128.load32_splat 8   set x2
      get x  v128.load32_splat 12  set x3
      get w   get stride  i32.add  set w1
      get w1  get stride  i32.add  set w2
      get w2  get stride  i32.add  set w3
      get y  set j
      loop columns
        get j
        get j  v128.load 0
        get w  v128.load 0  get x0  f32x4.mul  f32x4.add
        get w1 v128.load 0  get x1  f32x4.mul  f32x4.add
        get w2 v128.load 0  get x2  f32x4.mul  f32x4.add
        get w3 v128.load 0  get x3  f32x4.mul  f32x4.add
        v128.store 0
        get j
        get j  v128.load 16
        get w  v128.load 16  get x0  f32x4.mul  f32x4.add
        get w1 v128.load 16  get x1  f32x4.mul  f32x4.add
        get w2 v128.load 16  get x2  f32x4.mul  f32x4.add
        get w3 v128.load 16  get x3  f32x4.mul  f32x4.add
        v128.store 16
        get w   i32.const 32  i32.add  set w
        get w1  i32.const 32  i32.add  set w1
        get w2  i32.const 32  i32.add  set w2
        get w3  i32.const 32  i32.add  set w3
        get j   i32.const 32  i32.add  tee j
        get yend  i32.lt_u  br_if columns
      end
      get w3  set w
      get x  i32.const 16  i32.add  tee x
      get xend  i32.lt_u  br_if four
    end
  end

  ;; y[i] = w[i][j] x[j]: one row at a time, eight products at a time, the four lanes added at the end
  func matvec32 param i32 y i32 x i32 w i32 rows i32 cols
    local i32 yend i32 j i32 xend v128 a v128 b
    get y  get rows  i32.const 4  i32.mul  i32.add  set yend
    get x  get cols  i32.const 4  i32.mul  i32.add  set xend
    loop rows
      f32.const0  f32x4.splat  tee a  set b
      get x  set j
      loop columns
        get a  get w  v128.load 0   get j  v128.load 0   f32x4.mul  f32x4.add  set a
        get b  get w  v128.load 16  get j  v128.load 16  f32x4.mul  f32x4.add  set b
        get w  i32.const 32  i32.add  set w
        get j  i32.const 32  i32.add  tee j
        get xend  i32.lt_u  br_if columns
      end
      get a  get b  f32x4.add  set a
      get y
      get a  f32x4.extract_lane 0  get a  f32x4.extract_lane 1  f32.add
      get a  f32x4.extract_lane 2  get a  f32x4.extract_lane 3  f32.add  f32.add
      f32.store 0
      get y  i32.const 4  i32.add  tee y
      get yend  i32.lt_u  br_if rows
    end
  end

  ;; The same two for float16 weights. A float16 is s eeeee mmmmmmmmmm. Sign-extended to 32 bits, moved 13 up and
  ;; masked, it is a float32 with the right sign and mantissa and an exponent that is 112 too small. So the value is
  ;; 2^-112 too small, and x comes in 2^112 times too large (less what scale16 took away when the file was read).
  func vecmat16 param i32 y i32 x i32 w i32 rows i32 cols
    local i32 xend i32 j i32 yend i32 w1 i32 w2 i32 w3 i32 stride v128 x0 v128 x1 v128 x2 v128 x3 v128 mask v128 up
    i32.const -1879056384  i32x4.splat  set mask
    i32.const 1920991232   i32x4.splat  set up
    get cols  i32.const 2  i32.mul  set stride
    get y  get cols  i32.const 4  i32.mul  i32.add  set yend
    get x  get rows  i32.const 4  i32.mul  i32.add  set xend
    loop four
      get x  v128.load32_splat 0   get up  f32x4.mul  set x0
      get x  v128.load32_splat 4   get up  f32x4.mul  set x1
      get x  v128.load32_splat 8   get up  f32x4.mul  set x2
      get x  v128.load32_splat 12  get up  f32x4.mul  set x3
      get w   get stride  i32.add  set w1
      get w1  get stride  i32.add  set w2
      get w2  get stride  i32.add  set w3
      get y  set j
      loop columns
        get j
        get j  v128.load 0
        get w  v128.load16x4_s 0  i32.const 13  i32x4.shl  get mask  v128.and  get x0  f32x4.mul  f32x4.add
        get w1 v128.load16x4_s 0  i32.const 13  i32x4.shl  get mask  v128.and  get x1  f32x4.mul  f32x4.add
        get w2 v128.load16x4_s 0  i32.const 13  i32x4.shl  get mask  v128.and  get x2  f32x4.mul  f32x4.add
        get w3 v128.load16x4_s 0  i32.const 13  i32x4.shl  get mask  v128.and  get x3  f32x4.mul  f32x4.add
        v128.store 0
        get j
        get j  v128.load 16
        get w  v128.load16x4_s 8  i32.const 13  i32x4.shl  get mask  v128.and  get x0  f32x4.mul  f32x4.add
        get w1 v128.load16x4_s 8  i32.const 13  i32x4.shl  get mask  v128.and  get x1  f32x4.mul  f32x4.add
        get w2 v128.load16x4_s 8  i32.const 13  i32x4.shl  get mask  v128.and  get x2  f32x4.mul  f32x4.add
        get w3 v128.load16x4_s 8  i32.const 13  i32x4.shl  get mask  v128.and  get x3  f32x4.mul  f32x4.add
        v128.store 16
        get w   i32.const 16  i32.add  set w
        get w1  i32.const 16  i32.add  set w1
        get w2  i32.const 16  i32.add  set w2
        get w3  i32.const 16  i32.add  set w3
        get j   i32.const 32  i32.add  tee j
        get yend  i32.lt_u  br_if columns
      end
      get w3  set w
      get x  i32.const 16  i32.add  tee x
      get xend  i32.lt_u  br_if four
    end
  end

  func matvec16 param i32 y i32 x i32 w i32 rows i32 cols
    local i32 yend i32 j i32 xend v128 a v128 b v128 mask v128 up
    i32.const -1879056384  i32x4.splat  set mask
    i32.const 1920991232   i32x4.splat  set up
    get y  get rows  i32.const 4  i32.mul  i32.add  set yend
    get x  get cols  i32.const 4  i32.mul  i32.add  set xend
    loop rows
      f32.const0  f32x4.splat  tee a  set b
      get x  set j
      loop columns
        get w  v128.load16x4_s 0  i32.const 13  i32x4.shl  get mask  v128.and
        get j  v128.load 0   get up  f32x4.mul  f32x4.mul  get a  f32x4.add  set a
        get w  v128.load16x4_s 8  i32.const 13  i32x4.shl  get mask  v128.and
        get j  v128.load 16  get up  f32x4.mul  f32x4.mul  get b  f32x4.add  set b
        get w  i32.const 16  i32.add  set w
        get j  i32.const 32  i32.add  tee j
        get xend  i32.lt_u  br_if columns
      end
      get a  get b  f32x4.add  set a
      get y
      get a  f32x4.extract_lane 0  get a  f32x4.extract_lane 1  f32.add
      get a  f32x4.extract_lane 2  get a  f32x4.extract_lane 3  f32.add  f32.add
      f32.store 0
      get y  i32.const 4  i32.add  tee y
      get yend  i32.lt_u  br_if rows
    end
  end

  ;; y[t][0..7] += x[t] @ panel for T positions, four at a time: the sums stay in registers. panel is (rows, 8).
  func panel32 param i32 y i32 x i32 w i32 rows i32 T i32 stride
    local i32 xbytes i32 wend i32 tend i32 p i32 x0 i32 x1 i32 x2 i32 x3 v128 u v128 v v128 s
      v128 a0 v128 b0 v128 a1 v128 b1 v128 a2 v128 b2 v128 a3 v128 b3
    get rows  i32.const 4  i32.mul  set xbytes
    get w  get rows  i32.const 32  i32.mul  i32.add  set wend
    get y  get T  get stride  i32.mul  i32.add  set tend
    loop positions
      get x  tee x0  get xbytes  i32.add  tee x1  get xbytes  i32.add  tee x2  get xbytes  i32.add  tee x3
      get xbytes  i32.add  set x
      f32.const0  f32x4.splat  tee a0  tee b0  tee a1  tee b1  tee a2  tee b2  tee a3  set b3
      get w  set p
      loop four
        ${[0, 1, 2, 3].map((k) => `get p  v128.load ${32 * k}  set u  get p  v128.load ${32 * k + 16}  set v
        ${[0, 1, 2, 3].map((t) => `get x${t}  v128.load32_splat ${4 * k}  tee s  get u  f32x4.mul  get a${t}  f32x4.add  set a${t}
        get s  get v  f32x4.mul  get b${t}  f32x4.add  set b${t}`).join("\n")}`).join("\n")}
        ${[0, 1, 2, 3].map((t) => `get x${t}  i32.const 16  i32.add  set x${t}`).join("\n")}
        get p  i32.const 128  i32.add  tee p
        get wend  i32.lt_u  br_if four
      end
      ${[0, 1, 2, 3].map((t) => `get y  get y  v128.load 0  get a${t}  f32x4.add  v128.store 0
      get y  get y  v128.load 16  get b${t}  f32x4.add  v128.store 16  get y  get stride  i32.add  set y`).join("\n")}
      get y  get tend  i32.lt_u  br_if positions
    end
  end

  ;; eight columns of w (stride bytes a row) side by side as a panel (rows, 8); 16: widened to float32 on the way
  func pack32 param i32 y i32 w i32 rows i32 stride
    local i32 yend
    get y  get rows  i32.const 32  i32.mul  i32.add  set yend
    loop rows_
      get y  get w  v128.load 0   v128.store 0
      get y  get w  v128.load 16  v128.store 16
      get w  get stride  i32.add  set w
      get y  i32.const 32  i32.add  tee y
      get yend  i32.lt_u  br_if rows_
    end
  end

  func pack16 param i32 y i32 w i32 rows i32 stride
    local i32 yend v128 mask v128 up
    i32.const -1879056384  i32x4.splat  set mask
    i32.const 1920991232   i32x4.splat  set up
    get y  get rows  i32.const 32  i32.mul  i32.add  set yend
    loop rows_
      get y  get w  v128.load16x4_s 0  i32.const 13  i32x4.shl  get mask  v128.and  get up  f32x4.mul  v128.store 0
      get y  get w  v128.load16x4_s 8  i32.const 13  i32x4.shl  get mask  v128.and  get up  f32x4.mul  v128.store 16
      get w  get stride  i32.add  set w
      get y  i32.const 32  i32.add  tee y
      get yend  i32.lt_u  br_if rows_
    end
  end
`;

// ---------------------------------------------------------------- the assembler: words in, bytes out

const TYPES = { i32: 0x7f, v128: 0x7b };
const LABEL = "label", LOCAL = "local", SIGNED = "signed", LANE = "lane", OFFSET = "offset";
const OPS = {       // word: [bytes of the opcode, what follows it, log2 of the alignment we promise]
  "get": [[0x20], LOCAL], "set": [[0x21], LOCAL], "tee": [[0x22], LOCAL],
  "br_if": [[0x0d], LABEL], "i32.const": [[0x41], SIGNED], "f32.const0": [[0x43, 0, 0, 0, 0]],
  "i32.add": [[0x6a]], "i32.mul": [[0x6c]], "i32.lt_u": [[0x49]], "f32.add": [[0x92]], "f32.store": [[0x38], OFFSET, 2],
  "v128.load": [[0xfd, 0x00], OFFSET, 2], "v128.load16x4_s": [[0xfd, 0x03], OFFSET, 2],
  "v128.load32_splat": [[0xfd, 0x09], OFFSET, 2], "v128.store": [[0xfd, 0x0b], OFFSET, 2],
  "i32x4.splat": [[0xfd, 0x11]], "f32x4.splat": [[0xfd, 0x13]], "f32x4.extract_lane": [[0xfd, 0x1f], LANE],
  "v128.and": [[0xfd, 0x4e]], "i32x4.shl": [[0xfd, 0xab, 0x01]],
  "f32x4.add": [[0xfd, 0xe4, 0x01]], "f32x4.mul": [[0xfd, 0xe6, 0x01]],
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
    if (operand === LANE) code.push(Number(words[i]));
    if (operand === OFFSET) code.push(align, ...leb(Number(words[i])));
    if (operand) i++;
  }
  const own = locals.slice(params).map(([type]) => [1, TYPES[type]]);
  const body = [...vector(own), ...code];
  return { name: words[1], type: [0x60, ...vector(Array(params).fill([0x7f])), 0], body: [...leb(body.length), ...body] };
}

/** The text of SOURCE as a WebAssembly module (Uint8Array). It imports its memory as `page.memory`. */
export function assemble(source) {
  const plain = source.replace(/;;.*/g, "");
  const functions = plain.split(/\bfunc\b/).slice(1).map((text) => assembleFunction(["func", ...text.trim().split(/\s+/)]));
  return new Uint8Array([
    0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0,
    ...section(1, functions.map((f) => f.type)),
    ...section(2, [[...name("page"), ...name("memory"), 2, 0, 0]]),
    ...section(3, functions.map((_, i) => leb(i))),
    ...section(7, functions.map((f, i) => [...name(f.name), 0, ...leb(i)])),
    ...section(10, functions.map((f) => f.body)),
  ]);
}

// ---------------------------------------------------------------- a heap, and the loops on it

const SCALE = 10;                    // float16 weights are kept 2^10 too large: then none of them is subnormal,
                                     // which many processors multiply a hundred times slower. 2^(112-10) is `up`.
const LARGEST16 = 0x5400;            // 64 in float16: 2^10 times more would no longer fit

/** One float16 (16 bits) times 2^10, as a float16 again: exact, because 2^10 lifts the smallest subnormal to a normal. */
function scale16(half) {
  const sign = half & 0x8000, size = half & 0x7fff;
  if (size >= LARGEST16) throw new RangeError("a float16 weight is larger than 64");
  if (size >= 0x0400) return half + (SCALE << 10);
  if (size === 0) return half;
  const log = 31 - Math.clz32(size);                       // size = 2^log * (1 + rest), worth 2^(log - 24)
  return sign | ((log - 24 + SCALE + 15) << 10) | ((size << (10 - log)) & 0x3ff);
}

/** 65,536 entries: the float32 that each float16 stands for. */
function table16() {
  const table = new Float32Array(65536);
  for (let half = 0; half < 65536; half++) {
    const exponent = (half >> 10) & 31, mantissa = half & 1023;
    const size = exponent === 31 ? (mantissa ? NaN : Infinity)
      : exponent ? 2 ** (exponent - 15) * (1 + mantissa / 1024) : 2 ** -24 * mantissa;
    table[half] = half & 0x8000 ? -size : size;
  }
  return table;
}

/**
 * A heap of `bytes` bytes with the loops that work on it.
 * kind: "wasm", "plain", or "auto" (wasm where the browser has SIMD). Returns { kind, buffer, f32, u16, matmul, vecmat32, ... }.
 */
export async function makeKernels(bytes, kind = "auto") {
  if (kind !== "plain") {
    try {
      const pages = Math.ceil(bytes / 65536);
      const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
      const { instance } = await WebAssembly.instantiate(assemble(SOURCE), { page: { memory } });
      return { kind: "wasm", ...views(memory.buffer), ...instance.exports, matmul: panels(instance.exports) };
    } catch (error) {
      if (kind === "wasm") throw error;
    }
  }
  const heap = views(new ArrayBuffer(Math.ceil(bytes / 8) * 8));
  return { kind: "plain", ...heap, ...plainKernels(heap.f32) };
}

/** True where the browser runs our WebAssembly: SIMD is in every browser since 2023. */
export function hasWasm() {
  try { return WebAssembly.validate(assemble(SOURCE)); } catch { return false; }
}

/** matmul from the WebAssembly's parts: eight columns of the weight at a time. T is a multiple of 4, `strip` a (rows, 8) room. */
const panels = ({ pack16, pack32, panel32 }) => (y, x, w, T, rows, cols, half, strip) => {
  const size = half ? 2 : 4, pack = half ? pack16 : pack32;
  for (let j = 0; j < cols; j += 8) {
    pack(strip, w + size * j, rows, size * cols);
    panel32(y + 4 * j, x, strip, rows, T, 4 * cols);
  }
};

const views = (buffer) => ({ buffer, f32: new Float32Array(buffer), u16: new Uint16Array(buffer) });

const STRIP = 16;                                            // rows of a weight that plain JavaScript works on at once

function plainKernels(f32) {
  return {
    matmul(y, x, w, T, rows, cols) {
      for (let i = 0; i < rows; i += STRIP) {                // a strip of rows stays in the processor's cache for all T
        const n = Math.min(STRIP, rows - i);
        for (let t = 0; t < T; t++) this.vecmat32(y + 4 * t * cols, x + 4 * (t * rows + i), w + 4 * i * cols, n, cols);
      }
    },
    vecmat32(y, x, w, rows, cols) {
      y >>= 2; x >>= 2; w >>= 2;                            // addresses -> indices
      let i = 0;
      for (; i + 4 <= rows; i += 4) {
        const x0 = f32[x + i], x1 = f32[x + i + 1], x2 = f32[x + i + 2], x3 = f32[x + i + 3];
        let a = w + i * cols, b = a + cols, c = b + cols, d = c + cols, j = y;
        for (; j + 4 <= y + cols; j += 4, a += 4, b += 4, c += 4, d += 4) {        // written out: a fifth faster
          f32[j] += x0 * f32[a] + x1 * f32[b] + x2 * f32[c] + x3 * f32[d];
          f32[j + 1] += x0 * f32[a + 1] + x1 * f32[b + 1] + x2 * f32[c + 1] + x3 * f32[d + 1];
          f32[j + 2] += x0 * f32[a + 2] + x1 * f32[b + 2] + x2 * f32[c + 2] + x3 * f32[d + 2];
          f32[j + 3] += x0 * f32[a + 3] + x1 * f32[b + 3] + x2 * f32[c + 3] + x3 * f32[d + 3];
        }
        for (; j < y + cols; j++, a++, b++, c++, d++) f32[j] += x0 * f32[a] + x1 * f32[b] + x2 * f32[c] + x3 * f32[d];
      }
      for (; i < rows; i++) {
        const x0 = f32[x + i], a = w + i * cols;
        for (let j = 0; j < cols; j++) f32[y + j] += x0 * f32[a + j];
      }
    },
    matvec32(y, x, w, rows, cols) {
      y >>= 2; x >>= 2; w >>= 2;
      for (let i = 0; i < rows; i++, w += cols) {
        let a = 0, b = 0, c = 0, d = 0, j = 0;              // four sums: the processor adds them side by side
        for (; j + 4 <= cols; j += 4) {
          a += f32[w + j] * f32[x + j];
          b += f32[w + j + 1] * f32[x + j + 1];
          c += f32[w + j + 2] * f32[x + j + 2];
          d += f32[w + j + 3] * f32[x + j + 3];
        }
        for (; j < cols; j++) a += f32[w + j] * f32[x + j];
        f32[y + i] = a + b + (c + d);
      }
    },
  };
}

export { scale16, table16 };
