"""How many real photos of a world its judges name: the first gate, asked before anything is taught or painted."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from realrag.bundle.bundle import unit_rows
from realrag.errors import RealRAGError
from realrag.interval_text import with_interval
from realrag.photos.decode import decode, read_bytes

from ..judge.classifiers import ridge_classifier
from ..judge.histograms import PictureEncoder
from ..stats import bootstrap
from .config import JUDGES, OF_PHOTOS
from .judge_encoders import JudgeTraining, cached_judge_encoder
from .procedural.world import read_splits

BATCH = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="the folder that `world` or `photos` made")
    parser.add_argument("--judges", nargs="+", choices=(*JUDGES, OF_PHOTOS), default=list(JUDGES))
    parser.add_argument(f"--{OF_PHOTOS}", default="", metavar="FILE", help="lite0.safetensors, made by convert-general")


def ceilings(
    world: Path, judges: list[str], scratch: Path, lite0: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, dict[str, list[float]]]:  # fmt: skip
    """{judge: {"all" or split: [accuracy, low, high]}} on the photos of evaluation, taught by those of the judges. The
    interval resamples classes. scratch: where a judge that is taught here is kept. RealRAGError."""
    if OF_PHOTOS in judges and not lite0:
        raise RealRAGError(
            f"The judge {OF_PHOTOS} needs --{OF_PHOTOS} FILE: lite0.safetensors, made by convert-general."
        )
    splits = read_splits(world)
    names = sorted(splits)
    found = {}
    for judge in judges:
        encoder = cached_judge_encoder(judge, world / "judge", str(world), scratch, JudgeTraining(), progress, lite0)
        taught, classes = _vectors(world / "judge", names, encoder)
        classifier, _ = ridge_classifier(taught, classes)
        shown, classes = _vectors(world / "evaluation", names, encoder)
        right = classifier.correct(shown, classes)
        parts = {"all": np.ones(len(right), bool)}
        of_split = np.array([splits[names[code]][1] for code in classes])
        parts |= {str(split): of_split == split for split in np.unique(of_split)}
        found[judge] = {split: bootstrap(right[part], classes[part]) for split, part in parts.items()}
    return found


def _vectors(folder: Path, names: list[str], encoder: PictureEncoder) -> tuple[np.ndarray, np.ndarray]:
    """((N, D) unit rows, (N,) codes in `names`) of a folder with one sub-folder a class."""
    photos = sorted(path for name in names for path in (folder / name).glob("*.*"))
    if not photos:
        raise RealRAGError(
            f"{folder} has no photos. Give the folder that `reproduce world` or `reproduce photos` made."
        )
    rows = []
    for start in range(0, len(photos), BATCH):
        part = photos[start : start + BATCH]
        pixels = [encoder.prepare(decode(read_bytes(path), path.name)) for path in part]
        rows.append(encoder.encode_images(torch.stack(pixels)).numpy())
    return unit_rows(np.concatenate(rows)), np.array([names.index(path.parent.name) for path in photos])


def run(arguments: argparse.Namespace, log: Callable[[str], None], scratch: Path) -> None:
    for judge, rows in ceilings(arguments.photos, arguments.judges, scratch, arguments.lite0).items():
        log(f"{judge} names " + ", ".join(f"{split} {with_interval(row)}" for split, row in rows.items()))
