"""The first steps of the student runs that the project grew from, beside what their logs told.

    python -m bench.first_steps --run char-60 --steps 245 --threads 2      an hour; results/training_runs.json
    python -m bench.first_steps --run 124m --steps 101

A run is named by the folder in its command (results/training_runs.json, the README's table). Its own command
is run, cut off after --steps; what a later call finds in the folder, it goes on with.
"""

import shlex
from dataclasses import replace
from pathlib import Path

import torch

from bench import common
from data.files import say
from gpt2.machine import commit, machine
from gpt2.runlog import read_history
from gpt2.settings import parse_command
from lab.machine import markdown, today, write_json
from lab.project import ROOT, read_json
from train_gpt2 import train

RESULT = common.RESULTS / "training_runs.json"


def settings(command, steps, batch):
    """The run's own settings, up to a step; the rate falls as in the whole run."""
    config, _ = parse_command(shlex.split(command)[2:])
    return replace(config, max_steps=steps, decay_steps=config.max_steps, batch_size=batch, eval_every=10**6,
                   save_every=20, sample_chars=0, tensorboard=False, bar=False, log_every=10,
                   out_dir=str(ROOT / config.out_dir))


def fill(run, history, facts):
    """Put our mean training loss beside each stretch of steps that their log tells of."""
    losses = {r["step"]: r["loss"] for r in history if "loss" in r}
    for stretch in run["first_steps"]:
        steps = range(stretch["from"], stretch["to"] + 1)
        if all(step in losses for step in steps):
            stretch["ours"] = {"loss": sum(losses[step] for step in steps) / len(steps), **facts}


def table_markdown():
    """Their logged training loss and ours, a row a stretch of steps; our validation where a run ended."""
    rows = []
    for run in read_json(RESULT)["runs"]:
        for stretch in run.get("first_steps", []):
            ours = stretch["ours"]
            loss = f"{ours['loss']:.4g}" if ours else "not yet measured"
            ended = ours and ours["steps"] == stretch["to"]
            rows.append([run["name"], stretch["what"], stretch["told"], loss,
                         f"{ours['val_loss']:.4f}" if ended else ""])
    return markdown(["run", "training loss", "told", "this code", "then, exact validation"], rows)


def main():
    args = common.options(__doc__, run="char-60", steps=245, batch=4, threads=1)
    torch.set_num_threads(args.threads)
    found = read_json(RESULT)
    runs = {Path(parse_command(shlex.split(r["command"])[2:])[0].out_dir).name: r for r in found["runs"]
            if "first_steps" in r}
    if args.run not in runs:
        raise SystemExit(f"--run {args.run}: no log tells of its first steps, only of {' and '.join(runs)}.")
    run = runs[args.run]
    config = settings(run["command"], args.steps, args.batch)
    progress = train(config).progress
    fill(run, read_history(config.out_dir), {"machine": machine(), "date": today(), **commit(),
                                             "seed": config.seed, "steps": args.steps,
                                             "seconds": progress.seconds, "val_loss": progress.val_loss})
    write_json(RESULT, found)
    say(table_markdown())


if __name__ == "__main__":
    common.start(main)
