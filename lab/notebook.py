"""Notebooks as things that a script can edit, run, check and show.

    python -m lab.notebook text NAME.ipynb > SRC.py      the cells as text: edit this
    python -m lab.notebook build SRC.py NAME.ipynb       back to a notebook, outputs cleared
    python -m lab.notebook run NAME.ipynb [OUT.ipynb]    execute every cell in order (in place without OUT)
    python -m lab.notebook html NAME.ipynb OUT.html      one page that loads nothing from outside
    python -m lab.notebook check NAME.ipynb ...          what the tests ask of a committed notebook

The text form: each cell begins with a line `# %% [markdown] id=NAME` or `# %% [code] id=NAME tags=folded,exercise`;
what follows, up to the next such line, is the cell as it stands. The cell `id=setup` and the lines between the badge
marks are filled in by `build`.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import nbformat

from lab.codehash import code_hash
from lab.machine import write_atomic

ROOT = Path(__file__).resolve().parents[1]
MAIN = ("gpt_dev", "gpt2_training", "gpt2_gradio")
CELL_LINE = re.compile(r"^# %% \[(markdown|code)\] id=([A-Za-z0-9_-]{1,64})(?: tags=([\w,-]+))?$")
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
BADGES = re.compile(r"(<!-- badges -->\n).*?(<!-- /badges -->)", re.DOTALL)

# most cells and words (prose, without code) that a notebook may have; side roads share the last line
LIMITS = {"gpt_dev": (120, 9000), "gpt2_training": (100, 7000), "gpt2_gradio": (60, 5000), None: (60, 4000)}
LONGEST_CELL = 35  # lines; about 25 is the aim

SETUP_CELL = """\
#@title Set-up: find the project or fetch it, and install what is missing (never torch)
import os
import shutil
import subprocess
import sys
from pathlib import Path

REPO = os.environ.get("GPT2_REPO") or "{repository}"
here = Path.cwd()
home = next((p for p in [here, *here.parents, here / "gpt2"] if (p / "model_gpt2.py").exists()), None)
if home is None:
    home = here / "gpt2"
    clone = ["git", "-c", "credential.helper=", "clone", "--quiet", "--depth", "1", REPO, str(home)]
    asks_nothing = {{**os.environ, "GIT_TERMINAL_PROMPT": "0"}}
    if not shutil.which("git") or subprocess.run(clone, env=asks_nothing, capture_output=True).returncode:
        sys.exit(f"The project could not be fetched from {{REPO}}: turn on Internet in the notebook's settings.")
os.chdir(home)
sys.path.insert(0, str(home))

from lab.machine import hello

hello(notebook="{name}")"""


class NotebookError(ValueError):
    """A notebook, or its text form, that cannot be used; the message says where and what to do."""


def repository(root=ROOT):
    """The address of the project, from the one place where it stands: pyproject.toml."""
    text = (Path(root) / "pyproject.toml").read_text(encoding="utf-8")
    return re.search(r'^repository = "([^"]+)"', text, re.MULTILINE)[1]


def setup_cell(name):
    """Source of the set-up cell: the same in every notebook but for the notebook's name."""
    return SETUP_CELL.format(repository=repository(), name=name)


def badge_addresses(path):
    """Addresses that open a notebook on Colab and on Kaggle; `path` as in the project: "notebooks/smoothing.ipynb"."""
    blob = f"{repository()}/blob/main/{path}"
    colab = blob.replace("https://github.com", "https://colab.research.google.com/github")
    return colab, f"https://kaggle.com/kernels/welcome?src={blob}"


def badge_lines(path):
    """The badges of a notebook's first cell: links without a picture, so that nothing is loaded from elsewhere."""
    colab, kaggle = badge_addresses(path)
    return f"[<kbd>Open in Colab</kbd>]({colab}) [<kbd>Open in Kaggle</kbd>]({kaggle})\n"


# --- text form ---


def to_text(nb):
    """The text form of a notebook."""
    return "\n\n".join(cell_text(cell) for cell in nb.cells) + "\n"


def cell_text(cell):
    tags = cell.metadata.get("tags", [])
    if any(line.startswith("# %% [") for line in cell.source.splitlines()):
        raise NotebookError(f"cell {cell.id} has a line that begins with '# %% [', which the text form needs")
    head = f"# %% [{cell.cell_type}] id={cell.id}" + (f" tags={','.join(tags)}" if tags else "")
    return head + "\n" + cell.source.strip("\n")


def from_text(text, path="notebook.ipynb"):
    """The notebook of a text form, without outputs. `path` is its place in the project, for badges and set-up."""
    name = Path(path).stem
    nb = nbformat.v4.new_notebook(metadata={"kernelspec": KERNEL, "language_info": {"name": "python"}})
    nb.cells = [new_cell(kind, cell_id, tags, lines) for kind, cell_id, tags, lines in split_text(text)]
    ids = [cell.id for cell in nb.cells]
    twice = {cell_id for cell_id in ids if ids.count(cell_id) > 1}
    if twice:
        raise NotebookError(f"cell ids must differ; used twice: {', '.join(sorted(twice))}")
    fill_standard_parts(nb, name, path)
    nbformat.validate(nb)
    return nb


def split_text(text):
    """(kind, id, tags, lines) of each cell of a text form."""
    cells = []
    for number, line in enumerate(text.splitlines(), start=1):
        found = CELL_LINE.match(line.rstrip())
        if found:
            cells.append((found[1], found[2], found[3].split(",") if found[3] else [], []))
        elif line.startswith("# %%"):
            raise NotebookError(f"line {number}: expected '# %% [markdown] id=NAME' or '# %% [code] id=NAME': {line}")
        elif cells:
            cells[-1][3].append(line)
        elif line.strip():
            raise NotebookError(f"line {number}: text before the first cell: {line}")
    return cells


def new_cell(kind, cell_id, tags, lines):
    make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
    cell = make("\n".join(lines).strip("\n"), id=cell_id)
    if tags:
        cell.metadata["tags"] = tags
    if kind == "code" and "folded" in tags:
        # JupyterLab, Colab and Kaggle each have their own word for it
        cell.metadata.update({"jupyter": {"source_hidden": True}, "cellView": "form", "_kg_hide-input": True})
    return cell


def fill_standard_parts(nb, name, path):
    """Put the set-up cell and the badges of today's address in, where the notebook has a place for them."""
    for cell in nb.cells:
        if cell.id == "setup":
            cell.source = setup_cell(name)
        elif cell.cell_type == "markdown":
            cell.source = BADGES.sub(lambda m: m[1] + badge_lines(path) + m[2], cell.source)


def read(path):
    """Read a notebook; NotebookError names the file when there is none or it is broken."""
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError:
        raise NotebookError(f"{path} does not exist") from None
    except Exception as error:
        raise NotebookError(f"{path} is not a notebook ({type(error).__name__})") from None


def write(nb, path):
    """Write a notebook in one piece."""
    write_atomic(path, nbformat.writes(nb) + "\n")


def project_path(path):
    """The path of a notebook inside the project, for its badges; its bare name when it lies elsewhere."""
    path = Path(path).resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


# --- checks ---


def check(nb, path):
    """What is wrong with a committed notebook, as sentences; an empty list is a good notebook."""
    return [*check_form(nb, path), *check_run(nb), *check_text(nb, path), *check_pictures(nb)]


def check_form(nb, path):
    """Set-up cell, badges, size and length of cells."""
    name = Path(path).stem
    most_cells, most_words = LIMITS.get(name, LIMITS[None])
    if len(nb.cells) > most_cells:
        yield f"{len(nb.cells)} cells, at most {most_cells}"
    if words(nb) > most_words:
        yield f"{words(nb)} words, at most {most_words}"
    if len(nb.cells) < 2 or nb.cells[1].id != "setup" or nb.cells[1].source != setup_cell(name):
        yield "the second cell is not the standard set-up cell: build the notebook again, or run python -m lab.badges"
    if not nb.cells or badge_lines(project_path(path)) not in nb.cells[0].source:
        yield "the first cell lacks the badges of today's address: run python -m lab.badges"
    for cell in nb.cells:
        lines = cell.source.count("\n") + 1
        if cell.cell_type == "code" and cell.id != "setup" and lines > LONGEST_CELL:
            yield f"cell {cell.id} has {lines} lines, at most {LONGEST_CELL}"


def check_run(nb):
    """One complete run, in order, of this very code, without errors and warnings."""
    code = [cell for cell in nb.cells if cell.cell_type == "code" and cell.source.strip()]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        yield "the outputs are not from one run in order: run python -m lab.notebook run"
    run = nb.metadata.get("walkthrough", {})
    if run.get("code_hash") != code_hash(nb):
        yield "the code has changed since the outputs were made: run python -m lab.notebook run"
    if run.get("quick"):
        yield "the outputs are from a QUICK run"
    for cell in code:
        for output in cell.outputs:
            text = output.get("text", "") or str(output.get("data", {}).get("text/html", ""))
            if output.output_type == "error":
                yield f"cell {cell.id} ended in {output.ename}"
            elif output.get("name") == "stderr" and "Warning" in text:
                yield f"cell {cell.id} printed a warning: {text.strip().splitlines()[0][:100]}"
            if re.search(r"(?<![\w.])/(root|home|Users|work|tmp)/", text):
                yield f"cell {cell.id} shows a path of the machine that it ran on"


def check_text(nb, path):
    """The main notebooks show the real text; the stand-in is for machines without network."""
    corpus = nb.metadata.get("walkthrough", {}).get("corpus") or {}
    if Path(path).stem in MAIN and corpus.get("name") == "standin":
        yield "the outputs are from the stand-in text: set GPT2_DATA, then run python -m lab.notebook run"


def check_pictures(nb):
    """Alt text for every picture, and none that is loaded from elsewhere."""
    for cell in nb.cells:
        html = [cell.source] if cell.cell_type == "markdown" else []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            html += [str(data[kind]) for kind in ("text/html", "text/markdown") if kind in data]
            for kind in data:
                if kind.startswith("image/") and not alt_text(output, kind):
                    yield f"cell {cell.id} shows a picture without alt text: use lab.plots.show(fig, alt)"
        for text in html:
            if re.search(r"!\[\s*\]\(|<img(?![^>]*\balt=\"[^\"]+\")[^>]*>", text):
                yield f"cell {cell.id} has a picture without alt text"
            if re.search(r"!\[[^\]]*\]\(\s*http|<(img|script|iframe)[^>]*\bsrc=\"?(http|//)", text):
                yield f"cell {cell.id} loads something from outside"


def alt_text(output, kind):
    """Alt text of a picture in an output: its metadata {"image/png": {"alt": text}}, as lab.plots.show gives it."""
    return output.get("metadata", {}).get(kind, {}).get("alt", "").strip()


def words(nb):
    """Words of prose: markdown without fenced code, tags and addresses."""
    text = "\n".join(cell.source for cell in nb.cells if cell.cell_type == "markdown")
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<[^>]+>|\]\([^)]*\)", " ", text)
    return len(re.findall(r"\w[\w'’.,-]*", text))


# --- command ---


def main(argv=None):
    """The commands of the module's first lines; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m lab.notebook", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, help_text, arguments in (
        ("text", "print the text form", ["notebook"]),
        ("build", "make a notebook of a text form", ["source", "notebook"]),
        ("run", "execute (in place without OUT)", ["notebook", "out?"]),
        ("html", "write one readable page", ["notebook", "out"]),
        ("check", "check committed notebooks", ["notebooks+"]),
    ):
        command = commands.add_parser(name, help=help_text)
        for argument in arguments:
            nargs = argument[-1] if argument[-1] in "?+" else None
            command.add_argument(argument.rstrip("?+"), nargs=nargs)
    args = parser.parse_args(argv)
    try:
        return COMMANDS[args.command](args)
    except NotebookError as error:
        print(error, file=sys.stderr)
        return 1


def run_command(args):
    from lab.execute import execute

    facts = execute(args.notebook, args.out or args.notebook)
    print(json.dumps({key: facts[key] for key in ("seconds", "peak_mb", "code_hash")}))


def html_command(args):
    from lab.page import export_html

    export_html(args.notebook, args.out)


def build_command(args):
    nb = from_text(Path(args.source).read_text(encoding="utf-8"), project_path(args.notebook))
    write(nb, args.notebook)


def check_command(args):
    problems = [f"{path}: {problem}" for path in args.notebooks for problem in check(read(path), path)]
    print("\n".join(problems) or "all good")
    return 1 if problems else 0


COMMANDS = {
    "text": lambda args: sys.stdout.write(to_text(read(args.notebook))) and None,
    "build": build_command,
    "run": run_command,
    "html": html_command,
    "check": check_command,
}

if __name__ == "__main__":
    from lab.notebook import main  # not __main__'s: its NotebookError would be another class than the one raised

    sys.exit(main())
