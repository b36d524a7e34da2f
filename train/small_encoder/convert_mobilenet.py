"""MobileNet V1 from its quantised TFLite file -> safetensors under the names of `realrag.encoders.small_net.MobileNet`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from realrag.encoders.small_net import MobileNet
from realrag.files import write_atomic

from .tflite import read_convolutions

HELP = "convert MobileNet V1 from TFLite, the start of the image tower"


def convert(tflite: Path, out: Path, width: float = 1.0) -> None:
    """Metadata: "mean" and "std" of the input for pixels of 0..1, from the file's own input quantisation."""
    layers, (scale, zero) = read_convolutions(tflite.read_bytes())
    model = MobileNet(width)
    names = ["stem"] + [f"blocks.{i}.{part}" for i in range(len(model.blocks)) for part in ("depthwise", "pointwise")]
    if len(layers) < len(names):
        raise ValueError(f"{tflite} has {len(layers)} convolutions, MobileNet V1 has {len(names)}")
    state = {}
    for name, layer in zip(
        names, layers, strict=True
    ):  # what follows the blocks, if anything, is ImageNet's classifier
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.from_numpy(layer.weight), torch.from_numpy(layer.bias)
    model.load_state_dict(state)
    # pixel 0..255 -> scale * (pixel - zero)
    words = {"mean": json.dumps(zero / 255), "std": json.dumps(1 / (255 * scale)), "source": tflite.name}
    write_atomic(out, save(state, words))


def load_mobilenet(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state dict and {"mean", "std", "source"} of a file made by `convert`."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}
    return state, {
        "mean": json.loads(metadata["mean"]),
        "std": json.loads(metadata["std"]),
        "source": metadata["source"],
    }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tflite", type=Path, help="mobilenet_v1_1.0_224_quant_embedding_extractor.tflite")
    parser.add_argument("--out", type=Path, required=True, help="safetensors to write")


def run(arguments: argparse.Namespace) -> None:
    convert(arguments.tflite, arguments.out)
    print(f"wrote {arguments.out}")
