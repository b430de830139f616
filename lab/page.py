"""A notebook as one HTML page that needs nothing else: pictures inside, folded cells folded, no script, no network."""

import base64
import html
import mimetypes
import re
from pathlib import Path

import mistune
from nbconvert.filters import ansi2html
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer, get_lexer_by_name
from pygments.util import ClassNotFound

from lab.machine import ROOT, write_atomic
from lab.notebook import alt_text, read

STYLE = """
:root { color-scheme: light dark; --text: #1c1c1e; --back: #fff; --quiet: #6b6b70; --box: #f5f5f2; --line: #deded8; }
body { max-width: 52rem; margin: 2rem auto 6rem; padding: 0 1rem; color: var(--text); background: var(--back);
       font: 17px/1.6 Georgia, "Times New Roman", serif; }
h1, h2, h3, th, summary { font-family: system-ui, sans-serif; line-height: 1.25; }
h1 { font-size: 2rem; } h2 { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); }
pre, code, kbd { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 14px; }
pre { margin: .6rem 0; padding: .7rem .9rem; overflow-x: auto; line-height: 1.45; }
.code pre, pre.md { background: var(--box); border-left: 3px solid var(--line); }
.out { margin: .4rem 0 1.2rem; } .out pre { padding-top: 0; padding-bottom: 0; white-space: pre-wrap; }
.err pre { border-left: 3px solid #b3261e; }
img, svg { max-width: 100%; height: auto; } img { background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; font: 15px/1.4 system-ui, sans-serif; display: block;
        overflow-x: auto; }
kbd { border: 1px solid var(--line); border-radius: 4px; padding: .15rem .4rem; background: var(--box); }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left; }
summary { cursor: pointer; color: var(--quiet); font-size: 14px; } details { margin: .8rem 0; }
blockquote { margin: 1rem 0; padding-left: 1rem; border-left: 3px solid var(--line); color: var(--quiet); }
a { color: inherit; } footer { margin-top: 4rem; color: var(--quiet); font: 13px/1.5 system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { :root { --text: #e6e6e3; --back: #19191b; --box: #232326; --line: #3a3a3f;
  --quiet: #a0a0a6; } }
"""
LIGHT, DARK = HtmlFormatter(style="friendly"), HtmlFormatter(style="native")


def export_html(notebook, out):
    """Write the notebook file `notebook` as the page `out`."""
    nb = read(notebook)
    title = next(
        (line[2:].strip() for c in nb.cells for line in c.source.splitlines() if line.startswith("# ")),
        Path(notebook).stem,
    )
    folder = Path(notebook).resolve().parent
    body = "\n".join(cell_html(cell, folder) for cell in nb.cells)
    page = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title><style>{STYLE}
{code_style()}</style></head><body>
{body}
<footer>{footer(nb)}</footer></body></html>
"""
    write_atomic(out, page)


def code_style():
    """Colours of code, for light screens and dark ones; the page keeps its own background."""
    plain = re.compile(r"background(-color)?: #\w+;?\s*")
    light, dark = (plain.sub("", form.get_style_defs(".highlight")) for form in (LIGHT, DARK))
    return f"{light}\n@media (prefers-color-scheme: dark) {{ {dark} }}"


def footer(nb):
    """From which run the page comes."""
    run = nb.metadata.get("walkthrough")
    if not run:
        return "Not yet run."
    corpus = f", text: {run['corpus']['name']}" if run.get("corpus") else ""
    here = run["machine"]
    return html.escape(
        f"Run on {run['date']} in {run['seconds'] / 60:.1f} minutes on {here.get('gpu') or here['cpu']}, "
        f"{here['cores']} cores, torch {here['torch']}{corpus}, commit {run['commit']}, code {run['code_hash']}."
    )


def cell_html(cell, folder):
    """One cell; folded ones lie in <details>, their outputs stay in sight."""
    folded = "folded" in cell.metadata.get("tags", []) or cell.metadata.get("jupyter", {}).get("source_hidden")
    if cell.cell_type != "code":
        body = markdown_html(cell.source, folder)
        first = next((line.strip("# ").strip() for line in cell.source.splitlines() if line.strip()), "More")
    else:
        body = f'<div class="code">{colour(cell.source, PythonLexer())}</div>' if cell.source.strip() else ""
        first = re.sub(r"^#\s*(@title)?\s*", "", cell.source.splitlines()[0]) if cell.source.startswith("#") else "Code"
    if folded and body:
        body = f"<details><summary>{html.escape(first)}</summary>{body}</details>"
    return body + "".join(output_html(output) for output in cell.get("outputs", []))


def colour(code, lexer):
    return highlight(code, lexer, LIGHT)


class Markdown(mistune.HTMLRenderer):
    """Markdown with pictures taken in and code coloured. HTML stays: hints are folded with <details>."""

    def __init__(self, folder):
        super().__init__(escape=False)
        self.folder = folder

    def image(self, text, url, title=None):
        return f'<img src="{embedded(url, self.folder)}" alt="{html.escape(text)}">'

    def link(self, text, url, title=None):
        """Links from notebook to notebook lead from page to page: all pages lie in one folder."""
        if url.endswith(".ipynb") and "://" not in url:
            url = Path(url).stem + ".html"
        return super().link(text, url, title)

    def block_code(self, code, info=None):
        try:
            return colour(code, get_lexer_by_name((info or "").split()[0]))
        except (IndexError, ClassNotFound):
            return f'<pre class="md">{html.escape(code)}</pre>\n'


def markdown_html(source, folder):
    render = mistune.create_markdown(renderer=Markdown(folder), plugins=["table", "strikethrough"])
    return without_outside(render(source))


def embedded(url, folder):
    """The picture of a markdown cell as a data address; one that lies elsewhere, or is missing, is left out."""
    path = folder / url
    if "://" in url or not path.is_file():
        path = ROOT / url
    if "://" in url or not path.is_file():
        return "data:,"
    kind = mimetypes.guess_type(path.name)[0]
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def without_outside(text):
    """HTML without anything that a browser would fetch or run: scripts, frames, pictures and styles from elsewhere."""
    text = re.sub(r"<(script|iframe)\b.*?</\1\s*>", "", text, flags=re.DOTALL | re.IGNORECASE)
    text = re.sub(r"<link\b[^>]*>", "", text, flags=re.IGNORECASE)
    return re.sub(r"<img\b[^>]*src=[\"']?(?!data:)[^>]*>", "", text, flags=re.IGNORECASE)


def output_html(output):
    """One output: text, table, picture with its alt text, or the error that ended the cell."""
    if output.output_type == "stream":
        return f'<div class="out"><pre>{ansi2html(output.text)}</pre></div>'
    if output.output_type == "error":
        return f'<div class="out err"><pre>{ansi2html(chr(10).join(output.traceback))}</pre></div>'
    data = output.data
    for kind in ("image/png", "image/jpeg"):
        if kind in data:
            alt = html.escape(alt_text(output, kind))
            return f'<div class="out"><img src="data:{kind};base64,{data[kind].strip()}" alt="{alt}"></div>'
    if "image/svg+xml" in data:
        alt = html.escape(alt_text(output, "image/svg+xml"))
        svg = base64.b64encode(data["image/svg+xml"].encode()).decode()
        return f'<div class="out"><img src="data:image/svg+xml;base64,{svg}" alt="{alt}"></div>'
    if "text/html" in data:
        return f'<div class="out">{without_outside(data["text/html"])}</div>'
    if "text/markdown" in data:
        return f'<div class="out">{markdown_html(data["text/markdown"], ROOT)}</div>'
    return f'<div class="out"><pre>{html.escape(data.get("text/plain", ""))}</pre></div>'
