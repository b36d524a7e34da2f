"""Trains the two layers behind MiniLM on lessons: each text toward its direction, and away from the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .lessons import Lessons


@dataclass(frozen=True)
class HeadConfig:
    seed: int = 0
    hidden: int = 1024
    steps: int = 1500
    batch: int = 512
    lr: float = 3e-3
    weight_decay: float = 0.01
    temperature: float = 0.05
    contrast: float = 0.1  # weight of telling the targets of a batch apart, beside the cosine
    noise: float = 0.005  # added to each of MiniLM's numbers; with 0.02 only half of ImageNet's names kept their rows


def train_head(
    config: HeadConfig, lessons: list[tuple[Lessons, Tensor, float]], log: Callable[[str], None] = lambda line: None
) -> nn.Sequential:
    """lessons: with MiniLM's vectors of their texts (N, W), and the fraction of each batch that is drawn from them."""
    torch.manual_seed(config.seed)
    width, dim = lessons[0][1].shape[1], lessons[0][0].targets.shape[1]
    head = nn.Sequential(nn.Linear(width, config.hidden), nn.GELU(), nn.Linear(config.hidden, dim))
    optimizer = torch.optim.AdamW(head.parameters(), config.lr, weight_decay=config.weight_decay)
    shape = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, step / 100) * (0.5 + 0.5 * math.cos(math.pi * step / config.steps))
    )
    for step in range(config.steps):
        loss = torch.zeros(())
        for lesson, vectors, fraction in lessons:
            count = max(2, round(config.batch * fraction))
            chosen = torch.multinomial(lesson.weights, count, replacement=True)
            given = vectors[chosen] + config.noise * torch.randn(count, width)
            found, rows = F.normalize(head(F.normalize(given, dim=1)), dim=1), lesson.rows[chosen]
            # Texts of one direction are no rivals, so each direction of the batch stands there once.
            seen, own = rows.unique(return_inverse=True)
            wanted = lesson.targets[seen]
            scores = found @ wanted.T / config.temperature
            loss = loss + fraction * (1 - (found * wanted[own]).sum(1).mean())
            loss = loss + fraction * config.contrast * F.cross_entropy(scores, own)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shape.step()
        if step % 200 == 199:
            log(f"text head, step {step + 1} of {config.steps}: loss {loss.item():.3f}")
    return head.eval()
