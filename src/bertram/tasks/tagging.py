"""A label for every word of a text, and the entities that labels make: names of people, parts of speech.

Letters: N texts, W words of all of them, L labels, K terms.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from bertram.tasks import metrics
from bertram.tasks.classification import Classification, most_probable, probabilities
from bertram.tasks.entities import Numbers, Scheme
from bertram.tasks.task import Floats, Logits, Score, Targets, Task
from bertram.text.words import Span, words_of


@dataclass(frozen=True)
class Tagging(Task):
    """A fixed set of labels for words. The labels of a text stand in a string, parted by spaces as its words are.

    What is one row an example elsewhere is one a word here: logits are [W, L], and targets [W, 2], the number of the
    text that a word stands in and the number of its label.
    """

    classification: Classification
    """The labels, and what it means to give one to a word."""

    name: ClassVar[str] = "tagging"
    head: ClassVar[str] = "token_classification"
    metric: ClassVar[str] = "f1"
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    per_word: ClassVar[bool] = True

    @property
    def labels(self) -> tuple[str, ...]:
        return self.classification.labels

    @property
    def outputs(self) -> int:
        return self.classification.outputs

    @classmethod
    def from_labels(cls, labels: Sequence[str], source: str = "the training data") -> Self:
        return cls(Classification.from_labels([label for text in labels for label in words_of(text)], source))

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        return cls(Classification.from_dict(value))

    def to_dict(self) -> dict[str, Any]:
        return self.classification.to_dict() | {"name": self.name}

    def targets(self, labels: Sequence[str], source: str = "the data") -> NDArray[np.int64]:
        """The text and the label of every word, [W, 2]."""
        tags = [words_of(text) for text in labels]
        texts = np.repeat(np.arange(len(tags)), [len(text) for text in tags])
        return np.stack([texts, self.classification.targets([tag for text in tags for tag in text], source)], axis=1)

    def answers(self, logits: Logits) -> list[dict[str, Any]]:
        """{"label", "score", "scores": {label: probability}} for each word of [W, L], by softmax."""
        return self.classification.answers(logits)

    def entities(self, texts: Sequence[str], spans: Sequence[Sequence[Span]], logits: Logits) -> list[dict[str, Any]]:
        """{"entities": [{"start", "end", "label", "text", "score"}]} for each text, whose words stand at these `spans`.

        Places count code points, and a score is the mean probability of an entity's words, which have `logits` [W, L].
        """
        likely = probabilities(logits).max(-1)
        numbers = np.repeat(np.arange(len(texts)), [len(words) for words in spans])
        places = [span for words in spans for span in words]
        answers: list[dict[str, Any]] = [{"entities": []} for _ in texts]
        for first, end, kind in zip(*self.scheme.read(logits.argmax(-1), numbers), strict=True):
            text, (start, _), (_, stop) = texts[numbers[first]], places[first], places[end - 1]
            answers[numbers[first]]["entities"].append(
                {
                    "start": start,
                    "end": stop,
                    "label": self.scheme.names[kind],
                    "text": text[start:stop],
                    "score": float(likely[first:end].mean()),
                }
            )
        return answers

    @cached_property
    def scheme(self) -> Scheme:
        """What the labels say of entities."""
        return Scheme.of(self.labels)

    def scores(self, logits: Logits, targets: Targets) -> list[Score]:
        """F1, precision and recall of entities, of which those count whose words and label are right, and accuracy.

        All entities count alike (micro-average), as in seqeval. Accuracy is that of words.
        """
        counts = self.terms(logits, targets).sum(0)
        matched, found, expected = counts.tolist()
        values = {
            "f1": float(self.score_of(counts)),
            "precision": _ratio(matched, found),
            "recall": _ratio(matched, expected),
        }
        entities = [Score(name, value, f"{name}|entities|n:{expected:.0f}") for name, value in values.items()]
        return [*entities, metrics.accuracy(targets[:, 1].astype(np.int64), most_probable(logits))]

    def only_answer(self, logits: Logits, targets: Targets) -> str | None:
        """As `Task.only_answer`, of words."""
        return self.classification.only_answer(logits, targets[:, 1])

    def constant_score(self, targets: Targets) -> float:
        """As `Task.constant_score`: where every word stands alone, the share of the most frequent label."""
        answers = (np.full(len(targets), number) for number in range(self.outputs))
        return max(float(self.score_of(self._terms(answer, targets).mean(0))) for answer in answers)

    def terms(self, logits: Logits, targets: Targets) -> Floats:
        """How many entities of each text are right, are answered, and are there, [N, 3]."""
        return self._terms(most_probable(logits), targets)

    def _terms(self, answered: Numbers, targets: Targets) -> Floats:
        texts, expected = targets.astype(np.int64).T
        found, there = (self.scheme.read(labels, texts) for labels in (answered, expected))
        _, a, b = np.intersect1d(found.starts, there.starts, assume_unique=True, return_indices=True)
        right = found.starts[a[(found.ends[a] == there.ends[b]) & (found.kinds[a] == there.kinds[b])]]
        size = int(texts.max(initial=-1)) + 1
        counts = [np.bincount(texts[words], minlength=size) for words in (right, found.starts, there.starts)]
        return np.stack(counts, axis=1).astype(np.float64)

    def score_of(self, means: Floats) -> Floats:
        """F1 from the means of the terms; 0 where nothing is answered nor there."""
        matched, either = 2 * means[..., 0], means[..., 1] + means[..., 2]
        return np.divide(matched, either, out=np.zeros_like(matched), where=either > 0)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
