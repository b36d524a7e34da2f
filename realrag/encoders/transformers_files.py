"""Reads and writes CLIP and SigLIP files in transformers' format, and builds the modules that they fill."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..errors import EncoderError, brief
from .preprocess import Preprocess
from .transformers_layout import Layout, Tower, canonical, is_transformers

WEIGHTS, INDEX, CONFIG, PIXELS = (
    "model.safetensors", "model.safetensors.index.json", "config.json", "preprocessor_config.json",
)  # fmt: skip
MOST_CONFIG = 1 << 22  # bytes; an index names some hundred tensors
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
RESAMPLING = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers, as preprocessor_config.json has them


def is_folder(path: Path) -> bool:
    names = (WEIGHTS, INDEX)
    return path.is_dir() and any((path / name).is_file() for name in names)


def is_file(path: Path) -> bool:
    """Whether a safetensors file holds a CLIP or SigLIP of transformers, by the names in its header."""
    try:
        with safe_open(path, "pt") as file:
            return is_transformers(file.keys())
    except Exception:  # not safetensors: loading it raises
        return False


def build(layout: Layout) -> tuple[nn.Module, nn.Module | None, nn.Module, nn.Module]:
    """The towers and projections, without values (on the meta device)."""
    try:
        import transformers
    except Exception as error:  # a broken wheel fails in many ways
        raise EncoderError(
            f"A file of transformers' format needs transformers, which does not import here ({brief(error)}). Install it "
            "with `pip install transformers`."
        ) from error
    clip = layout.family == "clip"
    kind = "CLIP" if clip else "Siglip"

    def config(part: str, tower: Tower, **more):
        return getattr(transformers, f"{kind}{part}Config")(
            hidden_size=tower.width, num_hidden_layers=tower.layers, num_attention_heads=tower.heads,
            intermediate_size=tower.mlp, hidden_act=tower.activation, layer_norm_eps=tower.eps, **more,
        )  # fmt: skip

    with torch.device("meta"):
        pixels = config("Vision", layout.vision, image_size=layout.image, patch_size=layout.patch)
        vision = getattr(transformers, f"{kind}VisionModel")(pixels)
        text: nn.Module | None = None
        visual_projection: nn.Module = nn.Identity()
        text_projection: nn.Module = nn.Identity()
        if clip and layout.projection:
            visual_projection = nn.Linear(layout.vision.width, layout.dim, bias=False)
        if layout.text is not None:
            more: dict[str, Any] = {"vocab_size": layout.vocabulary, "max_position_embeddings": layout.context}
            if clip:
                more |= {
                    "bos_token_id": layout.vocabulary - 2,
                    "eos_token_id": layout.vocabulary - 1,
                    "pad_token_id": 1,
                }
                text_projection = nn.Linear(layout.text.width, layout.dim, bias=False)
            else:
                more |= {"projection_size": layout.dim}
            text = getattr(transformers, f"{kind}TextModel")(config("Text", layout.text, **more))
    return vision, text, visual_projection, text_projection


def weight_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    index = read_json(path / INDEX)
    if index is None:
        return [path / WEIGHTS]
    named = index.get("weight_map")
    names = (
        sorted(set(named.values()))
        if isinstance(named, Mapping) and all(isinstance(n, str) for n in named.values())
        else []
    )
    if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
        raise EncoderError(f"{path / INDEX} names no safetensors files beside it. Download it again.")
    return [path / name for name in names]


def read_tensors(files: Iterable[Path]) -> dict[str, Tensor]:
    """Canonical names -> tensors."""
    tensors: dict[str, Tensor] = {}
    for path in files:
        try:
            with safe_open(path, "pt") as file:
                for key in file.keys():
                    if (name := canonical(key)) is not None:
                        tensors[name] = file.get_tensor(key)
        except Exception as error:  # safetensors has its own error, the file system many
            raise EncoderError(f"{path} cannot be read as safetensors ({brief(error)}). Download it again.") from error
    return tensors


def read_json(path: Path) -> dict | None:
    """A small JSON object, or None where there is none."""
    try:
        if path.stat().st_size > MOST_CONFIG:
            return None
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def preprocess_of(layout: Layout, config: Mapping[str, Any] | None) -> Preprocess:
    """From preprocessor_config.json where there is one, else as the family's published models have it."""
    clip, second = layout.family == "clip", layout.tokenizer == "gemma"
    mean, std = (CLIP_MEAN, CLIP_STD) if clip else ((0.5,) * 3, (0.5,) * 3)
    resampling = "bilinear" if second else "bicubic"
    if config is None:
        return Preprocess(layout.image, "crop" if clip else "squash", resampling, mean, std)
    mode = "crop" if config.get("do_center_crop", clip) else "squash"
    resampling = RESAMPLING.get(config.get("resample", 0), resampling)
    try:
        return Preprocess(layout.image, mode, resampling, config.get("image_mean", mean), config.get("image_std", std))
    except (TypeError, ValueError) as error:
        raise EncoderError(f"preprocessor_config.json is not usable ({brief(error)}). Download it again.") from None


def pixels_of(preprocess: Preprocess) -> dict[str, Any]:
    """preprocessor_config.json for what `preprocess_of` reads, and transformers too."""
    size, crop = preprocess.size, preprocess.mode == "crop"
    square = {"height": size, "width": size}
    return {
        "do_center_crop": crop, "crop_size": square, "size": {"shortest_edge": size} if crop else square, "do_resize": True,
        "do_normalize": True, "do_rescale": True, "image_mean": list(preprocess.mean), "image_std": list(preprocess.std),
        "resample": {name: number for number, name in RESAMPLING.items()}[preprocess.interpolation],
        "image_processor_type": "CLIPImageProcessor" if crop else "SiglipImageProcessor",
    }  # fmt: skip


def config_of(layout: Layout) -> dict[str, Any]:
    """config.json for what `read_layout` reads, and transformers too."""

    def part(tower: Tower, **more) -> dict[str, Any]:
        return {
            "hidden_size": tower.width, "num_hidden_layers": tower.layers, "num_attention_heads": tower.heads,
            "intermediate_size": tower.mlp, "hidden_act": tower.activation, "layer_norm_eps": tower.eps, **more,
        }  # fmt: skip

    vision = part(layout.vision, image_size=layout.image, patch_size=layout.patch)
    content: dict[str, Any] = {"model_type": layout.family, "vision_config": vision}
    if layout.text is not None:
        context = {"vocab_size": layout.vocabulary, "max_position_embeddings": layout.context}
        last = {"projection_dim": layout.dim} if layout.family == "clip" else {"projection_size": layout.dim}
        content["text_config"] = part(layout.text, **context, **last)
    if layout.family == "clip":
        content["projection_dim"] = layout.dim
    return content
