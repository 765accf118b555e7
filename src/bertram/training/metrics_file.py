"""OUT/metrics.jsonl, and the same figures as TensorBoard events."""

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Any

from bertram.files import write_text


class MetricsFile:
    """Appends one line a measurement. Lines past the step that a training resumes from are taken out first."""

    def __init__(self, out: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.path = out / "metrics.jsonl"
        write_text(
            self.path, "".join(f"{json.dumps(line)}\n" for line in read_metrics(self.path) if line["step"] <= step)
        )
        self._file = self.path.open("a", encoding="utf-8")
        self._events = SummaryWriter(out / "tensorboard", purge_step=step + 1)

    def __enter__(self) -> "MetricsFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._events.close()

    def write(self, line: dict[str, Any]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in line.items()}  # JSON knows no NaN
        self._file.write(json.dumps(finite) + "\n")
        self._file.flush()
        for name, value in line.items():
            if name not in ("step", "tokens", "seconds"):
                self._events.add_scalar(name, value, line["step"])


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics file, none where there is no file; a torn last line is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines
