"""Where hooks cannot reach the model, `auto` takes a way that needs none; initial latents can be chosen by hand too."""

from __future__ import annotations

import pytest
import torch
from controls_world import edited, retrieved
from injection_world import DIALS, Vae, Vision, conditioning, photo
from test_injection_prompt import redux_parts

EMPTY = {"samples": torch.zeros(2, 16, 5, 9), "batch_index": [0, 1]}


@pytest.fixture
def foreign(world):
    """A Flux whose network is another pack's class, without any of the parts that hooks need."""
    patcher = world.models["flux"].clone()
    net = type("NunchakuTransformer", (torch.nn.Module,), {"__module__": "nunchaku.models"})()
    own = patcher.model.diffusion_model
    patcher.model.diffusion_model = net
    yield patcher
    patcher.model.diffusion_model = own


def execute(world, model, **inputs):
    inputs = {"image": photo(1), **DIALS, **inputs}
    return world.inject.InjectReferences.execute(model, **inputs).result[:4]


def photos_latent(image=None):
    """The slow twin: scale to cover 72 x 40 pixels, cut the middle out, encode."""
    image = photo(1) if image is None else image  # 64 x 48: covers 72 x 54
    scaled = torch.nn.functional.interpolate(image.movedim(-1, 1), (54, 72), mode="bicubic")
    return Vae().encode(scaled[:, :, 7:47].movedim(1, -1).clamp(0, 1))


def test_a_foreign_network_starts_from_the_first_reference(world, foreign):
    model, report, _, latent = execute(world, foreign, vae=Vae(), latent=EMPTY)
    assert model is foreign and not EMPTY["samples"].any()
    assert latent["samples"].shape == (2, 16, 5, 9) and latent["batch_index"] == [0, 1]
    assert torch.equal(latent["samples"][0], latent["samples"][1])
    assert (latent["samples"][:1] - photos_latent()).norm() < 0.1 * photos_latent().norm()
    assert "Path: initial latents, because" in report and "nunchaku.models" in report and "0.6 to 0.85" in report


def test_an_adapter_that_needs_hooks_gives_way_too(world, foreign):
    parts = dict(adapter=world.adapter("flux"), clip_vision=Vision(), vae=Vae(), latent=EMPTY)
    assert "initial latents" in execute(world, foreign, **parts)[1]


def test_redux_comes_before_initial_latents_as_it_needs_no_hooks(world, foreign):
    parts = dict(**redux_parts(world), conditioning=conditioning(0), vae=Vae(), latent=EMPTY)
    model, report, prompt, latent = execute(world, foreign, **parts)
    assert model is foreign and latent is EMPTY and prompt[0][0].shape[1] > 7
    assert "Path: adapter" in report and "no hooks" in report and "Flux Redux" in report


@pytest.mark.parametrize("parts", [{}, {"vae": Vae()}, {"latent": EMPTY}])
def test_without_any_such_way_the_cure_is_said(world, foreign, parts):
    with pytest.raises(world.adapter_error, match=r"own loader.*connect vae and latent.*Redux"):
        execute(world, foreign, **parts)


def test_initial_latents_can_be_chosen_and_sampled_from(world):
    import comfy.sample

    plain = world.models["flux"]
    model, report, _, latent = execute(world, plain, vae=Vae(), latent=EMPTY, path="initial latents")
    assert model is plain and "you chose it" in report

    def sampled(start, denoise):
        noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(3))
        prompts = conditioning(0), conditioning(1)
        return comfy.sample.sample(
            plain, noise, 4, 1.0, "euler", "simple", *prompts, start, denoise=denoise, disable_pbar=True, seed=3
        )

    out = sampled(latent["samples"], 0.7)
    assert torch.isfinite(out).all() and not torch.equal(out, sampled(EMPTY["samples"], 0.7))
    with pytest.raises(world.adapter_error, match="needs latent"):
        execute(world, plain, vae=Vae(), path="initial latents")


def test_the_first_shown_reference_counts(world):
    references = edited(world, retrieved(world, 1, 2), 1, negative=True)
    parts = dict(image=None, vae=Vae(), latent=EMPTY, path="initial latents")
    _, report, _, latent = execute(world, world.models["flux"], references=references, **parts)
    alone = execute(world, world.models["flux"], references=retrieved(world, 2), **parts)[3]
    assert "Reference 2 is" in report and torch.equal(latent["samples"], alone["samples"])
    nobody = execute(
        world, world.models["flux"], references=edited(world, retrieved(world, 1), 1, negative=True), **parts
    )
    assert nobody[3] is EMPTY and "Nothing goes in" in nobody[1]


def test_a_vae_of_another_size_is_refused(world):
    class Coarse(Vae):
        def encode(self, pixels):
            return super().encode(pixels)[:, :, ::2, ::2]

    with pytest.raises(world.adapter_error, match="belong to this model"):
        execute(world, world.models["flux"], vae=Coarse(), latent=EMPTY, path="initial latents")


def test_other_paths_hand_the_latent_through(world):
    assert execute(world, world.models["flux"], vae=Vae(), latent=EMPTY)[3] is EMPTY
    assert execute(world, world.models["flux"], vae=Vae(), latent=EMPTY, strength=0.0)[3] is EMPTY
    stopped = execute(world, world.models["flux"], vae=Vae())[3]
    assert "connect an empty latent" in stopped.message


def test_a_file_of_xlabs_v1_is_said_to_need_true_cfg(world):
    parts = dict(adapter=world.adapter("flux"), clip_vision=Vision())
    assert "true CFG: set cfg to about 4" in execute(world, world.models["flux"], **parts)[1]
    assert "true CFG" not in execute(world, world.models["flux"], vae=Vae())[1]
