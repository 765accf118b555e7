"""How processes of ours live with others: with the one that started them, and on the same cores."""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SPINS = "10000"


def under_torchrun() -> bool:
    """Whether torchrun started this process, and told it its number and how many there are.

    Either alone means nothing: some containers set one.
    """
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def speaks() -> bool:
    """Whether this process is alone or number 0 of those that torchrun started, and so the one that shows progress."""
    return not under_torchrun() or os.environ["RANK"] == "0"


def die_with(parent: int) -> None:
    """Have this process killed when `parent` ends (Linux), lest its successor meets what it left at work."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)


def share_cores() -> None:
    """Have threads of GNU's OpenMP that wait for one another give up their cores soon, if nothing else is asked for.

    By default they spin for some milliseconds, and while they do, the threads that they wait for may be kept from
    running: one busy process beside a training slowed it to a fourteenth (docs/experiments.md). Call it before torch is
    imported, which reads this once.
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = _SPINS
