"""The figures of painted pictures as text, with the notes that they need."""

from __future__ import annotations

from realrag.interval_text import with_interval

from ..stats import FEWEST

MEASURES = ("CLIP-I", "CLIP-T", "accuracy (linear)", "accuracy (means)", "accuracy (names)", "copied", "diversity", "FID",
            "KID", "to references", "references copied")  # fmt: skip
ON_SCREEN = ("CLIP-I", "accuracy (linear)", "copied", "FID", "KID")  # differences; the files hold all


def table(report: dict) -> str:
    """One encoder's figures: the real photos and each arm, then the differences with their intervals."""
    metadata, distances = report["facts"], report["distances"]
    own = " (the retriever's own, so not an independent judge)" if metadata["retrievers_own"] else ""
    measures = [m for m in MEASURES if any(m in row for row in report["arms"].values())]
    lines = [f"{metadata['encoder']}{own}: {metadata['pictures']} pictures an arm, {metadata['classes']} classes"]
    wide = {m: max(len(m), 7) + 2 for m in measures}
    lines.append(f"{'arm':<12}" + "".join(f"{m:>{wide[m]}}" for m in measures))
    for name, row in {"real photos": report["real"], **report["arms"]}.items():
        cells = (f"{row[m][0]:>{wide[m]}.4f}" if m in row else f"{'-':>{wide[m]}}" for m in measures)
        lines.append(f"{name:<12}" + "".join(cells))
    lines += notes(report)
    if report["differences"]:
        lines += [
            "",
            f"differences, with 95 % intervals over classes (none below {FEWEST} classes; not resolved if 0 lies inside)",
        ]
    for pair, row in report["differences"].items():
        lines.append(f"{pair:<24}" + ", ".join(f"{m} {with_interval(row[m], '+.4f')}" for m in ON_SCREEN if m in row))
    return "\n".join(lines) + ("" if distances else "\nFID and KID need four real photos or more.")


def notes(report: dict) -> list[str]:
    """How to read the figures, one sentence or two per note."""
    metadata, distances = report["facts"], report["distances"]
    how = (
        f"the {metadata['copy_quantile']:.0%} quantile of real photos' own" if metadata["copy_quantile"] else "as given"
    )
    lines = [
        f"copied: cosine to the nearest library photo {metadata['copy_threshold']:.4f} or more, {how}.",
        f"accuracy: classifiers trained on {metadata['taught_from']} ({metadata['linear_judge']['photos']}). The accuracy on real "
        f"photos, the ceiling, is that of {metadata['held_photos']} photos they were not trained on.",
    ]  # fmt: skip
    if distances:
        floor, few = distances["floor"]["FID"], distances["pictures"] < 10 * distances["dim"]
        lines.append(
            f"FID and KID: {distances['pictures']} pictures against {distances['photos']} real photos in {distances['dim']} "
            f"dimensions. The same number of real photos has FID {floor[0]:.3f} (sd {floor[1]:.3f} over splits)."
            + " So few pictures raise every FID, but not KID: compare FID only at this number of pictures." * few
        )  # fmt: skip
    return lines
