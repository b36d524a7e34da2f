"""What became of the photos of an indexing run, in sentences for a terminal or a node."""

from __future__ import annotations

from .options import Report

BY_COMMAND = "--encoder ViT-L-14:openai"  # the better encoder, as the command names it


def counts_of(report: Report) -> list[str]:
    """How many photos were found, and what became of them."""
    lines = [
        f"{report.found} photos found = {report.indexed} indexed + {len(report.duplicates)} duplicates "
        f"+ {len(report.rejected)} rejected; {report.encoded} encoded in this run, {report.removed} removed."
    ]
    if report.kept:
        lines.append(f"{report.kept} photos stay as they were: their files are there, but cannot be used now.")
    return lines


def left_out(report: Report, most: int | None = None) -> list[str]:
    """Each photo that was left out and why; with `most`, the first of them and the number of the others."""
    lines = [f"left out ({item.reason}): {item.message}" for item in report.rejected[:most]]
    more = len(report.rejected) - len(lines)
    return [*lines, f"and {more} more that were left out"] if more else lines


def what_to_ask(report: Report, better_encoder: str = BY_COMMAND) -> str:
    """What the library can be asked, in a few sentences."""
    lines = [
        f"Ask it by name for its {report.classes} classes"
        + (f" and {report.names} other names." if report.names else ".")
    ]
    if not report.classes:
        lines = ["No photo has a class: put each class into a sub-folder, or name it in a table, to ask by name."]
    if report.unmatched_names:
        lines.append(f"{report.unmatched_names} rows of the table of names are about classes that are not here.")
    lines.append(
        "Photos have captions to ask for." if report.captions else "No caption says more than a class or file name."
    )
    if report.level:
        lines.append(report.level.sentence())
        if report.level.score is not None and not report.level.tells:
            lines.append(
                "Names are found all the same. By look, ask with a picture, or index with another encoder, such as "
                f"{better_encoder}."
            )
    return " ".join(lines)
