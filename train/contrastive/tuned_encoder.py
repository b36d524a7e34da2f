"""A tuned encoder as a folder that `load_encoder`, `realrag index --encoder` and bundles accept; and averaging it with
the encoder it was trained from (WiSE-FT, arXiv 2109.01903)."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from realrag.bundle.bundle import Bundle, unit_rows
from realrag.encoders import transformers_files
from realrag.encoders.base import Encoder
from realrag.encoders.load import load_encoder
from realrag.encoders.open_clip import OpenClipEncoder
from realrag.encoders.small import SmallEncoder
from realrag.errors import EncoderError, RealRAGError
from realrag.files import fsync_folder
from realrag.photos.scan import in_order

from ..lora import merge_lora
from .models import DECODERS, _Tower

BATCH = 64


@dataclass(frozen=True)
class TunedVectors:
    """The unit vectors of an evaluation's prompts (P, D) and photos (N, D) by a tuned encoder."""

    queries: np.ndarray
    photos: np.ndarray


def tuned_metadata(base: Encoder, mode: str, fitted: dict) -> dict:
    """The metadata of a tuned encoder. photos_of: fingerprints of the encoders whose photo vectors stay valid."""
    metadata = {"mode": mode, "base": base.fingerprint, "base_name": base.name, "facts": fitted, "photos_of": []}
    if mode == "text":
        earlier = [
            fingerprint
            for fingerprint in base.tuned.get("photos_of", [])
            if base.accepts_vectors_of({"fingerprint": fingerprint})
        ]
        metadata["photos_of"] = [*earlier, base.fingerprint]
        metadata["image_fingerprint"] = base.image_fingerprint
    return metadata


def write_tuned(encoder: Encoder, out: Path) -> Encoder:
    """Write `encoder`, whose `tuned` is its `tuned_metadata`, as the folder `out`, whole or not at all, and return it as
    `load_encoder` reads it from there."""
    out, metadata = Path(out), encoder.tuned
    refuse_to_replace(out, metadata["base"])
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    for path in encoder.save_pretrained(part):
        with open(path, "rb+") as file:
            os.fsync(file.fileno())
    fsync_folder(part)
    written = load_encoder(str(part))
    for fingerprint in metadata["photos_of"]:
        if not written.accepts_vectors_of({"fingerprint": fingerprint}):
            raise EncoderError(
                f"The image tower of {encoder.name} changed while it was written. Load the encoder from its file and try again."
            )
    shutil.rmtree(out, ignore_errors=True)
    os.replace(part, out)
    fsync_folder(out.parent)
    return load_encoder(str(out))


def refuse_to_replace(out: Path, base: str) -> None:
    """RealRAGError unless `out` is free, or holds a tuned encoder other than the one (by fingerprint) trained from."""
    if out.exists():
        there = load_encoder(str(out)) if is_encoder(out) else None
        if there is None or not there.tuned or there.fingerprint == base:
            raise RealRAGError(f"{out} is there and holds other things. Give --out a new folder for the tuned encoder.")


def is_encoder(folder: Path) -> bool:
    own = any((folder / name).is_file() for name in (SmallEncoder.FILE, OpenClipEncoder.CONFIG))
    return own or transformers_files.is_folder(folder)


def finished(out: Path, key: str) -> Encoder | None:
    """The tuned encoder in the folder `out`, if it was made from the inputs of `key`."""
    try:
        encoder = load_encoder(str(out)) if is_encoder(out) else None
    except RealRAGError:
        return None
    metadata = encoder.tuned.get("facts") if encoder else None
    return encoder if isinstance(metadata, dict) and metadata.get("key") == key else None


def whole_encoder(model: _Tower) -> Encoder:
    """The trained encoder on the CPU, without gradients, LoRA merged into its weights."""
    merge_lora(model.encoder)
    return model.encoder.to("cpu").requires_grad_(False)


def tuned_vectors(encoder: Encoder, bundle: Bundle, texts: list[str]) -> TunedVectors:
    """The bundle's own vectors where they are valid for this encoder; else its photos are encoded."""
    encoded = [encoder.encode_texts(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)]
    photos = bundle.embeddings
    if not encoder.accepts_vectors_of(bundle.manifest.encoder):
        prepared = in_order(bundle.records, lambda record: encoder.prepare(bundle.image(record)), DECODERS, 2 * BATCH)
        waiting, found = [], []
        for pixels in prepared:
            waiting.append(pixels)
            if len(waiting) == BATCH:
                found.append(encoder.encode_images(torch.stack(waiting)))
                waiting = []
        if waiting:
            found.append(encoder.encode_images(torch.stack(waiting)))
        photos = torch.cat(found).numpy()
    return TunedVectors(unit_rows(torch.cat(encoded).numpy()), unit_rows(photos))


# Mixing


def mix(tuned: Encoder, base: Encoder, alpha: float, out: Path) -> Encoder:
    """Write (1 - alpha) base + alpha tuned, weight by weight, as the folder `out`."""
    if not 0 <= alpha <= 1:
        raise RealRAGError(f"alpha is {alpha}; it lies from 0 (the first encoder) to 1 (the tuned one).")
    if tuned.tuned.get("base") != base.fingerprint:
        raise EncoderError(
            f"{tuned.name} was trained from {tuned.tuned.get('base_name', 'an encoder that it does not name')}, not from {base.name}. "
            "Give that one with --base."
        )
    start = base.state_dict()
    with torch.no_grad():
        for name, weight in tuned.state_dict().items():
            if weight.is_floating_point() and not torch.equal(weight, start[name]):
                weight.copy_((1 - alpha) * start[name] + alpha * weight)
    tuned.tuned = {**tuned.tuned, "alpha": alpha}
    return write_tuned(tuned, out)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tuned", type=Path, metavar="FOLDER", help="a tuned encoder, made by fit")
    parser.add_argument("--base", required=True, metavar="NAME", help="the encoder it was trained from")
    parser.add_argument(
        "--alpha", type=float, default=0.5, help="weight of the tuned encoder, 0 to 1 (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="the encoder to write")


def run(arguments: argparse.Namespace, log: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    mixed = mix(load_encoder(str(arguments.tuned)), load_encoder(arguments.base), arguments.alpha, arguments.out)
    kept = (
        "; libraries of the first encoder stay valid"
        if mixed.tuned["photos_of"]
        else "; photos must be indexed with it"
    )
    log(f"wrote {arguments.out}{kept}")
