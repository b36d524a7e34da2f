"""Reflective negatives against eq. 3-4 in slow steps; what is left out of them; the files they come in."""

import json
import os
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
from fake_encoder import ColorEncoder
from fit_in_a_process import mine_here, start
from safetensors.numpy import save_file
from unit_rows import unit

import realrag_train.contrastive.mine as mine_files
import realrag_train.contrastive.negatives as mining
from realrag.bundle.bundle import Bundle
from realrag.encoders.reflective_head import ReflectiveHead
from realrag.errors import EncoderError, RealRAGError
from realrag.indexing.build import build
from realrag_train.__main__ import main
from realrag_train.contrastive.mine import read_negatives
from realrag_train.contrastive.negatives import MineConfig, mine
from realrag_train.dataset import Material, load_material, read_prompts


def made(seed=0, photos=60, prompts=9, seeds=3, dim=8, classes=6):
    rng = np.random.default_rng(seed)
    material = Material(
        unit(rng.normal(size=(photos, dim))), rng.integers(0, classes, photos),
        unit(rng.normal(size=(prompts, dim))), rng.integers(0, classes, prompts),
    )  # fmt: skip
    return material, rng.normal(size=(prompts, seeds, dim)).astype(np.float32)


def slow_mine(material, drawn, config, through=lambda v: v):
    """One prompt, one drawing and one photo at a time, in float64."""
    photos = [through(v.astype(float)) for v in material.photos]
    rows, raws = [], []
    for p, query in enumerate(material.queries.astype(float)):
        asks = (
            [through(g / np.linalg.norm(g)) for g in drawn[p].astype(float)] if config.kind == "reflective" else [query]
        )
        own = [n for n in range(len(photos)) if material.photo_classes[n] == material.query_classes[p]]
        ranked = []
        for n, photo in enumerate(photos):
            cosines = [photo @ ask for ask in asks]
            if config.kind == "reflective" and max(cosines) >= config.same_picture:
                continue
            ranked.append((-(np.mean(cosines) if config.seeds == "mean" else max(cosines)), n))
        ranked.sort()
        raws.append(ranked[0][1])
        fitting = np.mean([photos[n] @ query for n in own]) if own else np.inf
        kept, rank = [], -1
        for _, n in ranked:
            rank += not (config.drop_same_class and n in own)
            same_shot = any(float(material.photos[n] @ material.photos[o]) >= config.near_duplicate for o in own)
            if config.drop_same_class and (n in own or same_shot):
                continue
            if (
                config.positive_aware
                and own
                and photos[n] @ query > fitting - (1 - config.positive_aware) * abs(fitting)
            ):
                continue
            fits = float(photos[n] @ query)
            if not config.min_score <= fits <= config.max_score:
                continue
            if config.relative_margin and own and fits > fitting - config.relative_margin * abs(fitting):
                continue
            if config.absolute_margin and own and fits > fitting - config.absolute_margin:
                continue
            if rank < config.range_min or (config.range_max and rank >= config.range_max):
                continue
            kept.append(n)
        rows.append((kept + [-1] * config.k)[: config.k])
    return np.array(rows), np.array(raws)


CONFIGS = [
    MineConfig(),
    MineConfig(k=4),
    MineConfig(k=3, seeds="union"),
    MineConfig(k=2, kind="hard"),
    MineConfig(k=2, near_duplicate=0.7),
    MineConfig(k=60, near_duplicate=0.6),
    MineConfig(k=3, positive_aware=0.95),
    MineConfig(drop_same_class=False),
    MineConfig(k=3, range_min=4, range_max=9),
    MineConfig(k=3, max_score=0.2, min_score=-0.3),
    MineConfig(k=4, relative_margin=0.5),
    MineConfig(k=4, absolute_margin=0.2, near_duplicate=0.7),
]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("cosines", [1, 400, 1 << 25])
def test_the_negatives_are_those_of_the_slow_twin(config, cosines, monkeypatch):
    monkeypatch.setattr(mining, "COSINES", cosines)
    material, drawn = made()
    found = mine(material, drawn, config)
    rows, raw = slow_mine(material, drawn, config)
    assert np.array_equal(found.rows, rows) and np.array_equal(found.raw, raw)
    assert found.metadata["known_share"] == np.mean(material.photo_classes[raw] == material.query_classes)


@pytest.mark.parametrize("option", [{"positive_aware": 0.95}, {"relative_margin": 0.05}])
def test_where_own_photos_fit_badly_no_better_one_is_a_negative(option):
    """The prompt's own photos have a mean cosine of -0.25. A product of 0.95 and that mean, -0.2375, would let the photo with
    -0.24 through, which fits the prompt better than its own do."""
    fits = np.array([-0.2, -0.3, -0.24, -0.5])
    photos = np.stack([fits, np.sqrt(1 - fits**2)], axis=1).astype(np.float32)
    query = np.array([[1, 0]], np.float32)
    material = Material(photos, np.array([0, 0, 1, 1]), query, np.array([0]))
    drawn = photos[2:3, None]
    assert mine(material, drawn, MineConfig(same_picture=2, near_duplicate=2)).rows.tolist() == [[2]]
    assert mine(material, drawn, MineConfig(same_picture=2, near_duplicate=2, **option)).rows.tolist() == [[3]]


def test_scores_are_cosines_to_the_drawings():
    material, drawn = made()
    for seeds, joined in (("mean", np.mean), ("union", np.max)):
        found = mine(material, drawn, MineConfig(k=2, seeds=seeds))
        cosines = np.einsum("psd,pkd->pks", unit(drawn), material.photos[found.rows])
        assert np.allclose(found.scores, joined(cosines, axis=2), atol=1e-6)


def test_the_drawing_itself_among_the_photos_is_never_a_negative():
    material, drawn = made(seeds=1)
    material.photos[5] = unit(drawn[2, 0])
    material.photo_classes[5] = material.query_classes[2] + 100
    found = mine(material, drawn)
    assert 5 not in (found.rows[2, 0], found.raw[2]) and found.metadata["drawings_found_among_photos"] == 1


def test_no_negative_is_of_the_true_class_or_the_same_shot_as_one_of_it():
    material, drawn = made()
    own = np.flatnonzero(material.photo_classes == material.query_classes[0])[0]
    material.photos[7] = material.photos[own]
    material.photo_classes[7] = 50  # the same shot under another name
    drawn[0] = material.photos[own] + 0.05
    found = mine(material, drawn, MineConfig(k=10))
    assert 7 not in found.rows[0] and found.metadata["dropped_near_duplicates"] >= 1
    assert not (material.photo_classes[found.rows] == material.query_classes[:, None])[found.rows >= 0].any()
    assert 7 in mine(material, drawn, MineConfig(k=10, near_duplicate=1.1)).rows[0]


def test_a_head_moves_photos_and_drawings_but_not_prompts():
    import torch

    material, drawn = made()
    torch.manual_seed(0)
    head = ReflectiveHead(8, 16)
    torch.nn.init.normal_(head.fc2.weight, std=2.0)

    def through(v):
        return head(torch.from_numpy(v)[None].float())[0].detach().double().numpy()

    for config in (MineConfig(k=3), MineConfig(k=3, kind="hard")):
        found = mine(material, drawn, config, head=head)
        assert np.array_equal(found.rows, slow_mine(material, drawn, config, through)[0])
        assert not np.array_equal(found.rows, mine(material, drawn, config).rows)


def test_an_untrained_head_mines_what_no_head_does():
    material, drawn = made()
    assert np.array_equal(mine(material, drawn, head=ReflectiveHead(8, 8)).rows, mine(material, drawn).rows)


@pytest.mark.parametrize("seeds", ["mean", "union"])
def test_a_drawing_that_failed_does_not_count(seeds):
    material, drawn = made()
    drawn[0, 1] = np.nan
    drawn[1] = 0
    found = mine(material, drawn, MineConfig(seeds=seeds))
    without = mine(material, drawn[:, [0, 2]], MineConfig(seeds=seeds))
    assert found.rows[0] == without.rows[0] and found.rows[1] == -1 and found.raw[1] == -1
    assert found.metadata["drawn"] == 8 and found.metadata["without_negative"] == 1


def test_equal_photos_are_taken_by_row_number():
    material, drawn = made(prompts=1)
    material.photos[:] = material.photos[0]
    material.photo_classes[:] = 99
    assert mine(material, drawn, MineConfig(k=4)).rows.tolist() == [[0, 1, 2, 3]]


def test_random_negatives_are_drawn_from_the_range_by_seed():
    material, drawn = made()
    top = mine(material, drawn, MineConfig(k=9, range_min=1, range_max=10)).rows
    config = MineConfig(k=3, range_min=1, range_max=10, sampling_strategy="random")
    found = mine(material, drawn, config).rows
    assert all(set(few) <= set(many) for few, many in zip(found.tolist(), top.tolist(), strict=True))
    assert (found != top[:, :3]).any() and np.array_equal(found, mine(material, drawn, config).rows)
    assert (found != mine(material, drawn, replace(config, sampling_seed=1)).rows).any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"k": 0}, {"kind": "soft"}, {"seeds": "all"}, {"sampling_strategy": "best"}, {"range_min": -1},
        {"range_max": 2, "k": 3}, {"sampling_strategy": "random"}, {"min_score": 0.5, "max_score": 0.4},
        {"relative_margin": -0.1},
    ],
)  # fmt: skip
def test_settings_that_mine_nothing_are_refused(wrong):
    with pytest.raises(RealRAGError):
        MineConfig(**wrong)


def test_drawings_of_another_shape_are_refused():
    material, drawn = made()
    for wrong in (None, drawn[:4], drawn[:, 0], drawn[..., :5]):
        with pytest.raises(RealRAGError, match="shape"):
            mine(material, wrong)


@pytest.fixture
def run_folder(photos, tmp_path):
    encoder = ColorEncoder()
    build(photos, tmp_path / "bundle", encoder)
    names = ["red", "green", "blue"]
    lines = [json.dumps({"prompt": f"a {name} photo", "class": name.upper()}) for name in names]
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    drawn = np.stack([encoder.encode_texts(["green"] * 2).numpy()] * 3).astype(
        np.float16
    )  # it draws green, whatever is asked
    save_file({"embeddings": drawn}, tmp_path / "drawn.safetensors",
              {"generator": "green only", "encoder_fingerprint": encoder.fingerprint})  # fmt: skip
    return tmp_path


def test_a_generator_that_draws_only_green_makes_green_the_negative(run_folder):
    found = mine_here(run_folder)
    classes = [record.class_name for record in Bundle(run_folder / "bundle").records]
    assert [classes[row] for row in found.rows[[0, 2], 0]] == ["green", "green"]
    assert classes[found.rows[1, 0]] != "green" and found.metadata["known_share"] == pytest.approx(1 / 3)
    again, about = read_negatives(run_folder / "negatives.safetensors")
    assert np.array_equal(again.rows, found.rows) and np.array_equal(again.scores, found.scores)
    assert about["generator"] == "green only" and again.metadata == found.metadata


def test_mining_again_with_the_same_inputs_touches_nothing_and_other_inputs_mine_anew(run_folder):
    path = run_folder / "negatives.safetensors"
    mine_here(run_folder)
    before = os.stat(path).st_mtime_ns
    mine_here(run_folder)
    assert os.stat(path).st_mtime_ns == before
    assert mine_here(run_folder, MineConfig(k=2)).rows.shape == (3, 2)
    path.write_bytes(path.read_bytes()[:40])
    assert mine_here(run_folder).rows.shape == (3, 1)


POINTS = {"mine-first-piece": 5, "mine-third-piece": 3, "mine-half-written": 5, "mine-before-the-end": 0}  # pieces left


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_mining_killed_at_four_points_does_no_more_than_one_piece_again(run_folder, tmp_path, monkeypatch):
    texts = [
        json.dumps({"prompt": f"a {name} photo {n}", "class": name})
        for n in range(2)
        for name in ("red", "green", "blue")
    ]
    (run_folder / "prompts.jsonl").write_text("\n".join(texts))
    drawn = np.random.default_rng(0).normal(size=(6, 2, 13)).astype(np.float16)
    save_file(
        {"embeddings": drawn}, run_folder / "drawn.safetensors", {"encoder_fingerprint": ColorEncoder().fingerprint}
    )
    folders = {point: shutil.copytree(run_folder, tmp_path / point) for point in POINTS}
    for pair in (list(POINTS)[:2], list(POINTS)[2:]):
        assert [process.wait(120) for process in [start(folders[point], point) for point in pair]] == [
            -signal.SIGKILL
        ] * 2
    monkeypatch.setattr(mining, "COSINES", 1)
    whole = mine_here(run_folder)
    for point, folder in folders.items():
        assert (folder / "negatives.part.safetensors").exists() and not (folder / "negatives.safetensors").exists()
        seen = []
        again = mine_here(folder, progress=lambda done, total: seen.append(done))
        assert len(seen) == POINTS[point]
        assert np.array_equal(again.rows, whole.rows)
        assert np.allclose(again.scores, whole.scores, atol=1e-6)  # some were computed in another process
        assert (
            again.metadata == whole.metadata and not list(folder.glob("*.part.*")) and not list(folder.glob(".*.tmp.*"))
        )


def test_drawings_of_another_encoder_are_refused(run_folder):
    drawn = np.ones((3, 1, 13), np.float16)
    save_file({"embeddings": drawn}, run_folder / "drawn.safetensors", {"encoder_fingerprint": "f" * 64})
    with pytest.raises(EncoderError, match="imagine"):
        mine_here(run_folder)


@pytest.mark.parametrize("line", ["", "{", '{"prompt": "x"}', '{"prompt": " ", "class": "a"}', "[1]"])
def test_prompts_that_are_none_are_refused_by_line(tmp_path, line):
    (tmp_path / "prompts.jsonl").write_text(line)
    with pytest.raises(RealRAGError, match=r"prompts.jsonl"):
        read_prompts(tmp_path / "prompts.jsonl")


def test_classes_match_as_filters_do_and_an_unnamed_class_matches_nothing(run_folder):
    (run_folder / "more.jsonl").write_text('{"prompt": "x", "class": "Red"}\n{"prompt": "y", "class": ""}\n')
    prompts = read_prompts(run_folder / "more.jsonl")
    material = load_material(Bundle(run_folder / "bundle"), ColorEncoder(), prompts)
    assert (material.photo_classes == material.query_classes[0]).sum() == 5
    assert not (material.photo_classes == material.query_classes[1]).any()
    assert np.allclose(np.linalg.norm(material.queries, axis=1), 1, atol=1e-6)


def test_the_command_mines_and_says_how_much_the_generator_knows(run_folder, monkeypatch, capsys):
    monkeypatch.setattr(mine_files, "own_encoder", lambda bundle, device: ColorEncoder())
    main(["mine", str(run_folder / "bundle"), "--prompts", str(run_folder / "prompts.jsonl"), "--drawn",
          str(run_folder / "drawn.safetensors"), "--out", str(run_folder / "n.safetensors")])  # fmt: skip
    assert "33.3%" in capsys.readouterr().out and (run_folder / "n.safetensors").is_file()
