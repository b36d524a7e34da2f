"""The network of the small dual encoder that ships with RealRAG: MobileNet V1 (arXiv 1704.04861) for photos; for texts
a bag of hashed words and character n-grams (fastText, arXiv 1607.04606). Pure torch, no vocabulary file, no downloads."""

from __future__ import annotations

import json
import unicodedata
import zlib
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import artifact
from ..errors import EncoderError, brief
from ..validation import strict_json
from .carried import check_shapes, check_small_config
from .fused import conv, in_cache

FORMAT, VERSION = "realrag-small-encoder", "1"
CURE = "Download it again, or train it again."

# (channels out, stride) of the thirteen depthwise-separable blocks at width 1.0; before them a 3x3 stem to 32 channels.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)) + 5 * ((512, 1),) + ((1024, 2), (1024, 1))

LONGEST_WORD = 32  # letters; the rest of a longer word only adds tokens
MOST_TOKENS = 1024  # a prompt of about 80 words


# Photos


class SeparableBlock(nn.Module):
    """Depthwise 3x3 convolution, then 1x1 across channels, ReLU6 after both. Batch norm is folded in."""

    def __init__(self, channels_in: int, channels_out: int, stride: int):
        super().__init__()
        self.depthwise = nn.Conv2d(channels_in, channels_in, 3, stride, groups=channels_in)
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return conv(conv(x, self.depthwise, same=True), self.pointwise)


class MobileNet(nn.Module):
    """(B, 3, S, S) normalized -> (B, C, S/32, S/32). Split into `front` and `back`, so that training can cache between."""

    def __init__(self, width: float = 1.0):
        super().__init__()
        channels = [max(8, int(width * c)) for c in (32, *(c for c, _ in BLOCKS))]
        self.stem = nn.Conv2d(3, channels[0], 3, 2)
        self.blocks = nn.ModuleList(
            SeparableBlock(channels[i], channels[i + 1], stride) for i, (_, stride) in enumerate(BLOCKS)
        )
        self.channels = channels

    def front(self, x: Tensor, cut: int) -> Tensor:
        """The stem and the blocks before `cut`. Channels-last, the fastest layout for depthwise convolutions on a CPU."""
        x = conv(x.contiguous(memory_format=torch.channels_last), self.stem, same=True)
        for block in self.blocks[:cut]:
            x = block(x)
        return x

    def back(self, x: Tensor, cut: int) -> Tensor:
        for block in self.blocks[cut:]:
            x = block(x)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return in_cache(lambda part: self.back(self.front(part, 0), 0), x)


# Texts


def words(text: str) -> list[str]:
    """Lower-case words without accents, split at punctuation, "-" and "_": "Crème-Fraîche!" -> ["creme", "fraiche"]."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text).casefold() if not unicodedata.combining(c))
    return "".join(c if c.isalnum() else " " for c in plain).split()


def pieces(word: str) -> list[str]:
    """The word and its n-grams of 3 to 5 letters, with "<" and ">" as its ends. An unknown word shares some with known
    words."""
    marked = f"<{word[:LONGEST_WORD]}>"
    return [marked] + [marked[i : i + n] for n in (3, 4, 5) for i in range(len(marked) - n + 1) if n < len(marked)]


def tokens_of(text: str, buckets: int) -> list[int]:
    """Hash of every piece, 1 .. buckets - 1. 0 is padding."""
    hashed = (
        1 + zlib.crc32(piece.encode("utf-8", "replace")) % (buckets - 1)
        for word in words(text)
        for piece in pieces(word)
    )
    return list(islice(hashed, MOST_TOKENS))


class TextTower(nn.Module):
    """(B, T) tokens -> (B, D): mean of the token embeddings, weighted by a learned salience, then a two-layer MLP."""

    def __init__(self, buckets: int, width: int, dim: int):
        super().__init__()
        self.embedding = nn.Embedding(buckets, width, padding_idx=0)
        self.salience = nn.Embedding(buckets, 1, padding_idx=0)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, dim))
        nn.init.zeros_(self.salience.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        known = (tokens != 0).unsqueeze(-1)  # (B, T, 1)
        weight = self.salience(tokens).exp() * known
        weight = weight / weight.sum(1, keepdim=True).clamp_min(1e-6)  # no token at all: the zero vector
        return self.mlp((weight * self.embedding(tokens)).sum(1))

    @torch.no_grad()
    def silence(self, heard: Tensor) -> None:
        """Mute all tokens that training did not use (`heard`), so that an unknown word hardly blurs the known ones."""
        unheard = torch.ones(len(self.embedding.weight), dtype=torch.bool)
        unheard[heard] = False
        self.embedding.weight[unheard], self.salience.weight[unheard] = 0.0, -4.0


# Both


class SmallDualEncoder(nn.Module):
    """The two towers. `config` rebuilds them: dim, width, buckets, text_width and, for the caller, preprocess. `tuned`:
    the file's metadata about the encoder it was trained from, if any."""

    def __init__(self, config: dict[str, Any]):
        super().__init__()
        self.config = config
        self.tuned: dict[str, Any] = {}
        self.mobilenet = MobileNet(config["width"])
        self.projection = nn.Linear(self.mobilenet.channels[-1], config["dim"])
        self.text = TextTower(config["buckets"], config["text_width"], config["dim"])

    def pool(self, features: Tensor) -> Tensor:
        """(B, C, h, w) of the last block -> (B, D)."""
        return self.projection(features.mean((2, 3)))

    def image_tower(self, x: Tensor) -> Tensor:
        """(B, 3, S, S) float, normalized by config["preprocess"] -> (B, D), not of unit length."""
        return self.pool(self.mobilenet(x))

    def text_tower(self, tokens: Tensor) -> Tensor:
        """(B, T) int64 from `tokenize` -> (B, D), not of unit length."""
        return self.text(tokens)

    def tokenize(self, texts: list[str]) -> Tensor:
        """Any texts -> (B, T) int64, padded to the longest; T is at least 1."""
        rows = [tokens_of(text, self.config["buckets"]) for text in texts]
        length = max([1, *map(len, rows)])
        return torch.tensor([row + [0] * (length - len(row)) for row in rows], dtype=torch.int64).reshape(
            len(rows), length
        )


def save_small_encoder(
    model: SmallDualEncoder, path: Path, about: dict[str, Any] | None = None, tuned: dict[str, Any] | None = None
) -> None:
    """Write fp16 weights, with the config, the training (`about`) and the base encoder (`tuned`) as JSON metadata."""
    state = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    metadata = {"format": FORMAT, "version": VERSION, "config": json.dumps(model.config, sort_keys=True)}
    if about:
        metadata["training"] = json.dumps(about, sort_keys=True)
    if tuned:
        metadata["tuned"] = json.dumps(tuned, sort_keys=True)
    artifact.write(path, state, metadata)


def load_small_encoder(path: Path) -> SmallDualEncoder:
    """Load in fp32 and eval mode. Raises EncoderError when the file is not a small encoder of this version."""
    state, metadata = artifact.read(path, FORMAT, VERSION, "a small encoder", CURE, error=EncoderError)
    try:
        config = strict_json(metadata["config"].encode())
        check_small_config(path, config)
        shapes = {name: tuple(value.shape) for name, value in state.items()}
        model = check_shapes(path, lambda: SmallDualEncoder(config), shapes)
        model.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
        model.tuned = dict(strict_json(metadata.get("tuned", "{}").encode()))
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise EncoderError(f"{path} does not hold the weights its config describes ({brief(error)}). {CURE}") from error
    return model.to(memory_format=torch.channels_last).eval()
