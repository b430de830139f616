"""The notebooks, side roads, README, glossary and results as a book on the web: `make book`.

Sphinx does the work (book/conf.py). Here the pages are laid out for it: the notebooks as they are, with their folded
cells, exercises and pictures marked in the words that MyST-NB knows, and three pages that are made from what exists:
the list of exercises, the list of results, and the contents. No sentence is kept twice.
"""

import argparse
import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat

from data.files import say
from lab.notebook import alt_text, read, write
from lab.project import MAIN, ROOT, notebooks, project_path, read_json

PAGES = ["bench/README.md", "data/README.md", "ARCHITECTURE.md", "AGENTS.md"]  # further pages, those that exist
GLOSSARY = "notebooks/glossary.md"
EXERCISE = re.compile(r"^(?:#+ |\*\*)Exercise (\w+)\W*?(★+)(.*)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")
STATIC = ROOT / "book" / "_static"


class BookError(Exception):
    """The book cannot be built; the message is Sphinx's own, or one sentence."""


def build(out, executed=None, strict=False):
    """Build the book into the folder `out` and return the path of its first page.

    executed: {"gpt_dev.ipynb": path of the notebook as it came out of a run}; the others are taken as committed.
    strict: a warning is an error.
    """
    out = Path(out).resolve()
    source = out.with_name("book-source")
    lay_out(source, executed or {})
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-c", str(ROOT / "book"),
               "-d", str(out.with_name("book-doctrees")), "-D", f"html_static_path={source / '_static'}",
               str(source), str(out)]
    done = subprocess.run(command + ["-W", "--keep-going"] * strict, capture_output=True, text=True)
    if done.returncode:
        raise BookError(f"The book could not be built:\n{done.stderr.strip()}")
    return out / "index.html"


def lay_out(source, executed):
    """Write all pages of the book, and the files that they name, into the folder `source`."""
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    exercises, roads = [], []
    for path in notebooks():
        name = project_path(path)
        nb = read(executed.get(path.name, path))
        exercises += number_exercises(nb, name)
        texts = [cell.source for cell in nb.cells if cell.cell_type == "markdown"]
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        write(laid_out(nb, source / name), source / name)
        bring_along(texts, name, source)
        roads.append(name)
    pages = [name for name in [GLOSSARY, *PAGES] if (ROOT / name).is_file()]
    for name in pages:
        put_page(name, (ROOT / name).read_text(encoding="utf-8"), source)
    put_page("exercises.md", exercises_page(exercises), source)
    put_page("results/index.md", results_page(), source)
    put_page("index.md", (ROOT / "README.md").read_text(encoding="utf-8") + contents(roads, pages), source)
    (source / "_static").mkdir()
    for file in STATIC.iterdir():
        shutil.copy(file, source / "_static")
    (source / "_static" / "terms.js").write_text(f"window.TERMS = {json.dumps(terms())};\n", encoding="utf-8")


def put_page(name, text, source):
    (source / name).parent.mkdir(parents=True, exist_ok=True)
    shown = re.sub(r"\]\((\.\./)?README\.md", r"](\1index.md", text) if name != "index.md" else text
    (source / name).write_text(shown, encoding="utf-8")
    bring_along([text], name, source)


def bring_along(texts, name, source):
    """Copy the files of the project that a page links to or shows; other pages of the book come by themselves."""
    for target in (found for text in texts for found in LINK.findall(text)):
        path = (ROOT / name).parent / target
        if "://" not in target and path.suffix not in (".md", ".ipynb") and path.is_file():
            copy = source / project_path(path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)


# ---- a notebook


def laid_out(nb, path):
    """The notebook in MyST-NB's words: folded cells, one title, pictures as files with alt text, its run at the end."""
    titles = 0
    for cell in nb.cells:
        tags = cell.metadata.setdefault("tags", [])
        if cell.cell_type == "markdown":
            titles, cell.source = one_title(titles, cell.source)
        elif "folded" in tags:
            tags.append("hide-input")
        for number, output in enumerate(cell.get("outputs", [])):
            picture_to_file(output, path.with_name(f"{path.stem}-{cell.id}-{number}.png"))
    nb.cells = [part for cell in nb.cells for part in [cell, *live(cell)]]
    nb.cells.append(nbformat.v4.new_markdown_cell(f'<p class="run">{run_facts(nb)}</p>', id="run-facts"))
    return nb


def one_title(titles, text):
    """Only the first `# heading` of a notebook is a title; later ones become `## heading`."""
    lines, fenced = text.split("\n"), False
    for i, line in enumerate(lines):
        fenced ^= line.startswith("```")
        if line.startswith("# ") and not fenced:
            titles += 1
            lines[i] = line if titles == 1 else f"#{line}"
    return titles, "\n".join(lines)


def picture_to_file(output, path):
    """A PNG in an output becomes a file and a line of Markdown, which can carry alt text."""
    data = output.get("data", {})
    if "image/png" in data:
        path.write_bytes(base64.b64decode(data["image/png"]))
        alt = re.sub(r"([\\\[\]*_`<>&!#])", r"\\\1", " ".join(alt_text(output, "image/png").split()))
        output.data = nbformat.from_dict({"text/markdown": f"![{alt}]({path.name})"})


def live(cell):
    """The place of a live picture: after a cell with the tag `live-NAME` comes an empty <div data-live="NAME">."""
    for tag in cell.metadata.get("tags", []):
        if tag.startswith("live-"):
            place = f'<div class="live" data-live="{tag.removeprefix("live-")}"></div>'
            yield nbformat.v4.new_markdown_cell(place, id=f"{cell.id}-live"[-64:])


def run_facts(nb):
    """From which run the outputs of a page come."""
    run = nb.metadata.get("walkthrough")
    if not run:
        return "Not yet run."
    corpus = f", text: {run['corpus']['name']}" if run.get("corpus") else ""
    here = run["machine"]
    return (f"Run on {run['date']} in {run['seconds'] / 60:.1f} minutes on {here.get('gpu') or here['cpu']}, "
            f"{here['cores']} cores, torch {here['torch']}{corpus}, commit {run['commit']}.")


# ---- pages that are made


def number_exercises(nb, name):
    """Give each exercise of a notebook an address, in place; returns its rows for the list of all of them."""
    title = next(line[2:] for cell in nb.cells for line in cell.source.splitlines() if line.startswith("# "))
    rows = []
    for cell in nb.cells:
        if cell.cell_type == "markdown" and (found := EXERCISE.search(cell.source)):
            label = f"{Path(name).stem}-exercise-{found[1]}".lower()
            cell.source = f"{cell.source[:found.start()]}({label})=\n{cell.source[found.start():]}"
            minutes = re.search(r"(\d+) minutes?", found[3])
            about = re.sub(r"[·*.\s]*\d+ minutes?[.·*\s]*|^[·*\s]+", " ", found[3]).strip()
            rows.append({"notebook": title, "label": label, "number": found[1], "stars": found[2],
                         "minutes": minutes[1] if minutes else "", "about": about.split(". ")[0].rstrip(":.")})
    return rows


def exercises_page(rows):
    """All exercises on one page, with stars and minutes."""
    lines = ["# All exercises", "", "Each has a check that can fail, a hint and a solution, both folded.", ""]
    for title in dict.fromkeys(row["notebook"] for row in rows):
        lines += [f"## {title}", "", "| exercise | stars | minutes | about |", "| --- | --- | --- | --- |"]
        for row in (row for row in rows if row["notebook"] == title):
            name = f"[Exercise {row['number']}](#{row['label']})"
            lines.append(f"| {name} | {row['stars']} | {row['minutes']} | {row['about']} |")
        lines.append("")
    return "\n".join(lines)


def results_page():
    """Every file of results/ with its date, machine and command."""
    lines = ["# All results", "", "What was measured, each file with its machine, date and commit.", "",
             "| file | date | machine | command |", "| --- | --- | --- | --- |"]
    for path in sorted((ROOT / "results").glob("*.json")):
        facts = read_json(path)
        here = facts.get("machine") if isinstance(facts.get("machine"), dict) else {}
        machine = f"{here.get('gpu') or here.get('cpu', '')}, {here['cores']} cores" if here.get("cores") else ""
        command = f"`{facts['command']}`" if facts.get("command") else ""
        lines.append(f"| [{path.name}]({path.name}) | {facts.get('date', '')} | {machine} | {command} |")
    return "\n".join(lines) + "\n"


def contents(roads, pages):
    """The table of contents, for the end of the first page."""
    main = [name for name in roads if Path(name).stem in MAIN]
    parts = {"The walkthrough": main, "Side roads": [name for name in roads if name not in main],
             "To look up": [*pages, "exercises.md", "results/index.md"]}
    return "\n" + "\n".join(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(names) + "\n```\n"
                            for caption, names in parts.items())


def terms():
    """{term: explanation} of the glossary, for the page to show on hover and on tap. One line each: **term**: what."""
    path = ROOT / GLOSSARY
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    entries = re.findall(r"^\*\*(.+?)\*\*: (.+)$", text, re.MULTILINE)
    return {term: plain(meaning) for names, meaning in entries for term in names.split(", ") if len(term) > 2}


def plain(markdown):
    """A line of Markdown without its marks."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)|[*`]", lambda found: found[1] or "", markdown).strip()


def main(argv=None):
    """Build the book of the committed notebooks; exit status 0, or 1 with what is wrong."""
    parser = argparse.ArgumentParser(prog="python -m lab.book", description=__doc__.splitlines()[0])
    parser.add_argument("--out", default=str(ROOT / "build" / "book"))
    args = parser.parse_args(argv)
    try:
        page = build(args.out, strict=True)
    except BookError as error:
        say(error, sys.stderr)
        return 1
    say(f"The book lies in {args.out}; to read it in a browser:\n  {page.as_uri()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
