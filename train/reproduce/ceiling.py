"""How many real photos of a world its judges name: the first gate, asked before anything is taught or painted. With a
generator, also how many of its own pictures they name, without a reference: the gate on classes that it was taught."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from realrag.bundle.bundle import unit_rows
from realrag.errors import RealRAGError
from realrag.files import read_bounded
from realrag.interval_text import with_interval
from realrag.photos.decode import decode, read_bytes
from realrag.photos.keep import encode_jpeg

from ..dataset import class_key
from ..judge.classifiers import ridge_classifier
from ..judge.histograms import PictureEncoder
from ..retriever.prompts import class_prompts
from ..stats import bootstrap
from .config import JUDGES, OF_PHOTOS, Experiment, Painting
from .judge_encoders import JudgeTraining, cached_judge_encoder
from .paint_arms import make_painter
from .painter import Painter, Row
from .procedural.world import read_splits

BATCH, DRAWN = 32, "without references"
MAX_NAMES = 1 << 20  # bytes
Progress = Callable[[int, int], None]
Pictures = tuple[list[Image.Image], np.ndarray]  # with (N,) codes of their classes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="the folder that `world` or `photos` made")
    parser.add_argument("--judges", nargs="+", choices=(*JUDGES, OF_PHOTOS), default=list(JUDGES))
    parser.add_argument(f"--{OF_PHOTOS}", default="", metavar="FILE", help="lite0.safetensors, made by convert-general")
    for name in Painting.paths:
        parser.add_argument(
            f"--{name}", default="", metavar="FILE", help=f"{name} of a miniature, for its own pictures"
        )
    parser.add_argument(
        "--held-out",
        type=Path,
        metavar="FILE",
        help="names that it was not taught, one a line; without it, the world's split",
    )
    parser.add_argument("--noises", type=int, default=Experiment.noises, help="pictures a class (default %(default)s)")
    parser.add_argument("--steps", type=int, default=Painting.steps, help="of the sampler (default %(default)s)")
    parser.add_argument("--cfg", type=float, default=Painting.cfg, help="guidance (default %(default)s)")


def ceilings(
    world: Path, judges: list[str], scratch: Path, lite0: str = "", progress: Progress = lambda done, total: None,
    drawn: Callable[[Sequence[str]], Pictures] | None = None,
) -> dict[str, dict[str, list[float]]]:  # fmt: skip
    """{judge: {"all" or split: [accuracy, low, high]}} on the photos of evaluation, taught by those of the judges. The
    interval resamples classes. scratch: where a judge that is taught here is kept. drawn: class names -> a generator's
    pictures, whose accuracy is the row DRAWN. RealRAGError."""
    if OF_PHOTOS in judges and not lite0:
        raise RealRAGError(
            f"The judge {OF_PHOTOS} needs --{OF_PHOTOS} FILE: lite0.safetensors, made by convert-general."
        )
    splits = read_splits(world)
    names = sorted(splits)
    pictures = drawn(names) if drawn else None
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
        if pictures:
            rows = _encoded(encoder, [lambda image=image: image for image in pictures[0]])
            found[judge][DRAWN] = bootstrap(classifier.correct(rows, pictures[1]), pictures[1])
    return found


def taught_classes(names: Sequence[str], world: Path, held_out: Path | None) -> list[int]:
    """Codes of the classes that a generator was taught: those not named in `held_out`, or G-seen. RealRAGError if the file
    names something that is no class of the world, or if no class is left."""
    if held_out is None:
        splits = read_splits(world)
        left = [code for code, name in enumerate(names) if splits[name][1] == "G-seen"]
    else:
        try:
            lines = read_bounded(held_out, MAX_NAMES).decode().splitlines()
        except (OSError, ValueError) as error:
            raise RealRAGError(f"{held_out} cannot be read ({error}). Write one class name a line.") from None
        wanted = {class_key(line) for line in lines if line.strip()}
        if strange := sorted(wanted - {class_key(name) for name in names}):
            raise RealRAGError(f"{held_out} names {strange[0]!r}, which is no class of {world}. Correct it.")
        left = [code for code, name in enumerate(names) if class_key(name) not in wanted]
    if not left:
        raise RealRAGError(f"No class of {world} is left that the generator was taught.")
    return left


def draw(painter: Painter, names: Sequence[str], codes: Sequence[int], noises: int, progress: Progress) -> Pictures:
    """`noises` pictures of each class without a reference, compressed like the photos that judges are taught by."""
    if noises < 1:
        raise RealRAGError(f"--noises is {noises}; at least one picture a class is drawn.")
    prompts, first = class_prompts(names), Experiment.first_noise
    rows: list[tuple[int, Row]] = [
        (code, (prompts[code].prompt, seed, ())) for code in codes for seed in range(first, first + noises)
    ]
    pictures: list[Image.Image] = []
    for at in range(0, len(rows), painter.batch):
        part = painter.paint_many([row for _, row in rows[at : at + painter.batch]])
        pictures += [decode(encode_jpeg(picture.convert("RGB"))) for picture in part]
        progress(len(pictures), len(rows))
    return pictures, np.array([code for code, _ in rows])


def _vectors(folder: Path, names: list[str], encoder: PictureEncoder) -> tuple[np.ndarray, np.ndarray]:
    """((N, D) unit rows, (N,) codes in `names`) of a folder with one sub-folder a class."""
    photos = sorted(path for name in names for path in (folder / name).glob("*.*"))
    if not photos:
        raise RealRAGError(
            f"{folder} has no photos. Give the folder that `reproduce world` or `reproduce photos` made."
        )
    rows = _encoded(encoder, [lambda path=path: decode(read_bytes(path), path.name) for path in photos])
    return rows, np.array([names.index(path.parent.name) for path in photos])


def _encoded(encoder: PictureEncoder, images: Sequence[Callable[[], Image.Image]]) -> np.ndarray:
    """(N, D) unit rows."""
    rows = []
    for start in range(0, len(images), BATCH):
        pixels = [encoder.prepare(image()) for image in images[start : start + BATCH]]
        rows.append(encoder.encode_images(torch.stack(pixels)).numpy())
    return unit_rows(np.concatenate(rows))


def run(arguments: argparse.Namespace, log: Callable[[str], None], scratch: Path, progress: Progress) -> None:
    files = {name: getattr(arguments, name) for name in Painting.paths}
    drawn = None
    if any(files.values()):
        painting = Painting("miniature", **files, steps=arguments.steps, cfg=arguments.cfg)

        def drawn(names: Sequence[str]) -> Pictures:
            codes = taught_classes(names, arguments.photos, arguments.held_out)
            painter = make_painter(painting, arguments.photos, class_prompts(names), lambda: None, "cpu")
            return draw(painter, names, codes, arguments.noises, progress)

    found = ceilings(arguments.photos, arguments.judges, scratch, arguments.lite0, progress, drawn)
    for judge, rows in found.items():
        own = rows.pop(DRAWN, None)
        log(f"{judge} names " + ", ".join(f"{split} {with_interval(row)}" for split, row in rows.items()))
        if own:
            least = Experiment.seen_share * rows["all"][0]
            said = "passes" if own[0] >= least else "fails"
            log(
                f"{judge} names {with_interval(own)} of the generator's own pictures {DRAWN}; the gate asks for {least:.3f}: it {said}"
            )
