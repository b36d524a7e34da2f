"""Reflective negatives (paper, sec. 3.3, eq. 3-4): for each prompt the real photo most like what the generator drew for it."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from realrag.bundle import Bundle
from realrag.errors import EncoderError, RealRAGError
from realrag.files import canonical_json, default_cache, sha256_bytes, sha256_file, sorted_header, write_atomic
from realrag.head import ReflectiveHead, load_head
from realrag.retriever import _own_encoder

from .material import Material, load_material, prompts_hash, read_prompts

HELP = "find the reflective negatives: the real photos most like what the generator drew"
FORMAT, VERSION = "realrag-negatives", "1"
AT_ONCE = 1 << 25  # cosines held at a time
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class MineConfig:
    """What eq. 3-4 leave open, each default marked with where it comes from."""

    kind: str = "reflective"  # paper; "hard" asks with the prompt itself in place of the drawing
    k: int = 1  # paper: exactly one
    seeds: str = "mean"  # our choice: of the cosines to a prompt's drawings; "union" takes the best of them
    drop_same_class: bool = True  # our choice: else what the generator draws well becomes its own negative
    near_duplicate: float = 0.995  # our choice: as like a photo of the true class as this is the same shot; above 1 keeps all
    same_picture: float = 0.9999  # our choice: as like the drawing as this is the drawing itself, filed among the photos
    positive_aware: float = 0.0  # our choice: off; 0.95 drops what fits the prompt 0.95 times as well as its own photos do

    def __post_init__(self) -> None:
        if self.kind not in ("reflective", "hard") or self.seeds not in ("mean", "union") or self.k < 1:
            raise RealRAGError(
                f"kind {self.kind!r}, seeds {self.seeds!r}, k {self.k}: kind is reflective or hard, seeds mean or union, k >= 1."
            )


@dataclass(frozen=True)
class Negatives:
    """rows (P, K) int64 bundle rows, best first, -1 where there is none; scores (P, K) float32 cosines to the drawing; raw
    (P,) the row of eq. 4 with nothing excluded but the drawing itself (-1: nothing drawn). facts: shares and counts."""

    rows: np.ndarray
    scores: np.ndarray
    raw: np.ndarray
    facts: dict


def mine(
    material: Material,
    drawn: np.ndarray | None,
    config: MineConfig = MineConfig(),
    *,
    head: ReflectiveHead | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Negatives:
    """Eq. 4 for every prompt, in pieces that fit into memory. drawn (P, S, D): raw vectors of S drawings of each prompt;
    one that is zero or not finite was not drawn. Ignored for kind "hard".

    head: mine in its space and not in the encoder's (refreshing as in ANCE, arXiv 2007.00808); drawings go through it as
    the photos do, prompts do not. Ties by row number.
    """
    if config.kind == "hard":
        drawn = material.queries[:, None]
    if drawn is None or drawn.ndim != 3 or (len(drawn), drawn.shape[2]) != material.queries.shape:
        found = None if drawn is None else drawn.shape
        raise RealRAGError(f"The drawings have shape {found}; {material.queries.shape} prompts' vectors need (P, S, D).")
    prompts, seeds, _ = drawn.shape
    through = head.to(device).eval() if head is not None else None
    with torch.inference_mode():
        photos = torch.from_numpy(material.photos).to(device)
        if through:
            photos = torch.cat([through(part) for part in photos.split(65536)])
        rows = np.full((prompts, config.k), -1, np.int64)
        scores, raw, counts = np.zeros((prompts, config.k), np.float32), np.full(prompts, -1, np.int64), _Counts()
        step = max(1, AT_ONCE // (seeds * len(photos)))
        for start in range(0, prompts, step):
            asks = torch.from_numpy(np.asarray(drawn[start : start + step], np.float32)).to(device)
            norms = asks.norm(dim=2, keepdim=True)
            there = torch.isfinite(norms) & (norms > 1e-6)
            asks = torch.where(there, asks / norms, torch.zeros_like(asks))
            if through and config.kind == "reflective":
                asks = torch.where(there, through(asks), asks)
            cosines = (asks.flatten(0, 1) @ photos.T).view(len(asks), seeds, -1).masked_fill(~there, -torch.inf)
            best = cosines.amax(1)
            if config.seeds == "mean":
                like = cosines.masked_fill(~there, 0).sum(1) / there.sum(1).clamp_min(1)
            else:
                like = best
            itself = best >= config.same_picture if config.kind == "reflective" else torch.zeros_like(best, dtype=torch.bool)
            counts.itself += int(itself.any(1).sum())
            like = like.masked_fill(itself | ~there.any(1), -torch.inf).cpu().numpy()
            for offset, row_scores in enumerate(like):
                prompt = start + offset
                raw[prompt] = int(row_scores.argmax()) if np.isfinite(row_scores).any() else -1
                chosen = _choose(row_scores, prompt, material, photos, config, counts)
                rows[prompt, : len(chosen)], scores[prompt, : len(chosen)] = chosen, row_scores[chosen]
            progress(min(start + step, prompts), prompts)
    return Negatives(rows, scores, raw, _facts(rows, raw, material, counts))


@dataclass
class _Counts:
    near_duplicates: int = 0
    too_fitting: int = 0
    itself: int = 0


def _choose(scores: np.ndarray, prompt: int, material: Material, photos, config: MineConfig, counts: _Counts) -> list[int]:
    """The first k rows, by descending score, that are no photo of the prompt's class and pass the filters."""
    own = np.flatnonzero(material.photo_classes == material.query_classes[prompt])
    scores = scores.copy()
    if config.drop_same_class:
        scores[own] = -np.inf
    limit = np.inf
    if config.positive_aware and len(own):
        query = torch.from_numpy(material.queries[prompt]).to(photos.device)
        limit = config.positive_aware * float((photos[own] @ query).mean())
    chosen: list[int] = []
    looked, wide = 0, 4 * config.k + 16
    while len(chosen) < config.k and looked < len(scores):
        ranked = _first(scores, wide)
        for row in ranked[looked:]:
            # Sameness is asked of the plain vectors: a head is free to bring different photos together.
            alike = (material.photos[own] @ material.photos[row]).max(initial=-1)
            if config.drop_same_class and alike >= config.near_duplicate:
                counts.near_duplicates += 1
            elif limit < np.inf and float(photos[row] @ query) > limit:
                counts.too_fitting += 1
            else:
                chosen.append(int(row))
            if len(chosen) == config.k:
                break
        if len(ranked) < wide:
            break
        looked, wide = len(ranked), 4 * wide
    return chosen


def _first(scores: np.ndarray, count: int) -> np.ndarray:
    """Rows of the `count` highest finite scores, best first, ties by row number."""
    if count < len(scores):
        rows = np.flatnonzero(scores >= np.partition(scores, -count)[-count])
    else:
        rows = np.arange(len(scores))
    rows = rows[np.isfinite(scores[rows])]
    return rows[np.argsort(-scores[rows], kind="stable")][:count]


def _facts(rows: np.ndarray, raw: np.ndarray, material: Material, counts: _Counts) -> dict:
    drawn = raw >= 0
    known = drawn & (material.photo_classes[raw] == material.query_classes)
    return {
        "prompts": len(raw),
        "drawn": int(drawn.sum()),
        # The raw argmax was of the true class: how much the generator already knows.
        "known_share": float(known.sum() / max(1, drawn.sum())),
        "without_negative": int((rows[:, 0] < 0).sum()),
        "dropped_near_duplicates": counts.near_duplicates,
        "dropped_too_fitting": counts.too_fitting,
        "drawings_found_among_photos": counts.itself,
    }


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
        raise RealRAGError(f"{path} holds no negatives that can be read ({error}). Make it again with `mine`.") from None
    return Negatives(rows, scores, raw, facts), about


def read_drawn(path: Path, fingerprint: str) -> tuple[np.ndarray, dict]:
    """(P, S, D) vectors of the drawings, and their metadata. EncoderError when another encoder made them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            metadata, drawn = file.metadata() or {}, file.get_tensor("embeddings")
    except (OSError, SafetensorError) as error:
        raise RealRAGError(f"{path} holds no drawings that can be read ({error}). Make it again with `imagine`.") from None
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
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Negatives:
    """`negatives.safetensors` from a bundle, prompts and drawings; what is there already and has the same inputs stays."""
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
    material = load_material(bundle, encoder or _own_encoder(bundle, device), prompts)
    found = mine(material, drawn, config, head=head, device=device, progress=progress)
    write_negatives(found, out, about)
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
    parser.add_argument("--seeds", choices=("mean", "union"), default=default.seeds, help="how drawings of a prompt join")
    parser.add_argument("--keep-same-class", action="store_true", help="eq. 4 as printed: the true class is not excluded")
    parser.add_argument("--near-duplicate", type=float, default=default.near_duplicate, metavar="COSINE")
    parser.add_argument("--positive-aware", type=float, default=default.positive_aware, metavar="SHARE", help="0 is off")


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
        say(f"the generator's first photo was of the true class for {facts['known_share']:.1%}: that much it knows already")
    say(f"left out: {facts['dropped_near_duplicates']} near-duplicates, {facts['dropped_too_fitting']} that fit too well")
    say(f"wrote {arguments.out}")
