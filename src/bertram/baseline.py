"""The honest baseline of every comparison: tf-idf with a linear model.

A text, in Unicode's form NFC, is its words, punctuation marks and the characters of scripts that put no space between
words, alone and in runs, weighed by tf-idf. A pair is both texts, what they differ in and their cosine; without the
last two a linear model cannot compare. A word that is to be labelled is itself, its beginning and end, its shape and
its neighbours, weighed likewise. Logistic or ridge regression goes on top. The length of runs and the regularisation
are the best of a grid on the validation part.

Letters: N rows (words, where these are labelled), V runs in the vocabulary, F features (V for texts, 3V + 1 for pairs),
L logits.
"""

import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertram.errors import BadInput, require
from bertram.files import read_object, replacing, write_json
from bertram.tasks.registry import labels_of, task_from_dict
from bertram.tasks.tagging import Tagging
from bertram.tasks.task import Targets, Task
from bertram.text.inputs import Input, columns_of, singles_of, strings_of
from bertram.text.table import Table
from bertram.text.words import find_words, words_of

_SETTINGS, _WEIGHTS = "baseline.json", "baseline.safetensors"
FILES = (_SETTINGS, _WEIGHTS)
"""What a directory with a baseline holds."""
_MOST_BYTES = 2**28
_RUN_LENGTHS = {False: (1, 3), True: (5,)}
"""Of a text's tokens; and of the words, a labelled one in the middle, that are looked at where each is labelled."""
_STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)  # C of logistic regression, 1 / alpha of ridge
_NEVER = np.float32(-1e4)  # a logit that is finite, and below every other
_VOCABULARY = 200_000  # the most frequent runs; all 572,000 of ChnSentiCorp scored no higher
_MOST_ITERATIONS = {False: 1000, True: 200}  # likewise; there are many more words than texts
_AFFIXES = (2, 3, 4)  # characters of a word's beginning and of its end
_MOST_WEIGHTS = 2**22  # of all labels; a fit takes some 165 bytes for each
_UNSPACED = (
    r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese and Japanese
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Burmese, Khmer
)

Weights = NDArray[np.float32]


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline."""

    task: Task
    run_length: int
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
        weights = task.outputs * (1 if train.texts_b is None else 3)  # of a run of tokens
        for run_length in _RUN_LENGTHS[task.per_word]:
            vectorizer = _vectorizer(task, run_length, max_features=min(_VOCABULARY, _MOST_WEIGHTS // weights))
            read = partial(_documents, task, run_length)
            _learn(vectorizer, read(train.all_texts))
            features, held = (_features(vectorizer, read, *table.inputs) for table in (train, validation))
            for strength in _STRENGTHS:
                coefficients, intercept = _fit_linear(task, strength, features, learned)
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
        if self._features_of(texts_b is not None) != self.coefficients.shape[1]:
            kinds = ("single texts", "pairs of texts") if texts_b is not None else ("pairs of texts", "single texts")
            raise BadInput(f"this baseline was fitted on {kinds[0]}, not on {kinds[1]}")
        read = partial(_documents, self.task, self.run_length)
        features = _features(self._vectorizer, read, texts, texts_b)
        return _logits(features, self.coefficients, self.intercept, self.task.outputs)

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

    def _features_of(self, pairs: bool) -> int:
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
        tokens = found.vocabulary if not task.per_word else []
        if any(" ".join(re.findall(_token_pattern(), run)) != run for run in tokens):
            raise BadInput(f"{directory}: this baseline is of a version that knew other words in a text; fit it again")
        return found

    def _is_whole(self) -> bool:
        outputs, features = self.coefficients.shape
        return (
            self.run_length in _RUN_LENGTHS[self.task.per_word]
            and all(isinstance(run, str) for run in self.vocabulary)
            and len(set(self.vocabulary)) == len(self.idf) > 0
            and all(array.dtype == np.float32 for array in (self.idf, self.coefficients, self.intercept))
            and (self.idf.ndim, self.intercept.shape) == (1, (outputs,))
            and outputs in (1, self.task.outputs)
            and features in (self._features_of(False), self._features_of(True))
        )

    @cached_property
    def _vectorizer(self) -> Any:
        vectorizer = _vectorizer(self.task, self.run_length, vocabulary=self.vocabulary)
        vectorizer.idf_ = self.idf
        return vectorizer


@cache
def _token_pattern() -> str:
    """What a token looks like: marks and joiners belong to what they follow, as in Unicode's annex 29, rule WB4."""
    characters = map(chr, range(0x300, 0x10000))  # of those beyond, re's search is several times as slow
    marks = "\u200c\u200d" + "".join(one for one in characters if unicodedata.category(one)[0] == "M")
    word = rf"[^\W{_UNSPACED}]"
    return rf"[{_UNSPACED}][{marks}]*|{word}+(?:[{marks}]+{word}*)*|[^\w\s{marks}][{marks}]*"


def _normalised(text: str) -> str:
    return unicodedata.normalize("NFC", text.lower())


def _documents(task: Task, run_length: int, texts: Sequence[str]) -> Sequence[Any]:
    """What is weighed: the texts, or the features of each of their words."""
    if not task.per_word:
        return texts
    return [features for text in texts for features in _features_of_words(words_of(text), run_length // 2)]


def _features_of_words(words: Sequence[str], reach: int) -> Iterator[list[str]]:
    """Of every word: itself, its shape and those of the neighbours in `reach`, its beginning and its end."""
    outside = [""] * reach
    plain = [*outside, *map(_normalised, words), *outside]
    shapes = [*outside, *map(_shape, words), *outside]
    for place in range(reach, reach + len(words)):
        around = [(near, place + near) for near in range(-reach, reach + 1)]
        word = plain[place]
        yield [
            *(f"{near}={plain[at]}" for near, at in around),
            *(f"{near}~{shapes[at]}" for near, at in around),
            *(f"^{word[:size]}" for size in _AFFIXES),
            *(f"{word[-size:]}$" for size in _AFFIXES),
        ]


def _shape(word: str) -> str:
    """Upper and lower case, digits and other characters of a word; of more than two alike, two."""
    kinds = ("X" if one.isupper() else "x" if one.isalpha() else "0" if one.isdigit() else one for one in word)
    return re.sub(r"(.)\1+", r"\1\1", "".join(kinds))


def _vectorizer(task: Task, run_length: int, **settings: Any) -> Any:
    """A TfidfVectorizer of runs of 1 to `run_length` tokens, or of the features of words."""
    text = require("sklearn.feature_extraction.text", "train")
    if task.per_word:
        return text.TfidfVectorizer(analyzer=list, dtype=np.float32, **settings)
    return text.TfidfVectorizer(
        preprocessor=_normalised,
        token_pattern=_token_pattern(),
        ngram_range=(1, run_length),
        sublinear_tf=True,
        dtype=np.float32,
        **settings,
    )


def _learn(vectorizer: Any, documents: Sequence[Any]) -> None:
    """Let it take up the most frequent runs of these documents."""
    try:
        vectorizer.fit(documents)
    except ValueError:  # scikit-learn's "empty vocabulary"
        raise BadInput("the training texts are blank; there is nothing to learn from") from None


def _features(
    vectorizer: Any,
    read: Callable[[Sequence[str]], Sequence[Any]],
    texts: Sequence[str],
    texts_b: Sequence[str] | None,
) -> Any:
    """Sparse features of the documents that are `read` from texts, [N, F]."""
    first = vectorizer.transform(read(texts))
    if texts_b is None:
        return first
    second = vectorizer.transform(read(texts_b))
    sparse = require("scipy.sparse", "train")
    cosine = np.asarray(first.multiply(second).sum(axis=1)).reshape(-1, 1)
    return sparse.hstack([first, second, abs(first - second), sparse.csr_array(cosine)], format="csr")


def _fit_linear(task: Task, strength: float, features: Any, targets: Targets) -> tuple[Weights, Weights]:
    """Coefficients [L, F] or [1, F] and intercept [L] or [1]."""
    linear = require("sklearn.linear_model", "train")
    classes = np.unique(targets) if labels_of(task) is not None else None
    if classes is None:
        model = linear.Ridge(alpha=1 / strength, solver="sparse_cg")
    elif len(classes) == 1:
        return _of_all_labels(task, classes, np.zeros((1, features.shape[1]), np.float32), np.zeros(1, np.float32))
    else:
        model = linear.LogisticRegression(C=strength, max_iter=_MOST_ITERATIONS[task.per_word])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", require("sklearn.exceptions", "train").ConvergenceWarning)
        model.fit(features, targets)
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


def _logits(features: Any, coefficients: Weights, intercept: Weights, outputs: int) -> Weights:
    """[N, F] → [N, L]."""
    logits: Weights = features @ coefficients.T + intercept
    return np.pad(logits, ((0, 0), (outputs - logits.shape[1], 0)))


def is_baseline(directory: Path) -> bool:
    """Whether a directory holds what `Baseline.save` writes."""
    return all((directory / file).is_file() for file in FILES)
