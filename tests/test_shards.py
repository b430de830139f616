"""data/shards.py: shards hold the text, and a reader's own files are never touched."""

import json
import os

import pytest
import torch

from data import shards
from data.files import DataError
from data.shards import open_shards, write_shards
from tests import texts
from tests.runs import words


def quietly(folder, out):
    write_shards(folder, out, say=lambda line: None)
    return open_shards(out)


@pytest.fixture
def source(tmp_path):
    """Three texts and everything that a careful person would pass over."""
    folder = tmp_path / "texts"
    for name, content in {
        "a.txt": words(), "more/B.TXT": "green stones, and \u00e9t\u00e9\n" * 200,
        "notes.txt/c.txt": words(1500)[::-1],
        ".ipynb_checkpoints/a-checkpoint.txt": words(2500), "__MACOSX/._a.txt": "\0\0\1", "._a.txt": "\0\0\2",
        "picture.txt": b"\x89PNG\r\n\x1a\n", "empty.txt": "", "copy.txt": words() + "\n",
        "readme.md": "hello",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    (folder / "link").symlink_to(tmp_path)
    return folder


def test_shards_hold_the_text_and_all_is_said(source, tmp_path):
    """Catches a token lost or doubled at a file's edge, a copy or what is no text read as text, and silence
    about a file that was passed over: its reader thinks that the model has read it.
    """
    said = []
    write_shards(source, tmp_path / "out", say=said.append)
    corpus = open_shards(tmp_path / "out")
    read = [(source / name).read_text("utf-8") for name in ("a.txt", "more/B.TXT", "notes.txt/c.txt")]
    assert corpus.tokenizer.decode(corpus.train[:]) == "".join(text[: int(0.9 * len(text))] for text in read)
    assert corpus.tokenizer.decode(corpus.val[:]) == "".join(text[int(0.9 * len(text)) :] for text in read)
    assert corpus.val_chars == len(corpus.val) - 1 and corpus.chars_per_token == 1
    assert corpus.name == "texts" and corpus.examples and corpus.facts()["tokenizer"] == "char"
    expected = {".ipynb_checkpoints": "hidden", "__MACOSX": "hidden", "._a.txt": "hidden",
                "empty.txt": "empty", "readme.md": "not .txt", "picture.txt": "a picture",
                "copy.txt": "the same text as", "link": "a link to a folder"}
    for name, why in expected.items():
        assert any(name in line and why in line and line.startswith("skipped") for line in said), name
    assert sum("characters, read as UTF-8" in line for line in said) == 3


def test_lines_in_both_splits_are_found(tmp_path):
    """Catches a validation loss that recitation has made; and an alarm for a text that only sounds alike."""
    verse = texts.verse(20_000)
    for text, alarm in ((verse, False), (verse[10_000:] + verse[:10_000], True)):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{alarm}.txt").write_text(text)
        said = []
        write_shards(tmp_path / "in", tmp_path / "out", say=said.append)
        assert any("come in train too" in line for line in said) == alarm


def test_an_older_set_is_replaced_and_nothing_else(source, tmp_path, monkeypatch):
    """Catches the reader's own files emptied out with the old shards, and an interrupted second run that
    costs the shards of the first, or leaves its own behind.
    """
    out, mine = tmp_path / "out", tmp_path / "out.part" / "mine.txt"
    before = quietly(source, out).train[:]
    ours = sorted(os.listdir(out))
    mine.parent.mkdir()
    for path in (mine, out / "precious.doc", out / "train_000.bin"):
        path.write_text("mine")
    (source / "a.txt").unlink()
    broken = {True: lambda: [1] * 10, False: lambda: 1 / 0}
    monkeypatch.setattr(shards.CharTokenizer, "encode", lambda _, text: broken[len(text) > 1000]())
    with pytest.raises(ZeroDivisionError):
        quietly(source, out)
    assert torch.equal(open_shards(out).train[:], before)
    monkeypatch.undo()
    (out / "val.bin.part").write_bytes(b"half")  # a build was killed
    assert not torch.equal(quietly(source, out).train[:], before)
    assert sorted(os.listdir(out)) == sorted([*ours, "precious.doc", "train_000.bin"])
    assert mine.read_text() == (out / "precious.doc").read_text() == (out / "train_000.bin").read_text()


@pytest.mark.parametrize("where", ["", ".", "more", "new", "..", "more/../new/deep"])
def test_out_in_or_around_the_texts_is_refused(where, source, monkeypatch):
    """Catches `--out` on the folder of the texts, which deleted them; and shards found as texts."""
    monkeypatch.chdir(source)
    before = sorted(source.rglob("*"))
    with pytest.raises(DataError, match="lie in one another"):
        write_shards(source, where and source / where or ".", say=pytest.fail)
    assert sorted(source.rglob("*")) == before


@pytest.mark.parametrize(("files", "out", "says"), [
    ({"precious.doc": "mine"}, "out", "other files"), ({"train.bin": "mine"}, "out", "other files"),
    ({"precious.doc": "mine", "meta.json": '{"title": "my film"}'}, "out", "other files"),
    ({"precious.doc": "mine", "meta.json": "["}, "out", "other files"),
    ({"file": ""}, "out/file", "file is a file"), ({"file": ""}, "out/file/shards", "file is a file")])
def test_a_folder_with_other_files_is_refused_before_the_work(files, out, says, source, tmp_path):
    """Catches any folder with a meta.json being taken for old shards and emptied."""
    (tmp_path / "out").mkdir()
    for name, content in files.items():
        (tmp_path / "out" / name).write_text(content)
    with pytest.raises(DataError, match=says):
        write_shards(source, tmp_path / out, say=pytest.fail)
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == files


def test_a_link_here_and_what_was_cut_off_are_good_places(source, tmp_path, monkeypatch):
    """Catches a rename across a link, or over the folder one stands in, that fails after all the work."""
    for name in ("disk", "here", "cut off"):
        (tmp_path / name).mkdir()
    (tmp_path / "cut off" / "train.bin.part").write_bytes(b"half")
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    quietly(source, tmp_path / "link")
    assert (tmp_path / "disk" / "meta.json").exists() and (tmp_path / "link").is_symlink()
    monkeypatch.chdir(tmp_path / "here")
    assert len(quietly(source, ".").val) == len(quietly(source, tmp_path / "cut off").val) > 2


def test_a_meta_that_is_not_ours_is_refused(source, tmp_path):
    """Catches a path in meta.json read as training data, and a traceback for anything odd in it."""
    quietly(source, tmp_path / "out")
    path = tmp_path / "out" / "meta.json"
    meta = json.loads(path.read_text())
    for change in ({"tokens": {"../secret": 50, "val": 50}}, {"tokens": {"train": -1, "val": 50}},
                   {"tokens": {}}, {"tokens": 3}, {"name": ["x"]}, {"val_chars": "many"}, {"examples": 3},
                   {"tokenizer": "wordpiece"}, {"vocab_size": 7}):
        path.write_text(json.dumps({**meta, **change}))
        says = "not the one that the shards" if "vocab_size" in change else "damaged or not of ours"
        with pytest.raises(DataError, match=says) as error:
            open_shards(tmp_path / "out")
        assert "\n" not in str(error.value)


def test_shards_that_cannot_be_used(source, tmp_path):
    """Catches tracebacks for a wrong folder, a cut-off file, no text at all."""
    with pytest.raises(DataError, match="no meta.json"):
        open_shards(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        quietly(source / "a.txt", tmp_path / "out")
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="no .txt files"):
        quietly(tmp_path / "bare", tmp_path / "out")
    (tmp_path / "bare" / "a.txt").write_text("ab")
    with pytest.raises(DataError, match="too little text"):
        quietly(tmp_path / "bare", tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []
    quietly(source, tmp_path / "out")
    (tmp_path / "out" / "train.bin").write_bytes(b"123")
    with pytest.raises(DataError, match="cut off"):
        open_shards(tmp_path / "out")


def test_the_command(source, tmp_path, capsys):
    """Catches a documented command that fails, or a wrong path that ends in a traceback."""
    assert shards.main([str(source), str(tmp_path / "out")]) == 0
    assert "train tokens" in capsys.readouterr().out
    for folder, out in ((tmp_path / "nothing", "out2"), (source, source), (source, source / "a.txt" / "x")):
        assert shards.main([str(folder), str(out)]) == 1
        assert capsys.readouterr().err.count("\n") == 1
