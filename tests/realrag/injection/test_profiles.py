"""Layer profiles and presets in words."""

import pytest

from realrag.errors import AdapterError
from realrag.injection.profiles import AS_SET, COMPOSITION, CUSTOM, PROFILES, STYLE, WORDS, factors, preset


@pytest.mark.parametrize("profile", [p for p in PROFILES if p not in (CUSTOM, "single only")])
@pytest.mark.parametrize("double, single", [(19, 38), (19, 0), (38, 0), (3, 2), (1, 0)])
def test_every_profile_gives_each_block_a_factor_and_some_block_a_full_one(profile, double, single):
    found = factors(profile, double, single)
    assert len(found) == double + single and 0.92 <= max(found) <= 1 and min(found) >= 0


def test_the_shapes_are_what_their_names_say():
    assert factors("linear", 2, 2) == (1, 1, 1, 1)
    assert factors("first half", 2, 3) == (1, 1, 1, 0, 0) and factors("second half", 2, 3) == (0, 0, 0, 1, 1)
    assert factors("double only", 2, 2) == (1, 1, 0, 0) and factors("single only", 2, 2) == (0, 0, 1, 1)
    assert factors("ease in", 3, 0) == pytest.approx((0.05, 0.525, 1))
    assert factors("ease out", 3, 0) == pytest.approx((1, 0.525, 0.05))
    assert factors("ease in-out", 5, 0) == pytest.approx((0.05, 0.525, 1, 0.525, 0.05))


def test_the_ramp_is_that_of_diffusers():
    import numpy as np

    assert factors("ramp 0.3 to 0.92", 19, 0) == pytest.approx(np.linspace(0.3, 0.92, 19).tolist())


def test_a_custom_list_has_one_number_a_block_or_is_stretched_over_them():
    assert factors(CUSTOM, 2, 1, "0.5, 0; 1") == (0.5, 0, 1)
    assert factors(CUSTOM, 4, 1, "0.2 1") == (0.2, 0.2, 0.2, 1, 1)


@pytest.mark.parametrize("text", ["", "1, x", "1 1 1 1", "nan", "9", "inf", "0 0 0"])
def test_a_custom_list_that_means_nothing_is_refused(text):
    with pytest.raises(AdapterError):
        factors(CUSTOM, 2, 1, text)


def test_a_profile_that_leaves_no_block_is_refused_with_the_numbers():
    with pytest.raises(AdapterError, match="19 double and 0 single"):
        factors("single only", 19, 0)
    with pytest.raises(AdapterError, match="not a layer profile"):
        factors("zigzag", 2, 2)


@pytest.mark.parametrize("family", ["flux-xlabs", "sd35-instantx", "shared", "flux-instantx"])
def test_presets_grow_with_their_words_and_name_known_profiles(family):
    found = [preset(word, family) for word in WORDS[1:]]
    mean = [p.strength * sum(factors(p.profile, 19, 0)) / 19 for p in found]
    assert mean == sorted(mean) and all(0 < p.strength <= 2 and 0 < p.end <= 1 for p in found)
    assert preset(AS_SET, family) is None
    with pytest.raises(AdapterError, match="not a preset"):
        preset("loud", family)


def test_composition_keeps_to_the_early_blocks_and_style_to_the_late_ones():
    early, late = factors(COMPOSITION, 3, 4), factors(STYLE, 3, 4)
    assert early == (1, 1, 1, 1, 0, 0, 0)
    assert [a + b for a, b in zip(early, late, strict=True)] == [1] * 7
