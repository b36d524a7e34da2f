"""Photos and words -> vectors in one space, and what is put behind them. Knows no bundle, no index and no photo folder."""

from .base import Encoder
from .load import load_encoder

__all__ = ["Encoder", "load_encoder"]
