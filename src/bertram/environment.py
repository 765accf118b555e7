"""The machine and the libraries that a result was made with, to stand beside it."""

import math
import os
import platform
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import Any

from bertram import __version__

_LIBRARIES = (
    "numpy",
    "tokenizers",
    "torch",
    "safetensors",
    "scikit-learn",
    "scipy",
    "polars",
    "transformers",
    "huggingface_hub",
    "onnxruntime",
    "openvino",
    "ctranslate2",
)
_PROCESSORS = Path("/proc/cpuinfo")
# What decides how fast products of matrices are.
_X86_FEATURES = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
_ARM_FEATURES = ("asimddp", "i8mm", "bf16", "sve")


def environment() -> dict[str, Any]:
    """Versions, processor, memory (MB, 10⁶ bytes) and graphics processors, without importing a library.

    What the system does not say is None; a library that is not installed has the version None. Names of users, hosts
    and files are left out.
    """
    return {
        "bertram": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": processor(),
        "processor_features": _features(_fields(_PROCESSORS)),
        "cores": usable_cores(),
        "memory_mb": _memory_mb(),
        "graphics": _graphics(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def processor() -> str | None:
    """What the processor is called, if the system says."""
    return _fields(_PROCESSORS).get("model name") or platform.machine() or None


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
    return [feature for feature in (*_X86_FEATURES, *_ARM_FEATURES) if feature in flags]


def default_threads() -> int:
    """Default number of threads: OMP_NUM_THREADS, as in torch, else one for each usable core.

    More than the machine has cores would only take turns, and thousands leave no room for those of libraries.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(asked), os.cpu_count() or 1) if asked.isdecimal() and int(asked) else usable_cores()


def usable_cores(root: Path = Path("/")) -> int:
    """Logical cores that this process may run on, or whose time its container may take; 1 if the system tells none."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    groups, own = root / "sys/fs/cgroup", _control_group(root / "proc/self/cgroup")
    quotas = [_quota(groups / group.relative_to("/") / "cpu.max") for group in (own, *own.parents)]
    quotas.append(_quota(groups / "cpu/cpu.cfs_quota_us", groups / "cpu/cpu.cfs_period_us"))  # of the first version
    return max(1, math.ceil(min(cores, *quotas)))


def _control_group(source: Path) -> PurePosixPath:
    """This process' among Linux's control groups of the second version; a quota of any that it lies in holds for it."""
    try:
        lines = source.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return PurePosixPath("/", *(line.removeprefix("0::") for line in lines if line.startswith("0::/")))


def _quota(*files: Path) -> float:
    """Cores whose time a control group may take, of its quota and period; infinite where it has no bound."""
    try:
        most, period = map(int, " ".join(file.read_text(encoding="ascii") for file in files).split())
    except (OSError, ValueError):  # "max"
        return math.inf
    return most / period if most > 0 else math.inf


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
