"""No adapter file (experimental): each step the model first sees the noised references, then the picture sees them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ....realrag.adapters.attention import attend, merge_heads
from ....realrag.injection.combine import balance
from ....realrag.injection.shared_attention import (
    Statistics,
    adain,
    as_bias,
    attend_to_both,
    fixed_noise,
    frequency_scale,
    noised,
)
from ..inputs.base_model import BaseModel
from ..inputs.controls import Controls, RowGroup
from .blocks import Place, with_blocks
from .injection import Active, DeviceTensors, Injection, ModelCall
from .rows import by_position

# Conditioning that does not depend on the picture's size, so it holds for a reference of another size too.
SIZELESS = ("y", "guidance")


class SharedInjection(Injection):
    """Holds the references' latents and one fixed noise for each."""

    def __init__(self, base: BaseModel, controls: Controls, latents: list[Tensor], seeds: list[int]):
        """latents: (1, C, h, w) each, in the space in which the model is sampled."""
        super().__init__(base, controls)
        noises = [fixed_noise(latent, seed) for latent, seed in zip(latents, seeds, strict=True)]
        self.latents = DeviceTensors([latent.float().cpu() for latent in latents] + noises)

    def end_sampling(self) -> None:
        super().end_sampling()
        self.latents.release()

    def start(self, call: ModelCall) -> ActiveShared | None:
        acting = self.groups(call, len(self.latents.tensors) // 2)
        return ActiveShared(self, call, acting) if acting else None

    @torch.compiler.disable
    def record(self, call: ModelCall, first_rows: list[int], picks: list[int]) -> dict[tuple, Recorded]:
        """Run the bare model on each picked reference, once for each prompt, which is known by its first row."""
        tensors = self.latents.on(call.x.device)
        scale = frequency_scale(self.base.axes).to(call.x.device) if self.base.axes else None
        recorder = Recorder(scale, lambda kind, index: self.amount(kind, index) > 0)
        for i in picks:
            latent, noise = tensors[i], tensors[len(tensors) // 2 + i]
            run_on_reference(call, first_rows, noised(latent.to(call.x), noise.to(call.x), call.sigma), recorder)
        return recorder.joined()


def run_on_reference(call: ModelCall, first_rows: list[int], x: Tensor, recorder: Recorder) -> None:
    """Run the bare model on one noised reference (1, C, h, w) with the prompts of these rows, and record."""
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
        parts=by_position([0] * batch, batch), n_image=call.base.image_tokens(x.shape),
    )  # fmt: skip
    call.run(x, own.t, None, own.context, None, with_blocks(options, own, [recorder]), **kwargs)


@dataclass(eq=False)
class Recorder(Active):
    """Records keys and values of the reference's image rows (and queries where AdaIN needs them) by attention call."""

    scale: Tensor | None  # (D,) for rotated keys; None: no rotary embedding, AdaIN instead
    wanted: Callable[[str, int], bool]  # kind and index of the blocks that the references enter
    found: dict[tuple, list[tuple[Tensor, ...]]] = field(default_factory=dict)

    def wants(self, kind: str, index: int) -> bool:
        return self.wanted(kind, index)

    def attention(self, place: Place, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
        q, k, v = (tensor[:, :, place.image] for tensor in (q, k, v))
        recorded = (k * self.scale.to(k), v) if self.scale is not None else (k, v, q)
        self.found.setdefault(place.key, []).append(tuple(tensor.clone() for tensor in recorded))

    def joined(self) -> dict[tuple, Recorded]:
        """All references side by side: attention call -> keys, values, and queries where AdaIN needs them."""
        joined = {}
        while self.found:
            key, recorded = self.found.popitem()
            sizes = tuple(one[0].shape[2] for one in recorded)
            k, v, *q = (torch.cat(tensors, 2) for tensors in zip(*recorded, strict=True))
            joined[key] = Recorded(k, v, q[0] if q else None, sizes)
        return joined


@dataclass(frozen=True, eq=False)
class Recorded:
    k: Tensor  # (prompts, H, R, D)
    v: Tensor
    q: Tensor | None
    sizes: tuple[int, ...]  # of each reference along R

    def of(self, prompt: int, places: list[int]) -> Recorded:
        """One prompt's part of some of the references."""
        one, sizes = slice(prompt, prompt + 1), tuple(self.sizes[i] for i in places)
        if len(places) == len(self.sizes):
            return Recorded(self.k[one], self.v[one], None if self.q is None else self.q[one], sizes)
        k, v, q = (
            None if t is None else torch.cat([t[one].split(self.sizes, 2)[i] for i in places], 2)
            for t in (self.k, self.v, self.q)
        )
        return Recorded(k, v, q, sizes)


@dataclass(eq=False)
class ActiveShared(Active):
    injection: SharedInjection
    call: ModelCall
    groups: list[RowGroup]

    def __post_init__(self):
        self.picks = sorted({i for group in self.groups for i in group.picks})  # the references that are recorded
        first_rows: dict = {}
        for group in self.groups:
            first_rows.setdefault(group.prompt, group.rows.start)
        self.prompts, self.first_rows = list(first_rows), list(first_rows.values())

        self.recorded: dict[tuple, Recorded] | None = None

    def prepare(self) -> None:
        """Run the references when the first block is reached: a cache that skips the network skips them with it."""
        if self.recorded is None:
            self.recorded = self.injection.record(self.call, self.first_rows, self.picks)

    def wants(self, kind: str, index: int) -> bool:
        return self.injection.amount(kind, index) > 0

    def attention(self, place: Place, q: Tensor, k: Tensor, v: Tensor, out: Tensor) -> None:
        recorded = self.recorded.get(place.key)
        if recorded is None:
            return
        image, amount = place.image, self.injection.amount(place.block.kind, place.block.index)
        direct = place.untouched and self.injection.controls.plain
        for group in self.groups:
            rows = group.rows
            prompt = self.prompts.index(group.prompt)
            mask = rows_of(place.mask, rows, image, q)
            q_image, k_own = q[rows, :, image], k[rows]

            def attended(chosen, bias, group=group, rows=rows, prompt=prompt, mask=mask, q_image=q_image, k_own=k_own):
                """Attention to own keys and those of the chosen references: (B, L, H*D)."""
                shown = recorded.of(prompt, [self.picks.index(group.picks[i]) for i in chosen])
                weights = [group.mixer.weights[i] for i in chosen]
                q_styled, k_styled = adapted(q_image, k_own, image, shown, weights, amount)
                bias = by_reference(bias, shown.sizes)
                return merge_heads(attend_to_both(q_styled, k_styled, v[rows], shown.k, shown.v, amount, mask, bias))

            if direct:
                out[rows, image] = attended(range(len(group.picks)), None).to(out)
                continue
            # Masks, several branches, another plugin or another injection: add only what these references change.
            own = merge_heads(attend(q_image, k_own, v[rows], mask))
            delta = group.mixer(lambda chosen, bias, attended=attended, own=own: attended(chosen, bias) - own)
            if self.injection.controls.balance > 0:
                delta = balance(delta, own, self.injection.controls.balance)
            out[rows, image] += delta.to(out)


def adapted(
    q: Tensor, k: Tensor, image: slice, shown: Recorded, weights: list[float], strength: float
) -> tuple[Tensor, Tensor]:
    """Queries and own image keys with the references' statistics (SD3); unchanged where keys are rotated (Flux)."""
    if shown.q is None:
        return q, k
    amount, counts = min(strength, 1.0), None
    if len(set(weights)) > 1:
        counts = torch.cat([k.new_full((size,), w) for size, w in zip(shown.sizes, weights, strict=True)]).float()
    of_q, of_k = Statistics.of(shown.q, weights=counts), Statistics.of(shown.k, weights=counts)
    k = torch.cat((k[:, :, : image.start], adain(k[:, :, image], of_k, amount), k[:, :, image.stop :]), 2)
    return adain(q, of_q, amount), k


def by_reference(bias: Tensor | None, sizes: tuple[int, ...]) -> Tensor | None:
    """(N, L or 1) for each reference -> (L or 1, R) for each of its tokens."""
    return (
        None
        if bias is None
        else torch.cat([row[:, None].expand(-1, size) for row, size in zip(bias, sizes, strict=True)], 1)
    )


def rows_of(mask: Tensor | None, rows: slice, image: slice, q: Tensor) -> Tensor | None:
    """The part of an attention mask that concerns these batch rows and the image's queries, added to the scores."""
    if mask is None:
        return None
    bias = as_bias(mask, q)
    bias = bias[rows] if bias.shape[0] == q.shape[0] else bias
    return bias[:, :, image] if bias.shape[2] == q.shape[2] else bias
