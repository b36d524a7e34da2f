"""How a figure and its interval are printed."""

import pytest

from realrag.interval_text import span, with_interval


def test_a_figure_is_printed_with_its_interval():
    assert with_interval([0.1234, 0.1, 0.15]) == "0.123 (0.100 to 0.150)"
    assert with_interval([0.024, -0.007, 0.044, 5], "+.3f") == "+0.024 (-0.007 to +0.044)"
    assert with_interval([0.5, 0.25, 0.75], ".1%") == "50.0% (25.0% to 75.0%)"
    assert span([0.024, -0.007, 0.044], "+.4f") == "-0.0070 to +0.0440"


@pytest.mark.parametrize("row", [[0.5, None, None], [0.5, float("nan"), float("nan")]])
def test_a_figure_without_an_interval_is_printed_alone(row):
    assert with_interval(row) == "0.500"
    assert span(row) == ""
