// worker.js: the model's own thread, so that the page never freezes. The page sends and receives small messages:
//
//   page -> worker   load {kernels} · generate {job, text, max, temperature, top_k, seed, fast} · stop · inspect {at, ask}
//   worker -> page   progress {name, done, total} · ready {...} · seed {pieces, dropped} · reading {read, of}
//                    tokens {items, seconds, count} · done {why} · inside {...} · failed {job?, message}

import { GPT, readJSON } from "./gpt2.js";
import { NGram } from "./ngram.js";
import { load_tokenizer } from "./tokenizer.js";

const READING_SPEED = 30;                                    // characters a second: a brisk reader's pace
const BREATH = 12;                                           // milliseconds of work between two looks at the mailbox

let model, tokenizer, table = null, start_id = 0;
let text = { ids: [], starts: [] };                          // starts[i]: where the window began that guessed ids[i]
let job = 0;                                                 // the generation that may go on; any other one stops

const { port1, port2 } = new MessageChannel();
port2.onmessage = () => waiting?.();
let waiting = null;
/** Let messages in, such as Stop; then go on. */
const breathe = () => new Promise((resolve) => { waiting = resolve; port1.postMessage(0); });
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function open(name) {
  let response;
  try { response = await fetch(new URL(`model/${name}`, import.meta.url)); } catch {
    throw new Error(`${name} could not be fetched: check the connection and reload the page.`);
  }
  if (!response.ok) throw new Error(`model/${name} is missing (${response.status}): put the whole model folder beside this page.`);
  return response;
}

/** What a page can do without: null where the file is missing or damaged. */
async function optional(read) { try { return await read(); } catch { return null; } }

async function load({ kernels }) {
  let told = 0;
  const progress = (done, total) => {
    if (done < total && performance.now() - told < 100) return;
    told = performance.now();
    postMessage({ type: "progress", done, total });
  };
  const tokens = load_tokenizer(await readJSON(open, "tokenizer.json"));
  const gpt = await GPT.from_pretrained(open, { progress, kernels });
  if (tokens.vocab_size > gpt.config.vocab_size) throw new Error("tokenizer.json has more symbols than the model: upload both files of one model.");
  gpt.config.n_tokens = Math.min(gpt.config.n_tokens, tokens.vocab_size);
  const counts = await optional(async () => NGram.load(await (await open("ngram5.npz")).arrayBuffer()));
  table = counts?.vocab_size === tokens.vocab_size ? counts : null;
  start_id = (await optional(() => readJSON(open, "generation_config.json")))?.bos_token_id ?? 0;
  const card = await optional(() => readJSON(open, "metrics.json"));
  [model, tokenizer] = [gpt, tokens];
  const { n_layer, n_head, block_size } = gpt.config;
  postMessage({ type: "ready", n_layer, n_head, block_size, parameters: gpt.num_params(), bytes: gpt.file_bytes,
    memory: gpt.bytes, kernels: gpt.kernels, card, has_table: table !== null, unit: tokens.chars ? "character" : "token" });
}

async function generate(ask) {
  const stopped = () => job !== ask.job, prompt = tokenizer.encode(ask.text);
  if (!prompt.length) prompt.push(start_id);
  text = { ids: [...prompt], starts: prompt.map((_, i) => Math.max(0, i - model.config.block_size)) };
  postMessage({ type: "seed", job: ask.job, pieces: prompt.map((id) => tokenizer.piece(id)), dropped: tokenizer.dropped(ask.text) });
  const sender = new Sender(ask), stream = model.stream(prompt, ask.max, ask);
  while (!stopped()) {
    const step = await alone(() => next_id(stream, stopped, ask, sender.count === 0));
    if (!step) break;
    text.starts.push(text.ids.length - step.window);
    text.ids.push(step.id);
    await sender.add(step.id, surprise(step.logits, step.id), step.seconds);
  }
  sender.flush();
  postMessage({ type: "done", job: ask.job, stopped: stopped(), tokens: text.ids.length - prompt.length });
}

/** The stream's next id with the seconds it took (reading the seed text is not counted); null at the end and after Stop. */
async function next_id(stream, stopped, ask, first) {
  let began = performance.now(), seconds = 0;
  while (!stopped()) {
    const { value: step, done } = stream.next();
    seconds = (first ? 0 : seconds) + (performance.now() - began) / 1000;
    if (done) return null;
    if ("id" in step) return { ...step, seconds };
    if (step.of > 256) postMessage({ type: "reading", job: ask.job, ...step });
    await breathe();
    began = performance.now();
  }
  return null;
}

let turn = Promise.resolve();
/** The cache has room for one reader: writing and looking inside take turns. */
function alone(work) {
  const result = turn.then(work);
  turn = result.catch(() => {});
  return result;
}

/** Hands new ids to the page: at reading speed one by one, else as fast as they come, some at a time. */
class Sender {
  constructor({ job, fast }) {
    Object.assign(this, { job, fast, items: [], seconds: 0, count: 0, shown: performance.now(), due: performance.now() });
  }

  async add(id, nats, seconds) {
    const piece = tokenizer.piece(id);
    this.items.push({ piece, nats });
    this.seconds += seconds;
    this.count++;
    if (this.fast) {
      if (performance.now() - this.shown < BREATH) return;
      this.flush();
      return breathe();
    }
    this.flush();
    this.due = Math.max(this.due + (1000 * piece.length) / READING_SPEED, performance.now());
    await sleep(this.due - performance.now());
  }

  flush() {
    this.shown = performance.now();
    if (this.items.length) postMessage({ type: "tokens", job: this.job, items: this.items, seconds: this.seconds, count: this.count });
    this.items = [];
  }
}

/** -log p of id under the model itself (temperature 1), in nats. */
function surprise(logits, id) {
  let max = -Infinity, sum = 0;
  for (const z of logits) if (z > max) max = z;
  for (const z of logits) sum += Math.exp(z - max);
  return Math.log(sum) + max - logits[id];
}

/** Everything about place `at` of the text: the model's logits there, the 5-gram's law, every head's attention. */
async function inspect({ at, ask }) {
  const patterns = [], window = text.ids.slice(text.starts[at], at);
  const logits = window.length ? await alone(() => read(window, patterns, () => ask !== asked)) : null;
  if (ask !== asked) return;                                 // another character was chosen meanwhile
  postMessage({ type: "inside", at, ask, id: text.ids[at], start: text.starts[at], logits,
    nats: logits && surprise(logits, text.ids[at]), patterns, names: best_names(logits),
    table: table && table.next_probs(text.ids.slice(0, at)) });
}

/** The logits behind `window`, and the patterns of its last position. */
async function read(window, patterns, given_up) {
  const reading = model.read(window, patterns);
  while (!given_up()) {
    const { value, done } = reading.next();
    if (done) return value.slice();
    await breathe();
  }
  return null;
}

/** The pieces of the ids that bars can show: all of a small vocabulary, else the 50 likeliest. */
function best_names(logits) {
  if (!logits) return [];
  const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a]).slice(0, 50);
  return order.map((id) => ({ id, piece: tokenizer.piece(id) }));
}

let asked = 0, queue = Promise.resolve();
const actions = { load, generate, inspect };

onmessage = ({ data }) => {
  if (data.type === "stop") { job = -1; return; }
  if (data.type === "generate") job = data.job;              // a generation that still runs ends at its next step
  if (data.type === "inspect") asked = data.ask;
  const run = () => actions[data.type](data).catch((error) => postMessage({ type: "failed", what: data.type, message: sentence(error) }));
  if (data.type === "generate") queue = queue.then(run); else run();
};

function sentence(error) {
  return error instanceof Error && error.message.endsWith(".") ? error.message : `Something unexpected happened (${error?.message ?? error}): reload the page.`;
}
