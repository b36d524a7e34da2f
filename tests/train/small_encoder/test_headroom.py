"""A starting encoder on anybody's photos: parting them, noise in their captions, and the search for headroom."""

import csv
import json
import os
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_photos import COLORS, photo_bytes
from safetensors.torch import save_file

from realrag.encoders.load import load_encoder
from realrag.encoders.small_net import MobileNet
from realrag.errors import RealRAGError
from realrag.photos.scan import scan
from realrag_train.__main__ import main
from realrag_train.loop.stages import STOPPED, OutOfTime, Stopped
from realrag_train.loop.watch import WatchConfig
from realrag_train.retriever.choose_generator import _groups
from realrag_train.retriever.recipe import read_recipe
from realrag_train.retriever.run import Run
from realrag_train.retriever.starting_encoder import started
from realrag_train.sections import find_recipe
from realrag_train.small_encoder import headroom as search
from realrag_train.small_encoder.captioned_photos import Group, Photo, PhotoSet, read_captioned, with_noise
from realrag_train.small_encoder.headroom import chosen, find_headroom, tune
from realrag_train.small_encoder.split import NAMES, part_photos, split
from realrag_train.small_encoder.train import EncoderJob, train_encoder, training_of
from realrag_train.small_encoder.trainer import EncoderConfig

pytestmark = pytest.mark.slow
ONE_STEP = WatchConfig(log_steps=1, max_minutes=1e-9)

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
    metadata = split(photos, photos / "labels.csv", tmp_path / "out", (0.6, 0.15, 0.25), 7)
    assert metadata["photos"] == {"library": 36, "validation": 9, "gallery": 15}
    whole, found = scan(photos, photos / "labels.csv").candidates, []
    for name, each in zip(NAMES, (12, 3, 5), strict=True):
        part = scan(tmp_path / "out" / name).candidates
        assert set(Counter(photo.credit.class_name for photo in part).values()) == {each}
        found += [(photo.sha256, photo.credit) for photo in part]
    assert sorted(found, key=str) == sorted(((photo.sha256, photo.credit) for photo in whole), key=str)


def test_one_class_more_does_not_move_the_photos_of_the_others(tmp_path):
    photos = numbered(tmp_path / "photos")
    candidates = scan(photos, photos / "labels.csv").candidates
    fewer = [photo for photo in candidates if not photo.credit.class_name.endswith("2")]
    for part, smaller in zip(
        part_photos(candidates, (0.5, 0.2, 0.3), 1), part_photos(fewer, (0.5, 0.2, 0.3), 1), strict=True
    ):
        assert [photo.file for photo in part if photo in smaller] == [photo.file for photo in smaller]
    other = part_photos(candidates, (0.5, 0.2, 0.3), 2)
    assert [photo.file for photo in other[0]] != [
        photo.file for photo in part_photos(candidates, (0.5, 0.2, 0.3), 1)[0]
    ]


def test_a_split_that_is_there_is_left_as_it_is_and_another_one_is_refused(tmp_path):
    photos = numbered(tmp_path / "photos", each=8)
    metadata = split(photos, photos / "labels.csv", tmp_path / "out", (0.6, 0.15, 0.25), 7)
    (tmp_path / "out" / "library" / "mine.txt").write_text("kept")
    assert split(photos, photos / "labels.csv", tmp_path / "out", (0.6, 0.15, 0.25), 7) == metadata
    assert (tmp_path / "out" / "library" / "mine.txt").exists()
    with pytest.raises(RealRAGError, match="holds another split"):
        split(photos, photos / "labels.csv", tmp_path / "out", (0.6, 0.15, 0.25), 8)
    with pytest.raises(RealRAGError, match="together 1"):
        split(photos, photos / "labels.csv", tmp_path / "new", (0.6, 0.15, 0.15), 7)
    assert not (tmp_path / "new").exists()


def test_a_column_of_the_table_can_say_which_photo_is_where(tmp_path, capsys):
    photos = numbered(tmp_path / "photos", each=3)
    rows = (photos / "labels.csv").read_text().splitlines()
    said = ["split", *(("train", "val", "test", "unused")[number % 4] for number in range(9))]
    (photos / "labels.csv").write_text("".join(f"{row},{word}\n" for row, word in zip(rows, said, strict=True)))
    arguments = [
        "split",
        str(photos),
        "--captions",
        str(photos / "labels.csv"),
        "--out",
        str(tmp_path / "out"),
        "--column",
    ]
    assert main([*arguments, "splitt"]) == 1 and "'splitt'" in capsys.readouterr().err
    assert main([*arguments, "split"]) == 0 and "3 library, 2 validation, 2 gallery" in capsys.readouterr().out
    assert [photo.file for photo in scan(tmp_path / "out" / "validation").candidates] == ["all/001.jpg", "all/005.jpg"]


# Noise


def many(groups: int = 5, each: int = 400) -> PhotoSet:
    keys = [f"g{i}" for i in range(groups)]
    return PhotoSet(
        tuple(Group(key, key, key) for key in keys),
        tuple(Photo(Path(f"{i}.jpg"), key) for key in keys for i in range(each)),
    )


def test_noise_names_a_wrong_class_as_often_as_it_says_and_any_wrong_class_alike():
    data, noised = many(), with_noise(many(), 0.3, 7)
    wrong = [
        (was.group, now.group) for was, now in zip(data.photos, noised.photos, strict=True) if was.group != now.group
    ]
    assert [photo.path for photo in noised.photos] == [photo.path for photo in data.photos]
    assert abs(len(wrong) / 2000 - 0.3) < 4 * (0.3 * 0.7 / 2000) ** 0.5
    expected = len(wrong) / 20
    assert len(Counter(wrong)) == 20 and sum((n - expected) ** 2 / expected for n in Counter(wrong).values()) < 44
    assert all(was.group != now.group for was, now in zip(data.photos, with_noise(data, 1.0, 7).photos, strict=True))


def test_noise_hangs_on_its_seed_and_more_of_it_keeps_what_was_wrong():
    data = many(each=50)
    little, much = (with_noise(data, share, 7) for share in (0.2, 0.6))
    assert with_noise(data, 0.0, 7) == data and with_noise(data, 0.2, 7) == little != with_noise(data, 0.2, 8)
    assert all(
        b.group == a.group
        for was, a, b in zip(data.photos, little.photos, much.photos, strict=True)
        if a.group != was.group
    )
    with pytest.raises(RealRAGError, match="from 0 to 1"):
        with_noise(data, 1.5, 7)


# The search


def test_the_search_halves_its_way_into_the_bounds_and_stops_there():
    assert tune(lambda noise: 1 - noise, 0.45, 0.70) == [(0.5, 0.5)]
    assert [noise for noise, _ in tune(lambda noise: 1 - noise**4, 0.45, 0.70)] == [0.5, 0.75]
    assert [noise for noise, _ in tune(lambda noise: 0.65 * (1 - noise), 0.45, 0.70)] == [0.5, 0.25]


def test_where_no_noise_is_small_enough_the_last_trial_is_without_any_and_says_what_can_be_had():
    tried = tune(lambda noise: 0.4 * (1 - noise), 0.45, 0.70, trials=4)
    assert [noise for noise, _ in tried] == [0.5, 0.25, 0.125, 0.0] and chosen(tried, 0.45, 0.70) == (0.0, 0.4)


def test_of_trials_outside_the_bounds_the_nearest_is_chosen():
    assert chosen([(0.5, 0.1), (0.25, 0.8), (0.375, 0.42)], 0.45, 0.70) == (0.375, 0.42)


@pytest.fixture(scope="module")
def mobilenet(tmp_path_factory):
    """A MobileNet of random weights in the file that the trainer starts from."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("start") / "mobilenet.safetensors"
    save_file(MobileNet().state_dict(), file, {"mean": "0.5", "std": "0.5", "source": "random"})
    return file


CONFIG = EncoderConfig(size=32, cut=12, views=1, epochs=2, batch=8, dim=16, buckets=512, text_width=8, bf16=False)


@pytest.fixture
def sets(tmp_path):
    """Folders of photos to learn from and others to measure on, read."""
    for part, first in (("learn", 0), ("measure", 100)):
        for name, color in COLORS.items():
            (tmp_path / part / f"{name}-thing").mkdir(parents=True)
            for seed in range(4):
                (tmp_path / part / f"{name}-thing" / f"{seed}.jpg").write_bytes(
                    photo_bytes(color, first + seed, size=(32, 24))
                )
    return read_captioned(tmp_path / "learn"), read_captioned(tmp_path / "measure")


def test_photos_are_grouped_by_class_and_without_one_by_their_caption(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(photo_bytes((9, 9, 9), number))
    rows = "file,class,caption\n0.jpg,Red-Car,my car\n1.jpg,red car,\n2.jpg,,A Blue boat\n"
    (tmp_path / "captions.csv").write_text(rows)
    found = read_captioned(tmp_path)
    assert [(group.key, group.name) for group in found.groups] == [
        ("a blue boat", "a blue boat"),
        ("red car", "red car"),
    ]
    assert [photo.group for photo in found.photos] == ["red car", "red car", "a blue boat"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(RealRAGError, match="no photo with a class"):
        read_captioned(tmp_path / "empty")


def test_the_encoder_found_opens_as_any_other_and_says_how_it_was_found(sets, mobilenet, tmp_path):
    job = EncoderJob(*sets, mobilenet, about={"data": "made"})
    found = find_headroom(CONFIG, job, tmp_path / "e" / "found.safetensors", (0.0, 1.0))
    assert found["within"] and [noise for noise, _ in found["trials"]] == [0.5]
    encoder = load_encoder(str(tmp_path / "e" / "found.safetensors"))
    assert encoder.encode_texts(["a red thing"]).shape == (1, 16)
    says = training_of(tmp_path / "e" / "found.safetensors")
    assert says["search"] == found and says["config"]["noise"] == 0.5 and says["data"] == "made"
    assert says["validation"]["R@1"] == found["trials"][0][1]


def test_a_finished_trial_is_not_trained_again_and_other_photos_are(sets, mobilenet, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(search, "train_encoder", lambda config, *rest, **kw: trained.append(config.noise) or train_encoder(
        config, *rest, **kw))  # fmt: skip

    def go(about):
        job = EncoderJob(*sets, mobilenet, about=about)
        return find_headroom(replace(CONFIG, epochs=1), job, tmp_path / "found.safetensors", (0.99, 1.0), trials=2)

    first = go({"data": "these"})
    made = (tmp_path / "found.safetensors").read_bytes()
    assert go({"data": "these"}) == first and len(trained) == 2
    assert (tmp_path / "found.safetensors").read_bytes() == made
    go({"data": "others"})
    assert len(trained) == 4


def test_training_stopped_after_any_step_ends_as_if_it_had_not_been(sets, mobilenet, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    noisy, job = replace(CONFIG, noise=0.4, views=3), EncoderJob(*sets, mobilenet)
    whole = train_encoder(noisy, job, tmp_path / "a" / "e.safetensors")
    with pytest.raises(Stopped, match="Run the same command again"):
        train_encoder(noisy, replace(job, watch=ONE_STEP), tmp_path / "b" / "e.safetensors")
    assert not (tmp_path / "b" / "e.safetensors").exists()
    assert (tmp_path / "b" / "e.checkpoint.safetensors").exists()
    assert train_encoder(noisy, job, tmp_path / "b" / "e.safetensors") == whole
    assert (tmp_path / "a" / "e.safetensors").read_bytes() == (tmp_path / "b" / "e.safetensors").read_bytes()


def test_a_time_limit_of_the_caller_stops_and_saves_too(sets, mobilenet, tmp_path):
    """A recipe's stage passes its limit as a progress callback that raises."""

    def out_of_time(done, total):
        if (tmp_path / "front").exists() and total > CONFIG.views + 1:
            raise OutOfTime("Time is up.")

    job = EncoderJob(*sets, mobilenet, watch=WatchConfig(log_steps=1), progress=out_of_time)
    config = replace(CONFIG, epochs=CONFIG.views + 2)
    with pytest.raises(OutOfTime):
        train_encoder(config, job, tmp_path / "e.safetensors")
    assert (tmp_path / "e.checkpoint.safetensors").exists() and not (tmp_path / "e.safetensors").exists()


def test_the_command_takes_any_folder_and_refuses_half_of_what_it_needs(sets, mobilenet, tmp_path, capsys):
    common = ["encoder", "--mobilenet", str(mobilenet), "--out", str(tmp_path / "e.safetensors"), "--threads", "1"]
    small = [f"--{name}={getattr(CONFIG, name)}" for name in ("size", "cut", "views", "epochs", "batch", "dim")]
    assert main([*common, "--photos", str(tmp_path / "learn")]) == 1 and "--validation" in capsys.readouterr().err
    folders = ["--photos", str(tmp_path / "learn"), "--validation", str(tmp_path / "measure")]
    assert main([*common, *small, *folders, "--headroom", "0.9", "0.2"]) == 1 and "LEAST" in capsys.readouterr().err
    assert main([*common, *small, *folders, "--noise", "0.25"]) == 0
    says = training_of(tmp_path / "e.safetensors")
    assert says["config"]["noise"] == 0.25 and says["data"]["photos"] == 12 and says["data"]["folder"] == "learn"


def test_the_command_that_is_stopped_leaves_with_the_status_of_every_stopped_trainer(
    sets, mobilenet, tmp_path, monkeypatch, capsys
):
    """Ctrl-C after one step: `encoder` left with 0 once."""
    from realrag_train.small_encoder.trainer import EncoderTraining

    advance = EncoderTraining.advance

    def advance_and_ask(self):
        figures = advance(self)
        os.kill(os.getpid(), signal.SIGINT)
        return figures

    monkeypatch.setattr(EncoderTraining, "advance", advance_and_ask)
    small = [f"--{name}={getattr(CONFIG, name)}" for name in ("size", "cut", "views", "epochs", "batch", "dim")]
    command = ["encoder", "--mobilenet", str(mobilenet), "--out", str(tmp_path / "e.safetensors"), "--threads", "1",
               "--photos", str(tmp_path / "learn"), "--validation", str(tmp_path / "measure"), *small]  # fmt: skip
    assert main(command) == STOPPED and "Stopped after step 1" in capsys.readouterr().out
    monkeypatch.undo()
    assert main(command) == 0 and "resuming after step 1" in capsys.readouterr().out


def test_a_checkpoint_and_features_of_other_photos_are_not_taken_for_these(sets, mobilenet, tmp_path):
    out, job = tmp_path / "e.safetensors", EncoderJob(*sets, mobilenet)
    with pytest.raises(Stopped):
        train_encoder(CONFIG, replace(job, watch=ONE_STEP), out)
    learn, measure = sets
    with pytest.raises(RealRAGError, match="photos or captions was"):
        train_encoder(CONFIG, EncoderJob(PhotoSet(learn.groups, learn.photos[1:]), measure, mobilenet), out)
    caches = set((tmp_path / "front").iterdir())
    learn.photos[0].path.write_bytes(photo_bytes((200, 0, 200), 9, size=(32, 24)))
    train_encoder(CONFIG, job, out)
    assert len(set((tmp_path / "front").iterdir()) - caches) == 1


# In a recipe

RECIPE = """
[data]
group_words = 1
[start]
parts = [0.5, 0.2, 0.3]
least = 0.0
most = 1.0
size = 32
cut = 12
views = 1
epochs = 1
[imagine]
generator = "stand-in"
seeds = 1
unknown = 1
[fit]
epochs = 1
batch = 8
hidden = 8
[evaluate]
seeds = 1
"""


def test_one_command_goes_from_one_folder_to_a_report_with_an_encoder_of_its_own(mobilenet, tmp_path):
    photos = numbered(tmp_path / "photos", each=10)
    (tmp_path / "recipe.toml").write_text(RECIPE)
    arguments = ["run", str(tmp_path / "recipe.toml"), "--photos", str(photos), "--captions", str(photos / "labels.csv"),
                 "--mobilenet", str(mobilenet), "--out", str(tmp_path / "out"), "--threads", "1"]  # fmt: skip
    assert main(arguments) == 0
    report = json.loads((tmp_path / "out" / "evaluate.json").read_text())
    assert report["facts"]["gallery_photos"] == 9 and report["splits"]["unseen"] == 1
    assert (
        report["facts"]["encoder"] == "starting-encoder"
        and (tmp_path / "out" / "start" / "starting-encoder.safetensors").is_file()
    )
    drawn_as = report["facts"]["generator"]["drawn_as"]
    assert len(drawn_as) == 1 and all(a != b for a, b in drawn_as.items())
    first = (tmp_path / "out" / "start" / "starting-encoder.safetensors").read_bytes()
    assert main(arguments) == 0
    assert (tmp_path / "out" / "start" / "starting-encoder.safetensors").read_bytes() == first


def test_a_recipe_without_the_section_is_as_it_was_and_one_without_a_start_or_photos_to_tune_on_is_refused(
    mobilenet, tmp_path
):
    (tmp_path / "plain.toml").write_text('[imagine]\ngenerator = "stand-in"\n')
    recipe = read_recipe(tmp_path / "plain.toml", {"photos": str(tmp_path)})
    assert started(recipe, tmp_path / "out") == recipe
    Run(recipe, tmp_path / "out").stage("start")
    assert not (tmp_path / "out").exists()
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("parts", "# parts"))
    with pytest.raises(RealRAGError, match="--mobilenet"):
        Run(read_recipe(tmp_path / "recipe.toml", {"photos": str(tmp_path)}), tmp_path / "out")
    recipe = read_recipe(tmp_path / "recipe.toml", {"photos": str(tmp_path), "mobilenet": str(mobilenet)})
    with pytest.raises(RealRAGError, match="--validation"):
        Run(recipe, tmp_path / "out").stage("start")


@pytest.mark.parametrize("name", ["cars", "grocery-headroom"])
def test_the_recipes_that_come_along_ask_for_an_encoder_with_headroom_and_all_arms(name, tmp_path):
    recipe = read_recipe(find_recipe(name), {"mobilenet": "m.safetensors"})
    assert 0.45 <= recipe.start.least < recipe.start.most <= 0.70
    assert recipe.imagine.generator == "stand-in" and recipe.evaluate.seeds == 5
    assert recipe.evaluate.arms == ("zero", "normal", "hard", "reflective")
    assert started(recipe, tmp_path).data.encoder.endswith("starting-encoder.safetensors")


def test_classes_are_siblings_by_the_first_words_of_their_names():
    names = ["Audi-100 Sedan 1994", "audi TT Coupe", "BMW M3", "Aston Martin DB9"]
    assert _groups("", 1, names) == ["audi", "audi", "bmw", "aston"]
    assert _groups("", 2, names)[:2] == ["audi 100", "audi tt"] and _groups("", 0, names) is None
