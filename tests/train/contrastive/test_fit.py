"""The fit of a reflective head: a toy with a known answer, step 0, stopping at any point and going on, two processes as
one."""

import csv
import json
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from fake_encoder import ColorEncoder
from fit_in_a_process import fit_here, start
from head_toy import head_of_one_rank, learned, made, small, weights_of
from safetensors.numpy import save_file
from sibling_toy import Toy
from two_ranks import in_two_ranks, needs_gloo

import realrag_train.contrastive.fit as fitting_files
from realrag.encoders.reflective_head import load_head
from realrag.errors import RealRAGError
from realrag.indexing.build import build
from realrag.retriever import Retriever
from realrag_train.__main__ import main
from realrag_train.contrastive.loss import LossConfig
from realrag_train.contrastive.mine import MineInputs, mine_file, read_negatives, write_negatives
from realrag_train.contrastive.negatives import MineConfig
from realrag_train.contrastive.trainer import ContrastiveTraining, FitConfig, Sources
from realrag_train.dataset import Material
from realrag_train.loop.stages import STOPPED
from realrag_train.loop.watch import WatchConfig

pytestmark = pytest.mark.usefixtures("one_thread")
SEEDS = range(10)
T_95 = 2.262  # Student's t, 9 degrees of freedom


@pytest.fixture(scope="module")
def toy():
    """{arm: (seeds, 2)}: margin of the siblings and precision for known things, measured on photos not trained on."""
    torch.set_num_threads(1)
    found = {}
    for name, kind, generator in (
        ("normal", "normal", ""), ("reflective", "reflective", "sibling"), ("random", "reflective", "random"),
    ):  # fmt: skip
        for seed in SEEDS:
            world = Toy(seed)
            scores = world.fit(kind, generator, seed)
            found.setdefault(name, []).append((world.margin(scores), world.known_precision(scores)))
    return {name: np.array(values) for name, values in found.items()}


def half_interval(differences):
    return T_95 * differences.std(ddof=1) / np.sqrt(len(differences))


@pytest.mark.slow
def test_what_the_generator_does_not_know_rises_over_what_it_draws_in_every_seed(toy):
    assert (toy["reflective"][:, 0] > toy["normal"][:, 0]).sum() == len(SEEDS)


@pytest.mark.slow
def test_questions_for_known_things_stay_as_they_were(toy):
    differences = toy["reflective"][:, 1] - toy["normal"][:, 1]
    assert abs(differences.mean()) <= half_interval(differences)


@pytest.mark.slow
def test_a_generator_that_draws_at_random_teaches_nothing_more_than_the_normal_loss(toy):
    differences = toy["random"][:, 0] - toy["normal"][:, 0]
    assert abs(differences.mean()) <= half_interval(differences)


@pytest.mark.slow
def test_these_intervals_are_narrow_enough_to_tell_a_generator_that_lacks_something_from_one_at_random(toy):
    gain, noise = (toy[name][:, 0] - toy["normal"][:, 0] for name in ("reflective", "random"))
    assert gain.mean() - half_interval(gain) > noise.mean() + half_interval(noise)
    assert half_interval(toy["reflective"][:, 1] - toy["normal"][:, 1]) < 0.005  # of a precision above 0.9


def test_at_step_0_the_ranking_is_the_plain_one_exactly():
    material, _, rows = made(photos=500)
    head, queries, photos = (
        ContrastiveTraining(material, rows, small()).head,
        *map(torch.from_numpy, (material.queries, material.photos)),
    )
    with torch.inference_mode():
        assert (head(photos) - photos).abs().max() <= 2**-23  # what one more rounding to unit length leaves
        queries, photos = queries.double(), torch.nn.functional.normalize(photos.double())
        before, after = queries @ photos.T, queries @ head.double()(photos).T
    ranked = [scores.sort(dim=1, descending=True, stable=True).indices for scores in (before, after)]
    assert torch.equal(*ranked)


def test_a_weight_of_zero_gives_the_normal_head():
    material, _, rows = made()
    fittings = [
        ContrastiveTraining(material, rows, small(), loss)
        for loss in (LossConfig(lambda_ref=0.0), LossConfig("normal"))
    ]
    for fitting in fittings:
        fitting.run()
    for one, other in zip(*map(weights_of, fittings), strict=True):  # the negatives' zeros pass through other products
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    assert fittings[0].head.fc2.weight.any()


def test_arms_of_one_seed_see_the_same_batches_and_seeds_differ():
    material, _, rows = made()
    normal, reflective = (
        ContrastiveTraining(material, None, small(), LossConfig("normal")),
        ContrastiveTraining(material, rows, small()),
    )
    other = ContrastiveTraining(material, rows, small(seed=1))
    assert all(torch.equal(one, two) for one, two in zip(normal._rows(), reflective._rows(), strict=True))
    assert not torch.equal(other._rows()[0], normal._rows()[0])


def test_every_photo_meets_a_prompt_of_its_class_once_an_epoch():
    material, _, rows = made()
    fitting = ContrastiveTraining(material, rows, small())
    seen, asked = [], set()
    for step in range(fitting.steps_each_epoch):
        fitting.step = step
        photos, different, place = fitting._rows()
        prompts = different[place]
        assert len(different) == len(set(prompts.tolist()))
        assert np.array_equal(material.photo_classes[photos], material.query_classes[prompts])
        seen += photos.tolist()
        asked |= set(prompts.tolist())
    assert sorted(seen) == list(range(64)) and len(asked) > 8


def test_gradient_caching_trains_the_same_head():
    material, _, rows = made()
    plain, cached = (
        ContrastiveTraining(material, rows, small()),
        ContrastiveTraining(material, rows, small(grad_chunk=5)),
    )
    plain.run(), cached.run()
    assert all(
        torch.allclose(one, other, atol=1e-5) for one, other in zip(weights_of(plain), weights_of(cached), strict=True)
    )


def test_mining_again_changes_the_negatives_and_keeps_the_held_out_photos_out():
    material, drawn, rows = made()
    fitting = ContrastiveTraining(
        material, rows, small(refresh=1, held_out=0.3, rate=0.05), sources=Sources(drawn=drawn, mining=MineConfig(k=2))
    )
    first = fitting.negatives.clone()
    fitting.run()
    assert not torch.equal(first, fitting.negatives) and "known_share" in fitting.history[0]
    assert not np.isin(fitting.negatives.numpy(), fitting.held_out).any() and len(fitting.held_out)
    assert not np.isin(fitting.pairs, fitting.held_out).any()


def test_an_early_stop_keeps_the_best_epoch():
    material, _, rows = made(photos=200)
    fitting = ContrastiveTraining(material, rows, small(epochs=40, held_out=0.3, patience=3, rate=0.05))
    fitting.run()
    figures = [entry["held_out_r1"] for entry in fitting.history]
    assert len(figures) < 40 and len(figures) - 1 - int(np.argmax(figures)) == 3
    assert fitting.held_out_r1() == max(figures)


@pytest.mark.parametrize("changes,loss,cure", [
    ({"held_out": 1.0}, {}, "held_out"),
    ({"patience": 2}, {}, "held_out"),
    ({"epochs": -1}, {}, "epochs"),
    ({"refresh": 1}, {}, "--drawn"),
    ({"held_out": 0.01}, {}, "too small"),
])  # fmt: skip
def test_settings_that_cannot_be_fitted_are_refused(changes, loss, cure):
    material, _, rows = made()
    with pytest.raises(RealRAGError, match=cure):
        ContrastiveTraining(material, rows, small(**changes), LossConfig(**loss))


def test_prompts_or_negatives_that_do_not_fit_the_photos_are_refused():
    material, _, rows = made()
    strangers = Material(material.photos, material.photo_classes, material.queries, material.query_classes + 100)
    for wrong in ((strangers, rows), (material, None), (material, rows[:3]), (material, rows + 64)):
        with pytest.raises(RealRAGError):
            ContrastiveTraining(*wrong, small())


@pytest.mark.slow
@needs_gloo
def test_two_processes_train_the_head_of_one(tmp_path):
    config, loss = small(), LossConfig(symmetric=True, learned_tau=True)
    ranks = in_two_ranks(head_of_one_rank, tmp_path, config, loss)
    material, _, rows = made()
    alone = ContrastiveTraining(material, rows, config, loss)
    alone.run()
    expected = learned(alone)
    for mine_, first, second in zip(expected, *ranks, strict=True):
        assert torch.equal(first, second) and torch.allclose(mine_, first, atol=1e-5)


@pytest.fixture
def run_folder(photos, tmp_path):
    """A run: a bundle of 15 photos, prompts, drawings of a generator that knows only green, negatives."""
    folder, encoder = tmp_path / "run", ColorEncoder()
    build(photos, folder / "bundle", encoder)
    names = ["red", "green", "blue"]
    lines = [json.dumps({"prompt": f"a {name} photo", "class": name}) for name in names]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    drawn = np.stack([encoder.encode_texts(["green"]).numpy()] * 3).astype(np.float16)
    words = {"generator": "green only", "encoder_fingerprint": encoder.fingerprint}
    save_file({"embeddings": drawn}, folder / "drawn.safetensors", words)
    inputs = MineInputs(folder / "bundle", folder / "prompts.jsonl", folder / "drawn.safetensors")
    mine_file(inputs, folder / "negatives.safetensors", encoder=encoder)
    return folder


def products(folder):
    """What a fit leaves, bit for bit; safetensors writes its metadata in any order, so the head's bytes are its
    tensors'."""
    head = load_head(folder / "head.safetensors", 13)
    tensors = {name: value.numpy().tobytes() for name, value in head.state_dict().items()}
    return tensors, head.metadata, (folder / "fit.json").read_bytes(), (folder / "fit.csv").read_bytes()


def test_a_fit_writes_its_head_its_history_and_its_log(run_folder):
    head = fit_here(run_folder)
    kept, story = load_head(run_folder / "head.safetensors", 13), json.loads((run_folder / "fit.json").read_text())
    assert kept.metadata == head.metadata == story["facts"] and kept.metadata["generator"] == "green only"
    assert kept.metadata["encoder_fingerprint"] == ColorEncoder().fingerprint and kept.metadata["loss"] == "reflective"
    assert [entry["epoch"] for entry in story["history"]] == [1, 2, 3, 4, 5, 6]
    with open(run_folder / "fit.csv", newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == [
            str(step) for step in range(1, kept.metadata["steps"] + 1)
        ]
    assert not list(run_folder.glob("*checkpoint*"))


def test_a_head_goes_into_a_bundle_and_answers(run_folder, photos):
    fit_here(run_folder)
    build(photos, run_folder / "bundle", ColorEncoder(), head=run_folder / "head.safetensors")
    retriever = Retriever.open(run_folder / "bundle", encoder=ColorEncoder())
    assert retriever.head.metadata["generator"] == "green only"
    assert retriever.search("a blue photo", k=2).items[0].class_name == "blue"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_fit_killed_at_four_points_ends_in_the_same_bytes(run_folder, tmp_path):
    points = ["step-2", "step-11", "half-written", "before-the-head"]
    folders = {point: shutil.copytree(run_folder, tmp_path / point) for point in points}
    for pair in (points[:2], points[2:]):
        running = [start(folders[point], point) for point in pair]
        assert [process.wait(120) for process in running] == [-signal.SIGKILL] * 2
    fit_here(run_folder)
    for point, folder in folders.items():
        assert not (folder / "head.safetensors").exists()
        assert (folder / "fit.checkpoint.safetensors").exists() == (point != "step-2")
        steps = []
        fit_here(folder, progress=lambda done, total: steps.append(done))
        first = {"step-2": 1, "step-11": 9, "half-written": 5, "before-the-head": None}[point]
        if first:
            assert steps[0] == first  # no more than one interval of four steps is done again
        assert products(folder) == products(run_folder), point
        assert not list(folder.glob("*checkpoint*")) and not list(folder.glob(".*.tmp.*"))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking it")
@pytest.mark.parametrize("signal", ["term", "int"])
def test_sigterm_and_ctrl_c_save_and_the_same_command_goes_on(run_folder, tmp_path, signal):
    folder = shutil.copytree(run_folder, tmp_path / "stopped")
    assert start(folder, f"step-6-{signal}").wait(120) == 0
    assert (folder / "fit.checkpoint.safetensors").exists() and not (folder / "head.safetensors").exists()
    steps = []
    fit_here(folder, progress=lambda done, total: steps.append(done))
    fit_here(run_folder)
    assert steps[0] == 7 and products(folder) == products(run_folder)


@pytest.mark.slow
def test_time_that_is_up_saves_and_many_short_runs_are_one_long_one(run_folder, tmp_path):
    folder, runs = shutil.copytree(run_folder, tmp_path / "short"), 1
    while fit_here(folder, watch=WatchConfig(log_steps=1, max_minutes=1e-9)) is None:
        runs += 1
    fit_here(run_folder)
    assert runs > 5 and products(folder) == products(run_folder)


def test_the_same_inputs_touch_nothing_and_other_inputs_train_again(run_folder):
    fit_here(run_folder)
    before = os.stat(run_folder / "head.safetensors").st_mtime_ns
    fit_here(run_folder)
    assert os.stat(run_folder / "head.safetensors").st_mtime_ns == before
    assert fit_here(run_folder, config=FitConfig(epochs=1, batch=4)).metadata["epochs"] == 1
    fit_here(run_folder, out="other.safetensors", watch=WatchConfig(save_steps=1, log_steps=1, max_minutes=1e-9))
    assert (run_folder / "other.fit.checkpoint.safetensors").exists()
    with pytest.raises(RealRAGError, match=r"other data or settings.*Delete the file"):
        fit_here(run_folder, out="other.safetensors", loss=LossConfig("normal"))
    (run_folder / "other.fit.checkpoint.safetensors").unlink()
    head = fit_here(run_folder, out="other.safetensors", loss=LossConfig("normal"))
    assert head.metadata["loss"] == "normal" and (run_folder / "other.fit.json").exists()


def test_a_damaged_checkpoint_is_refused_with_the_cure(run_folder, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "damaged")
    fit_here(folder, watch=WatchConfig(log_steps=1, max_minutes=1e-9))
    path = folder / "fit.checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RealRAGError, match=r"is damaged.*Delete the file"):
        fit_here(folder)
    path.unlink()
    fit_here(folder)
    fit_here(run_folder)
    assert products(folder) == products(run_folder)


def test_negatives_of_another_kind_bundle_or_prompts_are_refused(run_folder):
    with pytest.raises(RealRAGError, match="kind of loss"):
        fit_here(run_folder, loss=LossConfig("hard"))
    negatives, about = read_negatives(run_folder / "negatives.safetensors")
    write_negatives(negatives, run_folder / "negatives.safetensors", {**about, "bundle_id": "0" * 64})
    with pytest.raises(RealRAGError, match="bundle"):
        fit_here(run_folder)
    write_negatives(negatives, run_folder / "negatives.safetensors", about)
    with open(run_folder / "prompts.jsonl", "a") as file:
        file.write('{"prompt": "one more", "class": "red"}\n')
    with pytest.raises(RealRAGError, match="prompts"):
        fit_here(run_folder)


@pytest.mark.slow
def test_the_command_fits_stops_in_time_and_goes_on(run_folder, monkeypatch, capsys):
    monkeypatch.setattr(fitting_files, "own_encoder", lambda bundle, device: ColorEncoder())
    command = ["fit", str(run_folder / "bundle"), "--negatives", str(run_folder / "negatives.safetensors"),
               "--out", str(run_folder / "head.safetensors"), "--batch", "4", "--symmetric", "--no-reflect-tau"]  # fmt: skip
    assert main([*command, "--max-minutes", "1e-9"]) == STOPPED
    assert "Run the same command again" in capsys.readouterr().out
    assert main(command) == 0
    metadata = load_head(run_folder / "head.safetensors", 13).metadata
    assert metadata["config"]["loss"]["symmetric"] and not metadata["config"]["loss"]["reflect_tau"]
    assert "wrote" in capsys.readouterr().out
