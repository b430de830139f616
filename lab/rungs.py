"""The small models of Build, trained again and kept for the book's live pictures: `python -m lab.rungs`.

The classes and the training loop are the notebook's own: its definitions are run, its experiments are not.
Writes book/models/NAME.safetensors (F16), and book/models/rungs.json: losses, machine, date and commit.
"""

import ast
import time
from itertools import count
from types import SimpleNamespace

import torch
from safetensors.torch import save_file

from data.files import say
from data.ngram import NGram
from lab.machine import write_result
from lab.notebook import read
from lab.project import ROOT

LINE = "Poor souls, they perish'd."  # the line of the notebook's strip
FOLDER = ROOT / "book" / "models"
SIZES = {"corpus", "TEXT", "V", "chars", "T", "C", "STEPS", "device", "summit", "SUMMIT_STEPS"}
SNAPSHOTS = [0, 3, 10, 30, 60, 100, 200, 400, 800, 1500]  # steps of the bigram that the slider shows
RUNGS = {  # file: (name on the ladder, how the notebook makes it)
    "bigram": ("neural bigram", lambda nb: nb.Bigram()),
    "embedding": ("embedding + head", lambda nb: nb.OneLayer()),
    "mean": ("mean of the past", lambda nb: nb.OneLayer(nb.MeanOfThePast())),
    "one_head": ("one head", lambda nb: nb.OneLayer(nb.Head(nb.C))),
    "positions": ("+ positions", lambda nb: nb.OneLayer(nb.Head(nb.C), positions=True)),
    "four_heads": ("four heads", lambda nb: nb.OneLayer(nb.Heads(4), positions=True)),
    "mlp": ("+ MLP", lambda nb: nb.OneLayer(nb.nn.Sequential(nb.Heads(4), nb.MLP()), positions=True)),
    "residual": ("+ residual stream", lambda nb: nb.OneLayer(
        nb.nn.Sequential(nb.Residual(nb.Heads(4)), nb.Residual(nb.MLP())), positions=True)),
    "layernorm": ("+ LayerNorm", lambda nb: nb.stack(1)),
    "four_blocks": ("four blocks", lambda nb: nb.stack(4)),
    "small_gpt": ("small GPT", lambda nb: nb.GPT(nb.summit).to(nb.device)),
}


def definitions(path=ROOT / "gpt_dev.ipynb"):
    """Imports, classes, functions and SIZES of a notebook, as a namespace; its experiments are left out."""
    names = {"TEXT": ""}
    for cell in read(path).cells:
        if cell.cell_type == "code" and cell.id != "setup":
            tree = ast.parse(cell.source)
            tree.body = [node for node in tree.body if is_definition(node)]
            exec(compile(tree, f"{path.name}: {cell.id}", "exec"), names)
    return SimpleNamespace(**names)


def is_definition(node):
    if isinstance(node, ast.Assign):
        return all(isinstance(target, ast.Name) and target.id in SIZES for target in node.targets)
    return isinstance(node, (ast.Import, ast.ImportFrom, ast.ClassDef, ast.FunctionDef))


def train_rung(nb, make):
    """The trained model, rounded to 16 bits, and, where it is the bigram, its table at each of SNAPSHOTS."""
    torch.manual_seed(0)
    model, tables, step = make(nb), {}, count()

    def snapshot(*_):  # before each step, and once more when all is done
        if hasattr(model, "table") and (at := next(step)) in SNAPSHOTS:
            tables[f"step{at}"] = model.table.weight.detach().half()

    if hasattr(model, "config"):
        nb.train_longer(model, nb.SUMMIT_STEPS)
    else:
        hook = model.register_forward_pre_hook(snapshot)
        nb.train(model)
        hook.remove()
        snapshot()
    return model.cpu().half().float(), tables


def main():
    """Train and keep all rungs, the small GPT as the folder of files that the Space's page reads."""
    nb, rungs = definitions(), []
    for file, (name, make) in RUNGS.items():
        start = time.perf_counter()
        model, tables = train_rung(nb, make)
        if hasattr(model, "config"):
            model.save_pretrained(FOLDER / file, dtype=torch.float16)
            loss = nb.exact_loss(model, model.config.block_size)
        else:
            state = {key: value.half().contiguous() for key, value in model.state_dict().items()}
            save_file({**state, **tables}, FOLDER / f"{file}.safetensors")
            loss = nb.exact_loss(model)
        rungs.append({"file": file, "name": name, "val_loss": loss, "seconds": time.perf_counter() - start,
                      "parameters": sum(p.numel() for p in model.parameters())})
        say(f"{name}: {loss:.4f}")
    where = nb.corpus.val_text.index(LINE)
    marks = [NGram(n, nb.V).fit(nb.corpus.train).loss(nb.corpus.val) for n in range(1, 6)]
    write_result(FOLDER / "rungs.json", {"steps": nb.STEPS, "summit_steps": nb.SUMMIT_STEPS}, nb.corpus,
                 command="python -m lab.rungs", chars=nb.chars, line=LINE,
                 before=nb.corpus.val_text[where - 60:where], marks=marks, rungs=rungs)


if __name__ == "__main__":
    main()
