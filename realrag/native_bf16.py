"""bf16 autocast where the hardware computes in bf16.

A CPU without bf16 instructions converts every number on the way in and out of each product: the miniatures then take
4 to 6 times as long as in fp32 (one thread, oneDNN held to AVX2, torch 2.14)."""

from __future__ import annotations

import os
import platform

import torch

# Values of ONEDNN_MAX_CPU_ISA (oneDNN's "CPU Dispatcher Control") that leave out AVX512_BF16 and AMX. AVX2_VNNI_2 only
# converts bf16.
WITHOUT_BF16 = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI"}


def native_bf16() -> bool:
    """Whether products of bf16 matrices run on instructions made for them: AMX or AVX512_BF16 on x86, BF16 on ARM.

    ONEDNN_MAX_CPU_ISA and ATEN_CPU_CAPABILITY, which hold oneDNN and torch down, count as the processor's own limits."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        asked = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
        return bool(asked and asked())
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    if limit.upper() in WITHOUT_BF16 or not torch.backends.cpu.get_cpu_capability().startswith(("AVX512", "AVX10")):
        return False
    # Torch has these since 2.6; an older one computes in fp32.
    answers = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(answer is not None and answer() for answer in answers)


def bf16_autocast(device_type: str, enabled: bool = True) -> torch.autocast:
    """torch.autocast to bf16; on a CPU without native bf16 it leaves everything as it is, as with enabled=False."""
    return torch.autocast(device_type, torch.bfloat16, enabled=enabled and (device_type != "cpu" or native_bf16()))
