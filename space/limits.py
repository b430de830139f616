"""What keeps the app on its feet: a visitor's wish made safe, and a line in which visitors wait their turn.

Standard library only.
"""

import math
import os
import random
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

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
        notices = []
        text = prompt if isinstance(prompt, str) else "" if prompt is None else str(prompt)
        if len(text) > MAX_PROMPT:
            count = f"at least {SENT:,}" if len(text) == SENT else f"{len(text):,}"  # the page sends no more
            notices.append(f"The seed text is cut to its last {MAX_PROMPT:,} of {count} characters.")
            text = text[-MAX_PROMPT:]
        wanted = number(max_tokens, 100)
        if wanted > MAX_TOKENS:
            notices.append(f"At most {MAX_TOKENS:,} tokens are written at a time.")
        top, given, seed = number(top_n, 0), seed, number(seed, None)
        if isinstance(top_n, str) and top_n.strip() and (number(top_n, None) is None or top < 0):
            notices.append("Top N is to be a whole number such as 20, or empty: now all may be chosen.")
        if isinstance(given, str) and given.strip() and seed is None:
            notices.append("Seed is to be a whole number, or empty: now it is a new one.")
        return cls(
            prompt=text,
            max_tokens=int(min(max(wanted, 1), MAX_TOKENS)),
            temperature=float(min(max(number(temperature, 0.7), 0.0), 1.0)),
            top_n=int(min(top, 1e9)) if top >= 1 else None,
            seed=random.randrange(10**6) if seed is None else int(min(max(seed, 0), 2**53)),
            notices=tuple(notices),
        )


def number(value, default):
    """A finite number, or the default for anything else (text, NaN, a list, nothing)."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return default
    return found if math.isfinite(found) else default


@dataclass(eq=False)
class Ticket:
    """A place in the line, and whose it is."""

    who: list


class Line:
    """Visitors served in order, `slots` at once; beyond `most` waiting ones the next is refused.

    Nobody blocks a thread for long: each asks again and can tell the visitor his place meanwhile.
    """

    def __init__(self, slots: int, most: int):
        self.slots, self.most, self.held = slots, most, Counter()
        self._lock = threading.Lock()
        self._free = threading.Condition(self._lock)
        self.running, self.waiting = 0, []

    def join(self, session=None, address=None):
        """A ticket; Busy if the line is full, or if this session or address holds its share of places."""
        with self._lock:
            if len(self.waiting) >= self.most + self.slots - self.running:
                raise Busy(BUSY)
            if session and self.held[session] >= MAX_EACH or address and self.held[address] >= MAX_ADDRESS:
                raise Busy(ENOUGH)
            self.held.update(who := [who for who in (session, address) if who])
            self.waiting.append(ticket := Ticket(who))
            return ticket

    def ready(self, ticket, seconds: float = 0.25) -> int:
        """0: your turn has come (call `leave` afterwards). Else how many are before you."""
        with self._free:
            self._free.wait_for(lambda: self._my_turn(ticket), seconds)
            if not self._my_turn(ticket):
                return self.waiting.index(ticket) + 1
            self.waiting.remove(ticket)
            self.running += 1
            self._free.notify_all()
            return 0

    def _my_turn(self, ticket) -> bool:
        return self.running < self.slots and self.waiting[0] is ticket

    def leave(self, ticket):
        """Done, or gone: frees the place in the line or the slot."""
        with self._free:
            self.held -= Counter(ticket.who)  # keeps only what is above nought
            if ticket in self.waiting:
                self.waiting.remove(ticket)
            else:
                self.running -= 1
            self._free.notify_all()


def cores() -> int:
    """Cores that this process may really use: a container's share, not its host's count."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup, or "max"
        pass
    return count


def reach_this_machine():
    """Keep what is on this machine away from a proxy that the environment names."""
    for name in ("no_proxy", "NO_PROXY"):
        known = [place for place in os.environ.get(name, "").split(",") if place]
        os.environ[name] = ",".join(dict.fromkeys([*known, "127.0.0.1", "localhost", "::1"]))
