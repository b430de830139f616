"""What counting alone reaches: results/ngram.json, or with --standin results/ngram_standin.json."""

from bench import common
from data import shakespeare, standin
from data.corpus import corpus_from_text
from data.files import say
from data.ngram import NGram, table

WINDOWS = (8, 16, 32, 64, 128, 256, 1024)


def measure(corpus):
    V = corpus.tokenizer.vocab_size
    rows, best = table(corpus.train, corpus.val, V), NGram(5, V).fit(corpus.train)
    windows = {str(size): best.loss_in_windows(corpus.val, size) for size in WINDOWS}
    for row in rows:
        say("{name:>8}  val {val_loss:.3f}  train {train_loss:.3f}  unseen {unseen:6.1%}".format(**row))
    say("5-gram in windows of " + ", ".join(f"{size}: {loss:.3f}" for size, loss in windows.items()))
    return {"unit": "nats/char", "val_targets": len(corpus.val) - 1, "rows": rows, "windows_5gram": windows}


def main(argv=None):
    made_up = common.options(__doc__, argv, standin=False).standin
    text = standin.make() if made_up else shakespeare.find_text(allow_standin=False)[1]
    corpus = corpus_from_text(text, "standin" if made_up else "tinyshakespeare")
    floor = dict(zip(("floor", "floor_se"), standin.floor(text), strict=True)) if made_up else {}
    path, config = "ngram_standin.json" if made_up else "ngram.json", {"longest": 8, "windows": list(WINDOWS)}
    common.timed_result(common.RESULTS / path, config, corpus, lambda: measure(corpus), **floor)


if __name__ == "__main__":
    common.start(main)
