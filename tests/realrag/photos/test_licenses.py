import pytest
from hypothesis import given
from hypothesis import strategies as st

from realrag.photos.licenses import described, grouped, normal

SPELLINGS = {
    "CC-BY-4.0": [
        "CC BY 4.0", "CC-BY-4.0", "cc-by-4.0", "cc by 4.0", "CC BY 4.0 International", "(CC BY 4.0)", "CC BY 4",
        "Creative Commons Attribution 4.0 International", "Creative Commons Attribution 4.0 International License",
        "Creative Commons Attribution 4.0 International (CC BY 4.0)", "Attribution 4.0 International", "CC_BY_4.0",
        "https://creativecommons.org/licenses/by/4.0/", "http://creativecommons.org/licenses/by/4.0/deed.de",
        "https://creativecommons.org/licenses/by/4.0/legalcode", "www.creativecommons.org/licenses/by/4.0",
        "Licensed under CC BY 4.0: https://creativecommons.org/licenses/by/4.0/.", "CC-BY 4.0", "CC BY v4.0",
    ],
    "CC-BY-NC-4.0": ["CC BY-NC 4.0", "CC-BY-NC-4.0", "cc by nc 4.0", "Creative Commons Attribution-NonCommercial 4.0"],
    "CC-BY-SA-3.0": ["CC BY-SA 3.0", "cc-by-sa-3.0", "Creative Commons Attribution-Share Alike 3.0 Unported"],
    "CC-BY-SA-3.0-DE": ["CC BY-SA 3.0 DE", "https://creativecommons.org/licenses/by-sa/3.0/de/"],
    "CC-BY-NC-ND-2.0": ["https://creativecommons.org/licenses/by-nc-nd/2.0/", "Attribution-NonCommercial-NoDerivs License"],
    "CC-BY-2.0": ["Attribution License", "https://creativecommons.org/licenses/by/2.0/"],
    "CC0-1.0": ["CC0", "CC0 1.0", "CC0-1.0", "cc0", "https://creativecommons.org/publicdomain/zero/1.0/", "CC Zero",
                "Public Domain Dedication (CC0)"],
    "CC-PDM-1.0": ["Public Domain Mark", "https://creativecommons.org/publicdomain/mark/1.0/"],
    "LicenseRef-public-domain": ["Public Domain", "public domain", "PD", "United States Government Work"],
    "LicenseRef-no-known-restrictions": ["No known copyright restrictions"],
    "LicenseRef-CC-BY": ["CC BY", "cc-by", "Creative Commons Attribution"],
    "LicenseRef-Unsplash": ["Unsplash License", "https://unsplash.com/license"],
    "LicenseRef-Pexels": ["Pexels License", "https://www.pexels.com/license/"],
    "LicenseRef-Pixabay": ["Pixabay License", "Pixabay Content License"],
    "MIT": ["MIT", "mit", "MIT License", "The MIT License"],
    "Apache-2.0": ["Apache-2.0", "Apache License 2.0", "apache 2.0", "Apache License, Version 2.0"],
    "CC-BY-4.0 OR MIT": ["CC-BY-4.0 OR MIT", "cc-by-4.0 or mit"],
}  # fmt: skip
NOT_FREE = ["all rights reserved", "All Rights Reserved", "© 2020 Ann. All rights reserved.", "(c) Ann 2019", "©Ann", "In Copyright",
            "http://rightsstatements.org/vocab/InC/1.0/"]  # fmt: skip
UNKNOWN = ["", " ", "unknown", "Unknown", "n/a", "N/A", "not specified", "?", "not stated"]


@pytest.mark.parametrize(("form", "words"), [(form, words) for form, all in SPELLINGS.items() for words in all])
def test_each_spelling_has_one_normal_form_that_is_free_to_pass_on(form, words):
    found = normal(words)
    assert (found.id, found.stated, found.free) == (form, True, True)


@pytest.mark.parametrize("form", SPELLINGS)
def test_a_normal_form_is_its_own(form):
    if not form.startswith("LicenseRef-"):
        assert normal(form).id == form


@pytest.mark.parametrize("words", NOT_FREE)
def test_reserved_rights_are_stated_and_not_free(words):
    found = normal(words)
    assert (found.id, found.stated, found.free) == ("LicenseRef-all-rights-reserved", True, False)


@pytest.mark.parametrize("words", UNKNOWN)
def test_unknown_is_not_stated(words):
    found = normal(words)
    assert (found.id, found.stated, found.free) == ("not stated", False, None)


@pytest.mark.parametrize("words", ["Ann's own terms", "Editorial", "https://example.org/terms"])
def test_other_words_stay_as_they_are_and_nothing_is_claimed_of_them(words):
    found = normal(words)
    assert (found.id, found.stated, found.free) == (words, True, None)


def test_counts_are_grouped_by_the_form_and_keep_the_words():
    groups = grouped({"CC BY 4.0": 4, "cc-by-4.0": 3, "CC0": 5, "": 1})
    assert groups == {
        "CC-BY-4.0": {"CC BY 4.0": 4, "cc-by-4.0": 3},
        "CC0-1.0": {"CC0": 5},
        "not stated": {"not stated": 1},
    }
    assert described("CC-BY-4.0", groups["CC-BY-4.0"]) == 'CC-BY-4.0 (as "CC BY 4.0", "cc-by-4.0")'
    assert described("MIT", {"MIT": 2}) == "MIT"


@pytest.mark.slow
@given(st.text(max_size=300))
def test_any_words_have_a_form(words):
    found = normal(words)
    assert found.id
    assert normal(found.id).stated == found.stated
