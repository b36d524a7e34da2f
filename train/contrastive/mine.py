"""Finds the reflective negatives of a bundle and keeps them in a file; stopped at any point, the same command goes on."""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from realrag.bundle.bundle import Bundle
from realrag.encoders.reflective_head import load_head
from realrag.errors import EncoderError, RealRAGError
from realrag.files import (
    canonical_json,
    default_cache,
    sha256_bytes,
    sha256_file,
    sorted_header,
    sweep_temporaries,
    write_atomic,
)
from realrag.retriever import own_encoder

from ..dataset import load_material, prompts_hash, read_prompts
from .negatives import MineConfig, MiningState, Negatives, mine

HELP = "find the reflective negatives: the real photos most like what the generator drew"
FORMAT, VERSION = "realrag-negatives", "1"
log = logging.getLogger(__name__)


def write_negatives(negatives: Negatives, path: Path, about: dict) -> None:
    from safetensors.numpy import save

    metadata = {"format": FORMAT, "version": VERSION}
    metadata |= {"facts": json.dumps(negatives.facts, sort_keys=True), "about": json.dumps(about, sort_keys=True)}
    metadata["known_share"] = str(negatives.facts["known_share"])
    tensors = {"rows": negatives.rows, "scores": negatives.scores, "raw": negatives.raw}
    write_atomic(path, sorted_header(save(tensors, metadata)))


def read_negatives(path: Path) -> tuple[Negatives, dict]:
    """The negatives and what is written about their making. RealRAGError when the file is none of ours."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            if (metadata.get("format"), metadata.get("version")) != (FORMAT, VERSION):
                raise ValueError(f"format {metadata.get('format')!r}, version {metadata.get('version')!r}")
            rows, scores, raw = (file.get_tensor(name) for name in ("rows", "scores", "raw"))
        facts, about = json.loads(metadata["facts"]), json.loads(metadata["about"])
        if rows.ndim != 2 or rows.dtype != np.int64 or scores.shape != rows.shape or raw.shape != rows.shape[:1]:
            raise ValueError(f"rows of shape {rows.shape} and type {rows.dtype}")
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise RealRAGError(
            f"{path} holds no negatives that can be read ({error}). Make it again with `mine`."
        ) from None
    return Negatives(rows, scores, raw, facts), about


def read_drawn(path: Path, fingerprint: str) -> tuple[np.ndarray, dict]:
    """(P, S, D) vectors of the drawings, and their metadata. EncoderError when another encoder made them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            metadata, drawn = file.metadata() or {}, file.get_tensor("embeddings")
    except (OSError, SafetensorError) as error:
        raise RealRAGError(
            f"{path} holds no drawings that can be read ({error}). Make it again with `imagine`."
        ) from None
    if metadata.get("encoder_fingerprint") != fingerprint:
        raise EncoderError(f"The drawings in {path} went through another encoder than the bundle. Run `imagine` again.")
    return drawn, metadata


def mine_file(
    folder: Path,
    prompts_file: Path,
    out: Path,
    config: MineConfig = MineConfig(),
    *,
    drawn_file: Path | None = None,
    head_file: Path | None = None,
    encoder=None,
    device: str = "cpu",
    keep_seconds: float = 20.0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Negatives:
    """`negatives.safetensors` from a bundle, prompts and drawings; what is there already and has the same inputs stays.

    A run that was stopped goes on from what it kept at most `keep_seconds` before.
    """
    bundle, prompts = Bundle(folder, default_cache()), read_prompts(prompts_file)
    if config.kind == "reflective" and drawn_file is None:
        raise RealRAGError("Reflective negatives need the drawings. Give --drawn FILE, or --kind hard to do without.")
    fingerprint = bundle.manifest.encoder["fingerprint"]
    drawn, made = read_drawn(drawn_file, fingerprint) if config.kind == "reflective" else (None, {})
    about = {
        "config": asdict(config),
        "bundle_id": bundle.id,
        "encoder_fingerprint": fingerprint,
        "generator": made.get("generator", "none"),
        "prompts": prompts_hash(prompts),
        "drawn": sha256_bytes(drawn.tobytes()) if drawn is not None else "",
        "head": sha256_file(head_file) if head_file else "",
    }
    about["key"] = sha256_bytes(canonical_json(about))
    if Path(out).is_file():
        try:
            kept, before = read_negatives(out)
            if before.get("key") == about["key"]:
                return kept
        except RealRAGError:
            log.info("%s cannot be read and is made again", out)
    head = load_head(head_file, bundle.manifest.dim) if head_file else None
    material = load_material(bundle, encoder or own_encoder(bundle, device), prompts)
    part = Path(out).with_suffix(".part.safetensors")
    sweep_temporaries(part.parent)
    kept_at = time.monotonic()

    def keep(state: MiningState) -> None:
        nonlocal kept_at
        if time.monotonic() - kept_at >= keep_seconds:
            state.save(part, about["key"])
            kept_at = time.monotonic()

    state = MiningState.load(part, about["key"])
    found = mine(material, drawn, config, head=head, device=device, state=state, keep=keep, progress=progress)
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
    parser.add_argument("--k", type=int, default=default.k, help="negatives a prompt (default %(default)s)")
    parser.add_argument(
        "--seeds", choices=("mean", "union"), default=default.seeds, help="how drawings of a prompt join"
    )
    parser.add_argument(
        "--keep-same-class", action="store_true", help="eq. 4 as printed: the true class is not excluded"
    )
    parser.add_argument("--near-duplicate", type=float, default=default.near_duplicate, metavar="COSINE")
    parser.add_argument(
        "--positive-aware", type=float, default=default.positive_aware, metavar="SHARE", help="0 is off"
    )


def run(arguments: argparse.Namespace, say: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    config = MineConfig(
        arguments.kind, arguments.k, arguments.seeds, not arguments.keep_same_class, arguments.near_duplicate,
        positive_aware=arguments.positive_aware,
    )  # fmt: skip
    found = mine_file(
        arguments.bundle, arguments.prompts, arguments.out, config,
        drawn_file=arguments.drawn, head_file=arguments.head, device=arguments.device,
    )  # fmt: skip
    facts = found.facts
    say(f"{facts['prompts']} prompts, {facts['drawn']} of them drawn, {facts['without_negative']} without a negative")
    if config.kind == "reflective":
        say(
            f"the generator's first photo was of the true class for {facts['known_share']:.1%}: that much it knows already"
        )
    say(
        f"left out: {facts['dropped_near_duplicates']} near-duplicates, {facts['dropped_too_fitting']} that fit too well"
    )
    say(f"wrote {arguments.out}")
