"""Trains the small dual encoder: symmetric InfoNCE between photos and sentences, where all that is true is positive.

The front of the image tower stays MobileNet's; its answers to several augmented views of each photo are cached, and the
rest is trained on those. Every step draws its randomness from (seed, step), so a resumed run is the same run, bit by
bit on the same machine with the same versions and number of threads."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from realrag.encoders.small_net import SmallDualEncoder
from realrag.files import canonical_json, sha256_bytes
from realrag.native_bf16 import bf16_autocast

from .captioned_photos import PhotoSet, every_text, is_true, sample_text
from .views import to_features


@dataclass(frozen=True)
class EncoderConfig:
    """The knobs, chosen on the val split. They are written into the weights."""

    seed: int = 0
    left_out: int = 0  # grocery classes kept out of training, to measure unseen names
    left_out_seed: int = 7
    noise: float = 0.0  # share of photos whose caption names a wrong class, for an encoder that leaves headroom
    noise_seed: int = 7
    size: int = 192  # a quarter cheaper than 224, and MobileNet finds as many val photos with it
    cut: int = 6  # first trained block: the five of 512 channels and the two of 1024
    views: int = 10  # augmented views a photo; view 0, the plain one, is for measuring
    epochs: int = 24  # val mAP 0.84, after 14 it was 0.83
    batch: int = 128
    tower_rate: float = 2e-4  # the pretrained blocks
    new_rate: float = 2e-3  # projection and text tower, which start from nothing
    weight_decay: float = 0.05
    warm_up: float = 0.1  # share of all steps
    temperature: float = 0.07
    feature_dropout: float = 0.2
    token_dropout: float = 0.2
    coarse_rate: float = 0.15
    description_rate: float = 0.15
    averaging: float = 0.99  # of the weights over steps; the average is what is kept
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


class Training:
    """The model, its optimiser, its average and the number of the next step: what a checkpoint holds."""

    def __init__(self, model: SmallDualEncoder, config: EncoderConfig, data: PhotoSet, views: list[np.ndarray]):
        self.model, self.config, self.data, self.views = model, config, data, views
        self.photos_sha256 = sha256_bytes(canonical_json([[p.path.name, p.group] for p in data.photos]))
        self.step, self.steps_each_epoch = 0, math.ceil(len(data.photos) / config.batch)
        self.steps = config.epochs * self.steps_each_epoch
        self.rows, self.heard = torch.tensor(data.group_rows()), model.tokenize(every_text(data.groups)).unique()
        tower = list(model.mobilenet.blocks[config.cut :].parameters())
        new = [*model.projection.parameters(), *model.text.parameters()]
        model.requires_grad_(False)
        for weight in (*tower, *new):
            weight.requires_grad_(True)
        groups = [{"params": tower, "rate": config.tower_rate}, {"params": new, "rate": config.new_rate}]
        self.optimiser = torch.optim.AdamW([g for g in groups if g["params"]], weight_decay=config.weight_decay)
        self.average = {
            name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad
        }

    def batch(self) -> tuple[Tensor, Tensor, Tensor]:
        """Cached features (B, C, h, w), tokens (M, T) of one sentence a group, and what is true of what (B, M)."""
        epoch, place = divmod(self.step, self.steps_each_epoch)
        order = np.random.default_rng((self.config.seed, epoch)).permutation(len(self.data.photos))
        chosen = np.sort(order[place * self.config.batch : (place + 1) * self.config.batch])
        features = to_features(self.views[epoch % len(self.views)][chosen])
        dice, groups = random.Random(f"{self.config.seed}/{self.step}"), self.data.groups
        said = [sample_text(group, dice, self.config.coarse_rate, self.config.description_rate) for group in groups]
        true = torch.tensor(
            [[is_true(phrase, own, other) for own, (_, phrase) in zip(groups, said, strict=True)] for other in groups]
        )
        return features, self.model.tokenize([text for text, _ in said]), true[self.rows[chosen]]

    def advance(self) -> float:
        """One step; returns its loss."""
        config, model = self.config, self.model
        features, tokens, positive = self.batch()
        torch.manual_seed(config.seed * 1_000_003 + self.step)  # dropout
        done = self.step / self.steps
        pace = min(1.0, (done + 1 / self.steps) / config.warm_up) * (1 + math.cos(math.pi * done)) / 2
        for group in self.optimiser.param_groups:
            group["lr"] = group["rate"] * pace
        with bf16_autocast("cpu", config.bf16):
            pooled = model.mobilenet.back(features, config.cut).float().mean((2, 3))
        photos = model.projection(F.dropout(pooled, config.feature_dropout))
        texts = model.text_tower(tokens * (torch.rand(tokens.shape) >= config.token_dropout))
        loss = pair_loss(photos, texts, positive, config.temperature)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([w for g in self.optimiser.param_groups for w in g["params"]], 1.0)
        self.optimiser.step()
        self.step += 1
        keep = min(config.averaging, self.step / (self.step + 9))  # short at first: the start is forgotten sooner
        for name, weight in model.named_parameters():
            if name in self.average:
                self.average[name].lerp_(weight.detach(), 1 - keep)
        return loss.item()

    def averaged(self) -> SmallDualEncoder:
        """A model with the averaged weights, silent where no sentence of the training reached."""
        model = SmallDualEncoder(self.model.config)
        model.load_state_dict({**self.model.state_dict(), **self.average})
        model.text.silence(self.heard)
        return model.to(memory_format=torch.channels_last).eval()

    def save(self, path: Path) -> None:
        state = {f"model.{name}": value.contiguous() for name, value in self.model.state_dict().items()}
        state |= {f"average.{name}": value.contiguous() for name, value in self.average.items()}
        for row, values in self.optimiser.state_dict()["state"].items():
            state |= {f"adam.{row}.{name}": value.contiguous() for name, value in values.items()}
        part = path.with_suffix(".part")
        about = {"step": str(self.step), "config": json.dumps(asdict(self.config)), "photos": self.photos_sha256}
        save_file(state, part, about)
        part.replace(path)

    def resume(self, path: Path) -> None:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            state = {name: file.get_tensor(name) for name in file.keys()}
        if (saved := json.loads(metadata["config"])) != asdict(self.config):
            raise SystemExit(f"{path} was made with other settings ({saved}). Delete it to begin anew.")
        if metadata.get("photos") != self.photos_sha256:
            raise SystemExit(f"{path} was made with other photos or captions. Delete it to begin anew.")

        def pick(prefix):
            return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}

        self.model.load_state_dict(pick("model."))
        self.average = pick("average.")
        adam: dict[int, dict[str, Tensor]] = {}
        for name, value in pick("adam.").items():
            row, key = name.split(".")
            adam.setdefault(int(row), {})[key] = value
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": adam})
        self.step = int(metadata["step"])

    def run(self) -> Iterator[tuple[int, float]]:
        """Trains to the end; after each epoch gives (epoch, its mean loss)."""
        losses = []
        while self.step < self.steps:
            losses.append(self.advance())
            if self.step % self.steps_each_epoch == 0:
                yield self.step // self.steps_each_epoch, sum(losses) / len(losses)
                losses = []
