"""The verdict in words: what is shown, what is not, and what to do next."""

from dataclasses import replace

import numpy as np
import pytest
from sibling_toy import Toy

from realrag_train.contrastive.loss import LossConfig
from realrag_train.contrastive.negatives import MineConfig, mine
from realrag_train.contrastive.trainer import ContrastiveTraining, FitConfig
from realrag_train.retriever.evaluate import Questions, evaluate
from realrag_train.retriever.verdict import as_text, verdict

BY_VALIDATION = {"zero": 0.4, "normal-0": 0.5, "reflective-0": 0.6}


def report(
    normal=((0.031, 0.004, 0.058), (0.02, 0.01, 0.03)), zero=((0.09, 0.06, 0.12), (0.1, 0.05, 0.15)), shipped="reflective-0",
    validation=BY_VALIDATION, **metadata,
):  # fmt: skip
    """R@1 and mAP of the reflective arm against the two others."""
    pairs = {"reflective - normal": normal, "reflective - zero": zero}
    return {
        "arms": {"zero": {"splits": {"all": {"R@1": [0.5]}}}, "normal": {}, "reflective": {},
                 "random": {"splits": {"all": {"R@1": [0.01]}}}},
        "differences": {pair: {"all": {"R@1": list(first), "mAP": list(mean)}} for pair, (first, mean) in pairs.items() if mean},
        "selection": {"shipped": shipped, "by_validation": True, "validation": {n: {"mAP": v} for n, v in validation.items()}},
        "facts": {"generator": {"name": "ComfyUI workflow w.json"}, "classes": True, **metadata},
    }  # fmt: skip


def test_what_is_shown_is_said_in_points_with_intervals():
    found = verdict(report())
    assert found.status == "shown"
    assert found.headline == (
        "On photos it had not seen, the reflective head found the right class first 3.1 points more often (0.4 to 5.8) than "
        "plain training and 9.0 points more often (6.0 to 12.0) than the plain encoder."
    )
    assert len(found.shown) == 2 and found.not_shown == ()
    assert found.next[0].startswith("Copy the folder `retriever` to ComfyUI/models/realrag")
    text = as_text(found.as_json(), "/here")
    assert "Verdict (shown): On photos" in text and "Next: Copy the folder /here/retriever to" in text


def test_what_the_drawings_added_may_stay_unshown():
    found = verdict(report(normal=((0.002, -0.01, 0.014), (0.001, -0.004, 0.006))))
    assert found.status == "helped" and found.headline.endswith(
        "That the generator's drawings helped is not shown: it found the right class first 0.2 points more often "
        "(-1.0 to 1.4) than plain training, which may be chance."
    )


def test_the_measure_that_decides_speaks_where_the_first_answer_alone_does_not():
    found = verdict(report(zero=((0.01, -0.01, 0.03), (0.05, 0.02, 0.08))))
    assert (
        found.status == "shown"
        and "ranked the right photos higher than the plain encoder (mAP +0.050, +0.020 to +0.080; " in (found.headline)
    )
    only_first = verdict(report(normal=((0.02, 0.01, 0.03), (0.001, -0.01, 0.012))))
    assert (
        only_first.status == "helped"
        and "but mAP, which decides, changed by +0.001 (-0.010 to +0.012)" in only_first.headline
    )


def test_validation_photos_that_disagree_take_the_claim_back():
    found = verdict(report(validation={**BY_VALIDATION, "normal-0": 0.7}))
    assert found.status == "helped" and "but on the validation photos it did not" in found.not_shown[0]
    assert verdict(report(validation={})).status == "shown"


def test_what_got_worse_is_said_and_the_plain_encoder_kept():
    found = verdict(report(zero=((-0.05, -0.08, -0.02), (-0.05, -0.08, -0.02)), shipped=""))
    assert found.status == "not shown" and found.headline.startswith(
        "Training made it worse: on photos it had not seen"
    )
    assert "5.0 points less often (-8.0 to -2.0) than the plain encoder" in found.headline
    assert found.next[0].startswith("Keep the plain encoder: no head was better on the validation photos")
    tried = verdict(report(zero=((0, -0.01, 0.01), (0, -0.01, 0.01))))
    assert tried.status == "not shown" and tried.next[0].startswith(
        "Keep the plain encoder: on the test photos it was not worse"
    )
    assert tried.headline.endswith("found the right class first as often (-1.0 to 1.0) as the plain encoder.")
    assert tried.next[1].startswith("To try the head all the same: copy the folder") and "reflective-0" in tried.next[1]


@pytest.mark.parametrize(
    "given, said",
    [
        ({"gallery_is_library": True}, "say nothing about others"),
        ({"normal": ((0.1, None, None), (0.1, None, None)), "zero": ((0.1, None, None), (0.1, None, None))}, "fewer than 5 classes"),
        ({"normal": ((), ()), "zero": ((), ())}, "no trained arm was compared"),
    ],
)  # fmt: skip
def test_figures_without_their_precondition_give_no_verdict(given, said):
    found = verdict(report(**given))
    assert found.status == "none" and said in found.headline and found.shown == ()


def test_a_stand_in_and_an_encoder_without_a_level_are_named():
    assert "A stand-in drew, so this says nothing" in verdict(report(generator={"name": "stand-in (x)"})).headline
    blind = report()
    blind["arms"]["zero"]["splits"]["all"]["R@1"] = [0.015]
    assert any("hardly knows these names" in step for step in verdict(blind).next)
    blind["arms"]["zero"]["splits"]["all"]["R@1"] = [0.99]
    assert any("little is left to learn" in step for step in verdict(blind).next)


def measured(toy, epochs, shuffle=None):
    """The report of a plain and a reflective head on the toy's test photos. shuffle: a seed, by which the photos' labels are
    mixed."""
    if shuffle is not None:
        rng = np.random.default_rng(shuffle)
        toy.material = replace(toy.material, photo_classes=rng.permutation(toy.material.photo_classes))
        toy.classes = rng.permutation(toy.classes)
    rows, arms = mine(toy.material, toy.draw("sibling"), MineConfig()).rows, {"zero": [None]}
    for kind in ("normal", "reflective"):
        config = FitConfig(epochs=epochs, batch=32, hidden=32, rate=4e-3)
        training = ContrastiveTraining(toy.material, rows if kind == "reflective" else None, config, LossConfig(kind))
        training.run()
        arms[kind] = [training.head.eval()]
    asked = Questions(toy.words, toy.photos, toy.asked, toy.classes, np.full(len(toy.asked), -1))
    return evaluate(asked, arms, controls=False)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_what_a_generator_confuses_is_shown_to_be_learned(one_thread, seed):
    assert verdict(measured(Toy(seed, pairs=24, singles=24, prompts_each=4), epochs=6)).status == "shown"


@pytest.mark.slow
def test_shuffled_labels_show_nothing_in_19_of_20_seeds(one_thread):
    found = [
        verdict(measured(Toy(seed, pairs=12, singles=4, photos_each=8, prompts_each=2), 3, shuffle=seed)).status
        for seed in range(20)
    ]
    assert found.count("not shown") >= 19
