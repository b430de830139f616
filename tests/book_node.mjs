// Runs the book's live pictures in node for tests/test_book_live.py: the script of a page, without a page.
// A JSON list of jobs on stdin, one of answers on stdout. argv[2]: the folder with live.js and models/.

import fs from "node:fs";
import vm from "node:vm";

const folder = process.argv[2];
const run = (name) => vm.runInThisContext(fs.readFileSync(`${folder}/${name}`, "utf8"));
globalThis.document = {
  createElement: () => ({ setAttribute(name, value) { this[name] = value; }, append() {} }),
  head: { append: (script) => run(script.src) },
};
run("live.js");
const { pictures: shared, live_arcs, live_dials, live_head, live_ladder, live_steps } = LIVE;
const { live_strip, live_table } = LIVE;

const jobs = {
  async logits({ rung, ids, look }) { return (await shared.rung(rung)).forward(ids, look); },
  async strip({ models, before, line }) {
    const { tokenizer } = await shared.facts(), nats = {};
    for (const name of models) {
      const model = await (typeof name === "number" ? shared.counts(name) : shared.rung(name));
      nats[name] = live_strip.numbers(model, tokenizer, before, line);
    }
    return nats;
  },
  async table({ ids }) {
    const orders = live_table.numbers(await shared.counts(5), ids);
    return orders.map((order) => ({ ...order, probs: [...order.probs] }));
  },
  async arcs({ rung, ids, positions }) {
    const { votes, probs } = live_arcs.numbers(await shared.rung(rung), ids, positions);
    return { votes, probs };
  },
  async dials({ ids, dials }) { return [...live_dials.numbers(await shared.rung("small_gpt"), ids, dials)]; },
  async ladder({ rung, ids, V }) {
    return [...live_ladder.numbers(rung && await shared.rung(rung), ids, V)];
  },
  async head({ x }) { return live_head.numbers(x); },
  async steps() {
    const pairs = await shared.counts(2), { chars } = await shared.facts();
    return live_steps.saved(await shared.rung("bigram"), chars.length).map(([step, table]) =>
      [step, live_steps.numbers(pairs, table).apart]);
  },
};

const answers = [];
for (const { job, ...ask } of JSON.parse(fs.readFileSync(0, "utf8"))) answers.push(await jobs[job](ask));
process.stdout.write(JSON.stringify(answers));
