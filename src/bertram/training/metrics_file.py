"""OUT/metrics.jsonl, and the same figures as TensorBoard events."""

import json
import math
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from bertram.errors import require
from bertram.files import write_text

_NO_CURVES = ("step", "tokens", "seconds")


class MetricsFile:
    """Appends one line a measurement. Lines past the place that a training resumes from are taken out first."""

    def __init__(self, out: Path, step: int, evaluated: int) -> None:
        """The training goes on after `step`, and `evaluated` is the last step that it does not evaluate anew."""
        self.path = out / "metrics.jsonl"
        kept = [line for line in read_metrics(self.path) if line["step"] <= (step if "loss" in line else evaluated)]
        write_text(self.path, "".join(f"{json.dumps(line)}\n" for line in kept))
        with ExitStack() as stack:
            self._file = stack.enter_context(self.path.open("a", encoding="utf-8"))
            self._events = stack.enter_context(_Events(out / "tensorboard", step))
            self._open = stack.pop_all()

    def __enter__(self) -> "MetricsFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def write(self, line: dict[str, Any]) -> None:
        """Append a line, and its figures to TensorBoard's events.

        Raises:
            OSError: the disk did not take it.
        """
        finite = {name: value if math.isfinite(value) else None for name, value in line.items()}  # JSON knows no NaN
        self._file.write(json.dumps(finite) + "\n")
        self._file.flush()
        self._events.write(line["step"], {name: value for name, value in line.items() if name not in _NO_CURVES})


class _Events:
    """One file of TensorBoard's events; written without a thread, so that a full disk is heard of."""

    def __init__(self, directory: Path, step: int) -> None:
        require("tensorboard", "train")
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        directory.mkdir(parents=True, exist_ok=True)
        self._event = event_pb2.Event
        self._file = (directory / f"events.out.tfevents.{time.time_ns() // 10**6}.{step}").open("wb")
        self._records = RecordWriter(self._file)
        self._add(file_version="brain.Event:2")
        # What a killed process told of steps that now come again does not count.
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._add(step=step + 1, session_log=start)

    def __enter__(self) -> "_Events":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, step: int, values: dict[str, float]) -> None:
        self._add(step=step, summary={"value": [{"tag": tag, "simple_value": value} for tag, value in values.items()]})

    def _add(self, **fields: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._file.flush()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics file, none where there is no file; a torn last line is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            break
        if not isinstance(line, dict) or "step" not in line:
            break
        lines.append(line)
    return lines
