"""Charts of a report, drawn by matplotlib: lines over epochs, intervals over settings, bars by class, points in a plane.

Each function draws on matplotlib axes; `chart` puts them side by side as one picture."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from realrag.errors import RealRAGError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

INK, FAINT = "#282828", "#cdcdcd"
COLORS = {
    "zero": "#787878", "normal": "#266eb4", "hard": "#c87814", "reflective": "#be1e46", "utility": "#7846aa",
    "reflective-ten": "#7a1030", "random": "#c8c8c8", "oracle": "#1e8c46",
}  # fmt: skip
PALETTE = ("#be1e46", "#266eb4", "#1e8c46", "#c87814", "#7846aa", "#5a5a5a")
DPI = 100


class NoCharts(RealRAGError):
    """matplotlib is not installed."""


def chart(
    panels: Sequence[Callable[[Axes], None]], columns: int = 1, size: tuple[int, int] = (640, 300)
) -> Image.Image:
    """An RGB picture of panels that draw themselves, each of `size` pixels. NoCharts if matplotlib is missing."""
    from PIL import Image

    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise NoCharts('Charts need matplotlib. Install it with `pip install "realrag[train]"`.') from None
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure((columns * size[0] / DPI, rows * size[1] / DPI), dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for place, draw in zip(axes, panels, strict=False):
        place.tick_params(colors=INK, labelsize=8)
        place.spines[["top", "right"]].set_visible(False)
        draw(place)
    for place in axes[len(panels) :]:
        place.axis("off")
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def lines(axes: Axes, series: dict[str, Sequence[float]], title: str) -> None:
    """One line per name over epochs 1, 2, 3 ... in the color of the arm. Values must be finite."""
    for name, values in series.items():
        axes.plot(range(1, len(values) + 1), values, marker="o", markersize=3, color=COLORS.get(name, INK), label=name)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("epoch", fontsize=8)
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(axis="y", color=FAINT, linewidth=0.6)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=8)


def intervals(axes: Axes, points: Sequence[tuple[str, Sequence[float]]], title: str, level: float) -> None:
    """A point with its interval per label, [(label, (mean, low, high))], from 0 upwards. `level` is a line across."""
    means, lows, highs = (np.array([row[at] for _, row in points], float) for at in range(3))
    places = np.arange(len(points))
    axes.axhline(level, color=COLORS["normal"], linewidth=1)
    axes.errorbar(places, means, [means - lows, highs - means], color=COLORS["reflective"], ecolor=INK, marker="o")
    axes.set_xticks(places, [textwrap.fill(label, 12) for label, _ in points])
    axes.set_ylim(bottom=0)
    axes.margins(x=0.15)
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(axis="y", color=FAINT, linewidth=0.6)


def bars(axes: Axes, rows: Sequence[tuple[str, dict[str, float]]], title: str) -> None:
    """One group of horizontal bars per row, [(label, {name: value in 0..1})], the first row on top."""
    names = list(rows[0][1]) if rows else []
    height = 0.8 / max(1, len(names))
    for at, name in enumerate(names):
        places = np.arange(len(rows)) - 0.4 + height * (at + 0.5)
        axes.barh(places, [values[name] for _, values in rows], height, color=COLORS.get(name, INK), label=name)
    axes.set_yticks(range(len(rows)), [shortened(label) for label, _ in rows])
    axes.set_ylim(max(1, len(rows)) - 0.5, -0.5)
    axes.set_xlim(0, 1)
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    if names:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=8)


def scatter(axes: Axes, groups: Sequence[tuple[str, np.ndarray, np.ndarray]], title: str, bounds) -> None:
    """Photos as dots and prompts as diamonds, [(label, photos (N, 2), prompts (M, 2))], one color of PALETTE per group.
    bounds: lowest and highest point, (2,) each. One unit has the same length in both directions."""
    low, high = np.asarray(bounds, float)
    margin = 0.05 * max((high - low).max(), 1e-9)
    for (label, photos, prompts), color in zip(groups, PALETTE[: len(groups)], strict=True):
        axes.scatter(*np.asarray(photos).reshape(-1, 2).T, s=12, color=color, label=shortened(label))
        axes.scatter(*np.asarray(prompts).reshape(-1, 2).T, s=90, color=color, marker="D", edgecolors=INK, zorder=3)
    axes.set(xlim=(low[0] - margin, high[0] + margin), ylim=(low[1] - margin, high[1] + margin), xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="box")
    axes.set_title(title, fontsize=10, loc="left")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), ncols=2, frameon=False, fontsize=8)


def shortened(label: str, most: int = 34) -> str:
    return label if len(label) <= most else label[: most - 3] + "..."
