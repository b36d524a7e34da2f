"""Did the pictures get better? Measures what a generator painted under each arm, with any encoder, and writes judge.json and
judge.html. Stopped at any point, the same command goes on."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from realrag import DEFAULT_ENCODER
from realrag.bundle import Bundle, unit_rows
from realrag.encoder import Encoder, load_encoder
from realrag.errors import RealRAGError
from realrag.files import default_cache, sha256_bytes

from .arms import Picture, Progress, class_key, photo_vectors, picture_vectors, read_arm, text_vectors, with_references
from .choose import read_choices
from .classifier import linear_judge, mean_judge, name_judge
from .drawing import photo_classes
from .evaluate import write_report
from .fit import STOPPED
from .imagine import class_prompts
from .judging import COPY_QUANTILE, Arm, Bench, Photos, judge_arms, nearest
from .material import Prompt, read_prompts
from .run import OutOfTime

HELP = "measure painted pictures, arm by arm: CLIP-I, CLIP-T, FID, KID, class, copying, variety"
MEASURES = ("CLIP-I", "CLIP-T", "accuracy (linear)", "accuracy (means)", "accuracy (names)", "copied", "diversity", "FID", "KID",
            "to references", "references copied")  # fmt: skip
TOLD = ("CLIP-I", "accuracy (linear)", "copied", "FID", "KID")  # differences on the screen; all are in the files


@dataclass(frozen=True)
class Judged:
    """The pictures of all arms, aligned: the i-th of each is of the same prompt and seed. real, library, taught: bundles of
    photos that share none; taught (for the judges) may be None, then half of `real` teaches them."""

    arms: dict[str, list[Picture]]
    real: Bundle
    library: Bundle
    taught: Bundle | None = None
    quantile: float = COPY_QUANTILE
    threshold: float | None = None  # a cosine, in place of the quantile
    seed: int = 0


def aligned(arms: dict[str, list[Picture]]) -> dict[str, list[Picture]]:
    """Only what every arm has: the same prompts and seeds in the same order."""
    if not arms:
        raise RealRAGError("No arm to judge. Give --arm NAME=FOLDER once for each.")
    common = set.intersection(*({p.key for p in pictures} for pictures in arms.values()))
    if not common:
        raise RealRAGError(f"The arms {', '.join(arms)} have no prompt and seed in common. Paint the same prompts for each.")
    return {name: [p for p in pictures if p.key in common] for name, pictures in arms.items()}


def refuse_shared(one: Bundle, two: Bundle, why: str) -> None:
    known = {record.sha256 for record in two.records}
    if shared := [record.file for record in one.records if record.sha256 in known]:
        raise RealRAGError(f"{len(shared)} photos of {one.folder} are in {two.folder} too, such as {shared[0]}. {why}")


def judge(judged: Judged, encoder: Encoder, vectors: Path, progress: Progress = lambda done, total: None) -> dict:
    """The figures of one encoder, as `judge_arms` gives them, with what they were taken from. vectors: folder that keeps
    what was encoded."""
    work = judged.real, judged.library, *([judged.taught] if judged.taught else [])
    codes, coded = _class_codes(judged)
    asked = np.array([codes[class_key(p.class_name)] for p in next(iter(judged.arms.values()))])
    real, library, *taught = (Photos(unit_rows(photo_vectors(b, encoder, vectors, progress)), coded[b.id]) for b in work)
    real = real.of(np.isin(real.classes, asked))
    if missing := sorted(set(asked) - set(real.classes)):
        name = next(name for name, code in codes.items() if code == missing[0])
        raise RealRAGError(f"There is no real photo of the class {name!r} in {judged.real.folder}. Add some, or leave it out.")
    longest = judged.real.manifest.picture_longest
    arms = {
        name: Arm(unit_rows(picture_vectors(pictures, encoder, longest, vectors, progress)), _rows(pictures, judged.library))
        for name, pictures in judged.arms.items()
    }
    held = np.ones(len(real.classes), bool)
    if taught:
        taught = [taught[0].of(taught[0].classes >= 0)]
    else:
        held = _half(real.classes, judged.seed)
        taught = [real.of(~held)]
    linear, facts = linear_judge(taught[0].vectors, taught[0].classes)
    said, real_said, names = _said(next(iter(judged.arms.values())), asked, real, encoder)
    close = nearest(real.vectors, library.vectors)
    threshold = float(np.quantile(close, judged.quantile)) if judged.threshold is None else judged.threshold
    bench = Bench(
        real, held, library, {"linear": linear, "means": mean_judge(taught[0].vectors, taught[0].classes), "names": names},
        asked, said, real_said, threshold,
    )  # fmt: skip
    report = judge_arms(arms, bench, judged.seed)
    report["facts"] = {
        "encoder": encoder.name, "encoder_fingerprint": encoder.fingerprint,
        "retrievers_own": encoder.fingerprint == judged.library.manifest.encoder["fingerprint"],
        "pictures": len(asked), "prompts": len({p.prompt for p in next(iter(judged.arms.values()))}),
        "classes": len(set(asked)), "real_photos": len(real.classes), "library_photos": len(library.classes),
        "linear_judge": facts, "taught_from": "half of the real photos" if judged.taught is None else "photos of its own",
        "held_photos": int(held.sum()), "copy_threshold": threshold,
        "copy_quantile": judged.quantile if judged.threshold is None else None,
    }  # fmt: skip
    return report


def _class_codes(judged: Judged) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """{class key: code} over everything, and {bundle id: codes of its rows}, -1 for a photo without a class."""
    codes: dict[str, int] = {"": -1}
    code = lambda name: codes.setdefault(class_key(name), len(codes))  # noqa: E731
    bundles = [judged.real, judged.library, *([judged.taught] if judged.taught else [])]
    coded = {bundle.id: np.array([code(name) for name in photo_classes(bundle)]) for bundle in bundles}
    for pictures in judged.arms.values():
        for picture in pictures:
            code(picture.class_name)
    return codes, coded


def _half(classes: np.ndarray, seed: int) -> np.ndarray:
    """(M,) bools: the larger half of each class's photos by chance, so that one of a single photo is held."""
    held, dice = np.ones(len(classes), bool), np.random.default_rng(seed)
    for c in np.unique(classes):
        rows = dice.permutation(np.flatnonzero(classes == c))
        held[rows[: len(rows) // 2]] = False
    return held


def _rows(pictures: Sequence[Picture], library: Bundle) -> tuple[tuple[int, ...] | None, ...]:
    found = []
    for picture in pictures:
        rows = [library.records.row_of(id) for id in picture.references or ()]
        if None in rows:
            raise RealRAGError(f"{picture.file} was shown the photo {picture.references[rows.index(None)]!r}, which is not in "
                               f"{library.folder}. Give the library that the references came from.")  # fmt: skip
        found.append(None if picture.references is None else tuple(rows))
    return tuple(found)


def _said(pictures: Sequence[Picture], asked: np.ndarray, real: Photos, encoder: Encoder):
    """Vectors of the prompts, picture by picture; for each real photo the mean of those of its class; the judge by names."""
    prompts = sorted({p.prompt for p in pictures})
    each = dict(zip(prompts, text_vectors(prompts, encoder)))
    said = np.stack([each[p.prompt] for p in pictures])
    classes = np.unique(asked)
    of_class = np.stack([
        np.mean([each[prompt] for prompt in sorted({p.prompt for p, c in zip(pictures, asked) if c == code})], axis=0)
        for code in classes
    ])  # fmt: skip
    return said, of_class[np.searchsorted(classes, real.classes)], name_judge(unit_rows(of_class), classes)


# On the screen


def table(report: dict) -> str:
    """One encoder's figures as text: the real photos and each arm, then the differences with their intervals."""
    facts, distances = report["facts"], report["distances"]
    own = " (the retriever's own: it is no independent judge)" if facts["retrievers_own"] else ""
    measures = [m for m in MEASURES if any(m in row for row in report["arms"].values())]
    lines = [f"{facts['encoder']}{own}: {facts['pictures']} pictures an arm, {facts['classes']} classes"]
    wide = {m: max(len(m), 7) + 2 for m in measures}
    lines.append(f"{'arm':<12}" + "".join(f"{m:>{wide[m]}}" for m in measures))
    for name, row in {"real photos": report["real"], **report["arms"]}.items():
        cells = (f"{row[m][0]:>{wide[m]}.4f}" if m in row else f"{'-':>{wide[m]}}" for m in measures)
        lines.append(f"{name:<12}" + "".join(cells))
    lines += notes(report)
    if report["differences"]:
        lines += ["", "differences, with 95 % intervals over classes (not resolved where 0 lies inside)"]
    for pair, row in report["differences"].items():
        lines.append(f"{pair:<24}" + ", ".join(f"{m} {signed(row[m])}" for m in TOLD if m in row))
    return "\n".join(lines) + ("" if distances else "\nFID and KID need four real photos or more.")


def notes(report: dict) -> list[str]:
    """What has to be said with the figures."""
    facts, distances = report["facts"], report["distances"]
    how = f"the {facts['copy_quantile']:.0%} quantile of real photos' own" if facts["copy_quantile"] else "as given"
    lines = [
        f"copied: cosine to the nearest library photo {facts['copy_threshold']:.4f} or more, {how}.",
        f"accuracy: judges taught from {facts['taught_from']} ({facts['linear_judge']['photos']}); the real photos' is of "
        f"{facts['held_photos']} they were not taught, the ceiling.",
    ]  # fmt: skip
    if distances:
        floor, few = distances["floor"]["FID"], distances["pictures"] < 10 * distances["dim"]
        lines.append(
            f"FID and KID: {distances['pictures']} pictures against {distances['photos']} real photos in {distances['dim']} "
            f"dimensions; as many real photos have FID {floor[0]:.3f} (sd {floor[1]:.3f} over splits)."
            + (" So few pictures raise every FID: compare at this number only, and look at KID, which they do not." * few)
        )  # fmt: skip
    return lines


def signed(row: Sequence[float | None]) -> str:
    mean, low, high = row
    return f"{mean:+.4f}" + ("" if low is None else f" ({low:+.4f} to {high:+.4f})")


# The command


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--arm", action="append", required=True, metavar="NAME=PATH", help="a folder or table of pictures; once an arm")
    parser.add_argument("--real", type=Path, required=True, metavar="BUNDLE", help="real photos that no arm was shown")
    parser.add_argument("--library", type=Path, required=True, metavar="BUNDLE", help="the photos that references came from")
    parser.add_argument("--judge-photos", type=Path, metavar="BUNDLE", help="photos to teach the judges (default: half of --real)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="lines of {prompt, class} (default: one a class of --real)")
    parser.add_argument("--choices", type=Path, metavar="FILE", help="choices.jsonl of `choose`: which references each was shown")
    parser.add_argument("--encoder", action="append", metavar="NAME", help="as `realrag index` takes it; may be given again")
    parser.add_argument("--copy-quantile", type=float, default=COPY_QUANTILE, metavar="Q", help="default %(default)s")
    parser.add_argument("--copy-threshold", type=float, metavar="COSINE", help="in place of the quantile")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 for torch's own choice")
    parser.add_argument("--max-minutes", type=float, default=0, help="stop in time; the same command goes on (0: never)")


def named_paths(given: Sequence[str]) -> dict[str, Path]:
    """["NAME=PATH"] -> {name: path}."""
    found: dict[str, Path] = {}
    for text in given:
        name, sign, path = text.partition("=")
        if not (sign and name.strip() and path) or name in found:
            raise RealRAGError(f"--arm {text!r} does not read NAME=PATH, or its name is given twice.")
        found[name.strip()] = Path(path)
    return found


def read_arms(arguments: argparse.Namespace, prompts: Sequence[Prompt]) -> dict[str, list[Picture]]:
    """The arms of a command line, aligned, with the references of --choices where there are any."""
    choices = read_choices(arguments.choices) if getattr(arguments, "choices", None) else {}
    arms = {name: read_arm(path, prompts) for name, path in named_paths(arguments.arm).items()}
    return aligned({name: with_references(pictures, choices.get(name, {})) for name, pictures in arms.items()})


def run(arguments: argparse.Namespace, say: Callable[[str], None] = lambda line: print(line, flush=True)) -> None:
    from .judge_page import write_page

    if not 0 < arguments.copy_quantile <= 1:
        raise RealRAGError(f"--copy-quantile is {arguments.copy_quantile}; it is a share above 0 and at most 1, such as 0.99.")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    until = time.monotonic() + 60 * arguments.max_minutes if arguments.max_minutes else float("inf")
    real, library = Bundle(arguments.real, default_cache()), Bundle(arguments.library, default_cache())
    taught = Bundle(arguments.judge_photos, default_cache()) if arguments.judge_photos else None
    refuse_shared(real, library, "Then copying would look real. Judge by photos that no arm was shown.")
    if taught:
        refuse_shared(real, taught, "Then the judges' ceiling would be what they learnt by heart. Take them apart.")
        refuse_shared(taught, library, "Then a copied reference would be named by heart. Teach the judges from others.")
    prompts = read_prompts(arguments.prompts) if arguments.prompts else class_prompts(sorted(filter(None, set(photo_classes(real)))))
    judged = Judged(read_arms(arguments, prompts), real, library, taught, arguments.copy_quantile, arguments.copy_threshold,
                    arguments.seed)  # fmt: skip
    arguments.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()

    def progress(done: int, total: int) -> None:
        if time.monotonic() > until:
            raise OutOfTime("Time is up; what was encoded is kept. Run the same command again to go on.")
        if done < total:
            say(f"{done} of {total} pictures, {time.monotonic() - began:.0f} s")

    reports: dict[str, dict] = {}
    try:
        for name in arguments.encoder or [DEFAULT_ENCODER]:
            encoder = load_encoder(name, device=arguments.device)
            reports[name] = judge(judged, encoder, arguments.out / "vectors", progress)
            say(table(reports[name]) + "\n")
    except OutOfTime as stopped:
        say(str(stopped))
        raise SystemExit(STOPPED) from None
    facts = {"real": real.id, "library": library.id, "judge_photos": taught and taught.id, "seed": arguments.seed,
             "arms": {name: sha256_bytes(json.dumps([p.key for p in each]).encode()) for name, each in judged.arms.items()}}  # fmt: skip
    write_report(arguments.out / "judge.json", {"facts": facts, "encoders": reports})
    write_page(arguments.out / "judge.html", reports, judged.arms, real)
    say(f"wrote {arguments.out / 'judge.json'} and judge.html")
