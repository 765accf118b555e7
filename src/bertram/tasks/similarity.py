"""How alike two texts are: the cosine of the vectors that a model makes of each by itself.

Letters: N examples.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bertram.errors import BadInput, require
from bertram.tasks import metrics
from bertram.tasks.correlation import correlation, finite, moments
from bertram.tasks.regression import numbers, scaled
from bertram.tasks.task import Floats, Logits, Score, Targets, Task


@dataclass(frozen=True)
class Similarity(Task):
    """Targets are the share of the way from the lowest training label to the highest, which the cosine is to meet."""

    lowest: float = 0.0
    highest: float = 1.0

    name: ClassVar[str] = "similarity"
    head: ClassVar[str] = "embedding"
    metric: ClassVar[str] = "spearman"
    apart: ClassVar[bool] = True

    @property
    def outputs(self) -> int:
        return 1

    @classmethod
    def from_labels(cls, labels: Sequence[str], source: str = "the training data") -> "Similarity":
        values = numbers(labels, source, cls.name)
        lowest, highest = float(values.min()), float(values.max())
        if lowest == highest:
            raise BadInput(f"{source}: every label is {labels[0]!r:.60}; similarity needs two or more values")
        return cls(lowest, highest)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Similarity":
        low, high = (value.get(name) for name in ("lowest", "highest"))
        if not (isinstance(low, float) and isinstance(high, float) and -math.inf < low < high < math.inf):
            raise BadInput(f"task: lowest and highest must be numbers in that order, not {low!r:.40} and {high!r:.40}")
        return cls(low, high)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "lowest": self.lowest, "highest": self.highest}

    def targets(self, labels: Sequence[str], source: str = "the data") -> NDArray[np.float32]:
        """Values on a scale where the training labels go from 0 to 1, [N]."""
        return scaled(numbers(labels, source, self.name), self.lowest, self.highest - self.lowest, source)

    def answers(self, logits: Logits) -> list[dict[str, Any]]:
        """{"score"}, the cosine, for each row of [N, 1]."""
        return [{"score": value} for value in logits[:, 0].astype(np.float64).tolist()]

    def scores(self, logits: Logits, targets: Targets) -> list[Score]:
        """Spearman's correlation, by which embeddings are judged (Reimers et al. 2016), and Pearson's.

        A row that is not finite counts as a cosine of 0.
        """
        expected, predicted = targets.astype(np.float64), finite(logits)
        return [metrics.spearman(expected, predicted), metrics.pearson(expected, predicted)]

    def terms(self, logits: Logits, targets: Targets) -> Floats:
        """The moments of the ranks among all N, [N, 5]; resampled rows keep the ranks that they had among all."""
        ranks = require("scipy.stats", "train").rankdata
        return moments(ranks(finite(logits)), ranks(targets.astype(np.float64)))

    def score_of(self, means: Floats) -> Floats:
        """Spearman's correlation, 0.0 where it is not defined."""
        return correlation(means)
