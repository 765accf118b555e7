"""The allocator's habits, where they cost time."""

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def prepare_allocator() -> None:
    """Have large tensors take huge pages, and glibc reuse freed blocks instead of handing them back to the kernel.

    A training step frees and asks for the same large tensors again and again, and every page that comes from the kernel
    is zeroed and mapped first: measured in docs/experiments.md. torch reads the first setting once, at its first
    tensor, so call this before torch is imported. Elsewhere than on Linux with glibc nothing happens.
    """
    if sys.platform != "linux":
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
