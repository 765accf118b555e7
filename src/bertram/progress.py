"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere; always on standard error."""

import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, Protocol, cast

from bertram.processes import speaks

_PLAIN_SECONDS = 10.0


class Report(Protocol):
    """Hears of every training step and evaluation, in the words of metrics.jsonl plus "total".

    Before the first step, of what is "preparing" and how many "characters" of text are done.
    """

    def __call__(self, line: dict[str, Any]) -> None: ...


def silent(line: dict[str, Any]) -> None:
    """A Report for callers that show nothing."""


@contextmanager
def training_progress(label: str) -> Iterator[Report]:
    """Yield a Report that shows steps, loss, score, tokens a second and the time left."""
    if not speaks():
        yield silent
        return
    if not sys.stderr.isatty():
        yield _PlainReport(label)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("{task.description}", markup=False),  # a file's or a model's name, whatever it holds
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(),
    ]
    with Progress(*columns, console=Console(file=cast("IO[str]", _Stderr())), transient=False) as bar:
        task = bar.add_task(label, total=None, figures="")
        figures = _Figures()

        def report(line: dict[str, Any]) -> None:
            if "preparing" in line:
                bar.update(task, figures=_preparing(line))
                return
            figures.add(line)
            bar.update(task, total=line["total"], completed=line["step"], figures=str(figures))

        yield report


class _Stderr(io.TextIOBase):
    """Standard error, which may be gone: who closed the terminal still wants the checkpoint."""

    def __init__(self) -> None:
        self._stream = sys.stderr  # now, as rich puts a stand-in there

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()


def _preparing(line: dict[str, Any]) -> str:
    return f"{line['preparing']}: {line['characters'] / 1e6:,.1f} million characters"


class _Figures:
    """The last loss and scores, and a running mean of the speed."""

    def __init__(self) -> None:
        self.loss, self.scores, self.speed, self.data_share = "", "", 0.0, 0.0

    def add(self, line: dict[str, Any]) -> None:
        if "loss" not in line:
            found = {name: value for name, value in line.items() if name.startswith("validation")}
            self.scores = "".join(f"  {name.replace('_', ' ')} {value:.4f}" for name, value in found.items())
            return
        self.loss = f"loss {line['loss']:.3f}"
        self.speed = line["tokens_per_second"] if not self.speed else 0.9 * self.speed + 0.1 * line["tokens_per_second"]
        self.data_share = line["data_share"]

    def __str__(self) -> str:
        return f"{self.loss}{self.scores}  {self.speed:,.0f} tokens/s (data {self.data_share:.1%})"


class _PlainReport:
    """One line every few seconds, for logs and pipes."""

    def __init__(self, label: str) -> None:
        self.label, self.figures = label, _Figures()
        self.began = self.last = time.monotonic()
        self.first_step: int | None = None

    def __call__(self, line: dict[str, Any]) -> None:
        now = time.monotonic()
        if "preparing" in line:
            if now - self.last >= _PLAIN_SECONDS:
                self.last = now
                _Stderr().write(f"{self.label}: {_preparing(line)}\n")
            return
        self.figures.add(line)
        if self.first_step is None:
            self.first_step, self.began = line["step"], now
        done = line["step"] - self.first_step
        ended = line["step"] == line["total"] and "loss" not in line
        if now - self.last < _PLAIN_SECONDS and not ended:
            return
        self.last = now
        left = f"  {(now - self.began) / done * (line['total'] - line['step']):.0f} s left" if done else ""
        _Stderr().write(f"{self.label}: step {line['step']}/{line['total']}  {self.figures}{left}\n")
