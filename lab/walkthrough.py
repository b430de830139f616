"""`make run`: execute the notebooks in order, write each as a page, and print the ladder and a sample.

With --in-place the notebooks themselves get the outputs (to be committed), and their minutes go to
results/minutes.json.
"""

import argparse
import errno
import json
import os
import sys
import time
from pathlib import Path

from lab.execute import execute
from lab.machine import ROOT, read_json, write_atomic
from lab.notebook import MAIN, NotebookError
from lab.page import export_html

BUILD = ROOT / "build"


def main(argv=None):
    """Run the walkthrough; exit status 0, or 1 with a plain sentence."""
    parser = argparse.ArgumentParser(prog="python -m lab.walkthrough", description=__doc__.splitlines()[0])
    parser.add_argument("--in-place", action="store_true", help="put the outputs into the notebooks, to commit them")
    parser.add_argument("notebooks", nargs="*", help="only these (default: all three)")
    args = parser.parse_args(argv)
    paths = [Path(name) for name in args.notebooks] or [ROOT / f"{name}.ipynb" for name in MAIN]
    try:
        return walk([path for path in paths if args.notebooks or path.exists()], args.in_place)
    except NotebookError as error:
        print(f"\n{error}", file=sys.stderr)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(f"\nThe disk is full: {BUILD} needs about 100 MB; make room, then try again.", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
    return 1


def walk(paths, in_place):
    """Execute and show each notebook, then the ladder; returns the exit status."""
    if not paths:
        print("There is no notebook here to run.", file=sys.stderr)
        return 1
    BUILD.mkdir(exist_ok=True)
    forget(BUILD / "ladder.json", BUILD / "sample.txt")
    start, runs = time.monotonic(), []
    for path in paths:
        print(f"\n{path.name}", flush=True)
        page = BUILD / f"{path.stem}.html"
        out = path if in_place else BUILD / path.name
        try:
            run = execute(path, out)
        finally:
            if out.exists():  # a run that broke off is shown up to there
                export_html(out, page)
        runs.append((path, page, run))
        if in_place and not run["quick"]:
            note_minutes(path.stem, run)
            keep_results(run)
    if in_place:
        refresh_readme()
    for road in sorted((ROOT / "notebooks").glob("*.ipynb")):
        export_html(road, BUILD / f"{road.stem}.html")
    print(summary(runs, time.monotonic() - start))
    print_ladder()
    print_sample()
    return 0


def forget(*paths):
    """What is printed at the end must come from this run."""
    for path in paths:
        path.unlink(missing_ok=True)


def note_minutes(name, run):
    """Keep the measured time, so that the set-up cell can say what to expect."""
    path = ROOT / "results" / "minutes.json"
    here = run["machine"]
    kept = {key: run[key] for key in ("seconds", "peak_mb", "date", "commit", "corpus")}
    table = read_json(path)
    table.setdefault(name, {})[here["gpu"] or "CPU"] = {**kept, "cores": here["cores"], "machine": here}
    write_atomic(path, json.dumps(table, indent=1, sort_keys=True) + "\n")


def keep_results(run):
    """The ladder, with what is known of its run, and the sample go where the README takes them from."""
    if not (BUILD / "ladder.json").exists():
        return
    facts = {key: run[key] for key in ("machine", "date", "commit", "corpus", "code_hash", "seconds")}
    ladder = read_json(BUILD / "ladder.json") | facts | {"command": "make notebooks ONLY=gpt_dev.ipynb"}
    write_atomic(ROOT / "results" / "ladder.json", json.dumps(ladder, indent=1) + "\n")
    for name in ("sample.txt", "ladder.png"):
        if (BUILD / name).exists():
            (ROOT / "results" / name).write_bytes((BUILD / name).read_bytes())


def refresh_readme():
    """The README's tables follow the run at once."""
    from lab import badges

    badges.main()


def summary(runs, seconds):
    lines = [f"\nDone in {seconds / 60:.1f} minutes. To read:"]
    for _, page, run in runs:
        text = f", text: {run['corpus']['name']}" if run["corpus"] else ""
        budget = ", QUICK budgets" if run["quick"] else ""
        facts = f"{run['seconds'] / 60:.1f} min, at most {run['peak_mb']} MB{text}{budget}"
        lines.append(f"  {os.path.relpath(page)}  ({facts})")
    return "\n".join(lines)


def ladder_rows(path):
    """Rungs of build/ladder.json: a list of {"name", "val_loss", "mark", "seconds"}, alone or under a key."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    lists = list(data.values()) if isinstance(data, dict) else [data]
    rows = (row for rows in lists if isinstance(rows, list) for row in rows)
    return [row for row in rows if isinstance(row, dict) and "name" in row]


def print_ladder():
    rows = ladder_rows(BUILD / "ladder.json")
    if not rows:
        return
    wide = max(len(str(row["name"])) for row in rows)
    print(f"\n{'The ladder':{wide}}  nats a character, whole validation split")
    for row in rows:
        loss, seconds = row.get("val_loss"), row.get("seconds")
        shown = f"{loss:.3f}" if isinstance(loss, (int, float)) else "-"
        took = f"{seconds:6.1f} s" if isinstance(seconds, (int, float)) else " " * 8
        mark = f"as good as {row['mark']}" if row.get("mark") else ""
        print(f"{row['name']!s:{wide}}  {shown:>6}  {took}  {mark}".rstrip())


def print_sample():
    path = BUILD / "sample.txt"
    if path.exists():
        print("\nWhat it writes:\n\n" + path.read_text(encoding="utf-8").strip())


if __name__ == "__main__":
    sys.exit(main())
