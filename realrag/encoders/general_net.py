"""The networks of `realrag-general`: EfficientNet-Lite0 for photos, MiniLM for texts, and what brings them into one space.
Also its two files: the weights of the photo tower in fp16, those of MiniLM in int8 with one scale a row."""

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
from .minilm import MiniLM
from .word_pieces import WordPieces

IMAGE_FORMAT, TEXT_FORMAT, VERSION = "realrag-general-image", "realrag-general-text", "1"
CURE = "Download RealRAG again, or the bundle that carries it."
SCALE = ".scale"


class ImageTower(nn.Module):
    """(B, 3, S, S) normalized -> (B, D + E), two parts of fixed length: D numbers from the tail that ImageNet taught, of
    length 1, and E numbers from a tail that was trained further on named photos, of length `side`.

    The feature maps are averaged with the weights `window` along each side: the middle of a photo, where its subject is,
    counts more than the edge."""

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
        x = self.trunk(x)
        taught = self.pool(self.taught_tail(x))  # before the other, which may change x in place
        return self.join(self.pool(self.tail(x)), taught)


class TextTower(nn.Module):
    """(B, T) ids and where they are real -> (B, D): MiniLM, then a two-layer MLP. `vocabulary`: its word pieces, one a line,
    as bytes of UTF-8."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        width = config["text_width"]
        self.language = MiniLM(
            config["vocabulary"], width, config["layers"], config["heads"], config["wide"], config["positions"]
        )
        self.mlp = nn.Sequential(
            nn.Linear(width, config["hidden"]), nn.GELU(), nn.Linear(config["hidden"], config["dim"])
        )
        self.register_buffer("vocabulary", torch.zeros(config["vocabulary_bytes"], dtype=torch.uint8))

    def forward(self, ids: Tensor, real: Tensor) -> Tensor:
        return self.mlp(self.language(ids, real))

    def pieces(self) -> WordPieces:
        lines = bytes(self.vocabulary.cpu().numpy()).decode("utf-8").split("\n")
        return WordPieces(lines, len(self.language.tokens.weight), len(self.language.positions.weight))


class GeneralDualEncoder(nn.Module):
    """The two towers. `config` rebuilds them. `tuned`: the metadata about the encoder it was trained from, if any."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.config, self.tuned = config, {}
        self.image, self.text = ImageTower(config), TextTower(config)


def is_quantized(name: str, tensor: Tensor) -> bool:
    """Whether a tensor of the text tower is stored in int8: MiniLM's matrices."""
    return name.startswith("language.") and tensor.ndim == 2


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
    model: GeneralDualEncoder, image: Path, text: Path, about: dict[str, Any] | None = None
) -> None:
    """Write the two files. about: the training, as metadata."""
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
    artifact.write(text, state, {"format": TEXT_FORMAT, **metadata})


def load_general_encoder(image: Path, text: Path) -> GeneralDualEncoder:
    """Load in fp32 and eval mode. EncoderError where the files are not the two of one general encoder."""
    photos, metadata = artifact.read(image, IMAGE_FORMAT, VERSION, "a general encoder", CURE, error=EncoderError)
    texts, beside = artifact.read(text, TEXT_FORMAT, VERSION, "a general encoder", CURE, error=EncoderError)
    try:
        config = strict_json(metadata["config"].encode())
        check_general_config(image, config)
        if strict_json(beside["config"].encode()) != config:
            raise EncoderError(f"{image.name} and {text.name} in {image.parent} are of two encoders. {CURE}")
        plain = {name: tensor for name, tensor in texts.items() if not name.endswith(SCALE)}
        check_shapes(image, lambda: ImageTower(config), {name: tuple(value.shape) for name, value in photos.items()})
        check_shapes(text, lambda: TextTower(config), {name: tuple(value.shape) for name, value in plain.items()})
        for name, value in plain.items():
            if is_quantized(name, value):
                if value.dtype != torch.int8 or tuple(texts[name + SCALE].shape) != (len(value), 1):
                    raise ValueError(f"{name} is not int8 with a scale for each of its {len(value)} rows")
                plain[name] = dequantize(value, texts[name + SCALE])
            elif value.is_floating_point():
                plain[name] = value.float()
        model = GeneralDualEncoder(config)
        model.image.load_state_dict({name: value.float() for name, value in photos.items()})
        model.text.load_state_dict(plain)
        model.tuned = dict(strict_json(metadata.get("tuned", "{}").encode()))
        model.text.pieces()
    except EncoderError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise EncoderError(
            f"{image.parent} does not hold the weights of a general encoder ({brief(error)}). {CURE}"
        ) from error
    return model.to(memory_format=torch.channels_last).eval()
