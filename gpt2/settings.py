"""The settings of a training run: every field, the presets, what cannot go together, and the command line."""

import argparse
import dataclasses
import difflib
import inspect
import math
import os
import re
import shlex
from dataclasses import dataclass

from gpt2.errors import TrainError

# a checkpoint continues only a run with the same shape and the same law; the other fields may change on the way
SHAPE_FIELDS = ("n_layer", "n_head", "n_embd", "block_size", "bias", "tie_weights")
LAW_FIELDS = ("tokenizer", "dropout", "tokens_per_step", "optimizer", "lr", "muon_lr", "min_lr", "schedule",
              "warmup_steps", "weight_decay", "beta1", "beta2", "grad_clip", "order", "seed", "windows", "teacher",
              "teacher_weight")


@dataclass
class TrainConfig:
    preset: str = "cpu"  # the settings to start from; every other flag overrides one of them
    out_dir: str = ""  # folder of the run: last.pt, best/, history.jsonl, a log (empty in Python: nothing is written)
    resume: str = "no"  # auto: continue the run in the output folder, or start it; overwrite: throw it away; no: refuse
    data: str = ""  # folder of token shards made by `python -m data.shards`; empty: Tiny Shakespeare
    tokenizer: str = "char"  # char: one id a character; bpe: GPT-2's own pieces of words
    n_layer: int = 4  # number of blocks
    n_head: int = 5  # attention heads in a block; must divide n_embd
    n_embd: int = 160  # width of the model
    block_size: int = 128  # context: how many tokens the model sees at once
    dropout: float = 0.0  # share of activations zeroed while training; helps when the text is small
    bias: bool = True  # biases in Linear and LayerNorm, as in GPT-2
    tie_weights: bool = True  # one table reads tokens in and scores them out, as in GPT-2
    batch_size: int | str = 16  # most sequences at once on one device, or auto; does not change the result, only memory
    tokens_per_step: int = 2048  # tokens in one optimizer step, over all micro-batches and processes
    max_steps: int = 4200  # optimizer steps of the whole run
    optimizer: str = "muon"  # muon: Muon on the blocks' matrices, AdamW on the rest; adamw: AdamW on all
    lr: float = 4e-3  # highest learning rate of AdamW
    muon_lr: float = 0.02  # highest learning rate of Muon
    min_lr: float = 0.0  # learning rate at the end
    schedule: str = "linear"  # cosine, linear, wsd (stable, then a decay over the last fifth) or constant
    warmup_steps: int = 100  # steps of rising learning rate at the start (at most half the schedule)
    decay_steps: int = 0  # step at which the schedule ends; 0: at max_steps
    weight_decay: float = 0.1  # pull towards zero, on matrices only
    beta1: float = 0.9  # AdamW's memory of the gradient
    beta2: float = 0.99  # AdamW's memory of its square
    grad_clip: float = 1.0  # longest gradient (its norm) that passes unshortened; 0: no limit
    eval_every: int = 500  # steps between exact validations, each over the whole validation text
    patience: int = 0  # stop after this many validations without a better one; 0: never
    best_dtype: str = "fp32"  # type of the numbers in best/: fp32, or fp16 for half the size
    target_loss: float = 0.0  # stop when the training loss of a step is this low; 0: never
    sample_chars: int = 200  # tokens of sample text written at each validation; 0: none
    save_every: int = 500  # steps between checkpoints; 0: only by time
    save_minutes: float = 10.0  # minutes between checkpoints
    copy_to: str = ""  # second folder (Drive, say) that gets a copy every 20 minutes and at the end
    minutes: float = 0.0  # the schedule follows the clock and ends after so many minutes; 0: it follows the steps
    windows: str = ""  # window lengths in turn with their shares of the run, 128:0.6,1024:0.4; empty: block_size
    grow_from: str = ""  # begin as the models of these folders (best/), side by side, commas between them
    teacher: str = ""  # folders of models, commas between them, whose mean probabilities are targets beside the text
    teacher_weight: float = 0.5  # weight of the teachers' probabilities; the text has the rest
    order: str = "shuffled"  # shuffled: each window once an epoch, in a fresh order; random: drawn anew each time
    seed: int = 1337  # decides first weights, batches and samples
    device: str = "auto"  # auto, cpu, cuda, cuda:1 or mps
    precision: str = "auto"  # auto (by the device's capability), fp32, bf16 or fp16
    compile: bool = False  # try torch.compile; falls back with a line where it cannot
    tensorboard: bool = True  # write scalars and samples for TensorBoard to OUT_DIR/tb
    log_every: int = 1  # steps between log lines on the screen; 0: only warnings (the log file has every step)
    bar: bool = True  # show a progress bar where the screen is a terminal

    @classmethod
    def preset_of(cls, name, **overrides):
        """The settings of a preset, some of them overridden. Raises TrainError in one sentence for what cannot be."""
        if name not in PRESETS:
            close = difflib.get_close_matches(str(name), PRESETS, n=1)
            raise TrainError(f"Unknown preset {name!r}{f' (did you mean {close[0]}?)' if close else ''}: "
                             f"choose one of {', '.join(PRESETS)}.")
        unknown = overrides.keys() - {f.name for f in dataclasses.fields(cls)}
        if unknown:
            raise TrainError(f"Unknown setting {min(unknown)!r}: `python train_gpt2.py --help` lists them all.")
        c = cls(**{"preset": name, **PRESETS[name], **overrides})
        if "tokens_per_step" not in overrides and isinstance(c.block_size, int) and c.block_size > 0:
            c.tokens_per_step = max(1, round(c.tokens_per_step / c.block_size)) * c.block_size  # whole sequences
            if "batch_size" not in overrides:
                c.batch_size = min(c.batch_size, c.sequences)
        return c.check()

    def check(self):
        """Refuse, in one sentence, values that cannot go together. Returns self."""
        check_settings(self)
        return self

    @property
    def horizon(self):
        return self.decay_steps or self.max_steps

    @property
    def warmup(self):
        return min(self.warmup_steps, self.horizon // 2)

    def window_at(self, share):
        """The length of the training windows when this share of the run is done."""
        left, (last, _) = share, self.window_parts[-1]
        for length, part in self.window_parts:
            left -= part
            if left < 0:
                return length
        return last

    @property
    def window_parts(self):
        """[(length, share of the run), ...]"""
        parts = [part.split(":") for part in self.windows.split(",") if part]
        return [(int(n), float(share)) for n, share in parts] or [(self.block_size, 1.0)]

    @property
    def sequences(self):
        return self.tokens_per_step // self.block_size


PRESETS = {
    "quick": dict(n_layer=2, n_head=2, n_embd=32, block_size=32, batch_size=16, tokens_per_step=512, max_steps=200,
                  lr=2e-2, muon_lr=0.05, warmup_steps=10, order="random", eval_every=100, save_every=100,
                  tensorboard=False),
    "cpu": dict(),
    "baby": dict(n_layer=6, n_head=6, n_embd=384, block_size=256, dropout=0.2, batch_size=64, tokens_per_step=64 * 256,
                 max_steps=5000, optimizer="adamw", lr=1e-3, min_lr=1e-4, schedule="cosine", order="random",
                 eval_every=250),
    # the summit, in two stages: four seeds (seed=1, 2, 3, 4), then --grow-from puts them side by side
    "gpt2-seed": dict(n_layer=4, n_head=3, n_embd=192, block_size=1024, batch_size=2, muon_lr=0.025, max_steps=3400,
                      windows="128:0.4,256:0.15,1024:0.45"),
    "gpt2-char": dict(n_layer=12, n_head=12, n_embd=768, block_size=1024, dropout=0.1, batch_size=2,
                      tokens_per_step=4096, max_steps=100, optimizer="adamw", lr=2e-4, warmup_steps=7, eval_every=50,
                      save_every=50),
    "gpt2-bpe": dict(tokenizer="bpe", n_layer=12, n_head=12, n_embd=768, block_size=1024, dropout=0.2, batch_size=4,
                     tokens_per_step=32 * 1024, max_steps=1000, optimizer="adamw", lr=6e-4, min_lr=6e-5,
                     schedule="cosine", order="random", eval_every=50, patience=5, save_every=200),
}

CHOICES = {"resume": ("no", "auto", "overwrite"), "tokenizer": ("char", "bpe"), "optimizer": ("adamw", "muon"),
           "schedule": ("cosine", "linear", "wsd", "constant"), "precision": ("auto", "fp32", "bf16", "fp16"),
           "best_dtype": ("fp32", "fp16"), "order": ("shuffled", "random")}
AT_LEAST_ONE = ("n_layer", "n_head", "n_embd", "block_size", "tokens_per_step", "max_steps", "eval_every")
NOT_NEGATIVE = ("lr", "muon_lr", "min_lr", "warmup_steps", "decay_steps", "weight_decay", "grad_clip", "patience",
                "target_loss", "sample_chars", "save_every", "save_minutes", "log_every", "seed", "minutes",
                "teacher_weight")


def flag(name):
    return "--" + name.replace("_", "-")


def check_settings(c):
    def refuse(bad, sentence):
        if bad:
            raise TrainError(sentence)

    for name, allowed in CHOICES.items():
        value = getattr(c, name)
        refuse(value not in allowed, f"{flag(name)} is {value!r}: choose one of {', '.join(allowed)}.")
    for name in AT_LEAST_ONE + NOT_NEGATIVE:
        value, least = getattr(c, name), 1 if name in AT_LEAST_ONE else 0
        refuse(not value >= least or value == math.inf, f"{flag(name)} is {value}: it must be at least {least}.")
    for name in ("dropout", "beta1", "beta2"):
        refuse(not 0 <= getattr(c, name) < 1, f"{flag(name)} is {getattr(c, name)}: it must be at least 0 and below 1.")
    refuse(not c.lr > 0, "--lr is 0: nothing would be learned.")
    refuse(c.n_embd % c.n_head, f"--n-embd {c.n_embd} cannot be split into --n-head {c.n_head} equal heads: "
           f"choose a width that is a multiple of {c.n_head}.")
    near = max(1, round(c.tokens_per_step / c.block_size)) * c.block_size
    refuse(c.tokens_per_step % c.block_size, f"--tokens-per-step {c.tokens_per_step} is not a whole number of "
           f"sequences of --block-size {c.block_size}: try {near}.")
    refuse(c.batch_size != "auto" and (not isinstance(c.batch_size, int) or c.batch_size < 1),
           f"--batch-size is {c.batch_size!r}: give a whole number of at least 1, or auto.")
    refuse(c.batch_size != "auto" and c.batch_size > c.sequences, f"--batch-size {c.batch_size} is more than the "
           f"{c.sequences} sequences of one step: raise --tokens-per-step (now {c.tokens_per_step}) or lower it.")
    check_windows(c, refuse)
    refuse(c.min_lr > c.lr, f"--min-lr {c.min_lr} is above --lr {c.lr}: the rate falls from the one to the other.")
    refuse(c.out_dir and os.path.isfile(c.out_dir), f"--out-dir {c.out_dir} is a file: name a folder.")
    refuse(not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", c.device),
           f"--device is {c.device!r}: choose auto, cpu, mps, cuda or cuda:N.")


def check_windows(c, refuse):
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
    """Arguments -> (TrainConfig, whether --plan, whether --summary). Raises TrainError in one sentence."""
    parser = make_parser()
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        known = [option for action in parser._actions for option in action.option_strings]
        close = difflib.get_close_matches(unknown[0].split("=")[0], known, n=1)
        raise TrainError(f"Unknown argument {unknown[0]!r}{f' (did you mean {close[0]}?)' if close else ''}: "
                         "--help lists them all.")
    given = {k: v for k, v in vars(args).items() if v is not None and k not in ("plan", "summary", "preset")}
    name = args.preset or "cpu"
    given.setdefault("out_dir", os.path.join("out", name))
    return TrainConfig.preset_of(name, **given), args.plan, args.summary


class OneSentence(argparse.ArgumentParser):
    def error(self, message):
        raise TrainError(f"{message[0].upper()}{message[1:]}: --help shows what is possible.")


def make_parser():
    """One flag a field; its help is the comment beside the field."""
    parser = OneSentence(prog="train_gpt2.py", formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False,
                         description="Train a GPT-2. Choose a preset; every other flag changes one of its settings.",
                         epilog=presets_text())
    parser.add_argument("--plan", action="store_true", help="only show parameters, memory and arithmetic, by formula")
    parser.add_argument("--summary", action="store_true", help="only show the layers (torchinfo) and the plan")
    comments = dict(re.findall(r"^    (\w+): [^#\n]*#\s*(.*)$", inspect.getsource(TrainConfig), re.MULTILINE))
    for f in dataclasses.fields(TrainConfig):
        text = f"{comments[f.name]} [{f.default}]" if f.default != "" else comments[f.name]
        how = {"type": f.type, "metavar": "X"}
        if f.name == "batch_size":
            how = {"type": number_or_auto, "metavar": "N|auto"}
        if f.name in CHOICES or f.name == "preset":
            how = {"metavar": "|".join(CHOICES.get(f.name, PRESETS))}  # checked later, with a better sentence
        if f.type is bool:
            how = {"action": argparse.BooleanOptionalAction}
        parser.add_argument(flag(f.name), help=text.replace("%", "%%"), **how)
    return parser


def number_or_auto(text):
    return text if text == "auto" else int(text)


def presets_text():
    lines = ["presets (layers / heads / width / context, tokens a step, steps); in [ ] above: the values of cpu"]
    for name in PRESETS:
        c = TrainConfig(preset=name, **PRESETS[name])
        lines.append(f"  {name:<10} {c.n_layer} / {c.n_head} / {c.n_embd} / {c.block_size}, {c.tokens_per_step:,}, "
                     f"{c.max_steps:,}, {c.tokenizer}, {c.optimizer}")
    lines += ["", "example: python train_gpt2.py --preset gpt2-char --batch-size auto --out-dir out/char --resume auto"]
    return "\n".join(lines)


def as_command(config, **changes):
    """The shell command that starts this run: the preset and what differs from it."""
    config = dataclasses.replace(config, **changes)
    preset = TrainConfig(preset=config.preset, **PRESETS[config.preset])
    words = ["python", "train_gpt2.py", "--preset", config.preset]
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if value == getattr(preset, f.name):
            continue
        words += [flag(f.name) if value else flag("no_" + f.name)] if f.type is bool else [flag(f.name), str(value)]
    return shlex.join(words)
