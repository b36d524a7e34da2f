"""A picture that shows nothing is told from a dark, pale or nearly empty one that shows something."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from realrag.photos.blank import one_color


def noisy(level: int, spread: int, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).normal(level, spread, (300, 400, 3))
    return Image.fromarray(noise.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("image", "color"),
    [
        (Image.new("RGB", (640, 480), "white"), "white"),
        (Image.new("RGB", (640, 480)), "black"),
        (Image.new("RGB", (1, 1), (64, 160, 192)), "#40a0c0"),
        (noisy(3, 3), "black"),  # a phone's camera in a pocket
        (noisy(252, 2), "white"),
    ],
)
def test_one_color_and_its_noise_show_nothing(image, color):
    assert one_color(image) == color


@pytest.mark.parametrize("paper", [(255, 255, 255), (0, 0, 0), (128, 90, 90)])
def test_one_thin_line_shows_something(paper):
    image = Image.new("RGB", (768, 768), paper)
    ImageDraw.Draw(image).line((50, 60, 700, 620), fill=tuple(abs(value - 40) for value in paper), width=1)
    assert one_color(image) == ""


def test_a_candle_at_night_and_a_gray_day_show_something():
    night = noisy(4, 2)
    ImageDraw.Draw(night).ellipse((200, 150, 210, 165), fill=(200, 120, 30))
    assert one_color(night) == ""
    fog = np.linspace(190, 230, 400).astype(np.uint8)
    assert one_color(Image.fromarray(np.broadcast_to(fog[None, :, None], (300, 400, 3)).copy())) == ""


def test_the_color_alone_may_differ():
    image = Image.new("RGB", (100, 100), (120, 120, 120))
    image.paste((120, 120, 190), (0, 0, 10, 10))
    assert one_color(image) == ""
