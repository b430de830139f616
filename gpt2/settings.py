"""The settings of a training run: every field, the presets, what cannot go together, and the command line."""

import argparse
import dataclasses
import difflib
import math
import os
import re
import shlex
from dataclasses import dataclass

from gpt2.errors import TrainError

# a checkpoint continues only a run with the same shape and the same law; the rest may change on the way
SHAPE_FIELDS = ("n_layer", "n_head", "n_embd", "block_size", "bias", "tie_weights")
LAW_FIELDS = ("tokenizer", "dropout", "tokens_per_step", "optimizer", "lr", "muon_lr", "min_lr", "schedule",
              "warmup_steps", "weight_decay", "beta1", "beta2", "grad_clip", "order", "seed", "windows",
              "teacher", "teacher_weight", "freeze_matrices")
NO_END = 10**9  # max_steps of a run that only the clock ends


def setting(default, help, least=None, below=None, choices=None):
    """A field with its help, and what its values may be: at least, below, one of `choices`."""
    meta = dict(help=help, least=least, below=below, choices=choices)
    return dataclasses.field(default=default, metadata=meta)


@dataclass
class TrainConfig:
    preset: str = setting("cpu", "the settings to start from; every other flag overrides one of them")
    out_dir: str = setting("", "folder of the run: last.pt, best/, history.jsonl, a log (empty: none)")
    resume: str = setting("no", "auto: continue the run in the output folder or its copy, or start it; "
                          "overwrite: throw it away; no: refuse", choices=("no", "auto", "overwrite"))
    text: str = setting("", "a text file of your own; empty: Tiny Shakespeare")
    data: str = setting("", "folder of token shards from `python -m data.shards`, for large texts")
    tokenizer: str = setting("char", "char: one id a character; bpe: GPT-2's own pieces of words",
                             choices=("char", "bpe"))
    n_layer: int = setting(4, "number of blocks", 1)
    n_head: int = setting(5, "attention heads in a block; must divide n_embd", 1)
    n_embd: int = setting(160, "width of the model", 1)
    block_size: int = setting(128, "context: how many tokens the model sees at once", 1)
    dropout: float = setting(0.0, "share of activations zeroed in training; for a small text", 0, 1)
    bias: bool = setting(True, "biases in Linear and LayerNorm, as in GPT-2")
    tie_weights: bool = setting(True, "one table reads tokens in and scores them out, as in GPT-2")
    batch_size: int | str = setting(16, "most sequences at once on a device, or auto; changes only memory")
    tokens_per_step: int = setting(2048, "tokens in a step, over all micro-batches and processes", 1)
    max_steps: int = setting(4200, "optimizer steps of the whole run; given alone, no clock ends it", 1,
                             NO_END + 1)
    minutes: float = setting(0.0, "most minutes of the run, its last validation included: the rate falls to "
                             "its end with the clock; 0: only steps; given alone, only the clock", 0,
                             1_000_000)
    optimizer: str = setting("muon", "muon: Muon on the blocks' matrices, AdamW elsewhere; adamw: AdamW",
                             choices=("adamw", "muon"))
    lr: float = setting(4e-3, "highest learning rate of AdamW", 0)
    muon_lr: float = setting(0.02, "highest learning rate of Muon", 0)
    min_lr: float = setting(0.0, "learning rate at the end", 0)
    schedule: str = setting("linear", "cosine, linear or constant", choices=("cosine", "linear", "constant"))
    warmup_steps: int = setting(100, "steps of rising rate at the start (at most half the schedule)", 0)
    decay_steps: int = setting(0, "step at which the schedule ends; 0: at max_steps", 0)
    weight_decay: float = setting(0.1, "pull towards zero, on matrices only", 0)
    beta1: float = setting(0.9, "AdamW's memory of the gradient", 0, 1)
    beta2: float = setting(0.99, "AdamW's memory of its square", 0, 1)
    grad_clip: float = setting(1.0, "longest gradient (its norm) that passes unshortened; 0: no limit", 0)
    eval_every: int = setting(500, "steps between exact validations, each over the whole validation text", 1)
    patience: int = setting(0, "stop after this many validations without a better one; 0: never", 0)
    best_dtype: str = setting("fp32", "type of the numbers in best/: fp32, or fp16 for half the size",
                              choices=("fp32", "fp16"))
    target_loss: float = setting(0.0, "stop when the training loss of a step is this low; 0: never", 0)
    sample_chars: int = setting(200, "tokens of sample text written at each validation; 0: none", 0)
    save_every: int = setting(500, "steps between checkpoints; 0: only by time", 0)
    save_minutes: float = setting(10.0, "minutes between checkpoints", 0)
    keep_steps: str = setting("", "steps whose weights stay in moments/STEP, in float16: 0,20,100,500")
    copy_to: str = setting("", "second folder (Drive, say) that gets a copy every 20 minutes and at the end")
    windows: str = setting("", "window lengths in turn with their shares of the run, 128:0.6,1024:0.4; "
                           "empty: block_size")
    grow_from: str = setting("", "begin as the models of these folders (best/), side by side, commas between")
    freeze_matrices: bool = setting(False, "train biases and LayerNorms only: it mends what growing left")
    teacher: str = setting("", "folders of models, commas between them, whose mean probabilities are targets "
                           "beside the text")
    teacher_weight: float = setting(0.5, "weight of the teachers' probabilities; the text has the rest", 0)
    order: str = setting("shuffled", "shuffled: each window once an epoch, in a fresh order; random: drawn "
                         "anew each time", choices=("shuffled", "random"))
    seed: int = setting(1337, "decides first weights, batches and samples", 0, 2**63)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1 or mps")
    precision: str = setting("auto", "auto (by the device's capability), fp32, bf16 or fp16",
                             choices=("auto", "fp32", "bf16", "fp16"))
    compile: bool = setting(False, "try torch.compile; falls back with a line where it cannot")
    tensorboard: bool = setting(True, "write scalars and samples for TensorBoard to OUT_DIR/tb")
    log_every: int = setting(1, "steps between log lines on the screen; 0: only warnings and, once a minute, "
                             "where the run stands (the log file has every step)", 0)
    bar: bool = setting(True, "show a progress bar where the screen is a terminal")

    @classmethod
    def preset_of(cls, name, **overrides):
        """The settings of a preset, some overridden. Raises TrainError in one sentence for what cannot be."""
        if name not in PRESETS:
            raise TrainError(f"Unknown preset {name!r}{did_you_mean(name, PRESETS)}: "
                             f"choose one of {', '.join(PRESETS)}.")
        unknown = overrides.keys() - {f.name for f in dataclasses.fields(cls)}
        if unknown:
            raise TrainError(f"Unknown setting {min(unknown)!r}: `python train_gpt2.py --help` lists them "
                             "all.")
        c = cls(**{"preset": name, **PRESETS[name], **overrides})
        by_steps, by_clock = overrides.keys() & {"max_steps", "decay_steps"}, bool(overrides.get("minutes"))
        if by_steps and "minutes" not in overrides:
            c.minutes = 0.0
        if by_clock and not by_steps:
            c.max_steps = NO_END
        if c.block_size > 0:  # the preset's own numbers follow those given
            sequences = max(1, round(c.tokens_per_step / c.block_size))
            if "tokens_per_step" not in overrides:
                c.tokens_per_step = sequences * c.block_size
            if "batch_size" not in overrides:
                c.batch_size = min(c.batch_size, sequences)
        return c.check()

    def check(self):
        """Refuse, in one sentence, values that cannot go together. Returns self."""
        check_settings(self)
        return self

    @property
    def horizon(self):
        return self.decay_steps or self.max_steps

    @property
    def sequences(self):
        return self.tokens_per_step // self.block_size

    @property
    def window_parts(self):
        """[(length, share of the run), ...]"""
        parts = [part.split(":") for part in self.windows.split(",") if part]
        return [(int(n), float(share)) for n, share in parts] or [(self.block_size, 1.0)]

    @property
    def moments(self):
        """The steps of keep_steps."""
        return {int(step) for step in self.keep_steps.split(",") if step}

    def window_at(self, share):
        """The length of the training windows when this share of the run is done."""
        left, (last, _) = share, self.window_parts[-1]
        for length, part in self.window_parts:
            left -= part
            if left < 0:
                return length
        return last


PRESETS = {
    "quick": dict(n_layer=2, n_head=2, n_embd=32, block_size=32, batch_size=16, tokens_per_step=512,
                  max_steps=200, lr=2e-2, muon_lr=0.05, warmup_steps=10, order="random", eval_every=100,
                  save_every=100, tensorboard=False),
    "cpu": dict(minutes=5.0),
    "baby": dict(n_layer=6, n_head=6, n_embd=384, block_size=256, dropout=0.2, batch_size=64,
                 tokens_per_step=64 * 256, max_steps=5000, optimizer="adamw", lr=1e-3, min_lr=1e-4,
                 schedule="cosine", order="random", eval_every=250),
    # the summit (results/summit.json): four seeds, then --grow-from and --teacher name their best/ folders;
    # the seeds were measured in two stints of 2,280 and 2,130 steps (bench/summit.py), here they are one
    "gpt2-seed": dict(n_layer=4, n_head=3, n_embd=192, block_size=1024, batch_size=2, muon_lr=0.025,
                      max_steps=4400, windows="128:0.28,256:0.12,1024:0.6"),
    "gpt2-char": dict(n_layer=12, n_head=12, n_embd=768, block_size=1024, batch_size=1, tokens_per_step=4096,
                      max_steps=60, optimizer="adamw", lr=1e-3, warmup_steps=4, freeze_matrices=True,
                      teacher_weight=1.0, eval_every=30, save_every=30),
    "gpt2-bpe": dict(tokenizer="bpe", n_layer=12, n_head=12, n_embd=768, block_size=1024, dropout=0.2,
                     batch_size=4, tokens_per_step=32 * 1024, max_steps=1000, optimizer="adamw", lr=6e-4,
                     min_lr=6e-5, schedule="cosine", order="random", eval_every=50, patience=5,
                     save_every=200),
}


def flag(name):
    return "--" + name.replace("_", "-")


def did_you_mean(word, known):
    close = difflib.get_close_matches(str(word), known, n=1)
    return f" (did you mean {close[0]}?)" if close else ""


# ---- What cannot be


def refuse(bad, sentence):
    if bad:
        raise TrainError(sentence)


def check_settings(c):
    """Raise TrainError, in one sentence, for values that cannot be or cannot go together."""
    for f in dataclasses.fields(c):
        check_value(flag(f.name), getattr(c, f.name), **f.metadata)
    refuse(not c.lr > 0, "--lr is 0: nothing would be learned.")
    refuse(c.min_lr > c.lr,
           f"--min-lr {c.min_lr} is above --lr {c.lr}: the rate falls from the one to the other.")
    refuse(c.n_embd % c.n_head, f"--n-embd {c.n_embd} cannot be split into --n-head {c.n_head} equal heads: "
           f"choose a width that is a multiple of {c.n_head}.")
    check_batch(c)
    check_windows(c)
    refuse(not re.fullmatch(r"(\d+(,\d+)*)?", c.keep_steps),
           f"--keep-steps is {c.keep_steps!r}: give whole numbers with commas between, as 0,20,100.")
    refuse(c.text and c.data, "--text and --data name two texts: give one of them.")
    for name in ("out_dir", "copy_to"):
        folder = getattr(c, name)
        refuse(os.path.isfile(folder), f"{flag(name)} {folder} is a file: name a folder.")
    refuse(c.copy_to and c.out_dir and os.path.realpath(c.copy_to) == os.path.realpath(c.out_dir),
           "--copy-to is --out-dir itself: name another folder.")
    refuse(not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", c.device),
           f"--device is {c.device!r}: choose auto, cpu, mps, cuda or cuda:N.")


def check_value(name, value, help, least, below, choices):
    if choices:
        refuse(value not in choices, f"{name} is {value!r}: choose one of {', '.join(choices)}.")
    if least is not None:  # NaN does not fit either
        fits = least <= value < (math.inf if below is None else below)
        under = f" and below {below}" if below is not None else " and finite" if value == math.inf else ""
        refuse(not fits, f"{name} is {value}: it must be at least {least}{under}.")


def check_batch(c):
    near = max(1, round(c.tokens_per_step / c.block_size)) * c.block_size
    refuse(c.tokens_per_step % c.block_size,
           f"--tokens-per-step {c.tokens_per_step} is not a whole number of sequences of "
           f"--block-size {c.block_size}: try {near}.")
    if c.batch_size == "auto":
        return
    refuse(not isinstance(c.batch_size, int) or c.batch_size < 1,
           f"--batch-size is {c.batch_size!r}: give a whole number of at least 1, or auto.")
    refuse(c.batch_size > c.sequences,
           f"--batch-size {c.batch_size} is more than the {c.sequences} sequences of one step: "
           f"raise --tokens-per-step (now {c.tokens_per_step}) or lower it.")


def check_windows(c):
    how = f"--windows is {c.windows!r}: give lengths with shares that make 1, as 128:0.6,1024:0.4"
    try:
        parts = c.window_parts
    except ValueError:
        raise TrainError(f"{how}.") from None
    refuse(abs(sum(share for _, share in parts) - 1) > 1e-6, f"{how}.")
    for length, _ in parts:
        refuse(not 0 < length <= c.block_size, f"{how}, none longer than --block-size {c.block_size}.")
        refuse(c.tokens_per_step % length, f"{how}, each a part of --tokens-per-step {c.tokens_per_step}.")


# ---- The command line


def parse_command(argv=None):
    """Arguments -> (TrainConfig, whether --plan). Raises TrainError in one sentence."""
    parser = make_parser()
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        known = [flag(f.name) for f in dataclasses.fields(TrainConfig)]
        raise TrainError(f"Unknown argument {unknown[0]!r}{did_you_mean(unknown[0].split('=')[0], known)}: "
                         "--help lists them all.")
    given = {name: value for name, value in vars(args).items() if value is not None}
    only_plan, preset = given.pop("plan"), given.pop("preset", "cpu")
    given.setdefault("out_dir", os.path.join("out", preset))
    return TrainConfig.preset_of(preset, **given), only_plan


class OneSentence(argparse.ArgumentParser):
    def error(self, message):
        raise TrainError(f"{message[0].upper()}{message[1:]}: --help shows what is possible.")


def make_parser():
    """One flag a field."""
    parser = OneSentence(prog="train_gpt2.py", formatter_class=argparse.RawDescriptionHelpFormatter,
                         allow_abbrev=False, epilog=presets_text(),
                         description="Train a GPT-2. Choose a preset; the other flags change its settings.")
    parser.add_argument("--plan", action="store_true",
                        help="only show parameters, memory and arithmetic, by formula")
    for f in dataclasses.fields(TrainConfig):
        text = f.metadata["help"] + (f" [{f.default}]" if f.default != "" else "")
        parser.add_argument(flag(f.name), help=text.replace("%", "%%"), **how_to_parse(f))
    return parser


def how_to_parse(f):
    if f.type is bool:
        return {"action": argparse.BooleanOptionalAction}
    if f.name == "batch_size":
        return {"type": number_or_auto, "metavar": "N|auto"}
    choices = f.metadata["choices"] or (PRESETS if f.name == "preset" else ())
    if choices:
        return {"metavar": "|".join(choices)}  # checked later, with a better sentence
    return {"type": f.type, "metavar": "X"}


def number_or_auto(text):
    return text if text == "auto" else int(text)


def presets_text():
    lines = ["presets (layers / heads / width / context, tokens a step, length); in [ ] above: those of cpu"]
    for name in PRESETS:
        c = TrainConfig(preset=name, **PRESETS[name])
        length = f"{c.minutes:g} minutes or {c.max_steps:,} steps" if c.minutes else f"{c.max_steps:,} steps"
        lines.append(f"  {name:<10} {c.n_layer} / {c.n_head} / {c.n_embd} / {c.block_size}, "
                     f"{c.tokens_per_step:,}, {length}, {c.tokenizer}, {c.optimizer}")
    example = "python train_gpt2.py --preset gpt2-char --batch-size auto --out-dir out/char --resume auto"
    return "\n".join([*lines, "", f"example: {example}"])


def as_command(config, **changes):
    """The shell command that starts this run: the preset and what differs from it."""
    config = dataclasses.replace(config, **changes)
    preset = TrainConfig(preset=config.preset, **PRESETS[config.preset])
    words = ["python", "train_gpt2.py", "--preset", config.preset]
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        only_clock = f.name == "minutes" and config.max_steps == NO_END
        if value == getattr(preset, f.name) and not only_clock or value == NO_END:
            continue
        if f.type is bool:
            words += [flag(f.name) if value else flag("no_" + f.name)]
        else:
            words += [flag(f.name), str(value)]
    return shlex.join(words)
