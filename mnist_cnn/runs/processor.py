"""The processors of this machine: their load, and what they compute fast."""

import os
from collections.abc import Mapping
from typing import Any

import torch


def crowded(threads: int) -> str | None:
    """Return a line on the setting for a busy machine, None if it has a processor for each thread.

    The threads of a program wait for the slowest of them: beside a busy process two take three
    times as long as one (benchmarks/README.md). The load is the mean over the last minute, to which
    a run just before contributes, too.

    Args:
        threads: threads that PyTorch computes with.
    """
    if threads == 1 or not hasattr(os, "getloadavg"):
        return None
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    if load + threads < processors + 1:
        return None
    return (
        f"load average {load:.1f} on {processors} processors: if other programs cause it, "
        f"OMP_NUM_THREADS=1 trains faster than {threads} threads, with other rounding"
    )


def is_bfloat16_fast() -> bool:
    """Return whether the processor has instructions for products of bfloat16."""
    has = capabilities()
    return bool(has.get("amx_bf16") or has.get("avx512_bf16"))


def emulated(precision: str) -> str | None:
    """Return a line on the setting for a processor that emulates a precision, None for others.

    The reader's network takes 11 times as long in bfloat16 on an EPYC that has AVX2 alone. Nothing
    is said of processors whose instructions PyTorch does not tell.

    Args:
        precision: of Lightning's Trainer.
    """
    if "bf16" not in precision or "avx512_bf16" not in capabilities() or is_bfloat16_fast():
        return None
    return (
        f"trainer.precision={precision}: this processor has no instructions for bfloat16, "
        "trainer.precision=32-true trains faster, with other rounding"
    )


def capabilities() -> Mapping[str, Any]:
    """Return what PyTorch tells of the processor's instructions; older releases tell nothing."""
    tell = getattr(torch.cpu, "get_capabilities", None)
    return tell() if tell else {}
