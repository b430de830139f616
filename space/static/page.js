// page.js: what the visitor touches. The model works in worker.js; this file sends it messages and draws what
// comes back.

import { first_worker, new_worker } from "./begin.js";
import {
  $,
  app,
  in_words,
  learned_text,
  make,
  megabytes,
  mean,
  plural,
  problem,
  set_state,
  status,
  taught_by,
} from "./shared.js";
import {
  choose,
  draw_inside,
  fill_heads,
  most_surprising,
  on_heads,
  redraw_arcs,
  show_table,
} from "./inside.js";
import { offer_game, offer_past, on_counted, on_judged, on_moment, set_up_play } from "./play.js";
import { kept } from "./train_store.js";

const FULL_SURPRISE = 6; // nats drawn at full height: one chance in 400
const LARGE = 30e6; // bytes that a phone should not fetch unasked
const AFTER_FIRST = 150; // milliseconds that the first letters have for themselves
const LONGEST_LINK = 1500; // letters of a beginning that an address can carry

let job = 0,
  ask = 0,
  pending = null,
  spoken = 0,
  typed = false,
  after = null; // after: what happens once the text is whole
let idle = null; // a worker that waits for a model
const query = new URLSearchParams(location.search);
const no = () => {};
const NAME = /^[\w.-]+\/[\w.-]+$/; // owner/name

// ---------------------------------------------------------------- loading

async function start() {
  idle = listen(first_worker);
  set_up_play(load);
  if (query.has("trained")) return open_trained();
  const repo = query.get("model") ?? window.huggingface?.variables?.MODEL;
  app.site = await fetch("site.json")
    .then((response) => (response.ok ? response.json() : {}))
    .catch(() => ({}));
  if (repo) {
    if (!NAME.test(repo))
      return on.failed({ what: "load", message: `${repo} is no model's name: give owner/name.` });
    app.site = { title: repo.split("/")[1] };
  }
  if (app.site.title) document.title = $("title").textContent = app.site.title;
  add_links(app.site.links ?? []);
  const { opening } = app.site;
  add_examples(app.site.examples ?? []);
  if (opening && !query.has("p")) {
    // made when the page was built: there before the model is
    app.n_prompt = opening.n_prompt;
    add([...opening.text].map((piece, i) => ({ piece, nats: opening.nats[i] })));
    $("seed_text").value = opening.text.slice(0, opening.n_prompt);
  }
  if (app.site.bytes > LARGE && !query.has("p")) {
    status(`The model is ${megabytes(app.site.bytes)}. It is fetched when you press Generate.`);
    set_state("waiting");
  } else load(own(repo));
  if (query.has("p")) from_address(); // the worker writes as soon as it can
}

/** The model that train.html made and kept on this device. */
async function open_trained() {
  const files = await kept("model");
  const message = "No model of your own is kept on this device: train one in train.html.";
  if (!files) return on.failed({ what: "load", message });
  document.title = $("title").textContent = "Your own GPT-2";
  load({ files: new Map(Object.entries(files).map(([name, body]) => [name, new Blob([body])])) });
}

/** The model that this address names; ?draft= is a small one that proposes letters to it. */
function own(repo) {
  const draft = query.get("draft") ?? undefined;
  return { repo, version: app.site.version, draft: NAME.test(draft) ? draft : undefined };
}

/** place: { repo, files, version, draft }, as fetching.js takes it. A second call replaces the model. */
function load(place) {
  if (app.about) {
    clear();
    $("seed_text").value = "";
    $("examples").replaceChildren();
    app.site = { moments: moments_in(place.files) };
  }
  app.worker?.terminate();
  app.worker = idle ?? listen(new_worker());
  [app.about, idle] = [null, null];
  app.place = place;
  set_state("loading");
  problem("");
  status("Fetching the model.");
  app.worker.postMessage({ type: "load", kernels: query.get("kernels") ?? "auto", place });
}

/** The steps of the earlier weights that lie in a dropped folder. */
const moments_in = (files) =>
  [...(files?.keys() ?? [])]
    .filter((name) => /^moments\/\d+\/model\.safetensors$/.test(name))
    .map((name) => Number(name.split("/")[1]));

function listen(worker) {
  worker.onmessage = ({ data }) => on[data.type](data);
  worker.onerror = (event) => {
    event.preventDefault();
    on.failed({ what: "load", message: "The page's own files could not be loaded: reload the page." });
  };
  return worker;
}

/** Only addresses that open a page: a site.json cannot run anything. */
function add_links(links) {
  for (const [text, address] of links) {
    const url = URL.canParse(address, location.href) ? new URL(address, location.href) : null;
    if (/^https?:$/.test(url?.protocol))
      $("links").append(make("a", text, { href: url.href, target: "_blank", rel: "noopener" }), " ");
  }
}

/** The model in words that a friend understands; what is exact and long stands folded. */
function describe({ parameters, bytes, card, n_layer, n_head, n_embd, block_size, unit, draft }) {
  const text = learned_text(card),
    { machine = {}, seconds } = card ?? {};
  const time = !(seconds > 0)
    ? ""
    : seconds < 90
      ? ` in ${in_words(Math.round(seconds), "second")}`
      : seconds < 5400
        ? ` in ${in_words(Math.round(seconds / 60), "minute")}`
        : ` in ${in_words(Math.round(seconds / 3600), "hour")}`;
  const where =
    machine.device === "cpu"
      ? ` on ${in_words(machine.threads, "processor core")}`
      : machine.device
        ? " on a GPU"
        : "";
  const share = (p) => make("b", `${(100 * p).toFixed(1)}%`);
  $("card").replaceChildren(
    text
      ? `Learned ${text}${time}${time && where}${taught_by(card)}, ${unit} by ${unit}. `
      : `It writes one ${unit} at a time. `,
  );
  if (card?.accuracy > 0)
    $("card").append(`It guesses the next ${unit} right `, share(card.accuracy), " of the time");
  if (card?.accuracy > 0 && card.ngram_accuracy > 0)
    $("card").append(`; counting ${in_words(5, "letter")}: `, share(card.ngram_accuracy));
  $("card").append(`${card?.accuracy > 0 ? ". " : ""}It runs on this device: nothing you type leaves it.`);
  const loss = card?.val_loss_char ?? card?.val_loss,
    counts = card?.ngram5_val_loss;
  $("facts").textContent =
    `${(parameters / 1e6).toFixed(parameters < 1e7 ? 2 : 1)} million parameters in ${megabytes(bytes)}: ` +
    `${n_layer} layers, ` +
    `${plural(n_head, "head")} each, vectors of ${n_embd} numbers, ${block_size} ${unit}s of memory.` +
    (Number.isFinite(loss)
      ? ` Its average surprise on text that it never saw is ${loss.toFixed(3)} nats a character`
      : "") +
    (Number.isFinite(loss) && Number.isFinite(counts)
      ? `; the table's is ${counts.toFixed(3)}.`
      : Number.isFinite(loss)
        ? "."
        : "") +
    (draft
      ? ` A model of ${(draft / 1e6).toFixed(1)} million proposes ${unit}s to it, ` +
        "and it keeps or replaces them: faster, and still its own text."
      : "") +
    " A nat is the unit of surprise: minus the logarithm of the chance that was given to what came.";
}

/** Beginnings of the text that the model was tested on: a click runs one. */
function add_examples(examples) {
  $("examples").replaceChildren(
    ...examples.slice(0, 6).map((example) => {
      const button = make("button", example.trim(), { type: "button", dir: "auto" });
      button.onclick = () => {
        $("seed_text").value = example;
        grow();
        generate();
      };
      return button;
    }),
  );
}

const on = {
  progress({ done, total }) {
    $("bar").hidden = false;
    $("progress").value = total ? done / total : 0;
    $("fetched").textContent = total ? `${megabytes(done)} of ${megabytes(total)}` : megabytes(done);
  },

  stalled({ message }) {
    problem(message);
    $("retry").hidden = false;
    status("Waiting.");
  },

  ready(about) {
    app.about = about;
    $("bar").hidden = true;
    keep_for_offline();
    if (app.state === "writing") return setTimeout(furnish, AFTER_FIRST); // the address asked for a text
    furnish();
    set_state("ready");
    status("Ready.");
    if (pending) generate(...pending.splice(0));
    else if (query.has("p")) from_address();
    else if (app.pieces.length) {
      read(app.pieces.join(""), app.n_prompt);
      choose(most_surprising());
    } else if ($("seed_text").value) typing();
    else first_text();
  },

  pieces({ ask: from, job: written_by, pieces, dropped }) {
    if (written_by !== undefined ? written_by !== job : from !== ask) return;
    show_dropped(dropped);
    if (written_by !== undefined) app.n_prompt = pieces.length;
    if (pieces.join("\0") === app.pieces.join("\0")) return; // the opening is on the page already
    const known = app.nats;
    clear();
    spoken = written_by === undefined ? Infinity : pieces.length;
    add(pieces.map((piece, i) => ({ piece, nats: known[i] ?? null })));
    $("empty").hidden = pieces.length > 0;
    if (typed && pieces.length) choose(pieces.length - 1);
  },

  nats({ nats, counts }) {
    [app.nats, app.counts] = [nats, counts];
    nats.forEach((n, i) => {
      if ($("text").children[i]) shade($("text").children[i], n);
    });
    if (typed) draw_verdict();
  },

  reading({ job: from, read: done, of }) {
    if (from === job) status(`Reading the text again: ${done} of ${of}.`);
  },

  tokens({ job: from, items, seconds, count }) {
    if (from !== job) return;
    add(items);
    speak();
    const speed = seconds > 0 ? `, ${Math.round(count / seconds).toLocaleString("en")} a second` : "";
    status(`${plural(count, app.about.unit)}${speed}, seed ${app.used.seed}.`);
  },

  done({ job: from, stopped, tokens }) {
    if (from !== job) return;
    furnish();
    const speed = /, [\d,]+ a second/.exec($("status").textContent)?.[0] ?? "";
    set_writing(false);
    status(
      `${stopped ? "Stopped after" : "Done:"} ${plural(tokens, app.about.unit)}${speed}, ` +
        `seed ${app.used.seed}.`,
    );
    speak(true);
    after();
  },

  table({ n }) {
    show_table(n);
  },

  inside(message) {
    draw_inside(message);
  },
  heads({ names }) {
    on_heads(names);
  },
  counted(message) {
    on_counted(message);
  },
  judged(message) {
    on_judged(message);
  },
  moment(message) {
    on_moment(message);
  },

  failed({ what, message }) {
    problem(message);
    if (app.state === "writing") set_writing(false);
    if (what !== "load") return;
    $("bar").hidden = true;
    set_state("failed");
    status("There is no model to write with.");
  },
};

let furnished = null; // the model that the page around the text speaks of

/** What the page says of its model and offers with it, once. */
function furnish() {
  if (furnished === app.about) return;
  furnished = app.about;
  describe(app.about);
  const known = app.about.card?.corpus?.examples ?? [];
  if (!app.site.examples) add_examples(known.filter((e) => typeof e === "string" && e.length < 60));
  fill_heads();
  offer_game();
  offer_past(app.site.moments);
}

/** A second visit and one without a network find everything here. */
function keep_for_offline() {
  if (!("serviceWorker" in navigator) || !window.isSecureContext) return;
  setTimeout(() => navigator.serviceWorker.register("offline.js").catch(no), 500);
}

const set_up_publishing = () => import("./yours.js").then(({ set_up_yours }) => set_up_yours(), no);

// ---------------------------------------------------------------- writing

const number = (id, otherwise) => ($(id).value === "" ? otherwise : Math.trunc(Number($(id).value)));

const show_surprise = () => {
  tell_address();
  if (app.chosen < 0) choose(most_surprising());
};

/**
 * swap: { at, id }: that id replaces the letter at `at`, and the model writes on from there.
 * how: settings of this time only. next: what happens at the end. early: the worker has its model soon.
 */
function generate(swap = null, how = {}, next = show_surprise, early = false) {
  stop();
  if (!app.about && !early) {
    pending = [swap, how, next];
    if (app.state === "waiting") load(own());
    return;
  }
  if (!$("ask").reportValidity()) {
    $("settings").open = true;
    return;
  }
  if (!swap) {
    clear();
    app.n_prompt = 0;
  }
  problem("");
  [typed, after] = [false, next];
  $("verdict").hidden = true;
  set_writing(true);
  if (app.about) status("Writing.");
  app.used = {
    seed: number("seed", crypto.getRandomValues(new Uint32Array(1))[0] % 1e6),
    max: number("max", 300),
    top_k: number("top_k", 0),
    temperature: Number($("temperature").value),
    to_line: $("to_line").checked,
    fast: $("fast").checked,
    ...how,
  };
  app.worker.postMessage({ type: "generate", job: ++job, text: $("seed_text").value, swap, ...app.used });
}

/** The first text, where none was made when the page was built. */
function first_text() {
  $("seed_text").value = /^[^,.;!?\n]{2,24}:$/m.exec(app.about.card?.heldout ?? "")?.[0].concat("\n") ?? "";
  grow();
  generate(null, { seed: 1, fast: true }, () => choose(most_surprising()));
}

/** The page rests at once; the model ends with the token that it is at. */
function stop() {
  pending = null;
  if (app.state !== "writing") return;
  app.worker.postMessage({ type: "stop" });
  set_writing(false);
}

function set_writing(now) {
  if (!now && document.activeElement === $("stop")) $("go").focus(); // Stop goes, the focus stays
  set_state(now ? "writing" : "ready");
  $("go").setAttribute("aria-disabled", now); // never `disabled`: that would throw the focus away
}

function clear() {
  [app.pieces, app.nats, app.counts, spoken] = [[], [], [], 0];
  $("text").replaceChildren();
  $("empty").hidden = true;
  $("spoken").textContent = "";
  choose(-1);
}

function shade(span, n) {
  span.style.setProperty(
    "--h",
    n === null || n === undefined ? "0%" : `${Math.min(100, (100 * n) / FULL_SURPRISE).toFixed(0)}%`,
  );
}

/** Put new characters on the page; it scrolls along as long as the visitor has not scrolled up. */
function add(items) {
  const paper = $("paper"),
    along = paper.scrollHeight - paper.scrollTop - paper.clientHeight < 60;
  const fragment = document.createDocumentFragment();
  for (const { piece, nats } of items) {
    const kind = `${app.pieces.length < app.n_prompt ? " seed" : ""}${piece.includes("\n") ? " nl" : ""}`;
    const span = make("span", piece, { class: `ch${kind}` });
    shade(span, nats);
    fragment.append(span);
    app.pieces.push(piece);
    app.nats.push(nats ?? null);
  }
  $("text").append(fragment);
  $("text").setAttribute("aria-valuemax", app.pieces.length - 1);
  if (along && app.state === "writing") paper.scrollTop = paper.scrollHeight;
}

/** A screen reader hears whole lines, not letters. */
function speak(all = false) {
  const end = all ? app.pieces.length : app.pieces.findLastIndex((piece) => piece.includes("\n")) + 1;
  if (end <= spoken) return;
  $("spoken").append(make("p", app.pieces.slice(spoken, end).join("")));
  spoken = end;
  while ($("spoken").children.length > 5) $("spoken").firstChild.remove();
}

function show_dropped(dropped) {
  $("dropped").hidden = !dropped.length;
  const shown = (c) =>
    /^[\p{L}\p{N}\p{P}\p{S}]$/u.test(c)
      ? c
      : `U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
  const more = dropped.length > 12 ? ` and ${dropped.length - 12} more` : "";
  $("dropped").textContent =
    `Left out, because the model never saw ${dropped.length === 1 ? "it" : "them"} in training: ` +
    `${dropped.slice(0, 12).map(shown).join(", ")}${more}.`;
}

// ---------------------------------------------------------------- typing: every letter is shaded as it comes

function read(text, n_prompt) {
  app.n_prompt = n_prompt;
  app.worker.postMessage({ type: "score", text, ask: ++ask });
}

function typing() {
  grow();
  stop();
  job++; // what the model still says of the text before is not heard
  if (!app.about) return;
  typed = true;
  status("Ready.");
  read($("seed_text").value, 0);
  if (!$("seed_text").value) {
    clear();
    $("empty").hidden = false;
    $("verdict").hidden = true;
  }
}

/** The field is as tall as its text, up to a few lines. */
function grow() {
  const field = $("seed_text");
  field.style.height = "auto";
  field.style.overflowY = "hidden";
  // a name and its line end: one row
  if (field.value.trimEnd().length < 24 && !field.value.trim().includes("\n")) return;
  field.style.height = `${Math.min(field.scrollHeight + 2, 130)}px`;
  if (field.scrollHeight > 130) field.style.overflowY = "auto";
}

/** How much like its own text the model finds what was typed: nats a letter, lower is more alike. */
function draw_verdict() {
  const nats = app.nats.filter((n) => n !== null),
    counts = app.counts.filter((n) => n !== null),
    { card, vocab_size, unit } = app.about;
  $("verdict").hidden = nats.length < 8;
  if (nats.length < 8) return;
  const text = learned_text(card),
    unseen = card?.val_loss_char ?? card?.val_loss,
    own = mean(nats),
    widest = Math.log(vocab_size);
  const scale = make("div", "", { class: "scale", "aria-hidden": "true" });
  for (const [kind, n] of [
    ["unseen", unseen],
    ["yours", own],
  ]) {
    if (!Number.isFinite(n)) continue;
    const mark = make("i", "", { class: kind });
    mark.style.setProperty("--x", `${Math.min(100, (100 * n) / widest).toFixed(1)}%`);
    scale.append(mark);
  }
  $("verdict").replaceChildren(
    make("b", text ? `How much like ${text}? ` : "How much like what it learned? "),
    `${own.toFixed(2)} nats of surprise a ${unit}` +
      `${counts.length ? `; the table of counts: ${mean(counts).toFixed(2)}` : ""}.` +
      (Number.isFinite(unseen) && text
        ? ` ${text[0].toUpperCase()}${text.slice(1)} that it never saw: ${unseen.toFixed(2)}.`
        : "") +
      ` Blind guessing: ${widest.toFixed(2)}.`,
    scale,
  );
}

// ---------------------------------------------------------------- sharing: the address carries what made the
// text

/** What makes this text again. Null where the beginning is too long for an address. */
function address() {
  const prompt = app.pieces.slice(0, app.n_prompt).join(""),
    { seed, temperature, top_k, max, to_line } = app.used;
  if (prompt.length > LONGEST_LINK) return null;
  const shared = new URLSearchParams({ p: prompt, s: seed, t: temperature, n: max });
  if (top_k) shared.set("k", top_k);
  if (to_line === false) shared.set("l", 0);
  if (app.chosen >= 0) shared.set("at", app.chosen);
  for (const name of ["model", "draft", "kernels", "trained"])
    if (query.has(name)) shared.set(name, query.get(name));
  return shared.toString();
}

function tell_address() {
  const shared = address();
  if (shared === null || app.state === "loading") return;
  try {
    history.replaceState(null, "", `?${shared}`);
  } catch {
    /* a frame without an address of its own */
  }
  if (window.parent !== window) window.parent.postMessage({ queryString: shared }, "https://huggingface.co");
}

function from_address() {
  const field = { p: "seed_text", s: "seed", t: "temperature", n: "max", k: "top_k" };
  for (const [name, id] of Object.entries(field)) if (query.has(name)) $(id).value = query.get(name);
  if (query.get("l") === "0") $("to_line").checked = false;
  $("temperature").oninput();
  grow();
  const at = Number(query.get("at") ?? -1);
  const fits = () => Number.isInteger(at) && at > 0 && at < app.pieces.length;
  const show = () => choose(fits() ? at : most_surprising());
  generate(null, { fast: true }, show, app.state === "loading");
  $("seed").value = ""; // the next text is a new one
}

async function put_on_clipboard(button, text) {
  const words = button.textContent;
  await navigator.clipboard.writeText(text).catch(() => getSelection().selectAllChildren($("text")));
  button.textContent = "Copied";
  setTimeout(() => {
    button.textContent = words;
  }, 1500);
}

// ---------------------------------------------------------------- what the visitor does

$("ask").onsubmit = (event) => {
  event.preventDefault();
  if (app.state !== "writing") generate();
};
$("ask").addEventListener(
  "invalid",
  () => {
    $("settings").open = true;
  },
  true,
); // a browser cannot point at what is folded
document.addEventListener("swap", ({ detail }) => {
  // a bar was chosen: what if?
  const left = Math.max(100, app.pieces.length - detail.at);
  $("seed_text").value = app.pieces.slice(0, detail.at).join("") + detail.piece;
  grow();
  generate(detail, { seed: app.used.seed, max: left }, () => {
    tell_address();
    choose(detail.at);
  });
  $("text").focus({ preventScroll: true });
});
document.addEventListener("chosen", () => {
  if (!typed && app.state === "ready" && location.search) tell_address();
});
$("stop").onclick = stop;
$("retry").onclick = () => {
  problem("");
  status("Fetching the model.");
  app.worker.postMessage({ type: "retry" });
};
$("seed_text").oninput = typing;
$("seed_text").onkeydown = (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    $("ask").requestSubmit();
  }
};
document.onkeydown = (event) => {
  if (event.key === "Escape") stop();
};
$("temperature").oninput = () => {
  $("temperature_out").textContent = Number($("temperature").value).toFixed(2);
};
$("shade").onchange = () => $("text").classList.toggle("shade", $("shade").checked);
$("text").classList.add("shade");
$("copy").onclick = () => put_on_clipboard($("copy"), app.pieces.join(""));
$("share").onclick = () => {
  const shared = address();
  if (shared === null) return problem("This beginning is too long for an address: copy the text instead.");
  tell_address();
  put_on_clipboard($("share"), `${location.origin}${location.pathname}?${shared}`);
};
addEventListener("resize", redraw_arcs);
addEventListener("load", () => setTimeout(set_up_publishing, 700)); // after the first text
start();
