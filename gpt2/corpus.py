"""The text of a run: Tiny Shakespeare, the reader's own, or token shards."""

from data.corpus import corpus_from_text
from data.shards import open_shards
from data.standin import SYMBOLS
from data.text import load_text
from data.tokenizer import GPT2_VOCAB, BPETokenizer
from gpt2.errors import TrainError


def load_data(config, quiet=False):
    """The corpus that the settings name."""
    if config.data:
        corpus = open_shards(config.data)
        if corpus.tokenizer.kind != config.tokenizer:
            kind = corpus.tokenizer.kind
            raise TrainError(f"The shards in {config.data} were made with the {kind} tokenizer: "
                             f"add --tokenizer {kind}.")
        return corpus
    bpe = BPETokenizer() if config.tokenizer == "bpe" else None  # first: offline, this is what fails
    if config.text:
        return load_text(config.text, quiet=quiet, tokenizer=bpe)
    corpus = load_text(quiet=quiet)
    return corpus_from_text(corpus.text, corpus.name, bpe) if bpe else corpus


def check_data(config, corpus):
    for name, need in (("train", config.block_size + 1), ("val", 2)):
        n = len(getattr(corpus, name))
        if n < need:
            raise TrainError(f"The {name} split has {n} tokens, not {need}: "
                             "lower --block-size or bring more text.")


def vocabulary_size(config):
    """Of the run's text, without reading more of it than is needed."""
    if config.tokenizer == "bpe":
        return GPT2_VOCAB
    if config.data:
        return open_shards(config.data).tokenizer.vocab_size
    return load_text(config.text, quiet=True).tokenizer.vocab_size if config.text else len(SYMBOLS)
