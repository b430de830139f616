// train_worker.js: the training's own thread, so that the page never freezes. The page sends and receives small messages:
//
//   page -> worker   read {bytes, name} · start {size, minutes, seed} · pause · resume · stop · folder
//   worker -> page   text {name, symbols, chars, train, val} · marks {marks} · speed {size, seconds} · begun {...}
//                    steps {items, seconds} · validation {step, val_loss} · sample {step, text} · done {...} · folder {files}
//                    failed {message}

import { GPT as Writer, generator } from "./gpt2.js";
import { evaluate, GPT, lr_at, make_optimizers, optimizer_step } from "./train.js";
import { model_folder } from "./train_folder.js";
import { corpus_from_text, marks, read_text } from "./train_text.js";

export const SIZES = {
  small: { config: { n_layer: 2, n_head: 4, n_embd: 64, block_size: 64 }, B: 16 },
  medium: { config: { n_layer: 4, n_head: 4, n_embd: 128, block_size: 128 }, B: 16 },
};
const LAW = { optimizer: "muon", lr: 4e-3, muon_lr: 0.02, beta1: 0.9, beta2: 0.99, weight_decay: 0.1 };   // as the preset cpu
const VALIDATIONS = 8, SAMPLE = 240;                         // times a run stops to be examined; characters that it writes

let corpus = null, model = null, run = null;

const { port1, port2 } = new MessageChannel();
let waiting = null;
port2.onmessage = () => waiting?.();
/** Let messages in, such as Pause; then go on. */
const breathe = () => new Promise((resolve) => { waiting = resolve; port1.postMessage(0); });

async function read({ bytes, name }) {
  corpus = { name, ...corpus_from_text(read_text(new Uint8Array(bytes)), 128) };
  const { chars, train, val } = corpus;
  postMessage({ type: "text", name, symbols: train.length + val.length, chars, train: train.length, val: val.length });
  corpus.marks = marks(train, val, chars.length);
  postMessage({ type: "marks", marks: corpus.marks });
  for (const size of Object.keys(SIZES)) postMessage({ type: "speed", size, seconds: await seconds_a_step(size) });
}

const build = (size) => new GPT({ ...SIZES[size].config, vocab_size: corpus.chars.length }, SIZES[size].B);

/** Seconds for one step of this size on this device: the median of a few, within about a second. */
async function seconds_a_step(size) {
  const trial = build(size), optimizers = make_optimizers(trial, LAW), random = generator(1), times = [];
  trial.init(random);
  for (let begin = performance.now(); times.length < 3 || (performance.now() - begin < 800 && times.length < 20);) {
    const from = performance.now();
    optimizer_step(trial, optimizers, ...get_batch(corpus.train, trial, random), 0);
    times.push((performance.now() - from) / 1000);
    await breathe();
  }
  return times.sort((a, b) => a - b)[times.length >> 1];
}

/** (x, y): B windows of the text at random places, and the same one symbol later. */
function get_batch(ids, { B, config: { block_size: T } }, random) {
  const x = new Int32Array(B * T), y = new Int32Array(B * T);
  for (let b = 0; b < B; b++) {
    const start = Math.floor(random() * (ids.length - T));
    x.set(ids.subarray(start, start + T), b * T);
    y.set(ids.subarray(start + 1, start + T + 1), b * T);
  }
  return [x, y];
}

async function start({ size, minutes, seed = 1 }) {
  const step_seconds = await seconds_a_step(size), random = generator(seed);
  model = build(size);
  model.init(random);
  const max_steps = Math.max(20, Math.round(minutes * 60 / step_seconds));
  const law = { ...LAW, max_steps, warmup_steps: Math.min(100, max_steps >> 3) };
  run = { law, step: 0, seconds: 0, paused: false, stopped: false, val_loss: NaN };
  const parameters = Object.values(model.shapes).reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0);
  postMessage({ type: "begun", max_steps, parameters, bytes: model.bytes, config: model.config });
  await train(run, make_optimizers(model, law), random);
}

/** Steps until the last one, or until the page says stop; examined now and then, and at the end. */
async function train(run, optimizers, random) {
  const { max_steps } = run.law, every = Math.max(1, Math.floor(max_steps / VALIDATIONS));
  let items = [], told = performance.now();
  while (run.step < max_steps && !run.stopped) {
    await breathe();
    if (run.paused) { await new Promise((resolve) => { run.go_on = resolve; }); continue; }
    const from = performance.now();
    const share = lr_at(run.law, run.step) / run.law.lr;
    const { loss } = optimizer_step(model, optimizers, ...get_batch(corpus.train, model, random), share);
    run.seconds += (performance.now() - from) / 1000;
    if (!Number.isFinite(loss)) throw new Error("The loss is no longer a number: begin again, or choose another text.");
    items.push([++run.step, loss]);
    if (performance.now() - told > 250) {
      postMessage({ type: "steps", items, seconds: run.seconds });
      [items, told] = [[], performance.now()];
    }
    if (run.step % every === 0 && run.step < max_steps) await examine(run);
  }
  postMessage({ type: "steps", items, seconds: run.seconds });
  await examine(run);
  postMessage({ type: "done", step: run.step, seconds: run.seconds, val_loss: run.val_loss });
}

/** The exact loss of the whole validation split, and a sample. */
async function examine(run) {
  const turns = evaluate(model, corpus.val);
  let turn = turns.next();
  for (let count = 0; !turn.done; turn = turns.next()) if (++count % 4 === 0) await breathe();
  run.val_loss = turn.value;
  postMessage({ type: "validation", step: run.step, val_loss: run.val_loss });
  postMessage({ type: "sample", step: run.step, text: await write(SAMPLE) });
}

/** What the model writes now, by gpt2.js and from the very files that the page hands out. */
async function write(length) {
  const files = folder(), writer = await Writer.from_pretrained(async (name) => new Response(files[name]));
  const first = Math.max(0, corpus.chars.indexOf("\n")), ids = [];
  for (const { id } of writer.stream([first], length, { temperature: 0.8, seed: 1 })) if (id !== undefined) ids.push(id);
  return ids.map((id) => corpus.chars[id]).join("");
}

function folder() {
  const { step = 0, seconds = 0, val_loss } = run;
  return model_folder(model, corpus.chars, { text: corpus.name, steps: step, minutes: seconds / 60, val_loss, marks: corpus.marks,
    unit: "nats/char", made_by: "train.html" });
}

const on = {
  read, start,
  pause() { if (run) run.paused = true; },
  resume() { if (run?.paused) { run.paused = false; run.go_on?.(); } },
  stop() { if (run) { run.stopped = true; on.resume(); } },
  folder() { postMessage({ type: "folder", files: folder() }); },
};

addEventListener("message", async ({ data }) => {
  try { await on[data.type](data); } catch (error) {
    const memory = error instanceof RangeError ? "This browser did not give the memory that the model needs: close other tabs, or choose small." : null;
    postMessage({ type: "failed", message: memory ?? error.message });
  }
});
