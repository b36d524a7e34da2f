"""Self-reflective contrastive learning (paper, sec. 3.3, eq. 5-8): the photo that fits a prompt against the other
photos of the batch and against the real photos most like the generator's drawing of that prompt."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from realrag.errors import RealRAGError

KINDS = ("normal", "hard", "reflective", "utility")
MASKED = -1e4  # a score whose exponential is 0 in every float type, and whose gradient is 0 and not NaN


@dataclass(frozen=True)
class LossConfig:
    """What eq. 8 leaves open, each default marked with its source.

    `hard` is the same loss with other negatives (the nearest wrong photo to the prompt); `normal` has none. `utility`
    learns from measured utility alone; `lambda_utility` adds that term to any other kind.
    """

    kind: str = "reflective"  # paper
    tau: float = 0.07  # our choice: the paper gives no number
    learned_tau: bool = False  # our choice
    lambda_ref: float = 1.0  # paper: eq. 7 has no weight, which is a weight of one
    reflect_tau: bool = True  # our choice: eq. 7 as printed lacks the temperature; False is the printed form
    mask_same_class: bool = True  # our choice: prompts of one class repeat in a batch, so its photos are no negatives
    multi_positive: bool = False  # our choice: eq. 8 has one positive, figure 2(b) draws three
    symmetric: bool = False  # paper: text -> image only
    lambda_utility: float = 0.0  # our choice, beyond the paper: weight of the measured utility (REPLUG); 0 is off
    beta: float = 0.0  # our choice: temperature of the utilities; 0 takes their standard deviation in the file

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise RealRAGError(f"The loss {self.kind!r} is not known; it is one of {', '.join(KINDS)}.")
        weights = self.lambda_ref, self.lambda_utility, self.beta
        if not (self.tau > 0 and min(weights) >= 0 and math.isfinite(self.tau + sum(weights))):
            given = f"tau is {self.tau}, lambda_ref {weights[0]}, lambda_utility {weights[1]}, beta {weights[2]}"
            raise RealRAGError(f"{given}; tau is above 0, the others are 0 or more.")

    @property
    def uses_negatives(self) -> bool:
        return self.kind in ("hard", "reflective") and self.lambda_ref > 0

    @property
    def uses_utility(self) -> bool:
        return self.kind == "utility" or self.lambda_utility > 0


def contrastive_loss(
    queries: Tensor,
    photos: Tensor,
    config: LossConfig,
    *,
    classes: Tensor | None = None,
    negatives: Tensor | None = None,
    present: Tensor | None = None,
    tau: Tensor | float | None = None,
    place: Tensor | None = None,
) -> Tensor:
    """Mean over the batch of -log(e^(zq.zp/tau) / (e^(zq.zp/tau) + D_nor + lambda D_ref)), eq. 8.

    photos zp (B, D), queries zq (U, D): unit vectors. place (B,): the row of each photo's query, so that a prompt that
    occurs several times is compared once; None: row i of one belongs to row i of the other, and U = B. classes (B,)
    integers, needed for masks and several positives. negatives zn (U, K, D) and present (U, K) bools: D_ref sums over
    those that are there (paper: K = 1). tau: a tensor where it is learned, else the config's. With torch.distributed
    running, the photos, queries and classes of all ranks are gathered, with gradients; every rank has the same B. The
    mean over ranks of loss and gradients is then that of one process with the whole batch.
    """
    tau = config.tau if tau is None else tau
    count = torch.arange(len(photos), device=photos.device)
    scaled, everywhere, own = queries / tau, gathered(photos), _rank() * len(photos) + count
    at, reflected = count if place is None else place, None
    if config.uses_negatives and negatives is not None and negatives.shape[1]:
        # The temperature goes on the small side of the product: (U, D) and not (U, K, D).
        asks = scaled if config.reflect_tau else queries
        reflected = torch.einsum("ud,ukd->uk", asks, negatives) + math.log(config.lambda_ref)
        if present is not None:
            reflected = reflected.masked_fill(~present, MASKED)
        reflected = reflected.logsumexp(1)
    same, columns = None, None
    if classes is not None and (config.mask_same_class or config.multi_positive):
        columns = gathered(classes)
        of_query = classes if place is None else classes.new_empty(len(queries)).scatter_(0, place, classes)
        same = of_query[:, None] == columns[None, :]
    elif place is not None:  # only its own photo is no negative of a row: rows of one prompt differ
        scaled, reflected, at = scaled[place], None if reflected is None else reflected[place], count
    loss = _one_way(scaled, everywhere, own, at, same, reflected, config)
    if config.symmetric:
        texts = gathered(queries if place is None else queries[place])
        same = None if columns is None else classes[:, None] == columns[None, :]
        loss = (loss + _one_way(photos / tau, texts, own, count, same, None, config)) / 2
    return loss


def _one_way(
    asks: Tensor, gives: Tensor, own: Tensor, place: Tensor, same: Tensor | None, reflected: Tensor | None,
    config: LossConfig,
) -> Tensor:  # fmt: skip
    """The mean over pairs. asks (U, D), over the temperature, against gives (C, D); pair i is of row place[i] and column
    own[i], both (B,); same (U, C) bools; reflected (U,) logs of lambda D_ref.

    Each positive competes with the negatives only, never with another positive.
    """
    if not config.multi_positive or same is None:
        return _OnePositive.apply(asks, gives, reflected, place, own, same)
    scores = asks @ gives.T
    negative = scores.masked_fill(same, MASKED).logsumexp(1)  # log D_nor
    if reflected is not None:
        negative = torch.logaddexp(negative, reflected)  # log(D_nor + lambda D_ref)
    each = F.softplus(negative[:, None] - scores) * same
    return (each.sum(1) / same.sum(1))[place].mean()


class _OnePositive(torch.autograd.Function):
    """`_one_way` with one positive a pair. One (U, C) matrix holds the scores, then their exponentials, then the gradient,
    which autograd's steps would keep in six."""

    @staticmethod
    def forward(ctx, asks, gives, reflected, place, own, same):
        scores = asks @ gives.T
        flat, cells = scores.view(-1), place * scores.shape[1] + own
        positive = flat[cells]
        if same is None:
            flat[cells] = MASKED
        else:
            scores.masked_fill_(same, MASKED)
        highest = scores.amax(1)
        negative = highest + scores.sub_(highest[:, None]).exp_().sum(1).log()  # log D_nor
        if reflected is not None:
            negative = torch.logaddexp(negative, reflected)  # log(D_nor + lambda D_ref)
        behind = negative[place] - positive
        if any(ctx.needs_input_grad):
            pull = torch.sigmoid(behind) / len(behind)
            push = _sums(pull, place, len(asks))
            scores.mul_((push * (highest - negative).exp())[:, None])
            flat[cells] = -pull
            ctx.save_for_backward(
                asks, gives, scores, None if reflected is None else push * (reflected - negative).exp()
            )
        return F.softplus(behind).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        asks, gives, slopes, reflected = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        return (
            (slopes @ gives) * gradient if wanted[0] else None,
            slopes.T @ (asks * gradient) if wanted[1] else None,
            reflected * gradient if reflected is not None and wanted[2] else None,
            *(None,) * 3,
        )


def _sums(values: Tensor, place: Tensor, count: int) -> Tensor:
    """(B,) values added up by their place (B,) in (count,), in the same order each time."""
    sums = values.new_zeros(count)
    if values.device.type == "cpu":
        return sums.index_add_(0, place, values)
    return sums.index_put_((place,), values, accumulate=True)  # sorted first, where index_add_ would race


def utility_loss(
    queries: Tensor, candidates: Tensor, utility: Tensor, present: Tensor, tau: Tensor | float, beta: float,
    place: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Mean over the batch of KL(P || Q): P = softmax(zq.zc / tau) and Q = softmax(utility / beta) over a prompt's
    candidates (REPLUG, arXiv 2301.12652, sec. 4.1-4.3: KL of the retrieval likelihood from what the reader's own gain
    says).

    queries (U, D), candidates zc (U, C, D): unit vectors; utility (U, C): how much each candidate helped; present (U,
    C) bools; place (B,): the row of each pair's prompt, None where U = B. A prompt with fewer than two candidates adds
    nothing, yet counts in the mean, so that ranks add up to one process.
    """
    scores = torch.einsum("bd,bcd->bc", queries / tau, candidates).masked_fill(~present, MASKED)
    wanted = utility.to(scores) / beta
    wanted = wanted - wanted.masked_fill(~present, -torch.inf).amax(1, keepdim=True).nan_to_num(
        neginf=0.0
    )  # the best is 0
    p, q = scores.log_softmax(1), wanted.masked_fill(~present, MASKED).log_softmax(1)
    each = (p.exp() * (p - q) * present).sum(1)
    return (each if place is None else each[place]).mean()


def cached_backward(
    encode: Callable[[Tensor], Tensor], inputs: Tensor, loss_of: Callable[[Tensor], Tensor], chunk: int
) -> Tensor:
    """The gradients of `loss_of(encode(inputs))` with at most `chunk` rows in `encode` at a time; returns the loss. The
    batch may then be larger than what the inner values leave room for (GradCache, arXiv 2101.06983).
    """
    with torch.no_grad():
        out = torch.cat([encode(part) for part in inputs.split(chunk)])
    out.requires_grad_()
    loss = loss_of(out)
    loss.backward()
    for part, gradient in zip(inputs.split(chunk), out.grad.split(chunk), strict=True):
        encode(part).backward(gradient)
    return loss.detach()


def gathered(tensor: Tensor) -> Tensor:
    """(B, ...) of this rank -> (W B, ...) of all ranks in their order; gradients flow back to where the rows came from."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return tensor
    if tensor.is_floating_point():
        from torch.distributed.nn.functional import all_gather

        return torch.cat(all_gather(tensor))
    parts = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def _rank() -> int:
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0
