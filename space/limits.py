"""What keeps the app on its feet: a visitor's wish made safe, and a line in which visitors wait their turn.

Standard library only.
"""

import math
import os
import random
import threading
from dataclasses import dataclass

MAX_PROMPT = 10_000  # characters of seed text; of a longer one the end is kept
MAX_TOKENS = 1_000  # written in one go
MAX_SECONDS = 55  # ZeroGPU gives a call 60
MAX_WAITING = 20  # visitors in line; the next one is told "busy"
MAX_EACH = 2  # places in line for one page, or one program
MAX_ADDRESS = 8  # and for one address of the public network: a whole school may share one
SENT = 20_000  # characters that the page sends of a longer seed text: the last ones
BUSY = f"Busy: {MAX_WAITING} visitors are already waiting. Please try again in a minute."
ENOUGH = "Busy with what you asked for before: please wait until one of your texts is done."


class Busy(Exception):
    """The line is full, or the visitor has places enough in it; the text is for the visitor."""


@dataclass(frozen=True)
class Ask:
    """One visitor's wish, made safe."""

    prompt: str
    max_tokens: int
    temperature: float
    top_n: int | None
    seed: int
    notices: tuple[str, ...] = ()

    @classmethod
    def clean(cls, prompt, max_tokens=100, temperature=0.7, top_n=None, seed=None) -> "Ask":
        """Anything at all -> a wish within the limits, and a sentence for each thing that was changed."""
        text = prompt if isinstance(prompt, str) else "" if prompt is None else str(prompt)
        count = f"at least {SENT:,}" if len(text) == SENT else f"{len(text):,}"  # the page sends no more
        wanted, top, chosen = number(max_tokens, 100), number(top_n, None), number(seed, None)
        notices = {
            f"The seed text is cut to its last {MAX_PROMPT:,} of {count} characters.": len(text) > MAX_PROMPT,
            f"At most {MAX_TOKENS:,} tokens are written at a time.": wanted > MAX_TOKENS,
            "Top N is to be a whole number such as 20, or empty: now all may be chosen.":
                is_said(top_n) and (top is None or top < 0),
            "Seed is to be a whole number, or empty: now it is a new one.": is_said(seed) and chosen is None,
        }
        return cls(
            prompt=text[-MAX_PROMPT:],
            max_tokens=int(min(max(wanted, 1), MAX_TOKENS)),
            temperature=float(min(max(number(temperature, 0.7), 0.0), 1.0)),
            top_n=int(min(top, 1e9)) if top and top >= 1 else None,
            seed=random.randrange(10**6) if chosen is None else int(min(max(chosen, 0), 2**53)),
            notices=tuple(sentence for sentence, holds in notices.items() if holds),
        )


def is_said(field) -> bool:
    """Whether something stands in a field of the page."""
    return isinstance(field, str) and bool(field.strip())


def number(value, default):
    """A finite number, or the default for anything else (text, NaN, a list, nothing)."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return default
    return found if math.isfinite(found) else default


class Queue:
    """Visitors served in order, `slots` at once; beyond `most` waiting ones the next is refused.

    Nobody blocks a thread for long: each asks again and can tell the visitor his place meanwhile.
    """

    def __init__(self, slots: int, most: int):
        self.slots, self.most = slots, most
        self.tickets = {}  # ticket -> whose it is, in their order; the first `slots` are served
        self.moved = threading.Condition()

    def join(self, session=None, address=None):
        """A ticket; Busy if the line is full, or if this session or address holds its share of places."""
        with self.moved:
            if len(self.tickets) >= self.slots + self.most:
                raise Busy(BUSY)
            for who, most in ((session, MAX_EACH), (address, MAX_ADDRESS)):
                if who and sum(who in owner for owner in self.tickets.values()) >= most:
                    raise Busy(ENOUGH)
            self.tickets[ticket := object()] = (session, address)
            return ticket

    def before(self, ticket) -> int:
        """How many have to go before this one; 0 while it is its turn."""
        return max(0, list(self.tickets).index(ticket) + 1 - self.slots)

    def ready(self, ticket, seconds: float = 0.25) -> int:
        """0: your turn has come (call `leave` afterwards). Else how many are before you."""
        with self.moved:
            self.moved.wait_for(lambda: not self.before(ticket), seconds)
            return self.before(ticket)

    def leave(self, ticket):
        """Done, or gone: frees the place in the line or the slot."""
        with self.moved:
            del self.tickets[ticket]
            self.moved.notify_all()


def reach_this_machine():
    """Keep what is on this machine away from a proxy that the environment names."""
    for name in ("no_proxy", "NO_PROXY"):
        known = [place for place in os.environ.get(name, "").split(",") if place]
        os.environ[name] = ",".join(dict.fromkeys([*known, "127.0.0.1", "localhost", "::1"]))
