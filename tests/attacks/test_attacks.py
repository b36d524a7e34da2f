"""Some mutants of every kind of file, and some malformed bundles; `make fuzz` and `bundles.py` run all of them."""

import shutil

import pytest

pytest.importorskip("resource")  # measures memory; not on Windows
import attack
import bundles
from bundle_content import content
from malformed import cases


@pytest.mark.slow
@pytest.mark.parametrize("kind", attack.KINDS)
def test_a_mutant_is_refused_in_a_sentence_or_read(kind):
    found = attack.attack(kind, count=24, seed=20261129, seconds=20)
    assert not found["bad"], found
    assert found["refused"], "mutants that are all read test nothing"


@pytest.fixture(scope="module")
def good_bundles(tmp_path_factory):
    return bundles.good_bundles(tmp_path_factory.mktemp("good"))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "first"), [("plain", 3), ("heads", 11), ("small", 17), ("open_clip", 23)])
def test_a_malformed_bundle_is_refused_in_a_sentence(good_bundles, tmp_path, kind, first):
    bundle = good_bundles[kind]
    for name, change in list(cases(bundle).items())[first::31]:
        found = bundles.attack(bundle, name, change, {"verify": bundles.verify}, tmp_path / "work")
        assert found == {"verify": "refused"}, name


@pytest.mark.slow
def test_each_way_to_spoil_a_bundle_spoils_it(good_bundles, tmp_path):
    """Else a case would show nothing."""
    bundle = good_bundles["small"]
    whole = content(bundle)
    for name, change in list(cases(bundle).items())[::4]:
        spoiled = shutil.copytree(bundle, tmp_path / "b")
        change(spoiled)
        folders = {path for path in spoiled.rglob("*") if path.is_dir()} - {spoiled / "encoder"}
        assert folders or content(spoiled) != whole, name
        shutil.rmtree(spoiled)
