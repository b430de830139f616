"""The exact folders that go to the Hub: a model with its card, a Space for each target; nothing is sent here.

Every folder ends with a mark in its README (ours.py): by it a repo is known as ours.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from data.files import ROOT, address, settings
from data.tokenizer import load_tokenizer
from space.account import HUB, PublishError
from space.card import notebook, write_card
from space.folder import NEEDED, copy, load, names_in, read_json, source, start_id, write_json
from space.ours import files_in, mark, prepare
from space.static_site import build_static, copy_model, front_matter

PACKAGES = {  # what of them an app needs
    "space": "__init__ writer limits look folder guard",
    "gpt2": "__init__ sampling weights fast_cpu device errors machine",
    "data": "__init__ files tokenizer ngram",
}
APP = {  # a file of the app -> where it lies here
    "app.py": "space/app.py", "app.css": "space/app.css", "app.js": "space/app.js",
    "model_gpt2.py": "model_gpt2.py", "LICENSE": "LICENSE",
    **{path: path for room, names in PACKAGES.items() for path in (f"{room}/{n}.py" for n in names.split())},
}
SPACE_README = ROOT / "space" / "templates" / "space_readme.md"


@dataclass(frozen=True)
class Target:
    """Where a Space runs, and what that place needs."""

    sdk: str
    price: str
    hardware: str | None = None
    torch: str | None = None  # None: the version that the project pins
    index: str | None = None  # where else pip may look


TARGETS = {
    "static": Target("static", "free for every account; the visitor's browser computes"),
    "zero-a10g": Target("gradio", "free for a verified account that is older than 30 days, two Spaces each",
                        "zero-a10g", torch="2.11.0"),
    "cpu-basic": Target("gradio", "needs a paid plan (PRO)", "cpu-basic",
                        index="https://download.pytorch.org/whl/cpu"),
}


# ---- a folder to read before it is sent

def show_tree(folder: Path) -> str:
    """The folder's files with their sizes, for reading before anything is sent."""
    rows = [(name, (folder / name).stat().st_size) for name in files_in(folder)]
    rows.append((f"bytes in {len(rows)} files", sum(size for _, size in rows)))
    return "\n".join(f"  {size:>13,}  {name}" for name, size in rows)


# ---- a model's folder

def build_model_folder(folder, out, repo_id: str, **said: str | None) -> Path:
    """Write what is published of a model folder into `out`, with its card; a large model in float16.

    said: license, language, origin of the text, as far as the reader states them; see card.write_card.
    Raises ValueError (PublishError, FolderError) for a folder that is no model of ours.
    """
    folder, out = Path(folder), Path(out)
    check(folder)
    prepare(out, folder)
    moments = copy_model(folder, out, names_in(folder))
    settings = read_json(out / "generation_config.json")
    settings["bos_token_id"] = start_id(load_tokenizer(out), out)
    write_json(out / "generation_config.json", settings)
    if moments:
        write_json(out / "metrics.json", {**read_json(out / "metrics.json"), "moments": moments})
    write_json(out / "notebook.ipynb", notebook(write_card(out, repo_id, address(), **said), repo_id))
    return mark(out)


def check(folder: Path) -> None:
    """ValueError in one sentence unless the folder is whole and its parts fit together."""
    if not folder.is_dir():
        raise PublishError(f"There is no folder {folder}: give the folder that training wrote, for "
                           "instance out/cpu/best.")
    for name in {*NEEDED, *names_in(folder)}:
        path = source(folder, name)  # in the Hub's cache a file without an ending
        if name.endswith(".json"):
            read_json(path)
    load(folder)


# ---- a Space's folder

def build_space_folder(repo_id: str, model: str, out, target: str, revision: str | None = None,
                       folder: Path | None = None) -> Path:
    """Write the Space's files into `out`. model: owner/name on the Hub; folder: its files on this machine.

    A static page carries its model. A Gradio app names it in model.json and loads it when it starts.
    """
    out = Path(out)
    if folder is not None:
        check(folder)
    prepare(out, folder)
    if TARGETS[target].sdk == "static":
        build_static(folder, out, links(repo_id, model), model or None, license_of(folder),
                     f"{HUB}/spaces/{repo_id}/resolve/main/")
        return mark(out)
    for name, home in APP.items():
        copy(ROOT, home, out / name)
    if model:
        write_json(out / "model.json", {"model": model, "revision": revision})
    else:
        for name in names_in(folder):
            copy(folder, name, out / "model" / name)
    (out / "requirements.txt").write_text(requirements(target))
    (out / "README.md").write_text(space_readme(repo_id, model, target), encoding="utf-8")
    return mark(out)


def license_of(folder: Path) -> str | None:
    """What the model's own card states."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    found = re.search(r"^license: *\"?([\w.-]+)", text, re.M)
    return found[1] if found else None


def links(repo_id: str, model: str) -> dict[str, str]:
    """What a page points to."""
    home = address()
    return {**({"the model": f"{HUB}/{model}"} if model else {}),
            "make your own copy": f"{HUB}/spaces/{repo_id}?duplicate=true",
            **({"the notebook that made it": f"{home}/blob/main/gpt2_gradio.ipynb"} if home else {})}


def pins() -> dict[str, str]:
    """package -> exact version, as pyproject.toml pins them for the project itself: the one source."""
    return dict(line.split("==") for line in settings()["optional-dependencies"]["dev"] if "==" in line)


def requirements(target: str) -> str:
    """requirements.txt of a Gradio Space: exact versions; Gradio itself is named in the front matter."""
    spec, known = TARGETS[target], pins()
    lines = [f"--extra-index-url {spec.index}"] if spec.index else []
    lines.append(f"torch=={spec.torch or known['torch']}" + ("+cpu" if spec.index else ""))
    lines += [f"{name}=={known[name]}" for name in ("numpy", "safetensors", "huggingface_hub", "tiktoken")]
    return "\n".join(lines) + "\n"


def space_readme(repo_id: str, model: str, target: str) -> str:
    """README.md of a Gradio Space: what tells the Hub how to run it, then space/templates/space_readme.md."""
    models, home = [model] if model else None, address()
    front = front_matter({"sdk_version": pins()["gradio"], "suggested_hardware": TARGETS[target].hardware,
                          "models": models, "preload_from_hub": models})  # fetched while the Space is built
    story = f"* How it was built, trained and published, in three notebooks: {home}\n" if home else ""
    return SPACE_README.read_text(encoding="utf-8").format(
        FRONT=front, REPO=repo_id, MODEL=f"[{model}]({HUB}/{model})" if model else "the folder `model`",
        COPY=f"{HUB}/spaces/{repo_id}?duplicate=true", PROJECT=story)
