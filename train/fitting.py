"""The training of a reflective head on cached vectors (paper, sec. 3.3): both towers stay frozen, so a step is a few products
of matrices. Every epoch draws its order from (seed, epoch), so a resumed run is the same run."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from realrag.errors import RealRAGError
from realrag.files import write_atomic
from realrag.head import ReflectiveHead

from .loss import LossConfig, cached_backward, contrastive_loss
from .material import Material
from .mining import MineConfig, mine

SPLIT_SEED = 0  # of the held-out photos: the same for every seed and every arm
MAX_SCALE = 100.0  # 1 / tau, as CLIP bounds it
WATCHED = 4096  # pairs over which the gap is watched


@dataclass(frozen=True)
class FitConfig:
    """The knobs, each default marked with where it comes from."""

    epochs: int = 10  # paper: checkpoints up to epoch 10
    batch: int = 512  # our choice
    rate: float = 1e-3  # our choice: AdamW, the upper end of what heads on cached vectors bear
    weight_decay: float = 0.01  # our choice; none on biases and temperature
    warm_up: float = 0.05  # our choice: share of all steps, then a cosine to zero
    clip: float = 1.0  # our choice: longest gradient
    hidden: int = 0  # our choice: width of the head, 0 for the encoder's own (paper: "one simple MLP layer")
    seed: int = 0
    held_out: float = 0.0  # our choice: share of each class's photos kept out, to watch R@1
    patience: int = 0  # our choice: epochs without a better held-out R@1 before stopping; 0 goes to the end
    refresh: int = 0  # our choice: epochs between minings with the current head (ANCE); 0 mines once
    grad_chunk: int = 0  # rows in the head at a time (gradient caching); 0 for all

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch) < 1 or not 0 <= self.held_out < 1 or self.rate <= 0:
            raise RealRAGError(f"{self}: epochs and batch start at 1, held_out lies from 0 to below 1, the rate above 0.")
        if self.patience and not self.held_out:
            raise RealRAGError("Stopping early watches held-out photos: set held_out, for example 0.1, or patience to 0.")


class Fitting:
    """A head, its optimiser and the number of the next step: what a checkpoint holds.

    negatives: (P, K) rows of photos, -1 where none; None for the normal loss. drawn: (P, S, D), needed for `refresh`.
    With torch.distributed running, each rank takes its part of every batch, and all ranks hold the same head.
    """

    def __init__(
        self,
        material: Material,
        negatives: np.ndarray | None,
        config: FitConfig = FitConfig(),
        loss: LossConfig = LossConfig(),
        *,
        drawn: np.ndarray | None = None,
        mining: MineConfig = MineConfig(),
        device: str | torch.device = "cpu",
    ):
        self.material, self.config, self.loss, self.drawn, self.mining = material, config, loss, drawn, mining
        self.device = torch.device(device)
        if loss.uses_negatives and negatives is None:
            raise RealRAGError(f"The loss {loss.kind!r} needs negatives. Give --negatives FILE, or use --loss normal.")
        if config.refresh and loss.kind == "reflective" and drawn is None:
            raise RealRAGError("Mining again needs the drawings. Give --drawn FILE, or set refresh to 0.")
        self._pair_up()
        self.photos = torch.from_numpy(material.photos).to(self.device)
        self.queries = torch.from_numpy(material.queries).to(self.device)
        self.classes = torch.from_numpy(material.query_classes).to(self.device)
        self.negatives = self._without_held_out(negatives) if loss.uses_negatives else None
        dim = material.photos.shape[1]
        torch.manual_seed(config.seed)
        self.head = ReflectiveHead(dim, config.hidden or dim).to(self.device)
        self.scale = torch.nn.Parameter(torch.tensor(math.log(1 / loss.tau), device=self.device))
        heavy, light = [w for w in self.head.parameters() if w.ndim > 1], [w for w in self.head.parameters() if w.ndim < 2]
        groups = [{"params": heavy, "pace": 1.0}, {"params": light, "pace": 1.0, "weight_decay": 0.0}]
        if loss.learned_tau:
            groups.append({"params": [self.scale], "pace": 0.1, "weight_decay": 0.0})
        fused = {"fused": True} if self.device.type == "cuda" else {}
        self.optimiser = torch.optim.AdamW(groups, weight_decay=config.weight_decay, **fused)
        self.world, self.rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
        self.batch = min(config.batch, len(self.pairs)) // self.world * self.world
        if not self.batch:
            raise RealRAGError(f"{len(self.pairs)} photos are too few for {self.world} processes.")
        self.steps_each_epoch = len(self.pairs) // self.batch
        self.steps = config.epochs * self.steps_each_epoch
        self.step, self.done = 0, False
        self.lost = torch.zeros((), dtype=torch.float64, device=self.device)
        self.last_loss = self.lost
        self.history: list[dict] = []
        self.best: dict[str, Tensor] | None = None
        self._plan: tuple[int, Tensor, Tensor] | None = None

    def _pair_up(self) -> None:
        """`pairs`: rows of photos that have a prompt; `held_out`: those kept aside; and each class's run of prompts."""
        classes, asked = self.material.photo_classes, self.material.query_classes
        self._by_class = np.argsort(asked, kind="stable")
        self._sorted_classes = asked[self._by_class]
        rows = np.flatnonzero(np.isin(classes, asked) & (classes >= 0))
        if not len(rows):
            raise RealRAGError("No prompt is about a class of the bundle's photos. Give prompts with the bundle's class names.")
        aside = np.zeros(len(classes), bool)
        mixed = np.random.default_rng(SPLIT_SEED).permutation(rows)
        for code in np.unique(classes[rows]) if self.config.held_out else ():
            own = mixed[classes[mixed] == code]
            aside[own[: int(len(own) * self.config.held_out)]] = True
        self.pairs, self.held_out = rows[~aside[rows]], np.flatnonzero(aside)
        if self.config.held_out and not len(self.held_out):
            raise RealRAGError(f"held_out {self.config.held_out} leaves no photo aside: the classes are too small for it.")

    def _without_held_out(self, negatives: np.ndarray) -> Tensor:
        """What is kept out to measure must not teach, as a negative either."""
        if negatives.ndim != 2 or len(negatives) != len(self.material.queries):
            raise RealRAGError(f"Negatives of shape {negatives.shape} do not fit {len(self.material.queries)} prompts.")
        if len(self.material.photos) <= negatives.max(initial=-1) or negatives.min(initial=0) < -1:
            raise RealRAGError(f"The negatives name rows beyond the {len(self.material.photos)} photos. Mine them again.")
        rows = np.where(np.isin(negatives, self.held_out), -1, negatives)
        return torch.from_numpy(np.ascontiguousarray(rows, np.int64)).to(self.device)

    @property
    def tau(self) -> Tensor:
        return torch.exp(-self.scale.clamp(max=math.log(MAX_SCALE)))

    def _rows(self) -> tuple[Tensor, Tensor]:
        """(B,) rows of photos and of prompts of this step and rank: an epoch's order is drawn once, a step is a slice."""
        epoch, place = divmod(self.step, self.steps_each_epoch)
        if self._plan is None or self._plan[0] != epoch:
            dice = np.random.default_rng((self.config.seed, epoch))
            photos = dice.permutation(self.pairs)
            codes = self.material.photo_classes[photos]
            first, last = (np.searchsorted(self._sorted_classes, codes, side) for side in ("left", "right"))
            prompts = self._by_class[first + (dice.random(len(photos)) * (last - first)).astype(np.int64)]
            self._plan = epoch, torch.from_numpy(photos).to(self.device), torch.from_numpy(prompts).to(self.device)
        share = self.batch // self.world
        start = place * self.batch + self.rank * share
        return self._plan[1][start : start + share], self._plan[2][start : start + share]

    def advance(self) -> None:
        """One step. Nothing is read back from the device."""
        config, (rows, prompts) = self.config, self._rows()
        queries, classes, photos = self.queries[prompts], self.classes[prompts], self.photos[rows]
        negatives = present = None
        if self.negatives is not None:
            chosen = self.negatives[prompts]
            present, negatives = chosen >= 0, self.photos[chosen.clamp_min(0)]

        def loss_of(zp: Tensor, zn: Tensor | None) -> Tensor:
            tau = self.tau if self.loss.learned_tau else self.loss.tau
            return contrastive_loss(queries, zp, self.loss, classes=classes, negatives=zn, present=present, tau=tau)

        done = self.step / self.steps
        pace = min(1.0, (done + 1 / self.steps) / max(config.warm_up, 1e-9)) * (1 + math.cos(math.pi * done)) / 2
        for group in self.optimiser.param_groups:
            group["lr"] = config.rate * group["pace"] * pace
        self.optimiser.zero_grad(set_to_none=True)
        if config.grad_chunk:
            loss = cached_backward(self.head, photos, negatives, loss_of, config.grad_chunk)
        else:
            loss = loss_of(self.head(photos), None if negatives is None else self.head(negatives))
            loss.backward()
        weights = [w for group in self.optimiser.param_groups for w in group["params"]]
        self._average([w.grad for w in weights])
        torch.nn.utils.clip_grad_norm_(weights, config.clip)
        self.optimiser.step()
        self.last_loss = loss.detach()
        self.lost += self.last_loss
        self.step += 1
        if self.step % self.steps_each_epoch == 0:
            self._end_epoch()

    def _average(self, gradients: list[Tensor]) -> None:
        if self.world > 1:
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            dist.all_reduce(flat)
            flat /= self.world
            for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients])):
                gradient.copy_(mean.view_as(gradient))

    def mean_last_loss(self) -> float:
        """The last step's loss over all ranks, which must all ask."""
        self._average([loss := self.last_loss.clone()])
        return loss.item()

    @torch.no_grad()
    def _end_epoch(self) -> None:
        config, epoch = self.config, self.step // self.steps_each_epoch
        self._average([self.lost])
        entry = {"epoch": epoch, "step": self.step, "loss": self.lost.item() / self.steps_each_epoch, "tau": self.tau.item()}
        self.lost.zero_()
        if self.negatives is not None:
            entry["gap"] = self.gap()
        if config.held_out:
            entry["held_out_r1"] = self.held_out_r1()
        self.history.append(entry)
        self.done = self.step >= self.steps
        if config.patience:
            best = max(range(len(self.history)), key=lambda at: (self.history[at]["held_out_r1"], -at))
            if best == len(self.history) - 1:
                self.best = {name: value.clone() for name, value in self.head.state_dict().items()}
            self.done |= len(self.history) - 1 - best >= config.patience
            if self.done:
                self.head.load_state_dict(self.best)
        if config.refresh and self.negatives is not None and not self.done and epoch % config.refresh == 0:
            found = mine(self.material, self.drawn, self.mining, head=self.head, device=self.device)
            self.negatives = self._without_held_out(found.rows)
            entry["known_share"] = found.facts["known_share"]
            self.head.train()

    @torch.no_grad()
    def gap(self) -> float:
        """Mean of s(prompt, its photo) - s(prompt, its negative) over some pairs: what the reflective term widens."""
        rows = torch.from_numpy(self.pairs[:: max(1, len(self.pairs) // WATCHED)]).to(self.device)
        codes = self.material.photo_classes[rows.cpu().numpy()]
        prompts = torch.from_numpy(self._by_class[np.searchsorted(self._sorted_classes, codes)]).to(self.device)
        queries, chosen = self.queries[prompts], self.negatives[prompts]
        fits = (queries * self.head(self.photos[rows])).sum(1, keepdim=True)
        other = torch.einsum("bd,bkd->bk", queries, self.head(self.photos[chosen.clamp_min(0)]))
        present = chosen >= 0
        return (((fits - other) * present).sum() / present.sum().clamp_min(1)).item()

    @torch.no_grad()
    def held_out_r1(self) -> float:
        """Share of prompts whose first photo, among those kept aside, is of their class."""
        gallery = torch.from_numpy(self.held_out).to(self.device)
        codes = torch.from_numpy(self.material.photo_classes[self.held_out]).to(self.device)
        asked = torch.isin(self.classes, codes)
        first = (self.queries[asked] @ self.head(self.photos[gallery]).T).argmax(1)
        return (codes[first] == self.classes[asked]).float().mean().item()

    def save(self, path: Path, key: str) -> None:
        from safetensors.torch import save

        state = {f"head.{name}": value for name, value in self.head.state_dict().items()}
        state |= {f"best.{name}": value for name, value in (self.best or {}).items()}
        state |= {"scale": self.scale.detach(), "lost": self.lost}
        if self.config.refresh and self.negatives is not None:
            state["negatives"] = self.negatives
        for row, values in self.optimiser.state_dict()["state"].items():
            state |= {f"adam.{row}.{name}": value for name, value in values.items()}
        words = {"key": key, "step": str(self.step), "done": str(int(self.done)), "history": json.dumps(self.history)}
        write_atomic(path, save({name: value.cpu().contiguous() for name, value in state.items()}, words))

    def resume(self, path: Path, key: str) -> bool:
        """Go on from a checkpoint of the same inputs; False, and nothing is changed, when it is none."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, "pt") as file:
                words = file.metadata() or {}
                if words.get("key") != key:
                    return False
                state = {name: file.get_tensor(name).to(self.device) for name in file.keys()}
        except (OSError, SafetensorError):
            return False
        pick = lambda prefix: {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}  # noqa: E731
        self.head.load_state_dict(pick("head."))
        self.best = pick("best.") or None
        self.scale.data.copy_(state["scale"])
        self.lost = state["lost"]
        self.negatives = state.get("negatives", self.negatives)
        adam: dict[int, dict[str, Tensor]] = {}
        for name, value in pick("adam.").items():
            row, part = name.split(".")
            adam.setdefault(int(row), {})[part] = value
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": adam})
        self.step, self.done, self.history = int(words["step"]), words["done"] == "1", json.loads(words["history"])
        return True

    def run(self, after_step: Callable[[Fitting], bool] = lambda fitting: True) -> bool:
        """Train to the end; True when there. `after_step` is asked after each step and stops the run by False."""
        while not self.done:
            self.advance()
            if not after_step(self) and not self.done:
                return False
        self.head.eval()
        return True
