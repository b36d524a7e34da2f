"""The subject of a prompt is what comes before its place, its deeds and its style."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realrag.prompts.subject import subject_of


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("zoecat in space", "zoecat"),
        ("a photo of zoecat in space", "zoecat"),
        ("an oil painting of Lena", "Lena"),
        ("wolf plushie howling at the moon", "wolf plushie"),
        ("K-9 walking through a forest", "K-9"),
        ("Bruno the bear, cinematic", "Bruno"),
        ("a raspberry daypack in the forest", "a raspberry daypack"),
        ("rose gold sunglasses with magnolia flowers", "rose gold sunglasses"),
        ("the red kite sleeping", "the red kite"),
        ("in the snow a fox", "in the snow a fox"),
        ("a brick building in fog", "a brick building"),  # no deed of a brick
        ("a cute duckling", "a cute duckling"),
        ("Mr. Fox in the snow", "Mr. Fox"),  # and no sentence that ends
        ("a fox. Soft light", "a fox"),
        ("a 2.5 inch disk on a desk", "a 2.5 inch disk"),
        ("16:9 landscape", "16:9 landscape"),
        # nothing to cut off
        ("a wooden rocking chair", "a wooden rocking chair"),
        ("a swimming pool", "a swimming pool"),
        ("granny smith apples", "granny smith apples"),
        ("the eye of the planet Jupiter", "the eye of the planet Jupiter"),
        ("red and yellow balloons", "red and yellow balloons"),
        ("a white background with a blue square", "a white background with a blue square"),
        ("salt and pepper", "salt and pepper"),
        ("", ""),
    ],
)
def test_the_subject(prompt, subject):
    assert subject_of(prompt) == subject


@given(st.text(alphabet="aing the,.of\n at\u00e9", max_size=300))
def test_the_subject_is_a_part_of_the_prompt(prompt):
    assert subject_of(prompt) in prompt


def test_a_very_long_prompt_takes_no_time():
    for part in ("a ", "photo ", "ing ", " the", ",", "-" * 50, "aing"):
        subject_of(part * (20_000 // len(part)))
