"""What became of the photos of an indexing run, in sentences for a terminal or a node."""

from __future__ import annotations

from ..doubt import LEAST
from ..search.names import asked_as
from .options import Report

BY_COMMAND = "--encoder ViT-L-14:openai"  # the better encoder, as the command names it


def counts_of(report: Report) -> list[str]:
    """How many photos were found, and what became of them."""
    repeats, refused = report.duplicates, len(report.rejected)
    first = f" (first: {repeats[0][0]} is {repeats[0][1]})" if repeats else ""
    became = [(report.indexed, "usable"), (len(repeats), f"the same as another{first}"), (refused, "left out")]
    done = [
        (report.encoded, "encoded now"), (report.reused, "with the vectors of the other library"),
        (report.removed, "taken out of the library"),
    ]  # fmt: skip
    split = ", all usable" if report.indexed == report.found > 1 else f": {_listed(became) or 'none usable'}"
    lines = [f"{_photos(report.found)} found{split}; {_listed(done) or 'nothing new'}."]
    if report.kept:
        lines.append(f"{report.kept} photos stay as they were: their files are there, but cannot be used now.")
    return lines


def license_note(report: Report) -> list[str]:
    """That no photo of the library states a license: once, and what it means."""
    if not report.total or report.unlicensed < report.total:
        return []
    return [
        "No photo states a license. Your own need none; for photos of others set license and author, so that credits name them."
    ]


def _photos(count: int) -> str:
    return f"{count} photo{'s' * (count != 1)}"


def _listed(counts: list[tuple[int, str]]) -> str:
    return ", ".join(f"{count} {what}" for count, what in counts if count)


def left_out(report: Report, most: int | None = None) -> list[str]:
    """Each photo that was left out and why; with `most`, the first of them and the number of the others."""
    lines = [f"left out ({item.reason}): {item.message}" for item in report.rejected[:most]]
    more = len(report.rejected) - len(lines)
    return [*lines, f"and {more} more that were left out"] if more else lines


def what_to_ask(report: Report, better_encoder: str = BY_COMMAND) -> str:
    """What the library can be asked, in a few sentences."""
    lines = [_by_words(report)]
    if report.unmatched_names:
        lines.append(f"{report.unmatched_names} rows of the table of names are about classes that are not here.")
    level = report.level
    if level and level.score is not None:
        lines.append(f"By look, a photo that scores below {level.score:.2f} is doubtful and left out.")
        if level.known >= LEAST and not level.tells:
            lines.append(
                f"This encoder knows little of what is in this library: {level.false_rejects:.0%} of its own names and captions "
                f"score below that. Names and captions are found all the same. To find more by look, ask with a picture, or "
                f"make the library with another encoder, such as {better_encoder}."
            )
    return " ".join(lines)


def _by_words(report: Report) -> str:
    """The names and captions to ask for, or what to do where there are none."""
    if report.classes:
        listed = ", ".join(map(asked_as, report.class_names))
        more = report.classes - len(report.class_names)
        others = f" and {report.names} other names" if report.names else ""
        found = f"Ask it by name for its {report.classes} class{'es' * (report.classes != 1)}{others}: {listed}"
        found += f" and {more} more." if more else "."
        return found + (" Its captions are searched too." if report.captions else "")
    if report.captions:
        return "Ask it by the words of its captions and file names. No photo lies in a sub-folder with a name, so there are no class names."
    return (
        "Its photos have no names and no captions, so only their look is searched. To ask by name, put the photos of each thing "
        "into a sub-folder called as you will ask for it, or write a caption into a .txt file beside each photo."
    )
