"""The last step of `realrag demo`: each prompt painted by the miniatures without and with the photo that was found for
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

# Classes of the judge. No miniature and no adapter was trained on the held out ones: train/miniature/held_out.txt.
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
STRENGTH = 1.5  # found best for the miniatures: docs/miniature.md
SIZE, GAP, LABEL, TOP, WORST = 128, 6, 150, 46, 3


@dataclass(frozen=True)
class Painted:
    """Pictures (N, 3, S, S) of N prompts by one family, and what the judge says of each: margin above 0 where it names
    the prompt's class, the name it gives, and whether the picture is as near to a photo of the library as photos of one
    class are to one another at most."""

    family: str
    steered: bool
    pictures: Tensor
    margins: Tensor
    named: list[str]
    copied: Tensor


@torch.no_grad()
def paint_all(
    encoder: Encoder, things: tuple[str, ...], found: list[Reference], library: list,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Painted]:  # fmt: skip
    """Without and with the reference, by every family that is there, from the same noise. library: all photos, as PIL."""
    prompts, noise = [PROMPT.format(thing) for thing in things], noise_of(len(things), SEED)
    made: list[Painted] = []
    autoencoder, (features, judge) = load_autoencoder(autoencoder_file()), load_judge(check_there(judge_file()))
    labels = [judge.names.index(thing) for thing in things]
    photos = features.of(torch.stack([pixels(image) for image in library]))
    states = encoder.encode_features(torch.stack([encoder.prepare(item.image) for item in found])).penultimate
    families, text = families_there(), cast(SmallDualEncoder, encoder.towers).text  # the miniatures read its text
    for name in families:
        adapter = load_adapter(check_there(adapter_file(NAMES[name]))).float()
        adapter.spec.check_encoder(encoder.adapter_sha256)
        steered = Steered(Miniature(load_generator(generator_file(NAMES[name]))), adapter, STRENGTH)
        for given in (None, states):
            before = len(made) * len(things)

            def painted(done: int, _: int, before: int = before) -> None:
                progress(before + done, 2 * len(families) * len(things))

            pictures = paint(steered, autoencoder, text, prompts, noise, given, progress=painted)
            seen = features.of(pictures)
            said = [judge.names[row] for row in judge(seen).argmax(1).tolist()]
            made.append(
                Painted(name, given is not None, pictures, judge.margins(seen, labels), said, copied(seen, photos))
            )
    return made


def pixels(image) -> Tensor:
    """(3, SIZE, SIZE) in 0..1 of the largest square in the middle."""
    from PIL import Image, ImageOps

    return (
        torch.from_numpy(np.array(ImageOps.fit(image, (SIZE, SIZE), Image.Resampling.BICUBIC))).permute(2, 0, 1).float()
        / 255
    )


def right(painted: Painted, rows: slice) -> str:
    margins = painted.margins[rows]
    return f"{int((margins > 0).sum())} of {len(margins)}"


def summary(painted: list[Painted]) -> list[str]:
    """What the judge says, in lines."""
    parts = (("held out", slice(0, len(HELD_OUT))), ("seen", slice(len(HELD_OUT), None)))
    lines = []
    for each in painted:
        how = "with the photo" if each.steered else "without"
        told = ", ".join(f"{right(each, rows)} {part}" for part, rows in parts)
        lines.append(f"{each.family} {how}: the judge names {told}; near-copies of a photo: {int(each.copied.sum())}")
    return lines


def worst(painted: list[Painted]) -> list[tuple[Painted, int]]:
    """The pictures with a reference that the judge likes least, worst first."""
    all_of = [
        (float(margin), at, row) for at, p in enumerate(painted) if p.steered for row, margin in enumerate(p.margins)
    ]
    return [(painted[at], row) for _, at, row in sorted(all_of)[:WORST]]


def sheet(things: tuple[str, ...], found: list[Reference], painted: list[Painted]):
    """PIL RGB image: a row a prompt; its reference, then for each family the picture without and with it. At the foot
    the pictures that the judge likes least, and its figures."""
    from PIL import Image, ImageDraw

    small, large = fonts()
    lines, halves = summary(painted), (len(things) + 1) // 2
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
        for place, row in enumerate(range(half * halves, min(len(things), (half + 1) * halves))):
            top, left = TOP + place * (SIZE + GAP), start + LABEL
            said = "\n".join(things[row].split())
            draw.multiline_text((start + GAP, top + 4), said, INK, large)
            draw.text((start + GAP, top + SIZE - 18), "held out" if things[row] in HELD_OUT else "seen", FAINT, small)
            put(letterbox(found[row].image, (SIZE, SIZE)), left, top)
            for column, p in enumerate(painted, 1):
                put(shown(p.pictures[row]), left + column * (SIZE + GAP), top)
    draw.text((GAP, foot - 24), "What the judge likes least of those with a photo:", INK, small)
    for column, (p, row) in enumerate(worst(painted)):
        left = GAP + column * (SIZE + LABEL)
        put(shown(p.pictures[row]), left, foot)
        told = f"{things[row]},\n{p.family}:\nthe judge says\n{p.named[row]}"
        draw.multiline_text((left + SIZE + GAP, foot), told, FAINT, small)
    for place, line in enumerate(lines):
        draw.text((across + GAP, foot + 18 * place), line, INK, small)
    return image


def as_json(things: tuple[str, ...], found: list[Reference], painted: list[Painted]) -> list[dict]:
    return [
        {
            "prompt": PROMPT.format(thing), "held_out": thing in HELD_OUT, "family": p.family, "seed": SEED, "strength": STRENGTH if p.steered else 0.0,
            "reference": found[row].file if p.steered else None, "judge_says": p.named[row],
            "margin": round(float(p.margins[row]), 3), "near_copy": bool(p.copied[row]),
        }
        for p in painted for row, thing in enumerate(things)
    ]  # fmt: skip
