// One head by hand: drag three letters of two numbers each; see scores, mask, votes and what comes back.

import { button, make, slider } from "./pictures.js";
import { dot, mixed, softmax } from "./rungs.js";

export const title = "One head by hand: drag the letters";

const LETTERS = ["c", "a", "t"], START = [[1, 0], [0, 1], [1, 0]], LOW = -1, HIGH = 2, SIDE = 240;
const WQ = [[0, 3], [0, 0]], WK = [[1, 0], [0, 1]], WV = [[1, 0], [0, 10]];    // (C, hs), as in the notebook

/** x (T, C) -> queries, keys, values, scores, votes and out, as the notebook's cell computes them. */
export function numbers(x) {
  const times = (w) => x.map((z) => [...mixed(z, w)]);
  const queries = times(WQ), keys = times(WK), values = times(WV);
  const scores = queries.map((q) => keys.map((k) => dot(q, k)));
  const votes = scores.map((row, t) => {
    const seen = softmax(row.slice(0, t + 1).map((score) => score / Math.sqrt(2)));
    return row.map((_, s) => seen[s] ?? 0);
  });
  return { queries, keys, values, scores, votes, out: votes.map((vote) => [...mixed(vote, values)]) };
}

/** A small table; hidden(t, s) marks the cells that the mask hides; deep: the larger a number, the darker. */
function table(caption, heads, rows, { hidden = () => false, deep = false } = {}) {
  const cell = (z, t, s) => hidden(t, s) ? make("td", {}, "\u2212\u221E")
    : make("td", deep ? { style: `--deep: ${Math.round(60 * z)}%` } : {}, z.toFixed(2));
  const line = (row, t) => make("tr", {}, make("th", { scope: "row" }, LETTERS[t]),
    ...row.map((z, s) => cell(z, t, s)));
  const top = make("tr", {}, make("td"), ...heads.map((head) => make("th", { scope: "col" }, head)));
  return make("table", { class: "numbers" }, make("caption", {}, caption),
    ...(heads.length ? [top] : []), ...rows.map(line));
}

export async function draw(box) {
  const x = START.map((two) => [...two]), shown = make("div", { class: "tables" });
  const place = (z) => (z - LOW) / (HIGH - LOW) * SIDE;
  const plane = make("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, class: "plane", "aria-hidden": "true" },
    make("path", { d: `M${place(0)} 0V${SIDE}M0 ${SIDE - place(0)}H${SIDE}` }),
    make("text", { x: SIDE - 4, y: SIDE - place(0) - 5, "text-anchor": "end" }, "consonant \u2192"),
    make("text", { x: place(0) + 5, y: 12 }, "vowel \u2191"));
  const points = LETTERS.map((letter) => make("g", { class: "dot" }, make("circle", { r: 13 }),
    make("text", { "text-anchor": "middle", dy: 5 }, letter)));
  const sliders = LETTERS.map((letter, t) => ["consonant", "vowel"].map((kind, i) =>
    slider(`${letter}, ${kind}`, LOW, HIGH, 0.1, x[t][i], (z) => move(t, i, z))));
  const move = (t, i, z) => {
    x[t][i] = Math.round(10 * Math.min(HIGH, Math.max(LOW, z))) / 10;
    const input = sliders[t][i].querySelector("input");
    input.value = input.nextElementSibling.textContent = x[t][i];
    redraw();
  };
  const redraw = () => {
    points.forEach((point, t) => {                           // two in one place: the later one a little aside
      const aside = 9 * x.slice(0, t).filter((z) => z.join() === x[t].join()).length;
      const [across, up] = x[t].map(place);
      point.setAttribute("transform", `translate(${across + aside} ${SIDE - up - aside})`);
    });
    const { queries, keys, values, scores, votes, out } = numbers(x), hidden = (t, s) => s > t;
    shown.replaceChildren(table("queries", [], queries), table("keys", [], keys), table("values", [], values),
      table("scores, masked", LETTERS, scores, { hidden }), table("votes", LETTERS, votes, { deep: true }),
      table("out: votes times values", [], out));
  };
  points.forEach((point, t) => {
    point.addEventListener("pointerdown", (event) => point.setPointerCapture(event.pointerId));
    point.addEventListener("pointermove", (event) => {
      if (!point.hasPointerCapture(event.pointerId)) return;
      const frame = plane.getBoundingClientRect(), share = (HIGH - LOW) / frame.width;
      move(t, 0, LOW + (event.clientX - frame.left) * share);
      move(t, 1, HIGH - (event.clientY - frame.top) * share);
    });
  });
  plane.append(...points);
  const again = button("Back to the notebook's letters",
    () => START.forEach((two, t) => two.forEach((z, i) => move(t, i, z))));
  box.append(make("div", { class: "side" }, plane, make("div", {}, ...sliders.flat(), again)), shown);
  redraw();
}
