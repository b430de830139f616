"""For the tests of the app and of publishing: a model folder made in a second, and the app as a process."""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# the characters that could do harm are in the vocabulary, or escaping would never be put to the test
CHARS = "\n !\"$&'(),-./:;<=>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]`abcdefghijklmnopqrstuvwxyz{}"


def tiny_folder(folder, chars: str = CHARS, n_embd: int = 16, block_size: int = 32, **shape) -> Path:
    """A complete model folder with untrained weights: the same every time."""
    import torch

    from data.ngram import NGram
    from data.tokenizer import CharTokenizer

    folder = fill(folder, CharTokenizer(chars), {"name": "tinyshakespeare", "sha256": "ab" * 32}, 4.21,
                  n_embd=n_embd, block_size=block_size, **shape)
    NGram(5, len(chars)).fit(torch.randint(len(chars), (5000,)).numpy()).save(folder / "ngram5.npz")
    return folder


def pieces_folder(folder, text: str, size: int = 280) -> Path:
    """A model of a text's own pieces: no table of counts, and a letter may be cut in two."""
    from data.tokenizer import BPETokenizer

    return fill(folder, BPETokenizer.train(text, size), {"name": "diary.txt", "examples": [text[:9]]}, 6.5)


def fill(folder, tokenizer, corpus: dict, loss: float, n_embd: int = 16, block_size: int = 32,
         **shape) -> Path:
    import torch

    from model_gpt2 import GPT, GPTConfig

    folder, shape = Path(folder), {"n_layer": 2, "n_head": 2, **shape}
    torch.manual_seed(0)
    model = GPT(GPTConfig(block_size=block_size, vocab_size=tokenizer.vocab_size, n_embd=n_embd, **shape))
    for weight in model.parameters():  # far from zero, so that one text is not like another
        torch.nn.init.normal_(weight, std=0.2)
    model.save_pretrained(folder)
    tokenizer.save(folder, block_size)
    metrics = {"val_loss": loss, "val_loss_char": 4.21, "ngram5_val_loss": 4.32,
               "parameters": model.num_params(),
               "step": 7, "tokens": 3584, "seconds": 1.5, "corpus": corpus,
               "config": {"lr": 0.003, "seed": 1},
               "machine": {"device": "cpu", "torch": torch.__version__}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


@contextlib.contextmanager
def running_app(*arguments, script=ROOT / "space" / "app.py", cwd=None, **environment):
    """Start the app as a process; yields the address that it prints, stops it afterwards."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "GRADIO_SERVER_NAME": "127.0.0.1", "PYTHONUNBUFFERED": "1",
           **environment}
    command = [sys.executable, str(script), *map(str, arguments)]
    with subprocess.Popen(command, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True) as process:
        late = threading.Timer(240, process.kill)
        late.start()
        try:
            said = ""
            while not (address := re.search(r"local URL: *(\S+)", said)):
                if not (line := process.stdout.readline()):
                    raise RuntimeError(f"the app ended, or did not begin within 240 s: {said[-2000:]}")
                said += line
            yield address[1]
        finally:
            late.cancel()
            process.terminate()
