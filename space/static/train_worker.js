// train_worker.js: the training's own thread, so that the page never freezes. Small messages go to and fro:
//
//   page -> worker   look · read {bytes, name} · start {size, minutes, max_steps?, members?} · go_on
//                    pause · resume · stop · keep · folder
//   worker -> page   kept {...} · text {...} · marks {marks} · speed {size, seconds} · begun {...}
//                    steps {items, seconds, over} · validation {step, val_loss, seconds, took}
//                    sample {step, text} · told {message} · done {...} · folder {files} · failed {message}

import { GPT as Writer, generator } from "./gpt2.js";
import { evaluate, lr_at } from "./train.js";
import { model_folder, num_params } from "./train_folder.js";
import { ngram_file } from "./train_npz.js";
import { forget, keep, kept, text_hash } from "./train_store.js";
import { most_members, Team } from "./train_team.js";
import { corpus_from_text, get_batch, marks, read_text } from "./train_text.js";

export const SIZES = {
  small: { config: { n_layer: 2, n_head: 4, n_embd: 64, block_size: 64 }, B: 16 },
  medium: { config: { n_layer: 3, n_head: 4, n_embd: 128, block_size: 128 }, B: 16 },
};
const LAW = { optimizer: "muon", lr: 4e-3, muon_lr: 0.02, beta1: 0.9, beta2: 0.99, weight_decay: 0.1 };
const VALIDATIONS = 6, SAMPLE = 240;                // times a run is examined; characters that it writes then
const HELDOUT = 2000;                                        // characters that the writing page plays with
const KEEP = 20;                                             // seconds between two savings

let corpus = null, team = null, run = null;

const { port1, port2 } = new MessageChannel();
let waiting = null;
port2.onmessage = () => waiting?.();
/** Let messages in, such as Pause; then go on. */
const breathe = () => new Promise((resolve) => { waiting = resolve; port1.postMessage(0); });

// ---------------------------------------------------------------- a text

async function read({ bytes, name }) {
  open_text(new Uint8Array(bytes), name);
  corpus.marks = marks(corpus.train, corpus.val, corpus.chars.length);
  postMessage({ type: "marks", marks: corpus.marks });
  for (const size of Object.keys(SIZES)) {
    postMessage({ type: "speed", size, seconds: await seconds_a_step(size) });
  }
}

function open_text(bytes, name) {
  corpus = { name, bytes, hash: text_hash(bytes), ...corpus_from_text(read_text(bytes)) };
  const { chars, train, val } = corpus;
  const symbols = train.length + val.length;
  postMessage({ type: "text", name, symbols, chars, train: train.length, val: val.length });
}

async function build(size, members = most_members()) {
  team?.dismiss();
  const { config, B } = SIZES[size];
  team = await Team.gather({ ...config, vocab_size: corpus.chars.length }, B, LAW, members);
  return team.model;
}

/** Seconds for one step of this size on this device: the median of a few, within about a second. */
async function seconds_a_step(size) {
  const times = [], begin = performance.now();
  (await build(size)).init(generator(1));
  while (times.length < 3 || (performance.now() - begin < 800 && times.length < 20)) {
    const from = performance.now();
    team.optimizer_step(...get_batch(corpus.train, team, 1, times.length), 0);
    times.push((performance.now() - from) / 1000);
    await breathe();
  }
  return times.sort((a, b) => a - b)[times.length >> 1];
}

// ---------------------------------------------------------------- the run: as in train_gpt2.py

/** minutes: how long it may take; or max_steps, where the clock shall not count. */
async function start({ size, minutes, max_steps = Infinity, seed = 1, members }) {
  (await build(size, members)).init(generator(seed));
  run = { size, minutes: max_steps < Infinity ? 0 : minutes, max_steps, seed, hash: corpus.hash,
    name: corpus.name, step: 0, seconds: 0, eval_seconds: time_validation(),
    losses: [], validations: [], samples: [] };
  await keep_text();
  await train();
}

/** A run that was left, as it was kept. */
async function go_on() {
  const [text, left] = [await kept("text"), await kept("run")];
  open_text(text.bytes, text.name);
  corpus.marks = text.marks;
  postMessage({ type: "marks", marks: corpus.marks });
  (await build(left.run.size)).load_state(left.state);
  run = left.run;
  await train();
}

/** How much of the run is over; time is kept back for the last step and the last validation. */
function share_over({ minutes, seconds, step, max_steps, eval_seconds }) {
  if (!minutes) return step / max_steps;
  return seconds / Math.max(1e-9, 60 * minutes - eval_seconds - 2 * seconds / Math.max(1, step));
}

/** Over how many steps the rate falls: those that were asked for, or what the clock allows at this pace. */
function horizon(run) {
  if (!run.minutes) return run.max_steps;
  return run.step ? run.step / share_over(run) : Infinity;
}

/** What a validation will take, from a part of one. */
function time_validation() {
  const part = corpus.val.subarray(0, Math.max(2, corpus.val.length >> 4)), began = performance.now();
  finish(evaluate(team, part));
  return (performance.now() - began) / 1000 * corpus.val.length / part.length;
}

/** Steps until the last one, or until the page says stop; examined now and then, and at the end. */
async function train() {
  const { config, bytes, kernels: { fused } } = team.model, { B, members } = team;
  const parameters = num_params(team.model), over = () => share_over(run) >= 1 || run.stopped;
  Object.assign(run, { paused: false, stopped: false, kept_at: performance.now(), told: run.losses.length });
  postMessage({ type: "begun", parameters, bytes, config, B, members, fused, ...run });
  for (let clock = performance.now(), told = clock; !over();) {
    await breathe();
    if (run.paused) {
      await save();
      await new Promise((resolve) => { run.go_on = resolve; });
      clock = performance.now();
      continue;
    }
    one_step();
    if (share_over(run) * VALIDATIONS >= run.validations.length + 1 && !over()) await examine();
    run.seconds += (performance.now() - clock) / 1000;
    clock = performance.now();
    if (clock - told > 250) { tell_steps(); told = clock; }
    if (clock - run.kept_at > 1000 * KEEP) save();
  }
  tell_steps();
  await examine();
  postMessage({ type: "done", step: run.step, seconds: run.seconds, val_loss: run.val_loss });
  await save("model");
  await forget("run");
}

/** The steps that the page has not heard of. */
function tell_steps() {
  const items = run.losses.slice(run.told);
  postMessage({ type: "steps", items, seconds: run.seconds, over: share_over(run) });
  run.told = run.losses.length;
}

/** One more step. The batch is a function of seed and step alone: a run that goes on sees the same text. */
function one_step() {
  const law = { ...LAW, warmup_steps: 100 }, share = lr_at(law, run.step, horizon(run)) / law.lr;
  const { loss } = team.optimizer_step(...get_batch(corpus.train, team, run.seed, run.step), share);
  if (!Number.isFinite(loss)) {
    throw new Error("The loss is no longer a number: begin again, or choose another text.");
  }
  run.losses.push([++run.step, loss]);
}

/** The exact loss of the whole validation split, and a sample. */
async function examine() {
  const began = performance.now(), turns = evaluate(team, corpus.val);
  let turn = turns.next();
  for (let count = 0; !turn.done; turn = turns.next()) if (++count % 4 === 0) await breathe();
  run.val_loss = turn.value;
  run.eval_seconds = (performance.now() - began) / 1000;
  run.validations.push([run.step, run.val_loss, run.seconds]);
  run.samples.push([run.step, await write(SAMPLE)]);
  const { step, val_loss, seconds, eval_seconds: took } = run;
  postMessage({ type: "validation", step, val_loss, seconds, took });
  postMessage({ type: "sample", step: run.step, text: run.samples.at(-1)[1] });
}

function finish(turns) {
  let turn = turns.next();
  while (!turn.done) turn = turns.next();
  return turn.value;
}

/** What the model writes now, by gpt2.js and from the very files that the page hands out. */
async function write(length) {
  const files = folder(), writer = await Writer.from_pretrained(async (name) => new Response(files[name]));
  const first = Math.max(0, corpus.chars.indexOf("\n")), ids = [];
  for (const { id } of writer.stream([first], length, { temperature: 0.8, seed: 1 })) {
    if (id !== undefined) ids.push(id);
  }
  return ids.map((id) => corpus.chars[id]).join("");
}

/** The files of the model as it is now; with_table: the letter counts too. The writing page reads these facts. */
function folder(with_table = false) {
  const { step = 0, seconds = 0, val_loss } = run, { name, marks, chars, train, val } = corpus;
  const facts = { text: name, corpus: { name }, steps: step, seconds, minutes: seconds / 60, val_loss, marks,
    ngram5_val_loss: marks[4], unit: "nats/char", made_by: "train.html" };
  if (!with_table) return model_folder(team.model, chars, facts);
  facts.heldout = Array.from(val.subarray(0, HELDOUT), (id) => chars[id]).join("");
  return model_folder(team.model, chars, facts, ngram_file(train, chars.length));
}

// ---------------------------------------------------------------- what is kept on this device

const NO_ROOM = "This browser has no room to keep the run: it goes on, but a reload would lose it.";

/** The run as it stands, or the files of its model. Where the browser has no room for it, it is said once. */
async function save(what = "run") {
  const { go_on: _, ...plain } = run;
  run.kept_at = performance.now();
  const kept_now = what === "model" ? folder(true) : { run: structuredClone(plain), state: team.model.state() };
  await keep(what, kept_now).catch(tell_full);
}

async function keep_text() {
  run.told_full = false;
  const { bytes, name, hash, marks } = corpus;
  await keep("text", { bytes, name, hash, marks }).catch(tell_full);
}

function tell_full() {
  if (run.told_full) return;
  run.told_full = true;
  postMessage({ type: "told", message: NO_ROOM });
}

async function look() {
  const [text, left] = [await kept("text"), await kept("run")];
  if (left && text?.hash === left.run.hash) postMessage({ type: "kept", ...left.run });
}

const on = {
  look, read, start, go_on,
  pause() { if (run) run.paused = true; },
  resume() { if (run?.paused) { run.paused = false; run.go_on?.(); } },
  stop() { if (run) { run.stopped = true; on.resume(); } },
  keep() { if (run && !run.stopped) save(); },
  folder() { postMessage({ type: "folder", files: folder(true) }); },
};

const NO_MEMORY = "This browser did not give the memory that the model needs: close tabs, or choose small.";

const NO_SIMD = "This browser has no WebAssembly SIMD: use one of the last few years.";

addEventListener("message", async ({ data }) => {
  try { await on[data.type](data); } catch (error) {
    const message = error instanceof RangeError ? NO_MEMORY
      : error instanceof WebAssembly.CompileError ? NO_SIMD : error.message;
    postMessage({ type: "failed", message });
  }
});
