"""How well does a GPT-2 learn in a browser's tab, and how fast? Headless Chromium trains on train.html.

    python -m bench.train_in_tab [--minutes 8] [--phone 10]       writes results/train_in_tab.json

The first run takes the page's medium model and every core. The second takes its small one and one worker
for a quarter of --phone (0: left out): what a core that is four times slower, about a phone's, does in that
time. Loss is the page's own exact loss of the whole validation split; Python measures the model's files
again. GFLOP/s count the matrix products as they are computed; their peak is a loop of multiplications and
additions that never leaves the registers, in the same browser. Linux only: memory is read from /proc.
"""

import os
import tempfile
import time
from pathlib import Path

from bench import common
from bench.browser import chromium, page_process, served
from data.files import say
from data.shakespeare import load_corpus
from lab.project import ROOT
from model_gpt2 import GPT
from train_gpt2 import evaluate

LISTEN = """
window.heard = []; window.longest = 0;
window.Worker = class extends window.Worker {
  constructor(...what) {
    super(...what);
    this.addEventListener("message", ({ data }) => window.heard.push(data));
  }
};
new PerformanceObserver((list) => {
  for (const { duration } of list.getEntries()) window.longest = Math.max(window.longest, duration);
}).observe({ entryTypes: ["longtask"] });
"""
PEAK = """async () => {                   // GFLOP/s of one core: twelve sums, nothing but registers
  const { assemble } = await import(new URL("kernels.js", location));
  const sums = Array.from({ length: 12 }, (_, i) => `s${i}`), all = (line) => sums.map(line).join("\\n");
  const source = (madd) => `func peak param i32 n i32 at local i32 i v128 x v128 y ${all((s) => `v128 ${s}`)}
    f32.const 0.999  f32x4.splat  set x  f32.const 0.001  f32x4.splat  set y
    loop more
      ${all(madd)}
      get i  i32.const 1  i32.add  tee i  get n  i32.lt_u  br_if more
    end
    ${all((s, i) => `get at  get ${s}  v128.store ${16 * i}`)}
  end`;
  const fused = assemble(source((s) => `get ${s}  get x  get y  f32x4.relaxed_madd  set ${s}`));
  const plain = assemble(source((s) => `get ${s}  get x  f32x4.mul  get y  f32x4.add  set ${s}`));
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 1 });
  const module = await WebAssembly.compile(WebAssembly.validate(fused) ? fused : plain);
  const { exports } = await WebAssembly.instantiate(module, { page: { memory } }), rates = [];
  for (let turn = 0; turn < 12; turn++) {
    const from = performance.now();
    exports.peak(1e7, 0);
    rates.push(1e7 * 12 * 8 / (performance.now() - from) / 1e6);
  }
  return Math.max(...rates);
}"""


def flops_per_step(config, sequences):
    """Multiplications and additions of the matrix products of one step: forward, backward, and Muon."""
    L, C, T = config["n_layer"], config["n_embd"], config["block_size"]
    V = -(-config["vocab_size"] // 8) * 8
    tokens = sequences * T
    forward = tokens * (2 * 12 * C * C * L + 4 * T * C * L + 2 * V * C)
    square, wide = 5 * 3 * 2 * C**3, 5 * (2 * 2 * 4 * C**3 + 2 * C**3)  # five turns; c_attn is three squares
    return 3 * forward + L * (4 * square + 2 * wide)


def run(browser, address, size, minutes, workers=0):
    """One training in a fresh page, with what it told."""
    page = browser.new_context().new_page()
    page.set_default_timeout(60_000 * (minutes + 6))
    page.add_init_script(LISTEN)
    page.goto(f"{address}train.html{f'?workers={workers}' if workers else ''}")
    peak = page.evaluate(PEAK)
    page.set_input_files("#file", os.environ["GPT2_DATA"])
    page.locator("#go:enabled").wait_for()
    page.select_option("#size", size)
    page.fill("#minutes", str(minutes))
    page.evaluate("longest = 0")
    pid, began = page_process(), time.perf_counter()
    page.click("#go")
    page.locator("#status", has_text="Done:").wait_for()
    wall, longest = time.perf_counter() - began, page.evaluate("longest")
    heard = page.evaluate("heard.filter(m => !['folder', 'speed', 'sample'].includes(m.type))")
    told = {m["type"]: m for m in heard}
    begun, done, examined = told["begun"], told["done"], [m for m in heard if m["type"] == "validation"]
    losses = [item for m in heard if m["type"] == "steps" for item in m["items"]]
    training = wall - sum(m["took"] for m in examined)
    gflops = flops_per_step(begun["config"], begun["B"]) * done["step"] / training / 1e9
    result = {
        "size": size, "config": begun["config"], "parameters": begun["parameters"], "sequences": begun["B"],
        "workers": begun["members"], "fused": begun["fused"], "minutes": minutes, "wall_s": round(wall, 1),
        "steps": done["step"], "val_loss": done["val_loss"], "val_loss_python": loss_in_python(page),
        "marks": told["marks"]["marks"], "train_loss": losses[:: max(1, len(losses) // 200)],
        "validations": [[m["step"], m["val_loss"], round(m["seconds"], 1)] for m in examined],
        "examined_s": round(wall - training, 1), "gflops": round(gflops, 1),
        "peak_gflops_core": round(peak, 1), "share_of_peak": round(gflops / peak / begun["members"], 3),
        "model_mb": round(begun["bytes"] / 1e6, 1), "peak_mb": round(common.status_mb("VmHWM", pid)),
        "longest_task_ms": round(longest)}
    say({key: value for key, value in result.items() if key != "train_loss"})
    page.close()
    return result


def loss_in_python(page):
    """The exact loss of the files that the page hands out."""
    page.click("#folder")
    page.locator("#files a", has_text="safetensors").wait_for()
    with tempfile.TemporaryDirectory() as folder:
        for link in page.locator("#files a").all():
            with page.expect_download() as download:
                link.click()
            download.value.save_as(Path(folder) / download.value.suggested_filename)
        return evaluate(GPT.from_pretrained(folder), load_corpus().val)


def main(argv=None):
    args = common.options(__doc__, argv, minutes=8.0, phone=10.0, out="train_in_tab.json")
    with served(ROOT / "space" / "static") as address, chromium() as browser:
        config = {"minutes": args.minutes, "phone": args.phone, "chromium": browser.version}
        visits = [("medium", args.minutes, 0), ("small", args.phone / 4, 1)]
        common.timed_result(common.RESULTS / args.out, config, load_corpus(),
                            lambda: {"runs": [run(browser, address, *v) for v in visits if v[1]]})


if __name__ == "__main__":
    common.start(main)
