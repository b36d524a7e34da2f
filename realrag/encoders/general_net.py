"""The networks of `realrag-general`: EfficientNet-Lite0 for photos, MiniLM for texts, and what brings them into one space.
Also its three files: the weights of the photo tower in fp16, those of MiniLM and the names in int8 with one scale a row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import artifact
from ..errors import EncoderError, brief
from ..validation import strict_json
from .carried import check_general_config, check_shapes
from .efficientnet_lite import Tail, Trunk
from .fused import in_cache
from .minilm import MiniLM
from .word_pieces import WordPieces

IMAGE_FORMAT, TEXT_FORMAT, NAMES_FORMAT = "realrag-general-image", "realrag-general-text", "realrag-general-names"
VERSION = "1"
CURE = "Download RealRAG again, or the bundle that carries it."
SCALE, NAMES = ".scale", "names."


class ImageTower(nn.Module):
    """(B, 3, S, S) normalized -> (B, D + E), two parts of fixed length: D numbers from the tail that ImageNet taught, of
    length 1, and E numbers from a tail that was trained further on named photos, of length `side`.

    The feature maps are averaged with the weights `window` along each side: the middle of a photo, where its subject is,
    counts more than the edge."""

    window: Tensor

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        width, cells = config["width"], -(-config["preprocess"]["size"] // 32)
        self.trunk, self.tail, self.taught_tail = Trunk(width), Tail(width), Tail(width)
        self.register_buffer("window", torch.full((cells,), 1 / cells))
        self.projection = nn.Linear(self.tail.dim, config["dim"] - config["taught_dim"], bias=False)
        self.taught_projection = nn.Linear(self.tail.dim, config["taught_dim"])
        self.side = config["side"]

    def pool(self, features: Tensor) -> Tensor:
        """(B, C, S/32, S/32) -> (B, C)."""
        window = self.window.to(features.dtype)
        return (features * (window[:, None] * window)).sum((2, 3))

    def join(self, general: Tensor, taught: Tensor) -> Tensor:
        """The pooled features of both tails -> (B, D + E)."""
        parts = F.normalize(self.projection(general), dim=1), F.normalize(self.taught_projection(taught), dim=1)
        return torch.cat([parts[0], self.side * parts[1]], 1)

    def forward(self, x: Tensor) -> Tensor:
        return in_cache(self._few, x)

    def _few(self, x: Tensor) -> Tensor:
        x = self.trunk(x)
        taught = self.pool(self.taught_tail(x))  # before the other, which may change x in place
        return self.join(self.pool(self.tail(x)), taught)


class Names(nn.Module):
    """Known texts (K, W), MiniLM's vectors of unit length, and the direction of each, a row of `targets` (M, D): the mean of
    the directions whose texts are near a given one."""

    SHARPNESS = 40.0  # times the cosine
    texts: Tensor
    targets: Tensor
    rows: Tensor

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.register_buffer("texts", torch.zeros(config["names"], config["text_width"]))
        self.register_buffer("targets", torch.zeros(config["name_targets"], config["dim"]))
        self.register_buffer("rows", torch.zeros(config["names"], dtype=torch.int16))

    def forward(self, x: Tensor) -> Tensor:
        """(B, W) of unit length -> (B, D) of unit length."""
        near = (self.SHARPNESS * (x @ self.texts.T)).softmax(1)
        return F.normalize(near @ self.targets[self.rows.long()], dim=1)


class TextTower(nn.Module):
    """(B, T) ids and where they are real -> (B, D): MiniLM, then the sum of the direction that a two-layer MLP gives and of
    that of the names near it. `vocabulary`: its word pieces, one a line, as bytes of UTF-8."""

    vocabulary: Tensor

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        width = config["text_width"]
        self.language = MiniLM(
            config["vocabulary"], width, config["layers"], config["heads"], config["wide"], config["positions"]
        )
        self.mlp = nn.Sequential(
            nn.Linear(width, config["hidden"]), nn.GELU(), nn.Linear(config["hidden"], config["dim"])
        )
        self.names = Names(config)
        self.register_buffer("vocabulary", torch.zeros(config["vocabulary_bytes"], dtype=torch.uint8))

    def forward(self, ids: Tensor, real: Tensor) -> Tensor:
        x = self.language(ids, real)
        return F.normalize(self.mlp(x), dim=1) + self.names(x)

    def pieces(self) -> WordPieces:
        lines = bytes(self.vocabulary.cpu().numpy()).decode("utf-8").split("\n")
        return WordPieces(lines, len(self.language.tokens.weight), len(self.language.positions.weight))


class GeneralDualEncoder(nn.Module):
    """The two towers, new ones unless they are given. `config` rebuilds them. `tuned`: the metadata about the encoder it was
    trained from, if any."""

    def __init__(self, config: dict[str, Any], towers: tuple[ImageTower, TextTower] | None = None):
        super().__init__()
        self.config = config
        self.tuned: dict[str, Any] = {}
        self.image, self.text = towers or (ImageTower(config), TextTower(config))


def is_quantized(name: str, tensor: Tensor) -> bool:
    """Whether a tensor of the text tower is stored in int8: MiniLM's matrices, and the names."""
    return name.startswith(("language.", NAMES)) and tensor.ndim == 2


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(N, M) -> int8 (N, M) and fp16 scales (N, 1). What `dequantize` gives is quantized to the same numbers again: a
    scale has 11 bits and a number 7, so their product is exact in fp32."""
    weight = weight.detach().float().cpu()
    scale = (weight.abs().amax(1, keepdim=True) / 127).half()
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    return (weight / scale.float()).round().clamp(-127, 127).to(torch.int8), scale


def dequantize(numbers: Tensor, scale: Tensor) -> Tensor:
    return numbers.float() * scale.float()


def save_general_encoder(
    model: GeneralDualEncoder, image: Path, text: Path, names: Path, about: dict[str, Any] | None = None
) -> None:
    """Write the three files. about: the training, as metadata."""
    metadata = {"version": VERSION, "config": json.dumps(model.config, sort_keys=True)}
    if about:
        metadata["training"] = json.dumps(about, sort_keys=True)
    if model.tuned:
        metadata["tuned"] = json.dumps(dict(model.tuned), sort_keys=True)
    state = {name: value.detach().cpu().half().contiguous() for name, value in model.image.state_dict().items()}
    artifact.write(image, state, {"format": IMAGE_FORMAT, **metadata})
    state = {}
    for name, value in model.text.state_dict().items():
        if is_quantized(name, value):
            state[name], state[name + SCALE] = quantize(value)
        else:
            value = value.detach().cpu()
            state[name] = (value.half() if value.is_floating_point() else value).contiguous()
    known = {name: value for name, value in state.items() if name.startswith(NAMES)}
    artifact.write(names, known, {"format": NAMES_FORMAT, **metadata})
    rest = {name: value for name, value in state.items() if name not in known}
    artifact.write(text, rest, {"format": TEXT_FORMAT, **metadata})


def load_general_encoder(image: Path, text: Path, names: Path) -> GeneralDualEncoder:
    """Load in fp32 and eval mode. EncoderError where the files are not those of one general encoder."""
    photos, metadata = artifact.read(image, IMAGE_FORMAT, VERSION, "a general encoder", CURE, error=EncoderError)
    texts, beside = artifact.read(text, TEXT_FORMAT, VERSION, "a general encoder", CURE, error=EncoderError)
    more, third = artifact.read(names, NAMES_FORMAT, VERSION, "a general encoder", CURE, error=EncoderError)
    try:
        config = strict_json(metadata["config"].encode())
        check_general_config(image, config)
        if any(strict_json(other["config"].encode()) != config for other in (beside, third)):
            raise EncoderError(
                f"{image.name}, {text.name} and {names.name} in {image.parent} are of two encoders. {CURE}"
            )
        if any(name.startswith(NAMES) for name in texts) or not all(name.startswith(NAMES) for name in more):
            raise ValueError("the names are in the wrong file")
        texts |= more
        plain = {name: tensor for name, tensor in texts.items() if not name.endswith(SCALE)}
        towers = (
            check_shapes(
                image, lambda: ImageTower(config), {name: tuple(value.shape) for name, value in photos.items()}
            ),
            check_shapes(text, lambda: TextTower(config), {name: tuple(value.shape) for name, value in plain.items()}),
        )
        for name, value in plain.items():
            if is_quantized(name, value):
                if value.dtype != torch.int8 or tuple(texts[name + SCALE].shape) != (len(value), 1):
                    raise ValueError(f"{name} is not int8 with a scale for each of its {len(value)} rows")
                plain[name] = dequantize(value, texts[name + SCALE])
        model = GeneralDualEncoder(config, towers)
        for tower, state in zip(towers, (photos, plain), strict=True):
            kinds = {name: tensor.dtype for name, tensor in tower.state_dict().items()}
            tower.load_state_dict({name: value.to(kinds[name]) for name, value in state.items()}, assign=True)
        model.tuned = dict(strict_json(metadata.get("tuned", "{}").encode()))
        model.text.pieces()
        rows = model.text.names.rows
        if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < config["name_targets"]:
            raise ValueError("a name points to a direction that is not there")
    except EncoderError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise EncoderError(
            f"{image.parent} does not hold the weights of a general encoder ({brief(error)}). {CURE}"
        ) from error
    return model.to(memory_format=torch.channels_last).eval()
