"""The live pictures of the book: the Space's engine and their own files as one script, each model as another.

From a file a browser loads neither a module nor data, so modules become functions and data become scripts.
"""

import base64
import json
import re

from lab.project import ROOT

STATIC, ENGINE, MODELS = ROOT / "book" / "_static", ROOT / "space" / "static", ROOT / "book" / "models"
IMPORT = re.compile(r'^import (\{[^}]*\}) from "\./(\w+)\.js";', re.MULTILINE)
EXPORT = re.compile(r"^export ((?:async )?(?:function\*?|class|const) (\w+))", re.MULTILINE)


def as_function(path):
    """A module as a function that runs at once and returns what the module exports."""
    text = path.read_text(encoding="utf-8")
    names = [found[2] for found in EXPORT.finditer(text)]
    text = IMPORT.sub(lambda found: f"const {found[1].replace(' as ', ': ')} = LIVE.{found[2]};", text)
    text = EXPORT.sub(r"\1", text).replace("import.meta.url", "location.href")  # a script has no address
    return f"LIVE.{path.stem} = (() => {{\n{text}\nreturn {{ {', '.join(names)} }};\n}})();\n"


def imported_first(paths):
    """The modules of these paths, each behind those that it imports from book/_static or space/static."""
    found = {}
    for path in paths:
        names = [name for _, name in IMPORT.findall(path.read_text(encoding="utf-8"))]
        near = [next(STATIC.glob(f"{name}.js"), ENGINE / f"{name}.js") for name in names]
        found.update(dict.fromkeys([*imported_first(near), path]))
    return list(found)


def put_live(folder):
    """Write live.js into `folder`, and a script with its bytes for each model and the 5-letter table."""
    script = "".join(map(as_function, imported_first(sorted(STATIC.glob("live_*.js")))))
    (folder / "live.js").write_text(f'"use strict";\nglobalThis.LIVE = {{}};\n{script}', encoding="utf-8")
    files = {path.relative_to(MODELS).as_posix(): path for path in MODELS.rglob("*.*")}
    for name, path in {**files, "ngram5.npz": ROOT / "space" / "model" / "ngram5.npz"}.items():
        target = folder / "models" / f"{name}.js"
        target.parent.mkdir(parents=True, exist_ok=True)
        data = base64.b64encode(path.read_bytes()).decode()
        call = f"LIVE.pictures.arrived({json.dumps(name)}, {json.dumps(data)});\n"
        target.write_text(call, encoding="utf-8")
