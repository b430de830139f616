"""One hash for the code behind a notebook's outputs: its code cells and every module of the project that they reach.

Comments, layout and docstrings do not count, so prose can be mended without a new run. The syntax tree is written out
by hand, because the text of `ast.dump` changes from one Python to the next.
"""

import ast
import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# fields that hold no meaning here, or that only some versions of Python fill in
SKIPPED_FIELDS = {"ctx", "kind", "type_comment", "type_ignores", "type_params"}
MAGIC = re.compile(r"^(\s*)([%!].*)$", re.MULTILINE)
ADDRESS = re.compile(r"https?://[^\s\"']+")
SCRIPT = re.compile(r"[\w/]+\.py")


def code_hash(nb, root=ROOT):
    """Hash of a notebook's code cells and of the project modules that they import, directly or not.

    `nb` is an nbformat notebook (or its plain dict), `root` the folder of the project. Returns 16 hex digits.
    The address of the repository in the set-up cell is left out: moving the project does not change a result.
    """
    root = Path(root)
    cells = [cell for cell in nb["cells"] if cell["cell_type"] == "code"]
    trees = [cell_tree(cell) for cell in cells]
    lines = [canonical(tree) for tree in trees]
    for path in reached_modules(cells, trees, root):
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        drop_docstrings(tree)
        lines.append(f"{path.relative_to(root).as_posix()} {canonical(tree)}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def cell_tree(cell):
    """Syntax tree of one code cell. Lines that begin with % or ! become calls that hold their text."""
    source = cell["source"]
    if cell.get("id") == "setup":
        source = ADDRESS.sub("", source)
    if source.startswith("%%"):
        source = f"cell_magic({source!r})"
    try:
        tree = ast.parse(source)
    except SyntaxError:
        tree = ast.parse(MAGIC.sub(lambda m: f"{m[1]}line_magic({m[2]!r})", source))
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            drop_docstring(node)
    return tree


def reached_modules(cells, trees, root):
    """Paths of all project modules that the cells import, through one another too, sorted by path."""
    found = {path for cell in cells for path in started_scripts(cell, root)}
    waiting = [(tree, "") for tree in trees] + [parsed(path, root) for path in found]
    while waiting:
        tree, package = waiting.pop()
        for path in project_imports(tree, package, root):
            if path not in found:
                found.add(path)
                waiting.append(parsed(path, root))
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


def parsed(path, root):
    """Syntax tree of a module, and the dotted name of the package that it lies in."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return tree, ".".join(path.relative_to(root).parts[:-1])


def started_scripts(cell, root):
    """Files that a cell starts by name: `!torchrun train_gpt2.py`. The set-up cell names one file only to find it."""
    if cell.get("id") != "setup":
        yield from (root / name for name in SCRIPT.findall(cell["source"]) if (root / name).is_file())


def project_imports(tree, package, root):
    """Files of the project that one tree imports, at its top or inside its functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from module_files(alias.name, root)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(parts + [base] if base else parts)
            yield from module_files(base, root)
            for alias in node.names:
                yield from module_files(f"{base}.{alias.name}", root)


def module_files(name, root):
    """The file of a dotted name and the `__init__.py` of each package above it, where they are the project's."""
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        path = root.joinpath(*parts[:depth])
        if path.with_suffix(".py").is_file():
            yield path.with_suffix(".py")
        elif (path / "__init__.py").is_file():
            yield path / "__init__.py"


def drop_docstrings(tree):
    """Take the docstrings out of a module and of everything in it, in place."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            drop_docstring(node)


def drop_docstring(node):
    if ast.get_docstring(node, clean=False) is not None:
        node.body = node.body[1:]


def canonical(node):
    """Text of a syntax tree that is the same for the same code on Python 3.10 to 3.14."""
    if isinstance(node, ast.Constant):
        return f"{type(node.value).__name__}:{node.value!r}"
    if isinstance(node, ast.JoinedStr):
        return f"JoinedStr[{','.join(canonical(part) for part in joined_parts(node))}]"
    if isinstance(node, ast.AST):
        fields = ((name, value) for name, value in ast.iter_fields(node) if name not in SKIPPED_FIELDS)
        kept = (f"{name}={canonical(value)}" for name, value in fields if value is not None and value != [])
        return f"{type(node).__name__}({','.join(kept)})"
    if isinstance(node, list):
        return f"[{','.join(canonical(item) for item in node)}]"
    return repr(node)


def joined_parts(node):
    """Parts of an f-string, with neighbouring text joined and empty text dropped: versions of Python differ there."""
    parts = []
    for part in node.values:
        if isinstance(part, ast.Constant) and parts and isinstance(parts[-1], ast.Constant):
            parts[-1] = ast.Constant(parts[-1].value + part.value)
        else:
            parts.append(part)
    return [part for part in parts if not (isinstance(part, ast.Constant) and part.value == "")]
