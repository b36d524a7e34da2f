"""Trains the second tail of `realrag-general` on named photos: the last blocks of EfficientNet-Lite0, trained further to
tell the classes apart. What the trunk gives for a few views of each photo is cached, so only the tail runs."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realrag.encoders.efficientnet_lite import Tail, Trunk
from realrag.encoders.preprocess import Preprocess

from ..small_encoder.captioned_photos import Photo, PhotoSet
from ..small_encoder.views import augmented_view, open_photo

MEAN, STD = 127 / 255, 128 / 255  # of EfficientNet-Lite's input
PREPROCESS = Preprocess(224, "crop", "bicubic", (MEAN,) * 3, (STD,) * 3)
BATCH = 32  # photos at once through the trunk


@dataclass(frozen=True)
class TailConfig:
    """The settings; what was compared, was compared on the val split."""

    seed: int = 0
    views: int = 4  # view 0 is the plain one; each is mirrored half the time
    epochs: int = 6  # with 10, val mAP fell from 0.874 after the fifth to 0.861
    batch: int = 64
    dim: int = 256
    tower_lr: float = 3e-4  # the blocks, which were trained on ImageNet
    new_lr: float = 2e-3  # the projection and the classes, which start from random weights
    weight_decay: float = 0.05
    temperature: float = 1 / 16
    smoothing: float = 0.05
    coarse: float = 0.3  # weight of the loss over coarse classes
    dropout: float = 0.2
    averaging: float = 0.99


class TaughtTail(nn.Module):
    """The tail, its projection, and one vector for each class and coarse class."""

    def __init__(self, start: dict[str, Tensor], config: TailConfig, classes: int, coarse: int):
        super().__init__()
        self.tail = Tail()
        self.tail.load_state_dict(start)
        self.projection = nn.Linear(self.tail.dim, config.dim)
        self.classes = nn.Parameter(0.06 * torch.randn(classes, config.dim))
        self.coarse = nn.Parameter(0.06 * torch.randn(coarse, config.dim))

    def forward(self, x: Tensor, window: Tensor, dropout: float = 0.0) -> Tensor:
        """What the trunk gives (B, C, h, w) -> (B, dim) of unit length."""
        pooled = (self.tail(x) * (window[:, None] * window)).sum((2, 3))
        return F.normalize(self.projection(F.dropout(pooled, dropout, self.training)), dim=1)


@torch.inference_mode()
def trunk_outputs(trunk: Trunk, data: PhotoSet, view: int, seed: int, cache: Path) -> np.ndarray:
    """(N, h, w, C) fp16 of one view of each photo, from the file `cache`, which is written once."""
    if not cache.is_file():
        chunks = []
        for start in range(0, len(data.photos), BATCH):
            pixels = torch.stack([_pixels(photo, view, seed) for photo in data.photos[start : start + BATCH]])
            chunks.append(trunk(PREPROCESS.normalize(pixels, torch.float32)).permute(0, 2, 3, 1).half().numpy())
        cache.parent.mkdir(parents=True, exist_ok=True)
        part = cache.with_suffix(".part")
        with open(part, "wb") as file:
            np.save(file, np.concatenate(chunks), allow_pickle=False)
        part.replace(cache)
    return np.load(cache, mmap_mode="r", allow_pickle=False)


def _pixels(photo: Photo, view: int, seed: int) -> Tensor:
    """View 0 is the plain one."""
    image = open_photo(photo.path, PREPROCESS.size)
    if view:
        image = augmented_view(image, PREPROCESS.size, random.Random(f"{seed}/{view}/{photo.group}/{photo.path.name}"))
    return PREPROCESS.pixels(image)


def to_maps(stored: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(stored, np.float32)).permute(0, 3, 1, 2)


def train_tail(
    config: TailConfig, start: dict[str, Tensor], data: PhotoSet, views: list[np.ndarray], window: Tensor,
    left_out: tuple[str, ...] = (), log: Callable[[int, TaughtTail], None] = lambda epoch, tail: None,
) -> TaughtTail:  # fmt: skip
    """The averaged tail. left_out: names of classes whose photos are not looked at. log(epoch, averaged tail)."""
    torch.manual_seed(config.seed)
    rows, names = torch.tensor(data.group_rows()), sorted({group.coarse for group in data.groups})
    coarse = torch.tensor([names.index(group.coarse) for group in data.groups])
    taught = torch.tensor([group.name not in left_out for group in data.groups])
    photos = torch.nonzero(taught[rows]).squeeze(1)
    model = TaughtTail(start, config, len(data.groups), len(names)).to(memory_format=torch.channels_last)
    averaged = {name: value.detach().clone() for name, value in model.state_dict().items()}
    tower = list(model.tail.parameters())
    new = [*model.projection.parameters(), model.classes, model.coarse]
    optimizer = torch.optim.AdamW(
        [{"params": tower, "lr": config.tower_lr}, {"params": new, "lr": config.new_lr}],
        betas=(0.9, 0.98), weight_decay=config.weight_decay,
    )  # fmt: skip
    steps = config.epochs * (len(photos) // config.batch)
    shape = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, step / (0.1 * steps)) * (0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    step = 0
    for epoch in range(config.epochs):
        order = photos[torch.randperm(len(photos))]
        for at in range(0, len(order) - config.batch + 1, config.batch):
            chosen = order[at : at + config.batch]
            view = torch.randint(len(views), (config.batch,)).tolist()
            x = to_maps(np.stack([views[number][row] for number, row in zip(view, chosen.tolist(), strict=True)]))
            mirrored = torch.rand(config.batch) < 0.5
            x[mirrored] = x[mirrored].flip(3)
            found = model.train()(x.contiguous(memory_format=torch.channels_last), window, config.dropout)
            fine = (found @ F.normalize(model.classes, dim=1).T / config.temperature).masked_fill(~taught, -1e4)
            wide = found @ F.normalize(model.coarse, dim=1).T / config.temperature
            loss = F.cross_entropy(fine, rows[chosen], label_smoothing=config.smoothing)
            loss = loss + config.coarse * F.cross_entropy(wide, coarse[rows[chosen]])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            shape.step()
            step += 1
            weight = 1 - min(config.averaging, step / (step + 10))
            for name, value in model.state_dict().items():
                averaged[name].lerp_(value, weight)
        best = TaughtTail(start, config, len(data.groups), len(names)).to(memory_format=torch.channels_last)
        best.load_state_dict(averaged)
        log(epoch, best.eval())
    return best
