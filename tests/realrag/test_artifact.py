"""The one reader of our safetensors files: what was written comes back, and anything else is a sentence."""

import json
import math
import os

import numpy as np
import pytest
import torch

from realrag import artifact
from realrag.errors import AdapterError, RealRAGError

METADATA = {"format": "toy", "version": "1", "facts": '{"a": "ü"}'}


def tensors() -> dict[str, torch.Tensor]:
    return {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(2, dtype=torch.float16)}


def read(path, **how):
    return artifact.read(path, "toy", "1", "a toy", "Make it again.", **how)


def file_of(content: object, data: bytes = b"", length: int | None = None) -> bytes:
    header = content if isinstance(content, bytes) else json.dumps(content).encode()
    return (len(header) if length is None else length).to_bytes(8, "little") + header + data


def entry(dtype="F32", shape=(2,), start=0, end=8) -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def test_what_was_written_comes_back_and_equal_content_makes_equal_bytes(tmp_path):
    artifact.write(tmp_path / "one", tensors(), METADATA)
    artifact.write(tmp_path / "two", dict(reversed(tensors().items())), dict(reversed(METADATA.items())))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found, metadata = read(tmp_path / "one")
    assert metadata == METADATA
    for name, tensor in tensors().items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_arrays_come_back(tmp_path):
    arrays = {"ids": np.array([2**64 - 1, 0], np.uint64), "x": np.zeros((0, 3), np.float16)}
    artifact.write(tmp_path / "cache", arrays, {"words": "[]"})
    found, metadata = artifact.read_arrays(tmp_path / "cache")
    assert metadata == {"words": "[]"}
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)


@pytest.mark.parametrize(
    "value", [torch.arange(6.0).reshape(2, 3).T, np.arange(6.0).reshape(2, 3).T, np.arange(6)[::2]]
)
def test_what_is_not_contiguous_is_never_written(tmp_path, value):
    with pytest.raises(ValueError, match="'x' is not contiguous"):
        artifact.write(tmp_path / "file", {"x": value})
    assert not list(tmp_path.iterdir())


GOOD = {"__metadata__": METADATA, "a": entry()}
DAMAGED = {
    "nothing at all": b"",
    "seven bytes": b"1234567",
    "a header beyond the file": file_of(GOOD, b"", 1 << 40),
    "a header of 2 to the 63": file_of(GOOD, b"", 1 << 63),
    "a header that is no JSON": file_of(b"{'a': 1}"),
    "a header that is a list": file_of([]),
    "a key that stands twice": file_of(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)),
    "ten thousand brackets": file_of(b"[" * 10_000 + b"]" * 10_000),
    "a number of 400 digits": file_of(b'{"a":{"dtype":"F32","shape":[%b],"data_offsets":[0,8]}}' % (b"9" * 400)),
    "an infinite number": file_of(b'{"a":{"dtype":"F32","shape":[1e999],"data_offsets":[0,8]}}', bytes(8)),
    "metadata that are numbers": file_of({**GOOD, "__metadata__": {"format": 1}}, bytes(8)),
    "a shape larger than its bytes": file_of({**GOOD, "a": entry(shape=(1 << 40, 1 << 40))}, bytes(8)),
    "a shape below zero": file_of({**GOOD, "a": entry(shape=(-1, -2))}, bytes(8)),
    "a shape of truths": file_of({**GOOD, "a": entry(shape=(True, True))}, bytes(8)),
    "a hundred axes": file_of({**GOOD, "a": entry(shape=(1,) * 98 + (2,))}, bytes(8)),
    "eight bits a number": file_of({**GOOD, "a": entry("F8_E4M3", (8,))}, bytes(8)),
    "an unknown type": file_of({**GOOD, "a": entry("F99")}, bytes(8)),
    "a list for a type": file_of({**GOOD, "a": {**entry(), "dtype": []}}, bytes(8)),
    "one field more": file_of({**GOOD, "a": {**entry(), "more": 1}}, bytes(8)),
    "tensors one over the other": file_of({**GOOD, "b": entry()}, bytes(8)),
    "a gap": file_of({**GOOD, "a": entry(start=8, end=16)}, bytes(16)),
    "bytes behind the last": file_of(GOOD, bytes(9)),
    "bytes that are missing": file_of(GOOD, bytes(7)),
    "too many tensors": file_of({str(i): entry(shape=(0,), end=0) for i in range(artifact.MAX_TENSORS + 1)}),
    "not a number": file_of(GOOD, np.array([1, np.nan], np.float32).tobytes()),
    "another format": file_of({**GOOD, "__metadata__": {**METADATA, "format": "pt"}}, bytes(8)),
    "another version": file_of({**GOOD, "__metadata__": {**METADATA, "version": "2"}}, bytes(8)),
    "no metadata": file_of({"a": entry()}, bytes(8)),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_one_sentence_with_its_path_and_the_cure(tmp_path, name):
    path = tmp_path / "file.safetensors"
    path.write_bytes(DAMAGED[name])
    with pytest.raises(AdapterError) as refused:
        read(path, error=AdapterError)
    message = str(refused.value)
    assert str(path) in message
    assert message.endswith("Make it again.")
    assert len(message) < 1000
    assert "\n" not in message


def test_the_undamaged_file_of_the_table_is_read(tmp_path):
    (tmp_path / "file").write_bytes(file_of(GOOD, bytes(8)))
    assert torch.equal(read(tmp_path / "file")[0]["a"], torch.zeros(2))


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    with pytest.raises(RealRAGError, match=r"cannot be read as a toy: No such file"):
        read(tmp_path / "missing")
    with pytest.raises(RealRAGError, match="not a regular file"):
        read(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(RealRAGError, match="not a regular file"):
            read(tmp_path / "pipe")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_number_that_is_not_finite_is_found_wherever_it_stands(tmp_path, dtype, bad):
    for place in (0, 499, 999):
        tensor = torch.linspace(-1, 1, 1000).to(dtype)
        artifact.write(tmp_path / "file", {"good": tensor, "none": torch.empty(0, 3, dtype=dtype)}, METADATA)
        read(tmp_path / "file")
        tensor[place] = bad
        artifact.write(tmp_path / "file", {"bad": tensor}, METADATA)
        with pytest.raises(RealRAGError, match="'bad' holds numbers that are not finite"):
            read(tmp_path / "file")
