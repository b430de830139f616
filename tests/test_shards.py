"""data/shards.py: shards hold the text and nothing else's; a reader's own files are never touched
or read as ours.
"""

import json
import os
import random

import numpy as np
import pytest
import torch

from data import shards
from data.batches import eval_windows, get_batch, shuffled_batch
from data.files import DataError
from data.shards import open_shards, write_shards
from tests import texts

WORDS = ["red", "green", "blue", "old", "stone", "rain"]
quiet = dict(say=lambda line: None)


def lines(n, seed=0):
    r = random.Random(seed)
    return "\n".join(" ".join(r.choice(WORDS) for _ in range(6)) for _ in range(n))


@pytest.fixture
def source(tmp_path):
    """Two texts and everything that a careful person would pass over."""
    folder = tmp_path / "texts"
    for name, content in {
        "a.txt": lines(120), "more/B.TXT": "green stones, and \u00e9t\u00e9\n" * 200,
        "notes.txt/c.txt": lines(50, 1),
        ".ipynb_checkpoints/a-checkpoint.txt": lines(120), "__MACOSX/._a.txt": "\0\0\1", "._a.txt": "\0\0\2",
        "picture.txt": b"\x89PNG\r\n\x1a\n", "empty.txt": "", "copy.txt": lines(120) + "\n",
        "readme.md": "hello",
    }.items():  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return folder


def read_in(source):
    return [
        (source / name).read_text(encoding="utf-8") for name in ("a.txt", "more/B.TXT", "notes.txt/c.txt")
    ]


def test_shards_hold_the_text(source, tmp_path):
    """Catches a token lost or doubled at a file's edge, a copy in both splits, and what is no text
    read as text.
    """
    write_shards(source, tmp_path / "out", shard_tokens=1000, **quiet)
    corpus, cuts = open_shards(tmp_path / "out"), [(t, int(0.9 * len(t))) for t in read_in(source)]
    assert corpus.tokenizer.decode(corpus.train[:]) == "".join(t[:c] for t, c in cuts)
    assert corpus.tokenizer.decode(corpus.val[:]) == "".join(t[c:] for t, c in cuts)
    assert len(list((tmp_path / "out").glob("train_*.bin"))) == -(-len(corpus.train) // 1000)
    assert corpus.val_chars == len(corpus.val) - 1 and corpus.chars_per_token == 1
    assert corpus.name == "texts" and corpus.examples and corpus.facts()["tokenizer"] == "char"
    assert corpus.val.parts[0].dtype == np.uint16 and isinstance(corpus.val.parts[0], np.memmap)


def test_everything_is_said(source, tmp_path):
    """Catches silence about a file that was passed over: its reader thinks that the model has read it."""
    said = []
    write_shards(source, tmp_path / "out", say=said.append)
    expected = {".ipynb_checkpoints": "hidden", "__MACOSX": "hidden", "._a.txt": "hidden"}
    expected |= {"empty.txt": "empty", "readme.md": "not .txt", "picture.txt": "a picture"}
    expected |= {"copy.txt": "the same text as"}
    for name, why in expected.items():
        assert any(name in line and why in line and line.startswith("skipped") for line in said), name
    assert sum("characters, read as UTF-8" in line for line in said) == 3


def test_lines_in_both_splits_are_found(tmp_path):
    """Catches a validation loss that recitation has made; and an alarm for a text that only sounds alike."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text(texts.verse(40_000))
    said = []
    write_shards(tmp_path / "in", tmp_path / "out", say=said.append)
    assert not any("come in train too" in line for line in said)
    (tmp_path / "in" / "b.txt").write_text(texts.verse(40_000)[20_000:] + texts.verse(20_000))
    write_shards(tmp_path / "in", tmp_path / "out", say=said.append)
    assert any("come in train too" in line for line in said)


def test_a_batch_from_shards_is_a_batch_from_memory(source, tmp_path):
    """Catches windows that cannot cross from one file to the next, or another draw than the one in memory."""
    write_shards(source, tmp_path / "out", shard_tokens=1000, **quiet)
    corpus = open_shards(tmp_path / "out")
    ids = corpus.train[:]
    assert ids.dtype == torch.int64 and len(ids) == len(corpus.train) and corpus.train[5] == ids[5]
    for draw in (get_batch, shuffled_batch):
        for step in range(5):
            for a, b in zip(draw(corpus.train, 64, 32, 1, step), draw(ids, 64, 32, 1, step), strict=True):
                assert torch.equal(a, b)
    for (x, y), (u, v) in zip(
        eval_windows(corpus.val, 16, 4), eval_windows(corpus.val[:], 16, 4), strict=True
    ):
        assert torch.equal(x, u) and torch.equal(y, v)


def test_an_older_set_is_replaced_and_nothing_else(source, tmp_path):
    """Catches the reader's own files emptied out with the old shards, and old shards left in the new set."""
    out = tmp_path / "out"
    write_shards(source, out, shard_tokens=1000, **quiet)
    (out / "precious.doc").write_text("mine")
    (tmp_path / "out.part").mkdir()
    (tmp_path / "out.part" / "mine.txt").write_text("mine")
    write_shards(source, out, shard_tokens=3000, **quiet)
    corpus = open_shards(out)
    kept = {p.name for p in out.iterdir()}
    assert {"precious.doc", "meta.json", "tokenizer.json"} < kept and (
        tmp_path / "out.part" / "mine.txt"
    ).exists()
    assert len([name for name in kept if name.startswith("train_")]) == -(-len(corpus.train) // 3000)
    assert not any(name.endswith(".part") for name in kept)


def test_a_set_stays_whole_until_the_new_one_is(source, tmp_path, monkeypatch):
    """Catches an interrupted second run that costs the shards of the first, or leaves its own behind."""
    write_shards(source, tmp_path / "out", **quiet)
    before = open_shards(tmp_path / "out").train[:]
    monkeypatch.setattr(
        shards.CharTokenizer, "encode", lambda self, text: [1] * 10 if len(text) > 4000 else 1 / 0
    )
    with pytest.raises(ZeroDivisionError):
        write_shards(source, tmp_path / "out", **quiet)
    assert torch.equal(open_shards(tmp_path / "out").train[:], before)
    assert not list((tmp_path / "out").glob("*.part"))
    monkeypatch.undo()
    (tmp_path / "cut off").mkdir()
    (tmp_path / "cut off" / "train_000.bin.part").write_bytes(b"half")
    write_shards(source, tmp_path / "cut off", **quiet)
    assert torch.equal(open_shards(tmp_path / "cut off").train[:], before)


@pytest.mark.parametrize("where", ["", ".", "more", "new", "..", "more/../new/deep"])
def test_out_in_or_around_the_texts_is_refused(where, source, monkeypatch):
    """Catches `--out` on the folder of the texts, which deleted them; and shards found as texts the
    next time.
    """
    monkeypatch.chdir(source)
    before = sorted(source.rglob("*"))
    with pytest.raises(DataError, match="lie in one another"):
        write_shards(source, where and source / where or ".", say=pytest.fail)
    assert sorted(source.rglob("*")) == before


@pytest.mark.parametrize("meta", ['{"title": "my film"}', "[]", "{", None])
def test_a_folder_with_other_files_is_refused_before_the_work(meta, source, tmp_path):
    """Catches any folder with a meta.json being taken for old shards and emptied."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.doc").write_text("mine")
    if meta:
        (tmp_path / "out" / "meta.json").write_text(meta)
    with pytest.raises(DataError, match="other files"):
        write_shards(source, tmp_path / "out", say=pytest.fail)
    assert (tmp_path / "out" / "precious.doc").read_text() == "mine"
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "train_000.bin").write_bytes(b"mine")
    with pytest.raises(DataError, match="other files"):
        write_shards(source, tmp_path / "theirs", say=pytest.fail)
    (tmp_path / "file").write_text("")
    for out in ("file", "file/shards"):
        with pytest.raises(DataError, match="file is a file"):
            write_shards(source, tmp_path / out, say=pytest.fail)


def test_a_link_and_here_are_good_places(source, tmp_path, monkeypatch):
    """Catches a rename across a link, or over the folder that one stands in, that fails after all
    the work.
    """
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    write_shards(source, tmp_path / "link", **quiet)
    assert (tmp_path / "disk" / "meta.json").exists() and (tmp_path / "link").is_symlink()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_shards(source, ".", **quiet)
    assert len(open_shards(".").val) > 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"files": {"train": {"../secret.bin": 50}, "val": {"val_000.bin": 50}}}, "damaged or not of ours"),
        ({"files": {"train": {"/etc/passwd": 50}, "val": {"val_000.bin": 50}}}, "damaged or not of ours"),
        ({"files": {"train": {}, "val": {}}}, "damaged or not of ours"),
        ({"files": {"train": {"train_000.bin": -1}, "val": {"val_000.bin": 50}}}, "damaged or not of ours"),
        ({"files": 3}, "damaged or not of ours"),
        ({"name": ["x"]}, "damaged or not of ours"),
        ({"val_chars": "many"}, "damaged or not of ours"),
        ({"tokenizer": "wordpiece"}, "damaged or not of ours"),
        ({"vocab_size": 7}, "not the one that the shards were made with"),
    ],
)
def test_a_meta_that_leads_elsewhere_is_refused(change, says, source, tmp_path):
    """Catches a path in meta.json read as training data, and a traceback for anything odd in it."""
    (tmp_path / "secret.bin").write_bytes(b"12" * 50)
    write_shards(source, tmp_path / "out", **quiet)
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    (tmp_path / "out" / "meta.json").write_text(json.dumps({**meta, **change}))
    with pytest.raises(DataError, match=says) as error:
        open_shards(tmp_path / "out")
    assert "\n" not in str(error.value)


def test_shards_that_cannot_be_used(source, tmp_path):
    """Catches tracebacks for a wrong folder, a cut-off file, no text at all."""
    with pytest.raises(DataError, match="no meta.json"):
        open_shards(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        write_shards(source / "a.txt", tmp_path / "out")
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="no .txt files"):
        write_shards(tmp_path / "bare", tmp_path / "out", **quiet)
    (tmp_path / "bare" / "a.txt").write_text("ab")
    with pytest.raises(DataError, match="too little text"):
        write_shards(tmp_path / "bare", tmp_path / "out", **quiet)
    assert os.listdir(tmp_path / "out") == []
    write_shards(source, tmp_path / "out", **quiet)
    (tmp_path / "out" / "train_000.bin").write_bytes(b"123")
    with pytest.raises(DataError, match="cut off"):
        open_shards(tmp_path / "out")


def test_the_command(source, tmp_path, capsys):
    """Catches a documented command that fails, or a wrong path that ends in a traceback."""
    assert shards.main([str(source), str(tmp_path / "out")]) == 0
    assert "train tokens" in capsys.readouterr().out
    assert shards.main([str(tmp_path / "nothing"), str(tmp_path / "out2")]) == 1
    assert shards.main([str(source), str(source)]) == 1
    (tmp_path / "dangling").symlink_to(tmp_path / "gone" / "deep")
    assert shards.main([str(source), str(source / "a.txt" / "x")]) == 1
    assert capsys.readouterr().err.count("\n") == 3
