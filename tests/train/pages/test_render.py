"""Pages: what a template prints is escaped, and what it lacks is an error."""

import base64
import io

import pytest
from jinja2 import UndefinedError
from PIL import Image

from realrag_train.pages.render import picture_url, render

EVIL = "<img src=x onerror=alert(1)>"


def judge_page(**changes) -> str:
    report = {
        "facts": {"retrievers_own": False}, "real": {"FID": [0.1, None, None]},
        "arms": {EVIL: {"FID": [1.25, 1.0, 1.5]}},
        "differences": {f"{EVIL} - none": {"FID": [0.5, 0.25, 0.75]}, "a - b": {"FID": [0.5, -0.25, 0.75]},
                        "c - d": {"FID": [0.5, None, None]}},
    }  # fmt: skip
    given = {"encoders": [(EVIL, report, ["FID"], [EVIL])], "fewest": 5, "sheets": [(EVIL, "data:,")], **changes}
    return render("judge.html", **given).decode()


def test_no_name_of_an_arm_an_encoder_or_a_prompt_is_read_as_html():
    page = judge_page()
    assert EVIL not in page
    assert page.count("&lt;img src=x") == 6  # encoder, arm, note, pair, prompt and the text of its picture
    assert "script" not in page


def test_a_difference_is_bold_where_0_lies_outside_its_interval():
    page = judge_page()
    assert page.count("<b>+0.500</b>") == 1
    assert page.count("+0.500") == 3
    assert 'title="+1.2500 (+1.0000 to +1.5000)"' in page


def test_a_page_says_that_it_loads_nothing():
    assert "default-src 'none'; img-src data:" in judge_page()


def test_a_value_that_a_template_misses_is_an_error():
    with pytest.raises(UndefinedError):
        render("judge.html", encoders=[], fewest=5)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_in_a_page_is_the_picture(kind):
    image = Image.new("RGB", (8, 6), (200, 30, 40))
    head, data = picture_url(image, kind).split(",")
    assert head == f"data:image/{kind.lower()};base64"
    back = Image.open(io.BytesIO(base64.b64decode(data)))
    assert back.size == (8, 6)
    assert max(abs(a - b) for a, b in zip(back.convert("RGB").getpixel((3, 3)), (200, 30, 40), strict=True)) < 4
