"""Several heads over one library: their names, what is written for them, and that each answers for itself."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_content import rewrite
from fake_encoder import ColorEncoder
from hypothesis import given
from hypothesis import strategies as st

from realrag.bundle.bundle import CHECKSUM, Bundle, manifest_bytes, read_manifest
from realrag.bundle.edit_heads import change_heads, heads_by_name
from realrag.bundle.head_entries import BundleFile, BundleHead, heads_content, is_head_name, own_name, read_heads
from realrag.encoders.reflective_head import ReflectiveHead, load_head, save_head
from realrag.errors import BundleError, BusyError, EncoderError
from realrag.files import sha256_file
from realrag.indexing.build import WORK, build
from realrag.library import shipped_bundle, vectors_key
from realrag.locks import FolderLock
from realrag.retriever import Retriever


@pytest.fixture
def files(tmp_path):
    """Three heads that move photos, by name."""
    made = {}
    for seed, name in enumerate(("flux", "sd35", "third")):
        torch.manual_seed(seed)
        head = ReflectiveHead(13, 8, {"generator": name, "encoder_fingerprint": ColorEncoder().fingerprint})
        torch.nn.init.normal_(head.fc2.weight)
        made[name] = tmp_path / f"{name}.safetensors"
        save_head(head, made[name])
    return made


def content(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def names(folder: Path) -> list[str]:
    return [head.name for head in read_manifest(folder).heads]


def test_a_bundle_of_before_heads_had_names_says_the_same_now():
    before = json.loads((shipped_bundle() / "manifest.json").read_bytes())
    kept = {key: value for key, value in before.items() if key not in ("version", "head", "format")}
    now = json.loads(manifest_bytes({**kept, **heads_content(read_manifest(shipped_bundle()).heads)}))
    assert now == {**before, CHECKSUM: now[CHECKSUM]}


def test_one_head_is_written_as_before_and_more_of_them_in_version_2(bundle, files):
    change_heads(bundle, {"flux": files["flux"]})
    one = json.loads((bundle / "manifest.json").read_bytes())
    assert one["version"] == 1 and one["head"]["generator"] == "flux" and "heads" not in one
    change_heads(bundle, {"sd35": files["sd35"]})
    two = json.loads((bundle / "manifest.json").read_bytes())
    assert two["version"] == 2 and [head["name"] for head in two["heads"]] == ["flux", "sd35"] and "head" not in two
    change_heads(bundle, {}, remove=["sd35"])
    assert json.loads((bundle / "manifest.json").read_bytes()) == one
    change_heads(bundle, {"mine": files["flux"]}, remove=["flux"])
    assert json.loads((bundle / "manifest.json").read_bytes())["version"] == 2, "a name that is given by hand is kept"


def untouched(path: Path) -> tuple[int, ...]:
    """What a write would change; reading a file may change the rest."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_mode


def test_heads_come_and_go_without_a_photo_being_touched(bundle, files):
    before = {path.name: untouched(path) for path in bundle.iterdir()}
    plain = content(bundle)
    change_heads(bundle, files)
    assert names(bundle) == ["flux", "sd35", "third"] and not (bundle / WORK).exists()
    for name, stat in before.items():
        assert name == "manifest.json" or untouched(bundle / name) == stat
    change_heads(bundle, {"sd35": files["third"]}, remove=["third"], first="sd35")
    assert names(bundle) == ["sd35", "flux"] and len(list(bundle.glob("head-*"))) == 2
    assert Bundle(bundle).head().metadata["generator"] == "third"
    change_heads(bundle, {}, remove=["flux", "sd35"])
    assert content(bundle) == plain


def without_levels(folder: Path) -> tuple[dict, dict]:
    """The manifest without what `realrag index` measures of each head, and all other files by their bytes."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    files = {name: digest for name, digest in content(folder).items() if name != "manifest.json"}
    return {key: value for key, value in manifest.items() if key not in ("levels", CHECKSUM)}, files


def test_heads_given_while_indexing_or_afterwards_make_one_bundle(photos, bundle, tmp_path, encoder, files):
    change_heads(bundle, {"a": files["sd35"], "b": files["flux"]})
    build(photos, tmp_path / "at once", encoder, head={"a": files["sd35"], "b": files["flux"]})
    assert without_levels(tmp_path / "at once") == without_levels(bundle)
    encoder.seen = 0
    build(photos, bundle, encoder, head={"b": files["third"]})
    assert encoder.seen == 0 and names(bundle) == ["a", "b"] and len(list(bundle.glob("head-*"))) == 2
    with pytest.raises(BundleError, match=r"has the heads a, b. Say which"):
        build(photos, bundle, encoder, head=files["flux"])


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        (lambda files: {"add": {"FLUX": files["third"]}}, BundleError, "differ in capitals only"),
        (lambda files: {"add": {"again": files["sd35"]}}, BundleError, "already, as 'sd35'"),
        (lambda files: {"add": {"x": files["third"], "y": files["third"]}}, BundleError, "already, as 'x'"),
        (lambda files: {"add": {"new": files["third"], "../up": files["third"]}}, BundleError, "cannot be the name"),
        (lambda files: {"add": {"auto": files["third"]}}, BundleError, "not 'auto' or 'none'"),
        (lambda files: {"add": {"None": files["third"]}}, BundleError, "not 'auto' or 'none'"),
        (
            lambda files: {"add": {"new": files["third"], "gone": files["third"].with_name("gone")}},
            EncoderError,
            "gone",
        ),
        (lambda files: {"add": {}, "remove": ["sd3"]}, BundleError, "no head 'sd3': its heads are flux, sd35"),
        (lambda files: {"add": {}, "first": "auto"}, BundleError, "no head 'auto': its heads are flux, sd35"),
        (
            lambda files: {"add": {}, "remove": ["flux"], "first": "flux"},
            BundleError,
            "cannot be removed and be the first",
        ),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_the_bundle_as_it_was(bundle, files, change, error, told):
    change_heads(bundle, {"flux": files["flux"], "sd35": files["sd35"]})
    before = content(bundle)
    with pytest.raises(error, match=told):
        change_heads(bundle, **change(files))
    assert content(bundle) == before and not (bundle / WORK).exists()


def test_a_head_of_another_encoder_or_width_is_refused(bundle, tmp_path):
    for dim, metadata, told in ((12, {}, "vectors of 13"), (13, {"encoder_fingerprint": "0" * 64}, "another encoder")):
        save_head(ReflectiveHead(dim, 8, metadata), tmp_path / "wrong.safetensors")
        with pytest.raises(EncoderError, match=told):
            change_heads(bundle, {"wrong": tmp_path / "wrong.safetensors"})
    assert names(bundle) == []


def test_a_failure_while_writing_leaves_the_old_heads(bundle, files, monkeypatch):
    change_heads(bundle, {"flux": files["flux"]})
    before, real = Bundle(bundle).id, os.replace

    def full(source, target):
        if str(target).endswith("manifest.json"):
            raise OSError(28, "No space left on device", str(target))
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError):
        change_heads(bundle, {"sd35": files["sd35"]}, remove=["flux"])
    monkeypatch.undo()
    assert Bundle(bundle).id == before and Bundle(bundle).head().metadata["generator"] == "flux"
    change_heads(bundle, {"third": files["third"]})
    assert names(bundle) == ["flux", "third"] and len(list(bundle.glob("head-*"))) == 2


def test_two_builders_never_meet_and_unfinished_work_stays(bundle, files):
    (bundle / WORK).mkdir()
    (bundle / WORK / "shard").write_bytes(b"encoded")
    with FolderLock(bundle / WORK / "lock"), pytest.raises(BusyError):
        change_heads(bundle, files)
    change_heads(bundle, files)
    assert (bundle / WORK / "shard").read_bytes() == b"encoded" and not (bundle / WORK / "lock").exists()


def test_each_head_ranks_as_its_own_formula_says_and_none_as_the_plain_encoder(bundle, files, encoder):
    plain = Retriever.open(bundle, encoder=encoder).search("red", k=15)
    change_heads(bundle, files)
    raw = torch.nn.functional.normalize(torch.from_numpy(np.asarray(Bundle(bundle).embeddings, np.float32)), dim=1)
    first = Retriever.open(bundle, encoder=encoder)
    assert first.head_name == "flux" and "head 'flux'" in first.search("red").scores_text()
    query = torch.from_numpy(first.query(["red"])[0])
    for name, path in files.items():
        found = first.with_head(name).search("red", k=15)
        scores = (load_head(path, 13)(raw) @ query).detach().numpy()
        rows = [first.bundle.records.row_of(item.id) for item in found.items]
        assert np.allclose([item.score for item in found.items], scores[rows], atol=1e-5)
        assert rows[0] == int(scores.argmax()) and found.ranked_by == f"Ranked through the head {name!r}."
        assert Retriever.open(bundle, encoder=encoder, head=name).search("red", k=15).as_json() == found.as_json()
    for none in (None, "none"):
        answer = Retriever.open(bundle, encoder=encoder, head=none).search("red", k=15)
        assert answer.as_json() == plain.as_json() and "none of the heads (flux, sd35, third)" in answer.ranked_by
    with pytest.raises(BundleError, match="no head 'sd3': its heads are flux, sd35, third"):
        Retriever.open(bundle, encoder=encoder, head="sd3")


def test_what_is_cached_for_one_head_is_never_taken_for_another(bundle, files, encoder, tmp_path, monkeypatch):
    change_heads(bundle, files)
    small = {name: Retriever.open(bundle, encoder=encoder, head=name).search("red", k=5) for name in (*files, "none")}
    assert len({answer.items[0].score for answer in small.values()}) == 4
    monkeypatch.setattr("realrag.library.EXACT_LIMIT", 3)
    for _ in range(2):
        for name, expected in small.items():
            large = Retriever.open(bundle, encoder=encoder, head=name, cache=tmp_path / "cache", kind="ivf")
            assert isinstance(large.vectors, np.memmap)
            found = large.search("red", k=5)
            assert [item.id for item in found.items] == [item.id for item in expected.items]
            assert np.allclose([item.score for item in found.items], [item.score for item in expected.items], atol=2e-3)
    assert len(list((tmp_path / "cache").rglob("vectors.safetensors"))) == 4
    assert len({vectors_key(Bundle(bundle).head(name)) for name in (*files, "none")}) == 4


def test_a_head_that_changes_after_the_bundle_was_opened_is_not_read(bundle, files, encoder):
    change_heads(bundle, files)
    retriever = Retriever.open(bundle, encoder=encoder)
    shutil.copy(files["flux"], bundle / retriever.bundle.manifest.named("sd35").file.path)
    with pytest.raises(BundleError, match="has changed since"):
        retriever.with_head("sd35")


@pytest.mark.parametrize(
    ("metadata", "name"),
    [
        ({}, "head"), ({"generator": "flux"}, "flux"), ({"generator": "none"}, "head"), ({"generator": 7}, "head"),
        ({"generator": '{"name": "black-forest-labs/FLUX.1-dev", "steps": 20}'}, "FLUX.1-dev"),
        ({"generator": "stand-in (altered photos, not a generator)"}, "stand-in-altered-photos-not-a-generator"),
        ({"generator": "auto"}, "head"), ({"generator": "../.."}, "head"), ({"generator": "{broken"}, "head"),
        ({"generator": "苹果"}, "head"), ({"generator": "x" * 500}, "x" * 64), ({"generator": '{"name": ["a"]}'}, "head"),
        ({"generator": "{\ud800"}, "head"), ({"generator": '{"a":' * 100_000}, "head"),
    ],
)  # fmt: skip
def test_a_head_is_called_after_its_generator(metadata, name):
    assert own_name(metadata) == name and is_head_name(name)


def test_a_head_on_the_command_line_has_a_name_or_its_own(files, tmp_path):
    odd = shutil.copy(files["flux"], tmp_path / "a=b.safetensors")
    assert heads_by_name([f"x={files['flux']}", str(files["sd35"])], 13) == {"x": files["flux"], "sd35": files["sd35"]}
    assert heads_by_name([str(odd)], 13) == {"flux": Path(odd)}
    with pytest.raises(BundleError, match="Two heads are called 'flux'"):
        heads_by_name([str(files["flux"]), f"flux={files['sd35']}"], 13)


TEXTS = st.text(max_size=20)
METADATA = st.dictionaries(TEXTS, st.one_of(TEXTS, st.integers(-5, 5), st.none()), max_size=3)
NAMES = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._+-]{0,63}\Z").filter(is_head_name)


@pytest.mark.slow
@given(st.lists(st.tuples(NAMES, METADATA), max_size=5, unique_by=lambda pair: pair[0].casefold()))
def test_any_heads_come_back_from_the_manifest_as_they_were(pairs):
    files = [BundleFile(f"head-{at}.safetensors", 1, f"{at:064d}", "head") for at in range(len(pairs))]
    heads = tuple(BundleHead(name, file, metadata) for (name, metadata), file in zip(pairs, files, strict=True))
    written = heads_content(heads)
    assert read_heads(written, files) == heads and written["version"] == (2 if "heads" in written else 1)


def test_heads_come_and_go_beside_what_a_newer_version_put_into_the_manifest(bundle, files):
    rewrite(bundle, lambda manifest: manifest.update(levels={"plain": 0.25}))
    change_heads(bundle, {"flux": files["flux"]})
    change_heads(bundle, {}, remove=["flux"])
    assert json.loads((bundle / "manifest.json").read_bytes())["levels"] == {"plain": 0.25}
