"""From bundles of real photos and the arms' pictures to vectors of one encoder and its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from realrag.bundle.bundle import Bundle, unit_rows
from realrag.encoders.base import Encoder
from realrag.errors import RealRAGError
from realrag.miniature.classifier import COPY_QUANTILE

from ..dataset import class_key, photo_classes
from ..pictures.arms import Picture, Progress, photo_vectors, picture_vectors, text_vectors
from .classifiers import mean_classifier, name_classifier, ridge_classifier
from .metrics import Arm, Bench, Photos, judge_arms, nearest


@dataclass(frozen=True)
class Judged:
    """What is judged: the pictures of all arms, aligned so that the i-th of each has the same prompt and seed.

    real, library and taught are bundles without a common photo. `taught` trains the classifiers; if it is None, half of
    `real` does."""

    arms: dict[str, list[Picture]]
    real: Bundle
    library: Bundle
    taught: Bundle | None = None
    quantile: float = COPY_QUANTILE
    threshold: float | None = None  # a cosine that replaces the quantile
    seed: int = 0


def aligned(arms: dict[str, list[Picture]]) -> dict[str, list[Picture]]:
    """The pictures whose prompt and seed every arm has, in the same order. RealRAGError if there are none."""
    if not arms:
        raise RealRAGError("No arm to judge. Give --arm NAME=FOLDER once for each.")
    common = set.intersection(*({p.key for p in pictures} for pictures in arms.values()))
    if not common:
        raise RealRAGError(
            f"The arms {', '.join(arms)} have no prompt and seed in common. Paint the same prompts for each."
        )
    return {name: [p for p in pictures if p.key in common] for name, pictures in arms.items()}


def refuse_shared(one: Bundle, two: Bundle, why: str) -> None:
    known = {record.sha256 for record in two.records}
    if shared := [record.file for record in one.records if record.sha256 in known]:
        raise RealRAGError(f"{len(shared)} photos of {one.folder} are in {two.folder} too, such as {shared[0]}. {why}")


def judge(judged: Judged, encoder: Encoder, vectors: Path, progress: Progress = lambda done, total: None) -> dict:
    """The figures of one encoder, as `judge_arms` returns them, with the "facts" of where they come from. vectors: the
    folder that caches encoded pictures. RealRAGError if a class has no real photo."""
    work = judged.real, judged.library, *([judged.taught] if judged.taught else [])
    codes, coded = _class_codes(judged)
    asked = np.array([codes[class_key(p.class_name)] for p in next(iter(judged.arms.values()))])
    real, library, *taught = (
        Photos(unit_rows(photo_vectors(b, encoder, vectors, progress)), coded[b.id]) for b in work
    )
    real = real.of(np.isin(real.classes, asked))
    if missing := sorted(set(asked) - set(real.classes)):
        name = next(name for name, code in codes.items() if code == missing[0])
        raise RealRAGError(
            f"There is no real photo of the class {name!r} in {judged.real.folder}. Add some, or leave it out."
        )
    longest = judged.real.manifest.picture_longest
    vectors_of, rows = picture_vectors(judged.arms, encoder, longest, vectors, progress)
    units = unit_rows(vectors_of)
    arms = {name: Arm(units[rows[name]], _rows(pictures, judged.library)) for name, pictures in judged.arms.items()}
    held = np.ones(len(real.classes), bool)
    if taught:
        taught = [taught[0].of(taught[0].classes >= 0)]
    else:
        held = _half(real.classes, judged.seed)
        taught = [real.of(~held)]
    linear, training = ridge_classifier(taught[0].vectors, taught[0].classes)
    asked_vectors, real_vectors, names = _prompt_vectors(next(iter(judged.arms.values())), asked, real, encoder)
    close = nearest(real.vectors, library.vectors)
    threshold = float(np.quantile(close, judged.quantile)) if judged.threshold is None else judged.threshold
    classifiers = {"linear": linear, "means": mean_classifier(taught[0].vectors, taught[0].classes)}
    classifiers |= {"names": names} if names else {}
    bench = Bench(real, held, library, classifiers, asked, asked_vectors, real_vectors, threshold)
    report = judge_arms(arms, bench, judged.seed)
    report["facts"] = {
        "encoder": encoder.name, "encoder_fingerprint": encoder.fingerprint,
        "retrievers_own": encoder.fingerprint == judged.library.manifest.encoder["fingerprint"],
        "pictures": len(asked), "prompts": len({p.prompt for p in next(iter(judged.arms.values()))}),
        "classes": len(set(asked)), "real_photos": len(real.classes), "library_photos": len(library.classes),
        "linear_judge": training, "taught_from": "photos of their own" if judged.taught else "half of the real photos",
        "held_photos": int(held.sum()), "copy_threshold": threshold,
        "copy_quantile": judged.quantile if judged.threshold is None else None,
    }  # fmt: skip
    return report


def _class_codes(judged: Judged) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """{class key: code} over all bundles and arms, and {bundle id: codes of its rows}, -1 for a photo without a
    class."""
    codes: dict[str, int] = {"": -1}

    def code(name):
        return codes.setdefault(class_key(name), len(codes))

    bundles = [judged.real, judged.library, *([judged.taught] if judged.taught else [])]
    coded = {bundle.id: np.array([code(name) for name in photo_classes(bundle)]) for bundle in bundles}
    for pictures in judged.arms.values():
        for picture in pictures:
            code(picture.class_name)
    return codes, coded


def _half(classes: np.ndarray, seed: int) -> np.ndarray:
    """(M,) bools: a random half of each class's photos, the larger half for odd numbers. A single photo is in it."""
    held, rng = np.ones(len(classes), bool), np.random.default_rng(seed)
    for c in np.unique(classes):
        rows = rng.permutation(np.flatnonzero(classes == c))
        held[rows[: len(rows) // 2]] = False
    return held


def _rows(pictures: Sequence[Picture], library: Bundle) -> tuple[tuple[int, ...] | None, ...]:
    found = []
    for picture in pictures:
        rows = [library.records.row_of(id) for id in picture.references or ()]
        if None in rows:
            raise RealRAGError(
                f"{picture.file} was shown the photo {picture.references[rows.index(None)]!r}, which is not in the library "
                f"{library.folder}. Give the one that the references came from."
            )
        found.append(None if picture.references is None else tuple(rows))
    return tuple(found)


def _prompt_vectors(pictures: Sequence[Picture], asked: np.ndarray, real: Photos, encoder: Encoder):
    """The prompt's vector for each picture, the mean prompt vector of its class for each real photo, and the classifier
    by names. Three times None for an encoder without a text tower."""
    if not encoder.has_text_tower:
        return None, None, None
    prompts = sorted({p.prompt for p in pictures})
    each = dict(zip(prompts, text_vectors(prompts, encoder), strict=True))
    vectors = np.stack([each[p.prompt] for p in pictures])
    classes = np.unique(asked)
    of_class = np.stack([
        np.mean([each[prompt] for prompt in sorted({p.prompt for p, c in zip(pictures, asked, strict=True) if c == code})], axis=0)
        for code in classes
    ])  # fmt: skip
    return vectors, of_class[np.searchsorted(classes, real.classes)], name_classifier(unit_rows(of_class), classes)
