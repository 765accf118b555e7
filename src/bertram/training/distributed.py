"""Several processes that train one model (data parallelism): each takes its share of every batch.

They are started by `torchrun`, which says who is who in the environment. Every process holds the whole model and makes
the same step: gradients are summed over all of them first (Li et al. 2020, without the overlap).
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

_T = TypeVar("_T")
_CPU = torch.device("cpu")
_PATIENCE = timedelta(days=2)
"""How long the others wait while process 0 prepares a large corpus; if one dies, torchrun ends them all."""


class Processes:
    """This process among those that train together.

    Attributes:
        rank: this one's number, from 0; number 0 alone writes files and shows progress.
        size: how many there are; 1 without torchrun.
        device: what this one computes on.
    """

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank, self.size, self.device = rank, size, device

    def sums(self, values: list[float]) -> list[float]:
        """Sums over all processes, the same on each."""
        if self.size == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(tensor)
        return list(tensor.tolist())

    def any(self, value: bool) -> bool:
        """Whether it is true for one of the processes; the same on each."""
        return self.sums([float(value)])[0] > 0

    def add(self, vector: Tensor) -> None:
        """Replace a tensor by its sum over all processes."""
        dist.all_reduce(vector)

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()

    def leading(
        self, make: Callable[..., AbstractContextManager[_T]], *arguments: Any
    ) -> AbstractContextManager[_T | None]:
        """What `make` makes, on process 0; None on the others."""
        return make(*arguments) if self.rank == 0 else nullcontext()


@contextmanager
def together() -> Iterator[Processes]:
    """Join the processes that torchrun started; alone where it did not. NCCL on GPUs, Gloo on CPUs."""
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else _CPU
    if "WORLD_SIZE" not in os.environ:
        yield Processes(0, 1, device)
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        yield Processes(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()
