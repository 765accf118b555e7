"""Several processes that train one model (data parallelism): each takes its share of every batch.

They are started by `torchrun`, which says who is who in the environment. Every process holds the whole model and makes
the same step: gradients are summed over all of them first (Li et al. 2020, without the overlap).
"""

import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from bertram.batch import Examples
from bertram.errors import BadInput, BertramError
from bertram.processes import under_torchrun

_CPU = torch.device("cpu")
_PATIENCE = timedelta(days=2)
"""How long the others wait while process 0 prepares a large corpus. Elsewhere torch's own timeout holds."""


class Lost(BertramError):
    """Another process ended, and this one cannot go on without it."""


class Processes:
    """This process among those that train together.

    Attributes:
        rank: this one's number, from 0; number 0 alone writes files and shows progress.
        size: how many there are; 1 without torchrun.
        device: what this one computes on.

    All of them call every method but `share`, in the same order; it raises Lost where one is gone.
    """

    def __init__(
        self,
        rank: int,
        size: int,
        device: torch.device,
        waiting: dist.ProcessGroup | None = None,
        patient: dist.ProcessGroup | None = None,
    ) -> None:
        """The groups that `wait` uses, the second one where a process may let the others wait for hours."""
        self.rank, self.size, self.device, self._waiting, self._patient = rank, size, device, waiting, patient

    def share(self, batch: Examples) -> Examples:
        """This one's sequences of a batch; every sequence is in one process's share."""
        return batch.select(range(self.rank, len(batch), self.size))

    def sums(self, values: list[float]) -> list[float]:
        """Sums over all processes, the same on each."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        self.add(tensor)
        return list(tensor.tolist())

    def any(self, value: bool) -> bool:
        """Whether it is true for one of the processes; the same on each."""
        return self.sums([float(value)])[0] > 0

    def add(self, vector: Tensor) -> None:
        """Replace a tensor by its sum over all processes."""
        with _lost():
            dist.all_reduce(vector)

    def wait(self, *, patiently: bool = False) -> None:
        """Until every process is here; `patiently` where one prepares what all need, however long that takes."""
        if self.size > 1:
            with _lost():
                dist.barrier(self._patient if patiently else self._waiting)

    def require_same(self, weights: Mapping[str, Tensor], step: int) -> None:
        """Make sure that all begin alike: the sum of gradients keeps equal weights equal, and nothing else does.

        Raises:
            BadInput: weights or step differ.
        """
        if self.size == 1:
            return
        mark = step
        for weight in weights.values():
            mark = zlib.crc32(weight.cpu().numpy().tobytes(), mark)
        bounds = torch.tensor([mark, -mark], device=self.device)
        with _lost():
            dist.all_reduce(bounds, dist.ReduceOp.MAX)
        if bounds.sum() != 0:
            raise BadInput(
                "the processes begin with different weights: they see different files, or run other versions"
            )


def alone() -> Processes:
    """The one process of a training that is not shared, on a GPU where there is one."""
    return Processes(0, 1, torch.device("cuda", 0) if torch.cuda.is_available() else _CPU)


@contextmanager
def together() -> Iterator[Processes]:
    """Join the processes that torchrun started; alone where it did not. NCCL on GPUs, Gloo on CPUs.

    An error ends all of them, one way or another. It leaves here on the process that failed first, so that it is said
    once; the others exit without a word.

    Raises:
        BadInput: there are more processes on this machine than GPUs, or what torchrun says is not all there.
    """
    if not under_torchrun():
        yield alone()
        return
    try:
        store, rank, size = next(rendezvous("env://"))
    except ValueError as error:
        raise BadInput(f"{error}; torchrun sets what is needed, and without RANK one process trains alone") from None
    try:
        device = _own_device()
        dist.init_process_group(
            "gloo" if device == _CPU else "nccl",
            store=store,
            rank=rank,
            world_size=size,
            device_id=None if device == _CPU else device,
        )
        groups = dist.new_group(backend="gloo"), dist.new_group(backend="gloo", timeout=_PATIENCE)
        yield Processes(rank, size, device, *groups)
    except BaseException as error:
        if _others_failed(store):
            raise SystemExit(getattr(error, "exit_code", 1)) from None
        raise
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _own_device() -> torch.device:
    """The GPU that torchrun's numbering gives this process, or the CPU where there is none."""
    if not torch.cuda.is_available():
        return _CPU
    try:
        processes, own = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["LOCAL_RANK"])
    except (KeyError, ValueError):
        raise BadInput("LOCAL_WORLD_SIZE and LOCAL_RANK must be numbers; torchrun sets them") from None
    devices = torch.cuda.device_count()
    if processes > devices:
        raise BadInput(f"--nproc-per-node {processes}: this machine has {devices} GPUs, and each process takes one")
    device = torch.device("cuda", own)
    torch.cuda.set_device(device)
    return device


def _others_failed(store: Store) -> bool:
    """Whether this process, which fails, is not the first to."""
    try:
        return int(store.add("failed", 1)) > 1
    except RuntimeError:  # torchrun, which keeps the store, is gone
        return False


@contextmanager
def _lost() -> Iterator[None]:
    """Turn what the backend raises when a connection breaks into one line."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise Lost(
            "another process of this training ended; the same command with --resume goes on from the last checkpoint "
            f"({reason:.200})"
        ) from error
