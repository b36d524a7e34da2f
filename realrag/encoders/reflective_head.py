"""The reflective head: a small residual MLP after the image tower. It moves photos away from what a generator already
knows (paper, section 3.3; the paper does not state depth, residual and init: they are our choice)."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import artifact
from ..errors import EncoderError, brief
from ..validation import strict_json

FORMAT, VERSION = "realrag-head", "1"
CURE = "Download it again, or train it again."


class ReflectiveHead(nn.Module):
    """(N, D) unit image vectors -> (N, D) unit vectors: unit(v + W2 gelu(W1 v + b1) + b2).

    W2 and b2 start at zero, so an untrained head is the identity and retrieval starts as plain cosine search.
    `metadata`: how it was trained (generator, encoder fingerprint, configuration), stored in the file.
    """

    def __init__(self, dim: int, hidden: int, metadata: dict | None = None):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        nn.init.zeros_(self.fc2.weight)
        nn.init.zeros_(self.fc2.bias)
        self.metadata = dict(metadata or {})

    def moved(self, v: Tensor) -> Tensor:
        """The same before it is brought to length one."""
        return v + self.fc2(F.gelu(self.fc1(v)))

    def forward(self, v: Tensor) -> Tensor:
        return F.normalize(self.moved(v), dim=-1)


def save_head(head: ReflectiveHead, path: Path) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in head.state_dict().items()}
    metadata = json.dumps(head.metadata, sort_keys=True)
    artifact.write(path, tensors, {"format": FORMAT, "version": VERSION, "facts": metadata})


def load_head(path: Path, dim: int, fingerprint: str = "") -> ReflectiveHead:
    """Read a head for D = `dim` and, if given, for the encoder with this fingerprint. Raises EncoderError for another
    format, version, width or encoder."""
    tensors, metadata = artifact.read(path, FORMAT, VERSION, "a reflective head", CURE, error=EncoderError)
    try:
        trained = strict_json(metadata.get("facts", "{}").encode())
    except ValueError as error:
        raise EncoderError(f"{path} is damaged: its facts are not JSON ({brief(error)}). {CURE}") from None
    hidden = tensors["fc1.weight"].shape[0] if tensors.get("fc1.weight", torch.empty(0)).ndim == 2 else 0
    shapes = {"fc1.weight": (hidden, dim), "fc1.bias": (hidden,), "fc2.weight": (dim, hidden), "fc2.bias": (dim,)}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != shapes or not hidden:
        raise EncoderError(
            f"{path} holds {str(found)[:300]}, but the encoder gives vectors of {dim}. Use the head made for it."
        )
    head = ReflectiveHead(dim, hidden, trained if isinstance(trained, dict) else {})
    made_for = head.metadata.get("encoder_fingerprint")
    if fingerprint and made_for and made_for != fingerprint:
        raise EncoderError(
            f"{path} was trained for another encoder ({str(made_for)[:12]}, not {fingerprint[:12]}). Train one for this."
        )
    head.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return head.eval()
