"""RealRAG: find real photos for a prompt, and condition image generators on them (arXiv 2502.00848).

The public interface is `__all__`, the command line `realrag`, and the formats in docs/bundle.md and docs/adapters.md. They
follow semantic versioning; every other module may change with any version.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bundle.bundle import Bundle
    from .encoders.load import load_encoder
    from .retriever import Retriever

__version__ = "0.2.0"
__all__ = ["Bundle", "Retriever", "__version__", "load_encoder"]

# The encoders that ship with the package: the one for a new library of anything, and the one that the miniatures and their
# adapters see and read with. They stand here so that the command line can name them without loading torch.
DEFAULT_ENCODER, SMALL_ENCODER = "realrag-general", "realrag-small"
SHIPPED_ENCODERS = (DEFAULT_ENCODER, SMALL_ENCODER)
_HOMES = {"Bundle": ".bundle.bundle", "Retriever": ".retriever", "load_encoder": ".encoders.load"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, because each of them loads torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; public are {', '.join(__all__)}.")
    return getattr(importlib.import_module(_HOMES[name], __name__), name)


STOPPED_TEXT = "realrag: stopped. Run the same command again to go on where it was."
