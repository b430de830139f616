"""Is a small model better with pieces of words? The long race of notebooks/bpe.ipynb.

    python -m bench.bpe [--entries 65 256 512 2048] [--operations 4e11] [--seeds 0]

Updates results/bpe.json. Runs the notebook's own cells (those tagged `race`), so there is no second
copy of them. All runners get the same count of additions and multiplications, whatever the clock says;
a row replaces one with the same entries and seed.
"""

import argparse
import contextlib
import io
import json
import time

from data.files import say
from lab.machine import write_result
from lab.notebook import read
from lab.project import ROOT, read_json

OUT = ROOT / "results" / "bpe.json"


def race():
    """The names that the notebook's cells define: measure, SIZES, corpus and the rest."""
    space = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in read(ROOT / "notebooks" / "bpe.ipynb").cells:
            if "race" in cell.metadata.get("tags", []):
                exec(cell.source, space)
    return space


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.bpe", description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, nargs="+", default=[65, 256, 512, 2048])
    parser.add_argument("--operations", type=float, default=4e11)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args(argv)
    space, start = race(), time.monotonic()
    config = {"layers": space["LAYERS"], "width": space["C"], "context": space["T"], "batch": space["B"],
              "operations": args.operations}
    old = read_json(OUT)
    same = old.get("rows", []) if old.get("config") == config else []
    kept = {(row["entries"], row["seed"]): row for row in same}
    for V in args.entries:
        for seed in args.seeds:
            row = kept[V, seed] = space["measure"](V, args.operations, seed)[1]
            say(json.dumps(row))
    write_result(OUT, config, space["corpus"], unit="nats/char", seconds=round(time.monotonic() - start, 1),
                 rows=[kept[key] for key in sorted(kept)])


if __name__ == "__main__":
    main()
