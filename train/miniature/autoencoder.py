"""Trains the miniature autoencoder, starting from taef2.

Its outer layers are taef2's, and the encoder's stay frozen. First the inner layers learn, on cached features of the
frozen ones, to express in 16 channels what taef2 expresses in 32. Then the decoder is trained on pixels with a
perceptual loss on taef2's first layers, without which uncertain regions come out blurred.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save
from torch import Tensor, nn

from realrag.files import sha256_file, sorted_header, write_atomic
from realrag.miniature.autoencoder import FORMAT, VERSION, Autoencoder, load_autoencoder
from realrag.native_bf16 import bf16_autocast

from ..flags import add_flags, chosen
from ..loop.checkpoint import training_key
from ..loop.schedule import warmup_cosine
from ..loop.stages import RESUME, Stopped
from ..loop.trainer import AveragedTraining, epoch_rows
from ..loop.watch import Hooks, RunFiles, Watch, WatchConfig
from .features import cached_outputs, to_images
from .taef2 import BACK, FRONT, Teacher, read_taef2, squeeze
from .world import World, add_world_arguments, read_world


@dataclass(frozen=True)
class AutoencoderConfig:
    """The settings. Three parts: inner layers against the teacher, then with the decoder on pixels, then the decoder
    alone."""

    seed: int = 0
    views: int = 2  # of each photo
    inner_steps: int = 800
    inner_batch: int = 32
    inner_rate: float = 1e-3
    joint_steps: int = 200  # afterward the latents are fixed, so a generator can be trained
    last_steps: int = 1200
    batch: int = 4  # whole pictures
    rate: float = 4e-4  # on pixels
    echo: float = 1.0  # weight of the perceptual loss, beside pixels
    noise: float = 0.05  # added to latents of unit variance, since a generator never hits them exactly
    spread: float = 0.05  # weight of the pull to zero mean and unit variance of each channel

    @property
    def steps(self) -> int:
        return self.inner_steps + self.joint_steps + self.last_steps


def picture_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """L1 of pixels and of their differences to the right and downwards (edges), over three scales; (B, 3, H, W)."""
    total = made.new_zeros(())
    for _ in range(3):
        total = total + F.l1_loss(made, wanted)
        for dim in (2, 3):
            total = total + F.l1_loss(made.diff(dim=dim), wanted.diff(dim=dim))
        made, wanted = F.avg_pool2d(made, 2), F.avg_pool2d(wanted, 2)
    return total / 3


class PerceptualLoss(nn.Module):
    """Distance of two pictures in the features of an encoder's frozen first layers: mean square over variance, averaged
    over their three scales. The idea is that of LPIPS (arXiv 1801.03924), without further weights."""

    def __init__(self, front: nn.Sequential):
        super().__init__()
        self.scales = nn.ModuleList([front[:2], front[2:6], front[6:10]])

    def forward(self, made: Tensor, wanted: Tensor) -> Tensor:
        total = made.new_zeros(())
        for scale in self.scales:
            made = scale(made)
            with torch.no_grad():
                wanted = scale(wanted)
                variance = wanted.float().var()
            total = total + F.mse_loss(made.float(), wanted.float()) / variance
        return total / len(self.scales)


def spread_loss(latents: Tensor) -> Tensor:
    """How far each channel of (B, C, h, w) is from zero mean and unit variance."""
    variance, mean = torch.var_mean(latents.float(), dim=(0, 2, 3), correction=0)
    return (mean.square() + (variance - 1).square()).mean()


class AutoencoderTraining(AveragedTraining):
    """fronts, pictures: for each view the frozen layers' outputs (N, 64, h, w) and the pixels (N, 3, S, S)."""

    def __init__(
        self,
        model: Autoencoder,
        teacher: Teacher,
        config: AutoencoderConfig,
        fronts: list[np.ndarray],
        pictures: list[np.ndarray],
    ):
        super().__init__(model, steps=config.steps, seed=config.seed, clip=1.0, averaging=0.98)
        self.teacher, self.config, self.fronts, self.pictures = teacher, config, fronts, pictures
        self.tail, self.decoder = model.taesd_encoder[FRONT:], model.taesd_decoder
        self.echo = PerceptualLoss(model.taesd_encoder[:FRONT])

    def lr(self) -> float:
        config, step = self.config, self.step
        if step < config.inner_steps:
            return config.inner_rate * warmup_cosine(step, config.inner_steps, 50)
        return config.rate * warmup_cosine(step - config.inner_steps, config.joint_steps + config.last_steps, 50)

    def _pick(self, arrays: list[np.ndarray], batch: int) -> np.ndarray:
        """Rows of the step; each epoch uses another view."""
        rows, epochs = epoch_rows(self.seed, self.step, batch, len(arrays[0]))
        return np.stack(
            [arrays[epoch % len(arrays)][row] for row, epoch in zip(rows.tolist(), epochs.tolist(), strict=True)]
        )

    def loss(self) -> tuple[Tensor, dict[str, float]]:
        config = self.config
        inner, fixed = self.step < config.inner_steps, self.step >= config.inner_steps + config.joint_steps
        batch = config.inner_batch if inner else config.batch
        features = torch.from_numpy(self._pick(self.fronts, batch)).float()
        noise = torch.randn(batch, 16, *features.shape[2:], generator=torch.Generator().manual_seed(self.step))
        with bf16_autocast("cpu"):
            with torch.set_grad_enabled(not fixed):
                latents = self.tail(features)
            spread = spread_loss(latents)
            noisy = latents + config.noise * noise
            if inner:
                with torch.no_grad():
                    wanted = self.teacher.head(self.teacher.tail(features)).float()
                apart = F.mse_loss(self.decoder[:BACK](noisy).float(), wanted) / wanted.var()
            else:
                wanted = to_images(self._pick(self.pictures, batch))
                made = self.decoder(noisy)
                apart = picture_loss(made.float(), wanted) + config.echo * self.echo(made, wanted)
        return apart + config.spread * spread * (not fixed), {"apart": apart.item(), "spread": spread.item()}


def save_autoencoder(path: Path, training: AutoencoderTraining, about: dict) -> None:
    """fp16 weights: the averaged decoder, and the encoder as it is, since latents may be cached already."""
    state = training.model.state_dict()
    state |= {name: value for name, value in training.average.items() if name.startswith("taesd_decoder.")}
    half = {name: value.half().contiguous() for name, value in state.items()}
    metadata = {"format": FORMAT, "version": VERSION, "training": json.dumps(about, sort_keys=True)}
    write_atomic(path, sorted_header(save(half, metadata)))


def front_outputs(world: World, views: int, front: torch.nn.Module, log: Callable[[str], None]) -> list[np.ndarray]:
    """The outputs of the frozen layers for each view."""
    found = []
    for view in range(views):
        found.append(cached_outputs("front", front, world, view, lambda: world.pixels(view)))
        log(f"front layers: view {view + 1} of {views}")
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_world_arguments(parser)
    parser.add_argument(
        "--taef2", type=Path, required=True, metavar="DIR", help="taef2_encoder.pth and taef2_decoder.pth"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="safetensors to write")
    parser.add_argument("--start", type=Path, metavar="FILE", help="start from these weights: with --inner-steps 0 --joint-steps 0 "
                        "only the decoder is trained, and latents stay the same")  # fmt: skip
    parser.add_argument("--threads", type=int, default=2)
    add_flags(parser, AutoencoderConfig)
    add_flags(parser, WatchConfig)


def run(arguments: argparse.Namespace, log: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    torch.set_num_threads(arguments.threads)
    config, world = chosen(arguments, AutoencoderConfig()), read_world(arguments)
    teacher, model = read_taef2(arguments.taef2)
    model = model.to(memory_format=torch.channels_last)
    front = model.taesd_encoder[:FRONT].requires_grad_(False)
    fronts = front_outputs(world, config.views, front, log)
    if arguments.start:
        model.load_state_dict(load_autoencoder(arguments.start).state_dict())
    else:
        some = torch.from_numpy(fronts[0][:: max(1, len(fronts[0]) // 400)].copy()).float()
        with torch.no_grad():
            squeeze(teacher, model, teacher.tail(some).movedim(1, -1).flatten(0, 2))
    training = AutoencoderTraining(model, teacher, config, fronts, [world.pixels(view) for view in range(config.views)])
    about = {"config": asdict(config), "world": world.key, "start": "taef2 (madebyollin/taesd, MIT)"}
    if arguments.start:
        about["start"] = sha256_file(arguments.start)
    files = RunFiles.beside(arguments.out)
    finished = Watch(training, training_key(about), files, chosen(arguments, WatchConfig()), Hooks(log=log)).run()
    if training.step >= config.inner_steps + config.joint_steps:
        save_autoencoder(arguments.out, training, about | {"steps": training.step})
        log(f"wrote {arguments.out} after step {training.step} of {training.steps}")
    if not finished:
        raise Stopped(f"Stopped after step {training.step}. {RESUME}")
