"""Workers of a comparison as forks of the process that compares, which has imported what they need: they begin at once.

What else is said of them holds: a process each, in a group of its own, that ends with the one that compares.
"""

import os
import signal
import subprocess
import sys
import traceback
from types import SimpleNamespace

from bertram.comparison import jobs, worker
from tiny import measure_briefly


class ForkedJob:
    """Serves as the Popen that a job is done by."""

    def __init__(self, command: list[str], **_: object) -> None:
        self.returncode: int | None = None
        *_, job_file, parent = command
        self._answer, theirs = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _work(job_file, int(parent), theirs)
        os.close(theirs)

    def __enter__(self) -> "ForkedJob":
        return self

    def __exit__(self, *_: object) -> None:
        self._wait()

    def communicate(self) -> tuple[str, None]:
        with os.fdopen(self._answer, encoding="utf-8") as stream:
            answer = stream.read()
        self._wait()
        return answer, None

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def _wait(self) -> None:
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])

    def _signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self._pid, number)


def _work(job_file: str, parent: int, answer: int) -> None:
    code = 1
    try:
        signal.set_wakeup_fd(-1)  # which is the parent's
        os.setpgid(0, 0)
        os.dup2(answer, 1)
        code = worker.main(job_file, parent)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def fork_jobs() -> None:
    """Have the comparison of this process fork its workers, and answer for a moment only where they measure."""
    measure_briefly()
    jobs.subprocess = SimpleNamespace(Popen=ForkedJob, PIPE=subprocess.PIPE)
