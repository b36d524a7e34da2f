"""Miniatures of random weights, in the layouts and under the names of those that ship.

As a script: python miniature_files.py COMFYUI_FOLDER PACK_FOLDER puts a copy of this pack there that holds them.
"""

import sys
from pathlib import Path

import tiny_models
import torch
from comfy_server import ROOT

STATE, POOLED = 96, 256  # widths of the text tower's states and of its answer
FLUX = {
    **tiny_models.FLUX, "vec_in_dim": POOLED, "context_in_dim": STATE, "depth": 2, "depth_single_blocks": 4,
    "guidance_embed": False,
}  # fmt: skip
SD3 = {
    **tiny_models.SD3, "depth": 4, "adm_in_channels": POOLED, "num_patches": 8 * 8, "pos_embed_max_size": 8,
    "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": STATE, "out_features": 256}},
}  # fmt: skip


def write(folder: Path) -> None:
    """{sd3,flux,autoencoder}.safetensors, in fp16 as shipped."""
    from comfy.ldm.flux.model import Flux
    from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper as MMDiT
    from safetensors.torch import save_file

    flux = {**FLUX, **{key: value for key, value in tiny_models.flux_config().items() if key not in FLUX}}
    nets = {
        "sd3": tiny_models.weights_of(MMDiT, SD3),
        "flux": {k.replace("_norm.weight", "_norm.scale"): v for k, v in tiny_models.weights_of(Flux, flux).items()},
        "autoencoder": {k: v for k, v in tiny_models.autoencoder().state_dict().items() if k.startswith("taesd_")},
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, weights in nets.items():
        half = {key: value.to(torch.float16).contiguous() for key, value in weights.items()}
        save_file(half, folder / f"{name}.safetensors")


def pack_with_random_miniatures(pack: Path) -> None:
    """This pack by links, file for file, but with generators and an autoencoder of random weights."""
    miniatures = Path("realrag/assets/miniature")
    for folder in (Path("."), *(path for path in reversed(miniatures.parents) if path.name)):
        (pack / folder).mkdir(parents=True, exist_ok=True)
        for item in (ROOT / folder).iterdir():
            if folder / item.name not in (miniatures, *miniatures.parents) and item.name[0] != ".":
                (pack / folder / item.name).symlink_to(item)
    write(pack / miniatures)
    for adapter in (ROOT / miniatures).glob("*_adapter.safetensors"):
        (pack / miniatures / adapter.name).symlink_to(adapter)


if __name__ == "__main__":
    tiny_models.import_comfyui(sys.argv[1])
    pack_with_random_miniatures(Path(sys.argv[2]))
