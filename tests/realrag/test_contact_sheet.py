"""Contact sheets: where pictures, frames and titles lie."""

import numpy as np
from PIL import Image

from realrag.contact_sheet import BORDER, LINE, PAPER, Cell, Layout, Row, sheet, tiled

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def square(color, size=20):
    return Image.new("RGB", (size, size), color)


def test_pictures_lie_in_rows_and_columns_beside_their_titles():
    layout = Layout(cell=20, left=90, caption=0, gap=10)
    picture = sheet([Row([Cell(square(RED)), Cell(square(GREEN))], "one"), Row([Cell(square(BLUE))], "two")], layout)
    assert picture.size == (90 + 2 * 30, 10 + 2 * 30)
    assert picture.getpixel((91, 11)) == RED
    assert picture.getpixel((121, 11)) == GREEN
    assert picture.getpixel((91, 41)) == BLUE
    assert picture.getpixel((121, 41)) == PAPER  # the second row is shorter
    assert (np.asarray(picture)[10:30, :90] != PAPER).any()  # the title


def test_headings_and_titles_above_make_room_for_themselves():
    layout = Layout(cell=20, left=0, caption=0, gap=8)
    picture = sheet([Row([Cell(square(RED))], "a photo")], layout, ["real"])
    assert picture.size == (8 + 28, 8 + LINE + LINE + 20 + 8)
    assert picture.getpixel((9, 8 + 2 * LINE + 1)) == RED
    assert sheet([Row([Cell(square(RED))])], layout).height == 8 + 28


def test_a_frame_surrounds_its_picture():
    picture = sheet([Row([Cell(square(RED), frame=GREEN)])], Layout(cell=20, left=30, caption=0, gap=10))
    assert picture.getpixel((30, 10)) == RED
    assert picture.getpixel((30 - BORDER, 15)) == GREEN
    assert picture.getpixel((30 + 20 + BORDER - 1, 15)) == GREEN
    assert picture.getpixel((30 + 20 + BORDER, 15)) == PAPER


def test_tiles_touch_and_what_is_missing_is_white():
    picture = tiled([square(RED, 4), square(GREEN, 4), square(BLUE, 4)], 2)
    assert picture.size == (8, 8)
    assert [picture.getpixel(at) for at in ((0, 0), (7, 0), (3, 7), (7, 7))] == [RED, GREEN, BLUE, (255, 255, 255)]
