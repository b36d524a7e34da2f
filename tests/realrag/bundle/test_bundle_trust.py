"""What a bundle says of itself is checked; what was derived from it is not believed; and a bundle that is replaced while it
is open blames nobody."""

import json
import os
import random
import shutil
import threading
from pathlib import Path

import pytest
from bundle_content import file_of, rewrite
from fake_encoder import ColorEncoder

from realrag.bundle.bundle import CHECKSUM, MANIFEST, UPDATED, Bundle, read_manifest
from realrag.errors import BundleError
from realrag.indexing.build import build
from realrag.retriever import shipped_bundle


@pytest.mark.slow
def test_no_flipped_bit_of_a_manifest_is_taken(bundle):
    path = bundle / MANIFEST
    whole = path.read_bytes()
    before = read_manifest(bundle)
    for bit in random.Random(0).sample(range(8 * len(whole)), 1500):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            content = read_manifest(bundle).content
        except BundleError:
            continue
        assert content == before.content, f"bit {bit}"  # one white space in the place of another


def test_a_manifest_without_checksum_is_read_and_known_to_have_none(bundle):
    assert read_manifest(bundle).checksummed
    rewrite(
        bundle,
        lambda manifest: {key: manifest[key] for key in manifest if key not in (CHECKSUM, "levels", "picture_bound")},
    )
    assert not read_manifest(bundle).checksummed
    assert read_manifest(shipped_bundle()).checksummed
    rewrite(bundle, lambda manifest: manifest.update(levels={}))  # known only to versions that write checksums
    with pytest.raises(BundleError, match=r"has the field 'levels', but no checksum"):
        read_manifest(bundle)


def test_keys_of_a_newer_version_are_passed_over(bundle):
    rewrite(bundle, lambda manifest: manifest.update(levels={"plain": [0.5, {"n": 3}]}))
    assert Bundle(bundle).manifest.content["levels"] == {"plain": [0.5, {"n": 3}]}


def test_a_manifest_that_cannot_be_read_is_not_called_missing(bundle, monkeypatch):
    real = os.open

    def refuse(path, *given, **named):
        if str(path).endswith(MANIFEST):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *given, **named)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(BundleError, match=r"manifest\.json cannot be read: Permission denied"):
        read_manifest(bundle)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("role", ["manifest", "records", "embeddings", "pictures"])
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(bundle, role):
    path = bundle / MANIFEST if role == "manifest" else file_of(bundle, role)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BundleError):
        Bundle(bundle)


@pytest.mark.parametrize("change", ["digest", "cut", "nonsense", "another file's"])
def test_a_remembered_verdict_that_is_wrong_blames_no_file(bundle, tmp_path, change):
    Bundle(bundle, tmp_path / "cache")
    path = tmp_path / "cache" / "verdicts.json"
    known = json.loads(path.read_bytes())
    if change == "digest":
        known = {key: "0" + value[1:] for key, value in known.items()}
    elif change == "another file's":
        known = dict(zip(known, reversed(known.values()), strict=True))
    path.write_bytes(
        {"cut": path.read_bytes()[:-9], "nonsense": b'{"a": [[' * 9}.get(change, json.dumps(known).encode())
    )
    assert len(Bundle(bundle, tmp_path / "cache").records) == 15
    assert len(Bundle(bundle, tmp_path / "cache").records) == 15


def test_a_bundle_brought_up_to_date_while_it_is_open_says_so(photos, bundle):
    opened = Bundle(bundle)
    first = opened.records[0]
    (photos / "red" / "0.txt").write_text("another caption")
    (photos / "red" / "4.jpg").unlink()
    build(photos, bundle, ColorEncoder())
    with pytest.raises(BundleError, match=UPDATED):
        _ = opened.records[1]
    with pytest.raises(BundleError, match=UPDATED):
        opened.image(first)
    with pytest.raises(BundleError, match=UPDATED):
        list(opened.records)


def test_a_lost_file_of_the_same_bundle_is_not_called_an_update(bundle):
    opened = Bundle(bundle)
    first = opened.records[0]
    file_of(bundle, "pictures").unlink()
    with pytest.raises(BundleError, match=r"pictures-.* cannot be read: No such file"):
        opened.image(first)


def test_whoever_opens_a_bundle_while_it_is_replaced_gets_the_old_or_the_new_one(photos, bundle, tmp_path):
    other = tmp_path / "other"
    (photos / "red" / "0.jpg").unlink()
    build(photos, other, ColorEncoder())
    versions, stop, seen = [Path(shutil.copytree(bundle, tmp_path / "old")), other], threading.Event(), set()

    def put(source: Path) -> None:
        shutil.copyfile(source, bundle / ".new")
        os.replace(bundle / ".new", bundle / source.name)

    def replace() -> None:
        while not stop.is_set():
            for version in versions:
                manifest = read_manifest(version)
                for file in manifest.files:
                    put(version / file.path)
                put(version / MANIFEST)
                for path in bundle.iterdir():
                    if path.name not in {file.path for file in manifest.files} | {MANIFEST}:
                        path.unlink()

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(60):
            try:
                seen.add(len(Bundle(bundle).records))
            except BundleError as error:  # three openings were overtaken
                assert UPDATED in str(error)
    finally:
        stop.set()
        thread.join()
    assert seen <= {14, 15}
    assert seen
