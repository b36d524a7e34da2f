"""No adapter file (experimental): each step the model first sees the noised references, then the picture sees them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..realrag.adapters.attention import attend, merge_heads
from ..realrag.shared_attention import (
    Statistics,
    adain,
    as_bias,
    attend_to_both,
    fixed_noise,
    frequency_scale,
    noised,
)
from .base_model import Base
from .patch import Held, Injection, ModelCall, Place, with_blocks

# Conditioning that does not depend on the picture's size, so it holds for a reference of another size too.
SIZELESS = ("y", "guidance")


class SharedInjection(Injection):
    """Holds the references' latents and one fixed noise for each."""

    def __init__(self, base: Base, latents: list[Tensor], seeds: list[int], **dials):
        """latents: (1, C, h, w) each, in the space in which the model is sampled."""
        super().__init__(base, **dials)
        noises = [fixed_noise(latent, seed) for latent, seed in zip(latents, seeds, strict=True)]
        self.held = Held([latent.float().cpu() for latent in latents] + noises)

    def to(self, where) -> SharedInjection:
        self.held.to(where)
        return self

    def start(self, call: ModelCall) -> ActiveShared | None:
        if not call.positive:
            return None
        recorder = Recorder(frequency_scale(self.base.axes).to(call.x.device) if self.base.axes else None)
        half = len(self.held.tensors) // 2
        for latent, noise in zip(self.held.tensors[:half], self.held.tensors[half:], strict=True):
            see_reference(call, noised(latent.to(call.x), noise.to(call.x), call.sigma), recorder)
        return ActiveShared(recorder.joined(), self.strength)


def see_reference(call: ModelCall, x: Tensor, recorder: Recorder) -> None:
    """Run the bare model on one noised reference (1, C, h, w), once for each positive prompt, and record."""
    first_rows = [rows.start for rows in call.positive]
    size, batch = call.x.shape[0], len(first_rows)

    def pick(tensor: Tensor | None) -> Tensor | None:
        return tensor[first_rows] if tensor is not None and tensor.shape[0] == size else tensor

    kwargs = {name: pick(call.kwargs[name]) for name in SIZELESS if name in call.kwargs}
    options = {name: call.options[name] for name in ("sigmas", "sample_sigmas") if name in call.options}
    options["cond_or_uncond"] = [0] * batch
    x = x.expand(batch, -1, -1, -1)
    own = ModelCall(
        base=call.base, net=call.net, run=call.run, x=x, t=call.t[first_rows], sigma=call.sigma,
        context=pick(call.context), kwargs=kwargs, options=options,
        chunks=[(True, slice(i, i + 1)) for i in range(batch)], n_image=call.base.image_tokens(x.shape),
    )  # fmt: skip
    call.run(x, own.t, None, own.context, None, with_blocks(options, own, [recorder]), **kwargs)


@dataclass(eq=False)
class Recorder:
    """Keeps keys and values of the reference's image rows (and queries where AdaIN needs them) per attention call."""

    scale: Tensor | None  # (D,) for rotated keys; None: no rotary embedding, AdaIN instead
    seen: dict[tuple, list[tuple[Tensor, ...]]] = field(default_factory=dict)

    def wants(self, kind: str, index: int) -> bool:
        return True

    def attention(self, place: Place, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
        q, k, v = (tensor[:, :, place.image] for tensor in (q, k, v))
        kept = (k * self.scale.to(k), v) if self.scale is not None else (k, v, q)
        self.seen.setdefault(place.key, []).append(tuple(tensor.clone() for tensor in kept))

    def after_block(self, place: Place, image: Tensor) -> Tensor:
        return image

    def joined(self) -> dict[tuple, Recorded]:
        """All references side by side: attention call -> keys, values and statistics."""
        joined = {}
        while self.seen:
            key, kept = self.seen.popitem()
            k, v, *q = (torch.cat(tensors, 2) for tensors in zip(*kept, strict=True))
            joined[key] = Recorded(k, v, (Statistics.of(q[0]), Statistics.of(k)) if q else None)
        return joined


@dataclass(frozen=True)
class Recorded:
    k: Tensor  # (prompts, H, R, D)
    v: Tensor
    statistics: tuple[Statistics, Statistics] | None  # of q and k, for AdaIN


@dataclass(eq=False)
class ActiveShared:
    recorded: dict[tuple, Recorded]
    strength: float

    def wants(self, kind: str, index: int) -> bool:
        return (kind, index, 0) in self.recorded

    def attention(self, place: Place, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
        recorded = self.recorded.get(place.key)
        if recorded is None:
            return
        image = place.image
        for prompt, rows in enumerate(place.call.positive):
            one = slice(prompt, prompt + 1)
            mask = rows_of(place.mask, rows, image, q)
            q_image, k_own = q[rows, :, image], k[rows]
            seen = attend_to_both(
                *self.adapted(q_image, k_own, image, recorded, one), v[rows],
                recorded.k[one], recorded.v[one], self.strength, mask,
            )  # fmt: skip
            if place.untouched:
                out[rows, image] = merge_heads(seen).to(out)
            else:  # another plugin or another injection was here: add only what these references change
                out[rows, image] += merge_heads(seen - attend(q_image, k_own, v[rows], mask)).to(out)

    def adapted(self, q: Tensor, k: Tensor, image: slice, recorded: Recorded, one: slice) -> tuple[Tensor, Tensor]:
        """Queries and own image keys with the reference's statistics (SD3); unchanged where keys are rotated (Flux)."""
        if recorded.statistics is None:
            return q, k
        amount = min(self.strength, 1.0)
        of_q, of_k = (Statistics(s.mean[one], s.std[one]) for s in recorded.statistics)
        k = torch.cat((k[:, :, : image.start], adain(k[:, :, image], of_k, amount), k[:, :, image.stop :]), 2)
        return adain(q, of_q, amount), k

    def after_block(self, place: Place, image: Tensor) -> Tensor:
        return image


def rows_of(mask: Tensor | None, rows: slice, image: slice, q: Tensor) -> Tensor | None:
    """The part of an attention mask that concerns these batch rows and the image's queries, added to the scores."""
    if mask is None:
        return None
    bias = as_bias(mask, q)
    bias = bias[rows] if bias.shape[0] == q.shape[0] else bias
    return bias[:, :, image] if bias.shape[2] == q.shape[2] else bias
