"""The notebooks, side roads, README, glossary and results as a book on the web: `make book`.

Sphinx does the work (book/conf.py). Here the pages are laid out for it: the notebooks as they are, with
folded cells, exercises and pictures marked in the words that MyST-NB knows, and the pages that are made from
what exists (lab/book_pages.py). No sentence is kept twice.
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
from lab.book_pages import GLOSSARY, contents, exercises_page, number_exercises, results_page, terms
from lab.live import STATIC, put_live
from lab.notebook import alt_text, read, write
from lab.project import ROOT, notebooks, project_path

PAGES = ["bench/README.md", "data/README.md", "ARCHITECTURE.md", "AGENTS.md"]  # those that exist
LINK = re.compile(r"\]\(([^)\s#]+)[^)]*\)")
WORD = re.compile(r"(glossary\.md)#[\w-]+")  # a word has no place of its own there: the page is meant


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
    source = out.with_name("book-source")
    command = [sys.executable, "-m", "sphinx", "-q", "-b", kind, "-c", str(ROOT / "book"),
               "-d", str(out.with_name("book-doctrees")), *settings, str(source), str(out)]
    done = subprocess.run(command + ["-W", "--keep-going"] * strict, capture_output=True, text=True)
    if done.returncode:
        raise BookError(f"The book could not be built:\n{done.stderr.strip()}")


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
    for file in STATIC.glob("book.*"):
        shutil.copy(file, source / "_static")
    put_live(source / "_static")
    (source / "_static" / "terms.js").write_text(f"window.TERMS = {json.dumps(terms())};\n", encoding="utf-8")


def put_page(name, text, source):
    (source / name).parent.mkdir(parents=True, exist_ok=True)
    shown = re.sub(r"\]\((\.\./)?README\.md", r"](\1index.md", text) if name != "index.md" else text
    (source / name).write_text(shown, encoding="utf-8")
    bring_along([text], name, source)


def bring_along(texts, name, source):
    """Copy the files that a page links to or shows; other pages of the book come by themselves."""
    for target in (found for text in texts for found in LINK.findall(text)):
        path = (ROOT / name).parent / target
        if "://" not in target and path.suffix not in (".md", ".ipynb") and path.is_file():
            copy = source / project_path(path)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)


# ---- a notebook


def laid_out(nb, path):
    """The notebook in MyST-NB's words: folded cells, one title, pictures as files, its run at the end."""
    titles = 0
    for cell in nb.cells:
        tags = cell.metadata.setdefault("tags", [])
        if cell.cell_type == "markdown":
            titles, cell.source = one_title(titles, WORD.sub(r"\1", cell.source))
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
    """The place of a live picture: after a cell with the tag live-NAME, an empty <div data-live="NAME">."""
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
