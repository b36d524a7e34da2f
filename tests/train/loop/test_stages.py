"""The time left of a stage: true after a resume and over several trainings, and never silent for long."""

import time

import numpy as np
from fake_encoder import ColorEncoder
from speckles import speckled

from realrag_train.loop import stages
from realrag_train.loop.progress import Progress
from realrag_train.loop.stages import Staged
from realrag_train.retriever.imagine import imagine
from realrag_train.retriever.prompts import class_prompts


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_what_was_there_before_a_resume_does_not_count_toward_the_speed(tmp_path):
    """Half of the pictures exist; each of the others takes 20 seconds."""
    clock, lines = Clock(), []
    prompts = class_prompts([f"thing {n}" for n in range(20)])

    class Painter:
        metadata, slow = {"name": "painter"}, False

        def draw(self, prompt, seed):
            clock.now += 20 * self.slow
            return speckled(int(prompt.split()[-1]))

    painter = Painter()
    imagine(tmp_path, prompts[:10], painter, ColorEncoder(), seeds=1)
    painter.slow = True
    imagine(tmp_path, prompts, painter, ColorEncoder(), seeds=1, progress=Progress(lines.append, "imagine", clock))
    assert lines[0] == "imagine: 11 of 20, 0.05 a second, 3 min left"
    assert lines[-1] == "imagine: 19 of 20, 0.05 a second, 20 s left"


class Work(Staged):
    def slow(self):
        self.in_time(3, 10)
        time.sleep(0.5)


def test_a_quiet_stage_says_that_it_is_at_work(monkeypatch):
    monkeypatch.setattr(stages, "QUIET", 0.1)
    lines = []
    Work(max_minutes=0, log=lines.append).stage("slow")
    assert lines[0] == "slow: 3 of 10 done, still at work" and lines[-1].startswith("slow: done in")
    assert np.all([line.startswith("slow: ") for line in lines])
