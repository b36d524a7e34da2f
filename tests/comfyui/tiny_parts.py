"""Tiny parts beside tests/comfyui/tiny_models.py, of ComfyUI's own classes with random weights or made up: other models, ControlNets,
text encoders, autoencoders, vision models. They stand where a graph loads full-sized ones."""

from __future__ import annotations

from types import SimpleNamespace

import tiny_models
import torch

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


NOT_IN_CONTROLNET = {"out_channels", "transformer_depth_output"}


def other_model(kind: str):
    """A ModelPatcher of one of KINDS. AttributeError where this ComfyUI has no such model."""
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy.supported_models

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


def controlnet(kind):
    """A ControlNet for this kind of model: as core's loaders put XLabs' Flux and the diffusers SD3 ControlNet together; they size full-size files alone."""
    import comfy.cldm.cldm
    import comfy.cldm.mmdit
    import comfy.controlnet
    import comfy.latent_formats
    import comfy.ldm.flux.controlnet

    if kind == "flux":
        config = {**tiny_models.flux_config(), "depth": 1, "depth_single_blocks": 0}
        return comfy.controlnet.ControlNet(
            built(comfy.ldm.flux.controlnet.ControlNetFlux, config), extra_conds=["y", "guidance"]
        )
    if kind == "SDXL":
        config = {key: value for key, value in KINDS["SDXL"][0].items() if key not in NOT_IN_CONTROLNET}
        return comfy.controlnet.ControlNet(built(comfy.cldm.cldm.ControlNet, {**config, "hint_channels": 3}))
    config = {**tiny_models.SD3, "num_blocks": 2, "control_latent_channels": 16}
    latents = comfy.latent_formats.SD3()
    latents.shift_factor = 0
    return comfy.controlnet.ControlNet(
        built(comfy.cldm.mmdit.ControlNet, config), compression_ratio=1, latent_format=latents
    )


def built(net_class, config):
    import comfy.ops

    net = net_class(dtype=torch.float32, operations=comfy.ops.disable_weight_init, **config)
    net.load_state_dict(tiny_models.weights_of(net_class, config, seed=7))
    return net


class Text:
    """Stands for a text encoder: random rows that depend on the text."""

    def __init__(self, pooled: int):
        self.pooled = pooled

    def tokenize(self, text: str, **_options) -> str:
        return text

    def encode_from_tokens_scheduled(self, tokens: str, **_options) -> list:
        generator = torch.Generator().manual_seed(len(tokens) + sum(map(ord, tokens)))
        context = torch.randn(1, 12, tiny_models.TEXT_WIDTH, generator=generator)
        return [[context, {"pooled_output": torch.randn(1, self.pooled, generator=generator)}]]


class Vae:
    """Stands for an autoencoder: each channel is a color, a square of `factor` pixels is one place."""

    def __init__(self, channels: int, factor: int):
        self.latent_channels, self.factor = channels, factor
        self.downscale_ratio = self.upscale_ratio = factor

    def spacial_compression_encode(self) -> int:
        return self.factor

    spacial_compression_decode = spacial_compression_encode

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        small = torch.nn.functional.avg_pool2d(pixels[..., :3].movedim(-1, 1), self.factor)
        return ((small - 0.5) * 2).repeat(1, -(-self.latent_channels // 3), 1, 1)[:, : self.latent_channels]

    def decode(self, latent: torch.Tensor, **_options) -> torch.Tensor:
        colors = (latent[:, :3].float() * 0.25 + 0.5).clamp(0, 1)
        return torch.nn.functional.interpolate(colors, scale_factor=self.factor).movedim(1, -1).cpu()


class Vision:
    """Stands for CLIP Vision: numbers off the picture's colors, of any width; nine places in its hidden states."""

    def __init__(self, width: int = 24):
        self.width = width

    def encode_image(self, image: torch.Tensor, crop: bool = True) -> SimpleNamespace:
        colors = torch.nn.functional.adaptive_avg_pool2d(image[..., :3].movedim(-1, 1), (2, 4))  # (B, 3, 2, 4)
        embeds = ((colors.flatten(1) - 0.5) * 4).repeat(1, -(-self.width // 24))[:, : self.width]
        hidden = embeds[:, None] * torch.linspace(0.5, 1.5, 9)[:, None]  # (B, 9, width)
        return SimpleNamespace(image_embeds=embeds, penultimate_hidden_states=hidden, last_hidden_state=hidden)
