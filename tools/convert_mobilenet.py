"""Converts MobileNet V1 from its quantized TFLite file to safetensors under the names of `realrag.encoders.small_net.MobileNet`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from realrag import artifact
from realrag.encoders.small_net import MobileNet

from .tflite import read_convolutions


def convert(tflite: Path, out: Path, width: float = 1.0) -> None:
    """Write `out`, with "mean" and "std" of the input for pixels in 0..1 in its metadata, from the input quantization."""
    layers, (scale, zero) = read_convolutions(tflite.read_bytes())
    model = MobileNet(width)
    names = ["stem"] + [f"blocks.{i}.{part}" for i in range(len(model.blocks)) for part in ("depthwise", "pointwise")]
    if len(layers) < len(names):
        raise ValueError(f"{tflite} has {len(layers)} convolutions, MobileNet V1 has {len(names)}")
    state = {}
    for name, layer in zip(names, layers, strict=False):  # layers after the blocks are ImageNet's classifier
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.from_numpy(layer.weight), torch.from_numpy(layer.bias)
    model.load_state_dict(state)
    # pixel 0..255 -> scale * (pixel - zero)
    metadata = {"mean": json.dumps(zero / 255), "std": json.dumps(1 / (255 * scale)), "source": tflite.name}
    artifact.write(out, state, metadata)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tflite", type=Path, help="mobilenet_v1_1.0_224_quant_embedding_extractor.tflite")
    parser.add_argument("--out", type=Path, required=True, help="safetensors to write")


def run(arguments: argparse.Namespace) -> None:
    convert(arguments.tflite, arguments.out)
    print(f"wrote {arguments.out}")
