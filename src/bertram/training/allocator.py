"""The allocator's habits, where they cost time."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def keep_freed_memory() -> None:
    """Let glibc reuse freed blocks instead of handing them back to the kernel; elsewhere do nothing.

    A training step frees and asks for the same large tensors again and again, and every page that comes from the kernel
    is zeroed and mapped first.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "gnu_get_libc_version"):
        if not libc.mallopt(_M_MMAP_THRESHOLD, 2**30):
            libc.mallopt(_M_MMAP_THRESHOLD, 2**25)  # the most that glibc takes before 2.35
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
