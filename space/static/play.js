// play.js: below the text: the table of counts writes too, the visitor guesses against the model, another
// model moves in.

import { $, app, make, mean, name_of, percent } from "./shared.js";

const ROUNDS = 10;
const CONTEXT = 60; // letters that the visitor sees before each guess

export function set_up_play(load) {
  $("duel_go").onclick = duel;
  $("game_go").onclick = new_game;
  $("when").oninput = () => {
    $("when_out").textContent = step_words(step_at($("when").value));
    $("when").setAttribute("aria-valuetext", $("when_out").textContent);
  };
  $("when").onchange = travel;
  $("letter").oninput = () => {
    if ($("letter").value) guess($("letter").value);
  };
  $("letter").onkeydown = (event) => {
    if (event.key === "Enter") {
      event.preventDefault();
      guess("\n");
    }
  };
  for (const button of document.querySelectorAll("[data-letter]"))
    button.onclick = () => guess(button.dataset.letter);
  $("folder").onchange = () =>
    take(
      [...$("folder").files].map((file) => [file.webkitRelativePath || file.name, file]),
      load,
    );
  $("hub").onsubmit = (event) => {
    event.preventDefault();
    history.replaceState(null, "", `?model=${$("repo").value}`);
    load({ repo: $("repo").value });
  };
  document.ondragover = (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  };
  document.ondragleave = (event) => {
    if (!event.relatedTarget) document.body.classList.remove("over");
  };
  document.ondrop = async (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    take(
      entries.length
        ? (await Promise.all(entries.map((entry) => files_of(entry)))).flat()
        : [...event.dataTransfer.files].map((file) => [file.name, file]),
      load,
    );
  };
}

// ---------------------------------------------------------------- another model

/** [[path, File], ...] under a dropped file or folder. */
async function files_of(entry) {
  if (entry.isFile)
    return [[entry.fullPath, await new Promise((resolve, reject) => entry.file(resolve, reject))]];
  const reader = entry.createReader(),
    found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return (await Promise.all(found.map((inner) => files_of(inner)))).flat();
    found.push(...some);
  }
}

/** Of all files, those beside the config.json that lies highest. */
function take(paths, load) {
  const folder = (path) => path.slice(0, path.lastIndexOf("/") + 1);
  const homes = paths
    .filter(([path]) => /(^|\/)config\.json$/.test(path))
    .map(([path]) => folder(path))
    .sort((a, b) => a.length - b.length);
  const home = homes[0] ?? "",
    inside = paths.filter(([path]) => path.startsWith(home));
  const files = new Map(inside.map(([path, file]) => [path.slice(home.length), file]));
  document.title = $("title").textContent = homes[0]?.split("/").filter(Boolean).at(-1) ?? "Your model";
  load({ files });
  scrollTo({ top: 0 });
}

// ---------------------------------------------------------------- against counting

function duel() {
  const { seed, temperature, top_k } = app.used,
    n_prompt = app.n_prompt;
  app.worker.postMessage({
    type: "count",
    n_prompt,
    seed,
    temperature,
    top_k,
    max: Math.max(1, Math.min(300, app.pieces.length - n_prompt)),
  });
}

export function on_counted({ pieces }) {
  const prompt = app.pieces.slice(0, app.n_prompt).join("");
  $("duel_texts").hidden = false;
  for (const [id, text] of [
    ["duel_model", app.pieces.slice(app.n_prompt).join("")],
    ["duel_table", pieces.join("")],
  ]) {
    $(id).replaceChildren(make("span", prompt, { class: "soft" }), text);
  }
}

// ---------------------------------------------------------------- time machine

let steps = []; // of the moments; the last place is the model itself

/**
 * Show the slider where the page carries earlier weights of this model: by site.json, or in a dropped folder.
 */
export function offer_past(found = []) {
  steps = [...found].sort((a, b) => a - b);
  $("past").hidden = !steps.length;
  $("when").max = steps.length; // before the value, which it would hold down
  $("when").value = steps.length;
  $("when").oninput();
  $("past_note").textContent = "";
  $("past_text").textContent = "Move the slider to its left end: that is where it began.";
}

const step_at = (place) => steps[place] ?? null;
const step_words = (step) =>
  step === null ? "the whole training" : step ? `step ${step.toLocaleString("en")}` : "not at all";

function travel() {
  const step = step_at($("when").value);
  $("past_note").textContent = "Fetching.";
  app.worker?.postMessage({
    type: "moment",
    step,
    prompt: app.pieces.slice(0, app.n_prompt).join(""),
    unseen: app.about.card?.heldout ?? "",
  });
}

export function on_moment({ step, prompt, text, nats }) {
  if (step !== step_at($("when").value)) return; // the slider is elsewhere by now
  $("past_text").replaceChildren(make("span", prompt, { class: "soft" }), text);
  $("past_note").textContent =
    nats === null
      ? ""
      : `Its surprise at text that it never saw: ${nats.toFixed(2)} nats a letter ` +
        `(blind guessing: ${Math.log(app.about.vocab_size).toFixed(2)}).`;
}

// ---------------------------------------------------------------- you against the model

let unseen = "",
  at = 0,
  rounds = [],
  mine = [];

/** Show the game where the model folder carries text that the model never saw. */
export function offer_game() {
  const text = app.about.card?.heldout ?? "";
  $("game").hidden = text.length < 200 || app.about.unit !== "letter";
  $("board").hidden = true;
  $("game_go").textContent = "Play";
  at = 0;
}

function new_game() {
  const text = app.about.card.heldout,
    place = (Math.random() * (text.length - 160)) | 0;
  // it begins early in a line: the visitor sees where the line starts
  const line = text.indexOf("\n", place + CONTEXT);
  at = Math.min(text.length - ROUNDS, (line < 0 ? place + CONTEXT : line) + 4);
  unseen = text.slice(0, at + ROUNDS);
  [rounds, mine] = [[], []];
  app.worker.postMessage({ type: "judge", text: unseen, last: ROUNDS });
}

export function on_judged(message) {
  rounds = message.rounds;
  $("board").hidden = false;
  $("score").hidden = true;
  $("game_go").textContent = "New game";
  $("game_said").textContent = "";
  draw_board();
  $("letter").focus({ preventScroll: true });
}

function guess(letter) {
  const n = mine.length,
    V = app.about.vocab_size;
  $("letter").value = "";
  if (n >= rounds.length) return;
  const sure = Number(document.querySelector("#sure input:checked").value),
    right = letter === rounds[n].piece;
  // what is left is spread over the others
  mine.push({ right, nats: -Math.log(right ? sure : (1 - sure) / (V - 1)) });
  const { piece, best, p } = rounds[n];
  $("game_said").textContent =
    `${right ? "Right" : "No"}: ${name_of(piece)} came. ` +
    `The model would have said ${name_of(best)} (${percent(p)}).`;
  draw_board();
  if (mine.length === rounds.length) draw_score();
  else $("letter").focus({ preventScroll: true });
}

function draw_board() {
  const shown = unseen.slice(Math.max(0, at - CONTEXT), at + mine.length),
    fresh = mine.length;
  const marks = [...shown].map((c, i) => {
    const round = i - (shown.length - fresh);
    return round < 0
      ? c
      : make("span", c === "\n" ? "\u23CE\n" : c, { class: mine[round].right ? "right" : "wrong" });
  });
  const next =
    mine.length < rounds.length ? [make("span", "?", { class: "next", "aria-hidden": "true" })] : [];
  $("game_text").replaceChildren(...marks, ...next);
}

function draw_score() {
  const rows = [
    ["you", mine.filter(({ right }) => right).length, mean(mine.map(({ nats }) => nats))],
    [
      "the model",
      rounds.filter(({ best, piece }) => best === piece).length,
      mean(rounds.map(({ nats }) => nats)),
    ],
  ];
  if (rounds[0].counted) {
    rows.push([
      "the table",
      rounds.filter(({ counted, piece }) => counted.piece === piece).length,
      mean(rounds.map(({ counted }) => counted.nats)),
    ]);
  }
  $("score").hidden = false;
  $("score").tBodies[0].replaceChildren(
    ...rows.map(([who, right, nats]) =>
      make(
        "tr",
        "",
        {},
        make("th", who, { scope: "row" }),
        make("td", `${right} of ${rounds.length}`),
        make("td", `${nats.toFixed(2)} nats`),
      ),
    ),
  );
}
