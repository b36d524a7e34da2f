"""Charts: what is drawn where, read back from matplotlib's axes and from pixels."""

import sys
from importlib.util import find_spec

import numpy as np
import pytest

from realrag_train.charts import COLORS, PALETTE, NoCharts, bars, chart, intervals, lines, scatter

pytestmark = pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib is not installed")


def to_hex(color) -> str:
    from matplotlib import colors

    return colors.to_hex(color)


def axes():
    from matplotlib.figure import Figure

    return Figure().subplots()


def test_a_line_an_arm_in_its_color_over_epochs_from_1():
    place = axes()
    lines(place, {"normal": [3.0, 2.0, 1.0], "hard": [1.0]}, "loss")
    normal, hard = place.get_lines()
    assert normal.get_xydata().tolist() == [[1, 3], [2, 2], [3, 1]]
    assert hard.get_xydata().tolist() == [[1, 1]]
    assert [to_hex(line.get_color()) for line in (normal, hard)] == [COLORS["normal"], COLORS["hard"]]


def test_an_interval_reaches_from_its_low_to_its_high_end():
    place = axes()
    intervals(place, [("1", (0.3, 0.2, 0.5)), ("3", (0.4, 0.35, 0.45))], "references", 0.25)
    (bars_drawn,) = place.containers
    segments = bars_drawn.lines[2][0].get_segments()
    assert [segment[:, 1].tolist() for segment in segments] == [pytest.approx([0.2, 0.5]), pytest.approx([0.35, 0.45])]
    assert place.get_ylim()[0] == 0
    assert [text.get_text() for text in place.get_xticklabels()] == ["1", "3"]


def test_bars_stand_in_rows_from_the_top_and_are_as_long_as_their_value():
    place = axes()
    bars(place, [("a", {"zero": 0.2, "normal": 1.0}), ("b", {"zero": 0.4, "normal": 0.0})], "mAP")
    zero, normal = place.containers
    assert [bar.get_width() for bar in zero] == [0.2, 0.4]
    assert [bar.get_width() for bar in normal] == [1.0, 0.0]
    assert zero[0].get_y() < normal[0].get_y() < zero[1].get_y()  # the axis points down
    assert place.get_ylim()[0] > place.get_ylim()[1]


def test_points_lie_where_they_should_with_one_scale_both_ways():
    group = "a", np.array([[-1.0, -1], [1, 1]]), np.array([[1.0, -1]])
    place = axes()
    scatter(place, [group], "title", (np.array([-1.0, -1]), np.array([1.0, 1])))
    photos, prompts = place.collections
    assert photos.get_offsets().tolist() == [[-1, -1], [1, 1]]
    assert prompts.get_offsets().tolist() == [[1, -1]]
    assert to_hex(photos.get_facecolor()[0]) == to_hex(prompts.get_facecolor()[0]) == PALETTE[0]
    assert place.get_aspect() == 1


def test_charts_are_drawn_where_there_is_little_to_draw():
    assert chart([lambda place: lines(place, {"normal": [1.0]}, "one epoch")], size=(520, 300)).size == (520, 300)
    assert chart([lambda place: bars(place, [], "nothing")]).size == (640, 300)
    flat = "flat", np.zeros((1, 2)), np.zeros((1, 2))
    assert chart([lambda place: scatter(place, [flat], "one point", ([0, 0], [0, 0]))] * 3, 2).size == (1280, 600)


def test_a_place_without_a_panel_stays_empty():
    picture = np.asarray(chart([lambda place: lines(place, {"normal": [1.0, 2.0]}, "one")] * 3, 2, (300, 200)))
    assert (picture[200:, 300:] == 255).all()
    assert (picture[200:, :300] < 255).any()


def test_without_matplotlib_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(NoCharts, match=r"pip install \"realrag\[train\]\""):
        chart([lambda place: None])
