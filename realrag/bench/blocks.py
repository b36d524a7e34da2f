"""`realrag bench blocks`: what references in each block of the miniatures do to color and texture, and to layout.

Each prompt is painted without its photo, with it in all blocks, with it in one block alone, and with it in all blocks
but one, from the same noise. "moved" is the way that the picture went from the first to the second, in a description
of color and texture and in one of layout: 1 - |picture - full| / |plain - full|, over all prompts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import RealRAGError

PHOTOS = Path(__file__).parent.parent / "assets" / "photos"
THINGS = (  # eight that the miniatures were trained on, then sixteen that were held out
    "granny smith", "banana", "orange", "red bell pepper", "carrots", "kiwi", "oatly oat milk",
    "tropicana mandarin morning", "garlic", "lemon", "mango", "nectarine", "pomegranate", "red beet", "solid potato",
    "sweet potato", "vine tomato", "alpro vanilla soyghurt", "arla ecological sour cream", "arla sour milk",
    "arla standard milk", "bravo apple juice", "garant ecological standard milk", "yoggi vanilla yoghurt",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompts", type=int, default=24, help="how many of 24 classes to paint")
    parser.add_argument("--steps", type=int, default=12, help="steps of the sampler")
    parser.add_argument("--strength", type=float, default=1.5, help="of the adapter; the demo uses 1.5")


def color_and_texture(pictures):
    """(N, 3, S, S) in 0..1 -> (N, 15), blind to places: mean and deviation of each channel, three correlations, and the
    deviation of six bands of detail in brightness."""
    import torch
    import torch.nn.functional as F

    flat = pictures.flatten(2)
    mean, std = flat.mean(2), flat.std(2)
    normal = (flat - mean[..., None]) / std.clamp(min=1e-4)[..., None]
    pairs = [(normal[:, a] * normal[:, b]).mean(1) for a, b in ((0, 1), (0, 2), (1, 2))]
    bands, gray = [], pictures.mean(1, keepdim=True)
    for _ in range(6):
        small = F.avg_pool2d(gray, 2)
        bands.append((gray - F.interpolate(small, scale_factor=2)).flatten(1).std(1))
        gray = small
    return torch.cat((mean, std, torch.stack(pairs, 1), torch.stack(bands, 1)), 1)


def layout(pictures):
    """(N, 3, S, S) in 0..1 -> (N, 64), blind to color: brightness on a grid of 8 x 8, of mean 0 and deviation 1."""
    import torch.nn.functional as F

    grid = F.adaptive_avg_pool2d(pictures.mean(1, keepdim=True), 8).flatten(1)
    return (grid - grid.mean(1, keepdim=True)) / grid.std(1, keepdim=True).clamp(min=1e-4)


def moved(describe, plain, full, picture) -> float:
    """How much of the way from `plain` to `full` this description of `picture` went; 1 is all of it."""
    import torch

    start, end, here = (describe(pictures) for pictures in (plain, full, picture))
    scale = torch.cat((start, end)).std(0).clamp(min=1e-6)
    far, left = (((one - end) / scale).norm(dim=1) for one in (start, here))
    return float(1 - left.sum() / far.sum())


def run(args: argparse.Namespace) -> dict:
    import tempfile

    import torch

    from ..adapters import load_adapter
    from ..adapters.hooks import Steered
    from ..encoders.load import load_encoder
    from ..indexing.build import build
    from ..miniature.autoencoder import load_autoencoder
    from ..miniature.files import NAMES, adapter_file, autoencoder_file, check_there, families_there, generator_file
    from ..miniature.generator import load_generator
    from ..miniature.painting import Miniature, noise_of, paint
    from ..retriever import Retriever

    things = THINGS[: args.prompts]
    if not 0 < args.prompts <= len(THINGS) or args.steps < 1:
        raise RealRAGError(f"--prompts is 1 to {len(THINGS)} and --steps at least 1.")
    if not (families := families_there()):
        raise RealRAGError("This package holds no miniatures, which this benchmark paints with.")
    encoder, prompts = load_encoder(), [f"a photo of {thing}" for thing in things]
    with tempfile.TemporaryDirectory() as folder:
        build(PHOTOS, Path(folder) / "bundle", encoder)
        found = Retriever.open(Path(folder) / "bundle", encoder=encoder).search_batch(prompts, k=1, min_score=None)
        photos = [answer.items[0].image for answer in found]
    features = encoder.encode_features(torch.stack([encoder.prepare(photo) for photo in photos])).penultimate
    autoencoder, noise = load_autoencoder(autoencoder_file()), noise_of(len(things), seed=0)
    towers: Any = encoder.towers
    text, rows = towers.text, []
    for name in families:
        adapter = load_adapter(check_there(adapter_file(NAMES[name]))).float()

        def painted(factors: Sequence[float] | None, adapter=adapter, name=name):
            base = Miniature(load_generator(generator_file(NAMES[name])))
            steered = Steered(base, adapter, args.strength, factors)
            given = None if factors is None else features
            return paint(steered, autoencoder, text, prompts, noise, given, steps=args.steps)

        count = adapter.spec.n_blocks
        plain, full = painted(None), painted([1.0] * count)
        for block in range(count):
            alone = painted([float(i == block) for i in range(count)])
            without = painted([float(i != block) for i in range(count)])
            rows.append(
                {
                    "family": name,
                    "block": block,
                    "color_alone": moved(color_and_texture, plain, full, alone),
                    "layout_alone": moved(layout, plain, full, alone),
                    "color_without": moved(color_and_texture, plain, full, without),
                    "layout_without": moved(layout, plain, full, without),
                }
            )
    return {"prompts": len(things), "steps": args.steps, "strength": args.strength, "blocks": rows}


def format_report(result: dict) -> str:
    head = f"{result['prompts']} prompts, {result['steps']} steps, strength {result['strength']:g}; 1 is the whole way"
    lines = [head, f"{'':14} {'block':>5}  {'in it alone':^17}  {'in all others':^17}"]
    lines.append(f"{'':14} {'':>5}  {'color':>8} {'layout':>8}  {'color':>8} {'layout':>8}")
    for row in result["blocks"]:
        figures = "{color_alone:8.2f} {layout_alone:8.2f}  {color_without:8.2f} {layout_without:8.2f}".format(**row)
        lines.append(f"{row['family']:14} {row['block']:5}  {figures}")
    return "\n".join(lines)
