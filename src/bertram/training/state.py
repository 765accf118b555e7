"""Where a training stands between two steps, and whether it gets anywhere."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from bertram.batch import Position
from bertram.memory import gpu_peak_memory_mb, peak_memory_mb

_BUCKETS = 20


@dataclass
class State:
    """With weights and moments, all that a checkpoint holds. Losses are summed over each twentieth of the training."""

    total: int
    evaluations: int
    """Spread evenly over the `total` steps."""
    position: Position
    step: int = 0
    evaluated: int = 0
    tokens: int = 0
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    gpu_peak_memory_mb: float | None = None
    """Peaks of the processes that came this far, of which the last goes on."""
    best_score: float | None = None
    best_step: int = 0
    stale: int = 0
    loss_sums: list[float] = field(default_factory=lambda: [0.0] * _BUCKETS)
    constant_sums: list[float] = field(default_factory=lambda: [0.0] * _BUCKETS)
    """Of the losses of the best constant prediction on the same batches; 0 where that is not asked."""
    loss_counts: list[int] = field(default_factory=lambda: [0] * _BUCKETS)

    @property
    def evaluation_due(self) -> bool:
        """Whether one of the evaluations comes after this step and was not made yet."""
        made, wanted = ((step * self.evaluations) // self.total for step in (self.step - 1, self.step))
        return wanted > made and self.evaluated < self.step

    def measure(self, started: float) -> None:
        """Note the seconds since `started`, and the peaks of memory, those of the processes before included."""
        self.seconds = time.monotonic() - started
        self.peak_memory_mb = max(self.peak_memory_mb, peak_memory_mb())
        if (peak := gpu_peak_memory_mb()) is not None:
            self.gpu_peak_memory_mb = max(self.gpu_peak_memory_mb or 0.0, peak)

    def learned(self, loss: float, constant_loss: float) -> None:
        """Note the loss of the step that comes next, and that of the best constant prediction."""
        bucket = self.step * _BUCKETS // self.total
        self.loss_sums[bucket] += loss
        self.constant_sums[bucket] += constant_loss
        self.loss_counts[bucket] += 1

    def learned_nothing(self) -> str:
        """Why a training that came to its end still counts as diverged: it is no better than the best constant answer.

        Both are compared on the same batches, as a rare label is in some and not in others. A training that begins with
        what the model learned before may stay as good as it was.
        """
        counts = [n for n in self.loss_counts if n]
        fifth = len(counts) // 5
        if not any(self.constant_sums) or self.step < 100 or fifth == 0:
            return ""  # nothing to compare with, or too few steps to tell noise from no progress

        def mean(sums: Sequence[float], part: slice) -> float:
            return sum(s / n for s, n in zip(sums[: len(counts)][part], counts[part], strict=True)) / fifth

        first, last = (mean(self.loss_sums, part) for part in (slice(fifth), slice(-fifth, None)))
        constant_loss = mean(self.constant_sums, slice(-fifth, None))
        if last < constant_loss:
            return ""
        return (
            f"no more than one answer to everything was learned, whose loss is {constant_loss:.4f}: the training's was "
            f"{first:.4f} in the first fifth and {last:.4f} in the last"
        )
