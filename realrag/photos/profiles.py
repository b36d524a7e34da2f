"""ICC profiles made from a few numbers: what gAMA, cHRM, cICP and EXIF say of color, in the form that lcms2 reads."""

from __future__ import annotations

import struct
from functools import lru_cache

import numpy as np

Curve = tuple  # ("gamma", exponent) | ("srgb",) | ("table", name)
D50 = (0.9642, 1.0, 0.8249)
D65 = (0.3127, 0.3290)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
# xy of red, green, blue and white.
SRGB = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, *D65)
ADOBE_RGB = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06, *D65)
ADOBE_GAMMA = ("gamma", 563 / 256)  # 2.19921875, Adobe RGB (1998), section 4.3.4.2
DISPLAY_P3 = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *D65)
BT2020 = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *D65)
# ITU-T H.273, tables 2 and 3. 2 is "not stated", which is taken for sRGB.
PRIMARIES = {
    1: SRGB, 2: SRGB, 4: (0.67, 0.33, 0.21, 0.71, 0.14, 0.08, 0.310, 0.316),
    5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06, *D65), 6: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *D65),
    7: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070, *D65), 9: BT2020,
    11: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351), 12: DISPLAY_P3,
}  # fmt: skip
# The camera curve of BT.709 (1, 6, 14, 15) is shown as sRGB, as browsers do; of HDR the light up to paper white is kept.
TRANSFERS: dict[int, Curve] = {
    **dict.fromkeys((1, 2, 6, 13, 14, 15), ("srgb",)), 4: ("gamma", 2.2), 5: ("gamma", 2.8), 8: ("gamma", 1.0),
    16: ("table", "pq"), 18: ("table", "hlg"),
}  # fmt: skip
PAPER_WHITE = 203.0  # cd/m2, ITU-R BT.2408


def linear(curve: Curve, values: np.ndarray) -> np.ndarray:
    """Encoded values in 0..1 -> light in 0..1, where 1 is the white of a page."""
    if curve[0] == "gamma":
        return values ** curve[1]
    if curve[0] == "srgb":
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    if curve[1] == "pq":  # SMPTE ST 2084
        root = values ** (1 / 78.84375)
        light = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
        return np.minimum(10_000 * light ** (1 / 0.1593017578125) / PAPER_WHITE, 1)
    # ITU-R BT.2100, HLG on a display of 1,000 cd/m2
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
    return np.minimum(1000 * scene**1.2 / PAPER_WHITE, 1)


def colorants(primaries: tuple[float, ...]) -> np.ndarray | None:
    """(3, 3) columns: XYZ of red, green and blue, adapted to D50 by Bradford. None for primaries that span no space."""
    xy = np.array(primaries, np.float64).reshape(4, 2)
    if not np.isfinite(xy).all() or (xy[:, 1] < 1e-3).any() or np.abs(xy).max() > 2:
        return None
    xyz = np.stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(1)) / xy[:, 1]])
    if abs(np.linalg.det(xyz[:, :3])) < 1e-4:
        return None
    scaled = xyz[:, :3] * np.linalg.solve(xyz[:, :3], xyz[:, 3])
    gain = (_BRADFORD @ np.array(D50)) / (_BRADFORD @ xyz[:, 3])
    return np.linalg.inv(_BRADFORD) @ np.diag(gain) @ _BRADFORD @ scaled


@lru_cache(64)
def rgb_profile(primaries: tuple[float, ...], curve: Curve) -> bytes:
    """An ICC profile (ICC.1:2022) of three primaries and one curve; empty where the primaries span no space."""
    matrix = colorants(primaries)
    if matrix is None or np.abs(matrix).max() > 3:
        return b""
    tags = {name: _xyz(matrix[:, at]) for at, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(curve))
    return _profile(b"RGB ", tags)


@lru_cache(64)
def gray_profile(curve: Curve) -> bytes:
    return _profile(b"GRAY", {b"kTRC": _curve(curve)})


def _xyz(values) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(_fixed(value) for value in values)


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _curve(curve: Curve) -> bytes:
    if curve[0] == "gamma":
        return b"para\0\0\0\0\0\0\0\0" + _fixed(curve[1])
    if curve[0] == "srgb":
        numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
        return b"para\0\0\0\0\0\3\0\0" + b"".join(map(_fixed, numbers))
    table = np.round(linear(curve, np.linspace(0, 1, 4096)) * 65535).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", len(table)) + table.tobytes()


def _profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    def text(words: str) -> bytes:
        data = words.encode("utf-16-be")
        return b"mluc\0\0\0\0" + struct.pack(">II", 1, 12) + b"enUS" + struct.pack(">II", len(data), 28) + data

    tags = {b"desc": text("made by RealRAG"), b"cprt": text("CC0"), b"wtpt": _xyz(D50), **tags}
    at = 128 + 4 + 12 * len(tags)
    table, body = b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data + bytes(-len(data) % 4)
    header = struct.pack(
        ">I4sI4s4s4s12s4sIIIIQI12sI16s28s",
        at + len(body), b"\0\0\0\0", 0x04300000, b"mntr", space, b"XYZ ", bytes(12), b"acsp", 0, 0, 0, 0, 0, 1,
        b"".join(map(_fixed, D50)), 0, bytes(16), bytes(28),
    )  # fmt: skip
    return header + struct.pack(">I", len(tags)) + table + body
