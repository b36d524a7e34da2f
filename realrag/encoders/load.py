"""Loads an encoder by name, file or folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .. import SMALL_ENCODER as SMALL
from .base import Encoder
from .general import GENERAL, GeneralEncoder
from .small import SMALL_FILE, SmallEncoder

log = logging.getLogger(__name__)


def load_encoder(
    name: str = SMALL,
    *,
    folder: Path | None = None,
    device: str | torch.device = "cpu",
    offline: bool = False,
    made_with: Mapping[str, Any] | None = None,
) -> Encoder:
    """Load an encoder by name.

    name: "realrag-general" or "realrag-small"; "ARCH:TAG", "ARCH:FILE" or "ARCH:TAG=FILE" of open_clip; a folder in open_clip's layout; a
        CLIP or SigLIP of transformers, file or folder; the folder of a general encoder; or a small-encoder file.
    folder: a folder that holds the weights (a bundle's `encoder` folder).
    device: see `on_device`. offline: never open a connection. made_with: the `encoder` entry of the bundle that the
        encoder is loaded for; a bundle of an earlier version is then asked as it was made, with a warning where that
        was wrong.
    Raises EncoderError.
    """
    from . import transformers_files
    from .open_clip import OpenClipEncoder
    from .transformers_encoder import TransformersEncoder

    place = Path(folder or name)
    if (place / SmallEncoder.FILE).is_file():
        encoder: Encoder = SmallEncoder(place / SmallEncoder.FILE, name if folder else place.resolve().name)
    elif (place / GeneralEncoder.IMAGE).is_file():
        encoder = GeneralEncoder(place, name if folder else place.resolve().name)
    elif (place / OpenClipEncoder.CONFIG).is_file():
        encoder = OpenClipEncoder(name if folder else place.resolve().name, folder=place, offline=offline)
    elif transformers_files.is_folder(place):
        encoder = TransformersEncoder(place, name if folder else "")
    elif place.is_file() and place.suffix == ".safetensors" and transformers_files.is_file(place):
        encoder = TransformersEncoder(place)
    elif place.is_file() and place.suffix == ".safetensors":
        encoder = SmallEncoder(place, place.stem)
    elif name == SMALL:
        encoder = SmallEncoder(SMALL_FILE)
    elif name == GENERAL:
        encoder = GeneralEncoder()
    else:
        encoder = OpenClipEncoder(name, offline=offline, made_with=made_with)
    if made_with is not None and encoder.fault:
        log.warning("This library was %s.", encoder.fault)
    return on_device(encoder, device)


def on_device(encoder: Encoder, device: str | torch.device) -> Encoder:
    """Move the encoder: fp32 on a CPU, bf16 on a GPU (fp16 on cards without bf16)."""
    device = torch.device(device)
    if device.type != "cpu":
        half = torch.bfloat16 if device.type != "cuda" or torch.cuda.is_bf16_supported() else torch.float16
        _ = encoder.fingerprint, encoder.image_fingerprint  # hashed in fp32, before rounding
        encoder.to(device, half)
    return encoder
