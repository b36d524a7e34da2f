"""A hundred and more ways to spoil a bundle. Each must end in a BundleError, never in a crash.

Two kinds: damage (a file changes after the manifest was written, caught by its hash) and malice (the author hashed his
spoiled file himself, caught by the checks behind the hash).
"""

import json
import pickle
import shutil
from pathlib import Path

import pytest
from bundle_content import file_of, relist, replace_hashed, rewrite
from fake_encoder import ColorEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_photos import photo_bytes
from malformed import DAMAGE, HEAD_FILES, HEADS, MANIFESTS, NO_RECORDS, RAW_MANIFESTS, RECORDS, embeddings, heads, top

from realrag.bundle.bundle import Bundle, read_manifest
from realrag.bundle.edit_heads import change_heads
from realrag.bundle.head_entries import is_head_name
from realrag.encoders.reflective_head import ReflectiveHead, save_head
from realrag.errors import BundleError, EncoderError, RealRAGError
from realrag.indexing.build import build
from realrag.indexing.shards import Sizes


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    root = tmp_path_factory.mktemp("good")
    for seed in range(4):
        (root / "photos").mkdir(exist_ok=True)
        (root / "photos" / f"{seed}.jpg").write_bytes(photo_bytes((200, 9, 9), seed, size=(120, 90)))
    build(root / "photos", root / "b", ColorEncoder(), sizes=Sizes(thumbnail=64))
    return root / "b"


@pytest.fixture
def bundle(good, tmp_path):
    return Path(shutil.copytree(good, tmp_path / "b"))


def use(folder: Path) -> None:
    """Open and read everything, as the commands and nodes do."""
    Bundle(folder).verify()


ROLES = ("embeddings", "records", "pictures", "thumbnails", "manifest")
CASES = [(role, kind) for role in ROLES for kind in DAMAGE]


@pytest.mark.parametrize(("role", "kind"), CASES)
def test_a_damaged_file_is_refused(bundle, role, kind):
    path = bundle / "manifest.json" if role == "manifest" else file_of(bundle, role)
    data = DAMAGE[kind](path.read_bytes())
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(BundleError):
        use(bundle)


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_hostile_manifest_is_refused(bundle, kind):
    rewrite(bundle, MANIFESTS[kind])
    with pytest.raises(BundleError):
        use(bundle)


@pytest.mark.parametrize("kind", HEADS)
def test_hostile_heads_are_refused_before_their_files_are_looked_for(bundle, kind):
    rewrite(bundle, HEADS[kind])
    with pytest.raises(BundleError, match=r"manifest.json"):
        read_manifest(bundle)


def test_the_unspoiled_heads_of_these_tests_are_right(bundle):
    """Else the cases above would be refused for a reason they share."""
    rewrite(bundle, heads(lambda m: None))
    assert [head.name for head in read_manifest(bundle).heads] == ["a", "b"]
    rewrite(bundle, lambda m: m["heads"][1].update(name="FLUX.1-dev_8+steps"))
    assert read_manifest(bundle).heads[1].name == "FLUX.1-dev_8+steps"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "path", "facts", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spoiled=st.dictionaries(st.sampled_from(["heads", "head", "version"]), JSON, min_size=1),
    entry=st.dictionaries(st.sampled_from(["name", "path", "facts", "x"]), JSON),
    metadata=JSON,
)
def test_any_heads_give_a_clear_error_or_names_that_keep_the_rule(good, tmp_path_factory, spoiled, entry, metadata):
    folder = tmp_path_factory.mktemp("heads")
    for change in (
        heads(lambda m: m.update(spoiled)), heads(lambda m: m["heads"][0].update(entry)), top(head={"generator": metadata}),
        top(**{"head": metadata, **spoiled}),
    ):  # fmt: skip
        shutil.copy(good / "manifest.json", folder / "manifest.json")
        rewrite(folder, change)
        try:
            assert all(is_head_name(head.name) for head in read_manifest(folder).heads)
        except BundleError:
            pass


@pytest.mark.parametrize("kind", HEAD_FILES)
@pytest.mark.parametrize("spoiled", ["flux", "sd35"])
def test_a_hostile_head_file_is_refused_also_where_it_is_not_the_default(bundle, tmp_path, kind, spoiled):
    for at, name in enumerate(("flux", "sd35")):
        save_head(ReflectiveHead(13, 4 + at, {"generator": name}), tmp_path / name)
    change_heads(bundle, {name: tmp_path / name for name in ("flux", "sd35")})
    use(bundle)
    path = bundle / read_manifest(bundle).named(spoiled).file.path
    data = HEAD_FILES[kind](path.read_bytes())
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"sha256|bytes"):
        use(bundle)

    relist(bundle, path)
    with pytest.raises(EncoderError, match=path.name):
        use(bundle)


@pytest.mark.parametrize("kind", RAW_MANIFESTS)
def test_a_manifest_that_is_no_manifest_is_refused(bundle, kind):
    (bundle / "manifest.json").write_bytes(RAW_MANIFESTS[kind])
    with pytest.raises(BundleError):
        use(bundle)


EMBEDDINGS = embeddings(ColorEncoder.dim)


@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_hostile_embeddings_are_refused(bundle, kind):
    replace_hashed(bundle, "embeddings", EMBEDDINGS[kind])
    with pytest.raises(BundleError):
        use(bundle)


@pytest.mark.parametrize("kind", RECORDS)
def test_hostile_records_are_refused(bundle, kind):
    rows = [json.loads(row) for row in file_of(bundle, "records").read_bytes().splitlines()]
    rows = RECORDS[kind](rows)
    replace_hashed(bundle, "records", b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    with pytest.raises(BundleError):
        use(bundle)


@pytest.mark.parametrize("kind", NO_RECORDS)
def test_records_that_are_none_are_refused(bundle, kind):
    replace_hashed(bundle, "records", NO_RECORDS[kind])
    with pytest.raises(BundleError):
        use(bundle)


@pytest.mark.slow
def test_a_picture_larger_than_the_bundle_promises_is_refused(bundle):
    """A bomb in the pack: the manifest bounds every picture, and nothing larger is decoded."""
    big = photo_bytes((1, 1, 1), size=(2000, 2000))
    replace_hashed(bundle, "pictures", big)
    rows = [json.loads(row) for row in file_of(bundle, "records").read_bytes().splitlines()]
    for row in rows:
        row["picture"] = [0, 0, len(big)]
    replace_hashed(bundle, "records", b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    with pytest.raises(BundleError, match="million"):
        use(bundle)


def test_a_link_out_of_the_bundle_is_refused(bundle, tmp_path):
    path = file_of(bundle, "embeddings")
    path.rename(tmp_path / "elsewhere.safetensors")
    path.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(BundleError, match="link"):
        use(bundle)


def test_no_bundle_at_all_says_how_to_make_one(tmp_path):
    with pytest.raises(BundleError, match="realrag index"):
        Bundle(tmp_path)


def test_files_that_are_not_listed_are_ignored(bundle):
    (bundle / "Thumbs.db").write_bytes(b"x")
    (bundle / "evil.pkl").write_bytes(pickle.dumps(1))
    use(bundle)


def test_a_changed_file_is_seen_in_spite_of_remembered_verdicts(bundle, tmp_path):
    Bundle(bundle, tmp_path / "cache")
    path = file_of(bundle, "embeddings")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink()
    path.write_bytes(data)
    with pytest.raises(BundleError, match="has changed"):
        Bundle(bundle, tmp_path / "cache")


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_anywhere_give_a_clear_error_or_a_bundle_that_reads_whole(good, tmp_path_factory, data):
    """Mutations of a file that its author hashed himself: a RealRAGError, or a bundle that reads whole. Whether he
    meant the vectors he wrote, no check can tell."""
    folder = Path(shutil.copytree(good, tmp_path_factory.mktemp("fuzz") / "b"))
    role = data.draw(st.sampled_from(ROLES))
    path = folder / "manifest.json" if role == "manifest" else file_of(folder, role)
    raw = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=9))
        raw[at : at + len(piece)] = piece
    try:
        path.write_bytes(raw) if role == "manifest" else replace_hashed(folder, role, bytes(raw))
        use(folder)
    except RealRAGError:
        pass
