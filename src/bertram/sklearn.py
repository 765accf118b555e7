"""scikit-learn estimators: fine-tuning behind `fit` and `predict`, for pipelines, cross-validation and grid searches.

X is a sequence, array or Series of N strings, or has one column of texts or two of pairs of texts; y holds N labels. A
fitted estimator is pickled as the files of its model directory: no pickled code or tensor of torch is in it.

Letters: N examples, C classes.
"""

import warnings
from abc import ABC
from contextlib import nullcontext
from numbers import Integral
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_consistent_length, check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from bertram import artifacts
from bertram.errors import BadInput
from bertram.formats.huggingface_config import RESIDUALS
from bertram.inference.predictor import Predictor
from bertram.interruption import scratch
from bertram.model_names import ENGLISH, require_encoder, resolve
from bertram.run_directory import MANIFEST, prepare_directory
from bertram.supervised import finetuning
from bertram.tasks.classification import Classification
from bertram.tasks.regression import Regression
from bertram.tasks.task import Floats, Task
from bertram.text.table import Table
from bertram.training.recipe import Recipe

_FILES = ("config.json", "model.safetensors", RESIDUALS, "tokenizer.json", "tokenizer_config.json", MANIFEST)


class _TextEstimator(BaseEstimator, ABC):  # type: ignore[misc]  # scikit-learn has no types
    """What both estimators have in common: their settings, texts in, a training, pickling.

    Attributes:
        predictor_: the trained model, as `bertram.load` returns it.
        model_files_: its directory, contents by file name.
        n_features_in_: 1 for texts, 2 for pairs.
        feature_names_in_: names of the columns, where X was a frame.
    """

    def __init__(
        self,
        model: str | Path = ENGLISH,
        *,
        epochs: float = 3.0,
        batch_size: int = 32,
        learning_rate: float = 5e-5,
        max_length: int | None = None,
        vocab_size: int | None = None,
        cased: bool = False,
        validation_fraction: float = 0.1,
        random_state: int | np.random.RandomState | None = None,
        out: str | Path | None = None,
        allow_pickle: bool = False,
    ) -> None:
        """Settings, checked by `fit`.

        Args:
            model: the built-in bertram-english, whose vocabulary is English; a model directory or owner/name on the
                Hugging Face hub; or a preset, which learns its tokenizer from X and starts from random weights, for
                which a few thousand texts and this learning rate are too little.
            epochs: times that every example is trained on.
            batch_size: examples an optimizer step.
            learning_rate: its highest value, after warm-up.
            max_length: tokens that a text or pair is cut to; None: the model's own maximum length.
            vocab_size: most entries of a preset's tokenizer; None: the preset's own number.
            cased: a preset's tokenizer keeps upper case and accents.
            validation_fraction: share of the examples, at most a half, that is not trained on but chooses among the
                evaluations during training.
            random_state: seed of weights, order, dropout and held-out examples. None draws another one in every `fit`.
                Torch draws for a whole process: fits at once in several threads of one (joblib's threading) disturb
                each other's, those in several processes do not.
            out: an empty directory to leave the whole training at, as `bertram train` does; None keeps the model only.
                Copies of an estimator, as a grid search makes them, would share it: leave it None there.
            allow_pickle: also accept weights in a pytorch_model.bin, tensors only.
        """
        self.model = model
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.max_length = max_length
        self.vocab_size = vocab_size
        self.cased = cased
        self.validation_fraction = validation_fraction
        self.random_state = random_state
        self.out = out
        self.allow_pickle = allow_pickle

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "predictor_")

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in super().__getstate__().items() if name != "predictor_"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "model_files_" in state:
            with TemporaryDirectory() as folder:
                for name, content in self.model_files_.items():
                    Path(folder, name).write_bytes(content)
                self.predictor_: Predictor = artifacts.load_as(Predictor, Path(folder))

    def _examples(self, X: Any, y: Any, *, numeric: bool) -> tuple[list[list[str]], NDArray[Any]]:
        """X as its columns, and y [N] checked, as numbers if `numeric`."""
        y = validate_data(self, "no_validation", y, y_numeric=numeric)
        columns = self._columns(X, reset=True)
        check_consistent_length(columns[0], y)
        if len(y) < 2:
            raise BadInput("1 sample is too few: some are trained on and some held out for validation")
        return columns, y

    def _columns(self, X: Any, *, reset: bool) -> list[list[str]]:
        """X as its one or two columns of texts; `reset` says whether to learn or to check how many and their names."""
        cells = np.asarray(X, dtype=object)
        if cells.ndim == 1:
            cells = cells[:, None]
        if cells.ndim != 2 or cells.shape[1] not in (1, 2):
            raise BadInput(f"X: must be a sequence of texts or of pairs of texts, not {_described(X, cells)}")
        if not len(cells):
            raise BadInput("X: 0 samples, where a minimum of 1 is required")
        for row, column in np.ndindex(cells.shape):
            if not isinstance(cells[row, column], str):
                raise BadInput(f"X[{row}]: must hold strings, not {type(cells[row, column]).__name__}")
        validate_data(self, X if hasattr(X, "columns") else cells, reset=reset, skip_check_array=True)
        columns: list[list[str]] = cells.T.tolist()
        return columns

    def _train(self, task: Task, columns: list[list[str]], labels: list[str]) -> None:
        """Fine-tune the model and take up what came out."""
        recipe = Recipe(
            epochs=_plain(self.epochs),
            batch_size=_plain(self.batch_size),
            learning_rate=_plain(self.learning_rate),
            seed=_seed(self.random_state),
        )
        table = Table(columns[0], columns[1] if len(columns) == 2 else None, labels)
        splits = _splits(table, self.validation_fraction, recipe.seed)
        with nullcontext(self.out) if self.out is not None else scratch() as folder:
            directory = Path(folder)
            training = finetuning.EncoderTraining(
                task=task,
                splits=splits,
                source=require_encoder(resolve(self.model, allow_pickle=bool(self.allow_pickle))),
                recipe=recipe,
                vocab_size=_plain(self.vocab_size),
                cased=bool(self.cased),
                max_length=_plain(self.max_length),
            )
            prepare_directory(directory, training.source.path, training.settings, resume=False)
            manifest = training.run(directory)
            self.model_files_ = {
                name: (directory / name).read_bytes() for name in _FILES if (directory / name).exists()
            }
            self.predictor_ = artifacts.load_as(Predictor, directory)
        if manifest["status"] == "diverged":
            warnings.warn(f"the training diverged: {manifest['reason']}", ConvergenceWarning, stacklevel=3)

    def _answers(self, X: Any) -> list[dict[str, Any]]:
        check_is_fitted(self)
        columns = self._columns(X, reset=False)
        return self.predictor_.task.answers(self.predictor_.logits(*columns))


class TextClassifier(ClassifierMixin, _TextEstimator):  # type: ignore[misc]
    """One label out of several for each text or pair of texts.

    Attributes:
        classes_: the labels in order, [C], of the type they had in y.
    """

    def fit(self, X: Any, y: Any) -> Self:
        """Train on texts X [N] or pairs [N, 2] and their labels y [N]: strings, whole numbers or booleans.

        A training that diverges gives a ConvergenceWarning, and an estimator that is no good.

        Raises:
            ValueError: X or y is of another kind or they differ in length, y holds one class only, or a setting or the
                model cannot be used.
        """
        columns, y = self._examples(X, y, numeric=False)
        check_classification_targets(y)
        encoder = LabelEncoder()
        numbers = encoder.fit_transform(y)
        names = [str(label) for label in encoder.classes_.tolist()]
        self._train(Classification.from_labels(names, "y"), columns, [names[number] for number in numbers])
        self.classes_ = encoder.classes_
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable label of each text or pair, [N].

        Raises:
            NotFittedError: `fit` has not been called.
            ValueError: X is not of the kind that `fit` was given.
        """
        best = self.predict_proba(X).argmax(1)
        labels: NDArray[Any] = self.classes_[best]
        return labels

    def predict_proba(self, X: Any) -> Floats:
        """Probabilities of the classes in the order of `classes_`, [N, C].

        Raises:
            NotFittedError: `fit` has not been called.
            ValueError: X is not of the kind that `fit` was given.
        """
        answers = self._answers(X)
        return np.array([[answer["scores"][str(label)] for label in self.classes_.tolist()] for answer in answers])


class TextRegressor(RegressorMixin, _TextEstimator):  # type: ignore[misc]
    """One number for each text or pair of texts."""

    def fit(self, X: Any, y: Any) -> Self:
        """Train on texts X [N] or pairs [N, 2] and their values y [N].

        A training that diverges gives a ConvergenceWarning, and an estimator that is no good.

        Raises:
            ValueError: X or y is of another kind or they differ in length, all of y is one value, or a setting or the
                model cannot be used.
        """
        columns, y = self._examples(X, y, numeric=True)
        values = [str(value) for value in np.asarray(y, np.float64).tolist()]
        self._train(Regression.from_labels(values, "y"), columns, values)
        return self

    def predict(self, X: Any) -> Floats:
        """The value of each text or pair, [N].

        Raises:
            NotFittedError: `fit` has not been called.
            ValueError: X is not of the kind that `fit` was given.
        """
        return np.array([answer["score"] for answer in self._answers(X)])


def _splits(table: Table, fraction: float, seed: int) -> finetuning.LabelledSplits:
    """Hold out a share of the examples for validation."""
    if not 0 < fraction <= 0.5:
        raise BadInput(f"validation_fraction: must lie in (0, 0.5], not {fraction}")
    return finetuning.LabelledSplits.of({"train": table}, {"train": "fit(X, y)"}, {}, seed, fraction)


def _seed(random_state: int | np.random.RandomState | None) -> int:
    if isinstance(random_state, Integral):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def _plain(setting: Any) -> Any:
    """A number of numpy's, as grids of parameters hold them, as one of Python's, which JSON takes."""
    return setting.item() if isinstance(setting, np.generic) else setting


def _described(given: object, cells: NDArray[Any]) -> str:
    return f"one {type(given).__name__}" if cells.ndim == 0 else f"an array of shape {list(cells.shape)}"
