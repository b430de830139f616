"""`make run`: execute the notebooks in order, make a book of this run, and print the ladder and a sample.

With --in-place the notebooks themselves get the outputs (to be committed), and their minutes go to
results/minutes.json. Nothing is published.
"""

import argparse
import errno
import shutil
import sys
from pathlib import Path

from data.files import say
from lab import book, readme
from lab.machine import write_json
from lab.notebook import NotebookError
from lab.project import MAIN, ROOT, read_json
from lab.run import execute

BUILD = ROOT / "build"


def main(argv=None):
    """Run the walkthrough; exit status 0, or 1 with a plain sentence."""
    parser = argparse.ArgumentParser(prog="python -m lab.walkthrough", description=__doc__.splitlines()[0])
    parser.add_argument("--in-place", action="store_true",
                        help="put the outputs into the notebooks, to commit them")
    parser.add_argument("notebooks", nargs="*", type=Path, help="only these (default: all three)",
                        default=[ROOT / f"{name}.ipynb" for name in MAIN])
    args = parser.parse_args(argv)
    try:
        walk(args.notebooks, args.in_place)
        return 0
    except (NotebookError, book.BookError) as error:
        say(f"\n{error}", sys.stderr)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        say(f"\nThe disk is full: {BUILD} needs about 100 MB; make room, then try again.", sys.stderr)
    except KeyboardInterrupt:
        say("\nStopped.", sys.stderr)
    return 1


def walk(paths, in_place=False):
    """Execute each notebook, then show what came out."""
    BUILD.mkdir(exist_ok=True)
    for name in ("ladder.json", "sample.txt"):  # what is printed at the end must come from this run
        (BUILD / name).unlink(missing_ok=True)
    executed, lines = {}, []
    for path in paths:
        say(f"\n{path.name}")
        executed[path.name] = out = path if in_place else BUILD / path.name
        run = execute(path, out)
        if in_place and not run["quick"]:
            keep_results(path.stem, run)
        about = f", text: {run['corpus']['name']}" if run["corpus"] else ""
        about += ", QUICK budgets" if run["quick"] else ""
        lines.append(f"  {path.name}  ({run['seconds'] / 60:.1f} min, at most {run['peak_mb']} MB{about})")
    if in_place:
        readme.main()
    page = book.build(BUILD / "book", executed)
    say("\n".join(["\nDone:", *lines]))
    if (BUILD / "ladder.json").exists():
        say(f"\nThe ladder, on the whole validation text:\n\n{readme.ladder_block(BUILD)}")
        say(f"\nWhat it writes:\n\n{readme.sample_block(BUILD)}")
    say(f"\nThe book of this run, to read in a browser:\n  {page.as_uri()}")


def keep_results(name, run):
    """Keep what the set-up cell and the README say: a notebook's minutes, Build's ladder and sample."""
    here = run["machine"]
    kept = {key: run[key] for key in ("seconds", "peak_mb", "date", "commit", "corpus")}
    table = read_json(ROOT / "results" / "minutes.json")
    table.setdefault(name, {})[here["gpu"] or "CPU"] = {**kept, "cores": here["cores"], "machine": here}
    write_json(ROOT / "results" / "minutes.json", dict(sorted(table.items())))
    if name == MAIN[0]:
        facts = {key: run[key] for key in ("machine", "date", "commit", "corpus", "code_hash", "seconds")}
        ladder = read_json(BUILD / "ladder.json") | facts | {"command": "make notebooks ONLY=gpt_dev.ipynb"}
        write_json(ROOT / "results" / "ladder.json", ladder)
        for file in ("sample.txt", "ladder.png"):
            shutil.copy(BUILD / file, ROOT / "results" / file)


if __name__ == "__main__":
    sys.exit(main())
