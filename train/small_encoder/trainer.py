"""Trains the small dual encoder: symmetric InfoNCE between photos and sentences; every true sentence is a positive.

The front of the image tower stays MobileNet's. Its outputs for several augmented views of each photo are cached, and
the rest is trained on those.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from realrag.encoders.small_net import SmallDualEncoder
from realrag.files import canonical_json, sha256_bytes
from realrag.native_bf16 import bf16_autocast

from ..loop.checkpoint import training_key
from ..loop.schedule import warmup_cosine
from ..loop.trainer import AveragedTraining
from .captioned_photos import PhotoSet, every_text, is_true, sample_text
from .views import to_features


@dataclass(frozen=True)
class EncoderConfig:
    """The settings, chosen on the val split. They are written into the metadata of the weights."""

    seed: int = 0
    left_out: int = 0  # grocery classes kept out of training, to measure unseen names
    left_out_seed: int = 7
    noise: float = 0.0  # fraction of photos whose caption names a wrong class, to leave headroom
    noise_seed: int = 7
    size: int = 192  # a quarter cheaper than 224, and MobileNet finds as many val photos with it
    cut: int = 6  # first trained block: the five of 512 channels and the two of 1024
    views: int = 10  # augmented views a photo; view 0, the plain one, is for measuring
    epochs: int = 24  # val mAP 0.84, after 14 it was 0.83
    batch: int = 128
    tower_rate: float = 2e-4  # the pretrained blocks
    new_rate: float = 2e-3  # projection and text tower, which start from random weights
    weight_decay: float = 0.05
    warm_up: float = 0.1  # fraction of all steps
    temperature: float = 0.07
    feature_dropout: float = 0.2
    token_dropout: float = 0.2
    coarse_rate: float = 0.15
    description_rate: float = 0.15
    averaging: float = 0.99  # decay of the weights' moving average, which is what is written
    dim: int = 256
    buckets: int = 16384
    text_width: int = 96
    bf16: bool = True

    def model_config(self, mean: float, std: float) -> dict[str, Any]:
        preprocess = {
            "size": self.size,
            "mode": "squash",
            "interpolation": "bicubic",
            "mean": [mean] * 3,
            "std": [std] * 3,
        }
        return {
            "name": "realrag-small", "dim": self.dim, "width": 1.0, "buckets": self.buckets,
            "text_width": self.text_width, "preprocess": preprocess,
        }  # fmt: skip


def info_nce(scores: Tensor, positive: Tensor) -> Tensor:
    """Mean over rows of -log p(positive), each against the row's negatives alone, so that no two positives compete.

    scores (R, C) are cosines over temperature, positive (R, C) bools. Rows without a positive do not count."""
    negatives = scores.masked_fill(positive, -1e4).logsumexp(1, keepdim=True)
    each = F.softplus(negatives - scores)  # -log(e^s / (e^s + sum of e^negatives))
    count = positive.sum(1)
    return ((each * positive).sum(1) / count.clamp_min(1)).sum() / (count > 0).sum().clamp_min(1)


def pair_loss(photos: Tensor, texts: Tensor, positive: Tensor, temperature: float) -> Tensor:
    """photos (B, D) and texts (M, D) raw, positive (B, M): photo -> text and text -> photo, half each."""
    scores = F.normalize(photos, dim=1) @ F.normalize(texts, dim=1).T / temperature
    return (info_nce(scores, positive) + info_nce(scores.T, positive.T)) / 2


VALIDATE_EPOCHS = 3  # epochs between two measurements on the validation photos


class EncoderTraining(AveragedTraining):
    """views: for each augmented view the cached features of every photo, (N, h, w, C) uint8. validate: called with the
    averaged model every VALIDATE_EPOCHS epochs; what it returns is logged."""

    def __init__(
        self, model: SmallDualEncoder, config: EncoderConfig, data: PhotoSet, views: list[np.ndarray],
        validate: Callable[[SmallDualEncoder], dict[str, float]] = lambda model: {},
    ):  # fmt: skip
        self.config, self.data, self.views, self.validate = config, data, views, validate
        self.steps_each_epoch = math.ceil(len(data.photos) / config.batch)
        self.rows = torch.tensor(data.group_rows())
        self.known_tokens = model.tokenize(every_text(data.groups)).unique()
        tower = list(model.mobilenet.blocks[config.cut :].parameters())
        new = [*model.projection.parameters(), *model.text.parameters()]
        model.requires_grad_(False)
        for weight in (*tower, *new):
            weight.requires_grad_(True)
        groups = [
            {"params": tower, "lr_multiplier": config.tower_rate},
            {"params": new, "lr_multiplier": config.new_rate},
        ]
        optimizer = torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=config.weight_decay)
        super().__init__(
            model, steps=config.epochs * self.steps_each_epoch, seed=config.seed, clip=1.0, averaging=config.averaging,
            optimizer=optimizer,
        )  # fmt: skip
        trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
        self.average = {name: weight for name, weight in self.average.items() if name in trained}

    @property
    def key(self) -> str:
        """Names the settings, photos and captions of the training."""
        photos = sha256_bytes(canonical_json([[photo.path.name, photo.group] for photo in self.data.photos]))
        return training_key({"config": asdict(self.config), "photos or captions": photos})

    @staticmethod
    def key_of(metadata: dict[str, str]) -> str:
        return training_key({"config": json.loads(metadata["config"]), "photos or captions": metadata["photos"]})

    def lr(self) -> float:
        """The fraction of each group's highest learning rate."""
        return warmup_cosine(self.step, self.steps, self.config.warm_up * self.steps)

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Cached features (B, C, h, w), tokens (M, T) of one sentence per group, and which is true of which (B, M)."""
        epoch, place = divmod(self.step, self.steps_each_epoch)
        order = np.random.default_rng((self.config.seed, epoch)).permutation(len(self.data.photos))
        rows = np.sort(order[place * self.config.batch : (place + 1) * self.config.batch])
        features = to_features(self.views[epoch % len(self.views)][rows])
        rng, groups = random.Random(f"{self.config.seed}/{self.step}"), self.data.groups
        sampled = [sample_text(group, rng, self.config.coarse_rate, self.config.description_rate) for group in groups]
        true = torch.tensor(
            [
                [is_true(phrase, own, other) for own, (_, phrase) in zip(groups, sampled, strict=True)]
                for other in groups
            ]
        )
        return features, self.model.tokenize([text for text, _ in sampled]), true[self.rows[rows]]

    def loss(self) -> tuple[Tensor, dict[str, float]]:
        config, model = self.config, self.model
        features, tokens, positive = self.batch()
        torch.manual_seed(config.seed * 1_000_003 + self.step)  # dropout
        with bf16_autocast("cpu", config.bf16):
            pooled = model.mobilenet.back(features, config.cut).float().mean((2, 3))
        photos = model.projection(F.dropout(pooled, config.feature_dropout))
        texts = model.text_tower(tokens * (torch.rand(tokens.shape) >= config.token_dropout))
        return pair_loss(photos, texts, positive, config.temperature), {}

    @property
    def epoch(self) -> int:
        return self.step // self.steps_each_epoch

    @property
    def measured(self) -> bool:
        """An epoch has just ended."""
        return bool(self.step) and self.step % self.steps_each_epoch == 0

    def figures(self) -> dict[str, float]:
        figures = {"epoch": self.step / self.steps_each_epoch, **super().figures()}
        if self.measured and self.epoch % VALIDATE_EPOCHS == 0:
            figures |= {f"val {name}": value for name, value in self.validate(self.averaged()).items()}
        return figures

    def averaged(self) -> SmallDualEncoder:
        """A model with the averaged weights, whose text embedding is zero for tokens that no training sentence has."""
        model = SmallDualEncoder(self.model.config)
        model.load_state_dict({**self.model.state_dict(), **self.average})
        model.text.silence(self.known_tokens)
        return model.to(memory_format=torch.channels_last).eval()

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        tensors, metadata = super().state()
        photos = json.loads(self.key)["photos or captions"]
        return tensors, {**metadata, "config": json.dumps(asdict(self.config)), "photos": photos}
