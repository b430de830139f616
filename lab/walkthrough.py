"""`make run`: execute the notebooks in order, make a book of this run, and print the ladder and a sample.

With --in-place the notebooks themselves get the outputs (to be committed), and their minutes go to
results/minutes.json. Nothing is published unless --publish is typed.
"""

import argparse
import errno
import sys
import time
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
    parser.add_argument("--publish", action="store_true",
                        help="let notebook 3 publish for real, with your token")
    parser.add_argument("notebooks", nargs="*", type=Path, help="only these (default: all three)")
    args = parser.parse_args(argv)
    paths = args.notebooks or [path for path in (ROOT / f"{name}.ipynb" for name in MAIN) if path.exists()]
    try:
        return walk(paths, args.in_place, args.publish)
    except (NotebookError, book.BookError) as error:
        say(f"\n{error}", sys.stderr)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        say(f"\nThe disk is full: {BUILD} needs about 100 MB; make room, then try again.", sys.stderr)
    except KeyboardInterrupt:
        say("\nStopped.", sys.stderr)
    return 1


def walk(paths, in_place=False, publish=False):
    """Execute each notebook, then show what came out; returns the exit status."""
    if not paths:
        say("There is no notebook here to run.", sys.stderr)
        return 1
    BUILD.mkdir(exist_ok=True)
    for name in ("ladder.json", "sample.txt"):  # what is printed at the end must come from this run
        (BUILD / name).unlink(missing_ok=True)
    start, runs, executed = time.monotonic(), [], {}
    for path in paths:
        say(f"\n{path.name}")
        out = path if in_place else BUILD / path.name
        run = execute(path, out, publish=publish)
        runs.append((path, run))
        executed[path.name] = out
        if in_place and not run["quick"]:
            note_minutes(path.stem, run)
            if path.stem == MAIN[0]:  # the ladder is Build's
                keep_results(run)
    if in_place:
        readme.main([])
    page = book.build(BUILD / "book", executed)
    print_summary(runs, time.monotonic() - start)
    print_ladder()
    print_sample()
    say(f"\nThe book of this run, to read in a browser:\n  {page.as_uri()}")
    return 0


def note_minutes(name, run):
    """Keep the measured time, so that the set-up cell can say what to expect."""
    path = ROOT / "results" / "minutes.json"
    here = run["machine"]
    kept = {key: run[key] for key in ("seconds", "peak_mb", "date", "commit", "corpus")}
    table = read_json(path)
    table.setdefault(name, {})[here["gpu"] or "CPU"] = {**kept, "cores": here["cores"], "machine": here}
    write_json(path, dict(sorted(table.items())))


def keep_results(run):
    """The ladder, with what is known of its run, and the sample go where the README takes them from."""
    if not (BUILD / "ladder.json").exists():
        return
    facts = {key: run[key] for key in ("machine", "date", "commit", "corpus", "code_hash", "seconds")}
    ladder = read_json(BUILD / "ladder.json") | facts | {"command": "make notebooks ONLY=gpt_dev.ipynb"}
    write_json(ROOT / "results" / "ladder.json", ladder)
    for name in ("sample.txt", "ladder.png"):
        if (BUILD / name).exists():
            (ROOT / "results" / name).write_bytes((BUILD / name).read_bytes())


def print_summary(runs, seconds):
    say(f"\nDone in {seconds / 60:.1f} minutes:")
    for path, run in runs:
        text = f", text: {run['corpus']['name']}" if run["corpus"] else ""
        budget = ", QUICK budgets" if run["quick"] else ""
        say(f"  {path.name}  ({run['seconds'] / 60:.1f} min, at most {run['peak_mb']} MB{text}{budget})")


def print_ladder():
    rungs = read_json(BUILD / "ladder.json").get("rungs", [])
    if not rungs:
        return
    wide = max(len(rung["name"]) for rung in rungs)
    say(f"\n{'The ladder':{wide}}  nats a character, whole validation split")
    for rung in rungs:
        took = f"{rung['seconds']:6.1f} s" if rung.get("seconds") is not None else " " * 8
        mark = f"as good as {rung['mark']}" if rung.get("mark") else ""
        say(f"{rung['name']:{wide}}  {rung['val_loss']:6.3f}  {took}  {mark}".rstrip())


def print_sample():
    path = BUILD / "sample.txt"
    if path.exists():
        say("\nWhat it writes:\n\n" + path.read_text(encoding="utf-8").strip())


if __name__ == "__main__":
    sys.exit(main())
