"""What counting alone reaches: results/ngram.json, or with --standin results/ngram_standin.json."""

import argparse
import time

from data import shakespeare, standin
from data.files import say
from data.ngram import NGram, table
from lab.machine import write_result
from lab.project import ROOT

WINDOWS = (8, 16, 32, 64, 128, 256, 1024)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m bench.marks", description=__doc__)
    parser.add_argument("--standin", action="store_true",
                        help="measure the stand-in text instead of Tiny Shakespeare")
    args, start = parser.parse_args(argv), time.perf_counter()
    try:
        text = standin.make() if args.standin else shakespeare.find_text(allow_standin=False)[1]
    except shakespeare.DataError as error:
        raise SystemExit(str(error)) from None
    corpus = shakespeare.corpus_from_text(text, "standin" if args.standin else "tinyshakespeare")
    V = corpus.tokenizer.vocab_size
    rows, best = table(corpus.train, corpus.val, V), NGram(5, V).fit(corpus.train)
    windows = {str(size): best.loss_in_windows(corpus.val, size) for size in WINDOWS}
    measured = {"unit": "nats/char", "val_targets": len(corpus.val) - 1, "rows": rows,
                "windows_5gram": windows}
    if args.standin:
        measured["floor"], measured["floor_se"] = standin.floor(text)
    path = ROOT / "results" / ("ngram_standin.json" if args.standin else "ngram.json")
    write_result(path, {"longest": 8, "windows": list(WINDOWS)}, corpus, **measured,
                 seconds=time.perf_counter() - start)
    for row in rows:
        say("{name:>8}  val {val_loss:.3f}  train {train_loss:.3f}  unseen {unseen:6.1%}".format(**row))
    say("5-gram in windows of " + ", ".join(f"{size}: {loss:.3f}" for size, loss in windows.items()))
    say(f"written to {path}")


if __name__ == "__main__":
    main()
