"""`realrag bench blocks`: how references in each block of the miniatures affect color and texture, and layout.

Each prompt is painted from the same noise without its photo (plain), with it in all blocks (full), in one block only,
and in all blocks but one. `moved` is how far a picture moved from plain to full, measured in features of color and
texture and in features of layout: 1 - |picture - full| / |plain - full|, over all prompts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from ..errors import RealRAGError

PHOTOS = Path(__file__).parent.parent / "assets" / "photos"
CLASSES = (  # eight classes of the miniatures' training, then sixteen held-out ones
    "granny smith", "banana", "orange", "red bell pepper", "carrots", "kiwi", "oatly oat milk",
    "tropicana mandarin morning", "garlic", "lemon", "mango", "nectarine", "pomegranate", "red beet", "solid potato",
    "sweet potato", "vine tomato", "alpro vanilla soyghurt", "arla ecological sour cream", "arla sour milk",
    "arla standard milk", "bravo apple juice", "garant ecological standard milk", "yoggi vanilla yoghurt",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompts", type=int, default=24, help="how many of 24 classes to paint")
    parser.add_argument("--steps", type=int, default=12, help="sampling steps")
    parser.add_argument("--strength", type=float, default=1.5, help="adapter strength; the demo uses 1.5")


def color_and_texture(pictures):
    """(N, 3, S, S) in 0..1 -> (N, 15) features without positions: mean and standard deviation of each channel, three
    correlations, and the standard deviation of six detail bands of brightness."""
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
    """(N, 3, S, S) in 0..1 -> (N, 64) features without color: brightness on a grid of 8 x 8, with mean 0 and standard
    deviation 1."""
    import torch.nn.functional as F

    grid = F.adaptive_avg_pool2d(pictures.mean(1, keepdim=True), 8).flatten(1)
    return (grid - grid.mean(1, keepdim=True)) / grid.std(1, keepdim=True).clamp(min=1e-4)


def moved(describe, plain, full, picture) -> float:
    """Fraction of the distance from `plain` to `full` that `picture` covers in the features `describe`; 1 is all of it."""
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
    from ..encoders.small_net import SmallDualEncoder
    from ..indexing.build import build
    from ..miniature.autoencoder import load_autoencoder
    from ..miniature.files import NAMES, adapter_file, autoencoder_file, check_there, families_there, generator_file
    from ..miniature.generator import load_generator
    from ..miniature.painting import Miniature, noise_of, paint
    from ..retriever import Retriever

    classes = CLASSES[: args.prompts]
    if not 0 < args.prompts <= len(CLASSES) or args.steps < 1:
        raise RealRAGError(
            f"--prompts is {args.prompts} and --steps {args.steps}; use 1 to {len(CLASSES)} prompts and at least 1 step."
        )
    if not (families := families_there()):
        raise RealRAGError(
            "This benchmark needs the miniatures, which are missing from this package. Reinstall RealRAG."
        )
    encoder, prompts = load_encoder(), [f"a photo of {each}" for each in classes]
    with tempfile.TemporaryDirectory() as folder:
        build(PHOTOS, Path(folder) / "bundle", encoder)
        found = Retriever.open(Path(folder) / "bundle", encoder=encoder).search_batch(prompts, k=1, min_score=None)
        photos = [answer.items[0].image for answer in found]
    features = encoder.encode_features(torch.stack([encoder.prepare(photo) for photo in photos])).penultimate
    autoencoder, noise = load_autoencoder(autoencoder_file()), noise_of(len(classes), seed=0)
    text = cast(SmallDualEncoder, encoder.towers).text  # the miniatures use its text tower
    rows: list[dict] = []
    for name in families:
        adapter = load_adapter(check_there(adapter_file(NAMES[name]))).float()
        steered = Steered(Miniature(load_generator(generator_file(NAMES[name]))), adapter, args.strength)

        def painted(factors: Sequence[float] | None, steered=steered):
            steered.factors = factors
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
    return {"prompts": len(classes), "steps": args.steps, "strength": args.strength, "blocks": rows}


def format_report(result: dict) -> str:
    head = (
        f"{result['prompts']} prompts, {result['steps']} steps, strength {result['strength']:g}; 1 is the full effect"
    )
    lines = [head, f"{'':14} {'block':>5}  {'in it alone':^17}  {'in all others':^17}"]
    lines.append(f"{'':14} {'':>5}  {'color':>8} {'layout':>8}  {'color':>8} {'layout':>8}")
    for row in result["blocks"]:
        figures = "{color_alone:8.2f} {layout_alone:8.2f}  {color_without:8.2f} {layout_without:8.2f}".format(**row)
        lines.append(f"{row['family']:14} {row['block']:5}  {figures}")
    return "\n".join(lines)
