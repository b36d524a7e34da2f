"""A watched training: its checkpoint, log, limits and signals, on a training of one number."""

import os
import signal
import sys

import pytest
import torch

from realrag.errors import RealRAGError
from realrag_train.loop import checkpoint
from realrag_train.loop.training import Training
from realrag_train.loop.watch import Hooks, RunFiles, Watch, WatchConfig
from realrag_train.tables import read_csv


class Counting(Training):
    """Adds the step's number to its value; `during` runs inside each step."""

    def __init__(self, steps=10, during=lambda step: None):
        self.steps, self.during, self.value = steps, during, torch.zeros(())

    def advance(self):
        self.during(self.step)
        self.value = self.value + self.step
        self.step += 1

    def figures(self):
        return {"value": self.value.item()}

    def state(self):
        return {"value": self.value}, {"step": str(self.step)}

    def restore(self, tensors, metadata):
        self.value, self.step = tensors["value"], int(metadata["step"])


def watched(training, folder, key="key", hooks=None, **config):
    files = RunFiles.beside(folder / "run.safetensors")
    return Watch(training, key, files, WatchConfig(**{"log_steps": 1, **config}), hooks or Hooks()).run()


def saved_steps(folder):
    return int(checkpoint.load(folder / "run.checkpoint.safetensors", "key")[1]["step"])


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking it")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_and_ctrl_c_both_save_within_a_step_and_the_run_resumes(tmp_path, number):
    before = signal.getsignal(number)
    stopped = Counting(during=lambda step: os.kill(os.getpid(), number) if step == 3 else None)
    assert not watched(stopped, tmp_path)
    assert stopped.step == 4 and saved_steps(tmp_path) == 4 and signal.getsignal(number) is before
    rest = Counting()
    assert watched(rest, tmp_path) and rest.value == sum(range(10))
    assert [row["step"] for row in read_csv(tmp_path / "run.csv")] == [str(step) for step in range(1, 11)]


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking it")
def test_a_second_ctrl_c_seconds_later_interrupts_the_step(tmp_path, monkeypatch):
    monkeypatch.setattr("realrag_train.loop.watch.SECOND_SIGNAL", 0.0)

    def twice(step):
        if step == 3:
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        watched(Counting(during=twice), tmp_path, save_steps=2)
    assert saved_steps(tmp_path) == 2  # the step that was interrupted is not believed


def test_an_error_of_ours_between_steps_saves_what_is_finished(tmp_path):
    def out_of_time(done, total):
        if done == 5:
            raise RealRAGError("Time is up.")

    with pytest.raises(RealRAGError, match="Time is up"):
        watched(Counting(), tmp_path, hooks=Hooks(progress=out_of_time))
    assert saved_steps(tmp_path) == 5


def test_checkpoints_come_by_steps_and_by_minutes(tmp_path):
    for config, expected in (({"save_steps": 4}, [4, 8, 10]), ({"save_minutes": 0.0}, list(range(1, 11)))):
        saves, training = [], Counting()
        hooks = Hooks(saved=lambda saves=saves, training=training: saves.append(training.step))
        folder = tmp_path / str(expected[0])
        watched(training, folder, hooks=hooks, **config)
        assert sorted(set(saves)) == expected


def test_rows_that_a_killed_run_logged_after_its_checkpoint_appear_once(tmp_path):
    watched(Counting(steps=4), tmp_path)
    with open(tmp_path / "run.csv", "a") as file:
        file.write("5,99\n6,99\n")
    watched(Counting(steps=6), tmp_path)
    rows = read_csv(tmp_path / "run.csv")
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5", "6"] and "99" not in [r["value"] for r in rows]


def test_a_sheet_is_asked_for_by_the_clock(tmp_path):
    sheets = []
    watched(Counting(), tmp_path, hooks=Hooks(sheet=lambda: sheets.append(1)), sheet_minutes=1e-12)
    assert len(sheets) == 9  # not after the last step, which ends the run
    watched(Counting(), tmp_path / "none", hooks=Hooks(sheet=lambda: sheets.append(1)), sheet_minutes=0)
    assert len(sheets) == 9


# Checkpoints


def test_a_checkpoint_of_other_settings_names_them_and_the_cure(tmp_path):
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, checkpoint.training_key({"fit": {"rate": 0.1}, "seed": 0}), {"x": torch.ones(2)}, {})
    with pytest.raises(RealRAGError, match=r"fit.rate was 0.1, now 0.2.*Delete the file"):
        checkpoint.load(path, checkpoint.training_key({"fit": {"rate": 0.2}, "seed": 0}))


@pytest.mark.parametrize("damage", ["empty", "cut", "text"])
def test_a_broken_checkpoint_is_refused_with_the_cure(tmp_path, damage):
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, "key", {"x": torch.ones(50)}, {})
    whole = path.read_bytes()
    path.write_bytes({"empty": b"", "cut": whole[:-9], "text": b"not a checkpoint"}[damage])
    with pytest.raises(RealRAGError, match="Delete the file to start over"):
        checkpoint.load(path, "key")


def test_a_checkpoint_without_its_step_is_refused_with_the_cure(tmp_path):
    files = RunFiles.beside(tmp_path / "run.safetensors")
    checkpoint.save(files.checkpoint, "key", {"value": torch.zeros(())}, {})
    with pytest.raises(RealRAGError, match=r"does not fit.*Delete the file"):
        watched(Counting(), tmp_path)


def test_an_optimizer_continues_from_its_checkpoint_as_if_never_saved(tmp_path):
    torch.manual_seed(0)
    start = torch.randn(5)

    def run(steps, saved=None):
        weight = torch.nn.Parameter(start.clone() if saved is None else saved["weight"])
        optimizer = torch.optim.AdamW([weight], lr=0.1)
        if saved is not None:
            checkpoint.restore_optimizer(optimizer, saved)
        for _ in range(steps):
            optimizer.zero_grad()
            weight.pow(3).sum().backward()
            optimizer.step()
        return weight.detach(), optimizer

    whole, _ = run(6)
    half, optimizer = run(3)
    checkpoint.save(tmp_path / "c", "key", {"weight": half, **checkpoint.optimizer_tensors(optimizer)}, {})
    assert torch.equal(run(3, checkpoint.load(tmp_path / "c", "key")[0])[0], whole)


class FakeWandb:
    """The part of Weights & Biases that is used; `runs` by id, each {step: values}."""

    def __init__(self):
        self.runs, self.settings, self.finished, self.id = {}, [], 0, ""

    def init(self, **settings):
        self.settings.append(settings)
        self.id = settings["id"]
        self.runs.setdefault(self.id, {})
        return self

    def log(self, values, step):
        self.runs[self.id][step] = values

    def finish(self):
        self.finished += 1


def test_weights_and_biases_gets_the_curves_and_a_resumed_run_goes_on_in_its_place(tmp_path, monkeypatch):
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    stopped = Counting(during=lambda step: os.kill(os.getpid(), signal.SIGTERM) if step == 3 else None)
    assert not watched(stopped, tmp_path, wandb="owls") and watched(Counting(), tmp_path, wandb="owls")
    assert wandb.finished == 2 and len(wandb.runs) == 1
    assert [each["project"] for each in wandb.settings] == ["owls"] * 2 and wandb.settings[0]["dir"] == str(tmp_path)
    (logged,) = wandb.runs.values()
    assert logged == {step: {"value": float(sum(range(step)))} for step in range(1, 11)}


def test_a_missing_wandb_is_named_with_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RealRAGError, match=r"pip install realrag\[wandb\]"):
        watched(Counting(), tmp_path, wandb="owls")
