// train_hand.js: one more worker that shares the batch (train_team.js). It waits for the leader's order, does
// its part, and waits.

import { GPT, make_optimizers } from "./train.js";
import { round } from "./train_team.js";

addEventListener("message", ({ data: { config, B, law, members, member, memory } }) => {
  const model = new GPT(config, B, { members, member, memory }), optimizers = make_optimizers(model, law);
  postMessage("here");
  for (;;) {
    model.meet(Infinity);
    round(model, optimizers);
  }
});
