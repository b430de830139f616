"""Checks of the exercises of gpt2_gradio.ipynb: each compares the reader's answer with another way."""

import html

import torch

from gpt2.sampling import KVCache
from lab.checks import WrongAnswer, exercise, expect, expect_each
from model_gpt2 import GPTConfig


@exercise(0)
def check_0(file_mb, checkpoint_mb):
    cases = ((85_892_352, 32, 343.569408), (85_892_352, 16, 171.784704), (1000, 8, 0.001))
    expect_each("MB of the weights", file_mb, "parameters bits", cases, 1e-6)
    expect_each("MB of the checkpoint", checkpoint_mb, "parameters", [(10**6, 12.0)], 1e-6)


@exercise(1)
def check_1(cache_mb):
    cases = []
    for n_layer, n_embd, T in ((2, 32, 16), (4, 160, 128)):  # the cache that the model really makes
        config = GPTConfig(block_size=T, vocab_size=8, n_layer=n_layer, n_head=2, n_embd=n_embd)
        cache = KVCache(config, 1, torch.zeros(1))
        size = sum(x.numel() * x.element_size() for x in (cache.k, cache.v)) / 1e6
        cases.append((n_layer, n_embd, T, 4, size))
    cases.append((12, 768, 1024, 2, 37.748736))
    expect_each("MB of one visitor's cache", cache_mb, "n_layer n_embd T bytes", cases, 1e-6)


class _Letters:
    """A tokenizer that knows a, b and the newline."""

    def encode(self, text):
        return ["\nab".index(c) for c in text if c in "\nab"]

    def decode(self, ids):
        return "".join("\nab"[i] for i in ids)


@exercise(2)
def check_2(what_it_sees):
    cases = (("ab", "ab"), ("a2b!", "ab"), ("", "\n"), ("2", "\n"), ("aaaabb", "aabb"), ("abab99", "abab"))
    expect_each("the text that the model sees, block_size 4, alphabet newline, a, b",
                lambda typed: what_it_sees(typed, _Letters(), 4), "typed", cases)


@exercise(3)
def check_3(harmless):
    for text in ("<b>", "a & b", "&lt;", '"><img src=x onerror=y>', "' onclick='z", "plain",
                 "<script>x</script>"):
        page = harmless(text)
        expect("the text that a browser shows", text, html.unescape(page), text)
        if signs := set(page) & set("<\"'"):
            raise WrongAnswer(f"{text!r} breaks out of its place: {page!r} still has {sorted(signs)}")
