// hand.js: a second thread for long prompts. It has the model's heap in common with worker.js, waits for an
// order, multiplies its half of a matrix's columns, says so, and waits again (hire() in kernels.js).

import { DONE, ORDER, TURN, panels } from "./kernels.js";

addEventListener("message", ({ data: { module, memory, cells, strip } }) => {
  const { exports } = new WebAssembly.Instance(module, { page: { memory } });
  const board = new Int32Array(memory.buffer, cells, ORDER + 16);
  postMessage("here");
  for (let turn = 0; ; turn++) {
    Atomics.wait(board, TURN, turn);
    panels(exports, strip, ...board.subarray(ORDER, ORDER + 11));
    Atomics.store(board, DONE, turn + 1);
    Atomics.notify(board, DONE);
  }
});
