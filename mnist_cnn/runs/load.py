"""The load of this machine."""

import os


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
