"""Inject References in the real ComfyUI, in this process, on tiny Flux, SD3 and SD3.5 models."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_models
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import synthetic_adapters as synthetic  # noqa: E402

ALL = ("flux", "sd3", "sd35", "sd35m")
ADAPTED = ("flux", "sd3", "sd35", "sd35m")  # every base also with an adapter of its own size
LATENT = (1, 16, 6, 10)  # odd numbers of tokens: 3 x 5
DIALS = dict(strength=1.0, start_percent=0.0, end_percent=1.0)


class Vision:
    """Stands for CLIP Vision: an output that depends on the picture, of the adapter's width, and notes what was asked."""

    width = 24

    def __init__(self):
        self.crops = []

    def encode_image(self, image, crop=True):
        self.crops.append(crop)
        seed = int(image.double().sum() * 1000) % 2**31
        hidden = torch.randn(1, 9, self.width, generator=torch.Generator().manual_seed(seed))
        return SimpleNamespace(image_embeds=hidden[:, 0], penultimate_hidden_states=hidden)


class Vae:
    """Stands for the VAE: 8x8 pixels to one, 16 channels."""

    def encode(self, pixels):
        small = torch.nn.functional.avg_pool2d(pixels.movedim(-1, 1), 8)
        return torch.cat([small * (i - 7) / 4 for i in range(6)], 1)[:, :16]


def photo(seed, height=48, width=64):
    return torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def inference():
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def models(plugin):
    return {kind: tiny_models.model(kind) for kind in ALL}


@pytest.fixture
def world(plugin, models):
    return World(plugin, models)


class World:
    def __init__(self, plugin, models):
        self.plugin, self.models = plugin, models
        self.inject = plugin("nodes.inject")
        self.adapter_error = plugin("realrag.errors").AdapterError

    def adapter(self, kind, seed=0):
        if kind == "flux":
            weights = synthetic.xlabs(width=256, context=48, blocks=2, encoder=24, tokens=4, seed=seed)
        else:
            weights = synthetic.instantx(width=128, blocks=2, encoder=24, tokens=6, depth=2, seed=seed)
        return self.plugin("nodes.load_adapter").ManagedAdapter.of(self.plugin("realrag.adapters").build_adapter(weights))

    def steered(self, kind, way, model=None, image=None, seed=0, **dials):
        """The model of this kind with references by this way: "adapter" or "shared"."""
        model = self.models[kind] if model is None else model
        image = photo(1) if image is None else image
        how = dict(adapter=None, clip_vision=None, vae=None)
        how |= dict(adapter=self.adapter(kind, seed), clip_vision=Vision()) if way == "adapter" else dict(vae=Vae())
        out = self.inject.InjectReferences.execute(model, image=image, **how, **{**DIALS, **dials})
        return out.result[0]

    def sample(self, model, steps=2, cfg=2.0, batch=1, seed=3, latent=LATENT):
        import comfy.sample

        latent = torch.zeros((batch, *latent[1:]))
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(seed))
        conds = [conditioning(0), conditioning(1)]
        return comfy.sample.sample(
            model, noise, steps, cfg, "euler", "simple", *conds, latent, denoise=1.0, disable_pbar=True, seed=seed
        )

    def call(self, model, sigma=0.7, kinds=(0,), batch=1, seed=5, latent=LATENT, **options):
        """One model call as ComfyUI's sampler makes it, with the MODEL's own options and wrappers."""
        import comfy.model_management as management
        import comfy.patcher_extension

        management.load_models_gpu([model])
        rows = len(kinds) * batch
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn((rows, *latent[1:]), generator=generator)
        parts = [conditioning(kind)[0] for kind in kinds for _ in range(batch)]
        context = torch.cat([c for c, _ in parts])
        pooled = torch.cat([extra["pooled_output"] for _, extra in parts])
        to = comfy.patcher_extension.copy_nested_dicts(model.model_options["transformer_options"])
        to |= dict(cond_or_uncond=list(kinds), sigmas=torch.tensor([sigma]), wrappers=model.wrappers, **options)
        guidance = {"guidance": torch.full((rows,), 3.5)} if "Flux" in type(model.model).__name__ else {}
        return model.model.apply_model(
            x, torch.full((rows,), sigma), c_crossattn=context, transformer_options=to, y=pooled, **guidance
        )


def conditioning(seed):
    generator = torch.Generator().manual_seed(100 + seed)
    context = torch.randn(1, 7, tiny_models.TEXT_WIDTH, generator=generator)
    return [[context, {"pooled_output": torch.randn(1, tiny_models.POOLED_WIDTH, generator=generator)}]]


both_ways = pytest.mark.parametrize("way", ["adapter", "shared"])
all_kinds = pytest.mark.parametrize("kind", ALL)


@all_kinds
@both_ways
def test_references_change_the_picture_and_repeat_exactly(world, kind, way):
    plain = world.sample(world.models[kind])
    first, again = world.sample(world.steered(kind, way)), world.sample(world.steered(kind, way))
    other = world.sample(world.steered(kind, way, image=photo(2)))
    together = world.sample(world.steered(kind, way, image=torch.cat((photo(1), photo(2)))))
    assert torch.isfinite(first).all() and torch.equal(first, again)
    for one, another in ((plain, first), (first, other), (first, together), (other, together)):
        assert not torch.equal(one, another)


@all_kinds
@both_ways
def test_the_incoming_model_stays_bit_exact_and_clean(world, kind, way):
    model = world.models[kind]
    before = world.sample(model)
    options = copy.deepcopy(model.model_options)
    world.sample(world.steered(kind, way))
    assert torch.equal(world.sample(model), before)
    assert model.model_options == options and not model.wrappers


@both_ways
@pytest.mark.parametrize("dials", [dict(strength=0.0), dict(start_percent=0.5, end_percent=0.5)])
def test_nothing_to_do_hands_on_the_very_same_model(world, way, dials):
    assert world.steered("flux", way, **dials) is world.models["flux"]
    empty = SimpleNamespace(images=lambda: [])
    out = world.inject.InjectReferences.execute(world.models["flux"], references=empty, **DIALS)
    assert out.result[0] is world.models["flux"] and "no references" in out.result[1]


@all_kinds
@both_ways
def test_outside_the_window_a_call_is_bit_exact(world, kind, way):
    model = world.models[kind]
    late = world.steered(kind, way, start_percent=0.5)
    border = float(model.get_model_object("model_sampling").percent_to_sigma(0.5))
    assert torch.equal(world.call(late, sigma=border + 0.01), world.call(model, sigma=border + 0.01))
    assert not torch.equal(world.call(late, sigma=border - 0.01), world.call(model, sigma=border - 0.01))
