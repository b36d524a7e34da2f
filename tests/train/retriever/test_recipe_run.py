"""A recipe from photos to a bundle with its measurements, on made photos, in seconds; stopped and begun again."""

import argparse
import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from fake_encoder import ColorEncoder
from made_photos import COLORS, photo_bytes
from tiny_encoders import write_tiny_small

from realrag.bundle.bundle import Bundle
from realrag.encoders.small import SmallEncoder
from realrag.errors import RealRAGError
from realrag.hub.card import card
from realrag.retriever import Retriever
from realrag_train.__main__ import main
from realrag_train.contrastive.utility import candidates, measure_utility
from realrag_train.dataset import load_material
from realrag_train.generators.errors import GeneratorError
from realrag_train.loop.stages import Stopped
from realrag_train.retriever import run as stages
from realrag_train.retriever.choose_generator import drawn_instead
from realrag_train.retriever.recipe import read_recipe
from realrag_train.retriever.run import STAGES, Run
from realrag_train.sections import CONFIGS, find_recipe
from realrag_train.small_encoder import command as encoder_command
from realrag_train.small_encoder.trainer import EncoderConfig

pytestmark = pytest.mark.slow

COLORS = {**COLORS, "yellow": (220, 220, 30)}
RECIPE = """
[imagine]
generator = "stand-in"
seeds = 2
unknown = 1
unknown_seed = 0
[fit]
epochs = 2
batch = 8
hidden = 8
[evaluate]
seeds = 2
ship = "reflective"
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    """(recipe file, photos for training, others for testing), and the fake encoder in place of a real one."""
    for part, first in (("train", 0), ("test", 100)):
        for name, color in COLORS.items():
            (tmp_path / part / name).mkdir(parents=True)
            for seed in range(5):
                (tmp_path / part / name / f"{seed}.jpg").write_bytes(photo_bytes(color, first + seed, cells=6))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    monkeypatch.setattr(stages, "load_encoder", lambda name, device: ColorEncoder())
    return tmp_path / "recipe.toml", tmp_path / "train", tmp_path / "test"


def work(world, out, **options) -> Run:
    recipe, photos, test = world
    return Run(read_recipe(recipe, {"photos": str(photos), "test_photos": str(test)}), out, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_recipe_ends_in_a_bundle_that_answers_and_a_report_that_stands_alone(world, tmp_path):
    said = []
    run = work(world, tmp_path / "out", log=said.append)
    for stage in STAGES:
        run.stage(stage)
    assert [line.split(":")[0] for line in said if ": done" in line] == list(STAGES)

    report = json.loads((tmp_path / "out" / "evaluate.json").read_text())
    assert set(report["arms"]) == {"zero", "normal", "hard", "reflective", "random", "oracle"}
    assert report["arms"]["reflective"]["seeds"] == 2 and report["facts"]["gallery_photos"] == 20
    assert report["splits"]["all"] == 4 and report["splits"]["unseen"] == 1
    assert "known_share" in report["facts"]["mining"]["reflective"]
    assert report["facts"]["generator"]["name"].startswith("stand-in")

    page = (tmp_path / "out" / "report.html").read_text()
    assert "stand-in altered photos" in page and page.count("data:image/") >= 6
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "<script" not in page

    model_card = (tmp_path / "out" / "model-card.md").read_text()
    for line in (
        "| not stated | 16 |",
        "16 photos state no license",
        "| steps | ",
        "| the reflective head | ",
        "# reflective-0 for stand-in",
    ):
        assert line in model_card, line
    assert report["verdict"]["headline"] in model_card and report["verdict"]["headline"] in html.unescape(page)

    bundle = Retriever.open(tmp_path / "out" / "retriever", encoder=ColorEncoder())
    text = card(bundle.bundle, "ann/colors", "0" * 40, report)
    assert "| reflective | all |" in text and "| reflective - normal | unseen |" in text and "No generator drew" in text
    assert bundle.head is not None and bundle.head.metadata["loss"] == "reflective"
    assert "stand-in" in bundle.head.metadata["generator"]
    assert bundle.search("a red thing", k=1).items[0].class_name == "red"
    assert Retriever.open(tmp_path / "out" / "library", encoder=ColorEncoder()).head is None


def test_the_heads_of_several_generators_come_into_one_bundle(world, tmp_path):
    for name, more in (("first", "[mine]"), ("second", '[mine]\nk = 2\n[index]\nname = "other"\nothers = ["first"]')):
        world[0].write_text(f'{RECIPE}arms = ["reflective"]\n{more}')
        for stage in STAGES[:-1]:
            work(world, tmp_path / name).stage(stage)
    before = contents(tmp_path / "second")
    work(world, tmp_path / "second").stage("index")
    assert contents(tmp_path / "second") == before
    own, taken = Bundle(tmp_path / "second" / "retriever").manifest.heads
    (alone,) = Bundle(tmp_path / "first" / "retriever").manifest.heads
    assert own.name == "other" and taken == alone and alone.name == "stand-in-altered-photos-not-a-generator"
    assert Retriever.open(tmp_path / "second" / "retriever", encoder=ColorEncoder()).head_name == "other"

    world[0].write_text(RECIPE + '[index]\nothers = ["first"]\n')
    with pytest.raises(RealRAGError, match="Give one of the two runs its own `name`"):
        work(world, tmp_path / "second").stage("index")
    world[0].write_text(RECIPE + '[index]\nothers = ["nowhere"]')
    with pytest.raises(RealRAGError, match="has no retriever yet"):
        work(world, tmp_path / "second").stage("index")


def test_a_second_run_does_nothing_again_and_changes_nothing(world, tmp_path, monkeypatch):
    for stage in STAGES:
        work(world, tmp_path / "out").stage(stage)
    before = contents(tmp_path / "out")
    again = work(world, tmp_path / "out")
    monkeypatch.setattr(ColorEncoder, "_images", None)  # nothing is encoded, so nobody misses it
    for stage in STAGES:
        again.stage(stage)
    assert contents(tmp_path / "out") == before


def test_a_run_that_ran_out_of_time_goes_on_to_the_same_end(world, tmp_path, monkeypatch):
    for stage in STAGES:
        work(world, tmp_path / "whole").stage(stage)
    looks = 0

    def in_time(self, done=0, total=0):
        nonlocal looks
        looks += 1
        if looks % 11 == 0:
            raise Stopped("Time is up.")

    monkeypatch.setattr(Run, "in_time", in_time)
    stopped = 0
    for stage in STAGES:
        for _ in range(60):
            try:
                work(world, tmp_path / "parts").stage(stage)
                break
            except Stopped:
                stopped += 1
        else:
            raise AssertionError(f"{stage} never ended")
    assert stopped > 1
    whole, parts = (contents(tmp_path / name) for name in ("whole", "parts"))
    assert set(whole) == set(parts)
    same = [name for name in whole if not name.startswith("ann/")]  # a cache, which remembers times
    assert [name for name in same if whole[name] != parts[name]] == []


def test_the_command_line_runs_all_stages_or_one(world, tmp_path, capsys):
    recipe, photos, test = (str(path) for path in world)
    options = ["--out", str(tmp_path / "out"), "--photos", photos, "--test-photos", test]
    assert main(["run", recipe, *options]) == 0
    assert "reflective - normal" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["fit"]["epochs"] == 2
    assert main(["evaluate", recipe, *options]) == 0
    assert main(["imagine", recipe, "--out", str(tmp_path / "empty"), "--photos", photos]) == 1
    assert "Run the stage `embed` first" in capsys.readouterr().err


def test_a_library_of_rotten_photos_stops_the_run(world, tmp_path):
    for name in ("a", "b", "c", "d"):
        (world[1] / "red" / f"{name}.jpg").write_bytes(b"not a photo")
    with pytest.raises(RealRAGError, match="more than max_rejected 10"):
        work(world, tmp_path / "out").stage("embed")


def test_what_the_generator_draws_instead_is_read_from_its_drawings_where_nobody_states_it(world, tmp_path):
    run = work(world, tmp_path / "out")
    run.stage("embed")
    drawn = ColorEncoder().encode_texts(["red", "red", "green", "blue"]).numpy()[:, None].astype(np.float16)
    assert [prompt.class_name for prompt in run._prompts()] == ["blue", "green", "red", "yellow"]
    material = load_material(run._open(run.library), run.encoder, run._prompts())
    red, green, blue = (material.query_classes[i] for i in (2, 1, 0))
    assert drawn_instead(run._prompts(), material, drawn, {"name": "x"}).tolist() == [red, red, green, blue]


@pytest.mark.parametrize("name", [path.stem for path in CONFIGS.glob("*.toml")])
def test_the_recipes_that_come_along_are_valid(name):
    recipe = read_recipe(find_recipe(name), {"photos": "somewhere"})
    assert recipe.data.photos == "somewhere" and recipe.evaluate.ship in ("best", "reflective")


@pytest.mark.parametrize("mode", ["text", "lora"])
def test_a_run_that_trains_a_tower_ends_in_a_bundle_that_carries_it(world, tmp_path, monkeypatch, mode):
    monkeypatch.undo()
    write_tiny_small(tmp_path / "tiny")
    fit = f'[fit]\nmode = "{mode}"\nepochs = 2\nbatch = 8\nrate = 0.01\nheld_out = 0.4\n[evaluate]\narms = ["zero", "reflective"]\nseeds = 1\n'
    world[0].write_text(RECIPE.split("[fit]")[0] + fit)
    recipe = read_recipe(
        world[0], {"photos": str(world[1]), "test_photos": str(world[2]), "encoder": str(tmp_path / "tiny")}
    )
    for stage in STAGES:
        Run(recipe, tmp_path / "out").stage(stage)
    library, retriever = Bundle(tmp_path / "out" / "library"), Retriever.open(tmp_path / "out" / "retriever")
    assert retriever.encoder.tuned["mode"] == mode and retriever.search("a red thing", k=1).items
    same = np.array_equal(library.embeddings, retriever.bundle.embeddings)
    assert same == (mode == "text")
    report = json.loads((tmp_path / "out" / "evaluate.json").read_text())
    assert report["facts"]["mode"] == mode and set(report["arms"]) == {"zero", "reflective", "random", "oracle"}
    assert report["arms"]["zero"]["by_class"] != report["arms"]["reflective"]["by_class"]
    assert "held-out R@1" in (tmp_path / "out" / "report.html").read_text()
    before = contents(tmp_path / "out" / "retriever")
    monkeypatch.setattr(SmallEncoder, "_images", None)  # a second run encodes nothing
    for stage in ("embed", "fit", "index"):
        Run(recipe, tmp_path / "out").stage(stage)
    assert contents(tmp_path / "out" / "retriever") == before


def test_an_arm_learns_from_measured_utility_in_a_recipe(world, tmp_path):
    world[0].write_text(
        RECIPE.split("[evaluate]")[0]
        + '[data]\nutility = "u.safetensors"\n[evaluate]\narms = ["zero", "utility"]\nseeds = 1\nship = "utility"\n'
    )
    run = work(world, tmp_path / "out")
    run.stage("embed")
    library, prompts = run._open(run.library), run._prompts()
    rows = candidates(load_material(library, run.encoder, prompts), 4)

    class Meter:
        name, unit = "width", "pixels"

        def __call__(self, prompt, photo, id):
            return float(photo.width)

    measure_utility(library, prompts, rows, Meter(), tmp_path / "u.safetensors")
    for stage in STAGES[1:]:
        run.stage(stage)
    assert (
        Retriever.open(tmp_path / "out" / "retriever", encoder=ColorEncoder()).head.metadata["utility"]["unit"]
        == "pixels"
    )
    assert "utility - zero" in json.loads((tmp_path / "out" / "evaluate.json").read_text())["differences"]


def test_a_recipe_for_an_encoder_drives_its_training_and_no_run(tmp_path, capsys):
    (tmp_path / "mine.toml").write_text("[encoder]\nepochs = 3\nleft_out = 16\nbf16 = false\n")
    parser = argparse.ArgumentParser()
    encoder_command.add_arguments(parser)
    sets = [word for name in ("grocery", "clothing", "subjects", "mobilenet", "out") for word in (f"--{name}", "x")]

    def settings(*more):
        return encoder_command.chosen_config(parser.parse_args([*sets, *more]))

    assert settings() == EncoderConfig() == settings("--recipe", "small-encoder")
    chosen = settings("--recipe", str(tmp_path / "mine.toml"), "--epochs", "5")
    assert (chosen.epochs, chosen.left_out, chosen.bf16, chosen.batch) == (5, 16, False, EncoderConfig().batch)
    with pytest.raises(RealRAGError, match="has no section"):
        settings("--recipe", "tiny-cpu")
    assert main(["run", "small-encoder", "--out", str(tmp_path / "out")]) == 1
    assert "train encoder --recipe small-encoder" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "text, told",
    [
        ("[imagine]\nseed = 1", "'seed' is not known"), ("[imagin]\n", r"section \[imagin\]"),
        ("[imagine]\nseeds = 'two'", "it must be like 2"), ("[fit]\nepochs = true", "it must be like 0"),
        ("[evaluate]\narms = ['best']", "arms are among"), ("seeds =", "cannot be read"), ("data = 3", "'data' is not known"),
        ("[evaluate]\narms = ['zero', {a = 1}]", "it must be like ''"), ("[start]\nparts = [0.5, 'x']", "it must be like 0.0"),
        ("[fit]\nepochs = 1" + "0" * 30, "it must be like 0"), ("[data]\nmax_rejected = nan", "it must be like 10.0"),
        ("[data]\nmax_rejected = 1" + "0" * 400, "it must be like 10.0"), ("[data]\nphotos = " + "[" * 50_000, "nested too deeply"),
        ("#" * (1 << 20) + "\n", "more than 1048576 bytes"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_refused_with_its_place(tmp_path, text, told):
    (tmp_path / "wrong.toml").write_text(text)
    with pytest.raises(RealRAGError, match=told):
        read_recipe(tmp_path / "wrong.toml")


def test_paths_of_a_recipe_are_relative_to_it_and_an_unknown_one_is_refused(tmp_path):
    (tmp_path / "r.toml").write_text(
        '[data]\nphotos = "mine"\n[imagine]\nworkflow = "flow.json"\nmodel = "someone/model"\n'
    )
    recipe = read_recipe(tmp_path / "r.toml")
    assert recipe.data.photos == str(tmp_path / "mine") and recipe.imagine.workflow == str(tmp_path / "flow.json")
    assert recipe.imagine.model == "someone/model"
    with pytest.raises(RealRAGError, match="grocery-novel, lora, paper, recommended, small-encoder, tiny-cpu"):
        find_recipe("papper")


def test_an_unknown_generator_is_refused(world, tmp_path):
    world[0].write_text('[imagine]\ngenerator = "magic"\n')
    run = work(world, tmp_path / "out")
    run.stage("embed")
    with pytest.raises(RealRAGError, match="is 'magic'; it must be"):
        run.stage("imagine")
    world[0].write_text('[imagine]\ngenerator = "comfyui"\nworkflow = "none.json"\n')
    with pytest.raises(GeneratorError, match="cannot be read"):
        work(world, tmp_path / "out").stage("imagine")


def test_the_classes_a_stand_in_shall_not_know_can_be_named(world, tmp_path):
    world[0].write_text('[imagine]\ngenerator = "stand-in"\nunknown_classes = ["Green", "blue"]\n')
    run = work(world, tmp_path / "out")
    run.stage("embed")
    assert set(run._generator(run._open(run.library)).metadata["drawn_as"]) == {"green", "blue"}
    world[0].write_text('[imagine]\ngenerator = "stand-in"\nunknown_classes = ["mauve"]\n')
    with pytest.raises(RealRAGError, match="'mauve'"):
        work(world, tmp_path / "out").stage("imagine")
