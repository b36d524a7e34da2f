"""Training a tower: what moves and what stays, step 0, stopping and going on, and the tuned encoder in a bundle."""

import csv
import dataclasses
import inspect
import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
import torch
from fake_encoder import ColorEncoder
from made_photos import COLORS, photo_bytes
from safetensors.numpy import save_file
from tiny_encoders import write_tiny_clip, write_tiny_small
from torch import nn
from tower_toy import fitting_in, small, tower_of_one_rank
from two_ranks import in_two_ranks, needs_gloo

from realrag.bundle.bundle import Bundle
from realrag.encoders.load import load_encoder
from realrag.encoders.reflective_head import ReflectiveHead, save_head
from realrag.errors import BundleError, EncoderError, RealRAGError
from realrag.indexing.build import build
from realrag.indexing.shards import Sizes
from realrag.retriever import Retriever
from realrag_train.__main__ import main
from realrag_train.contrastive import tuned_encoder as tuned_files
from realrag_train.contrastive.fit import FitInputs, fit_file
from realrag_train.contrastive.fit_config import RATES, FitConfig
from realrag_train.contrastive.loss import LossConfig
from realrag_train.contrastive.mine import MineInputs, mine_file
from realrag_train.contrastive.models import PLAIN, TextModel, VisionModel
from realrag_train.contrastive.negatives import MineConfig
from realrag_train.contrastive.tuned_encoder import mix, tuned_metadata, tuned_vectors, write_tuned
from realrag_train.loop.watch import WatchConfig
from realrag_train.lora import LowRankUpdate, add_lora, merge_lora

TOWERS = ("text", "lora", "full")
CASES = [(mode, kind) for mode in TOWERS for kind in ("clip", "small")]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
WRITERS = {"clip": write_tiny_clip, "small": write_tiny_small}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """{kind of encoder: folder with photos, an encoder, a bundle made with it, prompts, drawings and negatives}."""
    found = {}
    for kind, write in WRITERS.items():
        folder = found[kind] = tmp_path_factory.mktemp(kind)
        for name, color in COLORS.items():
            (folder / "photos" / name).mkdir(parents=True)
            for seed in range(4):
                (folder / "photos" / name / f"{seed}.jpg").write_bytes(photo_bytes(color, seed))
        write(folder / "tiny")
        encoder = load_encoder(str(folder / "tiny"))
        build(folder / "photos", folder / "bundle", encoder)
        lines = [{"prompt": f"{words} {name}", "class": name} for name in COLORS for words in ("a photo of", "some")]
        (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
        drawn = np.random.default_rng(0).normal(size=(len(lines), 1, encoder.dim)).astype(np.float16)
        save_file(
            {"embeddings": drawn},
            folder / "drawn.safetensors",
            {"encoder_fingerprint": encoder.fingerprint, "generator": "x"},
        )
        inputs = MineInputs(folder / "bundle", folder / "prompts.jsonl", folder / "drawn.safetensors")
        mine_file(inputs, folder / "negatives.safetensors", MineConfig(near_duplicate=2.0), encoder=encoder)
    return found


def fit_in(folder, mode, out, loss=LossConfig(), watch=WatchConfig(save_steps=2, log_steps=1), encoder=None, **changes):
    progress = changes.pop("progress", lambda done, total: None)
    negatives = folder / "negatives.safetensors" if loss.uses_negatives else None
    inputs = FitInputs(folder / "bundle", folder / "prompts.jsonl", negatives)
    return fit_file(inputs, out, small(mode, **changes), loss, encoder=encoder, watch=watch, progress=progress)


def moved(one, other):
    """Names of the weights in which two encoders differ."""
    theirs = other.state_dict()
    return {name for name, weight in one.state_dict().items() if not torch.equal(weight, theirs[name])}


@pytest.mark.parametrize("mode,kind", CASES)
def test_at_step_0_every_mode_is_the_plain_encoder(worlds, mode, kind, tmp_path):
    fitting, plain = fitting_in(worlds[kind], mode)
    pixels = torch.stack([plain.prepare(image) for image in images(worlds[kind])])
    merged = fitting.model.encoder
    with torch.inference_mode():  # adapted but not trained: the products are zero, and their sum is a tensor of its own
        torch.testing.assert_close(merged.encode_images(pixels), plain.encode_images(pixels), rtol=0, atol=1e-6)
        torch.testing.assert_close(merged.encode_texts(["a red"]), plain.encode_texts(["a red"]), rtol=0, atol=1e-6)
    merge_lora(merged)
    assert set(merged.state_dict()) == set(plain.state_dict()) and not moved(merged, plain)


def images(folder):
    bundle = Bundle(folder / "bundle")
    return [bundle.image(record) for record in bundle.records][:3]


@pytest.mark.parametrize("mode,kind", CASES)
def test_only_the_tower_of_the_mode_is_trained_and_the_result_opens_as_an_encoder(worlds, mode, kind, tmp_path):
    tuned = fit_in(worlds[kind], mode, tmp_path / "tuned")
    base, again = load_encoder(str(worlds[kind] / "tiny")), load_encoder(str(tmp_path / "tuned"))
    assert again.fingerprint == tuned.fingerprint != base.fingerprint and again.name == "tuned" and not again.portable
    changed = moved(tuned, base)
    assert changed and all(name.startswith(base.image_prefixes) == (mode != "text") for name in changed)
    assert (tuned.image_fingerprint == base.image_fingerprint) == (mode == "text")
    assert tuned.accepts_vectors_of(base.describe()) == (mode == "text")
    assert again.tuned["base"] == base.fingerprint and again.tuned["facts"]["config"]["fit"]["mode"] == mode
    assert not list(tmp_path.glob("*checkpoint*")) and not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("mode,kind", [("text", "clip"), ("lora", "small"), ("full", "clip")])
def test_training_a_tower_lowers_its_loss_and_widens_the_gap(worlds, mode, kind):
    fitting, _ = fitting_in(worlds[kind], mode, epochs=6)
    before = fitting.gap()
    fitting.run()
    assert fitting.history[-1]["loss"] < fitting.history[0]["loss"] and fitting.gap() > before


def products(out):
    encoder = load_encoder(str(out))
    names = (out.with_name(f"{out.name}.fit.{kind}") for kind in ("json", "csv"))
    return encoder.fingerprint, encoder.tuned, *(path.read_bytes() for path in names)


@pytest.mark.parametrize("mode,kind", [("text", "small"), ("lora", "clip"), ("full", "small")])
def test_many_stopped_runs_end_in_the_bits_of_one(worlds, mode, kind, tmp_path):
    whole, parts = tmp_path / "a" / "tuned", tmp_path / "b" / "tuned"
    options = dict(held_out=0.3, loss=LossConfig(learned_tau=True))
    if mode != "text":
        options["augment"] = True
    fit_in(worlds[kind], mode, whole, **options)
    runs = 1
    while fit_in(worlds[kind], mode, parts, watch=WatchConfig(log_steps=1, max_minutes=1e-9), **options) is None:
        assert not parts.exists()
        runs += 1
    assert runs > 2 and products(whole) == products(parts)


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking it")
def test_sigterm_keeps_a_tower_and_the_same_call_goes_on(worlds, tmp_path):
    folder, steps = worlds["small"], []

    def ask(done, total):
        if done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    assert fit_in(folder, "lora", tmp_path / "a" / "tuned", progress=ask) is None
    assert (tmp_path / "a" / "tuned.fit.checkpoint.safetensors").is_file()
    fit_in(folder, "lora", tmp_path / "a" / "tuned", progress=lambda done, total: steps.append(done))
    fit_in(folder, "lora", tmp_path / "b" / "tuned")
    assert steps[0] == 4 and products(tmp_path / "a" / "tuned") == products(tmp_path / "b" / "tuned")


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process without asking it")
def test_sigterm_in_the_middle_of_a_long_step_leaves_it_undone(worlds, tmp_path, monkeypatch):
    folder, chunks, encode, steps = worlds["small"], [], VisionModel.encode, []

    def encode_and_ask(self, inputs):
        chunks.append(len(inputs))
        if len(chunks) == 12:
            os.kill(os.getpid(), signal.SIGTERM)
        return encode(self, inputs)

    monkeypatch.setattr(VisionModel, "encode", encode_and_ask)
    assert fit_in(folder, "lora", tmp_path / "a" / "tuned", grad_chunk=2) is None and len(chunks) == 12
    monkeypatch.undo()
    fit_in(folder, "lora", tmp_path / "a" / "tuned", grad_chunk=2, progress=lambda done, total: steps.append(done))
    fit_in(folder, "lora", tmp_path / "b" / "tuned", grad_chunk=2)
    assert steps[0] > 1 and products(tmp_path / "a" / "tuned") == products(tmp_path / "b" / "tuned")


def test_an_encoder_that_was_being_written_is_written_again_from_the_checkpoint(worlds, tmp_path, monkeypatch):
    folder, out = worlds["clip"], tmp_path / "a" / "tuned"

    def end(folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(tuned_files, "fsync_folder", end)
    with pytest.raises(KeyboardInterrupt):
        fit_in(folder, "lora", out)
    monkeypatch.undo()
    assert (
        not out.exists()
        and out.with_name("tuned.part").is_dir()
        and out.with_name("tuned.fit.checkpoint.safetensors").is_file()
    )
    fit_in(folder, "lora", out)
    fit_in(folder, "lora", tmp_path / "b" / "tuned")
    assert products(out) == products(tmp_path / "b" / "tuned") and not out.with_name("tuned.part").exists()


def test_a_run_of_slow_steps_is_kept_by_the_clock_too(worlds, tmp_path):
    seen, checkpoint = [], tmp_path / "tuned.fit.checkpoint.safetensors"
    for minutes in (0.0, 60.0):
        watch = WatchConfig(save_steps=10**6, save_minutes=minutes, log_steps=1)
        fit_in(worlds["small"], "text", tmp_path / "tuned", watch=watch, seed=int(minutes),
               progress=lambda done, total: seen.append(checkpoint.exists()))  # fmt: skip
    assert seen == [False, True, True, True, True, True] + [False] * 6


def test_a_checkpoint_of_lora_holds_the_thin_matrices_alone(worlds, tmp_path):
    from safetensors import safe_open

    fitting, _ = fitting_in(worlds["clip"], "lora")
    fitting.advance()
    fitting.save(tmp_path / "kept.safetensors", "key")
    with safe_open(tmp_path / "kept.safetensors", "pt") as file:
        kept = [name for name in file.keys() if name.startswith("weight.")]
    assert kept and all(name.endswith((".0.a", ".0.b")) for name in kept)


def test_the_same_inputs_touch_nothing_and_what_is_no_tuned_encoder_is_not_replaced(worlds, tmp_path):
    folder, out = worlds["small"], tmp_path / "tuned"
    fit_in(folder, "text", out)
    before = os.stat(out / "small_encoder.safetensors").st_mtime_ns
    fit_in(folder, "text", out)
    assert os.stat(out / "small_encoder.safetensors").st_mtime_ns == before
    fit_in(folder, "text", out, epochs=1)
    assert os.stat(out / "small_encoder.safetensors").st_mtime_ns != before
    base = shutil.copytree(folder / "tiny", tmp_path / "precious")
    with pytest.raises(RealRAGError, match="holds other things"):
        fit_in(folder, "text", base, progress=lambda done, total: pytest.fail("trained before it was refused"))
    assert load_encoder(str(base)).fingerprint == load_encoder(str(folder / "tiny")).fingerprint


@pytest.mark.parametrize("mode", ["text", "lora"])
def test_gradient_caching_trains_the_same_tower(worlds, mode):
    trained = []
    for chunk in (0, 3):
        fitting, _ = fitting_in(worlds["small"], mode, epochs=1, grad_chunk=chunk, rate=1e-3)
        fitting.run()
        trained.append(fitting.model.trained)
    assert all(torch.allclose(trained[0][name], trained[1][name], atol=1e-5) for name in trained[0])
    assert any(weight.any() for name, weight in trained[0].items() if name.endswith(".b")) or mode == "text"


@needs_gloo
def test_two_processes_train_the_tower_of_one(worlds, tmp_path):
    ranks = in_two_ranks(tower_of_one_rank, tmp_path, worlds["small"])
    alone, _ = fitting_in(worlds["small"], "lora", epochs=1, rate=1e-3)
    alone.run()
    for mine, first, second in zip(alone.model.trained.values(), *(rank[:-1] for rank in ranks), strict=True):
        assert torch.equal(first, second) and torch.allclose(mine, first, atol=1e-5)
    figures = list(alone.figures())
    assert torch.equal(ranks[0][-1], ranks[1][-1])
    assert ranks[0][-1][figures.index("loss")].item() == pytest.approx(alone.figures()["loss"], abs=1e-5)


def test_pictures_are_plain_unless_asked_and_altered_ones_depend_on_seed_and_epoch_alone(worlds):
    fitting, plain = fitting_in(worlds["small"], "full", augment=True)
    rows, model = torch.tensor([4, 1, 4]), fitting.model
    inputs, place = model.inputs(rows, PLAIN)
    bundle = Bundle(worlds["small"] / "bundle")
    assert len(inputs) == 2 and torch.equal(inputs[place][0], plain.prepare(bundle.image(bundle.records[4])))
    first, again, later = (model.inputs(rows, epoch)[0] for epoch in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, later) and not torch.equal(first, inputs)
    model.augment = False
    assert torch.equal(model.inputs(rows, 0)[0], inputs)


def test_pictures_of_the_next_step_are_opened_once_and_ahead(worlds, monkeypatch):
    fitting, _ = fitting_in(worlds["small"], "full", loss=LossConfig("normal"))
    opened, plain = [], VisionModel._pixels
    monkeypatch.setattr(VisionModel, "_pixels", lambda self, row, epoch: opened.append(row) or plain(self, row, epoch))
    for step in range(fitting.steps_each_epoch):
        fitting.advance()
        ready = [future.result() for future in fitting.model._waiting.values()]
        assert len(ready) == (0 if step == fitting.steps_each_epoch - 1 else fitting.batch)
    assert sorted(opened) == list(range(12))  # every photo of the epoch, each once


# LoRA


@pytest.mark.parametrize("batch_first", [True, False])
def test_an_adapted_attention_is_the_attention_with_the_product_added(batch_first):
    torch.manual_seed(0)
    plain, adapted = (nn.MultiheadAttention(8, 2, batch_first=batch_first).eval() for _ in range(2))
    adapted.load_state_dict(plain.state_dict())
    weights = add_lora(adapted, ("",), 2, 4.0)
    assert len(weights) == 4 and all(weight.ndim == 2 for weight in weights.values())
    with torch.no_grad():
        for weight in weights.values():
            weight.normal_()
        parts = [adapted.parametrizations.in_proj_weight[0], adapted.out_proj.parametrizations.weight[0]]
        plain.in_proj_weight += 2 * parts[0].b @ parts[0].a  # alpha / rank is 4 / 2
        plain.out_proj.weight += 2 * parts[1].b @ parts[1].a
        x = torch.randn(3, 5, 8)
        expected = plain(x, x, x)[0]
        assert torch.allclose(adapted(x, x, x)[0], expected, atol=1e-6)
        merge_lora(adapted)
        assert torch.allclose(adapted(x, x, x)[0], expected, atol=1e-6) and set(adapted.state_dict()) == set(
            plain.state_dict()
        )


def test_a_pointwise_convolution_is_adapted_and_a_depthwise_one_is_not():
    layers = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 6, 1), nn.Conv2d(4, 4, 1, groups=4), nn.ReLU())
    assert {name.split(".")[0] for name in add_lora(layers, ("",), 8, 8.0)} == {"1"}
    assert layers[1].parametrizations.weight[0].a.shape == (4, 4)  # never more rank than the weight has


def test_a_product_begins_as_nothing_and_learns():
    part = LowRankUpdate(torch.randn(5, 3), 2, 2.0)
    weight = torch.randn(5, 3)
    assert torch.equal(part(weight), weight)
    part(weight).sum().backward()
    assert part.b.grad.any() and not part.a.grad.any()  # B first: A has no effect while B is zero


# What makes no sense is refused


class Shared(ColorEncoder):
    """Its text side reads a weight of its image side."""

    image_prefixes = ("weight",)

    def _texts(self, texts):
        return super()._texts(texts) * self.weight


def test_a_text_tower_that_shares_weights_or_has_none_is_refused():
    with pytest.raises(EncoderError, match="shares weight with the vision tower"):
        TextModel(Shared(), ["red"], torch.device("cpu"))
    with pytest.raises(EncoderError, match="no weights that can be trained"):
        TextModel(ColorEncoder(), ["red"], torch.device("cpu"))


def test_lora_is_refused_where_nothing_is_linear():
    with pytest.raises(EncoderError, match="no linear map"):
        VisionModel(ColorEncoder(), None, FitConfig(mode="lora"), torch.device("cpu"))


@pytest.mark.parametrize("changes,cure", [
    ({"mode": "vision"}, "head, text, lora, full"), ({"mode": "lora", "refresh": 1}, "again with the tuned encoder"),
    ({"mode": "text", "augment": True}, "augment"), ({"mode": "lora", "lora_rank": 0}, "lora_rank"), ({"rate": -1.0}, "rate"),
])  # fmt: skip
def test_settings_that_do_not_go_with_a_mode_are_refused(changes, cure):
    with pytest.raises(RealRAGError, match=cure):
        FitConfig(**changes)


@pytest.mark.parametrize("config", [FitConfig, LossConfig, MineConfig])
def test_every_default_says_whether_it_is_the_papers_or_ours(config):
    source = inspect.getsource(config).splitlines()
    for field in dataclasses.fields(config):
        (line,) = (line for line in source if re.match(rf"    {field.name}: \w+ = ", line))
        assert re.search(r"# (paper|our choice)", line), line


def test_another_encoder_than_the_bundles_is_refused(worlds, tmp_path):
    with pytest.raises(EncoderError, match="indexed with another encoder"):
        fit_in(worlds["small"], "text", tmp_path / "tuned", encoder=load_encoder(str(worlds["clip"] / "tiny")))


# In a bundle


@pytest.fixture(scope="module")
def tuned_text(worlds, tmp_path_factory):
    out = tmp_path_factory.mktemp("text") / "tuned-words"
    fit_in(worlds["clip"], "text", out)
    return out


def test_a_tuned_text_tower_searches_a_bundle_of_the_plain_encoder(worlds, tuned_text):
    plain, tuned = load_encoder(str(worlds["clip"] / "tiny")), load_encoder(str(tuned_text))
    before, after = (Retriever.open(worlds["clip"] / "bundle", encoder=encoder) for encoder in (plain, tuned))
    assert np.array_equal(before.vectors, after.vectors)
    assert not np.allclose(before.query(["a red"]), after.query(["a red"]))
    other = build_with(worlds["clip"], plain, worlds["clip"] / "later")
    assert Retriever.open(other, encoder=tuned).search("a red", k=2).items


def build_with(folder, encoder, out, **options):
    build(folder / "photos", out, encoder, **options)
    return out


def test_a_bundle_for_the_tuned_text_tower_takes_the_vectors_over_and_carries_the_encoder(
    worlds, tuned_text, tmp_path, monkeypatch
):
    tuned = load_encoder(str(tuned_text))
    monkeypatch.setattr(type(tuned), "_images", None)  # nothing is encoded, so nobody misses it
    report = build(worlds["clip"] / "photos", tmp_path / "new", tuned, reuse=worlds["clip"] / "bundle")
    monkeypatch.undo()
    assert report.encoded == 0 and report.total == 12 and report.removed == 0
    old, new = Bundle(worlds["clip"] / "bundle"), Bundle(tmp_path / "new")
    assert new.manifest.encoder["fingerprint"] == tuned.fingerprint != old.manifest.encoder["fingerprint"]
    assert {f.sha256 for f in old.manifest.files if f.role != "encoder"} == {
        f.sha256 for f in new.manifest.files if f.role != "encoder"
    }
    retriever = Retriever.open(tmp_path / "new")  # with the encoder that it carries
    assert retriever.encoder.fingerprint == tuned.fingerprint and retriever.search("a red", k=1).items
    again = Retriever.open(worlds["clip"] / "bundle", encoder=retriever.encoder)
    assert again.search("a red", k=3).items[0].id == retriever.search("a red", k=3).items[0].id


def test_the_command_line_takes_vectors_over(worlds, tuned_text, tmp_path, capsys):
    from realrag.commands.main import main as realrag

    folder = worlds["clip"]
    command = ["index", str(folder / "photos"), "--out", str(tmp_path / "new"), "--encoder", str(tuned_text)]
    assert realrag([*command, "--reuse", str(folder / "bundle")]) == 0
    assert "12 photos found, all usable; 12 with the vectors of the other library." in capsys.readouterr().out


def test_vectors_of_another_image_tower_are_not_taken_over(worlds, tmp_path):
    tuned = fit_in(worlds["clip"], "full", tmp_path / "tuned")
    with pytest.raises(EncoderError, match="another image tower"):
        build(worlds["clip"] / "photos", tmp_path / "new", tuned, reuse=worlds["clip"] / "bundle")
    with pytest.raises(EncoderError, match="answers would be noise"):
        Retriever.open(worlds["clip"] / "bundle", encoder=tuned)
    with pytest.raises(BundleError, match="keeps pictures of at most 768"):
        build(worlds["clip"] / "photos", tmp_path / "new", load_encoder(str(worlds["clip"] / "tiny")), sizes=Sizes(picture=100),
              reuse=worlds["clip"] / "bundle")  # fmt: skip
    report = build(worlds["clip"] / "photos", tmp_path / "new", tuned)
    assert report.encoded == 12 and Retriever.open(tmp_path / "new").search("a red", k=1).items


def test_a_claim_on_photo_vectors_is_believed_only_with_the_image_tower_it_was_made_for(worlds, tuned_text, tmp_path):
    tuned = load_encoder(str(tuned_text))
    with torch.no_grad():
        tuned.towers.visual.proj.mul_(2)
    tuned.save_pretrained(tmp_path / "forged")
    forged = load_encoder(str(tmp_path / "forged"))
    assert forged.tuned["photos_of"] and not forged.accepts_vectors_of(
        Bundle(worlds["clip"] / "bundle").manifest.encoder
    )
    with pytest.raises(EncoderError, match="answers would be noise"):
        Retriever.open(worlds["clip"] / "bundle", encoder=forged)
    with pytest.raises(EncoderError, match="changed while it was written"):
        write_tuned(forged, tmp_path / "again")
    assert not (tmp_path / "again").exists()
    assert tuned_metadata(forged, "text", {})["photos_of"] == [forged.fingerprint]  # a false claim is not handed on


def test_text_towers_tuned_one_after_the_other_leave_the_first_bundle_valid(worlds, tuned_text, tmp_path):
    folder = tmp_path / "next"
    folder.mkdir()
    for name in ("prompts.jsonl",):
        shutil.copy(worlds["clip"] / name, folder)
    build(worlds["clip"] / "photos", folder / "bundle", load_encoder(str(tuned_text)), reuse=worlds["clip"] / "bundle")
    twice = fit_in(folder, "text", tmp_path / "twice", loss=LossConfig("normal"))
    assert len(twice.tuned["photos_of"]) == 2
    assert all(
        twice.accepts_vectors_of(Bundle(place / "bundle").manifest.encoder) for place in (folder, worlds["clip"])
    )


def test_a_head_for_the_plain_words_is_not_used_with_tuned_ones(worlds, tuned_text, tmp_path):
    plain, tuned = load_encoder(str(worlds["clip"] / "tiny")), load_encoder(str(tuned_text))
    save_head(ReflectiveHead(24, 4, {"encoder_fingerprint": plain.fingerprint}), tmp_path / "head.safetensors")
    build_with(worlds["clip"], plain, tmp_path / "with-head", head=tmp_path / "head.safetensors")
    with pytest.raises(EncoderError, match="trained for the text tower of"):
        Retriever.open(tmp_path / "with-head", encoder=tuned)


def test_vectors_for_an_evaluation_are_the_bundles_own_or_made_anew(worlds, tuned_text, tmp_path):
    bundle = Bundle(worlds["clip"] / "bundle")
    kept = tuned_vectors(load_encoder(str(tuned_text)), bundle, ["a red", "a blue"])
    assert kept.queries.shape == (2, 24) and np.allclose(kept.photos, Retriever.open(bundle.folder).vectors)
    tuned = fit_in(worlds["clip"], "full", tmp_path / "tuned")
    made = tuned_vectors(tuned, bundle, ["a red"])
    indexed = Retriever.open(build_with(worlds["clip"], tuned, tmp_path / "new"))
    assert (
        not np.allclose(made.photos, kept.photos) and (made.photos * indexed.vectors).sum(1).min() > 0.999
    )  # JPEG once more


# Mixing


@pytest.mark.parametrize("mode,kind", [("text", "clip"), ("full", "small")])
def test_a_mixture_lies_between_the_start_and_the_tuned_encoder(worlds, mode, kind, tmp_path):
    base = load_encoder(str(worlds[kind] / "tiny"))
    fit_in(worlds[kind], mode, tmp_path / "tuned")
    ends = {
        alpha: mix(load_encoder(str(tmp_path / "tuned")), base, alpha, tmp_path / str(alpha))
        for alpha in (0.0, 0.25, 1.0)
    }
    assert not moved(ends[0.0], base) and not moved(ends[1.0], load_encoder(str(tmp_path / "tuned")))
    for name, weight in ends[0.25].state_dict().items():
        expected = 0.75 * base.state_dict()[name] + 0.25 * ends[1.0].state_dict()[name]
        assert torch.allclose(weight, expected, atol=2e-3 if kind == "small" else 1e-6)  # the small encoder keeps fp16
    assert ends[0.25].tuned["alpha"] == 0.25
    assert ends[0.25].accepts_vectors_of(Bundle(worlds[kind] / "bundle").manifest.encoder) == (mode == "text")


def test_mixing_asks_for_the_encoder_it_began_from(worlds, tuned_text, tmp_path, capsys):
    command = ["mix", str(tuned_text), "--out", str(tmp_path / "mixed")]
    assert (
        main([*command, "--base", str(worlds["small"] / "tiny")]) == 1
        and "Give that one with --base" in capsys.readouterr().err
    )
    assert main([*command, "--base", str(worlds["clip"] / "tiny"), "--alpha", "2"]) == 1
    assert main([*command, "--base", str(worlds["clip"] / "tiny"), "--alpha", "0.3"]) == 0
    assert "libraries of the first encoder stay valid" in capsys.readouterr().out
    assert load_encoder(str(tmp_path / "mixed")).tuned["alpha"] == 0.3


# The schedule and the log


def test_the_rate_warms_up_and_falls_as_a_cosine_from_the_modes_own_height(worlds):
    fitting, _ = fitting_in(worlds["small"], "text", rate=0.0, epochs=10, warm_up=0.2)
    rates = []
    while not fitting.done:
        fitting.advance()
        rates.append(fitting.optimizer.param_groups[0]["lr"])
    done = np.arange(len(rates)) / len(rates)
    expected = np.minimum(1, (done + 1 / len(rates)) / 0.2) * (1 + np.cos(np.pi * done)) / 2
    assert np.allclose(rates, RATES["text"] * expected) and isinstance(fitting.optimizer, torch.optim.AdamW)


def test_the_log_holds_the_parts_of_the_loss_the_margin_and_the_held_out_figure(worlds, tmp_path):
    fit_in(worlds["small"], "text", tmp_path / "tuned", held_out=0.3, loss=LossConfig(learned_tau=True))
    with open(tmp_path / "tuned.fit.csv", newline="") as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    assert all(abs(row["normal"] + row["negatives"] - row["loss"]) < 1e-6 and row["utility"] == 0 for row in rows)
    assert any(row["negatives"] > 0 for row in rows) and len({row["margin"] for row in rows}) == len(rows)
    assert len({row["tau"] for row in rows}) > 1  # learned
    steps = len(rows) // 2
    assert [at for at, row in enumerate(rows, 1) if "held_out_r1" in row] == [steps, 2 * steps]
    story = json.loads((tmp_path / "tuned.fit.json").read_text())["history"]
    assert [entry["held_out_r1"] for entry in story] == pytest.approx(
        [rows[steps - 1]["held_out_r1"], rows[-1]["held_out_r1"]]
    )


def test_the_margin_is_that_of_the_vectors_the_step_saw(worlds):
    fitting, _ = fitting_in(worlds["small"], "text")
    rows, different, place = fitting._rows()
    prompts = different[place]
    queries, chosen = fitting.vectors("prompts", prompts), fitting.negatives[prompts]
    fits, others = (queries * fitting.photos[rows]).sum(1), (queries[:, None] * fitting.photos[chosen]).sum(2)
    fitting.advance()
    assert fitting.figures()["margin"] == pytest.approx((fits.mean() - others[chosen >= 0].mean()).item(), abs=1e-6)
    plain, _ = fitting_in(worlds["small"], "text", loss=LossConfig("normal"))
    other = plain.classes[prompts][:, None] != plain.classes[prompts][None]
    plain.advance()
    expected = fits.mean() - (queries @ plain.photos[rows].T)[other].mean()
    assert plain.figures()["margin"] == pytest.approx(expected.item(), abs=1e-6)


def test_tensorboard_is_written_when_asked_and_its_absence_is_named(worlds, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(RealRAGError, match=r"pip install realrag\[train\]"):
        fit_in(worlds["small"], "text", tmp_path / "none", watch=WatchConfig(tensorboard=True))
    monkeypatch.undo()
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit_in(worlds["small"], "text", tmp_path / "tuned", watch=WatchConfig(log_steps=1, tensorboard=True))
    events = EventAccumulator(str(tmp_path / "tuned.fit.tensorboard")).Reload()
    with open(tmp_path / "tuned.fit.csv", newline="") as file:
        expected = [float(row["loss"]) for row in csv.DictReader(file)]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(expected, rel=1e-6)


def test_the_command_trains_a_tower_and_says_so(worlds, tmp_path, capsys):
    folder = worlds["small"]
    command = ["fit", str(folder / "bundle"), "--negatives", str(folder / "negatives.safetensors"), "--mode", "lora",
               "--out", str(tmp_path / "tuned"), "--batch", "4", "--epochs", "1", "--lora-rank", "1"]  # fmt: skip
    assert main(command) == 0
    assert "wrote" in capsys.readouterr().out and load_encoder(str(tmp_path / "tuned")).tuned["mode"] == "lora"


@pytest.mark.parametrize("mode", ["text", "lora", "full"])
def test_mixed_precision_on_the_cpu_is_the_twin_of_that_on_a_gpu(worlds, mode):
    """Weights stay in fp32, matrix products are in bf16, and a step ends close to one in fp32."""
    losses, weights = {}, {}
    for precision in ("fp32", "bf16", "auto"):
        fitting, _ = fitting_in(worlds["clip"], mode, precision=precision, rate=1e-4)
        fitting.advance()
        losses[precision] = fitting.figures()["loss"]
        weights[precision] = torch.cat([weight.detach().flatten() for weight in fitting.model.trained.values()])
        assert all(weight.dtype == torch.float32 for weight in fitting.model.trained.values())
        assert fitting.model.mixed == (precision == "bf16")
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05) and losses["bf16"] != losses["fp32"]
    assert losses["auto"] == losses["fp32"]
    assert (weights["bf16"] - weights["fp32"]).abs().max() <= 2.5e-4  # AdamW's first step moves each weight by the rate


def test_an_unknown_precision_is_refused():
    with pytest.raises(RealRAGError, match="one of auto, bf16, fp32"):
        FitConfig(precision="fp8")
