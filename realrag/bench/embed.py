"""`realrag bench embed`: speed of embedding real photos, relative to the encoder's own speed."""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from pathlib import Path

import numpy as np

from .. import DEFAULT_ENCODER
from ..errors import RealRAGError
from ..photos.scan import scan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--encoder", default=DEFAULT_ENCODER, help="encoder name, as for `realrag index`")
    parser.add_argument(
        "--untrained", metavar="ARCH", help="an open_clip model with random weights: same speed, no download"
    )
    parser.add_argument("--photos", type=Path, help="folder of photos (default: JPEGs made here)")
    parser.add_argument("--number", type=int, default=0, help="photos to time (0: 128 on a CPU, 4096 on a GPU)")
    parser.add_argument("--side", type=int, default=256, help="longest side of the JPEGs made here, in pixels")
    parser.add_argument("--batch", type=int, default=0, help="as for `realrag index`; 0: suited to the device")
    parser.add_argument("--workers", type=int, default=0, help="as for `realrag index`; 0: suited to the device")
    parser.add_argument("--rounds", type=int, default=3, help="how often each loop runs, in turns; medians count")
    parser.add_argument("--device", default="cpu")


def make_photos(folder: Path, number: int, side: int, seed: int = 0) -> None:
    """JPEGs with the detail of a photo: smooth noise at several scales, so that they take as long to decode."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for index in range(number):
        layers = [
            rng.integers(0, 256, (max(2, side * 3 // 4 >> shift), max(2, side >> shift), 3)) for shift in (0, 2, 4, 6)
        ]
        pictures = [
            np.asarray(Image.fromarray(layer.astype(np.uint8)).resize((side, side * 3 // 4), Image.Resampling.BICUBIC))
            for layer in layers
        ]
        mixed = np.average(pictures, axis=0, weights=(0.1, 0.2, 0.3, 0.4))
        buffer = io.BytesIO()
        Image.fromarray(mixed.astype(np.uint8)).save(buffer, "JPEG", quality=90)
        (folder / f"{index:05d}.jpg").write_bytes(buffer.getvalue())


def run(args: argparse.Namespace) -> dict:
    """Photos per second of several loops, timed in one run: the encoder on ready pixels; onnxruntime on the same weights,
    if onnx and onnxruntime are installed; photos end to end (to the shards of a bundle, like `realrag index`); and
    decoding only.

    `ratio` compares wall-clock times; `cpu_ratio` compares the process's CPU times, which other work on the machine
    disturbs less.
    """
    import torch

    from ..encoders.adaptive_batch import AdaptiveBatch
    from ..encoders.load import load_encoder, on_device
    from ..encoders.open_clip import OpenClipEncoder
    from ..indexing.shards import Sizes, encode_all, prepare, shard_parts, suited
    from .onnx_twin import image_tower

    if args.untrained:
        encoder = on_device(OpenClipEncoder(args.untrained, untrained=True), args.device)
    else:
        encoder = load_encoder(args.encoder, device=args.device)
    batch, workers = suited(encoder, args.batch, args.workers)
    number = args.number or (128 if encoder.place[0].type == "cpu" else 4096)
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as written:
        folder = args.photos or Path(made)
        if not args.photos:
            make_photos(folder, number, args.side)
        photos = scan(folder).candidates[:number]
        if not photos:
            raise RealRAGError(f"No photo in {folder}. Give a folder of JPEG, PNG or WebP files.")
        pixels = torch.randint(0, 256, (batch, 3, encoder.preprocess.size, encoder.preprocess.size), dtype=torch.uint8)
        adaptive = AdaptiveBatch(batch)
        adaptive.encode(encoder, list(pixels))  # warms up, and finds the batch that fits
        batch = adaptive.size
        parts = shard_parts(photos, encoder, Path(written), Sizes(), batch)

        def synthetic() -> None:
            for start in range(0, len(photos), batch):
                encoder.encode_images(pixels[: min(batch, len(photos) - start)])

        def end_to_end() -> None:
            encode_all(parts, encoder, batch=batch, workers=workers)
            for path, _ in parts:
                path.unlink()

        def decode_only() -> None:
            for photo in photos:
                prepare(photo, encoder, Sizes())

        loops = [("synthetic", synthetic), ("end_to_end", end_to_end), ("decode_one_thread", decode_only)]
        twin = None
        if encoder.place[0].type == "cpu":
            twin = image_tower(encoder, torch.get_num_threads())
        if twin is not None:

            def onnxruntime() -> None:
                for start in range(0, len(photos), batch):
                    twin(pixels[: min(batch, len(photos) - start)])

            onnxruntime()  # warms up
            loops.append(("onnxruntime", onnxruntime))
        times: dict[str, list[float]] = {name: [] for name, _ in loops}
        work: dict[str, list[float]] = {name: [] for name, _ in loops}
        for turn in range(args.rounds):
            # Each round starts with another loop: the order affects the times on a busy or throttled machine.
            for name, loop in loops[turn % len(loops) :] + loops[: turn % len(loops)]:
                start, spent = time.perf_counter(), time.process_time()
                loop()
                times[name].append(time.perf_counter() - start)
                work[name].append(time.process_time() - spent)
    speed = {name: len(photos) / float(np.median(values)) for name, values in times.items()}
    return {
        "encoder": args.untrained or encoder.name,
        "weights": "random" if args.untrained else "trained",
        "device": args.device,
        "threads": torch.get_num_threads(),
        "batch": batch,
        "workers": workers,
        "photos": len(photos),
        "longest_side": max(max(photo.width, photo.height) for photo in photos),
        "photos_per_second": {name: round(value, 2) for name, value in speed.items()},
        "ratio": round(speed["end_to_end"] / speed["synthetic"], 3),
        "cpu_ratio": round(float(np.median(work["synthetic"]) / np.median(work["end_to_end"])), 3),
    }


def format_report(result: dict) -> str:
    speed = result["photos_per_second"]
    twin = [f"  encode alone, onnxruntime    {speed['onnxruntime']:9.2f} photos/s"] if "onnxruntime" in speed else []
    return "\n".join(
        (
            f"{result['encoder']} ({result['weights']} weights) on {result['device']}, {result['threads']} threads, "
            f"batch {result['batch']}, {result['workers']} decoding threads, {result['photos']} photos of up to "
            f"{result['longest_side']} px",
            f"  encode alone, pixels ready   {speed['synthetic']:9.2f} photos/s",
            *twin,
            f"  decode alone, one thread     {speed['decode_one_thread']:9.2f} photos/s",
            f"  photos end to end            {speed['end_to_end']:9.2f} photos/s",
            f"  end to end / encode alone    {result['ratio']:9.3f} by the clock, {result['cpu_ratio']:.3f} by CPU time",
        )
    )
