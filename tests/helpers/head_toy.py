"""Random photos, prompts and negatives on which a small reflective head is trained."""

import numpy as np
import torch
from torch import Tensor
from unit_rows import unit

from realrag_train.contrastive.loss import LossConfig
from realrag_train.contrastive.negatives import MineConfig, mine
from realrag_train.contrastive.trainer import ContrastiveTraining, FitConfig
from realrag_train.dataset import Material


def made(seed=0, photos=64, classes=8, dim=12, k=2):
    rng = np.random.default_rng(seed)
    material = Material(
        unit(rng.normal(size=(photos, dim))), rng.integers(0, classes, photos),
        unit(rng.normal(size=(2 * classes, dim))), np.arange(2 * classes) % classes,
    )  # fmt: skip
    drawn = unit(rng.normal(size=(2 * classes, 2, dim)))
    return material, drawn, mine(material, drawn, MineConfig(k=k)).rows


def small(**changes):
    return FitConfig(**{"epochs": 3, "batch": 16, "hidden": 10, **changes})


def weights_of(fitting):
    return list(fitting.head.state_dict().values())


def learned(fitting: ContrastiveTraining) -> list[Tensor]:
    """The values that two ranks must agree on: weights, temperature and the last loss."""
    return [*weights_of(fitting), fitting.scale.detach(), torch.tensor(fitting.history[-1]["loss"])]


def head_of_one_rank(rank: int, config: FitConfig, loss: LossConfig) -> list[Tensor]:
    material, _, rows = made()
    fitting = ContrastiveTraining(material, rows, config, loss)
    fitting.run()
    return learned(fitting)
