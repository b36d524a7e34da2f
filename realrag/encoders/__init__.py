"""Encoders: photos and texts -> vectors in one space, and the reflective head behind them. Never imports bundles, indexes or photo folders."""

from .base import Encoder
from .load import load_encoder

__all__ = ["Encoder", "load_encoder"]
