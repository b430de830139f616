"""The notebooks, side roads, README, glossary and results as a book on the web: `make book`.

Sphinx does the work (book/conf.py). Here the pages are laid out for it: the notebooks as they are, with
folded cells, exercises and pictures marked in the words that MyST-NB knows, and the pages that are made from
what exists. No sentence is kept twice.
"""

import argparse
import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

from data.files import say
from lab.live import put_live
from lab.machine import markdown
from lab.notebook import read, write
from lab.project import MAIN, ROOT, notebooks, project_path, read_json

GLOSSARY = "notebooks/glossary.md"
PAGES = [GLOSSARY, "bench/README.md", "data/README.md", "ARCHITECTURE.md", "AGENTS.md"]
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")
EXERCISE = re.compile(r"^(?:#+ |\*\*)Exercise (\w+)\W*?(★+)(.*)$", re.MULTILINE)


class BookError(Exception):
    """The book cannot be built; the message is Sphinx's own, or one sentence."""


def build(out, executed=None, strict=False):
    """Build the book into the folder `out` and return the path of its first page.

    executed: {"gpt_dev.ipynb": path of the notebook as it came out of a run}; the others as committed.
    strict: a warning is an error.
    """
    out = Path(out).resolve()
    lay_out(out.with_name("book-source"), executed or {})
    sphinx("html", out, ["-D", f"html_static_path={out.with_name('book-source') / '_static'}"], strict)
    return out / "index.html"


def bind(out):
    """Bind the pages of the book in `out` as an EPUB beside its first page; returns its path."""
    out = Path(out).resolve()
    folder = out.with_name("book-epub")
    sphinx("epub", folder, ["-D", "html_js_files=", "-D", "html_static_path="])
    return Path(shutil.copy(next(folder.glob("*.epub")), out / "book.epub"))


def sphinx(kind, out, settings, strict=False):
    """Let Sphinx write the book into `out` as "html" or "epub"; BookError, in its words, if it cannot."""
    command = [sys.executable, "-m", "sphinx", "-q", "-b", kind, "-c", ROOT / "book",
               "-d", out.with_name("book-doctrees"), *settings, out.with_name("book-source"), out]
    done = subprocess.run(command + ["-W", "--keep-going"] * strict, capture_output=True, text=True)
    if done.returncode:
        raise BookError(f"The book could not be built:\n{done.stderr.strip()}")


def lay_out(source, executed):
    """Write all pages of the book, and the files that they name, into the folder `source`."""
    shutil.rmtree(source, ignore_errors=True)
    (source / "_static").mkdir(parents=True)
    exercises, roads = [], [project_path(path) for path in notebooks()]
    for name in roads:
        nb = read(executed.get(Path(name).name, ROOT / name))
        exercises += number_exercises(nb, name)
        put_notebook(nb, name, source)
    for name in PAGES:
        put_page(name, (ROOT / name).read_text(encoding="utf-8"), source)
    put_page("exercises.md", exercises_page(exercises), source)
    put_page("results/index.md", results_page(), source)
    put_page("index.md", (ROOT / "README.md").read_text(encoding="utf-8") + contents(roads), source)
    for file in (ROOT / "book" / "_static").glob("book.*"):
        shutil.copy(file, source / "_static")
    put_live(source / "_static")
    (source / "_static" / "terms.js").write_text(f"window.TERMS = {json.dumps(terms())};\n", encoding="utf-8")


def put_page(name, text, source):
    (source / name).parent.mkdir(parents=True, exist_ok=True)
    shown = re.sub(r"\]\((\.\./)?README\.md", r"](\1index.md", text) if name != "index.md" else text
    (source / name).write_text(shown, encoding="utf-8")
    bring_along(text, name, source)


def bring_along(text, name, source):
    """Copy the files that a page links to or shows; other pages of the book come by themselves."""
    for target in LINK.findall(text):
        path = (ROOT / name).parent / target
        if "://" not in target and path.suffix not in (".md", ".ipynb") and path.is_file():
            copy = source / project_path(path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)


# ---- a notebook


def put_notebook(nb, name, source):
    """Write a notebook in MyST-NB's words: folded cells, one title, pictures as files, its run at the end."""
    path, titles, cells = source / name, 0, []
    path.parent.mkdir(parents=True, exist_ok=True)
    for cell in nb.cells:
        tags = cell.metadata.setdefault("tags", [])
        cells.append(cell)
        if cell.cell_type == "markdown":
            titles, cell.source = one_title(titles, cell.source)
            bring_along(cell.source, name, source)
        elif "folded" in tags:
            tags.append("hide-input")
        for number, output in enumerate(cell.get("outputs", [])):
            picture_to_file(output, path.with_name(f"{path.stem}-{cell.id}-{number}.png"))
        for tag in tags:  # the place of a live picture
            if tag.startswith("live-"):
                place = f'<div class="live" data-live="{tag.removeprefix("live-")}"></div>'
                cells.append(new_markdown_cell(place, id=f"{cell.id}-live"[-64:]))
    nb.cells = [*cells, new_markdown_cell(f'<p class="run">{run_facts(nb)}</p>', id="run-facts")]
    write(nb, path)


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
        alt = output.metadata.get("image/png", {}).get("alt", "")  # lab.plots.show put it there
        alt = re.sub(r"([\\\[\]*_`<>&!#])", r"\\\1", " ".join(alt.split()))
        output.data = NotebookNode({"text/markdown": f"![{alt}]({path.name})"})


def run_facts(nb):
    """From which run the outputs of a page come."""
    run = nb.metadata.get("walkthrough")
    if not run:
        return "Not yet run."
    corpus = f", text: {run['corpus']['name']}" if run.get("corpus") else ""
    here = run["machine"]
    return (f"Run on {run['date']} in {run['seconds'] / 60:.1f} minutes on {here.get('gpu') or here['cpu']}, "
            f"{here['cores']} cores, torch {here['torch']}{corpus}, commit {run['commit']}.")


# ---- pages that are made from what exists


def number_exercises(nb, name):
    """Give each exercise of a notebook an address, in place; returns its rows for the list of all of them."""
    title = next(line[2:] for cell in nb.cells for line in cell.source.splitlines() if line.startswith("# "))
    rows = []
    for cell in nb.cells:
        if cell.cell_type == "markdown" and (found := EXERCISE.search(cell.source)):
            label = f"{Path(name).stem}-exercise-{found[1]}".lower()
            cell.source = f"{cell.source[:found.start()]}({label})=\n{cell.source[found.start():]}"
            minutes = re.search(r"(\d+) minutes?|$", found[3])[1] or ""
            about = re.sub(r"[·*.\s]*\d+ minutes?[.·*\s]*|^[·*\s]+", " ", found[3]).strip()
            rows.append([title, f"[Exercise {found[1]}](#{label})", found[2], minutes,
                         about.split(". ")[0].rstrip(":.")])
    return rows


def exercises_page(rows):
    """All exercises on one page, with stars and minutes."""
    return ("# All exercises\n\nEach has a check that can fail, a hint and a solution, both folded.\n\n"
            + markdown(["notebook", "exercise", "stars", "minutes", "about"], rows) + "\n")


def results_page():
    """Every file of results/ with its date, machine and command."""
    rows = []
    for path in sorted((ROOT / "results").glob("*.json")):
        facts = read_json(path)
        here = facts.get("machine") if isinstance(facts.get("machine"), dict) else {}
        machine = f"{here.get('gpu') or here['cpu']}, {here['cores']} cores" if "cores" in here else ""
        command = f"`{facts['command']}`" if facts.get("command") else ""
        rows.append([f"[{path.name}]({path.name})", facts.get("date", ""), machine, command])
    return ("# All results\n\nWhat was measured, each file with its machine, date and commit.\n\n"
            + markdown(["file", "date", "machine", "command"], rows) + "\n")


def contents(roads):
    """The table of contents, for the end of the first page."""
    main = [name for name in roads if Path(name).stem in MAIN]
    parts = {"The walkthrough": main, "Side roads": [name for name in roads if name not in main],
             "To look up": [*PAGES, "exercises.md", "results/index.md"]}
    return "".join(f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{chr(10).join(names)}\n```\n"
                   for caption, names in parts.items())


def terms():
    """{term: explanation} of the glossary, shown on hover and on tap. One line each: **term**: what."""
    text = (ROOT / GLOSSARY).read_text(encoding="utf-8")
    entries = re.findall(r"^\*\*(.+?)\*\*: (.+)$", text, re.MULTILINE)
    marks = re.compile(r"\[([^\]]*)\]\([^)]*\)|[*`]")  # a link, or a mark of Markdown
    return {term: marks.sub(lambda found: found[1] or "", meaning).strip()
            for names, meaning in entries for term in names.split(", ") if len(term) > 2}


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
    try:
        say(f"For an e-reader, without what needs a browser:\n  {bind(args.out)}")
    except (BookError, OSError) as error:
        say(f"No EPUB, for Sphinx could not bind it: {str(error).splitlines()[-1]}", sys.stderr)
    say(f"The book lies in {args.out}; to read it in a browser:\n  {page.as_uri()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
