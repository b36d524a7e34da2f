"""Before hours of work: everything that is cheap to check, one picture drawn, and the plan with its times."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from realrag.bundle.bundle import MANIFEST
from realrag.encoders.base import Encoder
from realrag.errors import RealRAGError
from realrag.files import write_atomic
from realrag.indexing.shards import Sizes
from realrag.photos.decode import decode
from realrag.photos.scan import Candidate, scan

from ..contrastive.fit_config import FitConfig
from ..contrastive.loss import LossConfig
from ..contrastive.trainer import ContrastiveTraining
from ..dataset import Material, Prompt, class_key, read_prompts
from ..generators import Generator
from ..generators.comfyui import ComfyUI
from ..generators.errors import GeneratorError
from ..generators.workflow import described
from ..loop.progress import duration
from ..retrieval_metrics import ranked_rows
from .choose_generator import make_generator
from .drawings import one_color
from .imagine import DRAWN, draw_one, picture_name
from .parted import METADATA, Places, is_parted, refuse_shared
from .prompts import Wording, describe_photos, photos_of
from .recipe import Recipe

LOOKED_AT = 256  # photos that the encoder's level is measured on
FIRST = "first-drawing.jpg"
TIMED = 5  # steps of a head that are timed
PHOTO = 120_000  # bytes of a photo of 768 pixels in a bundle, about
Log = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What a run will do. seconds: {stage: estimate, None where it is not known}. bytes: that it will write, about."""

    photos: int
    prompts: int
    drawings: int
    missing: int
    fits: int
    seconds: dict[str, float | None]
    bytes: int

    def lines(self, free: int) -> list[str]:
        def told(stage: str) -> str:
            found = self.seconds[stage]
            return "time not known" if found is None else f"about {duration(found)}"

        known = [value for value in self.seconds.values() if value is not None]
        return [
            "The plan:",
            f"  embed     {self.photos:,} photos, {told('embed')}",
            f"  imagine   {self.drawings:,} drawings of {self.prompts:,} prompts, {self.missing:,} not drawn yet, {told('imagine')}",
            f"  fit       {self.fits} trainings, {told('fit')}",
            f"  in all    about {duration(sum(known))}; about {self.bytes / 1e9:.1f} GB on the disk, where {free / 1e9:.1f} GB are free",
        ]


def preflight(recipe: Recipe, folder: Path, encoder: Callable[[], Encoder], device: str, log: Log) -> Plan:
    """Check recipe, photos, generator, encoder and disk, cheapest first; log what was found and the plan.

    encoder: loads it, once the files and the server are found right. One picture is drawn, and kept as FIRST. RealRAGError
    names what is wrong and the cure."""
    data, places = recipe.data, Places(folder)
    if not data.photos:
        raise RealRAGError("Which photos? Give --photos FOLDER, or `photos` in the recipe's section [data].")
    generator = check_generator(recipe, log)
    captions = Path(data.captions) if data.captions else None
    library = scan(Path(data.photos), captions, archives=True)
    if not library.candidates:
        raise RealRAGError(
            f"There is no photo in {data.photos} that can be used. Give the folder that holds your photos."
        )
    if data.test_photos:
        refuse_shared(library.candidates, scan(Path(data.test_photos), captions, archives=True).candidates, data)
    described_photos = describe_photos(Path(data.photos), captions, photos_of(library.candidates))
    prompts = read_prompts(Path(data.prompts)) if data.prompts else data.wording.library(described_photos)
    log(_words_of(library.candidates, prompts, len(library.rejected)))
    check_sizes(recipe, library.candidates)
    loaded = encoder()
    per_photo = check_level(loaded, library.candidates, data.wording, log)
    drawn, per_drawing = None, None
    if generator is not None:
        drawn, per_drawing = draw_first(recipe, generator, prompts, folder, log)
    plan = _plan(recipe, places, loaded, prompts, len(library.candidates), drawn, per_photo, per_drawing, generator)
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    for line in plan.lines(free):
        log(line)
    if plan.bytes > free:
        raise RealRAGError(
            f"{folder} needs about {plan.bytes / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB free. Give --out on another disk, or "
            "a smaller `picture_size` in [data]."
        )
    return plan


def check_generator(recipe: Recipe, log: Log) -> Generator | None:
    """The generator, if it can be made before the photos are encoded: its files are read and its server is asked."""
    options = recipe.imagine
    if options.generator == "comfyui":
        if not options.workflow:
            raise RealRAGError(
                "Which generator draws? Export your workflow in ComfyUI (Workflow > Export (API)) and give --workflow FILE. "
                "To try the commands without a generator, give --recipe tiny-cpu."
            )
        generator = make_generator(recipe, None, (), None, "cpu", log)
        assert isinstance(generator, ComfyUI)
        version = generator.server.version()
        log(f"ComfyUI {version} answers at {generator.url}.")
        log(f"The prompt goes into {described(generator.workflow, generator.prompts)}.")
        log(f"The seed goes into {described(generator.workflow, generator.seeds)}.")
        return generator
    if options.generator == "folder" and not Path(options.folder).is_dir():
        raise RealRAGError(f"No folder {options.folder}. Give the folder of the pictures as `folder` in [imagine].")
    if options.generator not in ("diffusers", "folder", "stand-in"):
        raise RealRAGError(
            f"`generator` in [imagine] is {options.generator!r}; it must be comfyui, diffusers, folder or stand-in."
        )
    return None


def _words_of(photos: Sequence[Candidate], prompts: Sequence[Prompt], rejected: int) -> str:
    classes = len({class_key(prompt.class_name) for prompt in prompts if prompt.class_name})
    text = f"{len(photos):,} photos"
    text += f" of {classes:,} classes" if classes else " without classes, asked for by their captions"
    text += f"; {len(prompts):,} prompts, such as {prompts[0].prompt!r}"
    return f"{text}; {rejected} files cannot be used." if rejected else f"{text}."


def check_sizes(recipe: Recipe, photos: Sequence[Candidate]) -> None:
    """RealRAGError where the test photos will be of too few classes for a verdict."""
    counts = Counter(photo.credit.class_name for photo in photos)
    if is_parted(recipe.data) and len(photos) < 4:
        raise RealRAGError(
            f"{len(photos)} photos are too few to be parted into train, validation and test. Give 100 or more; the most in "
            f"one class here are {max(counts.values())}."
        )


def check_level(encoder: Encoder, photos: Sequence[Candidate], wording: Wording, log: Log) -> float:
    """Log how often the encoder finds the right photo first by the user's own class names, in a sample of the photos; and
    measure its speed. Returns seconds a photo."""
    ordered = sorted(photos, key=lambda photo: (photo.credit.class_name, photo.sha256))
    sample = [ordered[at] for at in np.unique(np.linspace(0, len(ordered) - 1, LOOKED_AT).astype(int))]
    began, vectors = time.monotonic(), []
    usable = []
    for photo in sample:
        try:
            vectors.append(encoder.prepare(decode(photo.source.read(), photo.file)))
            usable.append(photo)
        except RealRAGError:  # `embed` names it
            continue
    if not vectors:
        raise RealRAGError("None of the photos can be decoded. Look at them in another program.")
    images = torch.cat([encoder.encode_images(torch.stack(vectors[at : at + 32])) for at in range(0, len(vectors), 32)])
    per_photo = (time.monotonic() - began) / len(usable)
    names = sorted({photo.credit.class_name for photo in usable if photo.credit.class_name})
    if len(names) < 2 or not encoder.has_text_tower:
        log(f"Encoder {encoder.name}: its level is not measured, as the photos have fewer than two classes.")
        return per_photo
    texts = encoder.encode_texts([prompt.prompt for prompt in wording.of_classes(names)])
    unit = torch.nn.functional.normalize
    first = ranked_rows((unit(texts.float(), dim=1) @ unit(images.float(), dim=1).T).numpy())[:, 0]
    found = np.mean([usable[row].credit.class_name == name for row, name in zip(first, names, strict=True)])
    chance = np.mean([sum(p.credit.class_name == name for p in usable) / len(usable) for name in names])
    log(
        f"Encoder {encoder.name}: of your {len(names)} class names it finds the right photo first for {found:.0%}, among "
        f"{len(usable)} photos; chance finds {chance:.0%}."
    )
    if found < max(2 * chance, chance + 0.02):
        log(
            "  It hardly knows these names, and a head cannot teach it words. Take another: --encoder ViT-L-14:openai, or "
            'train a tower: `mode = "text"` or "lora" in the recipe\'s section [fit].'
        )
    elif found > 0.95:
        log("  It finds nearly everything already, so a head has little to learn.")
    return per_photo


def draw_first(
    recipe: Recipe, generator: Generator, prompts: Sequence[Prompt], folder: Path, log: Log
) -> tuple[bytes, float]:
    """Draw the first prompt, and the second for its time; both stay for `imagine`. Returns the first picture's bytes and
    seconds a drawing. GeneratorError where the pictures cannot be drawings."""
    sizes, drawn, seconds = Sizes(picture=recipe.data.picture_size), [], 0.0
    second = (prompts[1].prompt, 0) if len(prompts) > 1 else (prompts[0].prompt, 1)
    for prompt, seed in ((prompts[0].prompt, 0), second):
        file = folder / "imagine" / picture_name(generator.metadata, prompt, seed, sizes)
        began = time.monotonic()
        drawn.append(draw_one(file, generator, prompt, seed, sizes))
        seconds = time.monotonic() - began
        if color := one_color(drawn[-1]):
            file.unlink()
            raise GeneratorError(
                f"The drawing of {prompt!r} is {color} all over. A safety filter makes such pictures, or a model in a number "
                "format that the GPU overflows, or the wrong VAE. Run the workflow once in ComfyUI's own window."
            )
    if drawn[0] == drawn[1]:
        raise GeneratorError(
            f"{prompts[0].prompt!r} and {second[0]!r} give the same picture: the prompt does not reach the model. Name the node "
            "that takes it: --prompt-node TITLE."
        )
    write_atomic(folder / FIRST, drawn[0])
    log(f"Drawn for {prompts[0].prompt!r}: {folder / FIRST}. Look at it: this is what your generator knows.")
    return drawn[0], seconds


def _plan(
    recipe: Recipe, places: Places, encoder: Encoder, prompts: Sequence[Prompt], photos: int, drawn: bytes | None,
    per_photo: float, per_drawing: float | None, generator: Generator | None,
) -> Plan:  # fmt: skip
    seeds, arms = recipe.imagine.seeds, recipe.evaluate
    count = len(prompts)
    if is_parted(recipe.data):  # the captions of validation and test photos are not drawn
        own = {
            prompt.prompt
            for prompt in recipe.data.wording.of_classes(sorted({p.class_name for p in prompts if p.class_name}))
        }
        captions = sum(prompt.prompt not in own for prompt in prompts)
        count -= round((1 - recipe.data.parts[0]) * captions)
    drawings = missing = count * seeds
    if generator is not None:
        sizes = Sizes(picture=recipe.data.picture_size)
        there = sum((places.folder / "imagine" / picture_name(generator.metadata, p.prompt, seed, sizes)).is_file()
                    for p in prompts for seed in range(seeds))  # fmt: skip
        missing = max(0, drawings - there)
    if (places.folder / "imagine" / DRAWN).is_file() and generator is None:
        missing = 0
    encoded = (places.bundle("library") / MANIFEST).is_file() and (
        not is_parted(recipe.data) or (places.parts / METADATA).is_file()
    )
    fits = arms.seeds * sum(arm != "zero" for arm in arms.arms)
    seconds: dict[str, float | None] = {
        "embed": 0.0 if encoded else per_photo * photos,
        "imagine": None if per_drawing is None and missing else (per_drawing or 0.0) * missing + per_photo * drawings,
        "fit": fits * seconds_of_a_head(encoder.dim, photos, recipe.fit) if recipe.fit.mode == "head" else None,
    }
    size = PHOTO * (recipe.data.picture_size / 768) ** 2
    each = len(drawn) if drawn else size
    return Plan(photos, count, drawings, missing, fits, seconds,
                int((0 if encoded else 2 * photos * size) + missing * each))  # fmt: skip


def seconds_of_a_head(dim: int, photos: int, config: FitConfig) -> float:
    """Of one training, by a few timed steps on random vectors."""
    config = replace(config.sized(photos), patience=0, held_out=0.0, refresh=0)
    rng, count = np.random.default_rng(0), min(photos, 4 * config.batch)
    rows = rng.normal(size=(count, dim)).astype(np.float32)
    codes = np.arange(count) % max(1, count // 4)
    training = ContrastiveTraining(
        Material(rows, codes, rows[: len(set(codes.tolist()))], np.arange(len(set(codes.tolist())))),
        None, config, LossConfig("normal"),
    )  # fmt: skip
    training.advance()  # the first step allocates
    began = time.monotonic()
    for _ in range(TIMED):
        if training.done:
            break
        training.advance()
    steps = max(1, photos // config.batch) * config.epochs
    return steps * (time.monotonic() - began) / TIMED
