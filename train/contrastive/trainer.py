"""Contrastive training (paper, sec. 3.3) of a reflective head on cached vectors, or of one tower.

With a head both towers stay frozen, so a step is a few matrix products. Every epoch draws its order from (seed, epoch),
so a resumed run equals an uninterrupted one on the same machine and versions.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from realrag.encoders.reflective_head import ReflectiveHead
from realrag.errors import RealRAGError

from ..dataset import Material
from ..loop.checkpoint import optimizer_tensors, restore_optimizer, under
from ..loop.schedule import warmup_cosine
from ..loop.trainer import decay_groups
from ..loop.training import StepAbandoned, Training
from ..retrieval_metrics import ranked_relevance, ranking_figures
from .fit_config import FitConfig
from .loss import LossConfig, cached_backward
from .models import PLAIN, HeadModel, Model, VisionModel
from .negatives import MineConfig, mine
from .objective import Objective, StepTensors
from .pairing import Pairing, different, parts
from .utility import Utility

MAX_SCALE = 100.0  # 1 / tau, as CLIP bounds it
COLUMNS = (
    "step", "epoch", "loss", "normal", "negatives", "utility", "margin", "rate", "tau", "held_out_r1", "validation_map",
    "validation_r1",
)  # fmt: skip
MEASURED = COLUMNS[-3:]
MOST_ASKED = 1000  # prompts with which validation photos are asked after an epoch


@dataclass(frozen=True)
class Sources:
    """What some losses need beside negatives. utility: candidates that were tried, with their measured utility. drawn:
    (P, S, D) vectors of the drawings, from which `refresh` mines again as `mining` says. validation: photos and prompts that
    are measured after each epoch and never trained on; the best epoch's weights are kept."""

    utility: Utility | None = None
    drawn: np.ndarray | None = None
    mining: MineConfig = MineConfig()
    validation: Material | None = None


class ContrastiveTraining(Training):
    """A model, its optimizer and the number of finished steps.

    negatives: (P, K) rows of photos, -1 where there is none; None for a loss without them. model: what is trained; None
    creates a head. With validation photos and prompts, the model has their rows after the material's. With torch.distributed running, each rank takes its part of every batch, and all ranks hold the same
    model.
    """

    columns = COLUMNS

    def __init__(
        self,
        material: Material,
        negatives: np.ndarray | None,
        config: FitConfig = FitConfig(),
        loss: LossConfig = LossConfig(),
        *,
        model: Model | None = None,
        sources: Sources = Sources(),
        device: str | torch.device = "cpu",
    ):
        self.material, self.loss, self.sources = material, loss, sources
        self.device, utility = torch.device(device), sources.utility
        if loss.uses_negatives and negatives is None:
            raise RealRAGError(f"The loss {loss.kind!r} needs negatives. Give --negatives FILE, or use --loss normal.")
        if loss.uses_utility and utility is None:
            raise RealRAGError(
                "This loss needs the measured utility of references. Give --utility FILE, or set lambda_utility to 0."
            )
        if config.refresh and loss.kind == "reflective" and sources.drawn is None:
            raise RealRAGError("Mining again needs the drawings. Give --drawn FILE, or set refresh to 0.")
        if model is None and config.mode != "head":
            raise RealRAGError(f"The mode {config.mode!r} trains a tower: give the model that holds it.")
        self.pairing = Pairing(material, config.held_out)
        self.pairs, self.held_out = self.pairing.pairs, self.pairing.held_out
        self.config = config = config.sized(len(self.pairs))
        if config.patience and not config.held_out and sources.validation is None:
            raise RealRAGError(
                "Early stopping needs photos to measure on: give validation photos, set held_out, for example to 0.1, or set "
                "patience to 0."
            )
        also = [sources.validation] if sources.validation is not None else []
        self.photos = torch.from_numpy(np.concatenate([each.photos for each in (material, *also)])).to(self.device)
        self.queries = torch.from_numpy(np.concatenate([each.queries for each in (material, *also)])).to(self.device)
        self.classes = torch.from_numpy(material.query_classes).to(self.device)
        self.negatives = self._without_held_out(negatives, "negatives") if loss.uses_negatives else None
        self.tried = self._without_held_out(utility.rows, "candidates tried") if loss.uses_utility else None
        self.utility = torch.from_numpy(utility.utility).to(self.device) if loss.uses_utility else None
        self.objective = Objective(loss, loss.beta or (utility.spread if loss.uses_utility else 1.0))
        if model is None:
            dim = material.photos.shape[1]
            torch.manual_seed(config.seed)
            model = HeadModel(self.photos, ReflectiveHead(dim, config.hidden or dim).to(self.device))
        self.model, self.head = model, model.module if isinstance(model, HeadModel) else None
        self.scale = torch.nn.Parameter(torch.tensor(math.log(1 / loss.tau), device=self.device))
        weights = list(model.trained.values())
        groups = decay_groups(weights, lr_multiplier=1.0)
        if loss.learned_tau:
            groups.append({"params": [self.scale], "lr_multiplier": 0.1, "weight_decay": 0.0})
        fused = {"fused": True} if self.device.type == "cuda" else {}
        self.optimizer = torch.optim.AdamW(
            [g for g in groups if g["params"]], weight_decay=config.weight_decay, **fused
        )
        self.world_size, self.rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
        self.batch = min(config.batch, len(self.pairs)) // self.world_size * self.world_size
        if not self.batch:
            raise RealRAGError(f"{len(self.pairs)} photos are too few for {self.world_size} processes.")
        self.steps_each_epoch = len(self.pairs) // self.batch
        self.steps = config.epochs * self.steps_each_epoch
        self.step, self.ended = 0, False
        self.lost = torch.zeros((), dtype=torch.float64, device=self.device)
        self._last: tuple[Tensor, StepTensors] | None = None  # of the last step, for the log
        self.history: list[dict] = []
        self.best: dict[str, Tensor] | None = None
        self._plan: tuple[int, list[tuple[Tensor, Tensor, Tensor]]] | None = None  # an epoch and its steps, see _rows

    @property
    def done(self) -> bool:
        return self.ended

    @property
    def measured(self) -> bool:
        """An epoch has just ended with a measurement on held-out or validation photos."""
        ended = bool(self.step) and self.step % self.steps_each_epoch == 0
        return ended and any(name in self.history[-1] for name in MEASURED)

    def _without_held_out(self, rows: np.ndarray, what: str) -> Tensor:
        """Held-out photos must not train, as a negative or a candidate either."""
        if rows.ndim != 2 or len(rows) != len(self.material.queries):
            raise RealRAGError(
                f"The {what} have shape {rows.shape}, which does not fit {len(self.material.queries)} prompts."
            )
        if len(self.material.photos) <= rows.max(initial=-1) or rows.min(initial=0) < -1:
            raise RealRAGError(
                f"The {what} name rows beyond the {len(self.material.photos)} photos. Make their file again."
            )
        rows = np.where(np.isin(rows, self.held_out), -1, rows)
        return torch.from_numpy(np.ascontiguousarray(rows, np.int64)).to(self.device)

    @property
    def tau(self) -> Tensor:
        return torch.exp(-self.scale.clamp(max=math.log(MAX_SCALE)))

    def _others(self, prompts: Tensor) -> list[Tensor | None]:
        """(U, K) rows of the prompts' negatives and (U, C) of their candidates; None where the loss has none."""
        return [None if named is None else named[prompts] for named in (self.negatives, self.tried)]

    def _asked(self, rows: Tensor, prompts: Tensor, others: list[Tensor | None]) -> Tensor:
        """All rows of a step that the trained side turns into vectors: prompts; or photos, then negatives, then
        candidates."""
        if self.model.side == "prompts":
            return prompts
        return torch.cat([rows, *(named.clamp_min(0).flatten() for named in others if named is not None)])

    def _rows(self, step: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Of a step (the next one) and this rank: (B,) rows of photos, (U,) rows of the different prompts, and (B,) the place
        of each photo's prompt among those."""
        epoch, at = divmod(self.step if step is None else step, self.steps_each_epoch)
        if self._plan is None or self._plan[0] != epoch:
            photos, prompts = self.pairing.order(self.config.seed, epoch)
            count = self.batch // self.world_size
            steps = zip(parts(photos, count), map(different, parts(prompts, count)), strict=True)
            own = zip(*[(rows, *asked) for rows, asked in islice(steps, self.rank, None, self.world_size)], strict=True)
            self._plan = epoch, list(zip(*(self._sent(column) for column in own), strict=True))
        return self._plan[1][at]

    def _sent(self, pieces: tuple[np.ndarray, ...]) -> tuple[Tensor, ...]:
        """The pieces on the device, by one copy."""
        return torch.from_numpy(np.concatenate(pieces)).to(self.device).split([len(piece) for piece in pieces])

    def advance(self) -> None:
        """One step. With a head, nothing is read back from the device."""
        config, (rows, prompts, among) = self.config, self._rows()
        others, epoch = self._others(prompts), self.step // self.steps_each_epoch
        inputs, place = self.model.inputs(self._asked(rows, prompts, others), epoch)
        if isinstance(self.model, VisionModel) and (self.step + 1) % self.steps_each_epoch:
            soon, then, _ = self._rows(self.step + 1)
            self.model.ahead(self._asked(soon, then, self._others(then)), epoch)

        def loss_of(out: Tensor) -> Tensor:
            tensors = self._tensors(out[place], rows, prompts, among, *others)
            loss = self.objective(tensors)
            self._last = loss.detach(), tensors.detached()
            return loss

        lr = config.highest_rate * warmup_cosine(self.step, self.steps, config.warm_up * self.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_multiplier"]
        self.optimizer.zero_grad(set_to_none=True)
        if config.grad_chunk:
            loss = cached_backward(self._encode, inputs, loss_of, config.grad_chunk)
        else:
            loss = loss_of(self._encode(inputs))
            loss.backward()
        weights = [w for group in self.optimizer.param_groups for w in group["params"]]
        self._average([w.grad for w in weights])
        torch.nn.utils.clip_grad_norm_(weights, config.clip)
        self.optimizer.step()
        self.lost += loss.detach()
        self.step += 1
        if self.step % self.steps_each_epoch == 0:
            self._end_epoch()

    def _encode(self, inputs: Tensor) -> Tensor:
        if self.world_size == 1 and self.stop_asked():
            raise StepAbandoned  # a step of a tower may last longer than the grace period after SIGTERM
        return self.model.encode(inputs)

    def _tensors(
        self, out: Tensor, rows: Tensor, prompts: Tensor, among: Tensor, chosen: Tensor | None, tried: Tensor | None
    ) -> StepTensors:
        """out: the trained side's vectors, in the order in which `advance` asked for them."""
        sizes = [named.numel() if named is not None else 0 for named in (rows, chosen, tried)]
        if self.model.side == "photos":
            queries, vectors = self.queries[prompts], out.split(sizes)
        else:
            queries = out
            vectors = [
                None if named is None else self.photos[named.clamp_min(0).flatten()] for named in (rows, chosen, tried)
            ]
        stacked = [
            None if n is None else part.view(*n.shape, -1) for n, part in zip((chosen, tried), vectors[1:], strict=True)
        ]
        present, measured = (None if named is None else named >= 0 for named in (chosen, tried))
        utility = None if tried is None else self.utility[prompts]
        tau = self.tau if self.loss.learned_tau else self.loss.tau
        return StepTensors(
            queries, vectors[0], self.classes[prompts][among], among, tau, stacked[0], present, stacked[1], utility, measured
        )  # fmt: skip

    def _average(self, gradients: list[Tensor]) -> None:
        if self.world_size > 1:
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            dist.all_reduce(flat)
            flat /= self.world_size
            for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(mean.view_as(gradient))

    def figures(self) -> dict[str, float]:
        """Of the last step: epoch, loss, its parts and the margin (`Objective.figures`) over all ranks, which must all
        ask; learning rate, temperature, and R@1 on held-out photos where it was just measured."""
        figures = self.objective.figures(*self._last)
        self._average([values := torch.stack(list(figures.values()))])
        values = dict(zip(figures, values.tolist(), strict=True))
        values |= {"rate": self.optimizer.param_groups[0]["lr"], "tau": self.tau.item()}
        if self.measured:
            values |= {name: self.history[-1][name] for name in MEASURED if name in self.history[-1]}
        return {"epoch": (self.step - 1) // self.steps_each_epoch + 1, **values}

    @torch.no_grad()
    def _end_epoch(self) -> None:
        config, epoch = self.config, self.step // self.steps_each_epoch
        self._average([self.lost])
        entry = {
            "epoch": epoch,
            "step": self.step,
            "loss": self.lost.item() / self.steps_each_epoch,
            "tau": self.tau.item(),
        }
        self.lost.zero_()
        if self.negatives is not None:
            entry["gap"] = self.gap()
        if config.held_out:
            entry["held_out_r1"] = self.held_out_r1()
        if self.sources.validation is not None:
            entry |= self.validation_figures()
        self.history.append(entry)
        self.ended = self.step >= self.steps
        if config.patience or self.sources.validation is not None:
            by = "held_out_r1" if self.sources.validation is None else "validation_map"
            best = max(range(len(self.history)), key=lambda at: (self.history[at][by], -at))
            if best == len(self.history) - 1:
                self.best = {name: weight.detach().clone() for name, weight in self.model.trained.items()}
            self.ended |= bool(config.patience) and len(self.history) - 1 - best >= config.patience
            if self.done:
                self._take(self.best)
        if config.refresh and self.negatives is not None and not self.done and epoch % config.refresh == 0:
            found = mine(self.material, self.sources.drawn, self.sources.mining, head=self.head, device=self.device)
            self.negatives = self._without_held_out(found.rows, "negatives")
            entry["known_share"] = found.metadata["known_share"]

    @torch.no_grad()
    def _take(self, weights: dict[str, Tensor]) -> None:
        for name, weight in self.model.trained.items():
            weight.copy_(weights[name])

    @torch.no_grad()
    def vectors(self, side: str, rows: Tensor) -> Tensor:
        """(...) rows of "photos" or "prompts" -> (..., D) unit vectors of the present weights, in chunks, not augmented."""
        if self.model.side != side:
            return (self.photos if side == "photos" else self.queries)[rows]
        found = []
        for part in rows.flatten().split(self.model.chunk):
            inputs, place = self.model.inputs(part, PLAIN)
            found.append(self.model.encode(inputs)[place])
        return torch.cat(found).view(*rows.shape, -1)

    @torch.no_grad()
    def gap(self) -> float:
        """Mean of s(prompt, its photo) - s(prompt, its negative) over some pairs: what the reflective term
        widens."""
        rows = torch.from_numpy(self.pairs[:: max(1, len(self.pairs) // self.model.watched)]).to(self.device)
        prompts = torch.from_numpy(self.pairing.first_prompts(rows.cpu().numpy())).to(self.device)
        queries, chosen = self.vectors("prompts", prompts), self.negatives[prompts]
        fits = (queries * self.vectors("photos", rows)).sum(1, keepdim=True)
        other = torch.einsum("bd,bkd->bk", queries, self.vectors("photos", chosen.clamp_min(0)))
        present = chosen >= 0
        return (((fits - other) * present).sum() / present.sum().clamp_min(1)).item()

    @torch.no_grad()
    def held_out_r1(self) -> float:
        """Fraction of prompts whose top photo, among the held-out ones, is of their class."""
        gallery = torch.from_numpy(self.held_out).to(self.device)
        codes = torch.from_numpy(self.material.photo_classes[self.held_out]).to(self.device)
        asked = torch.isin(self.classes, codes).nonzero()[:, 0]
        first = (self.vectors("prompts", asked) @ self.vectors("photos", gallery).T).argmax(1)
        return (codes[first] == self.classes[asked]).float().mean().item()

    @torch.no_grad()
    def validation_figures(self) -> dict[str, float]:
        """mAP and R@1 of the validation prompts, asked of the validation photos."""
        held, first = self.sources.validation, (len(self.material.photos), len(self.material.queries))
        asked = np.flatnonzero(np.isin(held.query_classes, held.photo_classes))
        asked = asked[:: max(1, -(-len(asked) // MOST_ASKED))]
        rows = torch.from_numpy(asked + first[1]).to(self.device)
        gallery = torch.arange(first[0], first[0] + len(held.photos), device=self.device)
        scores = (self.vectors("prompts", rows) @ self.vectors("photos", gallery).T).float().cpu().numpy()
        right = held.query_classes[asked][:, None] == held.photo_classes[None]
        found = ranking_figures(ranked_relevance(scores, right), ("mAP", "R@1"))
        means = torch.tensor([np.mean(found["mAP"]), np.mean(found["R@1"])], device=self.device)
        self._average([means])  # all ranks must stop after the same epoch
        return dict(zip(MEASURED[1:], means.tolist(), strict=True))

    def state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        tensors = {f"weight.{name}": value for name, value in self.model.trained.items()}
        tensors |= {f"best.{name}": value for name, value in (self.best or {}).items()}
        tensors |= {"scale": self.scale, "lost": self.lost}
        if self.config.refresh and self.negatives is not None:
            tensors["negatives"] = self.negatives
        metadata = {"step": str(self.step), "done": str(int(self.ended)), "history": json.dumps(self.history)}
        return tensors | optimizer_tensors(self.optimizer), metadata

    def restore(self, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        tensors = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        self._take(under("weight.", tensors))
        self.best = under("best.", tensors) or None
        self.scale.data.copy_(tensors["scale"])
        self.lost = tensors["lost"]
        self.negatives = tensors.get("negatives", self.negatives)
        restore_optimizer(self.optimizer, tensors)
        self.step, self.ended = int(metadata["step"]), metadata["done"] == "1"
        self.history = json.loads(metadata["history"])

    def run(self) -> None:
        """Train to the end, without a watch."""
        while not self.done:
            self.advance()
