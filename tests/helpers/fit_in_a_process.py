"""One fit or mining in a process of its own, which ends at a chosen point."""

import os
import signal
from pathlib import Path

import torch
from child import Child
from fake_encoder import ColorEncoder

import realrag.files as files
import realrag_train.contrastive.fit as fit
import realrag_train.contrastive.mine as mine
import realrag_train.contrastive.negatives as mining
from realrag_train.contrastive.loss import LossConfig
from realrag_train.contrastive.trainer import ContrastiveTraining, FitConfig
from realrag_train.loop.watch import WatchConfig

CONFIG = FitConfig(epochs=6, batch=4, hidden=8, held_out=0.2, refresh=2, seed=3)
LOSS = LossConfig(learned_tau=True)
WATCH = WatchConfig(save_steps=4, log_steps=1)


def fit_here(folder, out="head.safetensors", config=CONFIG, loss=LOSS, watch=WATCH, **more):
    torch.set_num_threads(1)
    negatives = None if loss.kind == "normal" else folder / "negatives.safetensors"
    inputs = fit.FitInputs(
        folder / "bundle", folder / "prompts.jsonl", negatives, drawn=folder / "drawn.safetensors"
    )  # fmt: skip
    return fit.fit_file(inputs, folder / out, config, loss, encoder=ColorEncoder(), watch=watch, **more)


def mine_here(folder, config=mining.MineConfig(), **more):
    inputs = mine.MineInputs(folder / "bundle", folder / "prompts.jsonl", folder / "drawn.safetensors")
    return mine.mine_file(inputs, folder / "negatives.safetensors", config, encoder=ColorEncoder(), **more)


def start(folder, point):
    return Child(run_until, folder, point)


def end(how=signal.SIGKILL):
    os.kill(os.getpid(), how)


def arm(point):
    """End the process at `point`."""
    advance, replace = ContrastiveTraining.advance, os.replace
    if point.startswith("step"):  # before the first checkpoint; between two; SIGTERM or Ctrl-C there
        how = {"term": signal.SIGTERM, "int": signal.SIGINT}.get(point.split("-")[-1], signal.SIGKILL)

        def advance_and_end(self):
            advance(self)
            if self.step == int(point.split("-")[1]):
                end(how)

        ContrastiveTraining.advance = advance_and_end
    elif point.endswith("half-written"):  # the second checkpoint's temporary file is complete but not yet renamed

        def replace_or_end(source, target):
            if str(target).endswith((".checkpoint.safetensors", ".part.safetensors")) and Path(target).exists():
                end()
            replace(source, target)

        files.os.replace = replace_or_end
    elif point == "before-the-head":
        fit.save_head = lambda head, path: end()
    elif point == "mine-before-the-end":
        mine.write_negatives = lambda *given: end()


def mine_until(folder, piece):
    """Mine prompt by prompt, saving after each; end after `piece` prompts."""
    mining.COSINES = 1
    mine_here(folder, save_seconds=0, progress=lambda done, total: end() if done == piece else None)


def run_until(folder, point):
    arm(point)
    if point.startswith("mine"):
        mine_until(folder, {"mine-first-piece": 1, "mine-third-piece": 3}.get(point))
    else:
        fit_here(folder)
