"""What an adapter file is and needs, and the checks that say so in words before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..artifact import all_finite
from ..errors import AdapterError

Shapes = Mapping[str, tuple[int, ...]]
POOLED = ("image_embeds", "pooler_output")
LISTED = 3  # keys named in an error before "and N more"


@dataclass(frozen=True)
class AdapterSpec:
    """Read from a file's keys and shapes alone; the file's name never matters."""

    family: str  # "flux-xlabs", "flux-instantx", "flux-redux" or "sd35-instantx"
    label: str  # the family in words
    base: str  # the generator it was trained for, in words
    width: int  # channels of that generator (Redux: of its text)
    n_blocks: int  # blocks it feeds: the double (joint) ones, and the single ones where `single_blocks`
    head_dim: int | None  # None: the file does not say, the generator decides
    encoder: str  # the image encoder in words
    encoder_dim: int
    encoder_output: str  # "image_embeds" or "pooler_output" (N, E), "penultimate_" or "last_hidden_state" (N, L, E)
    crop: bool  # True: shorter side to size, center crop. False: squash to a square
    tokens: int  # per reference
    single_blocks: bool = False  # does it feed Flux's single blocks too?
    encoder_sha256: str = ""  # of the image encoder's weights, where the file says so
    encoder_tokens: int = 0  # L, where the shapes fix it

    def with_metadata(self, about: Mapping[str, str]) -> AdapterSpec:
        """With what a file of our own says of itself (docs/injection.md): the generator and the image encoder by name
        and hash."""
        if not about:
            return self
        if about.get("family") != self.family:
            raise AdapterError(
                f"The file calls itself {about.get('family')!r}, but holds {self.label}. It was changed: get it again."
            )
        return replace(
            self,
            label=f"{self.label}, for {about['base']}",
            base=about["base"],
            encoder=about["encoder"],
            encoder_sha256=about["encoder_sha256"],
        )

    @property
    def cure(self) -> str:
        """Where the right image encoder is to be had."""
        if self.encoder_sha256:
            return f"Connect clip_vision of Load Reflective Retriever, with a bundle that was made with {self.encoder}."
        return f"Load {self.encoder} with Load CLIP Vision and connect it to clip_vision."

    def check_base(self, family: str, name: str, width: int, n_blocks: int) -> None:
        """Refuse a generator that this adapter was not made for. `family` is "flux" or "sd3"."""
        if self.family.startswith("flux") != (family == "flux") or (width, n_blocks) != (self.width, self.n_blocks):
            raise AdapterError(
                f"This adapter ({self.label}) was made for {self.base} with {self.n_blocks} blocks of width "
                f"{self.width}, but the model is {name} with {n_blocks} blocks of width {width}. Load that base model, "
                "or connect no adapter: a VAE alone lets the references in without one."
            )

    def check_encoder(self, sha256: str, weights_sha256: str = "") -> None:
        """Refuse another image encoder than the one the file names. sha256: the encoder's `adapter_sha256`, "" where
        unknown; weights_sha256: the hash of its weights alone, which earlier versions wrote into adapters."""
        if not self.encoder_sha256 or sha256 == self.encoder_sha256:
            return
        if weights_sha256 == self.encoder_sha256:
            raise AdapterError(
                f"This adapter ({self.label}) was trained on {self.encoder} as an earlier version of RealRAG built it: the "
                "same weights, with GELU in place of QuickGELU. Connect clip_vision of Load Reflective Retriever with a "
                "library of that version, or train the adapter again."
            )
        raise AdapterError(
            f"This adapter ({self.label}) was trained on the image encoder {self.encoder} "
            f"({self.encoder_sha256[:12]}), but the connected one is another ({sha256[:12] or 'of unknown weights'}): "
            f"it would see noise. {self.cure}"
        )

    def check_features(self, features: Tensor) -> None:
        """Refuse the output of an image encoder that this adapter was not trained on."""
        fits = features.ndim == (2 if self.encoder_output in POOLED else 3) and features.shape[-1] == self.encoder_dim
        if not fits or self.encoder_tokens not in (0, features.shape[1]):
            raise AdapterError(
                f"This adapter ({self.label}) reads {self.encoder_output} of width {self.encoder_dim} from "
                f"{self.encoder}, but the connected CLIP Vision model gives width {features.shape[-1]} "
                f"(shape {tuple(features.shape)}). {self.cure}"
            )


def encoder_name(dim: int, known: dict[int, str]) -> str:
    return known.get(dim, f"the image encoder it was trained with (width {dim})")


def dimension(shapes: Shapes, key: str, axis: int, ndim: int, label: str) -> int:
    """One size of a tensor that must be there and have `ndim` axes."""
    shape = shapes.get(key)
    if shape is None or len(shape) != ndim or min(shape) < 1:
        found = "is missing" if shape is None else f"has shape {tuple(shape)}"
        raise AdapterError(f"This looks like {label}, but {key} {found}. The file is damaged: download it again.")
    return shape[axis]


def whole_tokens(out: int, context: int, label: str) -> int:
    """How many tokens of width `context` a projector with `out` outputs makes; AdapterError where they do not come out
    even."""
    tokens, rest = divmod(out, context)
    if rest or not tokens:
        raise AdapterError(
            f"This looks like {label}, but its projector gives {out} numbers, which is no whole number of tokens of "
            f"width {context}. The file is damaged: download it again."
        )
    return tokens


def count_blocks(shapes: Shapes, prefix: str) -> int:
    """1 + the highest block number after `prefix`; a gap shows later as a missing key."""
    numbers = [key[len(prefix) :].split(".")[0] for key in shapes if key.startswith(prefix)]
    return 1 + max((int(n) for n in numbers if n.isdecimal() and len(n) < 4), default=-1)


def check_shapes(shapes: Shapes, expected: Shapes, label: str) -> None:
    """Every expected tensor is there with its shape, and nothing else is."""
    missing = [key for key in expected if key not in shapes]
    extra = sorted(key for key in shapes if key not in expected)
    wrong = [
        f"{key} is {tuple(shapes[key])} where {tuple(shape)} belongs"
        for key, shape in expected.items()
        if key in shapes and tuple(shapes[key]) != tuple(shape)
    ]
    for found, words in ((missing, "is missing"), (wrong, "has the wrong shape"), (extra, "is unknown")):
        if found:
            raise AdapterError(
                f"This looks like {label}, but something {words}: {_listed(found)}. "
                "The file is damaged or of another version: download it again."
            )


def check_values(weights: Mapping[str, Tensor]) -> None:
    """Only fp16, bf16 or fp32, and no NaN or infinity. Tensors without data (meta) pass."""
    for key, tensor in weights.items():
        if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32):
            raise AdapterError(
                f"{key} is stored as {str(tensor.dtype).removeprefix('torch.')}; an adapter is fp16, bf16 or fp32. "
                "Use the original, unquantised file."
            )
        if not tensor.is_meta and not all_finite(tensor):
            raise AdapterError(f"{key} holds NaN or infinity. The file is damaged: download it again.")


def _listed(items: Sequence[str]) -> str:
    more = len(items) - LISTED
    return ", ".join(items[:LISTED]) + (f" and {more} more" if more > 0 else "")
