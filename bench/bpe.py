"""Is a small model better with pieces of words? The long race of notebooks/bpe.ipynb.

    python -m bench.bpe [--entries 65 256 512 2048] [--operations 4e11] [--seeds 0]

Updates results/bpe.json. Runs the notebook's own cells (those tagged `race`), so there is no second
copy of them. All runners get the same count of additions and multiplications, whatever the clock says;
a row replaces one with the same entries and seed.
"""

import contextlib
import io

from bench import common
from data.files import say
from lab.notebook import read
from lab.project import ROOT, read_json

RESULT = common.RESULTS / "bpe.json"


def race():
    """The names that the notebook's cells define: measure, corpus and the rest."""
    space = {"TEXT": ""}  # what the set-up cell of the notebook says: Tiny Shakespeare
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in read(ROOT / "notebooks" / "bpe.ipynb").cells:
            if "race" in cell.metadata.get("tags", []):
                exec(cell.source, space)
    return space


def main(argv=None):
    args = common.options(__doc__, argv, entries=[65, 256, 512, 2048], operations=4e11, seeds=[0])
    space, old = race(), read_json(RESULT)
    config = {"layers": space["LAYERS"], "width": space["C"], "context": space["T"], "batch": space["B"],
              "operations": args.operations}
    kept = old.get("rows", []) if old.get("config") == config else []
    rows = {(row["entries"], row["seed"]): row for row in kept}

    def measure():
        for V, seed in ((V, seed) for V in args.entries for seed in args.seeds):
            rows[V, seed] = space["measure"](V, args.operations, seed)[1]
            say(rows[V, seed])
        return {"rows": [rows[key] for key in sorted(rows)]}

    common.timed_result(RESULT, config, space["corpus"], measure, unit="nats/char")


if __name__ == "__main__":
    common.start(main)
