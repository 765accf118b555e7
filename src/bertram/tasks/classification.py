"""One label out of several for each text or pair of texts.

Letters: N examples, L labels.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bertram.errors import BadInput, failing_in
from bertram.tasks import metrics
from bertram.tasks.task import Floats, Logits, Score, Targets, Task, parse_number
from bertram.text.lines import is_unicode

_UNNAMED = re.compile(r"LABEL_\d+")  # transformers' labels without names
_NAMED = 5  # labels that an error lists before it only counts them
_MOST_BYTES = 2**20  # of all labels in JSON; the files of a model hold a few times that


@dataclass(frozen=True)
class Classification(Task):
    """A fixed set of labels, numbers in their order first, then words; a logit each.

    BadInput where one is no valid Unicode, which no answer could be written in.
    """

    labels: tuple[str, ...]

    name: ClassVar[str] = "classification"
    head: ClassVar[str] = "classification"
    metric: ClassVar[str] = "accuracy"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __post_init__(self) -> None:
        for label in self.labels:
            if not is_unicode(label):
                raise BadInput(f"an unpaired surrogate in the label {label!r:.80}, which is not valid Unicode")

    @property
    def outputs(self) -> int:
        return len(self.labels)

    @classmethod
    def from_labels(cls, labels: Sequence[str], source: str = "the training data") -> "Classification":
        distinct = set(labels)
        with failing_in(source):
            if len(distinct) < 2:
                raise BadInput(f"every label is {_listed(distinct)}; classification needs two or more")
            task = cls(tuple(sorted(distinct, key=_place)))
            if (size := len(json.dumps(task.labels, ensure_ascii=False).encode())) > _MOST_BYTES:
                raise BadInput(
                    f"{len(distinct):,} labels take {size:,} bytes, more than {_MOST_BYTES:,}; are they texts, and the "
                    "columns swapped?"
                )
        return task

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "Classification":
        labels = value.get("labels")
        with failing_in("task"):
            if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
                raise BadInput("labels must be a list of strings")
            if len(labels) < 2 or len(set(labels)) < len(labels):
                raise BadInput("labels must be two or more, each only once")
            return cls(tuple(labels))

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "labels": list(self.labels)}

    def targets(self, labels: Sequence[str], source: str = "the data") -> NDArray[np.int64]:
        """Numbers of the labels, [N]. Where all are called LABEL_0 and so on, their numbers will do."""
        numbers = {label: number for number, label in enumerate(self.labels)}
        if all(_UNNAMED.fullmatch(label) for label in self.labels):
            numbers |= {label.removeprefix("LABEL_"): number for label, number in numbers.items()}
        unseen = Counter(label for label in labels if label not in numbers)
        if unseen:
            rows = f"{unseen.total()} row{'s' if unseen.total() > 1 else ''}"
            known = _listed(self.labels)
            raise BadInput(f"{source}: {rows} with {_listed(unseen)}, not seen in training; its labels are {known}")
        return np.array([numbers[label] for label in labels], np.int64)

    def answers(self, logits: Logits) -> list[dict[str, Any]]:
        """{"label", "score", "scores": {label: probability}} for each row of [N, L], by softmax."""
        rows = probabilities(logits).tolist()
        best = logits.argmax(-1).tolist()
        return [
            {"label": self.labels[i], "score": row[i], "scores": dict(zip(self.labels, row, strict=True))}
            for i, row in zip(best, rows, strict=True)
        ]

    def scores(self, logits: Logits, targets: Targets) -> list[Score]:
        """Accuracy, macro-F1 and Matthews' correlation."""
        numbers, predicted = targets.astype(np.int64), most_probable(logits)
        return [metric(numbers, predicted) for metric in (metrics.accuracy, metrics.macro_f1, metrics.matthews)]

    def only_answer(self, logits: Logits, targets: Targets) -> str | None:
        """As `Task.only_answer`."""
        predicted = set(most_probable(logits).tolist())
        same = len(predicted) == 1 < len(set(targets.tolist()))
        return self.labels[predicted.pop()] if same else None

    def constant_score(self, targets: Targets) -> float:
        """The share of the most frequent label."""
        return float(np.bincount(targets.astype(np.int64)).max() / len(targets))

    def terms(self, logits: Logits, targets: Targets) -> Floats:
        """Whether each example is right, [N, 1]."""
        return np.asarray(most_probable(logits) == targets, np.float64)[:, None]

    def score_of(self, means: Floats) -> Floats:
        """The share that is right."""
        share: Floats = means[..., 0]
        return share


def probabilities(logits: Logits) -> Floats:
    """Those of each row of [N, L], by softmax."""
    wide = logits.astype(np.float64)
    shifted = np.exp(wide - wide.max(-1, keepdims=True))
    found: Floats = shifted / shifted.sum(-1, keepdims=True)
    return found


def most_probable(logits: Logits) -> NDArray[np.int64]:
    """The highest label of each row of [N, L], -1 where logits are not finite."""
    return np.where(np.isfinite(logits).all(-1), logits.argmax(-1), -1)


def _place(label: str) -> tuple[bool, float, str]:
    number = parse_number(label)
    return number is None, number or 0.0, label


def _listed(labels: Mapping[str, int] | Sequence[str] | set[str]) -> str:
    """Some labels by name, each cut to what fits a line, and how many more there are."""
    names = [f"{label!r:.60}" for label in list(labels)[:_NAMED]]
    rest = [f"{len(labels) - _NAMED} more"] if len(labels) > _NAMED else []
    return ", ".join(names + rest)
