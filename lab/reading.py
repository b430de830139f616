"""How a trained model works inside, as numbers: who looks where, what the past is worth, a new name, copying.

    facts = read_model(model, corpus)        # a dict for JSON, which the notebook draws
    python -m lab.reading FOLDER --out results/summit_inner.json
"""

import argparse
import re
from collections import Counter

import torch
import torch.nn.functional as F

from data.shakespeare import load_corpus
from lab.machine import write_result
from model_gpt2 import GPT

KINDS = ("itself", "the letter before", "the line's start", "copies of itself", "2 to 8 letters back",
         "the rest")
GROUPS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


def read_model(model, corpus, windows=None):
    """All measurements of this file. windows: how many, for the loss by place; None: 512,000 letters."""
    T = model.config.block_size
    heads, even = head_shares(model, corpus.val, corpus.tokenizer)
    losses = losses_by_position(model, corpus.val, windows or 512_000 // T)
    groups = [(a, min(b, T)) for a, b in zip(GROUPS, GROUPS[1:], strict=False) if a < T]
    return {"kinds": KINDS, "heads": heads.tolist(), "even": even.tolist(),
            "by_position": [{"from": a + 1, "to": b, "nats": losses[a:b].mean().item()} for a, b in groups],
            "new_name": new_name_losses(model, corpus), "twice": twice_losses(model, corpus)}


@torch.no_grad()
def letter_losses(model, ids):
    """ids (n + 1,), at most block_size + 1 of them -> (n,) nats, one for each id after the first, in fp32."""
    device = next(model.parameters()).device
    logits = model(ids[None, :-1].to(device))[0][0].float()  # (n, V)
    return F.cross_entropy(logits, ids[1:].to(device), reduction="none").cpu()


@torch.no_grad()
def losses_by_position(model, ids, windows=400):
    """(block_size,) mean nats at each place of the window, over windows spread evenly over ids."""
    T, device = model.config.block_size, next(model.parameters()).device
    starts = torch.linspace(0, len(ids) - T - 1, min(windows, len(ids) - T)).long()
    total = torch.zeros(T)
    for chunk in starts.split(max(1, 4096 // T)):
        at = chunk[:, None] + torch.arange(T + 1)
        x, y = ids[at[:, :-1]].to(device), ids[at[:, 1:]].to(device)
        nats = F.cross_entropy(model(x)[0].float().flatten(0, 1), y.flatten(), reduction="none")
        total += nats.view(y.shape).sum(0).cpu()
    return total / len(starts)


def kinds_of_places(ids, newline):
    """ids (T,) -> (6, T, T) of 0 and 1: for a query t (row), which places s <= t are of each of the KINDS."""
    T = len(ids)
    t, s = torch.arange(T)[:, None], torch.arange(T)[None, :]
    past = s <= t
    last_newline = torch.where(ids == newline, torch.arange(T), -1).cummax(0).values[:, None]  # (T, 1)
    starts = (last_newline >= 0) & ((s == last_newline) | (s == last_newline + 1))
    kinds, left = [], past
    for wanted in (s == t, s == t - 1, starts, ids[:, None] == ids[None, :], s >= t - 8, past):
        kinds.append(left & wanted)  # a place counts once, for the first kind that fits
        left = left & ~wanted
    return torch.stack(kinds)


@torch.no_grad()
def head_shares(model, ids, tokenizer, windows=16, first=16):
    """Mean share of each head's vote that goes to each of the KINDS of places, over windows of validation.

    Returns shares (n_layer, n_head, 6), and what an even spread would give, (6,). Queries before
    `first` are left out.
    """
    T, device = min(model.config.block_size, 256), next(model.parameters()).device
    newline = tokenizer.encode("\n")[0] if tokenizer.encode("\n") else -1
    total, even = 0.0, 0.0
    for start in torch.linspace(0, len(ids) - T - 1, windows).long().tolist():
        window = ids[start : start + T]
        places = kinds_of_places(window, newline)[:, first:].float()  # (6, T - first, T)
        maps = torch.stack(model.attention_maps(window[None].to(device))).cpu()[:, 0, :, first:]
        total = total + torch.einsum("lhts,kts->lhk", maps.float(), places) / (T - first)
        spread = 1 / torch.arange(first + 1, T + 1).float()  # (T - first,)
        even = even + torch.einsum("t,kts->k", spread, places) / (T - first)
    return total / windows, even / windows


def new_name(corpus):
    """(name, places): the word in capitals that validation has most often and train never, and where."""
    text = corpus.val_text
    kinds = (re.findall(pattern, text) for pattern in (r"\b[A-Z]{4,}\b", r"\b\w{5,}\b", r"\S+"))
    words = Counter(next(filter(None, kinds), [text]))
    name = next((w for w, _ in words.most_common() if w not in corpus.train_text), words.most_common(1)[0][0])
    return name, [m.start() for m in re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", text)]


def mentions_in_ids(corpus, most=10):
    """(name, [(begin, end), ...]): where the first mentions of new_name lie in corpus.val."""
    name, places = new_name(corpus)
    texts = [(corpus.val_text[:place], corpus.val_text[:place + len(name)]) for place in places[:most]]
    return name, [tuple(len(corpus.tokenizer.encode(text)) for text in pair) for pair in texts]


def new_name_losses(model, corpus):
    """Nats a letter, the first one left out, at the first mentions of a name that train does not have."""
    (name, spans), T = mentions_in_ids(corpus), model.config.block_size
    nats, seen = [], []
    for begin, end in spans:
        window = corpus.val[max(0, end - T) : end]
        nats.append(letter_losses(model, window)[-max(1, end - begin - 1) :].mean().item())
        seen.append(corpus.tokenizer.decode(window[: begin - end].tolist()).count(name))
    return {"name": name, "in_val": len(new_name(corpus)[1]), "in_train": corpus.train_text.count(name),
            "nats": nats, "earlier_mentions_in_window": seen}


def random_string(corpus, n, seed=0):
    """n letters drawn evenly from the 26 commonest of the text that are neither space nor newline."""
    counts = torch.bincount(corpus.train, minlength=corpus.tokenizer.vocab_size)
    blank = [i for i in range(len(counts)) if not corpus.tokenizer.decode([i]).strip()]
    counts[blank] = 0
    common = counts.topk(min(26, len(counts))).indices
    return common[torch.randint(len(common), (n,), generator=torch.Generator().manual_seed(seed))]


@torch.no_grad()
def twice_losses(model, corpus, n=40, strings=8):
    """A random string of n letters, given twice: nats at each letter, and which heads look as a copier would.

    copying (n_layer, n_head): mean vote, in the second copy, for the letter that came next in the first one.
    """
    n = min(n, model.config.block_size // 2)
    start = torch.tensor(corpus.tokenizer.encode("\n")[:1] or [0])
    nats, copying = 0.0, 0.0
    for seed in range(strings):
        string = random_string(corpus, n, seed)
        ids = torch.cat([start, string, string])
        nats = nats + letter_losses(model, ids) / strings
        device = next(model.parameters()).device
        maps = torch.stack(model.attention_maps(ids[None, :-1].to(device))).cpu()[:, 0]  # (L, nh, 2n, 2n)
        t = torch.arange(n + 1, 2 * n)  # letters of the second copy that have a first one behind them
        copying = copying + maps[:, :, t, t - n + 1].mean(-1) / strings
    return {"n": n, "strings": strings, "nats": nats.tolist(), "copying": copying.tolist()}


def main(argv=None):
    """Read the model in a folder and write the facts as JSON."""
    parser = argparse.ArgumentParser(prog="python -m lab.reading", description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--out", required=True)
    args = parser.parse_args(argv)
    corpus, model = load_corpus(quiet=True), GPT.from_pretrained(args.folder)
    write_result(args.out, model.config.__dict__, corpus, **read_model(model, corpus))


if __name__ == "__main__":
    main()
