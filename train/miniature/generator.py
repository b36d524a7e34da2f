"""Trains a miniature generator, SD3 or Flux, by flow matching (arXiv 2210.02747) on cached latents."""

from __future__ import annotations

import argparse
import copy
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from realrag.encoders.load import load_encoder
from realrag.encoders.small_net import TextTower
from realrag.errors import RealRAGError
from realrag.files import sha256_file
from realrag.miniature.autoencoder import load_autoencoder
from realrag.miniature.generator import MODELS, save_generator
from realrag.miniature.sampling import FAMILIES, shifted
from realrag.miniature.text import encode_prompts
from realrag.native_bf16 import bf16_autocast

from ..flags import add_flags, chosen
from ..loop.checkpoint import training_key
from ..loop.schedule import warmup_stable_decay
from ..loop.stages import RESUME, Stopped
from ..loop.trainer import AveragedTraining, epoch_rows
from ..loop.watch import Hooks, RunFiles, Watch, WatchConfig
from ..small_encoder.captioned_photos import Group, sample_text
from .features import cached_outputs, weights_key
from .sheet import write_sheet
from .taef2 import FRONT
from .world import World, add_world_arguments, read_photos, read_world

CACHED_TEXTS = 20_000  # encoded prompts in memory, 7 KB each


@dataclass(frozen=True)
class GeneratorConfig:
    """The settings. `steps` and `cool_down` may change when a run is resumed; everything else is fixed at its start."""

    seed: int = 0
    steps: int = 32_000  # a million samples
    batch: int = 32  # on a CPU small batches learn more in an hour
    views: int = 4  # of each photo, an epoch each in turn
    rate: float = 7e-4  # constant, then lowered over the last `cool_down` of the steps
    cool_down: float = 0.25
    warm_up: int = 200  # steps
    weight_decay: float = 0.01
    clip: float = 1.0
    averaging: float = 0.999
    text_drop: float = 0.1  # for classifier-free guidance
    even: float = 0.1  # fraction of noise levels drawn uniformly, to reach what the logit-normal hardly reaches
    coarse_rate: float = 0.1  # "pear" for a Conference pear
    description_rate: float = 0.1
    bf16: bool = True  # twice as fast on a CPU with AVX-512 BF16


def noise_levels(count: int, shift: float, even: float, rng: torch.Generator) -> Tensor:
    """(count,) in 0..1: logit-normal (arXiv 2403.03206, sec. 3.1), a fraction uniform, then shifted as in sampling."""
    normal, flat = torch.randn(count, generator=rng).sigmoid(), torch.rand(count, generator=rng)
    return shifted(torch.where(torch.rand(count, generator=rng) < even, flat, normal), shift)


def flow_loss(model: nn.Module, latents: Tensor, noise: Tensor, t: Tensor, texts: tuple[Tensor, Tensor]) -> Tensor:
    """(B,) mean squared error of the predicted velocity noise - latent, at (1 - t) latent + t noise."""
    level = t[:, None, None, None]
    velocity = model((1 - level) * latents + level * noise, t, *texts).float()
    return (velocity - (noise - latents)).square().mean((1, 2, 3))


class Texts:
    """Encodes prompts for a generator, each once."""

    def __init__(self, tower: TextTower):
        self.one = lru_cache(CACHED_TEXTS)(lambda prompt: encode_prompts(tower, [prompt]))

    def __call__(self, prompts: list[str]) -> tuple[Tensor, Tensor]:
        states, pooled = zip(*map(self.one, prompts), strict=True)
        return torch.cat(states), torch.cat(pooled)


class GeneratorTraining(AveragedTraining):
    """latents: for each view (N, 16, h, w). groups: the class of each of the N photos."""

    def __init__(
        self, model: nn.Module, config: GeneratorConfig, latents: list[np.ndarray], groups: list[Group], texts: Texts
    ):
        super().__init__(
            model, steps=config.steps, seed=config.seed, weight_decay=config.weight_decay, clip=config.clip,
            averaging=config.averaging,
        )  # fmt: skip
        self.config, self.latents, self.groups, self.texts = config, latents, groups, texts

    def lr(self) -> float:
        config = self.config
        return config.rate * warmup_stable_decay(self.step, config.steps, config.warm_up, config.cool_down)

    def batch(self) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """latents, noise, noise levels and texts of this step."""
        config, rng = self.config, torch.Generator().manual_seed((self.seed + 1) * 1_000_003 + self.step)
        rows, epochs = epoch_rows(self.seed, self.step, config.batch, len(self.groups))
        picked = [
            self.latents[epoch % len(self.latents)][row]
            for row, epoch in zip(rows.tolist(), epochs.tolist(), strict=True)
        ]
        latents = torch.from_numpy(np.stack(picked)).float()
        words, prompts = random.Random(f"{self.seed}/{self.step}"), []
        for row in rows.tolist():
            said, _ = sample_text(self.groups[row], words, config.coarse_rate, config.description_rate)
            prompts.append("" if words.random() < config.text_drop else said)
        noise = torch.randn(latents.shape, generator=rng)
        t = noise_levels(config.batch, FAMILIES[self.model.family].time_shift, config.even, rng)
        return latents, noise, t, self.texts(prompts)

    def loss(self) -> tuple[Tensor, dict[str, float]]:
        with bf16_autocast("cpu", self.config.bf16):
            return flow_loss(self.model, *self.batch()).mean(), {}

    def averaged(self) -> nn.Module:
        model = copy.deepcopy(self.model)
        model.load_state_dict(self.average, strict=False)  # all but buffers, which do not change
        return model.eval().requires_grad_(False)


@torch.no_grad()
def held_out_loss(model: nn.Module, latents: np.ndarray, groups: list[Group], texts: Texts, bf16: bool) -> float:
    """Loss over photos that were not trained on, with the same noise and levels every time: it rises when a model
    overfits."""
    total, rng = 0.0, torch.Generator().manual_seed(1)
    for start in range(0, len(groups), 64):
        x = torch.from_numpy(np.array(latents[start : start + 64])).float()
        noise = torch.randn(x.shape, generator=rng)
        t = noise_levels(len(x), FAMILIES[model.family].time_shift, 0.1, rng)
        said = texts([f"a photo of {group.name}" for group in groups[start : start + 64]])
        with bf16_autocast("cpu", bf16):
            total += flow_loss(model, x, noise, t, said).sum().item()
    return total / len(groups)


def cached_latents(world: World, views: int, autoencoder: nn.Module, log: Callable[[str], None]) -> list[np.ndarray]:
    """(N, 16, h, w) of each view. The first layers' outputs were cached when the autoencoder was trained."""
    front, tail = autoencoder.taesd_encoder[:FRONT], autoencoder.taesd_encoder[FRONT:]
    found = []
    for view in range(views):

        def features():
            return cached_outputs("front", front, world, view, lambda: world.pixels(view))

        found.append(np.array(cached_outputs("latents", tail, world, view, features)))
        log(f"latents: view {view + 1} of {views}")
    return found


def groups_of(world: World) -> list[Group]:
    rows = world.photos.group_rows()
    return [world.groups[row] for row in rows]


def seen_part(world: World, latents: np.ndarray, names: set[str]) -> tuple[np.ndarray, list[Group]]:
    """Latents and groups of the photos whose group's name is one of `names`."""
    groups = groups_of(world)
    rows = [row for row, group in enumerate(groups) if group.name in names]
    return latents[rows], [groups[row] for row in rows]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("family", choices=sorted(MODELS))
    add_world_arguments(parser)
    parser.add_argument("--autoencoder", type=Path, required=True, metavar="FILE", help="made by miniature-autoencoder")
    parser.add_argument("--encoder", default="realrag-small", help="its text tower encodes the prompts")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="safetensors to write")
    parser.add_argument("--threads", type=int, default=2)
    add_flags(parser, GeneratorConfig)
    add_flags(parser, WatchConfig)


def run(arguments: argparse.Namespace, log: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    torch.set_num_threads(arguments.threads)
    config, watch, out = chosen(arguments, GeneratorConfig()), chosen(arguments, WatchConfig()), arguments.out
    encoder, world, watched = load_encoder(arguments.encoder), read_world(arguments), read_photos(arguments, "val")
    if encoder.kind != "small":
        raise RealRAGError(
            f"{arguments.encoder} has no text tower that a miniature can use. Give the file of a small encoder."
        )
    autoencoder = load_autoencoder(arguments.autoencoder)
    latents = cached_latents(world, config.views, autoencoder, log)
    unseen = seen_part(watched, *cached_latents(watched, 1, autoencoder, log), {group.name for group in world.groups})
    texts = Texts(encoder.towers.text)
    torch.manual_seed(config.seed)
    training = GeneratorTraining(MODELS[arguments.family][0](), config, latents, groups_of(world), texts)
    about = {
        "config": {name: value for name, value in asdict(config).items() if name not in ("steps", "cool_down")},
        "family": arguments.family, "world": world.key, "text": encoder.weights_sha256,
        "latents": weights_key(autoencoder.taesd_encoder),
    }  # fmt: skip

    def export(model: nn.Module, **more) -> None:
        save_generator(out, model, model.state_dict(), about | {"step": training.step, **more})

    def draw() -> None:
        model = training.averaged()
        held_out = held_out_loss(model, *unseen, texts, config.bf16)
        export(model, held_out_loss=round(held_out, 5))
        if watch.sheet_minutes:
            write_sheet(
                out.with_name(f"{out.stem}-{training.step:06d}.png"),
                model,
                load_autoencoder(arguments.autoencoder),
                texts,
            )
        log(f"step {training.step}: loss {held_out:.4f} on held-out photos; wrote {out}")

    if not Watch(training, training_key(about), RunFiles.beside(out), watch, Hooks(log=log, sheet=draw)).run():
        export(training.averaged())  # without measuring or a sheet, so that a stopped run ends at once
        raise Stopped(f"Stopped after step {training.step}. {RESUME}")
    draw()
    log(f"{sum(w.numel() for w in training.model.parameters()) / 1e6:.1f} M parameters, sha256 {sha256_file(out)[:12]}")
