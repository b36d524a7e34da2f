"""A hundred and more ways to spoil a bundle. Each must end in a BundleError, never in a crash.

Two kinds: damage (a file changes after the manifest was written, caught by its hash) and malice (the author hashed his
spoiled file himself, caught by the checks behind the hash).
"""

import json
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from bundle_content import file_of, relist, replace_hashed, rewrite
from fake_encoder import ColorEncoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_photos import photo_bytes

from realrag.bundle.bundle import Bundle, matrix_header, read_manifest
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
DAMAGE = {
    "missing": lambda data: None,
    "empty": lambda data: b"",
    "one byte": lambda data: data[:1],
    "half": lambda data: data[: len(data) // 2],
    "last byte gone": lambda data: data[:-1],
    "one byte more": lambda data: data + b"\0",
    "first bit flipped": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "middle bit flipped": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :]
    ),
    "a page zeroed": lambda data: data[:64] + bytes(min(4096, len(data) - 64)) + data[64 + 4096 :],
    "a pickle": lambda data: pickle.dumps({"weights": list(range(100))}),
    "a zip behind it": lambda data: data + b"PK\x03\x04" + bytes(64),
    "random": lambda data: np.random.default_rng(1).bytes(len(data)),
}


CASES = [(role, kind) for role in ROLES for kind in DAMAGE]


@pytest.mark.parametrize(("role", "kind"), CASES)
def test_a_damaged_file_is_refused(bundle, role, kind):
    path = bundle / "manifest.json" if role == "manifest" else file_of(bundle, role)
    data = DAMAGE[kind](path.read_bytes())
    path.unlink() if data is None else path.write_bytes(data)
    with pytest.raises(BundleError):
        use(bundle)


def entry0(**fields):
    def change(manifest):
        manifest["files"][0].update(fields)

    return change


def top(**fields):
    def change(manifest):
        manifest.update(fields)

    return change


MANIFESTS = {
    "another format": top(format="zip"),
    "a later version": top(version=3),
    "version as text": top(version="1"),
    "count of zero": top(count=0),
    "negative count": top(count=-4),
    "count too large": top(count=10**18),
    "count as float": top(count=4.0),
    "count as bool": top(count=True),
    "count one less": top(count=3),
    "wrong dim": top(dim=12),
    "huge dim": top(dim=10**9),
    "files no list": top(files={}),
    "no files": top(files=[]),
    "too many files": lambda m: m["files"].extend([m["files"][0]] * 10_001),
    "a file twice": lambda m: m["files"].append(m["files"][0]),
    "a file twice in capitals": lambda m: m["files"].append({**m["files"][0], "path": m["files"][0]["path"].replace("embed", "EMBED")}),
    "encoder missing": lambda m: m.pop("encoder"),
    "encoder no object": top(encoder="ViT"),
    "encoder without fingerprint": lambda m: m["encoder"].pop("fingerprint"),
    "head without file": top(head={}),
    "licences no object": top(licences=[1]),
    "licences not counts": top(licences={"MIT": "many"}),
    "picture size zero": top(picture_longest=0),
    "unknown role": entry0(role="code"),
    "index file": entry0(role="index"),
    "path up": entry0(path="../b/embeddings.safetensors"),
    "path absolute": entry0(path="/etc/x.safetensors"),
    "path with drive": entry0(path="C:\\x.safetensors"),
    "path backslash": entry0(path="a\\b.safetensors"),
    "path NUL": entry0(path="a\0.safetensors"),
    "path too long": entry0(path="a" * 300 + ".safetensors"),
    "path number": entry0(path=7),
    "path unlisted suffix": entry0(path="embeddings.pt"),
    "path pickle": entry0(path="embeddings.pkl"),
    "path device": entry0(path="con.safetensors"),
    "hash too short": entry0(sha256="abc"),
    "hash of another": entry0(sha256="0" * 64),
    "hash in capitals": lambda m: m["files"][0].update(sha256=m["files"][0]["sha256"].upper()),
    "size negative": entry0(bytes=-1),
    "size wrong": entry0(bytes=1),
    "extra field": entry0(run="me"),
    "two embeddings": lambda m: m["files"].append({**m["files"][0], "path": "more.safetensors"}),
    "no records": lambda m: m.update(files=[e for e in m["files"] if e["role"] != "records"]),
    "no pictures": lambda m: m.update(files=[e for e in m["files"] if e["role"] != "pictures"]),
    "no thumbnails": lambda m: m.update(files=[e for e in m["files"] if e["role"] != "thumbnails"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_hostile_manifest_is_refused(bundle, kind):
    rewrite(bundle, MANIFESTS[kind])
    with pytest.raises(BundleError):
        use(bundle)


def heads(change):
    """A spoiled manifest of version 2 that lists two heads."""

    def changed(manifest):
        manifest.pop("head")
        files = [{**manifest["files"][0], "path": f"head-{name}.safetensors", "role": "head"} for name in "ab"]
        entries = [{"name": name, "path": f"head-{name}.safetensors", "facts": {}} for name in "ab"]
        manifest.update(version=2, files=manifest["files"] + files, heads=entries)
        change(manifest)

    return changed


def named(name):
    return heads(lambda m: m["heads"][1].update(name=name))


HEADS = {
    **{f"name {name!r:.20}": named(name) for name in (
        "..", "../b", "a/b", "a\\b", "", " ", "b\0", "-b", ".b", "b\n", "x" * 65, "x" * 100_000, "auto", "None", "NONE", "\uff42", "b é",
        7, None, ["b"], {"b": 1},
    )},
    "two of one name": named("a"),
    "two of one name but for capitals": named("A"),
    "two with one file": heads(lambda m: m["heads"][1].update(path="head-a.safetensors")),
    "one file for two": heads(lambda m: (m["heads"][1].update(path="head-a.safetensors"), m["files"].pop())),
    "a file of another role": heads(lambda m: m["heads"][1].update(path=m["files"][0]["path"])),
    "a file that is not listed": heads(lambda m: m["heads"][1].update(path="head-c.safetensors")),
    "a file that no head names": heads(lambda m: m["heads"].pop()),
    "a path up": heads(lambda m: m["heads"][1].update(path="../head-b.safetensors")),
    "a path that is no text": heads(lambda m: m["heads"][1].update(path=3)),
    "facts that are none": heads(lambda m: m["heads"][1].update(facts="flux")),
    "no facts": heads(lambda m: m["heads"][1].pop("facts")),
    "a field more": heads(lambda m: m["heads"][1].update(code="x")),
    "an entry that is none": heads(lambda m: m["heads"].append("a")),
    "heads no list": heads(lambda m: m.update(heads={"a": {}})),
    "no head at all": heads(lambda m: m.update(heads=[], files=m["files"][:-2])),
    "no heads": heads(lambda m: m.pop("heads")),
    "head and heads": heads(lambda m: m.update(head=None)),
    "two heads in version 1": heads(lambda m: m.update(version=1, head={})),
    "version as truth": heads(lambda m: m.update(version=True, head={})),
    "version as float": heads(lambda m: m.update(version=2.0)),
    "too many": heads(lambda m: (m["heads"].clear(), [m["heads"].append({"name": f"h{at}", "path": f"head-{at}.safetensors", "facts": {}})
                      for at in range(65)], m["files"].extend({**m["files"][-1], "path": f"head-{at}.safetensors"} for at in range(65)))),
}  # fmt: skip


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
    facts=JSON,
)
def test_any_heads_give_a_clear_error_or_names_that_keep_the_rule(good, tmp_path_factory, spoiled, entry, facts):
    folder = tmp_path_factory.mktemp("heads")
    for change in (
        heads(lambda m: m.update(spoiled)), heads(lambda m: m["heads"][0].update(entry)), top(head={"generator": facts}),
        top(**{"head": facts, **spoiled}),
    ):  # fmt: skip
        shutil.copy(good / "manifest.json", folder / "manifest.json")
        rewrite(folder, change)
        try:
            assert all(is_head_name(head.name) for head in read_manifest(folder).heads)
        except BundleError:
            pass


HEAD_FILES = {
    "a pickle in disguise": lambda data: pickle.dumps({"weights": [1]}),
    "no header": lambda data: b"",
    "header length 2^63": lambda data: header(b"{}", 1 << 63),
    "cut": lambda data: data[:-8],
    "facts nested deeply": lambda data: safetensors.torch.save(
        {"fc1.weight": torch.zeros(1)}, {"format": "realrag-head", "version": "1", "facts": "[" * 100_000}
    ),
    "another width": lambda data: safetensors.torch.save(
        {"fc1.weight": torch.zeros(2, 3)}, {"format": "realrag-head", "version": "1"}
    ),
}


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


RAW_MANIFESTS = {
    "not JSON": b"hello",
    "a list": b"[]",
    "NaN": b'{"format": "realrag-bundle", "version": NaN}',
    "a key twice": b'{"format": "realrag-bundle", "version": 1, "version": 1}',
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "huge number": b'{"format": "realrag-bundle", "version": 1' + b"0" * 5000 + b"}",
    "not UTF-8": b'{"format": "\xff\xfe"}',
    "too large": b" " * (2 << 20),
}


@pytest.mark.parametrize("kind", RAW_MANIFESTS)
def test_a_manifest_that_is_no_manifest_is_refused(bundle, kind):
    (bundle / "manifest.json").write_bytes(RAW_MANIFESTS[kind])
    with pytest.raises(BundleError):
        use(bundle)


def header(text: bytes, length: int | None = None, data: bytes = bytes(104)) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def vectors(value: float) -> bytes:
    rows = np.full((4, 13), 0.5, np.float16)
    rows[2] = value
    return matrix_header(4, 13) + rows.tobytes()


EMBEDDINGS = {
    "a pickle in disguise": pickle.dumps(np.zeros((4, 13))),
    "numpy file": b"\x93NUMPY\x01\x00" + bytes(200),
    "header length 2^63": header(b"{}", 1 << 63),
    "header length beyond the file": header(b"{}", 5000),
    "header no JSON": header(b"hello"),
    "other tensor": header(b'{"weights":{"dtype":"F16","shape":[4,13],"data_offsets":[0,104]}}'),
    "two tensors": header(
        b'{"embeddings":{"dtype":"F16","shape":[4,13],"data_offsets":[0,104]},'
        b'"more":{"dtype":"F16","shape":[0],"data_offsets":[104,104]}}'
    ),
    "other dtype": header(b'{"embeddings":{"dtype":"F32","shape":[4,13],"data_offsets":[0,208]}}', data=bytes(208)),
    "other shape": header(b'{"embeddings":{"dtype":"F16","shape":[13,4],"data_offsets":[0,104]}}'),
    "overflowing shape": header(
        b'{"embeddings":{"dtype":"F16","shape":[4611686018427387904,4],"data_offsets":[0,104]}}'
    ),
    "offsets lie": header(b'{"embeddings":{"dtype":"F16","shape":[4,13],"data_offsets":[8,112]}}', data=bytes(112)),
    "data behind": header(b'{"embeddings":{"dtype":"F16","shape":[4,13],"data_offsets":[0,104]}}', data=bytes(999)),
    "not a number": vectors(float("nan")),
    "infinite": vectors(float("inf")),
    "zero": vectors(0.0),
}


@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_hostile_embeddings_are_refused(bundle, kind):
    replace_hashed(bundle, "embeddings", EMBEDDINGS[kind])
    with pytest.raises(BundleError):
        use(bundle)


def line(**fields):
    def change(rows):
        rows[1].update(fields)
        return rows

    return change


RECORDS = {
    "one too few": lambda rows: rows[:3],
    "one too many": lambda rows: [*rows, rows[0]],
    "the same photo twice": lambda rows: [rows[0], rows[0], rows[2], rows[3]],
    "extra field": line(exec="rm"),
    "id of another": line(id="0" * 16),
    "caption number": line(caption=5),
    "caption too long": line(caption="a" * 3000),
    "width zero": line(width=0),
    "width text": line(width="48"),
    "place negative": line(picture=[0, -1, 10]),
    "place outside": line(picture=[0, 1 << 40, 10]),
    "part outside": line(picture=[7, 0, 10]),
    "place too long": line(picture=[0, 512, 1 << 40]),
    "place short list": line(picture=[0, 512]),
    "place of no picture": line(picture=[0, 0, 100]),
    "place as text": line(thumbnail="0"),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_hostile_records_are_refused(bundle, kind):
    rows = [json.loads(row) for row in file_of(bundle, "records").read_bytes().splitlines()]
    rows = RECORDS[kind](rows)
    replace_hashed(bundle, "records", b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    with pytest.raises(BundleError):
        use(bundle)


@pytest.mark.parametrize(
    "data", [b"\n\n\n\n", b"{}\n" * 4, b"[" * 60_000 + b"\n", b"a" * 100_000, b"\xff\n" * 4, b'{"id": NaN}\n' * 4]
)
def test_records_that_are_none_are_refused(bundle, data):
    replace_hashed(bundle, "records", data)
    with pytest.raises(BundleError):
        use(bundle)


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
