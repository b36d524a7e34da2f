"""A starting encoder on anybody's photos: parting them, noise in their captions, and the search for headroom."""

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from made_photos import COLOURS, photo_bytes
from realrag_train import headroom as search
from realrag_train.__main__ import main
from realrag_train.drawing import _groups
from realrag_train.encoder import EncoderConfig, train_encoder
from realrag_train.headroom import chosen, find_headroom, tune
from realrag_train.model_card import training_of
from realrag_train.pairs import Group, Photo, PhotoSet, read_captioned, with_noise
from realrag_train.recipe import read_recipe
from realrag_train.run import Run
from realrag_train.split import NAMES, part_photos, split
from realrag_train.start import started
from safetensors.torch import save_file

from realrag.encoder import load_encoder
from realrag.errors import RealRAGError
from realrag.library import scan
from realrag.small_encoder import MobileNet

# Parting photos


def numbered(folder: Path, classes: int = 3, each: int = 20) -> Path:
    """Photos in one folder, whose table alone says their classes."""
    (folder / "all").mkdir(parents=True)
    with open(folder / "labels.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "class", "author"))
        for number in range(classes * each):
            (folder / "all" / f"{number:03d}.jpg").write_bytes(photo_bytes((90, 90, 90), number, size=(16, 12)))
            table.writerow((f"all/{number:03d}.jpg", f"Make Model-{number % classes}", f"author {number}"))
    return folder


def test_a_split_parts_every_class_alike_and_loses_nothing(tmp_path):
    photos = numbered(tmp_path / "photos")
    facts = split(photos, photos / "labels.csv", tmp_path / "out", (0.6, 0.15, 0.25), 7)
    assert facts["photos"] == {"library": 36, "validation": 9, "gallery": 15}
    whole, found = scan(photos, photos / "labels.csv").candidates, []
    for name, each in zip(NAMES, (12, 3, 5)):
        part = scan(tmp_path / "out" / name).candidates
        assert set(Counter(photo.credit.class_name for photo in part).values()) == {each}
        found += [(photo.sha256, photo.credit) for photo in part]
    assert sorted(found, key=str) == sorted(((photo.sha256, photo.credit) for photo in whole), key=str)


def test_one_class_more_does_not_move_the_photos_of_the_others(tmp_path):
    photos = numbered(tmp_path / "photos")
    candidates = scan(photos, photos / "labels.csv").candidates
    fewer = [photo for photo in candidates if not photo.credit.class_name.endswith("2")]
    for part, smaller in zip(part_photos(candidates, (0.5, 0.2, 0.3), 1), part_photos(fewer, (0.5, 0.2, 0.3), 1)):
        assert [photo.file for photo in part if photo in smaller] == [photo.file for photo in smaller]
    other = part_photos(candidates, (0.5, 0.2, 0.3), 2)
    assert [photo.file for photo in other[0]] != [photo.file for photo in part_photos(candidates, (0.5, 0.2, 0.3), 1)[0]]


def test_a_split_that_is_there_is_left_as_it_is_and_another_one_is_refused(tmp_path):
    photos = numbered(tmp_path / "photos", each=8)
    facts = split(photos, photos / "labels.csv", tmp_path / "out", (0.6, 0.15, 0.25), 7)
    (tmp_path / "out" / "library" / "mine.txt").write_text("kept")
    assert split(photos, photos / "labels.csv", tmp_path / "out", (0.6, 0.15, 0.25), 7) == facts
    assert (tmp_path / "out" / "library" / "mine.txt").exists()
    with pytest.raises(RealRAGError, match="holds another split"):
        split(photos, photos / "labels.csv", tmp_path / "out", (0.6, 0.15, 0.25), 8)
    with pytest.raises(RealRAGError, match="together 1"):
        split(photos, photos / "labels.csv", tmp_path / "new", (0.6, 0.15, 0.15), 7)
    assert not (tmp_path / "new").exists()


# Noise


def many(groups: int = 5, each: int = 400) -> PhotoSet:
    keys = [f"g{i}" for i in range(groups)]
    return PhotoSet(
        tuple(Group(key, key, key) for key in keys), tuple(Photo(Path(f"{i}.jpg"), key) for key in keys for i in range(each))
    )


def test_noise_names_a_wrong_class_as_often_as_it_says_and_any_wrong_class_alike():
    data, noised = many(), with_noise(many(), 0.3, 7)
    wrong = [(was.group, now.group) for was, now in zip(data.photos, noised.photos) if was.group != now.group]
    assert [photo.path for photo in noised.photos] == [photo.path for photo in data.photos]
    assert abs(len(wrong) / 2000 - 0.3) < 4 * (0.3 * 0.7 / 2000) ** 0.5
    expected = len(wrong) / 20
    assert len(Counter(wrong)) == 20 and sum((n - expected) ** 2 / expected for n in Counter(wrong).values()) < 44
    assert all(was.group != now.group for was, now in zip(data.photos, with_noise(data, 1.0, 7).photos))


def test_noise_hangs_on_its_seed_and_more_of_it_keeps_what_was_wrong():
    data = many(each=50)
    little, much = (with_noise(data, share, 7) for share in (0.2, 0.6))
    assert with_noise(data, 0.0, 7) == data and with_noise(data, 0.2, 7) == little != with_noise(data, 0.2, 8)
    assert all(b.group == a.group for was, a, b in zip(data.photos, little.photos, much.photos) if a.group != was.group)
    with pytest.raises(RealRAGError, match="from 0 to 1"):
        with_noise(data, 1.5, 7)


# The search


def test_the_search_stops_at_the_first_noise_within_the_bounds():
    asked = []
    assert tune(lambda noise: asked.append(noise) or 1 - noise, 0.45, 0.70) == [(0.5, 0.5)] and asked == [0.5]
    assert [noise for noise, _ in tune(lambda noise: 1 - noise**4, 0.45, 0.70)] == [0.5, 0.75, 0.875][:3][: len(
        tune(lambda noise: 1 - noise**4, 0.45, 0.70))]
    assert tune(lambda noise: 0.6 * (1 - noise), 0.45, 0.70)[-1][0] == 0.25 / 2


def test_where_no_noise_is_small_enough_the_last_trial_is_without_any_and_says_what_can_be_had():
    tried = tune(lambda noise: 0.4 * (1 - noise), 0.45, 0.70, trials=4)
    assert [noise for noise, _ in tried] == [0.5, 0.25, 0.125, 0.0] and chosen(tried, 0.45, 0.70) == (0.0, 0.4)


def test_of_trials_outside_the_bounds_the_nearest_is_chosen():
    assert chosen([(0.5, 0.1), (0.25, 0.8), (0.375, 0.42)], 0.45, 0.70) == (0.375, 0.42)
