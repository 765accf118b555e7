"""One number for each text or pair of texts.

Letters: N examples.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bertram.errors import BadInput
from bertram.tasks import metrics
from bertram.tasks.correlation import ROUNDING, correlation, finite, moments
from bertram.tasks.task import Floats, Logits, Score, Targets, Task, is_too_large, parse_number


@dataclass(frozen=True)
class Regression(Task):
    """Targets and logits count standard deviations from the mean of the training labels; answers are in their unit."""

    mean: float
    std: float

    name: ClassVar[str] = "regression"
    head: ClassVar[str] = "regression"
    metric: ClassVar[str] = "pearson"

    @property
    def outputs(self) -> int:
        return 1

    @classmethod
    def from_labels(cls, labels: Sequence[str], source: str = "the training data") -> "Regression":
        values = numbers(labels, source, cls.name)
        std = float(values.std())
        if std <= ROUNDING * np.abs(values).max(initial=0.0):
            raise BadInput(f"{source}: every label is {labels[0]!r:.60}; regression needs two or more values")
        return cls(float(values.mean()), std)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Regression":
        mean, std = (value.get(name) for name in ("mean", "std"))
        if not (isinstance(mean, float) and isinstance(std, float) and math.isfinite(mean) and 0 < std < math.inf):
            raise BadInput(f"task: mean and std must be numbers, std above 0, not {mean!r:.40} and {std!r:.40}")
        return cls(mean, std)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "mean": self.mean, "std": self.std}

    def targets(self, labels: Sequence[str], source: str = "the data") -> NDArray[np.float32]:
        """Values in standard deviations from the training mean, [N]."""
        return scaled(numbers(labels, source, self.name), self.mean, self.std, source)

    def answers(self, logits: Logits) -> list[dict[str, Any]]:
        """{"score"} for each row of [N, 1], in the unit of the labels."""
        return [{"score": value} for value in self._values(logits[:, 0]).tolist()]

    def scores(self, logits: Logits, targets: Targets) -> list[Score]:
        """Pearson's and Spearman's correlation, as GLUE has them for STS-B (Wang et al. 2018), and the error."""
        expected, predicted = self._values(targets), self._values(finite(logits))
        functions = (metrics.pearson, metrics.spearman, metrics.root_mean_squared_error)
        return [metric(expected, predicted) for metric in functions]

    def terms(self, logits: Logits, targets: Targets) -> Floats:
        """The moments that Pearson's correlation is made of, [N, 5]."""
        return moments(finite(logits), targets.astype(np.float64))

    def score_of(self, means: Floats) -> Floats:
        """Pearson's correlation, 0.0 where it is not defined."""
        return correlation(means)

    def _values(self, standardised: Logits | Targets) -> Floats:
        """Standard deviations from the mean as values in the unit of the labels."""
        return standardised.astype(np.float64) * self.std + self.mean


def numbers(labels: Sequence[str], source: str, task: str) -> Floats:
    """Labels as numbers, [N], which `task` needs.

    Raises:
        BadInput: one is none, or is too large.
    """
    values = [parse_number(label) for label in labels]
    if None in values:  # by its text: rows that were held out do not stand where they stand in the file
        label = labels[values.index(None)]
        why = "is too large a number" if is_too_large(label) else f"is not a number; {task} needs numbers"
        raise BadInput(f"{source}: the label {label!r:.80} {why}")
    return np.array(values, np.float64)


def scaled(values: Floats, origin: float, unit: float, source: str) -> NDArray[np.float32]:
    """Values as distances from `origin` in a `unit` of the training labels, [N].

    Raises:
        BadInput: one is too large for that.
    """
    with np.errstate(over="ignore"):
        found = ((values - origin) / unit).astype(np.float32)
    if not np.isfinite(found).all():
        label = values[np.flatnonzero(~np.isfinite(found))[0]]
        raise BadInput(f"{source}: the label {label:g} is too far from those of the training data")
    return found
