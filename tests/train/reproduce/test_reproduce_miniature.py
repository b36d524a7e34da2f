"""The miniatures as painters of the experiment, with random weights: what is tested is which noise and reference goes
where."""

import io

import numpy as np
import pytest
import tiny_miniature
import torch
from made_photos import photo_bytes
from PIL import Image

from realrag.encoders.load import load_encoder
from realrag.errors import RealRAGError
from realrag.miniature.generator import load_generator
from realrag.miniature.painting import Miniature, noise_of
from realrag.miniature.text import encode_prompts
from realrag_train.adapter.new_adapter import AdapterConfig, new_adapter, save_adapter
from realrag_train.miniature.world import square
from realrag_train.reproduce.config import Painting, read_plan
from realrag_train.reproduce.miniature_painter import MiniaturePainter
from realrag_train.reproduce.paint_arms import make_painter
from realrag_train.reproduce.painter import Reference
from realrag_train.reproduce.procedural.world import World, read_splits, write_world
from realrag_train.retriever.prompts import class_prompts

pytestmark = pytest.mark.slow

KINDS = ["sd3", "flux"]


def painter(kind, folder, strength=1.0, said=None, steps=20):
    files, encoder = tiny_miniature.write(folder, kind), load_encoder()
    base = Miniature(load_generator(files["path"]))
    seen = encoder.encode_features(encoder.prepare(Image.new("RGB", (64, 64)))[None]).penultimate
    adapter = new_adapter(base, seen.shape[2], seen.shape[1], AdapterConfig(hidden=64, tokens=4, depth=1), 0)
    for name, weight in adapter.named_parameters():
        if "to_v_ip" in name or ".v." in name:
            torch.nn.init.normal_(weight.data, std=4.0)
    out = folder / "adapter.safetensors"
    save_adapter(out, adapter.state_dict(), base, encoder.name, encoder.weights_sha256, {})
    return MiniaturePainter(Painting("miniature", files["path"], str(out), files["autoencoder"], strength, steps), said)


def far(a, b):
    return np.abs(np.asarray(a, float) - np.asarray(b, float)).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_has_its_own_noise_and_references_however_they_are_mixed(kind, tmp_path):
    paints, open_ = painter(kind, tmp_path), lambda seed: Image.open(io.BytesIO(photo_bytes((200, 60, 40), seed)))
    red, other = (Reference(str(seed), open_(seed).convert("RGB")) for seed in (0, 1))
    rows = [
        ("a lemon", 7, [red]),
        ("a lemon", 7, []),
        ("a lemon", 8, []),
        ("a lemon", 7, [red, other, red]),
        ("a lemon", 7, [other, red, red]),
    ]
    made = paints.paint_many(rows)
    alone = [paints.paint_many([row])[0] for row in rows]
    assert all(picture.size == (128, 128) for picture in made)
    assert all(far(a, b) < 1 for a, b in zip(made, alone, strict=True))  # bf16 in another batch
    assert far(made[0], made[1]) > 1 and far(made[1], made[2]) > 1 and far(made[3], made[4]) < 1
    assert paints.metadata["name"] == ("the miniature SD3" if kind == "sd3" else "the miniature Flux")
    silent = painter(kind, tmp_path, strength=0.0)
    assert far(silent.paint_many(rows[:1])[0], made[1]) < 1 and silent.metadata != paints.metadata


@pytest.mark.parametrize("kind", KINDS)
def test_worth_is_what_the_loss_on_the_targets_falls_by(kind, tmp_path):
    paints = painter(kind, tmp_path)
    targets = [Image.open(io.BytesIO(photo_bytes((40, 200, 60), seed))).convert("RGB") for seed in (2, 3)]
    red = Reference("red", Image.open(io.BytesIO(photo_bytes((200, 60, 40), 0))).convert("RGB"))
    found = paints.utility("a lime", red, targets)
    total = []
    for states in (None, paints.see(red)[None]):  # a slow twin: one target and level at a time
        losses = []
        for at, target in enumerate(targets):
            x = torch.from_numpy(np.array(square(target, 128))).permute(2, 0, 1)[None].float() / 255
            latent, noise = paints.autoencoder.encode(x), noise_of(2, 0)[at : at + 1]
            for quantile in (0.125, 0.375, 0.625, 0.875):
                level = torch.sigmoid(torch.special.ndtri(torch.tensor([quantile])))
                if kind == "sd3":
                    level = 3 * level / (1 + 2 * level)
                texts = encode_prompts(paints.encoder.towers.text, ["a lime"])
                moved = paints.steered.velocity((1 - level) * latent + level * noise, level, *texts, states)
                losses.append((moved - (noise - latent)).square().mean().item())
        total.append(np.mean(losses))
    assert found == pytest.approx(total[0] - total[1], rel=0.1) and abs(found) > 1e-3


def test_a_plan_that_paints_with_a_miniature_names_its_three_files(tmp_path):
    plan = tmp_path / "w.toml"
    plan.write_text('[painting]\ngenerator = "g.safetensors"\nadapter = "a.safetensors"\n')
    with pytest.raises(RealRAGError, match="Name the three files"):
        read_plan(plan, {"kind": "miniature"})
    read = read_plan(plan, {"kind": "miniature", "autoencoder": str(tmp_path / "e")}).painting
    assert read.generator == str(tmp_path / "g.safetensors") and read.autoencoder == str(tmp_path / "e")


def test_a_generator_is_asked_by_the_name_that_it_knows_a_thing_by(tmp_path):
    plain, by_name = painter("flux", tmp_path), painter("flux", tmp_path, said={"a sour lemon": "a rabizo fruit"})
    red = Reference("red", Image.open(io.BytesIO(photo_bytes((200, 60, 40), 0))).convert("RGB"))
    one, other = (plain.paint_many([(prompt, 7, [])])[0] for prompt in ("a rabizo fruit", "a sour lemon"))
    assert far(by_name.paint_many([("a sour lemon", 7, [])])[0], one) == 0 < far(one, other)
    assert by_name.utility("a sour lemon", red, [red.image]) == plain.utility("a rabizo fruit", red, [red.image])


def test_a_procedural_world_tells_its_painter_names_that_do_not_say_the_look(tmp_path):
    world = World(families=2, siblings=5, unseen=1, novel=1, size=16, library=1, judge=1, evaluation=1, validation=1)
    write_world(world, tmp_path / "photos")
    prompts = class_prompts(sorted(read_splits(tmp_path / "photos")))
    painter("flux", tmp_path)
    files = Painting(
        "miniature",
        *(str(tmp_path / name) for name in ("generator.safetensors", "adapter.safetensors", "autoencoder.safetensors")),
    )
    said = make_painter(files, tmp_path / "photos", prompts, lambda: None, "cpu").own_prompts
    assert set(said) == {prompt.prompt for prompt in prompts} and len(set(said.values())) == len(prompts)
    for prompt, told in said.items():
        assert told.rsplit(" ", 2)[0] == "a photo of a" and told.rsplit(" ", 1)[1] in prompt
    assert (
        make_painter(files, tmp_path, prompts, lambda: None, "cpu").own_prompts == {}
    )  # a world of photos: names as they are


def test_a_sampler_takes_as_many_steps_as_its_plan_says(tmp_path):
    few, many = (painter("flux", tmp_path, steps=steps) for steps in (1, 20))
    assert (
        few.metadata["steps"] == 1
        and far(few.paint_many([("a lemon", 7, [])])[0], many.paint_many([("a lemon", 7, [])])[0]) > 0
    )
    with pytest.raises(RealRAGError, match=r"`steps` in .painting. is 0; a sampler takes 1 to 1000"):
        Painting(steps=0)
