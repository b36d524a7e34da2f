"""Tiny random Flux, SD3 and SD3.5 Medium models made through ComfyUI's own classes, in memory or as checkpoint files.

As a script: python tiny_models.py COMFYUI_FOLDER MODELS_FOLDER writes what ComfyUI's own loaders read.
"""

import sys
from pathlib import Path

import torch

TEXT_WIDTH, POOLED_WIDTH = 64, 32
FLUX = dict(
    in_channels=16, out_channels=16, vec_in_dim=POOLED_WIDTH, context_in_dim=TEXT_WIDTH, hidden_size=256, mlp_ratio=4.0,
    num_heads=2, depth=2, depth_single_blocks=2, axes_dim=[16, 56, 56], theta=10000, patch_size=2, qkv_bias=True,
    guidance_embed=True,
)  # fmt: skip
SD3 = dict(
    input_size=None, patch_size=2, in_channels=16, depth=2, adm_in_channels=POOLED_WIDTH, out_channels=16,
    num_patches=32 * 32, pos_embed_max_size=32,
    context_embedder_config={
        "target": "torch.nn.Linear", "params": {"in_features": TEXT_WIDTH, "out_features": 128},
    },
)  # fmt: skip
SD35 = dict(qk_norm="rms")  # as SD3.5 Large, in small
SD35_MEDIUM = dict(qk_norm="rms", x_block_self_attn_layers=[0])


def import_comfyui(folder) -> None:
    """Put one ComfyUI on the path of this process, for the CPU. A process can only ever import one."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    import comfy.options

    argv, sys.argv = sys.argv, [sys.argv[0], "--cpu"]
    comfy.options.enable_args_parsing()
    import comfy.model_management

    sys.argv = argv


def filled(shapes: dict[str, torch.Size], seed: int, norms: float) -> dict[str, torch.Tensor]:
    """Random weights, as ComfyUI's layers start as uninitialised memory. `norms`: spread of norm weights round 1."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for key, shape in shapes.items():
        is_norm = key.endswith(("norm.weight", "norm.scale", "ln_q.weight", "ln_k.weight"))
        spread = torch.randn(shape, generator=generator)
        weights[key] = 1 + spread * norms if is_norm else spread * 0.05
    return weights


def flux_config() -> dict:
    from comfy.ldm.flux.model import FluxParams

    return {**FLUX, **({"txt_ids_dims": []} if "txt_ids_dims" in FluxParams.__dataclass_fields__ else {})}


def weights_of(net_class, config: dict, seed: int = 0, norms: float = 0.0) -> dict[str, torch.Tensor]:
    import comfy.ops

    net = net_class(dtype=torch.float32, device="meta", operations=comfy.ops.disable_weight_init, **config)
    return filled({key: tensor.shape for key, tensor in net.state_dict().items()}, seed, norms)


def model(kind: str, dtype: torch.dtype = torch.float32, seed: int = 0, norms: float = 0.3):
    """A ModelPatcher of "flux", "sd3", "sd35" (Large's layout) or "sd35m"."""
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy.supported_models
    from comfy.ldm.flux.model import Flux
    from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper as MMDiT

    if kind == "flux":
        net, config, family = Flux, flux_config(), comfy.supported_models.Flux
        config_in = {"image_model": "flux", **config}
    else:
        config = {**SD3, **{"sd3": {}, "sd35": SD35, "sd35m": SD35_MEDIUM}[kind]}
        net, config_in, family = MMDiT, config, comfy.supported_models.SD3
    settings = family(dict(config_in))
    settings.set_inference_dtype(dtype, None)
    built = settings.get_model({}, "")
    weights = weights_of(net, config, seed, norms)
    missing, unexpected = built.diffusion_model.load_state_dict(weights, strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    return comfy.model_patcher.ModelPatcher(built, management.get_torch_device(), management.unet_offload_device())


def autoencoder(seed: int = 0):
    """A TAESD with random weights that neither vanish nor saturate."""
    from comfy.taesd.taesd import TAESD

    torch.manual_seed(seed)
    net = TAESD(None, None, latent_channels=16)
    convolutions = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    with torch.no_grad():
        for layer in convolutions:
            torch.nn.init.kaiming_normal_(layer.weight).mul_(0.6)
            if layer.bias is not None:
                layer.bias.zero_()
        last = [m for m in net.taesd_decoder.modules() if isinstance(m, torch.nn.Conv2d)][-1]
        last.bias.fill_(0.5)
        last.weight.mul_(0.15)
    return net


def write(models: Path) -> None:
    """diffusion_models/tiny_{flux,sd3,sd35m}.safetensors and vae_approx/{taef1,taesd3}_{en,de}coder.safetensors"""
    from comfy.ldm.flux.model import Flux
    from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper as MMDiT
    from safetensors.torch import save_file

    nets = {
        # Published Flux files say `scale` where newer ComfyUI says `weight`; every version reads `scale`.
        "tiny_flux": {k.replace("_norm.weight", "_norm.scale"): v for k, v in weights_of(Flux, flux_config()).items()},
        "tiny_sd3": weights_of(MMDiT, SD3),
        "tiny_sd35m": weights_of(MMDiT, {**SD3, **SD35_MEDIUM}),
    }
    for folder in ("diffusion_models", "vae_approx"):
        (models / folder).mkdir(parents=True, exist_ok=True)
    for name, weights in nets.items():
        save_file(weights, models / "diffusion_models" / f"{name}.safetensors")
    tae = autoencoder()
    for name in ("taef1", "taesd3"):
        for part in ("encoder", "decoder"):
            weights = getattr(tae, f"taesd_{part}").state_dict()
            save_file(
                {k: v.contiguous() for k, v in weights.items()}, models / "vae_approx" / f"{name}_{part}.safetensors"
            )


if __name__ == "__main__":
    import_comfyui(sys.argv[1])
    write(Path(sys.argv[2]))
