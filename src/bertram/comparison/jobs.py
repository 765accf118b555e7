"""Work that a comparison has done by a process of its own (`bertram.comparison.worker`)."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from bertram.errors import BadInput, BertramError
from bertram.files import write_json
from bertram.interruption import StopRequests


def done(job: dict[str, Any], what: str, job_file: Path) -> dict[str, Any]:
    """Have a job done, after a line that says what it is, and return its answer.

    Raises:
        Interrupted: a signal came; that process heard of it and has left.
        BadInput: the job cannot use what it was given.
        BertramError: it failed.
    """
    write_json(job_file, job)
    if job["kind"] != "train":  # a training shows a progress bar of its own
        sys.stderr.write(f"{what}\n")
    command = [sys.executable, "-P", "-m", "bertram.comparison.worker", str(job_file), str(os.getpid())]
    # A group of its own, so that a terminal's SIGINT comes by us alone.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        try:
            with StopRequests(lambda _: process.terminate(), "; the same command goes on from here") as stop:
                said = process.communicate()[0]
                stop.check()
        except BaseException:
            process.kill()
            raise
    if process.returncode < 0:
        raise BertramError(f"{what}: stopped by {signal.Signals(-process.returncode).name}; is there enough memory?")
    if not said.endswith("\n"):
        raise BertramError(f"{what}: failed, exit code {process.returncode}")
    answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    if process.returncode:
        error = (BadInput if process.returncode == BadInput.exit_code else BertramError)(f"{what}: {answer['error']}")
        error.exit_code = process.returncode
        raise error
    return answer
