"""The text that a page opens with: written by the model when the page is built, the same every time.

It draws with the generator of space/static/gpt2.js, so the page's own Generate with this seed gives the same text.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch

from data.tokenizer import load_tokenizer
from gpt2.sampling import filter_probs
from model_gpt2 import GPT

SEED, TEMPERATURE, LENGTH, PAST_THE_END = 1, 0.7, 300, 120  # tokens; it ends at the end of a line


def numbers(seed: int):
    """gpt2.js's `generator`: numbers in [0, 1), a counter through MurmurHash3's finalizer."""
    counter, low = seed, 0xFFFFFFFF
    while True:
        counter = (counter + 0x9E3779B9) & low
        z = ((counter ^ (counter >> 16)) * 0x85EBCA6B) & low
        z = ((z ^ (z >> 13)) * 0xC2B2AE35) & low
        yield (z ^ (z >> 16)) / 2**32
