"""The last step of `realrag demo`: the miniatures paint each prompt without and with the photo that was found for
it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ..adapters import load_adapter
from ..adapters.hooks import Steered
from ..contact_sheet import FAINT, INK, PAPER, fonts
from ..encoders.base import Encoder
from ..encoders.small_net import SmallDualEncoder
from ..miniature.autoencoder import load_autoencoder
from ..miniature.classifier import copied, load_judge
from ..miniature.files import (
    NAMES,
    adapter_file,
    autoencoder_file,
    check_there,
    families_there,
    generator_file,
    judge_file,
)
from ..miniature.generator import load_generator
from ..miniature.painting import Miniature, noise_of, paint
from ..references import Reference, letterbox

# Classes that the judge knows. The held-out ones were in no miniature's or adapter's training: train/miniature/held_out.txt.
HELD_OUT = (
    "garlic", "lemon", "mango", "nectarine", "pomegranate", "red beet", "solid potato", "sweet potato", "vine tomato",
    "alpro vanilla soyghurt", "arla ecological sour cream", "arla sour milk", "arla standard milk", "bravo apple juice",
    "garant ecological standard milk", "yoggi vanilla yoghurt",
)  # fmt: skip
SEEN = (
    "granny smith",
    "banana",
    "orange",
    "red bell pepper",
    "carrots",
    "kiwi",
    "oatly oat milk",
    "tropicana mandarin morning",
)
PROMPT = "a photo of {}"
SEED = 0
STRENGTH = 1.5  # the best of those tried with the miniatures: docs/miniature.md
SIZE, GAP, LABEL, TOP, WORST = 128, 6, 150, 46, 3


@dataclass(frozen=True)
class Painted:
    """Pictures (N, 3, S, S) of N prompts by one family, and the judge's result for each: the margin, above 0 where it
    names the prompt's class; the class it names; and whether the picture is a near-copy of a library photo (`copied`)."""

    family: str
    steered: bool
    pictures: Tensor
    margins: Tensor
    named: list[str]
    copied: Tensor


@torch.no_grad()
def paint_all(
    encoder: Encoder, classes: tuple[str, ...], found: list[Reference], library: list,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Painted]:  # fmt: skip
    """Pictures without and with the reference, by every family in the package, from the same noise. library: all photos,
    as PIL images."""
    prompts, noise = [PROMPT.format(name) for name in classes], noise_of(len(classes), SEED)
    made: list[Painted] = []
    autoencoder, (features, judge) = load_autoencoder(autoencoder_file()), load_judge(check_there(judge_file()))
    labels = [judge.names.index(name) for name in classes]
    photos = features.of(torch.stack([pixels(image) for image in library]))
    states = encoder.encode_features(torch.stack([encoder.prepare(item.image) for item in found])).penultimate
    families, text = families_there(), cast(SmallDualEncoder, encoder.towers).text  # the miniatures use its text tower
    for family in families:
        adapter = load_adapter(check_there(adapter_file(NAMES[family]))).float()
        adapter.spec.check_encoder(encoder.adapter_sha256)
        steered = Steered(Miniature(load_generator(generator_file(NAMES[family]))), adapter, STRENGTH)
        for given in (None, states):
            before = len(made) * len(classes)

            def painted(done: int, _: int, before: int = before) -> None:
                progress(before + done, 2 * len(families) * len(classes))

            pictures = paint(steered, autoencoder, text, prompts, noise, given, progress=painted)
            vectors = features.of(pictures)
            named = [judge.names[row] for row in judge(vectors).argmax(1).tolist()]
            made.append(
                Painted(
                    family,
                    given is not None,
                    pictures,
                    judge.margins(vectors, labels),
                    named,
                    copied(vectors, photos),
                )
            )
    return made


def pixels(image) -> Tensor:
    """(3, SIZE, SIZE) in 0..1: the largest center square."""
    from PIL import Image, ImageOps

    return (
        torch.from_numpy(np.array(ImageOps.fit(image, (SIZE, SIZE), Image.Resampling.BICUBIC))).permute(2, 0, 1).float()
        / 255
    )


def right(painted: Painted, rows: slice) -> str:
    margins = painted.margins[rows]
    return f"{int((margins > 0).sum())} of {len(margins)}"


def summary(painted: list[Painted]) -> list[str]:
    """The judge's results, one line per family and kind of picture."""
    parts = (("held out", slice(0, len(HELD_OUT))), ("seen", slice(len(HELD_OUT), None)))
    lines = []
    for each in painted:
        how = "with the photo" if each.steered else "without"
        counts = ", ".join(f"{right(each, rows)} {part}" for part, rows in parts)
        lines.append(f"{each.family} {how}: the judge names {counts}; near-copies of a photo: {int(each.copied.sum())}")
    return lines


def worst(painted: list[Painted]) -> list[tuple[Painted, int]]:
    """The pictures with a reference that have the lowest margins, lowest first."""
    all_of = [
        (float(margin), at, row) for at, p in enumerate(painted) if p.steered for row, margin in enumerate(p.margins)
    ]
    return [(painted[at], row) for _, at, row in sorted(all_of)[:WORST]]


def sheet(classes: tuple[str, ...], found: list[Reference], painted: list[Painted]):
    """PIL RGB image with one row per prompt: its reference, then each family's picture without and with it. Below: the
    pictures with the lowest margins, and the judge's counts."""
    from PIL import Image, ImageDraw

    small, large = fonts()
    lines, halves = summary(painted), (len(classes) + 1) // 2
    across = LABEL + (1 + len(painted)) * (SIZE + GAP) + 3 * GAP
    foot = TOP + halves * (SIZE + GAP) + TOP
    image = Image.new("RGB", (2 * across, foot + max(SIZE, 18 * len(lines)) + 2 * GAP), PAPER)
    draw = ImageDraw.Draw(image)

    def put(picture, left: int, top: int) -> None:
        image.paste(picture, (left, top))

    def shown(picture: Tensor):
        return Image.fromarray((picture * 255).round().byte().permute(1, 2, 0).numpy())

    for half in range(2):
        start = half * across
        heads = ["photo found", *(f"{p.family.split()[0]} {'with it' if p.steered else 'without'}" for p in painted)]
        for column, head in enumerate(heads):
            draw.text((start + LABEL + column * (SIZE + GAP), TOP - 20), head, FAINT, small)
        for place, row in enumerate(range(half * halves, min(len(classes), (half + 1) * halves))):
            top, left = TOP + place * (SIZE + GAP), start + LABEL
            label = "\n".join(classes[row].split())
            draw.multiline_text((start + GAP, top + 4), label, INK, large)
            draw.text((start + GAP, top + SIZE - 18), "held out" if classes[row] in HELD_OUT else "seen", FAINT, small)
            put(letterbox(found[row].image, (SIZE, SIZE)), left, top)
            for column, p in enumerate(painted, 1):
                put(shown(p.pictures[row]), left + column * (SIZE + GAP), top)
    draw.text((GAP, foot - 24), "Lowest scores by the judge, with a photo:", INK, small)
    for column, (p, row) in enumerate(worst(painted)):
        left = GAP + column * (SIZE + LABEL)
        put(shown(p.pictures[row]), left, foot)
        caption = f"{classes[row]},\n{p.family}:\nthe judge says\n{p.named[row]}"
        draw.multiline_text((left + SIZE + GAP, foot), caption, FAINT, small)
    for place, line in enumerate(lines):
        draw.text((across + GAP, foot + 18 * place), line, INK, small)
    return image


def as_json(classes: tuple[str, ...], found: list[Reference], painted: list[Painted]) -> list[dict]:
    return [
        {
            "prompt": PROMPT.format(name), "held_out": name in HELD_OUT, "family": p.family, "seed": SEED, "strength": STRENGTH if p.steered else 0.0,
            "reference": found[row].file if p.steered else None, "judge_says": p.named[row],
            "margin": round(float(p.margins[row]), 3), "near_copy": bool(p.copied[row]),
        }
        for p in painted for row, name in enumerate(classes)
    ]  # fmt: skip
