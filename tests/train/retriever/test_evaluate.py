"""The figures of a retriever's arms, each against a slow twin written from its definition."""

import json

import numpy as np
import pytest
import torch
from unit_rows import unit

from realrag.encoders.reflective_head import ReflectiveHead
from realrag.errors import RealRAGError
from realrag.files import write_json
from realrag_train.retrieval_metrics import MEASURES
from realrag_train.retriever.evaluate import Questions, ann_loss, drawn_photos, evaluate, figures, table


def world(seed=0, photos_each=12):
    """Six classes in eight dimensions; the generator draws class 1 for 0 and 3 for 2."""
    rng = np.random.default_rng(seed)
    centers = unit(rng.normal(size=(6, 8)))
    labels = np.repeat(np.arange(6), photos_each)
    photos = unit(centers[labels] + 0.6 * rng.normal(size=(len(labels), 8)))
    siblings = np.array([1, -1, 3, -1, -1, -1])
    asked = Questions(unit(centers + 0.2 * rng.normal(size=(6, 8))), photos, np.arange(6), labels, siblings)
    shown = np.where(siblings >= 0, siblings, np.arange(6))
    drawn = (centers[shown][:, None] + 0.1 * rng.normal(size=(6, 3, 8))).astype(np.float16)
    return Questions(asked.queries, photos, np.arange(6), labels, siblings, drawn_photos(asked, drawn))


def test_the_four_splits_part_the_prompts_by_what_the_generator_lacks():
    splits = world().splits()
    assert {name: np.flatnonzero(part).tolist() for name, part in splits.items()} == {
        "all": [0, 1, 2, 3, 4, 5], "unseen": [0, 2], "sibling": [1, 3], "seen": [4, 5],
    }  # fmt: skip


def test_a_prompt_without_photos_in_the_gallery_is_not_counted():
    asked = world()
    kept = asked.photo_classes != 5
    fewer = Questions(asked.queries, asked.photos[kept], asked.query_classes, asked.photo_classes[kept], asked.siblings)
    assert fewer.splits()["all"].sum() == 5
    report = evaluate(fewer, {"zero": [None]})
    assert report["splits"]["all"] == 5 and report["arms"]["zero"]["by_class"]["mAP"][5] is None


def test_reflective_hits_are_the_answers_that_the_generator_draws_already():
    asked = world()
    values = figures(asked, asked.photos)
    scores = asked.queries @ asked.photos.T
    for p in range(6):
        first = sorted(range(len(asked.photos)), key=lambda row: (-scores[p, row], row))[:10]
        assert values["reflective hits"][p] == pytest.approx(np.mean([asked.drawn[p, row] for row in first]))
        own, other = asked.photo_classes == p, asked.photo_classes == asked.siblings[p]
        if asked.siblings[p] < 0:
            assert np.isnan(values["sibling margin"][p])
        else:
            assert values["sibling margin"][p] == pytest.approx(
                scores[p, own].mean() - scores[p, other].mean(), abs=1e-6
            )
            assert values["sibling@10"][p] == pytest.approx(np.mean(other[first]))
    assert asked.drawn[0].any() and not (asked.drawn[0] & (asked.photo_classes == 0)).any()


def test_an_untrained_head_gives_exactly_the_figures_of_none():
    torch.manual_seed(0)
    asked = world()
    report = evaluate(asked, {"zero": [None], "normal": [ReflectiveHead(8, 4), ReflectiveHead(8, 4)]})
    assert report["arms"]["zero"]["splits"] == report["arms"]["normal"]["splits"]
    difference = report["differences"]["normal - zero"]["all"]
    assert difference["mAP"][:3] == [0, 0, 0]
    assert difference["sibling margin"][:3] == [0, None, None]  # of two classes, too few for an interval
    assert all(row[0] == 0 and set(row[1:3]) <= {0, None} for row in difference.values())


def test_a_head_that_pushes_the_sibling_away_is_seen_in_the_paired_difference():
    base = np.eye(8)
    centers = unit([base[0], base[0] + base[1], base[2], base[3]])
    labels = np.repeat(np.arange(4), 5)
    photos = unit(centers[labels] + 0.05 * np.random.default_rng(0).normal(size=(20, 8)))
    asked = Questions(unit(centers), photos, np.arange(4), labels, np.array([1, -1, -1, -1]))
    pushed = ReflectiveHead(8, 8)
    with torch.no_grad():  # a photo that shows direction 1, as class 1 does, loses its direction 0
        for weight in (pushed.fc1.weight, pushed.fc2.weight, pushed.fc1.bias):
            weight.zero_()
        pushed.fc1.weight[0, 1], pushed.fc1.bias[0], pushed.fc2.weight[0, 0] = 10, -3, -0.2
    report = evaluate(asked, {"zero": [None], "normal": [ReflectiveHead(8, 8)], "reflective": [pushed]})
    mean, low, high, above = report["differences"]["reflective - normal"]["unseen"]["sibling margin"]
    assert mean > 0 and above == 1
    assert (low, high) == (None, None)  # one class
    text = table(report)
    assert (
        "reflective - normal" in text and "not resolved" in text and "none below 5 classes" in text and "random" in text
    )


def test_random_scores_lie_where_chance_does():
    report = evaluate(world(photos_each=50), {"zero": [None]})
    chance = report["arms"]["random"]["splits"]["all"]["P@10"][0]
    assert abs(chance - 1 / 6) < 0.06 < report["arms"]["zero"]["splits"]["all"]["P@10"][0] - chance


def test_the_oracle_is_the_ceiling_of_every_figure():
    report = evaluate(world(photos_each=4), {"zero": [None]})
    oracle, zero = (report["arms"][name]["splits"]["unseen"] for name in ("oracle", "zero"))
    assert all(oracle[m][0] == 1 for m in MEASURES if m != "P@10") and oracle["P@10"][0] == pytest.approx(0.4)
    assert all(oracle[m][0] >= zero[m][0] for m in MEASURES) and "sibling margin" not in oracle
    assert oracle["sibling@10"][0] <= zero["sibling@10"][0]
    assert "oracle" not in " ".join(report["differences"]) and "oracle" in table(report)


def test_a_report_is_written_as_strict_json_and_no_arm_is_refused(tmp_path):
    report = evaluate(world(), {"zero": [None]})
    write_json(tmp_path / "evaluate.json", report)

    def refuse(name):
        raise AssertionError(name)

    assert json.loads((tmp_path / "evaluate.json").read_text(), parse_constant=refuse) == report
    with pytest.raises(RealRAGError, match="No arm"):
        evaluate(world(), {})


def test_the_loss_of_the_fast_index_is_what_it_misses(tmp_path):
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    vectors, queries = unit(rng.normal(size=(4000, 16))), unit(rng.normal(size=(20, 16)))
    lost = ann_loss(queries, vectors, tmp_path, "key")
    assert lost is None or 0 <= lost <= 0.3
