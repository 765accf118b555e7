"""A contestant's process, seen by whoever measures it; `worker` is the other end."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bertram.benchmark.contestants import Ids
from bertram.errors import BertramError


class Worker:
    """A process that does one setting's jobs, and ends with the block."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, "-P", "-m", "bertram.benchmark.worker", name, str(os.getpid())]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.name, self.process = name, subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError), self.process:  # which closes its pipes; the process may be gone
            self.process.kill()

    def ask(self, kind: str, **job: Any) -> Any:
        """Have the process do a job; its answer.

        Raises:
            BertramError: the job failed there.
        """
        try:
            self.process.stdin.write(json.dumps({"kind": kind, **job}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": f"its process ended with {self.process.wait()}"}
        if isinstance(answer, dict):
            raise BertramError(answer["error"])
        return answer


def loading_and_peak(name: str, path: Path, first: Ids, batches: list[Ids]) -> tuple[float, float]:
    """Seconds from a process' start to its first answer, and its peak memory in MB after some batches.

    Raises:
        BertramError: it failed.
    """
    began = time.perf_counter()
    with Worker(name) as worker:
        worker.ask("load", path=str(path), text=first)
        seconds = time.perf_counter() - began
        worker.ask("run", batches=batches, times=1)
        return round(seconds, 2), round(float(worker.ask("peak")), 1)


@contextmanager
def turn_of(name: str, field: MutableMapping[str, Any], left_out: MutableMapping[str, str]) -> Iterator[None]:
    """One contestant's turn: where it fails, it leaves the field, with the reason, and the others go on."""
    try:
        yield
    except BertramError as error:
        left_out[name] = str(error)
        field.pop(name, None)
