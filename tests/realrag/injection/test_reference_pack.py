"""Reference packs: what is saved comes back exactly, and a file that does not fit together is refused in words."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from realrag.errors import AdapterError
from realrag.injection.reference_pack import (
    FEATURES,
    KEYS_VALUES,
    PackedReference,
    PackMetadata,
    ReferencePack,
    open_pack,
    save_pack,
    weights_sha256,
)
from realrag.injection.reference_settings import ReferenceSettings

METADATA = PackMetadata(KEYS_VALUES, "flux-xlabs", "Flux XLabs v1", "0" * 64, "CLIP ViT-L/14", "flux", 8, 2, 3, 5, 3)
BASE = SimpleNamespace(family="flux", name="Flux", width=8, heads=2, double=3, single=5)


def pack(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    tensors = tuple(torch.randn(1, 2, 6, 4, generator=generator).to(dtype) for _ in range(6))
    mask = torch.rand(3, 5, generator=generator)
    items = (
        PackedReference("a cup, by A, CC0", 0.8, ReferenceSettings(2.0, 0.1, 0.9, True, mask)),
        PackedReference("zwei Äpfel 🍏", -0.2),
    )
    return ReferencePack(METADATA, items, tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_pack_comes_back_as_it_was_saved(tmp_path, dtype):
    saved = pack(dtype)
    save_pack(saved, tmp_path / "mine.safetensors")
    found = open_pack(tmp_path / "mine.safetensors")
    assert found.metadata == saved.metadata and found.items == saved.items and len(found) == 2
    assert all(torch.equal(a, b) and a.dtype == dtype for a, b in zip(found.tensors, saved.tensors, strict=True))
    assert torch.equal(found.items[0].settings.mask, saved.items[0].settings.mask)
    assert found.items[1].settings.mask is None


def test_features_come_back_too_and_the_same_pack_has_the_same_hash(tmp_path):
    saved = ReferencePack(replace(METADATA, kind=FEATURES, blocks=0), pack().items, (torch.randn(2, 9, 7),))
    first, second = (save_pack(saved, tmp_path / f"{name}.safetensors") for name in "ab")
    assert first == second
    assert torch.equal(open_pack(tmp_path / "a.safetensors").tensors[0], saved.tensors[0])


def test_references_that_share_one_mask_are_saved(tmp_path):
    mask = torch.ones(2, 2)
    items = tuple(PackedReference(title, 0.5, ReferenceSettings(mask=mask)) for title in "ab")
    save_pack(ReferencePack(METADATA, items, pack().tensors), tmp_path / "mine.safetensors")
    assert all(item.settings.mask.shape == (2, 2) for item in open_pack(tmp_path / "mine.safetensors").items)


def test_the_file_is_replaced_whole(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_pack(pack(), path)
    save_pack(pack(torch.float16), path)
    assert open_pack(path).tensors[0].dtype == torch.float16
    assert [file.name for file in tmp_path.iterdir()] == ["mine.safetensors"]


@pytest.mark.parametrize("change", [dict(width=16), dict(heads=4), dict(double=2), dict(single=0), dict(family="sd3")])
def test_another_generator_is_refused_with_both_sizes(change):
    METADATA.check_base(BASE)
    with pytest.raises(AdapterError, match="made for a flux model with 3 double and 5 single"):
        METADATA.check_base(SimpleNamespace(**{**vars(BASE), **change}))


def parts(path):
    with safe_open(path, framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()


def rehashed(weights, notes, about=None):
    import hashlib

    about = notes["about"] if about is None else json.dumps(about)
    content = hashlib.sha256(f"{weights_sha256(weights)}|{about}".encode()).hexdigest()
    return {**notes, "about": about, "sha256": content}


def without(about, *path):
    *inner, last = path
    for key in inner:
        about = about[key]
    del about[last]


BAD = {
    "another format": lambda w, n, a: (w, {**n, "format": "pt"}),
    "a newer version": lambda w, n, a: (w, {**n, "version": "2"}),
    "a changed value": lambda w, n, a: ({**w, "blocks.0.k": w["blocks.0.k"] + 1}, n),
    "a changed note": lambda w, n, a: (w, {**n, "about": n["about"].replace("0.8", "0.7")}),
    "no notes": lambda w, n, a: (w, None),
    "a missing block": lambda w, n, a: (x := {k: t for k, t in w.items() if k != "blocks.2.v"}, rehashed(x, n)),
    "one block more": lambda w, n, a: (x := {**w, "blocks.3.k": w["blocks.0.k"] + 0}, rehashed(x, n)),
    "a wrong shape": lambda w, n, a: (x := {**w, "blocks.1.v": torch.zeros(1, 2, 5, 4)}, rehashed(x, n)),
    "rows that do not divide": lambda w, n, a: (
        x := {k: t if "mask" in k else torch.zeros(1, 2, 5, 4) for k, t in w.items()}, rehashed(x, n)
    ),
    "nan": lambda w, n, a: (x := {**w, "blocks.1.v": torch.full((1, 2, 6, 4), torch.nan)}, rehashed(x, n)),
    "whole numbers": lambda w, n, a: (x := {**w, "blocks.1.v": w["blocks.1.v"].to(torch.int8)}, rehashed(x, n)),
    "a mask for nobody": lambda w, n, a: (x := {**w, "masks.7": torch.ones(2, 2)}, rehashed(x, n)),
    "a mask with three axes": lambda w, n, a: (x := {**w, "masks.0": torch.ones(2, 2, 2)}, rehashed(x, n)),
    "no references": lambda w, n, a: (w, rehashed(w, n, {**a, "items": []})),
    "a weight below 0": lambda w, n, a: (w, rehashed(w, n, {**a, "items": [{**i, "weight": -1} for i in a["items"]]})),
    "a word as a weight": lambda w, n, a: (
        w, rehashed(w, n, {**a, "items": [{**i, "weight": "x"} for i in a["items"]]})
    ),
    "an unknown fact": lambda w, n, a: (w, rehashed(w, n, {**a, "facts": {**a["facts"], "more": 1}})),
    "a fact of another type": lambda w, n, a: (w, rehashed(w, n, {**a, "facts": {**a["facts"], "width": "8"}})),
    "a huge number of blocks": lambda w, n, a: (w, rehashed(w, n, {**a, "facts": {**a["facts"], "blocks": 10**5}})),
    "no heads": lambda w, n, a: (w, rehashed(w, n, {**a, "facts": {**a["facts"], "heads": 0}})),
    "a list for notes": lambda w, n, a: (w, rehashed(w, n, [1])),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_does_not_fit_together_is_refused_in_words(tmp_path, name):
    path = tmp_path / "mine.safetensors"
    save_pack(pack(), path)
    weights, notes = parts(path)
    weights, notes = BAD[name](weights, notes, json.loads(notes["about"]))
    save_file(weights, path, notes)
    with pytest.raises(AdapterError) as refused:
        open_pack(path)
    assert len(str(refused.value)) > 20


def test_a_pickle_and_a_stranger_are_refused(tmp_path):
    for name, data in (("a.bin", b"\x80\x04"), ("b.safetensors", b"PK\x03\x04" * 9), ("c.safetensors", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(AdapterError):
            open_pack(tmp_path / name)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(place=st.integers(0, 4000), value=st.integers(0, 255), cut=st.booleans())
def test_any_changed_or_cut_byte_is_found(tmp_path_factory, place, value, cut):
    path = tmp_path_factory.mktemp("pack") / "mine.safetensors"
    save_pack(pack(), path)
    data = np.frombuffer(path.read_bytes(), np.uint8).copy()
    place %= len(data)
    if not cut and data[place] == value:
        return
    changed = data[:place] if cut else np.concatenate((data[:place], [np.uint8(value)], data[place + 1 :]))
    path.write_bytes(changed.tobytes())
    try:
        found = open_pack(path)
    except AdapterError:
        return
    whole = pack()  # a byte of the header's own layout, such as its padding, may change without a meaning
    assert found.metadata == whole.metadata and found.items == whole.items
    assert all(torch.equal(a, b) for a, b in zip(found.tensors, whole.tensors, strict=True))
