"""The exercises of gpt2_gradio.ipynb: every solution passes, a stub is not tried, likely mistakes raise."""

import html
import importlib.util

import pytest
from conftest import ROOT

from lab import exercises_gradio as exercises
from lab.checks import WrongAnswer

spec = importlib.util.spec_from_file_location("solutions_gradio", ROOT / "notebooks/solutions/gpt2_gradio.py")
solutions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(solutions)

CHECKS = [(exercises.check_0, ["file_mb", "checkpoint_mb"]), (exercises.check_1, ["cache_mb"]),
          (exercises.check_2, ["what_it_sees"]), (exercises.check_3, ["harmless"])]  # fmt: skip
MISTAKES = [
    (exercises.check_0, [lambda n, bits: n * bits / 1e6, lambda n: 12 * n / 1e6]),  # bits taken for bytes
    (exercises.check_0, [solutions.file_mb, lambda n: 8 * n / 1e6]),  # the weights forgotten
    (exercises.check_1, [lambda L, C, T, bytes=4: L * T * C * bytes / 1e6]),  # keys only
    (exercises.check_2, [lambda typed, t, B: t.decode(t.encode(typed)[:B]) or "\n"]),  # the beginning kept
    (exercises.check_2, [lambda typed, t, B: t.decode(t.encode(typed[-B:])) or "\n"]),  # cut before encoding
    (exercises.check_3, [lambda text: html.escape(text, quote=False)]),  # breaks out of an attribute
    (exercises.check_3, [lambda text: html.escape(text).replace("&", "&amp;")]),  # escaped twice
    (exercises.check_3, [lambda text: text.replace("<", "")]),  # takes letters away
]


@pytest.mark.parametrize("check, names", CHECKS)
def test_solution_passes(check, names):
    """Catches a check that refuses the right answer, or a solution that is wrong."""
    assert check(*(getattr(solutions, name) for name in names), strict=True)


@pytest.mark.parametrize("check, names", CHECKS)
def test_stub_is_shown_as_not_tried(check, names, capsys):
    """Catches an untouched stub that stops the notebook, or that counts as right."""
    def stub(*_):
        raise NotImplementedError

    assert check(*[stub] * len(names)) is False and "not tried yet" in capsys.readouterr().out


@pytest.mark.parametrize("check, answers", MISTAKES)
def test_a_likely_mistake_raises(check, answers):
    """Catches a check that accepts what readers get wrong."""
    with pytest.raises(WrongAnswer):
        check(*answers)
