"""Measured utility: its file, the measuring and its stopping, and a toy in which it finds what labels cannot say."""

import json

import numpy as np
import pytest
import torch
from fake_encoder import ColorEncoder
from safetensors.numpy import save_file
from unit_rows import unit

from realrag.bundle.bundle import Bundle
from realrag.errors import RealRAGError
from realrag.indexing.build import build
from realrag.retriever import Retriever
from realrag_train.contrastive.fit import FitInputs, fit_file
from realrag_train.contrastive.fit_config import FitConfig
from realrag_train.contrastive.loss import LossConfig
from realrag_train.contrastive.trainer import ContrastiveTraining, Sources
from realrag_train.contrastive.utility import (
    METADATA,
    Utility,
    candidates,
    measure_utility,
    read_utility,
    write_utility,
)
from realrag_train.dataset import Material, load_material, read_prompts

pytestmark = pytest.mark.usefixtures("one_thread")
SEEDS = range(10)
HEX = "0123456789abcdef" * 4


class UsefulToy:
    """Photos of 12 classes. A photo helps the picture when it is of the right class *and* shows one side of the thing,
    which is a direction in the vectors that no label names: photos of one class differ in it, and half of them are for
    measuring."""

    CLASSES, PHOTOS, DIM = 12, 24, 24

    def __init__(self, seed):
        rng = np.random.default_rng(seed)
        looks, side = unit(rng.normal(size=(self.CLASSES, self.DIM))), unit(rng.normal(size=self.DIM))
        classes = np.repeat(np.arange(self.CLASSES), self.PHOTOS)
        shown = rng.normal(size=len(classes))
        photos = unit(
            looks[classes] + 0.5 * shown[:, None] * side + 0.6 * unit(rng.normal(size=(len(classes), self.DIM)))
        )
        queries = unit(looks + 0.3 * unit(rng.normal(size=looks.shape)))
        self.gains = (np.arange(self.CLASSES)[:, None] == classes) * (1 + shown)  # (P, N): what the generator gains
        here = np.arange(len(classes)) % 2 == 0
        self.material = Material(photos[here], classes[here], queries, np.arange(self.CLASSES))
        self.tried = candidates(self.material, 16)
        noise = 0.2 * rng.normal(size=self.tried.shape)
        measured = np.take_along_axis(self.gains[:, here], self.tried, 1) + noise
        self.utility = Utility(self.tried, measured.astype(np.float32), {})
        self.photos, self.kept_utility, self.classes = photos[~here], self.gains[:, ~here], classes[~here]

    def gain(self, loss, seed):
        """(what the first photo is worth, share of first photos of the right class) over photos not trained on."""
        config = FitConfig(epochs=10, batch=48, hidden=24, rate=1e-2, seed=seed)
        fitting = ContrastiveTraining(self.material, None, config, loss, sources=Sources(self.utility))
        fitting.run()
        with torch.inference_mode():
            first = (self.material.queries @ fitting.head(torch.from_numpy(self.photos)).numpy().T).argmax(1)
        prompts = np.arange(self.CLASSES)
        return self.kept_utility[prompts, first].mean(), (self.classes[first] == prompts).mean()


@pytest.mark.slow
def test_measured_utility_finds_what_helps_where_labels_cannot_say_it():
    found = {}
    for seed in SEEDS:
        toy = UsefulToy(seed)
        for name, loss in (
            ("normal", LossConfig("normal")), ("both", LossConfig("normal", lambda_utility=1.0)), ("alone", LossConfig("utility")),
        ):  # fmt: skip
            found.setdefault(name, []).append(toy.gain(loss, seed))
    normal, both, alone = (np.array(found[name]) for name in ("normal", "both", "alone"))
    assert (both[:, 0] > normal[:, 0]).all() and (alone[:, 0] > normal[:, 0]).all()
    assert (
        both[:, 0].mean() > normal[:, 0].mean() + 0.5
    )  # half a standard deviation of what photos of a class are worth
    assert both[:, 1].mean() >= normal[:, 1].mean() - 0.05


def test_a_weight_of_zero_is_the_contrastive_loss():
    toy, heads = UsefulToy(0), []
    for loss in (LossConfig("normal"), LossConfig("normal", lambda_utility=0.0, beta=3.0)):
        fitting = ContrastiveTraining(
            toy.material, None, FitConfig(epochs=2, batch=48), loss, sources=Sources(toy.utility)
        )
        fitting.run()
        heads.append(fitting.head.state_dict())
    for name in heads[0]:
        torch.testing.assert_close(heads[0][name], heads[1][name], rtol=0, atol=1e-5)


def test_the_log_tells_the_utility_term_apart():
    toy = UsefulToy(0)
    for loss, normal in ((LossConfig("normal", lambda_utility=2.0), True), (LossConfig("utility"), False)):
        fitting = ContrastiveTraining(
            toy.material, None, FitConfig(epochs=1, batch=48), loss, sources=Sources(toy.utility)
        )
        fitting.advance()
        parts = fitting.figures()
        assert parts["utility"] > 0 and (parts["normal"] > 0) == normal and parts["negatives"] == 0
        assert parts["loss"] == pytest.approx(parts["normal"] + parts["utility"], abs=1e-6)


def test_held_out_photos_are_no_candidates_and_beta_follows_the_measurements():
    toy = UsefulToy(0)
    fitting = ContrastiveTraining(
        toy.material, None, FitConfig(batch=48, held_out=0.3), LossConfig("utility"), sources=Sources(toy.utility)
    )
    assert not np.isin(fitting.tried.numpy(), fitting.held_out).any() and (fitting.tried == -1).any()
    there = toy.utility.utility - toy.utility.utility.mean(1, keepdims=True)
    assert fitting.objective.beta == pytest.approx(there.std(), rel=1e-4)
    assert Utility(toy.tried, np.zeros(toy.tried.shape, np.float32), {}).spread == 1.0
    with pytest.raises(RealRAGError, match="--utility"):
        ContrastiveTraining(toy.material, None, FitConfig(), LossConfig("utility"))


def test_candidates_are_what_would_be_retrieved():
    material = UsefulToy(0).material
    rows = candidates(material, 500)
    scores = material.queries @ material.photos.T
    assert (rows[:, :144] >= 0).all() and (rows[:, 144:] == -1).all()
    assert all((np.diff(scores[at, row[:144]]) <= 1e-6).all() for at, row in enumerate(rows))


# The file


class Brightness:
    """A stand-in for a generator: bright photos help."""

    name, unit = "mean brightness of the reference", "0 to 255"

    def __init__(self, stop_after=None):
        self.asked, self.stop_after = [], stop_after

    def __call__(self, prompt, photo, id):
        if self.stop_after is not None and len(self.asked) == self.stop_after:
            raise KeyboardInterrupt
        self.asked.append(prompt)
        return float(np.asarray(photo, np.float64).mean())


@pytest.fixture
def world(photos, tmp_path):
    build(photos, tmp_path / "bundle", ColorEncoder())
    lines = [{"prompt": f"a {name} photo", "class": name} for name in ("red", "green", "blue")]
    (tmp_path / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    prompts, bundle = read_prompts(tmp_path / "prompts.jsonl"), Bundle(tmp_path / "bundle")
    return bundle, prompts, candidates(load_material(bundle, ColorEncoder(), prompts), 6)


def test_measuring_goes_on_where_it_was_and_asks_nothing_twice(world, tmp_path):
    bundle, prompts, rows = world
    rows[0, 4:] = -1
    first, second, third = Brightness(stop_after=7), Brightness(), Brightness()
    with pytest.raises(KeyboardInterrupt):
        measure_utility(bundle, prompts, rows, first, tmp_path / "utility.safetensors", save_seconds=0)
    assert not (tmp_path / "utility.safetensors").exists()
    with pytest.raises(RealRAGError, match="unfinished: 7"):
        read_utility(tmp_path / "utility.part.safetensors", 3, 15)
    found = measure_utility(bundle, prompts, rows, second, tmp_path / "utility.safetensors")
    assert len(second.asked) == 16 - 7 and not list(tmp_path.glob("*.part*"))
    again = measure_utility(bundle, prompts, rows, third, tmp_path / "utility.safetensors")
    whole = measure_utility(bundle, prompts, rows, Brightness(), tmp_path / "other.safetensors")
    assert (
        third.asked == []
        and np.array_equal(found.utility, again.utility)
        and np.array_equal(found.utility, whole.utility)
    )
    assert (tmp_path / "utility.safetensors").read_bytes() == (tmp_path / "other.safetensors").read_bytes()
    image = np.asarray(bundle.image(bundle.records[int(rows[1, 2])]), np.float64)
    assert (
        found.utility[1, 2] == pytest.approx(image.mean(), rel=1e-5)
        and found.metadata["measured_by"] == Brightness.name
    )


def test_a_head_learns_from_a_measured_file_and_refuses_one_of_other_prompts(world, tmp_path):
    bundle, prompts, rows = world
    found = measure_utility(bundle, prompts, rows, Brightness(), tmp_path / "utility.safetensors")

    def fit(loss):
        inputs = FitInputs(tmp_path / "bundle", tmp_path / "prompts.jsonl", utility=tmp_path / "utility.safetensors")
        config = FitConfig(epochs=30, batch=15, rate=3e-3)
        return fit_file(inputs, tmp_path / "head.safetensors", config, loss, encoder=ColorEncoder())

    head = fit(LossConfig("utility"))
    assert head.metadata["utility"]["measured_by"] == Brightness.name and head.metadata["loss"] == "utility"
    build(tmp_path / "photos", tmp_path / "bundle", ColorEncoder(), head=tmp_path / "head.safetensors")
    after = Retriever.open(tmp_path / "bundle", encoder=ColorEncoder())
    scores = (after.query([prompt.prompt for prompt in prompts]) @ after.vectors.T)[np.arange(3)[:, None], rows]
    before = load_material(bundle, ColorEncoder(), prompts)
    start = (before.queries @ before.photos.T)[np.arange(3)[:, None], rows]
    agree = [np.corrcoef(each.ravel(), found.utility.ravel())[0, 1] for each in (start, scores)]
    assert agree[1] > agree[0]
    with open(tmp_path / "prompts.jsonl", "a") as file:
        file.write('{"prompt": "one more", "class": "red"}\n')
    with pytest.raises(RealRAGError, match="4 prompts"):
        fit(LossConfig("utility"))
    with pytest.raises(RealRAGError, match="measured for another bundle"):
        (tmp_path / "prompts.jsonl").write_text(
            "".join(f'{{"prompt": "{p.prompt}", "class": "{p.class_name}"}}\n' for p in prompts)
        )
        fit(LossConfig("utility"))


def table(**changes):
    metadata = dict.fromkeys(METADATA, HEX) | {"measured_by": "a judge", "unit": "marks"}
    parts = {"rows": np.array([[0, 2], [1, -1]]), "utility": np.array([[0.5, -1.0], [2.0, 0.0]], np.float32)} | changes
    return Utility(parts["rows"], parts["utility"], metadata | changes.get("facts", {}))


def test_a_table_comes_back_as_it_was_written(tmp_path):
    write_utility(table(), tmp_path / "u.safetensors")
    found = read_utility(tmp_path / "u.safetensors", 2, 3)
    assert (
        np.array_equal(found.rows, table().rows)
        and np.array_equal(found.utility, table().utility)
        and found.metadata == table().metadata
    )


@pytest.mark.parametrize("changes,told", [
    ({"rows": np.array([[0, 2], [1, 3]])}, "rows up to 3"), ({"rows": np.array([[0, 0], [1, -1]])}, "same candidate twice"),
    ({"rows": np.array([[0, 2], [-2, -1]])}, "prompts"), ({"rows": np.array([[0, 2]])}, "utility"),
    ({"rows": np.array([[0, 2], [1, -1]], np.int32)}, "int32"),
    ({"utility": np.array([[0.5, np.nan], [2, 0]], np.float32)}, "not finite"),
    ({"utility": np.array([[0.5, 1], [2, 7]], np.float32)}, "no candidate"),
    ({"utility": np.array([[0.5, 1], [2, 0]])}, "float64"),
    ({"facts": {"measured_by": ""}}, "do not name"), ({"facts": {"prompts": "these"}}, "do not name"),
])  # fmt: skip
def test_a_table_that_is_not_whole_or_not_right_is_refused(tmp_path, changes, told):
    write_utility(table(**changes), tmp_path / "u.safetensors")
    with pytest.raises(RealRAGError, match=told):
        read_utility(tmp_path / "u.safetensors", 2, 3)


def test_other_files_are_no_tables(tmp_path):
    (tmp_path / "text.safetensors").write_text("hello")
    save_file({"rows": table().rows}, tmp_path / "stranger.safetensors")
    write_utility(table(), tmp_path / "u.safetensors")
    for name in ("none", "text", "stranger"):
        with pytest.raises(RealRAGError, match="Measure it again"):
            read_utility(tmp_path / f"{name}.safetensors", 2, 3)
    with pytest.raises(RealRAGError, match="there are 5 prompts"):
        read_utility(tmp_path / "u.safetensors", 5, 3)


def test_a_meter_that_gives_no_number_is_named(world, tmp_path):
    bundle, prompts, rows = world

    class Broken(Brightness):
        def __call__(self, prompt, photo, id):
            return float("nan")

    with pytest.raises(RealRAGError, match="gave nan for 'a red photo'"):
        measure_utility(bundle, prompts, rows, Broken(), tmp_path / "u.safetensors")
