"""Flux Redux: image tokens as the generator's own text tokens. Nothing in the model is touched.

Source: black-forest-labs/flux, ReduxImageEncoder; pooling of the token grid as in ComfyUI_AdvancedRefluxControl.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import linear
from .spec import AdapterSpec, Shapes, check_shapes, dimension, encoder_name

FAMILY = "flux-redux"
LABEL = "Flux Redux"
ENCODERS = {1152: "SigLIP so400m-patch14-384"}
GRID = 27  # patches on a side of a 384 pixel picture


def rename(key: str) -> str:
    return key


def recognizes(shapes: Shapes) -> bool:
    return "redux_up.weight" in shapes and "redux_down.weight" in shapes


def inspect(shapes: Shapes) -> AdapterSpec:
    """Sizes from the shapes, every tensor checked against them."""
    label = f"a {LABEL} file"
    inner, encoder_dim = (dimension(shapes, "redux_up.weight", axis, 2, label) for axis in (0, 1))
    context = dimension(shapes, "redux_down.weight", 0, 2, label)
    expected = {
        "redux_up.weight": (inner, encoder_dim),
        "redux_up.bias": (inner,),
        "redux_down.weight": (context, inner),
        "redux_down.bias": (context,),
    }
    check_shapes(shapes, expected, label)
    return AdapterSpec(
        family=FAMILY,
        label=LABEL,
        base="FLUX.1",
        width=context,
        n_blocks=0,
        head_dim=None,
        encoder=encoder_name(encoder_dim, ENCODERS),
        encoder_dim=encoder_dim,
        encoder_output="last_hidden_state",
        crop=False,
        tokens=GRID**2,
    )


class ReduxAdapter(nn.Module):
    """tokens = W_down SiLU(W_up hidden + b_up) + b_down, one for each patch, in the text encoder's space."""

    def __init__(self, spec: AdapterSpec, weights: Mapping[str, Tensor]):
        super().__init__()
        self.spec = spec
        inner = weights["redux_up.weight"].shape[0]
        with torch.device("meta"):
            self.redux_up = nn.Linear(spec.encoder_dim, inner)
            self.redux_down = nn.Linear(inner, spec.width)
        self.load_state_dict(weights, strict=True, assign=True)
        self.requires_grad_(False)

    def tokens(self, hidden: Tensor, downsampling: int = 1) -> Tensor:
        """The vision model's last hidden state (N, L, E) -> (N, T, C), with T = L at downsampling 1."""
        self.spec.check_features(hidden)
        return pooled(linear(self.redux_down, F.silu(linear(self.redux_up, hidden))), downsampling)


def pooled(tokens: Tensor, downsampling: int) -> Tensor:
    """Means over a square grid of tokens (N, side^2, C) -> (N, (side // downsampling)^2, C); other counts stay."""
    side = math.isqrt(tokens.shape[1])
    if downsampling <= 1 or side * side != tokens.shape[1]:
        return tokens
    grid = tokens.transpose(1, 2).unflatten(2, (side, side))
    return F.interpolate(grid, size=max(1, side // downsampling), mode="area").flatten(2).transpose(1, 2)


build = ReduxAdapter
