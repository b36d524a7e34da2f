"""Writes which references each arm uses for each prompt, with their pictures, so that any generator can paint them. The
arms are none, random, oracle, and the retriever with each head of a run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from realrag.bundle.bundle import MANIFEST, Bundle, unit_rows
from realrag.bundle.records import Filters
from realrag.choosing import NEAR_DUPLICATE
from realrag.encoders.base import Encoder
from realrag.encoders.reflective_head import ReflectiveHead, load_head
from realrag.errors import RealRAGError
from realrag.files import default_cache, write_atomic
from realrag.library import own_encoder
from realrag.retriever import Retriever
from realrag.search.hybrid import LOOK
from realrag.validation import strict_json

from ..dataset import Prompt, class_codes, read_prompts
from ..tables import read_lines

CHOICES = "choices.jsonl"
CONTROLS = ("none", "random", "oracle")
ROWS = 4096


def kept_apart(library: Bundle, gallery: Bundle | None) -> np.ndarray:
    """(N,) bools: library photos that an arm may use. Photos of the gallery, which judges the pictures, are excluded. If
    one encoder made both bundles, near-duplicates of gallery photos are excluded too."""
    allowed = np.ones(len(library.records), bool)
    if gallery is None:
        return allowed
    rows = [library.records.row_of(record.id) for record in gallery.records]
    allowed[[row for row in rows if row is not None]] = False
    if gallery.manifest.encoder["fingerprint"] == library.manifest.encoder["fingerprint"]:
        judged, photos = unit_rows(gallery.embeddings), unit_rows(library.embeddings)
        for at in range(0, len(photos), ROWS):
            allowed[at : at + ROWS] &= (photos[at : at + ROWS] @ judged.T).max(1) < NEAR_DUPLICATE
    return allowed


def choose(
    library: Bundle,
    encoder: Encoder,
    prompts: Sequence[Prompt],
    heads: dict[str, ReflectiveHead | None],
    *,
    controls: Sequence[str] = CONTROLS,
    gallery: Bundle | None = None,
    k: int = 3,
    seed: int = 0,
    among: np.ndarray | None = None,
    find_by: str = LOOK,
) -> list[dict]:
    """Lines of {arm, prompt, class, references: [{id, file, class, score}]}, best first.

    none: no reference. random: k random photos. oracle: k random photos of the prompt's class, so that no encoder has a
    say; none if the library has none. heads: {arm: head}, None for `zero`; these arms use what the node would retrieve.
    among (N,): bools, the library photos that may be chosen; None for all. find_by: whether they rank by look, by name or
    by both. RealRAGError if no photo may be chosen.
    """
    allowed = kept_apart(library, gallery)
    if among is not None:
        allowed &= among
    if not allowed.any():
        raise RealRAGError(
            f"Every photo of {library.folder} is among those to judge by. Take two separate sets of photos."
        )
    photo_classes, asked = class_codes(library, list(prompts))
    lines = []
    for arm in controls:
        rng = np.random.default_rng([seed, CONTROLS.index(arm)])
        for prompt, code in zip(prompts, asked, strict=True):
            pool = np.flatnonzero(allowed & (photo_classes == code)) if arm == "oracle" else np.flatnonzero(allowed)
            rows = [] if arm == "none" else rng.permutation(pool)[:k]
            records = [library.records[int(row)] for row in rows]
            lines.append(_line(arm, prompt, [(record, None) for record in records]))
    apart = Filters(exclude_ids=tuple(library.records[int(row)].id for row in np.flatnonzero(~allowed)))
    for arm, head in heads.items():
        retriever = Retriever(library, encoder, head, kind="exact")
        for prompt, found in zip(
            prompts,
            retriever.search_batch([p.prompt for p in prompts], k=k, filters=apart, find_by=find_by, min_score=None),
            strict=True,
        ):
            lines.append(_line(arm, prompt, [(item, item.score) for item in found.items]))
    return lines


def _line(arm: str, prompt: Prompt, found: Sequence[tuple]) -> dict:
    references = [{"id": item.id, "file": item.file, "class": item.class_name, "score": score and round(score, 6)}
                  for item, score in found]  # fmt: skip
    return {"arm": arm, "prompt": prompt.prompt, "class": prompt.class_name, "references": references}


def write_choices(folder: Path, lines: Sequence[dict], library: Bundle) -> None:
    """Writes CHOICES, and photos/ID.jpg of each reference, which its line names as `picture`."""
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    for id in sorted({reference["id"] for line in lines for reference in line["references"]}):
        path = folder / "photos" / f"{id}.jpg"
        if not path.is_file():
            write_atomic(path, library.jpeg(library.records[library.records.row_of(id)]))
    shown = [
        {**line, "references": [{**r, "picture": f"photos/{r['id']}.jpg"} for r in line["references"]]}
        for line in lines
    ]
    write_atomic(folder / CHOICES, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in shown).encode())


def read_choices(path: Path) -> dict[str, dict[str, tuple[str, ...]]]:
    """{arm: {prompt: ids}} of a file or folder written by `write_choices`. RealRAGError names a line that is wrong."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}

    def take(line: dict) -> None:
        ids = tuple(reference["id"] for reference in line["references"])
        found.setdefault(line["arm"], {})[line["prompt"]] = ids

    each_line(path, take)
    return found


def each_line(path: Path, take: Callable[[dict], None]) -> None:
    """Hand every line of a file or folder written by `write_choices` to `take`. RealRAGError names a line that is no JSON,
    or that `take` finds wrong by a ValueError, KeyError or TypeError."""
    path, number = path / CHOICES if path.is_dir() else path, 0
    try:
        for number, text in enumerate(read_lines(path), 1):
            take(strict_json(text.encode()))
    except OSError as error:
        raise RealRAGError(f"The choices cannot be read ({error}). Make them with `choose`.") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RealRAGError(
            f"{path}, line {number}: {type(error).__name__} {error}. Make it again with `choose`."
        ) from None


def summary(lines: Sequence[dict]) -> str:
    """One line per arm: the fraction of its references that are of the prompt's class."""
    report, arms = [], list(dict.fromkeys(line["arm"] for line in lines))
    for arm in arms:
        right = [r["class"] == line["class"] for line in lines if line["arm"] == arm for r in line["references"]]
        empty = sum(not line["references"] for line in lines if line["arm"] == arm)
        found = (
            f"{np.mean(right):.1%} of {len(right)} references are of the prompt's class" if right else "no reference"
        )
        report.append(
            f"{arm:<{2 + max(map(len, arms))}}{found}" + (f"; {empty} prompts without one" if empty and right else "")
        )
    return "\n".join(report)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, metavar="RUN", help="the --out of `run`: its library, gallery, prompts and heads"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help=f"{CHOICES} and photos/ are written here"
    )
    parser.add_argument("--k", type=int, default=3, help="references a prompt (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the random and the oracle arm")
    parser.add_argument("--head-seed", type=int, default=0, metavar="N", help="which of the heads of each arm")
    parser.add_argument(
        "--prompts", type=Path, metavar="FILE", help="other prompts than the run's: lines of {prompt, class}"
    )
    parser.add_argument("--device", default="cpu")


def run(arguments: argparse.Namespace, log: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    folder = arguments.folder
    if arguments.k < 1:
        raise RealRAGError(f"--k is {arguments.k}; at least one reference a prompt is chosen.")
    library = Bundle(folder / "library", default_cache())
    gallery = Bundle(folder / "gallery", default_cache()) if (folder / "gallery" / MANIFEST).is_file() else None
    heads: dict[str, ReflectiveHead | None] = {"zero": None}
    for path in sorted((folder / "heads").glob(f"*-{arguments.head_seed}/head.safetensors")):
        heads[path.parent.name.rpartition("-")[0]] = load_head(path, library.manifest.dim)
    prompts = read_prompts(arguments.prompts or folder / "prompts.jsonl")
    lines = choose(library, own_encoder(library, arguments.device), prompts, heads, gallery=gallery, k=arguments.k,
                   seed=arguments.seed)  # fmt: skip
    write_choices(arguments.out, lines, library)
    log(summary(lines))
    log(f"wrote {arguments.out / CHOICES} and the pictures it names")
