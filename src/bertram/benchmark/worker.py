"""A contestant in a process of its own: `python -m bertram.benchmark.worker SETTING PARENT`.

A line of JSON on standard input is a job, a line on standard output its answer, {"error"} if it failed.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bertram.benchmark.contestants import SETTINGS, Contestant, Ids
from bertram.environment import default_threads
from bertram.memory import peak_memory_mb
from bertram.processes import die_with


def main(name: str, parent: int) -> None:
    """Answer jobs until the input ends."""
    die_with(parent)
    loaded: Contestant | None = None
    answer: Any
    out, sys.stdout = sys.stdout, sys.stderr  # libraries print as they like
    for line in sys.stdin:
        job = json.loads(line)
        try:
            match job["kind"]:
                case "prepare":
                    answer = str(SETTINGS[name].prepare(Path(job["model"]), Path(job["folder"])))
                case "load":
                    loaded = SETTINGS[name].load(Path(job["path"]))
                    loaded.run(job["text"])
                    answer = None
                case "run":
                    answer = [_seconds(loaded, job["batches"]) for _ in range(job["times"])]  # type: ignore[arg-type]
                case "ceiling":
                    answer = _ceiling(job["precision"])
                case _:
                    answer = peak_memory_mb()
        except Exception as error:  # a library's, of which one must not end the whole measurement
            answer = {"error": next(iter(str(error).splitlines()), "") or type(error).__name__}
        out.write(json.dumps(answer) + "\n")
        out.flush()


def _seconds(loaded: Contestant, batches: list[Ids]) -> float:
    began = time.perf_counter()
    for batch in batches:
        loaded.run(batch)
    return time.perf_counter() - began


def _ceiling(precision: str) -> float:
    """Operations a second, in 10⁹, of torch's product of two large matrices: what the machine can."""
    import torch

    torch.set_num_threads(default_threads())
    size = 2048
    product: Callable[[Any, Any], Any] = torch.mm
    a, b = torch.randn(size, size), torch.randn(size, size)
    if precision == "int8":
        a, b, product = (a * 40).to(torch.int8), (b * 40).to(torch.int8), torch._int_mm
    found = []
    for _ in range(12):
        began = time.perf_counter()
        product(a, b)
        found.append(time.perf_counter() - began)
    return 2 * size**3 / float(np.median(found[2:])) / 1e9


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
