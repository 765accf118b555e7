"""A linear model over tf-idf: fitted, kept in a directory, and asked.

A row is what `features` sees of a text or, where words are labelled, of a word. A pair is both texts, what they differ
in and their cosine; without the last two a linear model cannot compare. Logistic or ridge regression goes on top. The
length of runs and the regularisation are the best of a grid on the validation part.

Letters: N rows, V features in the vocabulary, F columns (V for texts, 3V + 1 for pairs), L logits.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertram.baseline.features import Features, features_of
from bertram.errors import BadInput, require
from bertram.files import read_object, replacing, write_json
from bertram.tasks.registry import labels_of, task_from_dict
from bertram.tasks.tagging import Tagging
from bertram.tasks.task import Targets, Task
from bertram.text.inputs import Input, columns_of, singles_of, strings_of
from bertram.text.table import Table
from bertram.text.words import find_words

_SETTINGS, _WEIGHTS = "baseline.json", "baseline.safetensors"
FILES = (_SETTINGS, _WEIGHTS)
"""What a directory with a baseline holds."""
_MOST_BYTES = 2**28
_STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)  # C of logistic regression, 1 / alpha of ridge
_NEVER = np.float32(-1e4)  # a logit that is finite, and below every other
_VOCABULARY = 200_000  # the most frequent features; all 572,000 of ChnSentiCorp scored no higher
_MOST_WEIGHTS = 2**22  # of all labels; a fit takes some 165 bytes for each

Weights = NDArray[np.float32]


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline."""

    task: Task
    run_length: int
    """As `Features.run_lengths`."""
    vocabulary: list[str]
    idf: Weights  # [V]
    coefficients: Weights  # [L, F]; [1, F] for two labels that both were seen, whose first logit is 0
    intercept: Weights  # [L] or [1]

    @classmethod
    def fit(cls, train: Table, validation: Table, task: Task) -> "Baseline":
        """Fit every setting of the grid and keep the one with the best primary score on `validation`.

        Raises:
            BadInput: the training texts are blank, a label is not one that the task knows, or scikit-learn is not
                installed.
        """
        targets, held_targets = task.targets(train.labels), task.targets(validation.labels)
        learned = targets[:, 1] if task.per_word else targets
        best, best_score = None, -np.inf
        weights, kind = task.outputs * (1 if train.texts_b is None else 3), features_of(task)  # weights of one feature
        for run_length in kind.run_lengths:
            vectorizer = kind.vectorizer(run_length, max_features=min(_VOCABULARY, _MOST_WEIGHTS // weights))
            _learn(vectorizer, kind.documents(train.all_texts, run_length))
            columns, held = (_columns(vectorizer, kind, run_length, *table.inputs) for table in (train, validation))
            for strength in _STRENGTHS:
                coefficients, intercept = _fit_linear(task, strength, columns, learned)
                score = task.scores(_logits(held, coefficients, intercept, task.outputs), held_targets)[0].value
                if score > best_score:
                    vocabulary = vectorizer.get_feature_names_out().tolist()
                    idf = vectorizer.idf_.astype(np.float32)
                    best, best_score = cls(task, run_length, vocabulary, idf, coefficients, intercept), score
        assert best is not None
        return best

    def logits(self, texts: Iterable[str], texts_b: Iterable[str] | None = None) -> Weights:
        """The task's logits of every text or pair, [N, L], as `Predictor.logits` gives them.

        Raises:
            BadInput: a text is no string or no valid Unicode, or it was fitted on pairs and is given single texts, or
                vice versa.
        """
        texts, texts_b = strings_of(texts), None if texts_b is None else strings_of(texts_b)
        if self._width(texts_b is not None) != self.coefficients.shape[1]:
            kinds = ("single texts", "pairs of texts") if texts_b is not None else ("pairs of texts", "single texts")
            raise BadInput(f"this baseline was fitted on {kinds[0]}, not on {kinds[1]}")
        kind = features_of(self.task)
        if next(iter(kind.documents(texts, self.run_length)), None) is None:
            return np.zeros((0, self.task.outputs), np.float32)
        columns = _columns(self._vectorizer, kind, self.run_length, texts, texts_b)
        return _logits(columns, self.coefficients, self.intercept, self.task.outputs)

    def predict(self, inputs: Iterable[Input]) -> list[dict[str, Any]]:
        """One answer an input, in the order given, as `Predictor.predict` or `Tagger.predict` gives them.

        Raises:
            BadInput: an input is neither a string nor {"text" [, "text_b"]}, or as `logits`.
        """
        if isinstance(self.task, Tagging):
            texts = strings_of(singles_of(inputs, self.task.name))
            spans = [list(find_words(text)) for text in texts]
            words = [" ".join(text[a:b] for a, b in found) for text, found in zip(texts, spans, strict=True)]
            return self.task.entities(texts, spans, self.logits(words))
        texts, texts_b = columns_of(inputs)
        return self.task.answers(self.logits(texts, texts_b)) if texts else []

    def _width(self, pairs: bool) -> int:
        return 3 * len(self.idf) + 1 if pairs else len(self.idf)

    @property
    def parameters(self) -> int:
        """Numbers that were fitted: the linear model's and the idf weights."""
        return self.coefficients.size + self.intercept.size + self.idf.size

    def save(self, directory: Path) -> None:
        """Write baseline.json and baseline.safetensors.

        Raises:
            OSError: the disk did not take them.
        """
        weights = {"idf": self.idf, "coefficients": self.coefficients, "intercept": self.intercept}
        with replacing(directory / _WEIGHTS) as path:
            require("safetensors.numpy", "train").save_file(weights, path)
        settings = {"task": self.task.to_dict(), "run_length": self.run_length, "vocabulary": self.vocabulary}
        write_json(directory / _SETTINGS, settings)

    @classmethod
    def load(cls, directory: Path) -> "Baseline":
        """Read what `save` wrote.

        Raises:
            BadInput: it is damaged, or of a version that took texts apart otherwise.
            OSError: it is not there.
        """
        settings, safetensors = read_object(directory / _SETTINGS, _MOST_BYTES), require("safetensors", "train")
        try:
            weights = require("safetensors.numpy", "train").load_file(directory / _WEIGHTS)
            task = task_from_dict(settings["task"])
            found = cls(task, settings["run_length"], settings["vocabulary"], **weights)
            whole = found._is_whole()
        except (AttributeError, KeyError, TypeError, ValueError, safetensors.SafetensorError):
            whole = False
        if not whole:
            raise BadInput(f"{directory}: {_SETTINGS} and {_WEIGHTS} are damaged or do not belong together")
        if not all(map(features_of(task).knows, found.vocabulary)):
            raise BadInput(f"{directory}: this baseline is of a version that knew other words in a text; fit it again")
        return found

    def _is_whole(self) -> bool:
        outputs, features = self.coefficients.shape
        return (
            self.run_length in features_of(self.task).run_lengths
            and all(isinstance(run, str) for run in self.vocabulary)
            and len(set(self.vocabulary)) == len(self.idf) > 0
            and all(array.dtype == np.float32 for array in (self.idf, self.coefficients, self.intercept))
            and (self.idf.ndim, self.intercept.shape) == (1, (outputs,))
            and outputs in (1, self.task.outputs)
            and features in (self._width(False), self._width(True))
        )

    @cached_property
    def _vectorizer(self) -> Any:
        vectorizer = features_of(self.task).vectorizer(self.run_length, vocabulary=self.vocabulary)
        vectorizer.idf_ = self.idf
        return vectorizer


def _learn(vectorizer: Any, documents: Iterable[Any]) -> None:
    """Let it take up the most frequent features of these documents."""
    try:
        vectorizer.fit(documents)
    except ValueError:  # scikit-learn's "empty vocabulary"
        raise BadInput("the training texts are blank; there is nothing to learn from") from None


def _columns(
    vectorizer: Any, kind: Features, run_length: int, texts: Sequence[str], texts_b: Sequence[str] | None
) -> Any:
    """Features of texts as a sparse matrix, [N, F]."""
    first = vectorizer.transform(kind.documents(texts, run_length))
    if texts_b is None:
        return first
    second = vectorizer.transform(kind.documents(texts_b, run_length))
    sparse = require("scipy.sparse", "train")
    cosine = np.asarray(first.multiply(second).sum(axis=1)).reshape(-1, 1)
    return sparse.hstack([first, second, abs(first - second), sparse.csr_array(cosine)], format="csr")


def _fit_linear(task: Task, strength: float, columns: Any, targets: Targets) -> tuple[Weights, Weights]:
    """Coefficients [L, F] or [1, F] and intercept [L] or [1]."""
    linear = require("sklearn.linear_model", "train")
    classes = np.unique(targets) if labels_of(task) is not None else None
    if classes is None:
        model = linear.Ridge(alpha=1 / strength, solver="sparse_cg")
    elif len(classes) == 1:
        return _of_all_labels(task, classes, np.zeros((1, columns.shape[1]), np.float32), np.zeros(1, np.float32))
    else:
        model = linear.LogisticRegression(C=strength, max_iter=features_of(task).most_iterations)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", require("sklearn.exceptions", "train").ConvergenceWarning)
        model.fit(columns, targets)
    # scikit-learn's come transposed in memory, which safetensors would write as they lie.
    coefficients = np.atleast_2d(model.coef_).astype(np.float32, order="C")
    intercept = np.atleast_1d(model.intercept_).astype(np.float32)
    return (coefficients, intercept) if classes is None else _of_all_labels(task, classes, coefficients, intercept)


def _of_all_labels(
    task: Task, classes: NDArray[Any], coefficients: Weights, intercept: Weights
) -> tuple[Weights, Weights]:
    """The same with a row for every label, where some have no training row: those are never answered."""
    if len(classes) == task.outputs:
        return coefficients, intercept
    rows, biases = np.zeros((task.outputs, coefficients.shape[1]), np.float32), np.full(task.outputs, _NEVER)
    biases[classes[0]] = 0.0  # of two labels the first has no logit of its own
    rows[classes[-len(coefficients) :]], biases[classes[-len(coefficients) :]] = coefficients, intercept
    return rows, biases


def _logits(columns: Any, coefficients: Weights, intercept: Weights, outputs: int) -> Weights:
    """[N, F] → [N, L]."""
    logits: Weights = columns @ coefficients.T + intercept
    return np.pad(logits, ((0, 0), (outputs - logits.shape[1], 0)))


def is_baseline(directory: Path) -> bool:
    """Whether a directory holds what `Baseline.save` writes."""
    return all((directory / file).is_file() for file in FILES)
