"""Mines the reflective negatives of a bundle into a file. When stopped, the same command resumes."""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from realrag import artifact
from realrag.bundle.bundle import Bundle
from realrag.encoders.base import Encoder
from realrag.encoders.reflective_head import load_head
from realrag.errors import EncoderError, RealRAGError
from realrag.files import (
    canonical_json,
    default_cache,
    sha256_bytes,
    sha256_file,
    sweep_temporaries,
)
from realrag.library import own_encoder

from ..dataset import load_material, prompts_hash, read_prompts
from ..flags import add_flags, chosen, recorded
from .negatives import ADDED, MineConfig, MiningState, Negatives, mine

# Flags that `add_arguments` words itself.
OWN_FLAGS = ("kind", "k", "seeds", "drop_same_class", "near_duplicate", "same_picture", "positive_aware")
FORMAT, VERSION = "realrag-negatives", "1"
log = logging.getLogger(__name__)


def write_negatives(negatives: Negatives, path: Path, about: dict) -> None:
    metadata = {"format": FORMAT, "version": VERSION}
    metadata |= {"facts": json.dumps(negatives.metadata, sort_keys=True), "about": json.dumps(about, sort_keys=True)}
    metadata["known_share"] = str(negatives.metadata["known_share"])
    tensors = {"rows": negatives.rows, "scores": negatives.scores, "raw": negatives.raw}
    artifact.write(path, tensors, metadata)


def read_negatives(path: Path) -> tuple[Negatives, dict]:
    """The negatives and the metadata of their mining. RealRAGError when the file is damaged or of another format."""
    cure = "Make it again with `mine`."
    tensors, metadata = artifact.read(path, FORMAT, VERSION, "mined negatives", cure)
    try:
        rows, scores, raw = (tensors[name].numpy() for name in ("rows", "scores", "raw"))
        mined, about = json.loads(metadata["facts"]), json.loads(metadata["about"])
        if rows.ndim != 2 or rows.dtype != np.int64 or scores.shape != rows.shape or raw.shape != rows.shape[:1]:
            raise ValueError(f"rows of shape {rows.shape} and type {rows.dtype}")
    except (ValueError, KeyError) as error:
        raise RealRAGError(f"{path} holds no usable negatives ({error}). {cure}") from None
    return Negatives(rows, scores, raw, mined), about


def read_drawn(path: Path, fingerprint: str) -> tuple[np.ndarray, dict]:
    """(P, S, D) vectors of the drawings, and their metadata. EncoderError when another encoder made them."""
    what, cure = "vectors of drawings", "Make it again with `imagine`."
    metadata = artifact.read_header(path, what, cure).metadata
    drawn = artifact.read_tensors(path, what, cure).get("embeddings")
    if drawn is None:
        raise RealRAGError(f"{path} holds no {what}. {cure}")
    if metadata.get("encoder_fingerprint") != fingerprint:
        raise EncoderError(f"The drawings in {path} went through another encoder than the bundle. Run `imagine` again.")
    return drawn.numpy(), metadata


@dataclass(frozen=True)
class MineInputs:
    """The files that mining reads. drawn: made by `imagine`, not needed for kind "hard". head: mine in its space."""

    bundle: Path
    prompts: Path
    drawn: Path | None = None
    head: Path | None = None


def mine_file(
    inputs: MineInputs,
    out: Path,
    config: MineConfig = MineConfig(),
    *,
    encoder: Encoder | None = None,
    device: str = "cpu",
    save_seconds: float = 20.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Negatives:
    """Write `negatives.safetensors` from a bundle, prompts and drawings; a file with the same inputs stays as it is.

    A stopped run resumes from its state, which is saved every `save_seconds`.
    """
    bundle, prompts = Bundle(inputs.bundle, default_cache()), read_prompts(inputs.prompts)
    fingerprint = bundle.manifest.encoder["fingerprint"]
    drawn, made = None, {}
    if config.kind == "reflective":
        if inputs.drawn is None:
            raise RealRAGError("Reflective negatives need the drawings. Give --drawn FILE, or use --kind hard.")
        drawn, made = read_drawn(inputs.drawn, fingerprint)
    about = {
        "config": recorded(config, ADDED),
        "bundle_id": bundle.id,
        "encoder_fingerprint": fingerprint,
        "generator": made.get("generator", "none"),
        "prompts": prompts_hash(prompts),
        "drawn": sha256_bytes(drawn.tobytes()) if drawn is not None else "",
        "head": sha256_file(inputs.head) if inputs.head else "",
    }
    about["key"] = sha256_bytes(canonical_json(about))
    if Path(out).is_file():
        try:
            existing, before = read_negatives(out)
            if before.get("key") == about["key"]:
                return existing
        except RealRAGError:
            log.info("%s cannot be read and is mined again", out)
    head = load_head(inputs.head, bundle.manifest.dim) if inputs.head else None
    material = load_material(bundle, encoder or own_encoder(bundle, device), prompts)
    part = Path(out).with_suffix(".part.safetensors")
    sweep_temporaries(part.parent)
    saved_at = time.monotonic()

    def save(state: MiningState) -> None:
        nonlocal saved_at
        if time.monotonic() - saved_at >= save_seconds:
            state.save(part, about["key"])
            saved_at = time.monotonic()

    state = MiningState.load(part, about["key"])
    found = mine(material, drawn, config, head=head, device=device, state=state, save=save, progress=progress)
    write_negatives(found, out, about)
    part.unlink(missing_ok=True)
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--prompts", type=Path, required=True, metavar="FILE", help="lines of {prompt, class}")
    parser.add_argument("--drawn", type=Path, metavar="FILE", help="drawn.safetensors, made by imagine")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="negatives.safetensors to write")
    parser.add_argument("--head", type=Path, metavar="FILE", help="mine in the space of this head")
    parser.add_argument("--device", default="cpu")
    default = MineConfig()
    parser.add_argument("--kind", choices=("reflective", "hard"), default=default.kind)
    parser.add_argument(
        "--k", "--num-negatives", type=int, default=default.k, help="negatives a prompt (default %(default)s)"
    )
    add_flags(parser, MineConfig, skip=OWN_FLAGS)
    parser.add_argument(
        "--seeds",
        choices=("mean", "union"),
        default=default.seeds,
        help="how several drawings of a prompt are combined",
    )
    parser.add_argument(
        "--keep-same-class", action="store_true", help="eq. 4 as printed: photos of the true class stay candidates"
    )
    parser.add_argument("--near-duplicate", type=float, default=default.near_duplicate, metavar="COSINE")
    parser.add_argument(
        "--positive-aware",
        type=float,
        default=default.positive_aware,
        metavar="FRACTION",
        help="drops photos nearer to the prompt than its own photos are, less this margin; 0 is off",
    )


def run(arguments: argparse.Namespace, log: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    config = replace(chosen(arguments, MineConfig()), drop_same_class=not arguments.keep_same_class)
    inputs = MineInputs(arguments.bundle, arguments.prompts, arguments.drawn, arguments.head)
    found = mine_file(inputs, arguments.out, config, device=arguments.device)
    metadata = found.metadata
    log(
        f"{metadata['prompts']} prompts, {metadata['drawn']} of them drawn, {metadata['without_negative']} without a negative"
    )
    if config.kind == "reflective":
        log(
            f"for {metadata['known_share']:.1%} of the drawings the nearest photo was of the true class: the generator knows those"
        )
    log(
        f"left out: {metadata['dropped_near_duplicates']} near-duplicates, {metadata['dropped_too_fitting']} that fit the prompt too well"
    )
    log(f"wrote {arguments.out}")
