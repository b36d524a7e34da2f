"""Pickled adapters become safetensors with the same weights, or nothing is written."""

import numpy as np
import pytest
import synthetic_adapters as synthetic
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from realrag.adapters import convert as module
from realrag.adapters import load_adapter
from realrag.adapters.convert import convert
from realrag.commands.main import main
from realrag.errors import AdapterError


@pytest.mark.parametrize("make", [synthetic.instantx_flux, synthetic.instantx])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_published_bin_becomes_the_same_adapter(make, dtype, tmp_path):
    torch.save(synthetic.nested(make(dtype=dtype)), tmp_path / "ip-adapter.bin")
    made = convert(tmp_path / "ip-adapter.bin", tmp_path / "a.safetensors")
    before, after = load_adapter(tmp_path / "ip-adapter.bin"), load_adapter(tmp_path / "a.safetensors")
    assert before.spec == after.spec and made.what == after.spec.label
    assert made.bytes == (tmp_path / "a.safetensors").stat().st_size
    pairs = list(zip(before.parameters(), after.parameters(), strict=True))
    assert made.tensors == len(pairs) and all(torch.equal(a, b) and a.dtype == b.dtype for a, b in pairs)
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert len(file.metadata()["source_sha256"]) == 64


def test_views_of_one_memory_and_odd_numbers_survive(tmp_path):
    whole = torch.tensor([[1.0, float("nan")], [-0.0, float("inf")]])
    torch.save({"a": whole, "b": whole.T, "c": whole[0], "d": torch.tensor(7)}, tmp_path / "w.pt")
    made = convert(tmp_path / "w.pt", tmp_path / "w.safetensors")
    written = load_file(tmp_path / "w.safetensors")
    assert made.tensors == 4 and "no reference adapter" in made.what
    assert torch.equal(written["b"].nan_to_num(9), whole.T.nan_to_num(9)) and written["d"] == 7


class Surprise:
    def __reduce__(self):
        return (print, ("executed",))


def test_what_cannot_be_converted_leaves_no_file(tmp_path, capsys, monkeypatch):
    bad, good, out = tmp_path / "bad.bin", tmp_path / "good.bin", tmp_path / "out.safetensors"
    torch.save({"image_proj": Surprise()}, bad)
    torch.save(synthetic.instantx_flux(), good)
    with pytest.raises(AdapterError, match="more than weights"):
        convert(bad, out)
    with pytest.raises(AdapterError, match=r"must end in .safetensors"):
        convert(good, tmp_path / "out.bin")
    with pytest.raises(AdapterError, match="nothing to convert"):
        convert(tmp_path / "x.safetensors", out)
    monkeypatch.setattr(module, "alone", lambda weights: {k: t.to_sparse() for k, t in weights.items()})
    with pytest.raises(Exception):  # noqa: B017  whatever safetensors says
        convert(good, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.bin", "good.bin"]
    assert "executed" not in capsys.readouterr().out


def test_a_tensor_that_comes_out_changed_is_noticed(tmp_path):
    from safetensors.torch import save_file

    weights = {"a": torch.ones(3), "b": torch.ones(2)}
    path = tmp_path / "w.safetensors"
    changed = [torch.ones(3).half(), torch.tensor([1, 1, 1 + 1e-7])]
    for other in [{"a": torch.ones(3)}] + [{**weights, "a": tensor} for tensor in changed]:
        save_file(other, path)
        with pytest.raises(AdapterError, match=r"other tensors|came out changed"):
            module.check(weights, path)
    save_file(weights, path)
    module.check(weights, path)


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    torch.save(synthetic.instantx_flux(), tmp_path / "a.bin")
    (tmp_path / "a.safetensors").write_bytes(b"mine")
    with pytest.raises(AdapterError, match="already there"):
        convert(tmp_path / "a.bin", tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == b"mine"


def test_the_command_says_what_it_made(tmp_path, capsys):
    torch.save(synthetic.nested(synthetic.instantx_flux()), tmp_path / "a.bin")
    assert main(["convert", str(tmp_path / "a.bin"), "--out", str(tmp_path / "a.safetensors")]) == 0
    out = capsys.readouterr().out
    assert "14 tensors" in out and "Flux InstantX, 5 tokens" in out
    assert main(["convert", str(tmp_path / "a.bin"), "--out", str(tmp_path / "a.safetensors")]) == 1
    assert main(["convert", str(tmp_path / "none.bin"), "--out", str(tmp_path / "b.safetensors")]) == 1
    assert "none.bin cannot be read" in capsys.readouterr().err


def test_a_tensor_that_repeats_one_number_is_not_blown_up(tmp_path):
    """Its storage has 4 bytes and its shape asks for 4 GB; nothing of that size is made."""
    torch.save({"a": torch.ones(1).expand(1 << 15, 1 << 15)}, tmp_path / "w.bin")
    with pytest.raises(AdapterError, match=r"a asks for 4,294,967,296 bytes, the file has"):
        convert(tmp_path / "w.bin", tmp_path / "w.safetensors")
    shared = torch.zeros(1000)
    torch.save({str(name): shared for name in range(9)}, tmp_path / "shared.bin")
    with pytest.raises(AdapterError, match=r"shared\.bin asks for 36,000 bytes in all"):
        convert(tmp_path / "shared.bin", tmp_path / "w.safetensors")


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_pickle_is_one_sentence_of_our_own(tmp_path, seed):
    torch.save(synthetic.instantx_flux(), tmp_path / "good.bin")
    rng, data = np.random.default_rng(seed), bytearray((tmp_path / "good.bin").read_bytes())
    for at in rng.integers(0, len(data), 8):
        data[at] = rng.integers(256)
    (tmp_path / "bad.bin").write_bytes(data[: rng.integers(9, len(data))] if seed % 2 else data)
    try:
        convert(tmp_path / "bad.bin", tmp_path / "out.safetensors")
    except AdapterError as error:
        assert "\n" not in str(error)
        assert "weights_only" not in str(error)
