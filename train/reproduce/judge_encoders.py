"""Judges of the experiment: encoders of pictures alone, which share no weights with a retriever or a generator.

`gradients` has nothing to learn. `cnn` is a small network taught from scratch on the judges' own photos."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realrag.encoders.base import Encoder
from realrag.encoders.preprocess import Preprocess
from realrag.errors import RealRAGError
from realrag.files import canonical_json, sha256_bytes, sorted_header, write_atomic
from realrag.photos.decode import decode, read_bytes

from ..small_encoder.captioned_photos import read_captioned

CELLS, TURNS = 8, 8


class PictureEncoder(Encoder):
    """An encoder without a text tower."""

    kind, has_text_tower = "judge", False


class GradientEncoder(PictureEncoder):
    """Histograms of oriented gradients in 8 x 8 cells (Dalal & Triggs 2005, without their overlapping blocks), and the
    mean colours of the cells: D = 8 x 8 x (8 + 3)."""

    name, dim = "gradients", CELLS * CELLS * (TURNS + 3)

    def __init__(self, size: int = 64):
        super().__init__()
        self.preprocess = Preprocess(size, "squash", "bilinear", (0, 0, 0), (1, 1, 1))
        self.weight = nn.Parameter(torch.ones(1), requires_grad=False)  # an encoder has a place

    def _images(self, x: Tensor) -> Tensor:
        grey = F.pad(x.mean(1, keepdim=True), (1, 1, 1, 1), "replicate")
        across, down = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2], grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
        strength, turn = (across**2 + down**2).sqrt(), torch.atan2(down, across) % math.pi
        place = turn / math.pi * TURNS
        # Each pixel's strength is shared between the two nearest directions.
        shares = torch.cat(
            [strength * (1 - ((place - i + TURNS / 2) % TURNS - TURNS / 2).abs()).clamp_min(0) for i in range(TURNS)], 1
        )
        cells = F.adaptive_avg_pool2d(shares, CELLS)
        cells = (cells / (cells.pow(2).sum(1, keepdim=True) + 1e-3).sqrt()).flatten(1)
        return self.weight * torch.cat(
            [cells, 2 * F.adaptive_avg_pool2d(x - x.mean((2, 3), keepdim=True), CELLS).flatten(1)], 1
        )


class CnnEncoder(PictureEncoder):
    """Four stages of two convolutions; the mean of the last one's answers, D = 8 x width, is the vector."""

    name = "cnn"

    def __init__(self, width: int = 24, size: int = 64):
        super().__init__()
        self.preprocess, self.width, self.dim = Preprocess(size, "squash", "bilinear"), width, 8 * width
        layers, channels = [], 3
        for stage in range(4):
            for step in range(2):
                wide = width << stage
                layers += [
                    nn.Conv2d(channels, wide, 3, 2 if step == 0 and stage else 1, 1, bias=False),
                    nn.BatchNorm2d(wide),
                    nn.ReLU(),
                ]
                channels = wide
        # The first layer halves the picture as well: fine detail of 64 pixels is kept by 32.
        layers[0] = nn.Conv2d(3, width, 5, 2, 2, bias=False)
        self.body = nn.Sequential(*layers)

    def _images(self, x: Tensor) -> Tensor:
        return self.body(x).mean((2, 3))


def teach(
    photos: Sequence[Path], classes: Sequence[str], *, width: int = 24, size: int = 64, epochs: int = 12, batch: int = 64,
    seed: int = 0, progress: Callable[[int, int], None] = lambda done, total: None,
) -> CnnEncoder:  # fmt: skip
    """A CnnEncoder taught to name the classes of these photos: Adam, one-cycle rate, shifted and mirrored pictures."""
    torch.manual_seed(seed)
    encoder = CnnEncoder(width, size)
    pixels = torch.stack([encoder.prepare(decode(read_bytes(file), file.name)) for file in photos])
    names = sorted(set(classes))
    code = torch.tensor([names.index(name) for name in classes])
    last = nn.Linear(encoder.dim, len(names))
    steps = epochs * math.ceil(len(pixels) / batch)
    weights = [*encoder.parameters(), *last.parameters()]
    optimiser = torch.optim.AdamW(weights, 4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, total_steps=steps, pct_start=0.2)
    encoder.train()
    for epoch in range(epochs):
        dice = torch.Generator().manual_seed(seed * 1000 + epoch)
        for rows in torch.randperm(len(pixels), generator=dice).split(batch):
            x = encoder.preprocess.normalize(_moved(pixels[rows], dice), torch.float32)
            loss = F.cross_entropy(last(encoder._images(x)), code[rows], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        progress(epoch + 1, epochs)
    return encoder.eval()


def _moved(pixels: Tensor, dice: torch.Generator) -> Tensor:
    """(B, 3, S, S): some mirrored, all shifted by up to an eighth, the edge repeated."""
    reach = pixels.shape[-1] // 8
    flip = torch.rand(len(pixels), generator=dice) < 0.5
    pixels = torch.where(flip[:, None, None, None], pixels.flip(3), pixels)
    padded = F.pad(pixels.float(), (reach,) * 4, "replicate").to(pixels.dtype)
    left, top = torch.randint(0, 2 * reach + 1, (2,), generator=dice).tolist()
    return padded[:, :, top : top + pixels.shape[2], left : left + pixels.shape[3]]


def save_judge(encoder: CnnEncoder, path: Path, key: str) -> None:
    from safetensors.torch import save

    state = {name: value.contiguous() for name, value in encoder.body.state_dict().items()}
    write_atomic(
        path,
        sorted_header(save(state, {"width": str(encoder.width), "size": str(encoder.preprocess.size), "key": key})),
    )


def load_judge(path: Path, key: str) -> CnnEncoder | None:
    """The kept judge; None where there is none with this key."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            if about.get("key") != key:
                return None
            encoder = CnnEncoder(int(about["width"]), int(about["size"]))
            encoder.body.load_state_dict({name: file.get_tensor(name) for name in file.keys()})
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError):
        return None
    return encoder.eval()


def kept_judge(
    name: str, photos: Path, photos_id: str, folder: Path, *, width: int, epochs: int, seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PictureEncoder:  # fmt: skip
    """The judge of this name; a network that is not in `folder` yet, or was taught otherwise, is taught. photos_id:
    changes when the photos do."""
    if name == "gradients":
        return GradientEncoder()
    path, key = folder / f"{name}.safetensors", sha256_bytes(canonical_json([photos_id, width, epochs, seed]))
    if (kept := load_judge(path, key)) is None:
        found = read_captioned(photos).photos
        kept = teach(
            [p.path for p in found], [p.group for p in found], width=width, epochs=epochs, seed=seed, progress=progress
        )
        save_judge(kept, path, key)
    return kept


def confusions(named: np.ndarray, classes: np.ndarray, families: np.ndarray) -> dict[str, float]:
    """named, classes (N,) class codes, families (C,) by code -> accuracy, and of the mistakes the share that fell on a
    sibling beside the share that chance gives it."""
    wrong = named != classes
    counts = np.bincount(families)
    chance = np.mean((counts[families[classes]] - 1) / (len(families) - 1))
    if not len(classes):
        raise RealRAGError("No picture to name. Give some.")
    hit = float((families[named] == families[classes])[wrong].mean()) if wrong.any() else float("nan")
    return {"accuracy": float(1 - wrong.mean()), "mistakes on siblings": hit, "by chance": float(chance)}
