"""The shipped head is the best one on the validation photos, or none."""

import json

import pytest
from fake_encoder import ColorEncoder
from speckles import speckled

from realrag.errors import RealRAGError
from realrag.retriever import Retriever
from realrag_train.contrastive.fit_config import FitConfig
from realrag_train.retriever import run as stages
from realrag_train.retriever.recipe import Data, Evaluate, Imagine, Recipe
from realrag_train.retriever.run import Run
from realrag_train.retriever.selection import Candidate, best

FIGURES = {
    Candidate("zero"): {"mAP": 0.5, "R@1": 0.9}, Candidate("normal"): {"mAP": 0.6, "R@1": 0.1},
    Candidate("reflective", 1): {"mAP": 0.7, "R@1": 0.1}, Candidate("reflective", 2): {"mAP": 0.7, "R@1": 0.9},
}  # fmt: skip


def test_the_highest_map_wins_the_first_of_equal_ones_and_the_plain_encoder_a_tie():
    assert best(FIGURES) == Candidate("reflective", 1)
    assert best({**FIGURES, Candidate("zero"): {"mAP": 0.7}}) is None
    assert best({Candidate("normal"): {"mAP": 0.2}}) == Candidate("normal")
    assert best({}) is None


@pytest.fixture
def run(tmp_path, monkeypatch):
    for c in range(4):
        for n in range(6):
            path = tmp_path / "photos" / f"class {c}" / f"{n}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            speckled(100 * c + n).save(path)
    monkeypatch.setattr(stages, "load_encoder", lambda name, device: ColorEncoder())
    recipe = Recipe(
        Data(photos=str(tmp_path / "photos")), imagine=Imagine("stand-in", seeds=1, unknown=1),
        fit=FitConfig(epochs=1, batch=8, hidden=4), evaluate=Evaluate(("zero", "normal", "reflective"), seeds=2),
    )  # fmt: skip
    return Run(recipe, tmp_path / "out")


@pytest.mark.slow
@pytest.mark.parametrize("winner", ["reflective-1", "normal-0", "zero"])
def test_the_bundle_holds_what_is_best_on_validation(run, monkeypatch, tmp_path, winner):
    asked = []

    def figures(questions, scores):
        asked.append(len(questions.photos))
        order = ["zero", "normal-0", "normal-1", "reflective-0", "reflective-1"]
        return {"mAP": float(order[len(asked) - 1] == winner), "R@1": 0.0}

    monkeypatch.setattr(stages, "validation_figures", figures)
    for stage in ("embed", "imagine", "mine", "fit", "index"):
        run.stage(stage)
    assert asked == [4] * 5  # the validation photos, once for each candidate
    found = json.loads((tmp_path / "out" / "selection.json").read_text())
    assert found["shipped"] == ("" if winner == "zero" else winner) and found["by_validation"]
    retriever = Retriever.open(tmp_path / "out" / "retriever", encoder=ColorEncoder())
    if winner == "zero":
        assert retriever.head is None
    else:
        assert retriever.head.metadata["loss"] == winner[:-2] and retriever.head.metadata["seed"] == int(winner[-1])


def test_a_choice_before_the_heads_are_there_names_the_stage(run):
    run.stage("embed")
    with pytest.raises(RealRAGError, match="Run the stage `fit` first"):
        run.stage("index")


def test_the_time_left_of_fit_is_that_of_all_trainings(run, monkeypatch):
    calls = []

    class Recorder:
        what = ""

        def __call__(self, done, total):
            calls.append((self.what, done, total))

    def fit_file(*given, progress, **more):
        progress(5, 10)
        return object()

    run.progress = Recorder()
    monkeypatch.setattr(stages, "fit_file", fit_file)
    monkeypatch.setattr(Run, "select", lambda self: None)
    run.fit()
    assert [call[1:] for call in calls] == [(5, 40), (15, 40), (25, 40), (35, 40)]
    assert calls[2][0] == "fit reflective, seed 0 (3 of 4)"
