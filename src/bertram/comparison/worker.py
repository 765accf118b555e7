"""Work that a comparison gives to a process of its own, so that its memory is its own: `python -m … FILE`.

FILE is a job in JSON, written by `compare`: {"kind": "train" | "measure", …}. The answer is JSON on standard output.
"""

import ctypes
import json
import signal
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from bertram.errors import BertramError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main(job_file: str) -> int:
    """Do the job; return an exit code, and say in one line what went wrong."""
    if sys.platform == "linux":
        # A comparison that was killed must not leave a training behind that its successor would collide with.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    try:
        answer = _train(job) if job["kind"] == "train" else _measure(job)
    except BertramError as error:
        sys.stderr.write(f"bertram: {error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"bertram: {error}\n")
        return 1
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _train(job: dict[str, Any]) -> dict[str, Any]:
    from bertram import finetuning
    from bertram.progress import training_progress
    from bertram.tasks.registry import task_from_dict
    from bertram.training.recipe import Recipe

    out = Path(job["out"])
    finished = finetuning.prepare_directory(out, resume=True)
    if finished is not None:
        return finished
    splits = finetuning.Splits.read(**job["data"])
    recipe = Recipe(**{field.name: job["recipe"][field.name] for field in fields(Recipe)})
    with training_progress(job["label"]) as report:
        return finetuning.run(
            task_from_dict(job["task"]),
            splits,
            job["model"],
            out,
            recipe,
            job["vocab_size"],
            job["max_length"],
            report=report,
        )


def _measure(job: dict[str, Any]) -> dict[str, Any]:
    from bertram.comparison.measure import measure

    return measure(job["model"], job["texts"], job["texts_b"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
