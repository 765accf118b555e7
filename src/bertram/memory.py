"""What this process has taken of the memory of the machine and its GPU, in megabytes (10⁶ bytes)."""

import sys
from pathlib import Path


def peak_memory_mb() -> float:
    """The largest resident size so far.

    Linux counts it for each program anew (VmHWM); elsewhere ru_maxrss, which a child inherits from its parent.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def gpu_peak_memory_mb() -> float | None:
    """The most that torch has reserved on a GPU so far; None where it has used none, or is not even imported."""
    torch = sys.modules.get("torch")
    return torch.cuda.max_memory_reserved() / 1e6 if torch is not None and torch.cuda.is_initialized() else None


def current_memory_mb() -> float:
    """The resident size now; where the system does not say, the peak."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return peak_memory_mb()
    import os

    return int(status.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
