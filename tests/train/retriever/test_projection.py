"""Photos and prompts in a plane: its axes against the covariance, who is shown, and what is drawn."""

import numpy as np
import pytest
import torch

from realrag.encoders.reflective_head import ReflectiveHead
from realrag_train.charts import PALETTE, beside, scatter
from realrag_train.dataset import Prompt
from realrag_train.retriever.evaluate import Questions
from realrag_train.retriever.projection import principal_axes, projection, shown_prompts


def questions(classes=8, each=5, dim=6):
    dice = np.random.default_rng(0)
    photos = dice.normal(size=(classes * each, dim)).astype(np.float32)
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


def test_an_untrained_head_moves_no_photo_and_a_trained_one_does():
    asked, prompts = questions(), [Prompt(f"a {i}", f"class {i}") for i in range(8)]
    moved = ReflectiveHead(6, 4)
    with torch.no_grad():
        moved.fc2.weight.normal_(generator=torch.Generator().manual_seed(0))

    def panels(head):
        image, said = projection(asked, {"zero": [None], "normal": [head]}, prompts, range(8))
        assert image.size == (1000, 400) and "% of the variance" in said
        pixels = np.asarray(image)[35:-60]  # below the titles, above the names
        return pixels[:, :500], pixels[:, 500:]

    np.testing.assert_array_equal(*panels(ReflectiveHead(6, 4)))
    assert (panels(moved)[0] != panels(moved)[1]).any()
    two = Questions(asked.queries, asked.photos[:2], asked.query_classes, asked.photo_classes[:2], asked.siblings)
    assert projection(two, {"zero": [None]}, prompts, range(8)) is None


def test_points_lie_where_they_should_with_one_scale_both_ways():
    group = ("a", np.array([[-1.0, -1], [1, 1]]), np.array([[1.0, -1]]))
    pixels = np.asarray(scatter([group], "title", (np.array([-1.0, -1]), np.array([1.0, 1]))))[34:354]
    rows, columns = np.nonzero((pixels == PALETTE[0]).all(2))
    assert columns.max() - columns.min() == pytest.approx(
        rows.max() - rows.min(), abs=12
    )  # the diamond is larger than a dot
    right = columns > columns.mean()
    assert rows[right].min() == rows.min() and rows[~right].max() > rows.mean()
    assert beside([scatter([group], "t", ([0, 0], [1, 1]))] * 3, 2).size == (1000, 800)
