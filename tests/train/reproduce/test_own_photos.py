"""A world of one's own photos: what is held out has seen siblings, and no photo is in two sets."""

import csv
import json
from collections import Counter

import pytest
from made_photos import photo_bytes

from realrag.errors import RealRAGError
from realrag_train.__main__ import main
from realrag_train.reproduce.own_photos import FRACTIONS, last_word, parts_of, split_names
from realrag_train.reproduce.procedural.world import read_splits

CARS = [
    f"{make} {model} {body} 2012"
    for make in ("Audi", "BMW", "Fiat", "Ram")
    for model, body in (("A", "Coupe"), ("B", "Coupe"), ("C", "Sedan"), ("D", "Sedan"))
]


@pytest.mark.parametrize("seed", range(20))
def test_each_held_out_class_has_a_seen_one_of_its_make_and_of_its_body(seed):
    families = {name: name.split()[0] for name in [*CARS, "Lada Niva 2001"]}
    splits = split_names(families, 6, 2, seed)
    assert Counter(splits.values()) == {"G-seen": 9, "U1": 6, "U2": 2} and splits["Lada Niva 2001"] == "G-seen"
    seen = [name for name, split in splits.items() if split == "G-seen"]
    for name in set(splits) - set(seen):
        assert families[name] in {families[other] for other in seen} and last_word(name) in {
            last_word(other) for other in seen
        }


def test_too_many_held_out_are_refused_with_how_many_can_be():
    with pytest.raises(RealRAGError, match="and 12 can be held out"):
        split_names({name: name.split()[0] for name in CARS}, 16, 0, 0)


@pytest.mark.parametrize("split", ["G-seen", "U1", "U2"])
def test_sets_share_no_photo_and_hold_all(split):
    parts = parts_of(list(range(40)), split)
    assert sorted(photo for part in parts.values() for photo in part) == list(range(40))
    assert bool(parts["generator"]) == (split == "G-seen") and bool(parts["validation"]) == (split != "U2")
    assert {name: len(part) / 40 for name, part in parts_of(list(range(40)), "G-seen").items()} == pytest.approx(
        FRACTIONS, abs=0.03
    )
    with pytest.raises(RealRAGError, match="leave none for"):
        parts_of(list(range(4)), "G-seen")


def test_the_command_writes_a_world_that_the_experiment_reads_and_refuses_another_one_there(tmp_path, capsys):
    photos, table = tmp_path / "all", tmp_path / "labels.csv"
    photos.mkdir()
    names = ["Audi TT Coupe", "Audi A4 Sedan", "BMW M3 Coupe", "BMW M5/S Sedan"]
    with open(table, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "class"))
        for row, name in enumerate(names * 20):
            (photos / f"{row}.jpg").write_bytes(photo_bytes((40 + 20 * (row % 4), 90, 90), row))
            writer.writerow((f"{row}.jpg", name))
    line = [
        "reproduce",
        "photos",
        str(photos),
        "--captions",
        str(table),
        "--out",
        str(out := tmp_path / "world"),
        "--unseen",
        "1",
    ]
    assert main([*line, "--novel", "1"]) == 0
    splits = read_splits(out)
    assert Counter(split for _, split in splits.values()) == {"G-seen": 2, "U1": 1, "U2": 1}
    assert "BMW M5-S Sedan" in splits and {family for family, _ in splits.values()} == {"Audi", "BMW"}
    rows = list(csv.DictReader(open(out / "labels.csv")))
    assert len(rows) == len({(out / row["file"]).read_bytes() for row in rows}) == 80
    assert {row["file"].split("/")[1] for row in rows if row["set"] == "library"} == {"known", "novel"}
    assert {row["split"] for row in rows if row["set"] == "generator"} == {"G-seen"}
    assert main([*line, "--novel", "1"]) == 0  # there already
    assert main([*line, "--novel", "0"]) == 1 and "holds another world" in capsys.readouterr().err
    assert sum(json.loads((out / "world.json").read_text())["photos"].values()) == 80
