// Runs the page's modules in node for tests/test_static.py: one JSON job on stdin, one JSON answer on stdout.

import fs from "node:fs";
import { GPT, draw, filter_probs, generator, readJSON } from "../space/static/gpt2.js";
import { name_heads } from "../space/static/heads.js";
import { make_repo } from "../space/static/hub.js";
import { makeKernels, scale16, spot, table16 } from "../space/static/kernels.js";
import { NGram } from "../space/static/ngram.js";
import { load_tokenizer } from "../space/static/tokenizer.js";

/** A file as fetch would give it, in small pieces that cut numbers in two. */
const opener = (folder) => async (name) => {
  const bytes = fs.readFileSync(`${folder}/${name}`);
  return new Response(
    new ReadableStream({
      start(controller) {
        for (let at = 0; at < bytes.length; at += 9973)
          controller.enqueue(new Uint8Array(bytes.subarray(at, at + 9973)));
        controller.close();
      },
    }),
  );
};

function finish(reading) {
  for (;;) {
    const { value, done } = reading.next();
    if (done) return value;
  }
}

const written = (stream) => [...stream].filter((step) => "id" in step).map((step) => step.id);

const jobs = {
  async model({ folder, kernels, ids, n }) {
    const model = await GPT.from_pretrained(opener(folder), { kernels }),
      all = [],
      patterns = [],
      path = [];
    finish(model.read(ids, { each: (logits) => all.push([...logits]) }));
    const logits = [...finish(model.read(ids, { patterns, path }))],
      single = ids.map((id, t) => [...model.forward([id], t)]);
    return {
      kernels: model.kernels,
      logits,
      all,
      single,
      patterns: patterns.map((p) => [...p]),
      parameters: model.num_params(),
      lens: path.filter((_, i) => i % 2 === 0).map((x) => [...model.lens(x)]),
      greedy: written(model.stream(ids, n, { temperature: 0 })),
      heap: model.bytes,
      file: model.file_bytes,
    };
  },

  async off({ folder, ids, heads }) {
    const model = await GPT.from_pretrained(opener(folder)),
      on = [...finish(model.read(ids))];
    model.switch_off(new Set(heads));
    return { on, off: [...finish(model.read(ids))] };
  },

  async sample({ folder, ids, n, seed, temperature }) {
    const model = await GPT.from_pretrained(opener(folder)),
      nats = [];
    const written = [];
    for (const { id, logits } of model.stream(ids, n, { seed, temperature })) {
      if (id === undefined) continue;
      written.push(id);
      nats.push(Math.log(logits.reduce((sum, z) => sum + Math.exp(z - logits[id]), 0)));
    }
    return { ids: written, nats };
  },

  /** Speculative sampling: one long greedy text, and many short ones; `plain` without a draft. */
  async speculate({ folder, helper, ids, n, seeds, length, top_k }) {
    const model = await GPT.from_pretrained(opener(folder)),
      draft = await GPT.from_pretrained(opener(helper));
    const plain = written(model.stream(ids, n, { temperature: 0 })),
      forward = model.forward;
    const text = (seed) => written(model.stream(ids, length, { seed, top_k, draft }));
    const drawn = Array.from({ length: seeds ?? 0 }, (_, seed) => text(seed));
    let passes = 0;
    model.forward = (...all) => {
      passes++;
      return forward.apply(model, all);
    };
    return { plain, drawn, greedy: written(model.stream(ids, n, { temperature: 0, draft })), passes };
  },

  /** The same text however the cache was used before. */
  async cache({ folder, ids, n }) {
    const model = await GPT.from_pretrained(opener(folder)),
      ask = { temperature: 0.9, seed: 5 };
    const fresh = written(model.stream(ids, n, ask)),
      again = [];
    for (const step of model.stream(ids, n, ask)) {
      if (!("id" in step)) continue;
      again.push(step.id);
      // somebody looks inside
      if (again.length % 3 === 0) finish(model.read(ids.slice(0, 5), { patterns: [] }));
      if (again.length % 7 === 0) finish(model.read([1, 2, 3], { path: [] }));
    }
    return {
      fresh,
      again,
      other: written(model.stream(ids, n, { ...ask, seed: 6 })),
      greedy: written(model.stream(ids, n, { temperature: 0 })),
    };
  },

  /**
   * y += x @ w for T positions, both sizes of numbers, both kinds of loops; and exp and gelu of some numbers.
   */
  async kernels({ rows, cols, T, numbers }) {
    const table = table16(),
      result = {},
      [y, x, w, half] = [0, 1 << 18, 1 << 19, 1 << 20],
      width = (cols + 7) & ~7;
    for (const kind of ["plain", "unfused", "wasm"]) {
      const k = await makeKernels(1 << 22, kind),
        fill = generator(9);
      for (let i = 0; i < rows * cols; i++) {
        const bits = Math.floor(fill() * 65536) & 0xd3ff,
          at = spot(Math.floor(i / cols), i % cols, rows);
        k.f32[w / 4 + at] = table[bits]; // all sizes below 64, subnormals too
        k.u16[half / 2 + at] = scale16(bits);
      }
      for (let i = 0; i < (T + 3) * (rows + 4); i++) k.f32[x / 4 + i] = fill() - 0.5;
      for (const size of kind === "plain" ? [32] : [32, 16]) {
        k.f32.fill(0.25, 0, (T + 3) * width);
        k.matmul(y, x, size === 16 ? half : w, T, rows, cols, size === 16, rows + 4, width);
        result[`${kind} matmul ${size}`] = [...k.f32.subarray(0, T * width)].filter(
          (_, i) => i % width < cols,
        );
      }
      for (const name of ["exp", "gelu"]) {
        k.f32.set(numbers);
        k[name](0, numbers.length);
        result[`${kind} ${name}`] = [...k.f32.subarray(0, numbers.length)];
      }
    }
    let wrong = 0;
    for (let bits = 0; bits < 65536; bits++) {
      if ((bits & 0x7fff) < 0x5400 && table[scale16(bits)] !== 1024 * table[bits]) wrong++;
    }
    return { ...result, wrong, table: [...table].map(String) };
  },

  /** Six made-up heads on one text. */
  async heads() {
    const text = "one two\nthree fore\nfive sixe\nseven",
      ids = [...text].map((c) => c.charCodeAt(0));
    const newline = 10,
      spread = (t, holds) => {
        const places = [...Array(t + 1).keys()].filter(holds);
        const at = places.length ? places : [...Array(t + 1).keys()];
        return Float32Array.from({ length: t + 1 }, (_, j) => (at.includes(j) ? 1 / at.length : 0));
      };
    const model = {
      config: { n_layer: 1, n_head: 6 },
      forward(_, t, { patterns }) {
        patterns.push(
          spread(t, (j) => j === t),
          spread(t, (j) => j === t - 1),
          spread(t, (j) => j < t - 4 && (j === 0 || ids[j - 1] === newline)),
          spread(t, (j) => j < t && ids[j] === ids[t]),
          spread(t, (j) => ids[j] === 32),
          spread(t, () => true),
        );
      },
    };
    return name_heads(model, ids, { encode: (c) => [c.charCodeAt(0)] });
  },

  async tokenizer({ file, texts }) {
    const tokenizer = load_tokenizer(JSON.parse(fs.readFileSync(file, "utf8")));
    return texts.map((text) => {
      const ids = tokenizer.encode(text);
      return { ids, text: tokenizer.decode(ids), dropped: tokenizer.dropped(text) };
    });
  },

  async ngram({ file, contexts }) {
    const table = await NGram.load(new Uint8Array(fs.readFileSync(file)).buffer);
    return contexts.map((context) => [...table.next_probs(context)]);
  },

  async sampling({ cases }) {
    return cases.map(({ logits, t, k, p }) => [...filter_probs(logits, t, k, p)]);
  },

  async draws({ probs, n, seed }) {
    const counts = probs.map(() => 0),
      random = generator(seed);
    for (let i = 0; i < n; i++) counts[draw(probs, random())]++;
    return counts;
  },

  /** What a visitor reads when the Hub answers with each of these. */
  async refusals({ statuses }) {
    const said = {};
    for (const status of statuses) {
      globalThis.fetch = async () => new Response("", { status });
      await make_repo("token", "model", "reader/my-gpt2", false).catch((error) => {
        said[status] = error.message;
      });
    }
    return said;
  },

  async errors({ folders }) {
    const said = {};
    for (const folder of folders) {
      try {
        load_tokenizer(await readJSON(opener(folder), "tokenizer.json"));
        const model = await GPT.from_pretrained(opener(folder));
        finish(model.read([...Array(32).keys()].map((id) => id + 33)));
        said[folder] = "";
      } catch (error) {
        said[folder] = error.code === "ENOENT" ? "missing" : `${error.constructor.name}: ${error.message}`;
      }
    }
    return said;
  },
};

const job = JSON.parse(fs.readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(await jobs[job.do](job)));
