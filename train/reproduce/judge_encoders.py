"""The judge encoders of the experiment. They share no weights with a retriever or a generator.

`gradients` learns nothing. `cnn` is a small network trained from scratch on photos that only the judges see. `lite0` is
EfficientNet-Lite0 as ImageNet taught it, for worlds of real photos; no retriever of such a run may be `realrag-general`,
which has the same trunk."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from realrag import artifact
from realrag.encoders.efficientnet_lite import HEAD, Tail, Trunk
from realrag.encoders.preprocess import Preprocess
from realrag.errors import RealRAGError
from realrag.files import canonical_json, sha256_bytes, write_atomic
from realrag.photos.decode import decode, read_bytes

from ..judge.histograms import GradientEncoder, PictureEncoder
from ..small_encoder.captioned_photos import read_captioned

WHAT = "a judge encoder", "Delete the file: it is trained again."


@dataclass(frozen=True)
class JudgeTraining:
    """How a judge that is a network is trained."""

    width: int = 24  # channels of the first stage; enough to name 85 % of the procedural world
    epochs: int = 12  # the accuracy on held-out photos no longer rises
    size: int = 64  # pixels per side: half of what the miniatures paint, for speed
    batch: int = 64
    seed: int = 0


class CnnEncoder(PictureEncoder):
    """Four stages of two convolutions. The vector is the mean of the last feature map, D = 8 x width."""

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
        # The first layer halves the picture too: 32 pixels keep the detail that 64-pixel photos have.
        layers[0] = nn.Conv2d(3, width, 5, 2, 2, bias=False)
        self.body = nn.Sequential(*layers)

    def _images(self, x: Tensor) -> Tensor:
        return self.body(x).mean((2, 3))


class Lite0Encoder(PictureEncoder):
    """The mean of the last feature map of EfficientNet-Lite0, D = 1280."""

    name, dim = "lite0", HEAD

    def __init__(self) -> None:
        super().__init__()
        self.preprocess = Preprocess(224, "crop", "bicubic")
        self.trunk, self.tail = Trunk(), Tail()

    def _images(self, x: Tensor) -> Tensor:
        return self.tail(self.trunk(x)).mean((2, 3))


def load_lite0(path: Path) -> Lite0Encoder:
    """From the lite0.safetensors that `convert-general` writes. RealRAGError."""
    tensors = artifact.read_tensors(path, "a converted EfficientNet-Lite0", "Make it with `convert-general`.")
    encoder = Lite0Encoder()
    try:
        encoder.load_state_dict({name: t for name, t in tensors.items() if not name.startswith("classifier.")})
    except RuntimeError:
        raise RealRAGError(
            f"{path} holds other tensors than EfficientNet-Lite0's. Make it with `convert-general`."
        ) from None
    return encoder.eval()


def train_cnn(
    photos: Sequence[Path], classes: Sequence[str], training: JudgeTraining,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CnnEncoder:  # fmt: skip
    """A CnnEncoder trained to classify these photos: AdamW, a one-cycle learning rate, random shifts and mirroring.

    progress(epoch, epochs) is called after each epoch."""
    torch.manual_seed(training.seed)
    encoder = CnnEncoder(training.width, training.size)
    pixels = torch.stack([encoder.prepare(decode(read_bytes(file), file.name)) for file in photos])
    names = sorted(set(classes))
    code = torch.tensor([names.index(name) for name in classes])
    last = nn.Linear(encoder.dim, len(names))
    steps = training.epochs * math.ceil(len(pixels) / training.batch)
    weights = [*encoder.parameters(), *last.parameters()]
    optimizer = torch.optim.AdamW(weights, 4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps, pct_start=0.2)
    encoder.train()
    for epoch in range(training.epochs):
        rng = torch.Generator().manual_seed(training.seed * 1000 + epoch)
        for rows in torch.randperm(len(pixels), generator=rng).split(training.batch):
            x = encoder.preprocess.normalize(_moved(pixels[rows], rng), torch.float32)
            loss = F.cross_entropy(last(encoder._images(x)), code[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        progress(epoch + 1, training.epochs)
    return encoder.eval()


def _moved(pixels: Tensor, rng: torch.Generator) -> Tensor:
    """(B, 3, S, S): half of them mirrored, all shifted by up to an eighth of the side. Edges are repeated."""
    reach = pixels.shape[-1] // 8
    flip = torch.rand(len(pixels), generator=rng) < 0.5
    pixels = torch.where(flip[:, None, None, None], pixels.flip(3), pixels)
    padded = F.pad(pixels.float(), (reach,) * 4, "replicate").to(pixels.dtype)
    left, top = torch.randint(0, 2 * reach + 1, (2,), generator=rng).tolist()
    return padded[:, :, top : top + pixels.shape[2], left : left + pixels.shape[3]]


def save_judge_encoder(encoder: CnnEncoder, path: Path, key: str) -> None:
    """`key` names what the encoder was trained on and how."""
    metadata = {"width": str(encoder.width), "size": str(encoder.preprocess.size), "key": key}
    write_atomic(path, artifact.to_bytes(encoder.body.state_dict(), metadata))


def load_judge_encoder(path: Path, key: str) -> CnnEncoder | None:
    """The cached encoder, or None if there is none with this key."""
    try:
        metadata = artifact.read_header(path, *WHAT).metadata
        if metadata.get("key") != key:
            return None
        encoder = CnnEncoder(int(metadata["width"]), int(metadata["size"]))
        encoder.body.load_state_dict(artifact.read_tensors(path, *WHAT))
    except (RealRAGError, KeyError, ValueError, RuntimeError):
        return None
    return encoder.eval()


def cached_judge_encoder(
    name: str, photos: Path, photos_id: str, folder: Path, training: JudgeTraining,
    progress: Callable[[int, int], None] = lambda done, total: None, lite0: str = "",
) -> PictureEncoder:  # fmt: skip
    """The judge encoder of this name. A network that is not in `folder` yet, or was trained otherwise, is trained.
    photos_id changes whenever the photos do. lite0: the file of the judge of that name."""
    if name == "gradients":
        return GradientEncoder()
    if name == "lite0":
        return load_lite0(Path(lite0))
    key = sha256_bytes(canonical_json([photos_id, training.width, training.epochs, training.seed]))
    path = folder / f"{name}.safetensors"
    if (encoder := load_judge_encoder(path, key)) is None:
        found = read_captioned(photos).photos
        encoder = train_cnn([p.path for p in found], [p.group for p in found], training, progress)
        save_judge_encoder(encoder, path, key)
    return encoder


def confusions(named: np.ndarray, classes: np.ndarray, families: np.ndarray) -> dict[str, float]:
    """Accuracy, the fraction of mistakes that named a sibling class, and that fraction by chance.

    named, classes (N,): class codes. families (C,): the family of each code."""
    wrong = named != classes
    counts = np.bincount(families)
    chance = np.mean((counts[families[classes]] - 1) / (len(families) - 1))
    if not len(classes):
        raise RealRAGError("No picture to name. Give some.")
    hit = float((families[named] == families[classes])[wrong].mean()) if wrong.any() else float("nan")
    return {"accuracy": float(1 - wrong.mean()), "mistakes on siblings": hit, "by chance": float(chance)}
