"""For the tests of the app and of publishing: a model folder made in a second, and the app as a process."""

import contextlib
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

from data.tokenizer import BPETokenizer, CharTokenizer
from tests.models import model_folder, small

ROOT = Path(__file__).resolve().parents[1]
# the characters that could do harm are in the vocabulary, or escaping would never be put to the test
CHARS = "\n !\"$&'(),-./:;<=>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]`abcdefghijklmnopqrstuvwxyz{}"


def tiny_folder(folder, chars: str = CHARS, pieces_of: str = "", **shape) -> Path:
    """A complete model folder with untrained weights, the same every time.

    pieces_of: a text; the model then knows its pieces instead of characters, and has no table of counts.
    """
    tokenizer = BPETokenizer.train(pieces_of, 280) if pieces_of else CharTokenizer(chars)
    shape = {**dict(block_size=32, n_layer=2, n_head=2, n_embd=16), **shape}
    corpus = ({"name": "diary.txt", "examples": [pieces_of[:9]]} if pieces_of
              else {"name": "tinyshakespeare", "sha256": "ab" * 32})
    return model_folder(folder, small(0, 0.2, vocab_size=tokenizer.vocab_size, **shape), tokenizer,
                        val_loss=6.5 if pieces_of else 4.21, val_loss_char=4.21, ngram5_val_loss=4.32,
                        seconds=1.5, corpus=corpus, config={"lr": 0.003, "seed": 1})


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
