"""bf16 only where the hardware computes in it, and never because a flag alone says so."""

import pytest
import torch

from realrag import native_bf16 as module
from realrag.native_bf16 import bf16_autocast, native_bf16


@pytest.fixture
def x86(monkeypatch):
    """An x86 machine with AVX512_BF16, nothing held down."""
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module.platform, "machine", lambda: "AMD64")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    return monkeypatch


def test_avx512_bf16_or_amx_is_enough(x86):
    assert native_bf16()
    x86.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert not native_bf16()
    x86.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert native_bf16()


@pytest.mark.parametrize(
    "limit, native",
    [
        ("AVX2", False),
        ("avx512_core", False),
        ("AVX2_VNNI_2", False),
        ("AVX512_CORE_BF16", True),
        ("AVX512_CORE_AMX", True),
        ("DEFAULT", True),
        ("", True),
    ],
)
@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_onednn_held_down_counts_as_the_processors_own_limit(x86, name, limit, native):
    x86.setenv(name, limit)
    assert native_bf16() is native


@pytest.mark.parametrize("capability", ["AVX2", "DEFAULT", "NO AVX"])
def test_torch_held_down_counts_as_the_processors_own_limit(x86, capability):
    x86.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert not native_bf16()


def test_a_torch_that_cannot_tell_computes_in_fp32(x86):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        x86.delattr(torch.cpu, name)
    assert native_bf16() is False


@pytest.mark.parametrize("answer", [True, False])
def test_another_processor_is_asked_through_onednn(x86, answer):
    x86.setattr(module.platform, "machine", lambda: "aarch64")
    x86.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: answer, raising=False)
    assert native_bf16() is answer


@pytest.mark.parametrize("native", [True, False])
def test_products_are_in_bf16_where_it_is_native_and_asked_for(monkeypatch, native):
    monkeypatch.setattr(module, "native_bf16", lambda: native)
    x = torch.ones(2, 2)
    with bf16_autocast("cpu"):
        assert (x @ x).dtype == (torch.bfloat16 if native else torch.float32)
    with bf16_autocast("cpu", enabled=False):
        assert (x @ x).dtype == torch.float32
