"""The miniature models against ComfyUI's own classes, loaded by its own loaders from a plain save of our weights."""

from __future__ import annotations

import pytest
import torch
from tiny_miniature import filled

from realrag.miniature.autoencoder import Autoencoder
from realrag.miniature.flux import Flux, FluxConfig
from realrag.miniature.sampling import FAMILIES, sample, sigmas
from realrag.miniature.sd3 import SD3, SD3Config

TIGHT = 1e-5
SMALL = {
    "sd3": lambda: SD3(SD3Config(depth=2, context=24, pooled=20, grid=12)),
    "flux": lambda: Flux(FluxConfig(double=1, single=2, context=24, pooled=20)),
}


def comfyui_model(ours):
    """A ModelPatcher by detection; before 0.10 ComfyUI took every Flux for one of the full size, so there it is built."""
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy.sd
    import comfy.supported_models
    from comfy.ldm.flux.model import FluxParams

    state = {name: value.clone() for name, value in ours.state_dict().items()}
    if ours.family == "flux" and "txt_ids_dims" not in FluxParams.__dataclass_fields__:
        config = ours.config
        settings = comfy.supported_models.FluxSchnell({
            "image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2, "vec_in_dim": config.pooled,
            "context_in_dim": config.context, "hidden_size": config.width, "mlp_ratio": 4.0, "num_heads": config.width // 128,
            "depth": config.double, "depth_single_blocks": config.single, "axes_dim": [16, 56, 56], "theta": 10000,
            "qkv_bias": True, "guidance_embed": False,
        })  # fmt: skip
        settings.set_inference_dtype(torch.float32, None)
        built = settings.get_model(state, "")
        built.load_model_weights(state, "")
        model = comfy.model_patcher.ModelPatcher(built, management.get_torch_device(), management.unet_offload_device())
    else:
        model = comfy.sd.load_diffusion_model_state_dict(state, model_options={"dtype": torch.float32})
    assert model is not None
    return model


@pytest.fixture(params=sorted(SMALL))
def pair(request, comfyui):
    import tiny_models

    tiny_models.import_comfyui(comfyui)
    torch.set_num_threads(1)
    with torch.inference_mode():
        ours = filled(SMALL[request.param]())
        yield ours, comfyui_model(ours)


def texts(rows, seed=3):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 5, 24, generator=rng), torch.randn(rows, 20, generator=rng)


def near(found, wanted):
    assert found.shape == wanted.shape and (found - wanted).norm() / wanted.norm() < TIGHT


def test_the_velocity_is_comfyuis(pair):
    ours, theirs = pair
    x = torch.randn(2, 16, 12, 8, generator=torch.Generator().manual_seed(2))
    sigma, (states, pooled) = torch.tensor([0.83, 0.21]), texts(2)
    denoised = theirs.model.apply_model(x, sigma, c_crossattn=states, y=pooled)
    near((x - denoised) / sigma[:, None, None, None], ours(x, sigma, states, pooled))
    assert (x - denoised).norm() > 0.1 * x.norm()


def test_nothing_of_our_weights_is_missing_or_left_over_there(pair):
    ours, theirs = pair
    count = sum(value.numel() for value in ours.state_dict().values())
    assert count == sum(value.numel() for value in theirs.model.diffusion_model.state_dict().values())


def test_noise_levels_and_sampling_are_comfyuis(pair):
    import comfy.sample
    import comfy.samplers

    ours, theirs = pair
    family = FAMILIES[ours.family]
    schedule = comfy.samplers.calculate_sigmas(theirs.get_model_object("model_sampling"), "simple", 7)
    assert torch.allclose(sigmas(7, family.time_shift), schedule, atol=1e-6)
    noise = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(5))
    (yes, yes_pooled), (no, no_pooled) = texts(1, 3), texts(1, 4)
    found = comfy.sample.sample(
        theirs, noise, 4, 3.0, "euler", "simple", [[yes, {"pooled_output": yes_pooled}]],
        [[no, {"pooled_output": no_pooled}]], torch.zeros_like(noise), denoise=1.0, seed=0,
    )  # fmt: skip
    made = sample(ours, noise, (yes, yes_pooled), (no, no_pooled), steps=4, cfg=3.0)
    near(found, made / family.latent_scale + family.latent_shift)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_autoencoder_is_the_one_that_comfyui_loads(name, comfyui):
    import tiny_models

    tiny_models.import_comfyui(comfyui)
    import comfy.sd

    family = FAMILIES[name]
    with torch.inference_mode():
        ours = filled(Autoencoder())
        for module in ours.modules():
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(
                    module.weight, generator=torch.Generator().manual_seed(module.in_channels)
                ).mul_(0.6)
        vae = comfy.sd.VAE(sd=ours.state_for(family.latent_scale, family.latent_shift), dtype=torch.float32)
        images = torch.rand(1, 32, 24, 3, generator=torch.Generator().manual_seed(2))
        latents = ours.encode(images.movedim(-1, 1))
        near(vae.encode(images), latents / family.latent_scale + family.latent_shift)
        pictures = vae.decode(latents / family.latent_scale + family.latent_shift)
        near(pictures, ours.decode(latents).movedim(1, -1))
        assert 0.05 < pictures.std()
