// The arcs: where heads look from one letter, with positions or without, the past in order or shuffled.

import { generator } from "./gpt2.js";
import { choice, facts, field, make, named, percent, rung, slider, tick, visible } from "./pictures.js";
import { softmax } from "./rungs.js";

export const title = "Where the heads look";
export const replaces = true;

const MODELS = [["one_head", "one head, no positions"], ["positions", "one head with positions"],
  ["four_heads", "four heads"], ["small_gpt", "small GPT, four blocks of four heads"]];
const STEP = 20, FLOOR = 78, HIGH = 70;                      // a letter's width; the arcs' foot and height

/** Votes of each head at the last of ids, and the probabilities (V) of the next letter. */
export function numbers(model, ids, positions = true) {
  const votes = [], logits = model.forward(ids, { votes, positions }).at(-1);
  return { votes: votes.map((head) => head.at(-1)), probs: softmax(logits) };
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

/** One head at the letter t: an arc for each vote for an earlier letter, a dot for the vote for itself. */
function drawing(letters, votes, head) {
  const t = votes.length - 1, x = (s) => STEP * (s + 0.5);
  const arcs = votes.slice(0, -1).map((vote, s) => {
    const top = FLOOR - HIGH * Math.min(1, (t - s) / 8 + 0.25);
    const d = `M${x(s)} ${FLOOR}C${x(s)} ${top} ${x(t)} ${top} ${x(t)} ${FLOOR}`;
    return make("path", { d, "stroke-width": 7 * vote, opacity: Math.min(1, 0.2 + vote) });
  });
  const kind = (s) => s === t ? "chosen" : s > t ? "future" : "";
  const signs = letters.map((letter, s) => make("text", { x: x(s), y: 98, class: kind(s) }, visible(letter)));
  const place = (s) => s === t ? "itself" : `${t - s} back`;
  const most = likeliest(votes, 3).map((s) => `${named(letters[s])} (${place(s)}) ${percent(votes[s])}`);
  const dot = make("circle", { cx: x(t), cy: FLOOR, r: 7 * Math.sqrt(votes[t]) });
  return make("figure", { class: "head" }, make("figcaption", {}, `${head}: ${most.join(", ")}`),
    make("svg", { viewBox: `0 0 ${STEP * letters.length} 104`, "aria-hidden": "true" },
      ...arcs, dot, ...signs));
}

/** What the model guesses, and whether the shuffle moved it. */
function guess(probs, before, tokenizer) {
  const top = likeliest(probs, 3).map((id) => `${named(tokenizer.piece(id))} ${percent(probs[id])}`);
  const change = before ? Math.max(...probs.map((p, i) => Math.abs(p - before[i]))) : null;
  const moved = change < 1e-4 ? " The shuffle changed nothing."
    : ` The shuffle moved a letter's probability by up to ${percent(change)}.`;
  return `Its guess at the next letter: ${top.join(", ")}.${before ? moved : ""}`;
}

export async function draw(box) {
  const { tokenizer, line } = await facts(), shown = make("div"), said = make("p", { role: "status" });
  const ask = { model: "four_heads", line, at: 22, positions: true, shuffle: false };
  const redraw = async () => {
    const model = await rung(ask.model), ids = tokenizer.encode(ask.line).slice(0, 32);
    if (!ids.length) return;
    ask.at = Math.min(ask.at, ids.length);
    Object.assign(at.querySelector("input"), { max: ids.length, value: ask.at });
    const plain = ids.slice(0, ask.at), seen = ask.shuffle ? shuffled(plain) : plain;
    const { votes, probs } = numbers(model, seen, ask.positions);
    const letters = [...seen, ...ids.slice(ask.at)].map((id) => tokenizer.piece(id));
    at.querySelector("output").textContent = `${ask.at}: ${named(letters[ask.at - 1])}`;
    const blocks = ask.model === "small_gpt";
    const name = (h) => blocks ? `block ${(h >> 2) + 1}, head ${h % 4 + 1}` : `head ${h + 1}`;
    shown.replaceChildren(...votes.map((vote, h) => drawing(letters, vote, name(h))));
    said.textContent = guess(probs, ask.shuffle && numbers(model, plain, ask.positions).probs, tokenizer);
  };
  const turn = (name) => (value) => { ask[name] = value; redraw(); };
  const at = slider("From which letter", 1, 32, 1, ask.at, turn("at"));
  const models = choice("Model", MODELS, turn("model"));
  models.querySelector("select").value = ask.model;
  box.append(models, field("Line", line, 32, turn("line")), at, tick("positions", true, turn("positions")),
    tick("shuffle the past", false, turn("shuffle")), said, shown);
  await redraw();
}
