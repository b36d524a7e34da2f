"""How strength is spread over a generator's blocks, and presets that stand for whole settings.

The ramp is that of diffusers for Flux XLabs (0.3 to 0.92); the eases are those of ComfyUI's IPAdapter_plus (0.05 to 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import AdapterError

FLAT, CUSTOM = "linear", "custom"
# As artists ask for it. In the miniatures the early blocks carry more of the layout, the late ones more of color and
# texture (`realrag bench blocks`, docs/injection.md). Experimental: real weights have not been measured.
COMPOSITION, STYLE = "composition (experimental)", "style (experimental)"
PROFILES = (
    FLAT, "ease in", "ease out", "ease in-out", "first half", "second half", "double only", "single only",
    "ramp 0.3 to 0.92", COMPOSITION, STYLE, CUSTOM,
)  # fmt: skip
LEAST = 0.05


def factors(profile: str, double: int, single: int, custom: str = "") -> tuple[float, ...]:
    """One factor on the strength for each block that takes references: double blocks first, then single ones."""
    total = double + single
    if profile == CUSTOM:
        found = _custom(custom, total)
    elif profile in PROFILES:
        found = tuple(_factor(profile, i, total, double) for i in range(total))
    else:
        raise AdapterError(f"{profile!r} is not a layer profile. Choose one of {', '.join(PROFILES)}.")
    if not any(found):
        raise AdapterError(
            f"The layer profile {profile!r} leaves no block of this model: references enter {double} double and "
            f"{single} single blocks. Choose another profile, or the strength 0."
        )
    return found


def _factor(profile: str, i: int, total: int, double: int) -> float:
    if total == 1 and not profile.endswith("only"):
        return 1.0
    t = i / max(1, total - 1)
    return {
        FLAT: 1.0,
        "ease in": LEAST + (1 - LEAST) * t,
        "ease out": 1 - (1 - LEAST) * t,
        "ease in-out": LEAST + (1 - LEAST) * (1 - abs(2 * t - 1)),
        "first half": float(2 * i < total),
        "second half": float(2 * i >= total),
        "double only": float(i < double),
        "single only": float(i >= double),
        COMPOSITION: float(2 * i < total),
        STYLE: float(2 * i >= total),
        "ramp 0.3 to 0.92": 0.3 + (0.92 - 0.3) * t,
    }[profile]


def _custom(text: str, total: int) -> tuple[float, ...]:
    """Read 0.3, 0.5, 1 as a factor for each block. Fewer than blocks are stretched over them."""
    try:
        found = [float(word) for word in text.replace(",", " ").replace(";", " ").split()]
    except ValueError:
        raise AdapterError(f"The custom profile {text!r} must be a list of numbers, such as 0.3, 0.6, 1.") from None
    if not 0 < len(found) <= total or not all(math.isfinite(f) and -5 <= f <= 5 for f in found):
        raise AdapterError(
            f"The custom profile has {len(found)} numbers; give 1 to {total} (one for each block), each from -5 to 5."
        )
    return tuple(found[i * len(found) // total] for i in range(total))


@dataclass(frozen=True)
class Preset:
    """Strength, the part of the sampling after which the references leave, and the layer profile."""

    strength: float
    end: float
    profile: str = FLAT


AS_SET = "as set below"
WORDS = (AS_SET, "subtle", "balanced", "strong", "close to the photos")
_RAMP = "ramp 0.3 to 0.92"
_PLAIN = (Preset(0.35, 0.8), Preset(0.6, 0.9), Preset(0.85, 1.0), Preset(1.1, 1.0))
# Starting points from the adapters' own cards and code; families without an entry use _PLAIN.
_PRESETS = {
    "flux-xlabs": (Preset(0.7, 0.8, _RAMP), Preset(1.0, 0.9, _RAMP), Preset(0.9, 1.0), Preset(1.15, 1.0)),
    "sd35-instantx": (Preset(0.25, 0.8), Preset(0.5, 0.9), Preset(0.7, 1.0), Preset(0.95, 1.0)),
    "shared": (Preset(0.5, 0.8), Preset(0.8, 0.9), Preset(1.0, 1.0), Preset(1.4, 1.0)),
}


def preset(word: str, family: str) -> Preset | None:
    """The settings of a preset for one family of adapters; None where the artist's own settings hold."""
    if word == AS_SET:
        return None
    if word not in WORDS:
        raise AdapterError(f"{word!r} is not a preset. Choose one of {', '.join(WORDS)}.")
    return _PRESETS.get(family, _PLAIN)[WORDS.index(word) - 1]
