"""The procedural world: its classes and their names, its pictures, its sets and its split."""

import csv
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from realrag import artifact
from realrag.bundle.bundle import unit_rows
from realrag.errors import RealRAGError
from realrag.photos.scan import scan
from realrag_train.__main__ import main
from realrag_train.judge.classifiers import ridge_classifier
from realrag_train.judge.histograms import GradientEncoder
from realrag_train.reproduce import ceiling
from realrag_train.reproduce.config import Experiment, find_world, read_plan
from realrag_train.reproduce.judge_encoders import (
    CnnEncoder,
    JudgeTraining,
    Lite0Encoder,
    confusions,
    load_judge_encoder,
    save_judge_encoder,
    train_cnn,
)
from realrag_train.reproduce.procedural.classes import ACCENTS, FAMILIES, classes_of
from realrag_train.reproduce.procedural.pen import Pen, Pose
from realrag_train.reproduce.procedural.scene import picture
from realrag_train.reproduce.procedural.world import (
    SETS,
    SPLITS,
    World,
    photos_of,
    read_proper_names,
    read_splits,
    split_classes,
    write_world,
)

TINY = World(
    families=2, siblings=5, unseen=1, novel=1, size=16, library=2, judge=1, evaluation=1, validation=1, generator=1
)


def test_there_are_twenty_families_of_twelve_classes_whose_names_are_all_different():
    classes = [each for each, _ in split_classes(World())]
    assert len(classes) == 240 and Counter(each.family.name for each in classes) == {f.name: 12 for f in FAMILIES}
    assert len({each.name for each in classes}) == len({each.folder for each in classes}) == 240
    assert all(len(each.folder) < 120 and set(each.folder) <= set("abcdefghijklmnopqrstuvwxyz-") for each in classes)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_name_tells_every_attribute_and_every_attribute_can_be_seen(family):
    """Change one attribute: the name changes, and so do pixels of the same pose, paint and accent."""
    (look,) = (each.look for each in classes_of(family, 1, 0))

    def drawn(look):
        pen = Pen(48, Pose())
        family.draw(pen, look, (120, 124, 134), ACCENTS[look["accent"]])
        return np.asarray(pen.image, int)

    names = type(classes_of(family, 1, 0)[0])
    base = drawn(look)
    assert (base[..., 3] > 0).mean() > 0.08 and not base[0].any()  # an object, and within its frame
    for key, values in {**family.axes, "accent": tuple(ACCENTS)}.items():
        for value in set(values) - {look[key]}:
            other = {**look, key: value}
            assert names(family, other).name != names(family, look).name
            assert (np.abs(drawn(other) - base).max(2) > 40).sum() >= 8, (key, value)


# Mean brightness of the four quarters of one 64-pixel picture a family, as the published world drew them.
QUARTERS = {
    "car": [173.0, 183.1, 164.9, 181.4],
    "bus": [186.9, 191.9, 133.0, 138.6],
    "boat": [163.5, 148.7, 165.8, 157.5],
    "aeroplane": [182.5, 163.0, 179.4, 142.4],
    "train": [104.6, 99.2, 73.5, 77.9],
    "mug": [157.3, 155.2, 131.2, 132.0],
    "teapot": [139.0, 151.2, 160.2, 130.9],
    "lamp": [210.3, 211.4, 121.7, 121.1],
    "chair": [179.4, 162.8, 121.3, 119.1],
    "clock": [193.0, 188.8, 134.2, 139.8],
    "bottle": [179.5, 170.7, 141.6, 146.3],
    "umbrella": [181.7, 188.4, 115.3, 188.1],
    "backpack": [97.7, 99.6, 84.0, 103.5],
    "bird": [166.9, 187.5, 138.6, 119.5],
    "fish": [198.8, 183.7, 118.3, 111.5],
    "butterfly": [142.1, 136.5, 137.4, 140.8],
    "flower": [165.5, 179.0, 135.2, 132.7],
    "house": [146.9, 150.4, 123.2, 126.4],
    "shoe": [209.4, 189.0, 113.0, 100.9],
    "lighthouse": [157.5, 179.9, 137.1, 130.4],
}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_picture_is_the_same_wherever_it_is_drawn(family):
    """Another machine may round a pixel of an edge differently, and no more: the world of the experiment stays."""
    each = classes_of(family, 3, 0)[2]
    quarters = np.asarray(picture(each, 5, 64), float).reshape(2, 32, 2, 32, 3).mean((1, 3)).mean(2)
    assert np.abs(quarters.ravel() - QUARTERS[family.name]).max() < 0.5


def test_a_picture_depends_on_its_seed_alone():
    each = classes_of(FAMILIES[0], 3, 0)[2]
    assert np.array_equal(picture(each, 5, 64), picture(each, 5, 64))
    assert not np.array_equal(picture(each, 5, 64), picture(each, 6, 64))


def test_the_same_scene_can_be_had_at_any_size():
    each = classes_of(FAMILIES[5], 1, 0)[0]
    small, large = picture(each, 3, 64), picture(each, 3, 256)
    assert large.size == (256, 256)
    shrunk = np.asarray(large.resize((16, 16), 4), float)
    assert np.abs(shrunk - np.asarray(small.resize((16, 16), 4), float)).mean() < 8


@pytest.mark.parametrize("name", ["procedural", "procedural-again"])
def test_held_out_classes_are_new_wholes_of_known_parts(name):
    rows = split_classes(read_plan(find_world(name)).world)
    assert Counter(split for _, split in rows) == {"G-seen": 140, "U1": 60, "U2": 40}
    for family in FAMILIES:
        seen = {
            item for each, split in rows if each.family is family and split == "G-seen" for item in each.look.items()
        }
        held = [each for each, split in rows if each.family is family and split != "G-seen"]
        assert len(held) == 5
        for each in held:
            assert {item for item in each.look.items() if item[0] != "accent"} <= seen
            assert each.look not in [
                other.look for other, split in rows if split == "G-seen" and other.family is family
            ]


def test_the_sets_of_a_world_share_no_photo_and_novel_classes_are_only_searched_and_judged(tmp_path, capsys):
    (tmp_path / "tiny.toml").write_text(
        "[world]\nfamilies = 2\nsiblings = 5\nunseen = 1\nnovel = 1\nsize = 16\nlibrary = 2\njudge = 1\nevaluation = 1\nvalidation = 1\ngenerator = 1\n"
    )
    out = tmp_path / "world"
    assert main(["reproduce", "world", str(tmp_path / "tiny.toml"), "--out", str(out)]) == 0
    assert "procedural" in capsys.readouterr().out
    with open(out / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["file"] for row in rows} == {p.relative_to(out).as_posix() for p in out.rglob("*.jpg")}
    assert len(rows) == len(photos_of(TINY)) == 10 * 4 + 8 + 6
    hashes = [scan(out / name).candidates for name in SETS]
    assert len({photo.sha256 for each in hashes for photo in each}) == len(rows)
    for row in rows:
        assert (row["split"] in SPLITS and (row["split"] == "U2") == (row["file"].startswith("library/novel/"))) or row[
            "set"
        ] != "library"
        assert row["split"] == "G-seen" or row["set"] != "generator"
        assert not (row["split"] == "U2" and row["set"] == "validation")
    proper = {each.proper for each, split in split_classes(TINY) if split == "G-seen"}
    assert {folder.name.replace("-", " ") for folder in (out / "generator").iterdir()} == proper
    assert read_splits(out) == {each.folder: (each.family.name, split) for each, split in split_classes(TINY)}
    assert json.loads((out / "world.json").read_text())["kind"].startswith("procedural")


def test_the_names_that_a_generator_knows_classes_by_are_their_own_and_say_the_family_alone():
    classes = [each for each, _ in split_classes(World())]
    assert (
        len({each.proper for each in classes})
        == len({each.proper.split()[0] for each in classes})
        == len(classes)
        == 240
    )
    said = {word for each in classes for word in each.name.replace("-", " ").split()}
    assert all(each.proper.split()[1] == each.family.name and each.proper.split()[0] not in said for each in classes)


def test_a_damaged_world_says_its_file_and_the_cure(tmp_path):
    assert read_proper_names(tmp_path) == {}
    for text in ("{", "[]", '{"classes": 3}'):
        (tmp_path / "world.json").write_text(text)
        with pytest.raises(RealRAGError, match=r"world.json cannot be read .*make the world again"):
            read_proper_names(tmp_path)


@pytest.mark.slow
def test_a_world_that_was_stopped_goes_on_and_another_one_is_refused(tmp_path):
    write_world(TINY, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        write_world(
            TINY,
            tmp_path / "parts",
            lambda done, total: (_ for _ in ()).throw(KeyboardInterrupt) if done == 7 else None,
        )
    assert len(list((tmp_path / "parts").rglob("*.jpg"))) == 7
    kept = next((tmp_path / "parts").rglob("*.jpg"))
    before = kept.stat().st_mtime_ns
    write_world(TINY, tmp_path / "parts")
    assert kept.stat().st_mtime_ns == before
    whole, parts = ({p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.*") if p.is_file()}
                    for name in ("whole", "parts"))  # fmt: skip
    assert whole == parts
    with pytest.raises(RealRAGError, match="holds another world"):
        write_world(World(families=2, siblings=5, unseen=1, novel=1, size=24), tmp_path / "parts")


def test_what_a_world_cannot_be_is_said():
    with pytest.raises(RealRAGError, match="leave the generator none to know"):
        World(siblings=4, unseen=2, novel=2)
    with pytest.raises(RealRAGError, match="families goes from 1 to 20"):
        World(families=21)
    with pytest.raises(RealRAGError, match="has 40 looks, not 41"):
        classes_of(FAMILIES[1], 41, 0)


@pytest.mark.slow
def test_siblings_are_confused_more_than_strangers_and_yet_told_apart():
    """Ridge regression on gradients and colors: 5 families of 4, 10 photos each to learn from."""
    classes = [each for family in FAMILIES[5:10] for each in classes_of(family, 4, 0)]
    families = np.arange(20) // 4
    encoder = GradientEncoder(48)

    def vectors(first, count):
        pixels = torch.stack([encoder.prepare(picture(each, first + i, 48)) for each in classes for i in range(count)])
        return unit_rows(encoder.encode_images(pixels).numpy()), np.repeat(np.arange(20), count)

    judge, _ = ridge_classifier(*vectors(0, 10))
    seen, right = vectors(1000, 5)
    found = confusions(judge.predict(seen), right, families)
    assert found["accuracy"] > 0.35  # chance is 0.05
    assert found["mistakes on siblings"] > 2 * found["by chance"] == pytest.approx(2 * 3 / 19)


def test_confusions_are_counted_as_by_hand():
    named, right, families = np.array([0, 1, 2, 0, 3]), np.array([0, 0, 0, 2, 3]), np.array([0, 0, 1, 1])
    assert confusions(named, right, families) == {
        "accuracy": 0.4,
        "mistakes on siblings": 1 / 3,
        "by chance": pytest.approx(1 / 3),
    }


def test_a_gradient_histogram_is_that_of_its_slow_twin():
    encoder = GradientEncoder(16)
    x = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    gray = np.pad(x[0].mean(0).numpy(), 1, mode="edge")
    cells = np.zeros((8, 8, 8))
    for i in range(16):
        for j in range(16):
            across, down = gray[i + 1, j + 2] - gray[i + 1, j], gray[i + 2, j + 1] - gray[i, j + 1]
            place = (np.arctan2(down, across) % np.pi) / np.pi * 8
            low = int(np.floor(place)) % 8
            cells[low, i // 2, j // 2] += np.hypot(across, down) * (1 - place % 1) / 4
            cells[(low + 1) % 8, i // 2, j // 2] += np.hypot(across, down) * (place % 1) / 4
    cells /= np.sqrt((cells**2).sum(0) + 1e-3)
    found = encoder._images(x)[0].numpy()
    assert len(found) == encoder.dim and np.allclose(found[:512], cells.reshape(-1), atol=1e-4)


def test_a_taught_judge_repeats_itself_and_comes_back_from_its_file(tmp_path):
    write_world(TINY, tmp_path / "world")
    files = sorted((tmp_path / "world" / "judge").rglob("*.jpg"))
    one, two = (train_cnn(files, [f.parent.name for f in files], JudgeTraining(2, 2, 16, 4)) for _ in range(2))
    assert one.fingerprint == two.fingerprint != CnnEncoder(2, 16).fingerprint
    save_judge_encoder(one, tmp_path / "cnn.safetensors", "key")
    assert load_judge_encoder(tmp_path / "cnn.safetensors", "key").fingerprint == one.fingerprint
    assert (
        load_judge_encoder(tmp_path / "cnn.safetensors", "other") is None
        and load_judge_encoder(tmp_path / "none", "key") is None
    )


def test_more_classes_of_u1_leave_all_others_and_what_is_on_disk_as_they_were(tmp_path):
    """So a generator that was taught the G-seen classes serves the larger world too."""
    more = replace(TINY, extra=3)
    few, many = split_classes(TINY), split_classes(more)
    added = [row for row in many if row not in few]
    assert len(added) == 3 * TINY.families and {split for _, split in added} == {"U1"}
    assert [row for row in many if row in few] == few and len({each.folder for each, _ in many}) == len(many)
    of_generator = [
        {row[0] for row in photos_of(replace(each, generator=2)) if row[3] == "generator"} for each in (TINY, more)
    ]
    assert of_generator[0] == of_generator[1] != set()
    assert (
        "extra" not in write_world(TINY, tmp_path / "few")["world"]
    )  # worlds of before there was that field stay whole
    with pytest.raises(RealRAGError, match="holds another world"):
        write_world(more, tmp_path / "few")
    with pytest.raises(RealRAGError, match=r"has \d+ looks, not 62"):
        split_classes(World(extra=50))
    with pytest.raises(RealRAGError, match=r"which no G-seen class has. Lower `extra`"):
        split_classes(World(families=1, siblings=1, unseen=0, novel=0, extra=2))


def colored(color: str, number: int, rng) -> np.ndarray:
    """Stripes of one of three colors, each in a direction of its own, as `gradients` does not see a color all over."""
    which = ("wet red", "wet green", "wet blue").index(color)
    pixels = np.zeros((32, 32, 3), np.uint8)
    across, down = np.indices((32, 32))
    stripes = (across, down, across + down)[which] // 4 % 2
    pixels[..., which] = 100 * stripes + rng.integers(100, 155, (32, 32))
    return pixels


@pytest.fixture
def stripes(tmp_path):
    """The folder of a world of three classes, 20 photos each; one is unseen."""
    rng = np.random.default_rng(0)
    for number in range(60):
        color = ("wet red", "wet green", "wet blue")[number % 3]
        path = tmp_path / "photos" / color / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(colored(color, number, rng)).save(path)
    world = tmp_path / "world"
    photos = [str(tmp_path / "photos"), "--out", str(world), "--unseen", "1", "--group-words", "1"]
    assert main(["reproduce", "photos", *photos]) == 0
    return world


@pytest.mark.slow
def test_the_gate_on_what_the_generator_was_taught_is_asked_of_its_own_pictures(stripes, tmp_path, capsys, monkeypatch):
    """A painter that knows red, and draws green for whatever else it is asked."""

    class KnowsRed:
        batch, metadata = 2, {"name": "knows red"}

        def paint_many(self, rows):
            asked.extend(rows)
            rng = np.random.default_rng(len(asked))
            return [Image.fromarray(colored("wet red" if "red" in row[0] else "wet green", 0, rng)) for row in rows]

    asked = []
    monkeypatch.setattr(ceiling, "make_painter", lambda *given: KnowsRed())
    files = [word for name in ("generator", "adapter", "autoencoder") for word in (f"--{name}", "x")]
    command = ["reproduce", "ceiling", str(stripes), "--judges", "gradients", *files, "--noises", "4", "--held-out"]
    capsys.readouterr()
    for held, said in (
        ("Wet Green\n", "0.500 ("),
        ("wet-green\n\nwet blue\n", "1.000 ("),
        ("wet red\nwet-green", "0.000 ("),
    ):
        (tmp_path / "held.txt").write_text(held)
        assert main([*command, str(tmp_path / "held.txt")]) == 0
        photos, own = capsys.readouterr().out.splitlines()
        assert photos.startswith("gradients names all 1.000") and own.startswith(f"gradients names {said}")
        assert own.endswith("passes" if "1.000" in said else "fails") and "asks for 0.600" in own
    assert {row[1] for row in asked} == {1000, 1001, 1002, 1003} and not any(row[2] for row in asked)
    seen = [name for name, (_, split) in read_splits(stripes).items() if split == "G-seen"]
    asked.clear()
    assert main(command[:-1]) == 0 and len({row[0] for row in asked}) == len(seen) == 2  # the world's own split
    capsys.readouterr()
    for text, error in (
        ("wet yellow", "names 'wet yellow', which is no class"),
        ("wet red\nwet green\nwet blue", "No class of"),
    ):
        (tmp_path / "held.txt").write_text(text)
        assert main([*command, str(tmp_path / "held.txt")]) == 1 and error in capsys.readouterr().err
    assert main([*command, str(tmp_path / "none.txt")]) == 1 and "cannot be read" in capsys.readouterr().err
    assert main([*command[:-1], "--noises", "0"]) == 1 and "--noises is 0" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(command[:-5]) == 1 and "Name the three files" in capsys.readouterr().err


@pytest.mark.slow
def test_the_first_gate_is_asked_before_anything_is_painted(stripes, tmp_path, capsys):
    """Judges that tell stripes of three colors apart; one of EfficientNet-Lite0's shape, with random weights, from its file."""
    encoder = Lite0Encoder()
    tensors = {**encoder.state_dict(), "classifier.weight": torch.zeros(2, 2)}
    artifact.write(tmp_path / "lite0.safetensors", {name: t.numpy() for name, t in tensors.items()}, {})
    command = ["reproduce", "ceiling", str(stripes), "--judges", "gradients", "lite0"]
    capsys.readouterr()
    assert main([*command, "--lite0", str(tmp_path / "lite0.safetensors")]) == 0
    gradients, lite0 = capsys.readouterr().out.splitlines()
    assert gradients.startswith("gradients names all 1.000") and lite0.startswith("lite0 names all 1.000")
    assert main(command) == 1 and "--lite0 FILE" in capsys.readouterr().err
    with pytest.raises(RealRAGError, match="needs its file"):
        Experiment(judges=("lite0",))
