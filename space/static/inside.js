// inside.js: the panel beside the text: what the model expected at the chosen letter, where it looked, layer
// by layer.

import { $, app, glyphs, make, name_of, percent } from "./shared.js";

const BARS = 8;
let ask = 0,
  inside = null,
  whole = null; // whole: the last guess that was made with every head on
let picked = false,
  names = null,
  asked_names = false,
  station = 0;
const off = new Set(); // heads that are switched off: layer * n_head + head

// ---------------------------------------------------------------- choosing a letter

/** Look at one letter of the text; -1 looks at none. */
export function choose(at) {
  $("text").children[app.chosen]?.classList.remove("at");
  app.chosen = at;
  clear_arcs();
  $("before").setAttribute("aria-disabled", at <= 0);
  $("after").setAttribute("aria-disabled", at >= app.pieces.length - 1);
  if (at < 0) {
    ask++;
    inside = null;
    return;
  }
  const span = $("text").children[at];
  span.classList.add("at");
  show_in_paper(span);
  $("text").setAttribute("aria-valuenow", at);
  if (app.about) app.worker.postMessage({ type: "inspect", at, ask: ++ask });
  document.dispatchEvent(new Event("chosen"));
}

/** Scroll the paper, and only the paper, so that a letter is seen. */
function show_in_paper(span) {
  const paper = $("paper"),
    { top, bottom } = span.getBoundingClientRect(),
    frame = paper.getBoundingClientRect();
  if (top < frame.top + 30) paper.scrollTop -= frame.top + 30 - top;
  if (bottom > frame.bottom - 8) paper.scrollTop += bottom - frame.bottom + 8;
}

/** The letter that the model wrote and expected least. */
export function most_surprising() {
  let best = Math.min(app.n_prompt, app.pieces.length - 1);
  for (let i = best; i < app.pieces.length; i++) if ((app.nats[i] ?? 0) > (app.nats[best] ?? 0)) best = i;
  return best;
}

function move(step) {
  if (!app.pieces.length) return;
  // the first key shows the first letter that was written
  const to = app.chosen < 0 ? app.n_prompt : app.chosen + step;
  choose(Math.min(app.pieces.length - 1, Math.max(0, to)));
}

// ---------------------------------------------------------------- its guess

export function draw_inside(message) {
  if (message.ask !== ask) return;
  inside = message;
  if (!off.size) whole = message;
  draw_came();
  draw_bars();
  draw_heads();
  draw_layers();
  if (!asked_names && app.pieces.length >= 48) {
    asked_names = true;
    app.worker.postMessage({ type: "name_heads" });
  }
}

/** The sentence over the bars: what came, after what, and how likely it was. */
function draw_came() {
  const { at, id, table } = inside,
    piece = app.pieces[at],
    before = app.pieces.slice(Math.max(0, at - 18), at).join("");
  const p = inside.logits ? Math.exp(-inside.nats) : null,
    came = $("came");
  if (p === null) {
    came.replaceChildren(
      `${name_of(piece)} is the first: there is nothing before it, so the model did not guess.`,
    );
  } else {
    came.replaceChildren(
      "After ",
      make("q", (at > 18 ? "\u2026" : "") + glyphs(before), { dir: "auto" }),
      " came ",
      make("b", name_of(piece)),
      ". The model gave it ",
      make("b", percent(p)),
      table ? `, the table of counts ${percent(table[id])}.` : ".",
      make("span", ` ${inside.nats.toFixed(2)} nats`, { class: "soft small" }),
    );
  }
  $("text").setAttribute("aria-valuetext", `${name_of(piece)}, ${p === null ? "no guess" : percent(p)}`);
}

/** The chances of all ids at one temperature, as a function of the id. */
function chances(logits, temperature) {
  const max = logits.reduce((a, b) => Math.max(a, b), -Infinity);
  const sum = logits.reduce((total, z) => total + Math.exp((z - max) / temperature), 0);
  return (id) => Math.exp((logits[id] - max) / temperature) / sum;
}

function draw_bars() {
  const temperature = Number($("reshape").value),
    rows = [];
  $("reshape_out").textContent = temperature.toFixed(2);
  $("what_if").hidden = !inside?.logits;
  if (inside?.logits) {
    const chance = chances(inside.logits, temperature),
      shown = inside.names.slice(0, BARS);
    const came = { id: inside.id, piece: app.pieces[inside.at] };
    if (!shown.some(({ id }) => id === came.id)) shown.push(came); // a surprise has its bar too
    for (const { id, piece } of shown) rows.push(bar(id, piece, chance(id)));
    const others = 1 - shown.reduce((sum, { id }) => sum + chance(id), 0);
    $("reshape_note").textContent =
      `The other ${inside.logits.length - rows.length} share ${percent(Math.max(0, others))}. ` +
      `At 1 these are the model's own odds; this text was sampled at ${app.used.temperature.toFixed(2)}.`;
  }
  $("bars").replaceChildren(...rows);
}

/** One row: a letter, its chance under the model and under the table. A click writes on with that letter. */
function bar(id, piece, chance) {
  const { at, table } = inside,
    came = id === inside.id,
    button = make("button", "", { type: "button", "data-id": id });
  const name = make("span", name_of(piece), { class: "char" });
  if (came) name.append(make("b", "came"));
  button.append(name, lanes(chance, table?.[id]));
  if (!came) button.append(make("span", "Write on with this one.", { class: "unseen" }));
  if (came) button.setAttribute("aria-disabled", true);
  else button.onclick = () => document.dispatchEvent(new CustomEvent("swap", { detail: { at, id, piece } }));
  return make("li", "", { class: came ? "came" : "" }, button);
}

function lanes(p, p_table) {
  const both = make("span", "", { class: "lanes" });
  for (const [kind, chance] of [
    ["model", p],
    ["table", p_table],
  ]) {
    if (chance === undefined) continue;
    const lane = make("span", "", { class: "lane" }),
      stripe = make("i", "", { class: kind, "aria-hidden": "true" });
    stripe.style.setProperty("--w", `${(100 * chance).toFixed(1)}%`);
    lane.append(stripe, make("span", `${kind} `, { class: "unseen" }), make("span", percent(chance)));
    both.append(lane);
  }
  return both;
}

// ---------------------------------------------------------------- where it looked

/** n: the letters that the table of counts looks at; undefined: there is none, or not yet. */
export function show_table(n) {
  $("table_key").hidden = $("duel").hidden = !n;
  $("table_words").textContent =
    `a ${n}-gram: a table of which letter followed which ${n - 1} letters. No network, only counting.`;
  if (n && app.chosen >= 0) choose(app.chosen);
}

export function fill_heads() {
  const { n_layer, n_head } = app.about,
    option = (value, text) => make("option", text, { value });
  $("layer").replaceChildren(...Array.from({ length: n_layer }, (_, l) => option(l, l + 1)));
  $("head").replaceChildren(...Array.from({ length: n_head }, (_, h) => option(h, h + 1)));
  $("heads").style.setProperty("--n", n_head);
  show_table();
  [picked, names, asked_names, whole] = [false, null, false, null];
  off.clear();
}

const current = () => Number($("layer").value) * app.about.n_head + Number($("head").value);
const words_for = (head) =>
  `head ${(head % app.about.n_head) + 1} of layer ${Math.floor(head / app.about.n_head) + 1}`;

export function on_heads(found) {
  names = found;
  if (inside) draw_heads();
}

/**
 * The head without which the guess would change most; where that was not tried, the one that looks at one
 * letter the hardest.
 */
function telling_head() {
  const { effects, patterns, nats } = inside,
    p = Math.exp(-nats);
  const worth = effects
    ? effects.map((without) => Math.abs(Math.log(without / p)))
    : patterns.map((pattern) => Math.max(0, ...pattern.subarray(1, -1)));
  return worth.indexOf(Math.max(...worth));
}

function select_head(head) {
  [$("layer").value, $("head").value] = [Math.floor(head / app.about.n_head), head % app.about.n_head];
}

/** A small picture of each head. The telling one is chosen until the visitor chooses another. */
function draw_heads() {
  if (!inside.patterns.length) {
    $("heads").replaceChildren();
    $("looked").textContent = "Nothing to look at yet.";
    return;
  }
  if (!picked) select_head(telling_head());
  $("heads").innerHTML = inside.patterns
    .map(
      (pattern) =>
        `<div><svg viewBox="0 0 60 20" preserveAspectRatio="none"><path d="${outline(pattern)}"/></svg>` +
        "<span></span></div>",
    )
    .join("");
  [...$("heads").children].forEach((cell, head) => {
    if (app.about.n_head <= 6) cell.lastChild.textContent = names?.[head].name ?? "";
    cell.classList.toggle("off", off.has(head));
    cell.onclick = () => {
      select_head(head);
      picked = true;
      draw_attention();
    };
  });
  draw_attention();
}

/**
 * One pattern as an area 60 wide and 20 high, as tall as its peak: the largest weight in each of 60 places.
 */
function outline(pattern) {
  const heights = Array(60).fill(0);
  pattern.forEach((weight, i) => {
    const place = Math.min(
      59,
      Math.floor((60 * (i + 60 - Math.min(60, pattern.length))) / Math.max(60, pattern.length)),
    );
    heights[place] = Math.max(heights[place], weight);
  });
  const peak = Math.max(...heights);
  const steps = heights.map((height, x) => `V${(20 - (18 * height) / peak).toFixed(1)}H${x + 1}`);
  return `M0 20${steps.join("")}V20Z`;
}

function draw_attention() {
  clear_arcs();
  if (!inside?.patterns.length || $("looking").hidden) return;
  const head = current(),
    pattern = inside.patterns[head],
    last = pattern.length - 1;
  [...$("heads").children].forEach((cell, i) => cell.classList.toggle("at", i === head));
  const strongest = [...pattern.keys()]
    .sort((a, b) => pattern[b] - pattern[a])
    .filter((i) => pattern[i] > 0.02)
    .slice(0, 12);
  const seen = strongest
    .slice(0, 3)
    .map(
      (i) =>
        `${name_of(app.pieces[inside.start + i])}` +
        `${i === last ? " just before" : `, ${last - i + 1} back`} (${percent(pattern[i])})`,
    );
  const name = names?.[head];
  $("looked").textContent =
    `To guess ${name_of(app.pieces[inside.at])}, ${words_for(head)} looked most at ${seen.join("; ")}.` +
    (name?.share
      ? ` All over this text ${percent(name.share)} of its attention falls on ${name.name}.`
      : "") +
    effect_of(head);
  draw_off(head);
  for (const i of strongest) arc(inside.start + i, inside.at, pattern[i]);
}

function effect_of(head) {
  if (!inside.effects || off.has(head)) return "";
  return ` Without it here: ${percent(inside.effects[head])} instead of ${percent(Math.exp(-inside.nats))}.`;
}

// ---------------------------------------------------------------- a head switched off

function draw_off(head) {
  $("off").setAttribute("aria-pressed", off.has(head));
  $("off").textContent = off.has(head) ? "Switch it on again" : "Switch it off";
  const p = (message) => percent(Math.exp(-message.nats)),
    same = whole?.at === inside.at && whole.id === inside.id;
  $("off_note").textContent = !off.size
    ? ""
    : `Off: ${[...off].map(words_for).join("; ")}. ` +
      (same ? `${name_of(app.pieces[inside.at])} now gets ${p(inside)} instead of ${p(whole)}. ` : "") +
      "Bars, shades and new text come without it: press Generate.";
}

function switch_head() {
  const head = current();
  if (!off.delete(head)) off.add(head);
  app.worker.postMessage({ type: "stop" });
  app.worker.postMessage({ type: "switch_off", heads: [...off] });
  picked = true;
  app.worker.postMessage({ type: "inspect", at: app.chosen, ask: ++ask });
}

function clear_arcs() {
  for (const span of $("text").querySelectorAll(".seen")) span.classList.remove("seen");
  $("arcs").replaceChildren();
}

/** An arc over the text from the letter that was guessed to one that a head looked at; wider is more. */
function arc(from, to, weight) {
  const page = $("page").getBoundingClientRect(),
    middle = (i) => {
      const rect = $("text").children[i].getClientRects()[0] ?? $("text").getBoundingClientRect();
      return { x: rect.left + rect.width / 2 - page.left, y: rect.top - page.top + 3 };
    };
  $("text").children[from].classList.add("seen");
  const a = middle(to),
    b = middle(from);
  const rise = a.y === b.y ? Math.min(26, 7 + Math.abs(a.x - b.x) / 6) : 16;
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", `M${a.x} ${a.y}C${a.x} ${a.y - rise} ${b.x} ${b.y - rise} ${b.x} ${b.y}`);
  path.setAttribute("stroke-width", (1 + 3 * weight).toFixed(2));
  path.setAttribute("opacity", (0.3 + 0.7 * weight).toFixed(2));
  $("arcs").append(path);
}

export function redraw_arcs() {
  if (inside) draw_attention();
}

// ---------------------------------------------------------------- layer by layer

/**
 * The way of a letter as stations: { name, shape, words, values, layer }. path[0] is the start, then two for
 * each layer.
 */
function stations() {
  const { path, what, where } = inside,
    C = app.about.n_embd,
    V = inside.logits.length,
    last = name_of(app.pieces[inside.at - 1]);
  const list = [
    {
      name: "What",
      shape: C,
      words: `${last} becomes a vector: ${C} numbers that say what it is.`,
      values: what,
    },
    {
      name: "Where",
      shape: C,
      words: "Its place in the window adds its own numbers.",
      values: where,
      row: 0,
    },
  ];
  path.slice(1).forEach(({ values }, i) => {
    const layer = Math.floor(i / 2),
      attention = i % 2 === 0;
    const change = values.map((x, c) => x - path[i].values[c]);
    list.push({
      name: attention ? `Layer ${layer + 1}, look back` : `Layer ${layer + 1}, think`,
      shape: C,
      row: attention ? undefined : layer + 1,
      values: change,
      words: attention
        ? `${app.about.n_head} heads of ${C / app.about.n_head} numbers fetch what earlier letters know; ` +
          "the result is added."
        : `${4 * C} neurons work on the vector; the result is added.`,
    });
  });
  const logits = Float32Array.from(inside.names, ({ id }) => inside.logits[id]);
  return [
    ...list,
    {
      name: "Scores",
      shape: V,
      row: path.length >> 1,
      values: logits,
      words:
        `The vector is compared with each of the ${V} letters: one score each. ` +
        "Softmax makes chances of them.",
    },
  ];
}

function draw_layers() {
  if (!inside.logits) {
    $("rows").replaceChildren();
    return;
  }
  const after = inside.path.filter((_, i) => i % 2 === 0); // the start, then once after each whole layer
  $("rows").replaceChildren(
    ...after.map(({ top, p }, layer) => {
      const guess = top.map(({ piece, p: chance }) => `${name_of(piece)} ${percent(chance)}`);
      const row = make("li", "", { "data-row": layer }),
        stripe = make("i", "", { class: "model", "aria-hidden": "true" });
      stripe.style.setProperty("--w", `${(100 * top[0].p).toFixed(1)}%`);
      row.append(
        make("span", layer ? `after layer ${layer}` : "at the start", { class: "soft" }),
        make("b", guess[0]),
        make("span", "", { class: "lane" }, stripe),
        make("span", `then ${guess.slice(1).join(", ")}`, { class: "soft small" }),
        make("span", `${name_of(app.pieces[inside.at])}: ${percent(p)}`, { class: "small came_p" }),
      );
      return row;
    }),
  );
  draw_station();
}

function draw_station() {
  const list = stations(),
    { name, shape, words, values, row } = list[station % list.length];
  $("station_name").textContent = `${(station % list.length) + 1} of ${list.length}: ${name}`;
  $("station_shape").textContent = `(${shape})`;
  $("station_words").textContent = words;
  for (const li of $("rows").children) li.classList.toggle("at", Number(li.dataset.row) === row);
  draw_strip(values);
}

/** A vector as stripes: colour by sign, strength by size. */
function draw_strip(values) {
  const canvas = $("strip"),
    style = getComputedStyle(document.documentElement),
    n = values.length;
  canvas.width = n * Math.max(1, Math.floor(640 / n));
  const brush = canvas.getContext("2d"),
    width = canvas.width / n,
    peak = values.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-9);
  for (let i = 0; i < n; i++) {
    brush.globalAlpha = Math.abs(values[i]) / peak;
    brush.fillStyle = style.getPropertyValue(values[i] > 0 ? "--accent" : "--table");
    brush.fillRect(i * width, 0, width, canvas.height);
  }
}

// ---------------------------------------------------------------- what the visitor does

const TABS = ["guess", "looked", "layers"],
  PANELS = { guess: "guess", looked: "looking", layers: "layers" };

function show_tab(name, focus = false) {
  for (const tab of TABS) {
    const on = tab === name;
    $(`tab_${tab}`).setAttribute("aria-selected", on);
    $(`tab_${tab}`).tabIndex = on ? 0 : -1;
    $(PANELS[tab]).hidden = !on;
  }
  if (focus) $(`tab_${name}`).focus();
  redraw_arcs();
}

for (const [i, tab] of TABS.entries()) {
  $(`tab_${tab}`).onclick = () => show_tab(tab);
  $(`tab_${tab}`).onkeydown = (event) => {
    const step = { ArrowLeft: 2, ArrowRight: 1 }[event.key];
    if (step) show_tab(TABS[(i + step) % 3], true);
  };
}
$("before").onclick = () => move(-1);
$("after").onclick = () => move(1);
$("text").onclick = (event) => {
  const span = event.target.closest(".ch");
  if (span) choose([...$("text").children].indexOf(span));
};
$("text").onkeydown = (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -Infinity, End: Infinity }[
    event.key
  ];
  if (step === undefined || !app.pieces.length) return;
  event.preventDefault();
  move(step);
};
$("reshape").oninput = draw_bars;
$("layer").onchange = $("head").onchange = () => {
  picked = true;
  draw_attention();
};
$("off").onclick = switch_head;
$("step").onclick = () => {
  station++;
  if (inside?.logits) draw_station();
};
