"""Which model the third notebook ships, and that nobody's model is taken for the reader's."""

import pytest
from tiny_app import tiny_folder

from space import find
from space.folder import FolderError


@pytest.fixture
def reader(monkeypatch, tmp_path):
    """A reader in an empty folder, without settings."""
    monkeypatch.chdir(tmp_path)
    for name in ("GPT2_HEADLESS", "CI", "QUICK", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_nothing_trained_here_is_asked_and_never_guessed(reader, monkeypatch, capsys):
    """Catches the project's small model that is published as "your model" on a fresh machine."""
    asked = []
    folder, mine = find.choose_model(ask=lambda question: asked.append(question) or "")
    assert folder.resolve() == find.OWN and not mine
    assert "folder on Drive" in asked[0] and "rehearsal" in capsys.readouterr().out
    monkeypatch.setenv("GPT2_HEADLESS", "1")
    monkeypatch.setattr("builtins.input", lambda question: pytest.fail("nobody sits there"))
    assert not find.choose_model()[1]


def test_a_wrong_answer_is_a_sentence_and_a_second_question(reader, capsys):
    """Catches a typing error that ends the notebook or in another model."""
    mine = tiny_folder(reader / "drive" / "best")
    answers = ["/content/drive/MyDrive/none", "no/such/folder", str(reader), str(reader / "drive")]
    assert find.choose_model(ask=lambda question: answers.pop(0)) == (mine, True)
    said = capsys.readouterr().out
    for words in ("Drive is not mounted", "There is no folder no/such/folder", "holds no model"):
        assert words in said


def test_the_newest_run_of_this_machine_is_the_readers(reader):
    """Catches a trial run, made later, that is taken for the real one; a name that is given comes first.

    And a reader's own run that counts as a trial, because his text is called quicksilver.txt.
    """
    real = "notebook-quicksilver.txt-1234abcd"
    for name in (real, "quick", f"{real}-quick"):
        tiny_folder(reader / "runs" / name / "best")
    assert find.choose_model()[0].parts[-2:] == (real, "best")
    other = tiny_folder(reader / "other")
    assert find.choose_model(str(other)) == (other, True)
    for named, words in (("/none", "There is no folder"), ("no/body", "while fetching no/body")):
        with pytest.raises(FolderError, match=words):
            find.choose_model(named)
