"""The exact folders that go to the Hub: a model with its card, a Space for each target; nothing is sent from here."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from space.account import HUB, PublishError
from space.card import write_card
from space.static_site import HALF_ABOVE, build_static

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = Path(__file__).resolve().parent / "templates" / "space_readme.md"
MODEL_FILES = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
               "metrics.json"]  # fmt: skip
TABLE = "ngram5.npz"  # travels with the model if it is there
APP_FILES = {name: f"space/{name}" for name in ("app.py", "writer.py", "limits.py", "look.py", "app.css")}
SHARED = ("model_gpt2.py", "gpt2/__init__.py", "gpt2/sampling.py", "gpt2/weights.py", "gpt2/fast_cpu.py",
          "data/__init__.py", "data/files.py", "data/tokenizer.py", "data/ngram.py", "LICENSE")
APP_FILES |= {name: name for name in SHARED}  # where it lies in the Space: where it lies here


@dataclass(frozen=True)
class Target:
    """Where a Space runs, and what that place needs."""

    sdk: str
    hardware: str | None = None
    python: str = "3.12"
    torch: str | None = None  # None: the version that the project pins
    index: str | None = None  # where else pip may look
    price: str = ""


TARGETS = {
    "static": Target("static", price="free for every account; the visitor's browser computes"),
    "zero-a10g": Target("gradio", "zero-a10g", torch="2.11.0",
                        price="free for a verified account that is older than 30 days, two Spaces each"),
    "cpu-basic": Target("gradio", "cpu-basic", index="https://download.pytorch.org/whl/cpu",
                        price="needs a paid plan (PRO)"),
}  # fmt: skip


def build_model_folder(folder, out, repo_id: str, dtype: str = "auto", project: str | None = None) -> Path:
    """Copy what is published of a model folder into `out` and write its card.

    dtype: "float32", "float16", or "auto": float16 if the weights take more than 20 MB in the folder.
    Raises PublishError for a folder that is no model of ours.
    """
    import torch

    from model_gpt2 import GPT

    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise PublishError(f"There is no folder {folder}: give the folder that training wrote, for instance out/best.")
    if missing := [name for name in MODEL_FILES if not (folder / name).is_file()]:
        raise PublishError(f"{folder} has no {missing[0]}: give the folder that training wrote, for instance out/best.")
    out.mkdir(parents=True, exist_ok=True)
    for name in [*MODEL_FILES, TABLE]:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, out / name)
    half = (folder / "model.safetensors").stat().st_size > HALF_ABOVE if dtype == "auto" else dtype == "float16"
    if half:
        start = json.loads((folder / "generation_config.json").read_text()).get("bos_token_id") or 0
        GPT.from_pretrained(folder).save_pretrained(out, dtype=torch.float16, start_id=start)
    write_card(out, repo_id, project)
    return out


def build_space_folder(repo_id: str, model: str, out, target: str, revision: str | None = None,
                       model_folder: Path | None = None) -> Path:  # fmt: skip
    """Write the Space's files into `out`. model: owner/name on the Hub; model_folder: its files.

    A static page carries its model. A Gradio app names it in model.json and loads it when it starts.
    """
    out, spec = Path(out), TARGETS[target]
    if spec.sdk == "static":
        return build_static(model_folder, out, links=links(repo_id, model), model_repo=model or None)
    for name, source in APP_FILES.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / source, out / name)
    if model_folder is not None and not model:
        shutil.copytree(model_folder, out / "model", ignore=shutil.ignore_patterns("README.md", "*.pt"))
    else:
        (out / "model.json").write_text(json.dumps({"model": model, "revision": revision}) + "\n")
    (out / "requirements.txt").write_text(requirements(target))
    (out / "README.md").write_text(space_readme(repo_id, model, target), encoding="utf-8")
    return out


def links(repo_id: str, model: str) -> dict[str, str]:
    """What a page points to."""
    found = {"the model": f"{HUB}/{model}"} if model else {}
    found |= {"make your own copy": f"{HUB}/spaces/{repo_id}?duplicate=true"}
    if address := project_address():
        found |= {"the notebook that made it": f"{address}/blob/main/gpt2_gradio.ipynb"}
    return found


def project_address() -> str | None:
    """The project's own address, from the one place where it stands."""
    found = re.search(r'^repository = "([^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)
    return found[1] if found else None


def pins() -> dict[str, str]:
    """package -> exact version, as pyproject.toml pins them for the project itself: the one source."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return dict(re.findall(r'^\s*"([A-Za-z0-9_-]+)==([^"]+)",', text, re.M))


def requirements(target: str) -> str:
    """requirements.txt of a Gradio Space: exact versions; Gradio itself is named in the front matter."""
    spec, known = TARGETS[target], pins()
    lines = [f"--extra-index-url {spec.index}"] if spec.index else []
    lines.append(f"torch=={spec.torch or known['torch']}" + ("+cpu" if spec.index else ""))
    lines += [f"{name}=={known[name]}" for name in ("numpy", "safetensors", "huggingface_hub", "tiktoken")]
    return "\n".join(lines) + "\n"


def front_matter(model: str, target: str) -> dict:
    """The YAML fields that tell the Hub how to run a Gradio Space."""
    spec = TARGETS[target]
    fields = {
        "title": "A GPT-2 from scratch", "emoji": "🪶", "colorFrom": "yellow", "colorTo": "red", "sdk": spec.sdk,
        "sdk_version": pins()["gradio"], "python_version": spec.python, "app_file": "app.py", "license": "mit",
        "short_description": "A GPT-2 trained from scratch: write and look inside",
        "suggested_hardware": spec.hardware,
    }  # fmt: skip
    if model:
        fields |= {"models": [model], "preload_from_hub": [model]}  # fetched once, while the Space is built
    return fields


def space_readme(repo_id: str, model: str, target: str) -> str:
    """README.md of a Gradio Space, from space/templates/space_readme.md."""
    fields = front_matter(model, target)
    front = "\n".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())
    words = {"FRONT": front, "REPO": repo_id, "MODEL": f"[{model}]({HUB}/{model})" if model else "the folder `model`",
             "COPY": f"{HUB}/spaces/{repo_id}?duplicate=true", "PROJECT": project_address() or HUB}  # fmt: skip
    text = TEMPLATE.read_text(encoding="utf-8")
    for word, value in words.items():
        text = text.replace("{" + word + "}", value)
    return text


def show_tree(folder: Path) -> str:
    """The folder's files with their sizes, for reading before anything is sent."""
    rows = [(p.relative_to(folder).as_posix(), p.stat().st_size) for p in sorted(folder.rglob("*")) if p.is_file()]
    total = sum(size for _, size in rows)
    return "\n".join(f"  {size:>13,}  {name}" for name, size in [*rows, (f"bytes in {len(rows)} files", total)])
