"""lab/claims.py, ladder.py and plots.py: claims that can fail, marks counted right, pictures with words."""

import re
from collections import Counter

import pytest
import torch

import lab
from lab import claims, plots
from lab.ladder import Ladder
from model_gpt2 import GPT, GPTConfig

MARKS = [3.3, 2.5, 2.0]


@pytest.fixture
def on(monkeypatch):
    """Pretend a text and a budget."""
    def pretend(name="tinyshakespeare", quick=False):
        monkeypatch.setitem(claims._corpus, "name", name)
        monkeypatch.setattr(claims, "QUICK", quick)
    return pretend


@pytest.mark.parametrize("name, quick, good, bad", [
    ("tinyshakespeare", False, 1.5, 2.5), ("standin", False, 2.5, 1.5), ("tinyshakespeare", True, 3.5, 1.5),
    ("standin", True, 3.5, 2.5), ("tinyshakespeare", False, 2.0, float("nan")), ("my novel", False, 9, None),
    ("my novel", True, 9, None)])
def test_claim_takes_the_bounds_of_text_and_budget(on, capsys, name, quick, good, bad):
    """A claim that cannot fail, that NaN passes, or that is checked against another text's bounds.

    Bounds that are true of any text must be checked on any; silence would look like success.
    """
    on(name, quick)
    lab.claim("loss", good, (1, 2), (2, 3), (3, 4))
    line = capsys.readouterr().out
    assert bad or "nothing is claimed" in line and ("Shakespeare's: 1 to 2" in line) == (not quick)
    if bad:
        assert f"✓ loss: {good:.3f}" in line
        with pytest.raises(AssertionError, match=f"measured {bad:.3f}"):
            lab.claim("loss", bad, (1, 2), (2, 3), (3, 4))
    lab.claim("loss", 1.5, (5, 6), (5, 6), (5, 6), always=(1, 2))
    with pytest.raises(AssertionError, match="measured 3.000"):
        lab.claim("loss", 3.0, always=(1, 2))


def test_holds():
    """A false claim must stop the notebook."""
    claims.holds("two is two", 2 == 2)
    with pytest.raises(AssertionError, match="does not hold: two is three"):
        claims.holds("two is three", 2 == 3)


def test_a_mark_that_is_worse_than_the_one_before_is_not_passed_alone(capsys):
    """A small text of many symbols: "as good as counting 1 letter" beside a loss that is worse than that."""
    ladder = Ladder([6.4, 6.7, 5.7, 5.8])
    ladder.add("a", 6.5)
    assert "no mark passed | next mark: 1 letter, 6.400" in capsys.readouterr().out
    assert [ladder.passed(loss) for loss in (6.4, 5.75, 5.7, float("nan"))] == [2, 2, 4, 0]


def test_ladder_line_names_passed_mark_next_mark_and_change(capsys, tmp_path):
    """The reader must see what was passed, what comes next, and a rung that got worse."""
    ladder = Ladder(MARKS)
    ladder.add("a", 2.6)
    ladder.add("b", 2.7)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "a: 2.600 nats | as good as counting 1 letter | next mark: 2 letters, 2.500"
    assert "(+0.100)" in second and ladder["b"] == 2.7
    ladder.add("b", 2.5)  # its cell was run again
    assert "(-0.100)" in capsys.readouterr().out and [rung["name"] for rung in ladder.rungs] == ["a", "b"]
    ladder.save(tmp_path / "ladder.json", steps=3)
    assert '"steps": 3' in (tmp_path / "ladder.json").read_text()


@pytest.mark.parametrize("config", [GPTConfig(), GPTConfig(64, 65, 3, 4, 128, bias=False, tie_weights=False)])
def test_picture_of_the_model_is_the_model(config):
    """A picture whose names, shapes or parameters are not those of the class that it shows."""
    with torch.device("meta"):
        model = GPT(config)
    rows, real = plots.stations(config), Counter()
    for name, parameter in model.named_parameters():
        name = re.sub(r"^transformer\.|\.(weight|bias)$", "", name.replace(".h.0.", ".h.i."))
        real[name] += parameter.numel() if not re.match(r"h\.\d", name) else 0
    assert {name: count for name, _, _, count in rows if count} == dict(+real)
    shown = plots.whole_model(config).axes[0].texts
    texts = {text.get_text() for text in shown}
    assert min(text.get_fontsize() for text in shown) >= 11
    assert {text for row in rows for text in row[:3]} <= texts and f"{model.num_params():,} in all" in texts
    assert rows[-1][2] == f"(B, T, {config.vocab_size:,})"
