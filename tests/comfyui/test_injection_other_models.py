"""The paths for models beside Flux and SD3, sampled on tiny ones of ComfyUI's own classes, against core's own nodes."""

from __future__ import annotations

import pytest
import torch
from injection_world import DIALS, Vae, Vision, conditioning, photo
from tiny_parts import KINDS, other_model


def model(kind: str):
    import comfy.supported_models

    if not hasattr(comfy.supported_models, kind):
        pytest.skip(f"this ComfyUI has no {kind}")
    return other_model(kind)


def prompt(kind: str, seed: int = 0) -> list:
    [[text, _]] = conditioning(seed)
    table = {"pooled_output": torch.randn(1, KINDS[kind][2], generator=torch.Generator().manual_seed(seed))}
    table |= {"attention_mask": torch.ones(1, 7, dtype=torch.long)} if kind == "Omnigen2" else {}
    return [[text, table]]


class OwnVae:
    """Latents in the shape that the model's own VAE gives."""

    def __init__(self, kind: str):
        self.shape = KINDS[kind][1]

    def encode(self, pixels):
        latent = Vae().encode(pixels)
        if len(self.shape) == 5:
            return latent[:, :, None]
        if self.shape[1] == 16:
            return latent
        return torch.nn.functional.pixel_unshuffle(latent, 2).repeat(1, 2, 1, 1)  # 128 channels, half the size


def picture(model, kind: str, positive: list) -> torch.Tensor:
    import comfy.sample

    noise = torch.randn(KINDS[kind][1], generator=torch.Generator().manual_seed(3))
    out = comfy.sample.sample(
        model, noise, 2, 2.0, "euler", "simple", positive, prompt(kind, 1), torch.zeros_like(noise), denoise=1.0,
        disable_pbar=True, seed=3,
    )  # fmt: skip
    assert torch.isfinite(out).all()
    return out


def inject(world, model, kind: str, **inputs) -> tuple:
    images = torch.cat((photo(1), photo(2)))
    out = world.inject.InjectReferences.execute(
        model, image=images, conditioning=prompt(kind), **{**DIALS, **inputs}
    ).result
    assert out[0] is model
    return out[:3]


@pytest.mark.parametrize("kind, chosen", [("Omnigen2", "auto"), ("Flux2", "auto"), ("QwenImage", "reference latents")])
def test_edit_models_paint_as_with_cores_reference_latent_nodes(world, kind, chosen):
    from comfy_extras.nodes_edit_model import ReferenceLatent

    net = model(kind)
    _, report, ours = inject(world, net, kind, vae=OwnVae(kind), path=chosen)
    assert "Path: reference latents" in report
    theirs = prompt(kind)
    for seed in (1, 2):
        latent = {"samples": OwnVae(kind).encode(photo(seed))}
        theirs = ReferenceLatent.execute(theirs, latent).result[0]
    steered = picture(net, kind, ours)
    assert torch.equal(steered, picture(net, kind, theirs))
    assert not torch.allclose(steered, picture(net, kind, prompt(kind)), atol=1e-3)


@pytest.mark.parametrize("kind, width", [("SDXL", 1280), ("SD21UnclipL", 768), ("SD21UnclipH", 1024)])
def test_sdxl_and_sd21_paint_as_with_cores_unclip_nodes(world, kind, width):
    from nodes import unCLIPConditioning

    net, vision = model(kind), Vision()
    vision.width = width
    _, report, ours = inject(world, net, kind, clip_vision=vision, strength=0.7)
    assert "Path: image embeddings" in report
    theirs = prompt(kind)
    for seed in (1, 2):
        (theirs,) = unCLIPConditioning().apply_adm(theirs, vision.encode_image(photo(seed)), 0.35, 0.0)
    steered = picture(net, kind, ours)
    assert torch.equal(steered, picture(net, kind, theirs))
    assert not torch.allclose(steered, picture(net, kind, prompt(kind)), atol=1e-3)
    vision.width = width - 8
    with pytest.raises(world.adapter_error, match=f"width {width}, but .* gives width {width - 8}"):
        inject(world, net, kind, clip_vision=vision)


def test_flux2_without_a_prompt_says_what_to_connect(world):
    net = model("Flux2")
    image = photo(1, 64, 64)
    steered, report = world.inject.InjectReferences.execute(net, image=image, vae=OwnVae("Flux2"), **DIALS).result[:2]
    assert "Path: shared attention" in report and "connect conditioning too, and FLUX.2 takes" in report
    plain = picture(net, "Flux2", prompt("Flux2"))
    assert not torch.allclose(picture(steered, "Flux2", prompt("Flux2")), plain, atol=1e-3)
