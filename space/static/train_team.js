// train_team.js: workers that share a batch. Each has its part of the sequences, its own grads and
// activations; params and moments are common, in one memory that all of them see. A page may have such a
// memory only where it is isolated from other sites (two headers, see space/static_site.py); elsewhere the
// team is the leader alone.

import { GPT, make_optimizers, optimizer_step } from "./train.js";

const MOST = 4, STEP = 1, FORWARD = 2;                  // more workers than that wait for each other too long

/** How many workers this page may use. */
export function most_members() {
  return globalThis.crossOriginIsolated ? Math.min(MOST, navigator.hardwareConcurrency || 1) : 1;
}

/** One round of a member: its part of the common batch, as the leader's order says. */
export function round(model, optimizers) {
  const { cells, members, member, B, config: { block_size: T } } = model, N = B * T;
  const [kind, share] = cells.subarray(2 * members);
  const part = (ids) => ids.subarray(member * N, (member + 1) * N);
  if (kind === STEP) return optimizer_step(model, optimizers, part(model.x_ids), part(model.y_ids), share);
  cells[member] = model.forward(part(model.x_ids), part(model.y_ids));
  model.meet();
  return { loss: cells.subarray(0, members).reduce((a, b) => a + b) / members };
}

/**
 * The leader of a team. It has what evaluate() asks of a model: B, config, forward(x, y) and nats, of the
 * whole batch.
 */
export class Team {
  /** B: sequences of a whole batch; law: as make_optimizers takes it; members: 1, or up to most_members(). */
  constructor(config, B, law, members = 1) {
    while (B % members) members--;                           // everybody has as many sequences
    this.model = new GPT(config, B / members, { members });
    this.optimizers = make_optimizers(this.model, law);
    Object.assign(this, { config, B, members, nats: this.model.nats, hands: [] });
  }

  /**
   * A team whose workers are all there. The leader must not wait at a meeting before: they need its thread to
   * start.
   */
  static async gather(config, B, law, members) {
    const team = new Team(config, B, law, members), { memory } = team.model;
    await Promise.all(Array.from({ length: team.members - 1 }, (_, i) => new Promise((resolve, reject) => {
      const hand = new Worker(new URL("train_hand.js", import.meta.url), { type: "module" });
      team.hands.push(hand);
      hand.onmessage = resolve;
      hand.onerror = () => reject(new Error("The page's workers could not be started: reload the page."));
      hand.postMessage({ config, law, B: team.model.B, members: team.members, member: i + 1, memory });
    })));
    return team;
  }

  order(kind, x, y, share = 0) {
    const { model } = this;
    model.x_ids.set(x);
    model.y_ids.set(y);
    model.cells.set([kind, share], 2 * this.members);
    model.meet();
    return round(model, this.optimizers);
  }

  /** One step with a whole batch; returns { loss, norm, moved }. */
  optimizer_step(x, y, share) { return this.order(STEP, x, y, share); }

  forward(x, y) { return this.order(FORWARD, x, y).loss; }

  /** Send the others home. */
  dismiss() { for (const hand of this.hands) hand.terminate(); }
}
