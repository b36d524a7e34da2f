"""Pictures that show nothing: one color all over, nearly black, or wholly transparent, which is laid on white."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

NEAR = 16  # levels of 255 from a channel's median that are still one color: a dark photo's noise stays within
SEEN = 1 / 2000  # fraction of the pixels that must differ more: one thin line through a picture is enough
BLACK, WHITE = 16, 239


def one_color(image: Image.Image) -> str:
    """The color of an RGB picture that has only one: "black", "white", "#40a0c0"; "" for a picture that shows something."""
    counts = image.histogram()
    pixels, medians = image.width * image.height, []
    for channel in (counts[start : start + 256] for start in (0, 256, 512)):
        below = median = 0
        while below + channel[median] <= pixels // 2:
            below, median = below + channel[median], median + 1
        near = sum(channel[max(0, median - NEAR) : median + NEAR + 1])
        if pixels - near > SEEN * pixels:
            return ""
        medians.append(median)
    if max(medians) < BLACK:
        return "black"
    return "white" if min(medians) > WHITE else "#{:02x}{:02x}{:02x}".format(*medians)
