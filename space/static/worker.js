// worker.js: the model's own thread, so that the page never freezes. The page sends and receives small
// messages:
//
//   page -> worker
//     load {kernels, place} · retry · score {text, ask} · inspect {at, ask} · name_heads · stop
//     generate {job, text, max, to_line, temperature, top_k, seed, fast, swap?} · switch_off {heads}
//     count {n_prompt, max, temperature, top_k, seed} · judge {text, last} · moment {step, prompt, unseen}
//   worker -> page
//     progress {done, total} · stalled {message} · ready {...} · table {n}
//     pieces {ask?, job?, pieces, dropped} · nats {from, nats, counts} · reading {read, of}
//     tokens {items, seconds, count} · heads {names}
//     done {stopped, tokens} · inside {...} · counted {pieces} · judged {rounds}
//     moment {step, prompt, text, nats} · failed {what, message}

import { GPT, draw, filter_probs, generator, readJSON } from "./gpt2.js";
import { makeSource, optional } from "./fetching.js";
import { name_heads } from "./heads.js";
import { NGram } from "./ngram.js";
import { load_tokenizer } from "./tokenizer.js";

const READING_SPEED = 45; // characters a second: a brisk reader's pace
const BREATH = 12; // milliseconds of work between two looks at the mailbox
const PAST_THE_END = 120; // tokens that a text may be longer, so that it ends at a line
const MOMENT_LENGTH = 240; // letters that an earlier model writes
const FIRST_TEXT = 250; // milliseconds that the first text has for itself
const MANY_HEADS = 40; // more than this many are not each tried out at every letter

let model,
  tokenizer,
  table = null,
  start_id = 0,
  draft = null; // draft: a small model that proposes letters
let source = null; // where the model's files come from
const moments = new Map(); // step -> the model as it was then
const no = () => false;
let text = blank(); // the text on the page
let job = 0; // the generation that may go on; any other one stops

/**
 * starts[i]: where the window began that guessed ids[i]; nats, counts: what ids[i] cost the model and the
 * 5-gram.
 */
function blank() {
  return { ids: [], starts: [], nats: [], counts: [] };
}

const { port1, port2 } = new MessageChannel();
port2.onmessage = () => waiting?.();
let waiting = null;
/** Let messages in, such as Stop; then go on. */
const breathe = () =>
  new Promise((resolve) => {
    waiting = resolve;
    port1.postMessage(0);
  });
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// ---------------------------------------------------------------- loading

let retry = () => {};

async function load({ kernels, place }) {
  const stalled = (message) =>
    new Promise((resolve) => {
      retry = resolve;
      postMessage({ type: "stalled", message });
    });
  source = await makeSource(place, stalled);
  const { open } = source;
  const tokens = readJSON(open, "tokenizer.json").then(load_tokenizer);
  const settings = optional(() => readJSON(open, "generation_config.json"));
  const counts = optional(async () => (await open("ngram5.npz")).arrayBuffer());
  const [gpt, known, card, small] = await Promise.all([
    GPT.from_pretrained(open, { line: progress_line, kernels }),
    tokens,
    optional(() => readJSON(open, "metrics.json")),
    settings.then((found) => load_draft(place.draft ?? found?.draft, tokens, kernels)),
  ]);
  if (known.vocab_size > gpt.config.vocab_size)
    throw new Error("tokenizer.json has more symbols than the model: upload both files of one model.");
  gpt.config.n_tokens = Math.min(gpt.config.n_tokens, known.vocab_size);
  start_id = (await settings)?.bos_token_id ?? 0;
  [model, tokenizer, draft] = [gpt, known, small];
  postMessage({ type: "ready", ...about(gpt), card, draft: draft?.num_params() });
  sleep(FIRST_TEXT).then(async () => read_table(await counts));
}

/** The table of counts comes after the first letters: to unpack it takes longer than they do. */
async function read_table(bytes) {
  const found = bytes && (await optional(() => NGram.load(bytes)));
  if (found?.vocab_size !== tokenizer.vocab_size) return;
  table = found;
  text.counts = text.counts.map((_, i) => (i ? table_nats(text.ids, i) : null));
  postMessage({ type: "table", n: table.n });
  postMessage({ type: "nats", from: 0, nats: text.nats, counts: text.counts });
}

/** What the page says of the model. */
function about(gpt) {
  const { n_layer, n_head, n_embd, block_size, vocab_size } = gpt.config;
  const sizes = {
    parameters: gpt.num_params(),
    bytes: gpt.file_bytes,
    memory: gpt.bytes,
    kernels: gpt.kernels,
  };
  const unit = tokenizer.chars ? "letter" : "token";
  return {
    n_layer,
    n_head,
    n_embd,
    block_size,
    vocab_size,
    ...sizes,
    unit,
  };
}

/** What a download of the weights tells the page, and where it goes on after a break. */
function progress_line(response) {
  const file = "model.safetensors";
  let told = 0;
  let size = 0;
  const tell = (done) => {
    told = performance.now();
    postMessage({ type: "progress", done, total: size });
  };
  const again = (from) => {
    tell(from);
    return source.again(file, from);
  };
  return {
    progress(done, total) {
      size = total;
      if (done === total || performance.now() - told > 60) tell(done);
    },
    again: source.again && again,
    keep: source.keeper?.(file, response),
  };
}

/** name: a folder inside the model's own, or a repo on the Hub. null if it does not know the same letters. */
async function load_draft(name, tokens, kernels) {
  if (!name) return null;
  return optional(async () => {
    const home = name.includes("/") ? await makeSource({ repo: name }) : null;
    const open = home ? home.open : (file) => source.open(`${name}/${file}`);
    const [ours, theirs] = [await tokens, load_tokenizer(await readJSON(open, "tokenizer.json"))];
    if (JSON.stringify([...theirs.ids]) !== JSON.stringify([...ours.ids])) return null;
    const small = await GPT.from_pretrained(open, { kernels });
    small.config.n_tokens = Math.min(small.config.n_tokens, ours.vocab_size);
    return small;
  });
}

// ---------------------------------------------------------------- reading a text

/** ids as a text, with everything that is already known about its beginning. */
function text_of(ids, known = text) {
  let same = 0;
  while (same < ids.length && ids[same] === known.ids[same]) same++;
  const next = {
    ids,
    starts: known.starts.slice(0, same),
    nats: known.nats.slice(0, same),
    counts: known.counts.slice(0, same),
  };
  const { block_size } = model.config;
  for (let i = same; i < ids.length; i++) {
    // a full window starts afresh from its last half
    const start = next.starts[i - 1] ?? 0;
    next.starts.push(i - start > block_size ? i - Math.max(1, block_size >> 1) : start);
  }
  return next;
}

/** Fill in what every letter of `t` cost, and tell the page. each(logits, i) sees the guess for letter i. */
async function read_through(t, given_up, each = () => {}, tell = true) {
  const send = () => {
    for (let i = t.counts.length; i < t.nats.length; i++)
      t.counts.push(i && table ? table_nats(t.ids, i) : null);
    if (tell) postMessage({ type: "nats", from: 0, nats: t.nats, counts: t.counts });
  };
  while (t.nats.length < t.ids.length && !given_up()) {
    const i = t.nats.length,
      start = t.starts[i];
    if (i === 0) {
      t.nats.push(null);
      continue;
    } // nothing is before the first: no guess
    let end = i;
    while (end + 1 < t.ids.length && t.starts[end + 1] === start) end++;
    const look = {
      from: i - 1 - start,
      each(logits, position) {
        const at = start + position + 1;
        if (at < i) return;
        each(logits, at);
        t.nats[at] = surprise(logits, t.ids[at]);
      },
    };
    await alone(() => finish(model.read(t.ids.slice(start, end), look), given_up, send));
  }
  send();
}

/** Run a reading to its end, with breaks in which messages come in; null if it was given up. */
async function finish(reading, given_up, between = () => {}) {
  while (!given_up()) {
    const { value, done } = reading.next();
    if (done) return value;
    between();
    await breathe();
  }
  return null;
}

const table_nats = (ids, i) => -Math.log(table.next_probs(ids.slice(Math.max(0, i - table.n), i))[ids[i]]);

let scored = 0;

async function score({ text: typed, ask }) {
  const ids = tokenizer.encode(typed),
    mine = (text = text_of(ids));
  postMessage({
    type: "pieces",
    ask,
    pieces: ids.map((id) => tokenizer.piece(id)),
    dropped: tokenizer.dropped(typed),
  });
  await read_through(mine, () => ask !== scored || text !== mine);
}

// ---------------------------------------------------------------- writing

async function generate(ask) {
  const stopped = () => job !== ask.job;
  const prompt = ask.swap ? [...text.ids.slice(0, ask.swap.at), ask.swap.id] : tokenizer.encode(ask.text);
  if (!prompt.length) prompt.push(start_id);
  const mine = (text = text_of(prompt));
  postMessage({
    type: "pieces",
    job: ask.job,
    pieces: prompt.map((id) => tokenizer.piece(id)),
    dropped: ask.swap ? [] : tokenizer.dropped(ask.text),
  });
  if (prompt.length <= model.config.block_size) await read_through(mine, stopped);
  const sender = new Sender(ask),
    stream = model.stream(prompt, ask.max + (ask.to_line ? PAST_THE_END : 0), { ...ask, draft });
  while (!stopped()) {
    const step = await alone(() => next_id(stream, stopped, ask, sender.count === 0));
    if (!step) break;
    mine.starts.push(mine.ids.length - step.window);
    while (mine.nats.length < mine.ids.length) {
      mine.nats.push(null);
      mine.counts.push(null);
    }
    mine.nats.push(surprise(step.logits, step.id));
    mine.ids.push(step.id);
    mine.counts.push(table ? table_nats(mine.ids, mine.ids.length - 1) : null);
    await sender.add(step.id, mine.nats.at(-1), step.seconds);
    if (ask.to_line && sender.count >= ask.max && tokenizer.piece(step.id).includes("\n")) break;
  }
  sender.flush();
  postMessage({ type: "done", job: ask.job, stopped: stopped(), tokens: sender.count });
}

/**
 * The stream's next id with the seconds it took (reading the prompt is not counted); null at the end and
 * after Stop.
 */
async function next_id(stream, stopped, ask, first) {
  let began = performance.now(),
    seconds = 0;
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
    Object.assign(this, {
      job,
      fast,
      items: [],
      seconds: 0,
      count: 0,
      shown: performance.now(),
      due: performance.now(),
    });
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
    if (this.items.length)
      postMessage({
        type: "tokens",
        job: this.job,
        items: this.items,
        seconds: this.seconds,
        count: this.count,
      });
    this.items = [];
  }
}

/** The 5-gram goes on from the same beginning, with the same seed and settings. */
async function count({ n_prompt, max, temperature, top_k, seed }) {
  const ids = text.ids.slice(0, n_prompt),
    random = generator(seed),
    pieces = [];
  while (pieces.length < max + PAST_THE_END && !(pieces.length >= max && pieces.at(-1).includes("\n"))) {
    const p = table.next_probs(ids.slice(-table.n)),
      logits = p.map(Math.log);
    const id =
      temperature === 0
        ? p.indexOf(Math.max(...p))
        : draw(filter_probs(logits, temperature, top_k), random());
    ids.push(id);
    pieces.push(tokenizer.piece(id));
  }
  postMessage({ type: "counted", pieces });
}

// ---------------------------------------------------------------- looking inside

/** -log p of id under the model itself (temperature 1), in nats. */
function surprise(logits, id) {
  let max = -Infinity,
    sum = 0;
  for (const z of logits) if (z > max) max = z;
  for (const z of logits) sum += Math.exp(z - max);
  return Math.log(sum) + max - logits[id];
}

let asked = 0;

/**
 * Everything about place `at` of the text: the model's logits there, the 5-gram's law, each head, each layer.
 */
async function inspect({ at, ask }) {
  const t = text,
    window = t.ids.slice(t.starts[at], at),
    id = t.ids[at],
    given_up = () => ask !== asked;
  const found = window.length ? await alone(() => look_at(window, id, given_up)) : {};
  if (given_up() || !found) return; // another character was chosen meanwhile
  postMessage({
    type: "inside",
    at,
    ask,
    id,
    start: t.starts[at],
    names: best_names(found.logits, 50),
    patterns: [],
    path: [],
    table: table && table.next_probs(t.ids.slice(0, at)),
    ...found,
  });
}

async function look_at(window, id, given_up) {
  const patterns = [],
    path = [];
  const logits = (await finish(model.read(window, { patterns, path }), given_up))?.slice();
  if (!logits) return null;
  const { what, where } = model.embedding(window.at(-1), window.length - 1);
  const stations = path.map((values) => ({ values, ...said(model.lens(values), id) }));
  return {
    logits,
    nats: surprise(logits, id),
    patterns,
    path: stations,
    what,
    where,
    effects: effects(window, id),
  };
}

/** The three likeliest pieces and the chance of `id`, from logits. */
function said(logits, id) {
  const chance = (k) => Math.exp(-surprise(logits, k));
  return { top: best_names(logits, 3).map((name) => ({ ...name, p: chance(name.id) })), p: chance(id) };
}

/**
 * For each head, the chance of `id` if that head alone says nothing at this letter; null where there are too
 * many heads.
 */
function effects(window, id) {
  const { n_layer, n_head } = model.config,
    before = model.off,
    at = window.length - 1,
    last = [window.at(-1)];
  if (n_layer * n_head > MANY_HEADS) return null;
  const found = Array.from({ length: n_layer * n_head }, (_, head) => {
    model.off = new Set([...before, head]);
    return Math.exp(-surprise(model.forward(last, at), id));
  });
  model.off = before;
  model.forward(last, at); // the cache holds the whole model's keys again
  return found;
}

/** The pieces of the likeliest ids. */
function best_names(logits, n) {
  if (!logits) return [];
  const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a]).slice(0, n);
  return order.map((id) => ({ id, piece: tokenizer.piece(id) }));
}

/** What each head does, measured on the text that is on the page. */
async function tell_heads() {
  const names = await alone(() =>
    name_heads(model, text.ids.slice(0, Math.min(128, model.config.block_size)), tokenizer),
  );
  postMessage({ type: "heads", names });
}

async function switch_off({ heads }) {
  await alone(() => model.switch_off(new Set(heads)));
  text = { ...text, nats: [], counts: [] };
  await read_through(
    text,
    (
      (mine) => () =>
        text !== mine
    )(text),
  );
}

/** What model and 5-gram would have guessed for the last letters of a text that is not on the page. */
async function judge({ text: unseen, last }) {
  const ids = tokenizer.encode(unseen),
    rounds = [],
    from = ids.length - last;
  await read_through(
    text_of(ids, blank()),
    () => false,
    (logits, i) => {
      if (i < from) return;
      const p = table?.next_probs(ids.slice(0, i)),
        best = said(logits, ids[i]).top[0],
        counted = p ? p.indexOf(Math.max(...p)) : 0;
      rounds.push({
        piece: tokenizer.piece(ids[i]),
        nats: surprise(logits, ids[i]),
        best: best.piece,
        p: best.p,
        counted: p && { piece: tokenizer.piece(counted), p: p[counted], nats: -Math.log(p[ids[i]]) },
      });
    },
    false,
  );
  postMessage({ type: "judged", rounds });
}

/**
 * The model as it was at a step of its training (null: as it is): what it writes, and its surprise at unseen
 * text.
 */
async function moment({ step, prompt, unseen }) {
  const past = step === null ? model : (moments.get(step) ?? (await fetch_moment(step))),
    ids = tokenizer.encode(prompt);
  if (!ids.length) ids.push(start_id);
  await alone(async () => {
    const nats = await surprise_at(past, tokenizer.encode(unseen));
    const written = [...past.stream(ids, MOMENT_LENGTH, { temperature: 0.7, seed: 1 })].filter(
      ({ id }) => id !== undefined,
    );
    postMessage({ type: "moment", step, prompt, text: tokenizer.decode(written.map(({ id }) => id)), nats });
  });
}

/**
 * Nats a token over ids, in windows as long as the context, each without its first token; null if there are
 * too few.
 */
async function surprise_at(past, ids) {
  const { block_size } = past.config;
  let sum = 0,
    n = 0;
  for (let from = 0; from < ids.length; from += block_size) {
    const window = ids.slice(from, from + block_size);
    const each = (logits, i) => {
      if (i + 1 < window.length) {
        sum += surprise(logits, window[i + 1]);
        n++;
      }
    };
    await finish(past.read(window, { each }), no);
  }
  return n ? sum / n : null;
}

async function fetch_moment(step) {
  const open = (name) => source.open(name === "config.json" ? name : `moments/${step}/${name}`);
  const line = (response) => ({ keep: source.keeper?.(`moments/${step}/model.safetensors`, response) });
  const past = await GPT.from_pretrained(open, { line, kernels: model.kernels });
  past.config.n_tokens = model.config.n_tokens;
  moments.set(step, past);
  return past;
}

// ---------------------------------------------------------------- the mailbox

const actions = { load, score, generate, inspect, count, judge, moment, switch_off, name_heads: tell_heads };
let queue = Promise.resolve();

onmessage = ({ data }) => {
  if (data.type === "retry") return retry();
  if (data.type === "stop") {
    job = -1;
    return;
  }
  if (data.type === "generate") job = data.job; // a generation that still runs ends at its next step
  if (data.type === "score") {
    job = -1;
    scored = data.ask;
  }
  if (data.type === "inspect") asked = data.ask;
  const run = () =>
    actions[data.type](data).catch((error) =>
      postMessage({ type: "failed", what: data.type, message: sentence(error) }),
    );
  if (data.type === "load") queue = run();
  else if (data.type === "inspect") run();
  else queue = queue.then(() => model && run()); // what is asked before the model is there waits for it
};

function sentence(error) {
  return error instanceof Error && error.message.endsWith(".")
    ? error.message
    : `Something unexpected happened (${error?.message ?? error}): reload the page.`;
}
