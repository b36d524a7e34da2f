"""Training an adapter: what moves and what stays, stopping and going on, and that references are learned from."""

import csv
import os
import signal

import numpy as np
import pytest
import tiny_miniature
import torch
from fake_encoder import ColorEncoder
from made_photos import photo_bytes
from safetensors.torch import load_file

from realrag.adapters import load_adapter
from realrag.adapters.hooks import Steered
from realrag.errors import RealRAGError
from realrag.miniature.generator import load_generator, save_generator
from realrag.miniature.painting import Miniature
from realrag_train.adapter import command as adapter_run
from realrag_train.adapter.bases import frozen
from realrag_train.adapter.cache import Cached
from realrag_train.adapter.class_photos import ClassPhotos
from realrag_train.adapter.command import train_adapter
from realrag_train.adapter.new_adapter import AdapterConfig, new_adapter
from realrag_train.adapter.pairs import Drawing
from realrag_train.adapter.recipe import AdapterFitConfig, AdapterRecipe, BaseConfig, DataConfig, GuardConfig
from realrag_train.adapter.sheet import sheets_of
from realrag_train.adapter.shuffle_gap import NoGap
from realrag_train.adapter.trainer import AdapterData, AdapterTraining
from realrag_train.loop.stages import STOPPED
from realrag_train.loop.watch import WatchConfig
from realrag_train.small_encoder.captioned_photos import Group, Photo

pytestmark = pytest.mark.slow

KINDS = ["sd3", "flux"]


@pytest.fixture(autouse=True)
def one_thread():
    """Threads only get into each other's way on networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def made_up(count, part, each=4, places=3, sentences=1):
    """Classes whose latents have a color of their own, which only their features show."""
    rng = torch.Generator().manual_seed(len(part))
    colors = torch.randn(count, 16, generator=rng)
    rows = tuple(i // each for i in range(count * each))
    photos = tuple(Photo(None, str(row)) for row in rows)
    latents = colors[list(rows)][:, :, None, None] + 0.1 * torch.randn(len(rows), 16, 4, 4, generator=rng)
    features = colors[list(rows)][:, None] + 0.1 * torch.randn(len(rows), places, 16, generator=rng)
    things = ClassPhotos(part, tuple(Group(str(i), str(i), "thing") for i in range(count)), photos, rows)
    states, pooled = np.zeros((count * sentences + 1, 2, 96)), np.zeros((count * sentences + 1, 256))
    return Cached(things, [latents.half().numpy()], [features.half().numpy()], states, pooled, sentences)


def training(
    kind, folder, fit, guard=GuardConfig(every=10**6, tuples=48), config=AdapterConfig(hidden=64, tokens=4, depth=1)
):
    net = load_generator(tiny_miniature.write(folder, kind)["path"])
    base = frozen(Miniature(net), "fp32", False)
    material = AdapterData(made_up(24, "train"), made_up(24, "train"), made_up(8, "held out"))
    return AdapterTraining(Steered(base, new_adapter(base, 16, 3, config, 0)), material, fit, guard)


@pytest.mark.parametrize("kind", KINDS)
def test_references_are_learnt_from_and_zeroed_values_forget_it(kind, tmp_path):
    """On classes never trained on, whose colors only the reference shows."""
    run = training(
        kind,
        tmp_path,
        AdapterFitConfig(steps=60, batch=16, rate=3e-3, warm_up=10, averaging=0.9, drop_text=0, drop_both=0),
    )
    before = run.measure_gap()
    for gap in before.values():  # zeros are added: two computations of one loss, of about 1, differ by their rounding
        assert gap.mean == pytest.approx(0, abs=1e-6)
        assert gap.saved == pytest.approx(0, abs=1e-6)
    frozen_before = [weight.clone() for weight in run.steered.base.net.parameters()]
    while run.step < run.steps:
        run.advance()
    gap = run.measure_gap()["held out"]
    assert gap.low > 0 and gap.right_wins > 0.8 and gap.saved > 0
    assert all(torch.equal(a, b) for a, b in zip(frozen_before, run.steered.base.net.parameters(), strict=True))
    for block in run.steered.adapter.blocks:
        for name in ("v", "to_v_ip"):
            for weight in block[name].parameters() if name in block else ():
                weight.data.zero_()
    run.average = {name: weight.detach().clone() for name, weight in run.model.named_parameters()}
    assert run.measure_gap()["held out"].mean == pytest.approx(0, abs=1e-6)


def test_each_row_has_a_noise_level_of_its_own(tmp_path, monkeypatch):
    run, seen = training("sd3", tmp_path, AdapterFitConfig(steps=5, batch=6, drop_text=0.3)), {}
    monkeypatch.setattr(
        run.steered,
        "velocity",
        lambda x, sigma, states, pooled, features, shown, alone: seen.update(x=x, sigma=sigma) or x * 0,
    )
    pairs = Drawing(run.cached, (0.1, 0.3, 0.1)).draw(6, np.random.default_rng((0, 0, 0)))
    monkeypatch.setattr(run.drawing, "draw", lambda count, rng: pairs)
    loss, _ = run.loss()
    target = run.cached.target_latents(pairs.targets, pairs.looks)
    assert seen["sigma"].shape == (6,) and len(set(seen["sigma"].tolist())) == 6
    noise = torch.stack([(seen["x"][i] - (1 - seen["sigma"][i]) * target[i]) / seen["sigma"][i] for i in range(6)])
    assert noise.std() == pytest.approx(1, abs=0.1) and noise.mean() == pytest.approx(0, abs=0.1)
    assert loss.item() == pytest.approx(((noise - target) ** 2).mean().item(), rel=1e-3)


def test_accumulated_batches_have_the_gradient_of_their_mean(tmp_path):
    whole = training("sd3", tmp_path, AdapterFitConfig(steps=5, batch=4, accumulate=3))
    loss, _ = whole.loss()
    loss.backward()
    grads = [p.grad.clone() for p in whole.model.parameters() if p.grad is not None]
    parts = training("sd3", tmp_path, AdapterFitConfig(steps=5, batch=4))
    losses = []
    for part in range(3):

        def pick(seed, part=part):
            return np.random.Generator(np.random.PCG64(np.random.SeedSequence((0, 0, part))))

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("realrag_train.adapter.trainer.np.random.default_rng", pick)
            one, _ = parts.loss()
        one.backward()
        losses.append(one.item())
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-5)
    slow = [p.grad / 3 for p in parts.model.parameters() if p.grad is not None]
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(grads, slow, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_that_learns_along_moves_and_half_of_its_rows_without_a_reference_know_no_adapter(
    kind, tmp_path, monkeypatch
):
    run = training(kind, tmp_path, AdapterFitConfig(steps=4, batch=64, drop_image=0.5, drop_both=0.2, together=True))
    told, velocity = {}, run.steered.velocity
    monkeypatch.setattr(
        run.steered, "velocity", lambda *parts: told.update(shown=parts[5], alone=parts[6]) or velocity(*parts)
    )
    net = run.steered.base.net
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    for _ in range(3):
        run.advance()
    assert not (told["shown"] & told["alone"]).any() and 0.3 < told["alone"].sum() / (~told["shown"]).sum() < 0.7
    moved = {
        name: weight.detach().clone()
        for name, weight in net.named_parameters()
        if not torch.equal(before[name], weight)
    }
    assert len(moved) > 0.8 * len(before)
    kept = {name: weight.clone() for name, weight in run.averaged_weights("net").items()}
    with run.averaged():
        assert all(torch.equal(weight, kept[name]) for name, weight in net.named_parameters())
    assert all(torch.equal(weight, net.get_parameter(name)) for name, weight in moved.items())


@pytest.mark.parametrize("kind", KINDS)
def test_alone_is_without_an_adapter(kind, tmp_path):
    run = training(kind, tmp_path, AdapterFitConfig(steps=3, batch=4, rate=1e-2, warm_up=1))
    for _ in range(3):
        run.advance()
    x, sigma, alone = torch.randn(4, 16, 4, 4), torch.rand(4), torch.tensor([True, False, True, False])
    said = run.cached.text_states(np.zeros(4, int))
    said, features = [part.float() for part in said], torch.randn(4, 3, 16)
    mixed, plain, steered = (
        run.steered.velocity(x, sigma, *said, *rest) for rest in ((features, None, alone), (), (features,))
    )
    assert torch.allclose(mixed[alone], plain[alone], atol=1e-6) and torch.allclose(
        mixed[~alone], steered[~alone], atol=1e-6
    )
    assert not torch.allclose(plain, steered, atol=1e-4)
    run.steered.strength = 0.0
    assert torch.equal(run.steered.velocity(x, sigma, *said, features), plain)


@pytest.mark.parametrize("kind", KINDS)
def test_several_references_stand_side_by_side(kind, tmp_path):
    run = training(kind, tmp_path, AdapterFitConfig(steps=3, batch=4, rate=1e-2, warm_up=1))
    for _ in range(3):
        run.advance()
    x, sigma, said = (
        torch.randn(4, 16, 4, 4),
        torch.rand(4),
        [part.float() for part in run.cached.text_states(np.zeros(4, int))],
    )
    two = torch.randn(4, 2, 3, 16)

    def look(features, shown=None):
        return run.steered.velocity(x, sigma, *said, features, shown)

    assert torch.allclose(look(two), look(two.flip(1)), atol=1e-5)  # in either order
    assert torch.allclose(look(two[:, :1].expand(-1, 3, -1, -1)), look(two[:, 0]), atol=1e-5)  # one thrice is that one
    assert not torch.allclose(look(two), look(two[:, 0]), atol=1e-4)
    first = torch.tensor([True, False, False, False])
    assert torch.allclose(look(two, first)[0], look(two)[0], atol=1e-5) and not torch.allclose(
        look(two, first)[1], look(two)[1], atol=1e-4
    )


def test_a_training_whose_references_teach_nothing_stops_itself(tmp_path, monkeypatch):
    run = training(
        "sd3", tmp_path, AdapterFitConfig(steps=50, batch=2, rate=1e-12), GuardConfig(every=2, tuples=8, patience=6)
    )
    monkeypatch.setattr(run.steered, "_ready", lambda *parts: lambda *seen: None)  # a branch that adds nothing
    monkeypatch.setattr(run, "loss", lambda: (sum(w.sum() for w in run.model.parameters()) * 0, {}))
    with pytest.raises(NoGap, match="not been above 0 for 6 steps"):
        while True:
            run.advance()
    assert run.step == 6


@pytest.fixture
def recipe(photos, tmp_path, monkeypatch):
    """Small enough for seconds: a random miniature, colored photos, and a fake image encoder beside the real words."""
    encoder = ColorEncoder()
    encoder.towers = load_small_text()
    monkeypatch.setattr(adapter_run, "load_encoder", lambda name, offline: encoder)
    (tmp_path / "models").mkdir()
    (photos / "yellow").mkdir()
    for seed in range(2):
        (photos / "yellow" / f"{seed}.jpg").write_bytes(photo_bytes((220, 200, 40), seed))
    return lambda kind: AdapterRecipe(
        BaseConfig(**tiny_miniature.write(tmp_path / "models", kind)),
        DataConfig(photos=str(photos), held_out=("green", "yellow"), aside=0.4, looks=2, sentences=2, size=32),
        AdapterConfig(hidden=64, tokens=4, depth=1),
        AdapterFitConfig(steps=8, batch=3, warm_up=2),
        GuardConfig(every=4, tuples=6, patience=0),
    )


def load_small_text():
    from realrag.encoders.small_net import TextTower

    torch.manual_seed(0)
    return type("Towers", (), {"text": TextTower(64, 96, 256).requires_grad_(False)})()


def tensors_of(folder):
    return {(p.name, name): tensor for p in folder.glob("*.safetensors") for name, tensor in load_file(p).items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_goes_on_to_the_very_same_adapter(kind, recipe, tmp_path):
    scratch, watch = tmp_path / "scratch", WatchConfig(log_steps=1)
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    assert train_adapter(recipe(kind), tmp_path / "whole" / "a.safetensors", scratch, watch)
    stops = []

    def stop(line):
        if line.startswith("loss") or ", norm" in line:
            stops.append(line)
            if len(stops) in (3, 5):
                os.kill(os.getpid(), signal.SIGTERM)

    done = [
        train_adapter(recipe(kind), tmp_path / "parts" / "a.safetensors", scratch, watch, log=stop) for _ in range(3)
    ]
    assert done == [False, False, True] and len(stops) == 8
    whole, parts = tensors_of(tmp_path / "whole"), tensors_of(tmp_path / "parts")
    assert {name for name, _ in whole} == {"a.safetensors", "a.checkpoint.safetensors"} and whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    logs = [list(csv.DictReader(open(tmp_path / name / "a.csv"))) for name in ("whole", "parts")]
    assert [line["step"] for line in logs[1]] == [str(i) for i in range(1, 9)]
    assert [line["loss"] for line in logs[0]] == [line["loss"] for line in logs[1]]
    gaps = [(tmp_path / name / "a.gap.csv").read_text() for name in ("whole", "parts")]
    assert gaps[0] == gaps[1] and gaps[0].startswith("step,seen,seen low,seen high")
    spec = load_adapter(tmp_path / "parts" / "a.safetensors").spec
    assert spec.base == ("the miniature SD3" if kind == "sd3" else "the miniature Flux") and spec.encoder == "colour"
    assert spec.encoder_sha256 == ColorEncoder().weights_sha256


@pytest.mark.parametrize("kind", KINDS)
def test_what_learnt_along_is_written_whole_and_the_steps_may_change_on_the_way(kind, recipe, tmp_path):
    from dataclasses import replace

    first, out = recipe(kind), tmp_path / "out" / "a.safetensors"
    first = replace(first, fit=replace(first.fit, together=True, steps=8))
    out.parent.mkdir()
    assert not train_adapter(first, out, tmp_path / "scratch", WatchConfig(max_minutes=1e-6))
    first = replace(first, fit=replace(first.fit, steps=3))
    assert train_adapter(first, out, tmp_path / "scratch")
    before, after = (load_generator(p) for p in (first.base.path, out.with_name("a.generator.safetensors")))
    assert after.state_dict().keys() == before.state_dict().keys()
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    with pytest.raises(RealRAGError, match="Only a miniature"):
        train_adapter(replace(first, base=replace(first.base, kind="diffusers-sd3")), out, tmp_path / "scratch")


def test_a_run_stops_when_its_minutes_are_over_and_draws_sheets(recipe, tmp_path):
    out, said = tmp_path / "out" / "a.safetensors", []
    out.parent.mkdir()
    watch = WatchConfig(log_steps=1, max_minutes=1e-6, sheet_minutes=1e-9)
    assert not train_adapter(
        recipe("sd3"), out, tmp_path / "scratch", watch, log=said.append, sheet=sheets_of(out, said.append)
    )
    assert out.is_file() and "drew sheets beside" in "".join(said)
    from PIL import Image

    sheet = Image.open(out.with_name("a.held-out.png"))
    assert sheet.size == (5 * 32, 2 * 32) and Image.open(out.with_name("a.seen.png")).size == (5 * 32, 2 * 32)
    altered = Image.open(out.with_name("a.held-out-in-looks.png"))
    assert altered.size == sheet.size and altered.tobytes() != sheet.tobytes()


def test_a_checkpoint_of_other_settings_is_refused(recipe, tmp_path):
    from dataclasses import replace

    (tmp_path / "out").mkdir()
    out, first = tmp_path / "out" / "a.safetensors", recipe("sd3")
    train_adapter(first, out, tmp_path / "scratch")
    with pytest.raises(RealRAGError, match="made with other data or settings"):
        train_adapter(replace(first, fit=replace(first.fit, rate=0.5)), out, tmp_path / "scratch")
    net = load_generator(first.base.path)
    net.joint_blocks[0].x_block.attn.proj.weight[0, 0] += 0.5
    save_generator(tmp_path / "other.safetensors", net, net.state_dict(), {})
    with pytest.raises(RealRAGError, match="made with other data or settings"):
        train_adapter(
            replace(first, base=replace(first.base, path=str(tmp_path / "other.safetensors"))),
            out,
            tmp_path / "scratch",
        )


def test_the_command_stops_in_time_goes_on_and_says_what_it_ran(recipe, photos, tmp_path, monkeypatch, capsys):
    from realrag_train.__main__ import main

    models = tiny_miniature.write(tmp_path / "models", "flux")
    (tmp_path / "mine.toml").write_text(
        '[data]\nheld_out = ["green", "yellow"]\naside = 0.4\nlooks = 1\nsentences = 1\nsize = 32\n'
        "[adapter]\nhidden = 64\n[fit]\nbatch = 2\n[guard]\nevery = 2\ntuples = 4\n"
    )
    out = tmp_path / "new" / "a.safetensors"
    line = [
        "adapter",
        str(tmp_path / "mine.toml"),
        "--out",
        str(out),
        "--scratch",
        str(tmp_path / "scratch"),
        "--steps",
        "4",
    ]
    line += ["--base", models["path"], "--autoencoder", models["autoencoder"], "--photos", str(photos)]
    assert main([*line, "--max-minutes", "1e-6"]) == STOPPED
    assert main(line) == 0 and "resuming after step 1 of 4" in capsys.readouterr().out
    assert (
        '"steps": 4' in out.with_name("a.recipe.json").read_text()
        and str(tmp_path) not in out.with_name("a.recipe.json").read_text()
    )
    assert load_adapter(out).spec.tokens == 4
    assert main([*line[:2], "--out", str(out), "--scratch", str(tmp_path)]) == 1
    assert "Which generator? Give --base" in capsys.readouterr().err
