"""What a task is: how labels become targets, and logits become answers and scores. Nothing here knows of torch.

Letters: N examples, L logits an example, K terms of a metric.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Logits = NDArray[np.float32] | NDArray[np.float64]
Targets = NDArray[np.int64] | NDArray[np.float32]

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Score:
    """A metric's value, with a signature that says how it was computed (Post 2018, sacrebleu)."""

    metric: str
    value: float
    signature: str

    def signed(self, **facts: object) -> "Score":
        """The same score with further facts, such as its split and seed, at the end of the signature."""
        further = [f"{name}:{value}" for name, value in facts.items()]
        return replace(self, signature="|".join([self.signature, *further]))


class Task(ABC):
    """One kind of question to a model, with what was learned about it from the training labels."""

    name: ClassVar[str]
    head: ClassVar[str]
    """Name of the head in models/heads.py that the logits come from."""
    metric: ClassVar[str]
    """The primary metric; more is better."""
    bounds: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    """Between which it lies."""
    per_word: ClassVar[bool] = False
    """Whether every word of a text is labelled: then what is [N, L] here has a row a word."""
    apart: ClassVar[bool] = False
    """Whether the texts of a pair are read each by itself, and it is their vectors' cosine, [N, 1], that is judged."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """L, logits an example."""

    @classmethod
    @abstractmethod
    def from_labels(cls, labels: Sequence[str], source: str = "the training data") -> "Task":
        """Learn from the training labels what the task must know. `source` names them in errors.

        Raises:
            BadInput: they do not suit the task.
        """

    @classmethod
    @abstractmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Task":
        """Take up what `to_dict` gave.

        Raises:
            BadInput: the values make no sense.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """What bertram.json keeps of the task: its name and what it learned."""

    @abstractmethod
    def targets(self, labels: Sequence[str], source: str = "the data") -> Targets:
        """Labels as numbers to train on or to compare with, [N]. `source` names the labels in errors.

        Raises:
            BadInput: a label is not one that the task knows.
        """

    @abstractmethod
    def answers(self, logits: Logits) -> list[dict[str, Any]]:
        """What a user is told about each row of [N, L]."""

    @abstractmethod
    def scores(self, logits: Logits, targets: Targets) -> list[Score]:
        """Scores of [N, L] against [N], the primary one first.

        A row whose logits are not finite, as those of a diverged model, counts as not answered: wrong in
        classification, the mean of the training labels in regression.

        Raises:
            BadInput: the library that computes them is not installed.
        """

    def only_answer(self, logits: Logits, targets: Targets) -> str | None:
        """The one label that all rows of [N, L] get although their targets [N] differ; None where there is no such."""
        return None

    def constant_score(self, targets: Targets) -> float:
        """The primary metric, against [N], of the one answer to all that scores best; a correlation is then none."""
        return 0.0

    @abstractmethod
    def terms(self, logits: Logits, targets: Targets) -> Floats:
        """What each example adds to the primary metric, [N, K]; see `score_of`."""

    @abstractmethod
    def score_of(self, means: Floats) -> Floats:
        """The primary metric from the means of its terms over examples, [..., K] → [...].

        That a metric is a function of such means is what lets it be resampled by one product of matrices.
        """


def parse_number(label: str) -> float | None:
    """A label's value if it is a number that float32 can hold."""
    value = _number(label)
    return value if value is not None and abs(value) <= _LARGEST else None


def is_too_large(label: str) -> bool:
    """Whether a label is a number that float32 cannot hold."""
    value = _number(label)
    return value is not None and abs(value) > _LARGEST


def _number(label: str) -> float | None:
    # float() also takes 1_000, nan and inf, which in a table of labels are names.
    if not any(map(str.isdigit, label)) or "_" in label:
        return None
    try:
        return float(label)
    except ValueError:
        return None
