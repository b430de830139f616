"""The model behind the page: load a folder, write for a visitor in his turn, look inside a text.

Runs on a CPU, on a GPU and on ZeroGPU, where only the two functions with @gpu see the card.
"""

try:
    import spaces  # ZeroGPU; must come before torch
except ImportError:
    spaces = None

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch

from data.ngram import NGram
from gpt2.device import best_device
from gpt2.machine import cores
from model_gpt2 import GPT
from space import look
from space.folder import FolderError, download, load, per_letter, read_metrics, start_id
from space.limits import MAX_SECONDS, MAX_WAITING, Ask, Queue, number

WINDOW = 400  # places of a text, its last ones, that can be looked at
STEP = 0.05  # seconds between two updates of the page


@dataclass
class Loaded:
    """What a model folder holds. `table` (the 5-gram) may be missing, `card` (measured numbers) empty."""

    model: GPT
    tokenizer: object
    table: NGram | None
    card: dict
    start: int  # the id that an empty beginning is given

    @classmethod
    def from_folder(cls, folder_or_repo: str, revision: str | None = None) -> "Loaded":
        """Read a folder or a repo of the Hub. Raises ValueError in one sentence."""
        folder = Path(folder_or_repo)
        folder = folder if folder.is_dir() else fetch(str(folder_or_repo), revision)
        model, tokenizer, table = load(folder)
        card = {**read_metrics(folder), "parameters": model.num_params()}
        return cls(model, tokenizer, table, card, start_id(tokenizer, folder))


def fetch(repo: str, revision: str | None) -> Path:
    """A model repo's files; ValueError in one sentence."""
    try:
        return download(repo, revision)
    except FolderError:
        raise
    except Exception as error:  # the client has a dozen kinds; a user needs one sentence
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ValueError(f"No model at {repo}: there is no such folder, and the Hub did not give it "
                         f"({reason}).") from error


HELD: Loaded | None = None  # the model that everyone sees; a global, so that ZeroGPU's worker has it
QUEUE = Queue(cores(), MAX_WAITING)


def use(folder_or_repo: str, revision: str | None = None) -> None:
    """Load the model that everyone will see."""
    global HELD
    HELD = Loaded.from_folder(folder_or_repo, revision)
    # ZeroGPU lends its card to a call only, so it cannot be tried here
    HELD.model.to("cpu" if not torch.cuda.is_available() else "cuda" if spaces else best_device(0))
    torch.set_num_threads(1)  # one generation for each core beats one generation on all of them


# ---- writing

def gpu(f):
    """ZeroGPU's decorator where it exists."""
    return spaces.GPU(duration=60)(f) if spaces else f


@gpu
def sample(ids: list[int], ask: Ask):
    """Yield one new id at a time."""
    for new in HELD.model.stream(row(ids), ask.max_tokens, ask.temperature, ask.top_n, seed=ask.seed):
        yield int(new)


def row(ids: list[int]) -> torch.Tensor:
    """ids as a batch of one, (1, T), where the model is."""
    return torch.tensor([ids], device=next(HELD.model.parameters()).device)


@dataclass
class Draft:
    """A text in the making."""

    prompt: str  # as the model read it
    ids: list[int]  # prompt and written
    n_prompt: int
    written: str = ""
    seconds: float = 0.0
    before: int = 0  # visitors in line before this one
    done: bool = False
    notices: list[str] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """How many were written this far."""
        return len(self.ids) - self.n_prompt

    @property
    def speed(self) -> float:
        """Tokens a second, this far; 0 before the first."""
        return self.tokens / self.seconds if self.seconds else 0.0


def begin(ask: Ask) -> Draft:
    """Encode the beginning; what the model cannot read becomes a notice."""
    tokenizer = HELD.tokenizer
    ids = tokenizer.encode(ask.prompt)
    notices = [*ask.notices, look.notice_dropped(tokenizer.dropped(ask.prompt))]
    prompt, ids = tokenizer.decode(ids), ids or [HELD.start]
    return Draft(prompt, ids, len(ids), notices=[n for n in notices if n])


def write(ask: Ask, session=None, address=None):
    """Wait in line, then yield the same Draft again and again while it grows. Raises Busy.

    Closing the generator (the visitor left, or pressed Stop) leaves the line or frees the slot at once.
    session and address say whose place it is.
    """
    draft, ticket = begin(ask), QUEUE.join(session, address)
    try:
        while before := QUEUE.ready(ticket):
            draft.before = before
            yield draft
        draft.before = 0
        yield from grow(draft, ask)
    finally:
        QUEUE.leave(ticket)


def grow(draft: Draft, ask: Ask):
    """Sample into the draft: the beginning at once, then an update at most every STEP seconds."""
    yield draft
    began = shown = time.perf_counter()
    for new in sample(draft.ids[-HELD.model.config.block_size :], ask):
        draft.ids.append(new)
        now = time.perf_counter()
        if now - shown >= STEP:
            shown, draft.seconds = now, now - began
            draft.written = written(draft).rstrip("\ufffd")  # a letter's first bytes: the rest is on its way
            yield draft
        if now - began > MAX_SECONDS:
            draft.notices.append(f"Stopped after {MAX_SECONDS} seconds; press Generate to write again.")
            break
    draft.written, draft.seconds, draft.done = written(draft), time.perf_counter() - began, True
    yield draft


def written(draft: Draft) -> str:
    return HELD.tokenizer.decode(draft.ids[draft.n_prompt :])


def opening() -> Draft | None:
    """A finished text to open the page with; None on ZeroGPU, where the card is there for visitors only."""
    if spaces:
        return None
    ask = Ask.clean((HELD.card["corpus"]["examples"] or [""])[0], 200, 0.7, seed=1)
    *_, draft = grow(begin(ask), ask)
    half, pieces = len(draft.ids) // 2, pieces_of(draft.ids)
    ends = [i for i in range(half, len(pieces)) if "\n" in pieces[i]]
    draft.ids = draft.ids[: ends[-1]] if ends else draft.ids  # it stops with a line
    draft.written = written(draft)
    return draft


# ---- looking inside

@gpu
def inspect(ids: list[int], n_prompt: int, at: int | None, low: int) -> dict:
    """What sampling saw of ids (T) at places low..T-1 (1 <= low): losses and likeliest ids of them, and
    for the place `at` (None: the most surprising one that was written) its probs (V) and heads (L, nh,
    S), where S ids lay before it.
    """
    model, V = HELD.model, HELD.tokenizer.vocab_size
    idx = row(ids)  # (1, T)
    parts = [part for part in spans(len(ids), n_prompt, model.config.block_size) if part[2] > low]
    with torch.inference_mode():
        logits = [model(idx[:, start : end - 1])[0][0, first - start - 1 :, :V]
                  for start, first, end in parts]
        logp = torch.cat(logits).float()[low - parts[0][1] :].log_softmax(-1)  # (T-low, V)
        losses = -logp.gather(1, idx[0, low:, None])[:, 0]
        if at is None:
            written = min(max(n_prompt, low), len(ids) - 1)
            at = written + int(losses[written - low :].argmax())
        start = next(start for start, _, end in parts if at < end)
        heads = [layer[0, :, -1].tolist() for layer in model.attention_maps(idx[:, start:at])]
    return {"at": at, "losses": losses.tolist(), "best": logp.argmax(-1).tolist(),
            "probs": logp[at - low].exp().cpu(), "heads": heads}


def spans(length: int, n_prompt: int, block_size: int):
    """Yield (start, first, end): the places first..end-1 of a text were guessed from ids[start:place].

    Written places exactly as `stream` sampled them: when the window is full, its last half stays. The prompt,
    which nobody sampled, by the same rule from its beginning.
    """
    start, first = 0, 1
    while first < length:
        if first == n_prompt:
            start = max(0, n_prompt - block_size)
        end = min(start + block_size + 1, n_prompt if first < n_prompt else length)
        yield start, first, end
        start, first = max(0, end - max(1, block_size // 2)), end


def pieces_of(ids: list[int]) -> list[str]:
    """The text of each id; a letter that several ids spell stands with the last of them."""
    pieces, open_ids = [], []
    for i in ids:
        open_ids.append(i)
        text = HELD.tokenizer.decode(open_ids)
        whole = not text.endswith("\ufffd") or len(open_ids) == 4 or len(pieces) == len(ids) - 1
        pieces.append(text if whole else "")
        open_ids = [] if whole else open_ids
    return pieces


def view(ids: list[int], n_prompt: int, at, head=None) -> tuple[str, str, str, int, int]:
    """Look inside a text at one place: HTML of the text, the guesses, the attention; the place, the first
    of them.

    head: (layer, head) from 1, None: the one that looks at one piece the hardest. The last WINDOW places
    can be looked at; what stands before them was seen by the model all the same.
    """
    if len(ids) < 2:
        return look.manuscript(), look.NOTHING, "", 1, 1
    low = max(1, len(ids) - WINDOW)
    wanted = None if at is None else within(at, low, len(ids) - 1)
    seen, pieces = inspect(ids, n_prompt, wanted, low), pieces_of(ids)
    at, maps = seen["at"], seen["heads"]
    layer, head = telling(maps) if head is None else head
    layer, head = within(layer, 1, len(maps)), within(head, 1, len(maps[0]))
    weights = maps[layer - 1][head - 1]
    attention = look.attention(pieces[at - len(weights) : at + 1], weights, layer, head, maps)
    text = drawn(ids, pieces, n_prompt, at, low, seen, weights)
    return text, guesses_at(ids, pieces, at, seen["probs"]), attention, at, low


def within(value, low: int, high: int) -> int:
    """Any value as a whole number from low to high."""
    return int(min(max(number(value, low), low), high))


def telling(maps: list) -> tuple[int, int]:
    """(layer, head), from 1, of the head with most attention on one place, not the first or last."""
    found = {(i, j): max(row[1:-1], default=0) for i, heads in enumerate(maps, 1)
             for j, row in enumerate(heads, 1)}
    return max(found, key=found.get)


def drawn(ids, pieces, n_prompt: int, at: int, low: int, seen: dict, weights: list[float]) -> str:
    """HTML of the text, from the first place that can be looked at on."""
    first = 0 if low == 1 else low  # the very first has nothing before it, so no guess
    losses = [None] * (low - first) + seen["losses"]
    guesses = [""] * (low - first) + [HELD.tokenizer.decode([i]) for i in seen["best"]]
    before = ("…" if n_prompt >= HELD.model.config.block_size else "") + "".join(pieces[:first])
    looked = {at - len(weights) + i: w for i, w in enumerate(weights) if w > 0.05}
    text = look.letters(before, pieces[first:], losses, guesses, at, n_prompt, first, looked)
    table = None if HELD.table is None else HELD.table.losses(ids)[low - 1 :]
    return text + look.summary(losses, table, "letter" if per_letter(HELD.card) else "piece")


def guesses_at(ids: list[int], pieces: list[str], at: int, probs: torch.Tensor, most: int = 8) -> str:
    """HTML of the `most` likeliest next pieces at one place and of what came, model and table; probs (V)."""
    table = None if HELD.table is None else HELD.table.next_probs(ids[:at])  # (V,)
    best = dict.fromkeys([*probs.topk(min(most, len(probs))).indices.tolist(), ids[at]])
    rows = [(HELD.tokenizer.decode([i]), float(probs[i]), None if table is None else float(table[i]),
             i == ids[at]) for i in best]
    return look.guess_bars("".join(pieces[:at]), rows)
