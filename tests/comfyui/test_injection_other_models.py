"""The paths for models beside Flux and SD3, sampled on tiny ones of ComfyUI's own classes, against core's own nodes."""

from __future__ import annotations

import pytest
import tiny_models
import torch
from injection_world import DIALS, Vae, Vision, conditioning, photo

UNET = dict(
    image_size=32, in_channels=4, out_channels=4, model_channels=32, num_res_blocks=[1, 1], channel_mult=[1, 2],
    num_head_channels=16, transformer_depth=[0, 1], transformer_depth_output=[0, 0, 1, 1], transformer_depth_middle=1,
    use_spatial_transformer=True, use_linear_in_transformer=True, context_dim=64, legacy=False,
    num_classes="sequential", use_temporal_attention=False,
)  # fmt: skip
OMNIGEN2 = dict(
    image_model="omnigen2", patch_size=2, in_channels=16, hidden_size=128, num_layers=2, num_refiner_layers=1,
    num_attention_heads=4, num_kv_heads=2, multiple_of=32, axes_dim_rope=(8, 12, 12), axes_lens=(300, 100, 100),
    text_feat_dim=64, timestep_scale=1000.0,
)  # fmt: skip
QWEN = dict(
    image_model="qwen_image", in_channels=64, num_layers=2, num_attention_heads=2, attention_head_dim=128,
    joint_attention_dim=64,
)  # fmt: skip
FLUX2 = dict(
    image_model="flux2", in_channels=128, out_channels=128, patch_size=1, vec_in_dim=None, global_modulation=True,
    mlp_silu_act=True, qkv_bias=False, ops_bias=False, axes_dim=[32, 32, 32, 32], txt_ids_dims=[3], mlp_ratio=3.0,
    default_ref_method="index", ref_index_scale=10.0,
)  # fmt: skip
# ComfyUI's class in supported_models -> configuration, shape of a latent, width of the pooled prompt
KINDS = {
    "SDXL": ({**UNET, "adm_in_channels": 2816}, (1, 4, 8, 8), 1280),
    "SD21UnclipL": ({**UNET, "adm_in_channels": 1536}, (1, 4, 8, 8), 32),
    "SD21UnclipH": ({**UNET, "adm_in_channels": 2048}, (1, 4, 8, 8), 32),
    "Omnigen2": (OMNIGEN2, (1, 16, 6, 8), 32),
    "QwenImage": (QWEN, (1, 16, 1, 6, 8), 32),
    "Flux2": (FLUX2, (1, 128, 4, 4), 32),
}


def model(kind: str):
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy.supported_models

    if not hasattr(comfy.supported_models, kind):
        pytest.skip(f"this ComfyUI has no {kind}")
    config = KINDS[kind][0]
    config = {**tiny_models.flux_config(), **config} if kind == "Flux2" else config
    family = getattr(comfy.supported_models, kind)(dict(config))
    family.set_inference_dtype(torch.float32, None)
    built = family.get_model({}, "")
    generator = torch.Generator().manual_seed(0)
    for name, weight in built.diffusion_model.named_parameters():
        is_norm = weight.ndim == 1 and "norm" in name and name.endswith(("weight", "scale"))
        weight.copy_(torch.ones_like(weight) if is_norm else torch.randn(weight.shape, generator=generator) * 0.1)
    return comfy.model_patcher.ModelPatcher(built, management.get_torch_device(), management.unet_offload_device())


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
