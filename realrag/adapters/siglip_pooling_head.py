"""SigLIP's pooling head: one learned query attends to all patches, then an MLP. ComfyUI's vision models leave it out.

Source: transformers SiglipMultiheadAttentionPoolingHead. Its weights lie in the vision file as vision_model.head.*.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..artifact import what_file_is
from ..errors import AdapterError, brief
from .attention import attend, layer_norm, linear, merge_heads, split_heads
from .reading import read_weights
from .spec import check_shapes, check_values, dimension

HEAD = "vision_model.head."
BARE = "head."  # of a tower that transformers 5 saved alone
HEAD_DIM = 72  # so400m: 1152 channels in 16 heads; other widths have heads of 64
LABEL = "a SigLIP vision model with its pooling head"


class MapHead(nn.Module):
    """q = probe W_q; x = out(SDPA(q, k, v)); pooled = x + MLP(LayerNorm(x)), with the tanh GELU."""

    def __init__(self, weights: Mapping[str, Tensor]):
        """weights: the file's keys without `vision_model.head.`."""
        super().__init__()
        shapes = {key: tuple(tensor.shape) for key, tensor in weights.items()}
        self.width = width = dimension(shapes, "probe", 2, 3, LABEL)
        inner = dimension(shapes, "mlp.fc1.weight", 0, 2, LABEL)
        check_shapes(
            shapes,
            {
                "probe": (1, 1, width),
                "attention.in_proj_weight": (3 * width, width),
                "attention.in_proj_bias": (3 * width,),
                **_pair("attention.out_proj", width, width),
                "layernorm.weight": (width,),
                "layernorm.bias": (width,),
                **_pair("mlp.fc1", inner, width),
                **_pair("mlp.fc2", width, inner),
            },
            LABEL,
        )
        check_values(weights)
        self.heads = heads_of(width)
        with torch.device("meta"):
            self.project = nn.Linear(width, 3 * width)
            self.out, self.norm = nn.Linear(width, width), nn.LayerNorm(width, eps=1e-6)
            self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)
            self.probe = nn.Parameter(torch.empty(1, 1, width))
        names = {"attention.in_proj_": "project.", "attention.out_proj.": "out.", "layernorm.": "norm.", "mlp.": ""}
        renamed = {}
        for key, tensor in weights.items():
            for theirs, ours in names.items():
                key = ours + key.removeprefix(theirs) if key.startswith(theirs) else key
            renamed[key] = tensor
        self.load_state_dict(renamed, strict=True, assign=True)
        self.requires_grad_(False)

    def forward(self, hidden: Tensor) -> Tensor:
        """The vision model's last hidden state (N, L, E), behind its final LayerNorm -> pooled (N, E)."""
        w_q, w_kv = self.project.weight.to(hidden).split((self.width, 2 * self.width))
        b_q, b_kv = self.project.bias.to(hidden).split((self.width, 2 * self.width))
        q = F.linear(self.probe.to(hidden).expand(hidden.shape[0], -1, -1), w_q, b_q)
        k, v = F.linear(hidden, w_kv, b_kv).chunk(2, -1)
        x = linear(self.out, merge_heads(attend(*(split_heads(t, self.heads) for t in (q, k, v)))))
        return (x + linear(self.fc2, F.gelu(linear(self.fc1, layer_norm(self.norm, x)), approximate="tanh")))[:, 0]


def heads_of(width: int) -> int:
    """Every published SigLIP has heads of 64 channels, except so400m with heads of 72; the file does not say."""
    head_dim = HEAD_DIM if width == 1152 else 64 if width % 64 == 0 else width
    return width // head_dim


def _pair(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def _prefix(names: Collection[str]) -> str:
    """How the names of the pooling head's tensors begin in a file with these names."""
    return BARE if BARE + "probe" in names and HEAD + "probe" not in names else HEAD


def head_width(path: Path) -> int | None:
    """The width of the pooling head in a vision file, from its header alone; None where there is none."""
    try:
        with safe_open(path, framework="pt") as file:
            probe = _prefix(file.keys()) + "probe"
            shape = file.get_slice(probe).get_shape() if probe in file.keys() else []
            return shape[-1] if len(shape) == 3 else None
    except (SafetensorError, OSError, ValueError):
        return None


def load_map_head(path: Path) -> MapHead:
    """The pooling head out of a SigLIP vision file (`.safetensors`, or a pickle through the weights-only reader)."""
    path = Path(path)
    if path.suffix == ".safetensors":  # not through `artifact`, which reads a file whole: the head is 2 % of this one
        try:
            with safe_open(path, framework="pt") as file:
                prefix = _prefix(file.keys())
                weights = {key: file.get_tensor(key) for key in file.keys() if key.startswith(prefix)}
        except (SafetensorError, OSError, ValueError) as error:
            if other := what_file_is(path):
                raise AdapterError(f"{path.name} is not a vision model: {other}") from None
            raise AdapterError(f"{path.name} is damaged ({brief(error)}). Download it again.") from error
    else:
        whole = read_weights(path)
        prefix = _prefix(whole)
        weights = {key: tensor for key, tensor in whole.items() if key.startswith(prefix)}
    if not weights:
        raise AdapterError(
            f"{path.name} holds no pooling head ({HEAD}*). Use a complete SigLIP vision file, such as the "
            "model.safetensors of siglip-so400m-patch14-384."
        )
    try:
        return MapHead({key.removeprefix(prefix): tensor.clone() for key, tensor in weights.items()})
    except AdapterError as error:
        raise AdapterError(f"{path.name}: {error}") from error
