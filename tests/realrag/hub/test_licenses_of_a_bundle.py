"""Filter, summary, push and card use one normal form of a license, and show the words as they were given."""

import json

import pytest
from made_photos import write_photos

from realrag.bundle.bundle import Bundle
from realrag.bundle.records import Filters
from realrag.commands.main import main
from realrag.errors import HubError
from realrag.hub.card import card
from realrag.hub.push import push
from realrag.indexing.build import build


def bundle_of(tmp_path, encoder, *words: str) -> Bundle:
    """A bundle of 15 photos whose licenses are these words in turn."""
    write_photos(tmp_path / "photos")
    files = sorted(path.relative_to(tmp_path / "photos").as_posix() for path in (tmp_path / "photos").rglob("*.jpg"))
    rows = [json.dumps({"file": file, "license": words[at % len(words)]}) for at, file in enumerate(files)]
    (tmp_path / "photos" / "credits.jsonl").write_text("\n".join(rows))
    build(tmp_path / "photos", tmp_path / "b", encoder)
    return Bundle(tmp_path / "b")


CC_BY = ("CC BY 4.0", "cc-by-4.0", "https://creativecommons.org/licenses/by/4.0/")


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [*CC_BY, "CC-BY-4.0", "Creative Commons Attribution 4.0 International"])
def test_a_filter_finds_every_spelling(tmp_path, encoder, wanted):
    records = bundle_of(tmp_path, encoder, *CC_BY, "CC0", "All rights reserved").records
    allowed, note = records.mask(Filters(licences=(wanted,)))
    assert (allowed.sum(), note) == (9, "")


def test_a_filter_for_a_license_that_is_not_here_says_so(tmp_path, encoder):
    allowed, note = bundle_of(tmp_path, encoder, *CC_BY).records.mask(Filters(licences=("MIT",)))
    assert not allowed.any()
    assert note == "Nothing here is called 'mit'."


def test_a_filter_finds_photos_that_state_no_license(tmp_path, encoder):
    allowed, _ = bundle_of(tmp_path, encoder, "", "unknown", "CC0").records.mask(Filters(licences=("not stated",)))
    assert allowed.sum() == 10


def test_the_summary_shows_the_form_and_the_words(tmp_path, encoder, capsys):
    bundle_of(tmp_path, encoder, *CC_BY)
    assert main(["show", str(tmp_path / "b")]) == 0
    printed = capsys.readouterr().out
    assert 'CC-BY-4.0 (as "CC BY 4.0", "cc-by-4.0", "https://creativecommons.org/licenses/by/4.0/") (15)' in printed
    assert main(["show", str(tmp_path / "b"), "--json"]) == 0
    metadata = json.loads(capsys.readouterr().out)
    assert metadata["licences"] == dict.fromkeys(CC_BY, 5)
    assert metadata["license_forms"] == {"CC-BY-4.0": dict.fromkeys(CC_BY, 5)}


def test_the_card_files_the_bundle_under_its_one_license(tmp_path, encoder):
    text = card(bundle_of(tmp_path, encoder, *CC_BY), "ann/photos", "0" * 40)
    assert text.startswith("---\nlicense: cc-by-4.0\n")
    assert '| CC-BY-4.0 (as "CC BY 4.0", "cc-by-4.0", "https://creativecommons.org/licenses/by/4.0/") | 15 |' in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("CC0", "All rights reserved", "(c) Ann"), "10 of 15 photos keep all rights reserved"),
        (("CC0", "unknown", ""), "10 of 15 photos state no licence"),
        (("n/a", "In Copyright", "MIT"), "5 of 15 photos state no licence and 5 of 15 photos keep all rights reserved"),
    ],
)
def test_photos_that_are_not_free_are_not_made_public(tmp_path, encoder, words, message):
    with pytest.raises(HubError, match=message):
        push(bundle_of(tmp_path, encoder, *words), "ann/photos", public=True)
