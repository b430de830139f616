// The arcs: where heads look from one letter, with positions or without, the past in order or shuffled.

import { generator } from "./gpt2.js";
import { choice, facts, field, make, named, percent, rung, slider, tick, visible } from "./pictures.js";
import { softmax } from "./rungs.js";

export const title = "Where the heads look";
export const replaces = true;

const MODELS = [["one_head", "one head, no positions"], ["positions", "one head with positions"],
  ["four_heads", "four heads"], ["small_gpt", "small GPT, four blocks"]];
const STEP = 20, FLOOR = 78, HIGH = 70;                      // a letter's width; the arcs' foot and height

/** Votes of each head, a list for each of ids, and the probabilities (V) of what follows the last of them. */
export function numbers(model, ids, positions = true) {
  const votes = [], logits = model.forward(ids, { votes, positions }).at(-1);
  return { votes, probs: softmax(logits) };
}

/** The ids with all before the last in another order. */
function shuffled(ids) {
  const random = generator(1), past = ids.slice(0, -1);
  for (let i = past.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [past[i], past[j]] = [past[j], past[i]];
  }
  return [...past, ids.at(-1)];
}

const likeliest = (shares, n) => [...shares.keys()].sort((a, b) => shares[b] - shares[a]).slice(0, n);

const across = (s) => STEP * (s + 0.5);

/** The votes of the letter t: an arc to each earlier letter that gets more than `least`, a dot for itself. */
function marks(votes, t, least) {
  const arcs = [...votes.keys()].filter((s) => s < t && votes[s] > least).map((s) => {
    const top = FLOOR - HIGH * Math.min(1, (t - s) / 8 + 0.25), from = across(s), to = across(t);
    const d = `M${from} ${FLOOR}C${from} ${top} ${to} ${top} ${to} ${FLOOR}`;
    return make("path", { d, "stroke-width": 7 * votes[s], opacity: Math.min(1, 0.2 + votes[s]) });
  });
  return [...arcs, make("circle", { cx: across(t), cy: FLOOR, r: 7 * Math.sqrt(votes[t]) })];
}

/** One head: what the letter `at` looks at, or, where that is 0, what all letters look at. */
function drawing(letters, votes, at, head) {
  const t = at - 1, kind = (s) => at && s === t ? "chosen" : at && s > t ? "future" : "";
  const signs = letters.map((letter, s) =>
    make("text", { x: across(s), y: 98, class: kind(s) }, visible(letter)));
  const place = (s) => s === t ? "itself" : `${t - s} back`;
  const vote = (s) => `${named(letters[s])} (${place(s)}) ${percent(votes[t][s])}`;
  const self = votes.reduce((sum, row, s) => sum + row[s], 0) / votes.length;
  const told = at ? likeliest(votes[t], 3).map(vote) : [`${percent(self)} of the votes for oneself`];
  const drawn = at ? marks(votes[t], t, 0) : votes.flatMap((row, s) => marks(row, s, 0.1));
  return make("figure", { class: "head" }, make("figcaption", {}, `${head}: ${told.join(", ")}`),
    make("svg", { viewBox: `0 0 ${STEP * letters.length} 104`, "aria-hidden": "true" }, ...drawn, ...signs));
}

/** What the model guesses, and whether the shuffle moved it. */
function guess(probs, before, tokenizer) {
  const top = likeliest(probs, 3).map((id) => `${named(tokenizer.piece(id))} ${percent(probs[id])}`);
  const change = before ? Math.max(...probs.map((p, i) => Math.abs(p - before[i]))) : null;
  const moved = change < 1e-4 ? " The shuffle changed nothing."
    : ` The shuffle moved a letter's probability by up to ${percent(change)}.`;
  return `Its guess at what follows: ${top.join(", ")}.${before ? moved : ""}`;
}

export async function draw(box) {
  const { tokenizer, line } = await facts(), shown = make("div"), said = make("p", { role: "status" });
  const ask = { model: "four_heads", line, at: 0, positions: true, shuffle: false };
  const redraw = async () => {
    const model = await rung(ask.model), ids = tokenizer.encode(ask.line).slice(0, 32);
    if (!ids.length) return;
    ask.at = Math.min(ask.at, ids.length);
    Object.assign(at.querySelector("input"), { max: ids.length, value: ask.at });
    const plain = ids.slice(0, ask.at || ids.length), seen = ask.shuffle ? shuffled(plain) : plain;
    const { votes, probs } = numbers(model, seen, ask.positions);
    const letters = [...seen, ...ids.slice(plain.length)].map((id) => tokenizer.piece(id));
    const chosen = ask.at ? `${ask.at}: ${named(letters[ask.at - 1])}` : "all letters";
    at.querySelector("output").textContent = chosen;
    const heads = model.gpt?.config.n_head ?? votes.length;  // of one block
    const block = (h) => votes.length > heads ? `block ${Math.floor(h / heads) + 1}, ` : "";
    const name = (h) => `${block(h)}head ${h % heads + 1}`;
    shown.replaceChildren(...votes.map((vote, h) => drawing(letters, vote, ask.at, name(h))));
    said.textContent = guess(probs, ask.shuffle && numbers(model, plain, ask.positions).probs, tokenizer);
  };
  const turn = (name) => (value) => { ask[name] = value; redraw(); };
  const at = slider("From which letter (0: all)", 0, 32, 1, ask.at, turn("at"));
  const models = choice("Model", MODELS, turn("model"));
  models.querySelector("select").value = ask.model;
  box.append(models, field("Line", line, 32, turn("line")), at, tick("positions", true, turn("positions")),
    tick("shuffle the past", false, turn("shuffle")), said, shown);
  await redraw();
}
