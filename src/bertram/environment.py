"""The machine and the libraries that a result was made with, to stand beside it."""

import math
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from bertram import __version__

_LIBRARIES = (
    *("numpy", "tokenizers", "torch", "safetensors", "scikit-learn", "scipy", "polars"),
    *("transformers", "huggingface_hub", "onnxruntime", "openvino", "ctranslate2"),
)
# What decides how fast products of matrices are: x86-64's, then Arm's.
_FEATURES = (
    *("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"),
    *("asimddp", "i8mm", "bf16", "sve"),
)


def environment() -> dict[str, Any]:
    """Versions, processor, memory (MB, 10⁶ bytes) and graphics processors, without importing a library.

    What the system does not say is None; a library that is not installed has the version None. Names of users, hosts
    and files are left out.
    """
    processor = _fields(Path("/proc/cpuinfo"))
    return {
        "bertram": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor.get("model name") or platform.machine() or None,
        "processor_features": _features(processor),
        "cores": usable_cores(),
        "memory_mb": _memory_mb(),
        "graphics": _graphics(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def _fields(source: Path) -> dict[str, str]:
    """What Linux says of the first processor in one of its files; empty elsewhere."""
    try:
        first, _, _ = source.read_text(encoding="utf-8", errors="replace").partition("\n\n")
    except OSError:
        return {}
    fields = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in fields}


def _features(processor: dict[str, str]) -> list[str]:
    flags = (processor.get("flags") or processor.get("Features", "")).split()  # x86-64's word, then Arm's
    return [feature for feature in _FEATURES if feature in flags]


def usable_cores(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int | None:
    """Logical cores that this process may run on, or whose time its container may take."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    try:
        most, period = map(int, quota.read_text(encoding="ascii").split())  # "max" where there is no bound
        return min(cores or 1, max(1, math.ceil(most / period)))
    except (OSError, ValueError):
        return cores


def _memory_mb() -> int | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6)


def _graphics(driver: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """Names of NVIDIA's, as their driver tells Linux."""
    return [_fields(card).get("Model", "unknown") for card in sorted(driver.glob("*/information"))]


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
