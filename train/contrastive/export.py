"""Writes a tuned encoder for other programs: as open_clip's `local-dir:`, or as a CLIPModel of transformers."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from realrag.encoders.base import Encoder
from realrag.encoders.load import load_encoder
from realrag.encoders.open_clip import OpenClipEncoder
from realrag.encoders.transformers_encoder import TransformersEncoder
from realrag.encoders.transformers_files import CONFIG, PIXELS, WEIGHTS, pixels_of
from realrag.errors import EncoderError, RealRAGError
from realrag.files import fsync_folder

FORMATS = ("open_clip", "transformers")
# open_clip's name -> transformers', of a vision or text transformer; those of its blocks below
OUTSIDE = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm", "visual.ln_post": "vision_model.post_layernorm",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm", "logit_scale": "logit_scale",
}  # fmt: skip
BLOCK = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
         "attn.out_proj": "self_attn.out_proj"}  # fmt: skip
PROJECTED = {"visual.proj": "visual_projection.weight", "text_projection": "text_projection.weight"}  # transposed
EOS = 49407  # of CLIP's vocabulary


def export(encoder: Encoder, kind: str, out: Path) -> Path:
    """Write `encoder` as the folder `out`, whole or not at all. RealRAGError if it cannot be written in that format."""
    if out.exists():
        raise RealRAGError(f"{out} is there. Give --out a new folder.")
    own = {"open_clip": OpenClipEncoder, "transformers": TransformersEncoder}
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    if isinstance(encoder, own[kind]):
        encoder.save_pretrained(part)
    elif kind == "transformers" and isinstance(encoder, OpenClipEncoder):
        _write_clip_model(encoder, part)
    else:
        known = " or ".join(name for name, of in own.items() if isinstance(encoder, of)) or "neither of them"
        raise EncoderError(
            f"{encoder.name} is no encoder that can be written for {kind}. It can be written for: {known}. An encoder that is "
            "made for another program is trained from that program's own, such as --encoder ViT-B-32:openai."
        )
    fsync_folder(part)
    os.replace(part, out)
    fsync_folder(out.parent)
    return out


def _write_clip_model(encoder: OpenClipEncoder, folder: Path) -> None:
    state = encoder.towers.state_dict()
    config = _clip_config(encoder)
    folder.mkdir(parents=True)
    save_file(renamed(state, encoder.name), folder / WEIGHTS, {"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True))
    (folder / PIXELS).write_text(json.dumps(pixels_of(encoder.preprocess), indent=1, sort_keys=True))


def renamed(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """open_clip's tensors of a CLIP with two plain transformers, as transformers' CLIPModel calls them. EncoderError for
    another model."""
    found = {}
    for key, tensor in state.items():
        if key.endswith("attn_mask"):
            continue
        side, _, rest = key.removeprefix("visual.").partition("transformer.resblocks.")
        if rest and not side:
            number, _, inner = rest.partition(".")
            prefix = f"{'vision' if key.startswith('visual.') else 'text'}_model.encoder.layers.{number}."
            if inner.startswith("attn.in_proj_"):
                kind = inner.removeprefix("attn.in_proj_")
                for part, chunk in zip("qkv", tensor.chunk(3), strict=True):
                    found[f"{prefix}self_attn.{part}_proj.{kind}"] = chunk.clone().contiguous()
                continue
            stem, _, kind = inner.rpartition(".")
            new = BLOCK.get(stem) and f"{prefix}{BLOCK[stem]}.{kind}"
        elif key in PROJECTED:
            new, tensor = PROJECTED[key], tensor.T
        else:
            stem, _, kind = key.rpartition(".")
            new = OUTSIDE.get(key) or (stem in OUTSIDE and f"{OUTSIDE[stem]}.{kind}")
        if not new:
            raise EncoderError(
                f"{name} holds {key}, which transformers' CLIPModel has no place for: only CLIPs of two plain transformers can be "
                "written for it. Write it for open_clip."
            )
        found[new] = tensor.detach().clone().contiguous()
    return found


def _clip_config(encoder: OpenClipEncoder) -> dict:
    shapes = {name: tuple(tensor.shape) for name, tensor in encoder.towers.state_dict().items()}
    config, activation = encoder._config, "quick_gelu" if encoder._config.get("quick_gelu") else "gelu"
    vision, text = config["vision_cfg"], config["text_cfg"]

    def tower(prefix: str, width: int, heads: int) -> dict:
        layers = {
            name.split(".resblocks.")[1].split(".")[0]
            for name in shapes
            if name.startswith(f"{prefix}transformer.resblocks.")
        }
        wide = shapes[f"{prefix}transformer.resblocks.0.mlp.c_fc.weight"][0]
        return {"hidden_size": width, "num_hidden_layers": len(layers), "num_attention_heads": heads, "intermediate_size": wide,
                "hidden_act": activation, "projection_dim": config["embed_dim"], "layer_norm_eps": 1e-5}  # fmt: skip

    if "visual.conv1.weight" not in shapes or "text_projection" not in shapes:
        raise EncoderError(f"{encoder.name} is no CLIP of two plain transformers. Write it for open_clip.")
    width, _, patch, _ = shapes["visual.conv1.weight"]
    words, positions = shapes["token_embedding.weight"], shapes["positional_embedding"]
    return {
        "architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": config["embed_dim"],
        "vision_config": tower("visual.", width, width // vision.get("head_width", 64))
        | {"image_size": encoder.preprocess.size, "patch_size": patch, "model_type": "clip_vision_model"},
        "text_config": tower("", words[1], text.get("heads", 8))
        | {"vocab_size": words[0], "max_position_embeddings": positions[0], "model_type": "clip_text_model",
           "bos_token_id": EOS - 1, "eos_token_id": EOS, "pad_token_id": 0},
    }  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("encoder", metavar="ENCODER", help="the folder of a tuned encoder, or another encoder")
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")


def run(arguments: argparse.Namespace, log: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    with torch.inference_mode():
        export(load_encoder(arguments.encoder), arguments.format, arguments.out)
    how = {
        "open_clip": f'open_clip.create_model("local-dir:{arguments.out}")',
        "transformers": f'CLIPModel.from_pretrained("{arguments.out}"), with the tokenizer of openai/clip-vit-base-patch32 where '
        "the folder has none",
    }
    log(f"wrote {arguments.out}: {how[arguments.format]}")
