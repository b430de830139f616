"""The ladder: every model's exact validation loss beside the letter counts that are as good.

    ladder = Ladder(marks=[3.347, 2.482, ...])      # marks[n - 1]: loss of counting n letters
    ladder.add("one head", 2.46)                    # prints what it passed and what comes next
    ladder.save("build/ladder.json")
"""

from lab.machine import write_json


class Ladder:
    """Rungs in the order of climbing; `marks`: the n-grams' losses, nats a character.

    On a small text the longer tables are the worse ones: a mark counts as passed after those before it.
    """

    def __init__(self, marks):
        self.marks, self.rungs = list(marks), []

    def passed(self, loss):
        """How many letters one must count to be as good: the marks in a row that `loss` has reached."""
        return next((n for n, mark in enumerate(self.marks) if not loss <= mark), len(self.marks))

    def mark(self, loss):
        n = self.passed(loss)
        return f"counting {n} letter{'s' if n > 1 else ''}" if n else ""

    def add(self, name, loss, seconds=None, sample=None):
        """Add a rung, or replace the one of this name (a cell run again), and print its line.

        The line says what it passed and what comes next. sample: some text that the model wrote.
        """
        names = [rung["name"] for rung in self.rungs]
        place = names.index(name) if name in names else len(names)
        before = self.rungs[place - 1]["val_loss"] if place else None
        self.rungs[place : place + 1] = [{"name": name, "val_loss": float(loss), "mark": self.mark(loss),
                                          "seconds": seconds, "sample": sample}]
        n = self.passed(loss)
        line = f"{name}: {loss:.3f} nats"
        if before is not None:
            line += f" ({loss - before:+.3f})"
        line += f" | as good as {self.mark(loss)}" if n else " | no mark passed"
        if n < len(self.marks):
            line += f" | next mark: {n + 1} letter{'s' if n else ''}, {self.marks[n]:.3f}"
        print(line)

    def __getitem__(self, name):
        """The loss of a rung by its name."""
        return next(rung["val_loss"] for rung in self.rungs if rung["name"] == name)

    def save(self, path, **facts):
        """Write {"rungs": [...], "marks": [...], ...facts} as JSON, in one piece."""
        write_json(path, {"rungs": self.rungs, "marks": self.marks, **facts})
