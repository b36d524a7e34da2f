"""Photos and prompts in a plane: its axes against the covariance, who is shown, and what is drawn."""

import numpy as np
import pytest
import torch

from realrag.encoders.reflective_head import ReflectiveHead
from realrag_train.dataset import Prompt
from realrag_train.retriever.evaluate import Questions
from realrag_train.retriever.projection import principal_axes, projection, shown_prompts


def questions(classes=8, each=5, dim=6):
    rng = np.random.default_rng(0)
    photos = rng.normal(size=(classes * each, dim)).astype(np.float32)
    photos /= np.linalg.norm(photos, axis=1, keepdims=True)
    siblings = np.full(classes, -1)
    siblings[5] = 2
    return Questions(photos[::each], photos, np.arange(classes), np.arange(classes).repeat(each), siblings)


def test_the_axes_are_the_covariance_s_first_eigenvectors():
    rows = np.random.default_rng(1).normal(size=(50, 4)) * [3, 1, 2, 0.5] + 7
    mean, axes, share = principal_axes(rows)
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    np.testing.assert_allclose(np.abs(axes @ vectors[:, [3, 2]]), np.eye(2), atol=1e-9)
    np.testing.assert_allclose(share, values[[3, 2]] / values.sum())
    np.testing.assert_allclose(mean, rows.mean(0))
    assert (axes[np.arange(2), np.abs(axes).argmax(1)] > 0).all()


def test_a_class_and_what_is_drawn_in_its_place_are_shown_first_and_each_class_once():
    asked = questions()
    assert shown_prompts(asked, [0, 5, 1, 2, 3, 4]) == [5, 2, 0, 1, 3, 4]
    twice = Questions(
        asked.queries, asked.photos, np.array([0, 0, 1, 1, 2, 2, 3, 3]), asked.photo_classes, np.full(8, -1)
    )
    assert shown_prompts(twice, range(8)) == [0, 2, 4, 6]


@pytest.mark.slow
def test_an_untrained_head_moves_no_photo_and_a_trained_one_does(monkeypatch):
    pytest.importorskip("matplotlib")
    asked, prompts = questions(), [Prompt(f"a {i}", f"class {i}") for i in range(8)]
    moved = ReflectiveHead(6, 4)
    with torch.no_grad():
        moved.fc2.weight.normal_(generator=torch.Generator().manual_seed(0))

    def panels(head):
        drawn = []
        monkeypatch.setattr(
            "realrag_train.retriever.projection.scatter", lambda axes, groups, title, bounds: drawn.append(groups)
        )
        draw, note = projection(asked, {"zero": [None], "normal": [head]}, prompts, range(8))
        assert draw().size == (1000, 400)
        assert "% of the variance" in note
        zero, normal = drawn
        assert [label for label, *_ in zero] == [label for label, *_ in normal]
        return [np.concatenate([photos for _, photos, _ in each]) for each in (zero, normal)]

    np.testing.assert_allclose(*panels(ReflectiveHead(6, 4)), atol=1e-6)
    assert np.abs(np.subtract(*panels(moved))).max() > 0.01
    two = Questions(asked.queries, asked.photos[:2], asked.query_classes, asked.photo_classes[:2], asked.siblings)
    assert projection(two, {"zero": [None]}, prompts, range(8)) is None
