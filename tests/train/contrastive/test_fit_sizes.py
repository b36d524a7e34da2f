"""Batch and epochs that suit the number of photos, and the epoch that is best on validation photos."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from head_toy import made, small, weights_of
from unit_rows import unit

from realrag.errors import RealRAGError
from realrag_train.contrastive.fit_config import STEPS, FitConfig
from realrag_train.contrastive.loss import LossConfig
from realrag_train.contrastive.trainer import ContrastiveTraining, Sources
from realrag_train.dataset import Material
from realrag_train.retrieval_metrics import ranked_relevance, ranking_figures


@pytest.mark.parametrize("photos", [1, 7, 40, 150, 700, 1000, 1023, 5000, 20_480, 200_000])
def test_every_library_gets_enough_steps_and_drops_next_to_no_photo(photos):
    sized = FitConfig().sized(photos)
    steps = photos // sized.batch
    assert steps * sized.epochs >= STEPS
    assert photos - steps * sized.batch < max(2, 0.02 * photos)
    assert sized.batch <= 600
    if photos >= 20_480:
        assert sized.epochs == 10 and 480 <= sized.batch <= 540


def test_numbers_that_are_given_stay():
    assert FitConfig(epochs=10, batch=512).sized(700) == FitConfig(epochs=10, batch=512)
    assert FitConfig(batch=64).sized(700).batch == 64 and FitConfig(batch=64).sized(700).epochs == 40


@pytest.mark.slow
def test_a_library_below_a_thousand_photos_learns_with_the_defaults(one_thread):
    """Ten epochs of 512 were ten steps, after which the ranking was that of the plain encoder."""
    rng, codes = np.random.default_rng(0), np.arange(300) % 20
    looks = rng.normal(size=(20, 32))
    names = unit(looks + 3 * rng.normal(size=looks.shape)).astype(np.float32)

    def photos():
        return unit(looks[codes] + 0.8 * rng.normal(size=(300, 32))).astype(np.float32)

    material, test = Material(photos(), codes, names, np.arange(20)), torch.from_numpy(photos())
    right = codes[None] == np.arange(20)[:, None]

    def measured(vectors):
        return ranking_figures(ranked_relevance(names @ vectors.numpy().T, right))["mAP"].mean()

    def trained(config):
        training = ContrastiveTraining(material, None, config, LossConfig("normal"))
        training.run()
        with torch.no_grad():
            return training.steps, measured(training.head(test))

    plain, (few, before), (many, after) = measured(test), trained(FitConfig(epochs=10, batch=512)), trained(FitConfig())
    assert (few, many) == (10, 400)
    assert before - plain < 0.1 and after - plain > 0.5


def held(seed=5):
    rng = np.random.default_rng(seed)
    return Material(
        unit(rng.normal(size=(30, 12))), rng.integers(0, 8, 30), unit(rng.normal(size=(8, 12))), np.arange(8)
    )


def test_the_best_epoch_on_validation_photos_is_kept_and_patience_ends_the_run(one_thread):
    material, _, rows = made()
    config = small(epochs=30, rate=0.05)
    training = ContrastiveTraining(material, rows, config, sources=Sources(validation=held()))
    best, found = None, -1.0
    while not training.done:
        before = len(training.history)
        training.advance()
        if len(training.history) > before and not training.done and training.history[-1]["validation_map"] > found:
            found, best = training.history[-1]["validation_map"], [w.detach().clone() for w in weights_of(training)]
    assert max(entry["validation_map"] for entry in training.history[:-1]) == found
    if training.history[-1]["validation_map"] <= found:
        for kept, wanted in zip(weights_of(training), best, strict=True):
            torch.testing.assert_close(kept, wanted)
    short = ContrastiveTraining(material, rows, replace(config, patience=2), sources=Sources(validation=held()))
    short.run()
    values = [entry["validation_map"] for entry in short.history]
    assert len(values) < 30 and values.index(max(values)) == len(values) - 3


def test_validation_photos_change_no_step(one_thread):
    material, _, rows = made()
    plain = ContrastiveTraining(material, rows, small())
    measured = ContrastiveTraining(material, rows, small(), sources=Sources(validation=held()))
    while not plain.done:
        plain.advance()
        if not measured.done:
            measured.advance()
    assert [entry["loss"] for entry in plain.history] == [entry["loss"] for entry in measured.history]


def test_the_measured_figures_are_those_of_the_head_on_those_photos(one_thread):
    material, _, rows = made()
    training = ContrastiveTraining(material, rows, small(), sources=Sources(validation=held()))
    training.run()
    photos = held()
    with torch.no_grad():
        scores = torch.from_numpy(photos.queries) @ training.head(torch.from_numpy(photos.photos)).T
    asked = np.isin(photos.query_classes, photos.photo_classes)
    first = photos.photo_classes[scores.argmax(1)] == photos.query_classes
    assert training.validation_figures()["validation_r1"] == pytest.approx(first[asked].mean())


def test_patience_without_anything_to_measure_is_refused():
    material, _, rows = made()
    with pytest.raises(RealRAGError, match="give validation photos"):
        ContrastiveTraining(material, rows, small(patience=2))
