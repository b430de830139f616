"""What counting alone reaches: results/ngram.json, or with --standin results/ngram_standin.json."""

from bench import common
from data import shakespeare, standin
from data.corpus import corpus_from_text
from data.files import say
from data.ngram import NGram, table
from lab.project import read_json

WINDOWS = (8, 16, 32, 64, 128, 256, 1024)


def measure(corpus):
    V = corpus.tokenizer.vocab_size
    rows, best = table(corpus.train, corpus.val, V), NGram(5, V).fit(corpus.train)
    windows = {str(size): best.loss_in_windows(corpus.val, size) for size in WINDOWS}
    for row in rows:
        say("{name:>8}  val {val_loss:.3f}  train {train_loss:.3f}  unseen {unseen:6.1%}".format(**row))
    say("5-gram in windows of " + ", ".join(f"{size}: {loss:.3f}" for size, loss in windows.items()))
    return {"unit": "nats/char", "val_targets": len(corpus.val) - 1, "rows": rows, "windows_5gram": windows}


def table_markdown():
    """data/README.md's table: what counting reaches on the real text and on the stand-in."""
    real, made_up = (read_json(common.RESULTS / f"{name}.json") for name in ("ngram", "ngram_standin"))
    lines = {"validation": (real, "val_loss", ".3f"), "training": (real, "train_loss", ".3f"),
             "strings never seen": (real, "unseen", ".1%"),
             "the stand-in, validation": (made_up, "val_loss", ".3f")}
    rows = [[name, *(format(row[key], form) for row in found["rows"])]
            for name, (found, key, form) in lines.items()]
    windows = ", ".join(f"{size}: {loss:.3f}" for size, loss in real["windows_5gram"].items())
    return (f"{common.table(['letters counted', 'even', *range(1, 9)], rows)}\n\n"
            f"5 letters, in windows of a model's size: {windows}. The stand-in's floor, on validation: "
            f"{made_up['floor']:.3f} (standard error {made_up['floor_se']:.3f}).")


def main(argv=None):
    made_up = common.options(__doc__, argv, standin=False).standin
    text = standin.make() if made_up else shakespeare.find_text(allow_standin=False)[1]
    corpus = corpus_from_text(text, "standin" if made_up else "tinyshakespeare")
    floor = dict(zip(("floor", "floor_se"), standin.floor(text), strict=True)) if made_up else {}
    path, config = "ngram_standin.json" if made_up else "ngram.json", {"longest": 8, "windows": list(WINDOWS)}
    common.timed_result(common.RESULTS / path, config, corpus, lambda: measure(corpus), **floor)


if __name__ == "__main__":
    common.start(main)
