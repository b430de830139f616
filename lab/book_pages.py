"""The pages of the book that are made from what exists: exercises, results, contents, terms to explain."""

import re
from pathlib import Path

from lab.project import MAIN, ROOT, read_json

GLOSSARY = "notebooks/glossary.md"
EXERCISE = re.compile(r"^(?:#+ |\*\*)Exercise (\w+)\W*?(★+)(.*)$", re.MULTILINE)


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
            rows.append({"notebook": title, "label": label, "number": found[1], "stars": found[2],
                         "minutes": minutes, "about": about.split(". ")[0].rstrip(":.")})
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
        name = here.get("gpu") or here.get("cpu", "")
        machine = f"{name}, {here['cores']} cores" if here.get("cores") else ""
        command = f"`{facts['command']}`" if facts.get("command") else ""
        lines.append(f"| [{path.name}]({path.name}) | {facts.get('date', '')} | {machine} | {command} |")
    return "\n".join(lines) + "\n"


def contents(roads, pages):
    """The table of contents, for the end of the first page."""
    main = [name for name in roads if Path(name).stem in MAIN]
    parts = {"The walkthrough": main, "Side roads": [name for name in roads if name not in main],
             "To look up": [*pages, "exercises.md", "results/index.md"]}
    return "".join(f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{chr(10).join(names)}\n```\n"
                   for caption, names in parts.items())


def terms():
    """{term: explanation} of the glossary, shown on hover and on tap. One line each: **term**: what."""
    path = ROOT / GLOSSARY
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    entries = re.findall(r"^\*\*(.+?)\*\*: (.+)$", text, re.MULTILINE)
    return {term: plain(meaning) for names, meaning in entries for term in names.split(", ") if len(term) > 2}


def plain(markdown):
    """A line of Markdown without its marks."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)|[*`]", lambda found: found[1] or "", markdown).strip()
