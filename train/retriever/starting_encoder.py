"""A recipe's own starting encoder: photos split by class, and an encoder trained on noisy captions, so that it leaves
headroom."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from realrag.errors import RealRAGError

from ..small_encoder.captioned_photos import photo_set_metadata, read_captioned
from ..small_encoder.split import NAMES, split
from .recipe import Recipe, Start

SPLIT, ENCODER = "split", Path("start") / "starting-encoder.safetensors"


def started(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with the photos and the encoder that `start` writes into `folder`; unchanged if it trains no starting
    encoder.

    RealRAGError if it trains one but names no MobileNet."""
    data, begin = recipe.data, recipe.start
    if not begin.mobilenet and begin != Start():
        raise RealRAGError(
            "This recipe trains its own starting encoder: give --mobilenet FILE (see convert-mobilenet)."
        )
    if begin.mobilenet and begin.parts:
        library, validation, gallery = (str(folder / SPLIT / name) for name in NAMES)
        data = replace(data, photos=library, test_photos=gallery, captions="")
        begin = replace(begin, validation=validation)
    if begin.mobilenet and begin.validation and data.parts:  # `parts = []` chooses nothing by them
        data = replace(data, validation=begin.validation)
    if begin.mobilenet:
        data = replace(data, encoder=str(folder / ENCODER))
    return replace(recipe, data=data, start=begin)


def start(recipe: Recipe, folder: Path, log: Callable[[str], None], progress: Callable[[int, int], None]) -> None:
    """Write the files that `started` names. Finished splits and trials are not repeated. RealRAGError without validation
    photos."""
    from ..small_encoder.headroom import find_headroom
    from ..small_encoder.train import EncoderJob
    from ..small_encoder.trainer import EncoderConfig

    given, begin = recipe.data, recipe.start
    captions = Path(given.captions) if given.captions else None
    if not given.photos:
        raise RealRAGError("Which photos? Give --photos FOLDER, or `photos` in the recipe's section [data].")
    if begin.parts:
        report = split(Path(given.photos), captions, folder / SPLIT, begin.parts, begin.split_seed)
        log(", ".join(f"{count} {name}" for name, count in report["photos"].items()))
    after = started(recipe, folder)
    if not after.start.validation:
        raise RealRAGError("A starting encoder is tuned on separate photos: give --validation FOLDER, or `parts`.")
    captions = Path(after.data.captions) if after.data.captions else None
    library, validation = Path(after.data.photos), Path(after.start.validation)
    data, val = read_captioned(library, captions), read_captioned(validation, captions)
    config = EncoderConfig(
        seed=begin.seed, noise_seed=begin.noise_seed, size=begin.size, cut=begin.cut, views=begin.views,
        epochs=begin.epochs, tower_rate=begin.tower_rate,
    )  # fmt: skip
    job = EncoderJob(
        data, val, Path(begin.mobilenet), log=log, progress=progress,
        about={"data": photo_set_metadata(data, library), "validated_on": photo_set_metadata(val, validation)},
    )  # fmt: skip
    find_headroom(config, job, folder / ENCODER, (begin.least, begin.most), trials=begin.trials)
    shutil.rmtree(
        (folder / ENCODER).parent / "front", ignore_errors=True
    )  # cached features: gigabytes, no longer needed
