"""Scores by scikit-learn and scipy, each with its signature.

A value that is not defined, such as the correlation with predictions that are all equal, is 0.0.

Letters: N examples.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertram.errors import require
from bertram.tasks.task import Floats, Score

Labels = NDArray[np.int64]


def accuracy(targets: Labels, predicted: Labels) -> Score:
    """Share of label numbers [N] that are predicted [N]."""
    value = require("sklearn.metrics", "train").accuracy_score(targets, predicted)
    return _score("accuracy", value, "sklearn", len(targets))


def macro_f1(targets: Labels, predicted: Labels) -> Score:
    """Unweighted mean of the F1 of every label that stands in the targets [N] or the predictions [N]."""
    value = require("sklearn.metrics", "train").f1_score(targets, predicted, average="macro", zero_division=0.0)
    return _score("macro-f1", value, "sklearn", len(targets))


def matthews(targets: Labels, predicted: Labels) -> Score:
    """Matthews' correlation of label numbers [N] and predictions [N], for several labels by Gorodkin 2004."""
    compute = require("sklearn.metrics", "train").matthews_corrcoef
    value = compute(targets, predicted) if len(np.union1d(targets, predicted)) > 1 else 0.0
    return _score("matthews", value, "sklearn", len(targets))


def pearson(targets: Floats, predicted: Floats) -> Score:
    """Linear correlation of [N] and [N]."""
    value = _correlation(require("scipy.stats", "train").pearsonr, targets, predicted)
    return _score("pearson", value, "scipy", len(targets))


def spearman(targets: Floats, predicted: Floats) -> Score:
    """Correlation of the ranks of [N] and [N]."""
    value = _correlation(require("scipy.stats", "train").spearmanr, targets, predicted)
    return _score("spearman", value, "scipy", len(targets))


def root_mean_squared_error(targets: Floats, predicted: Floats) -> Score:
    """Root of the mean squared difference of [N] and [N], in their unit; less is better."""
    value = require("sklearn.metrics", "train").root_mean_squared_error(targets, predicted)
    return _score("rmse", value, "sklearn", len(targets))


def _correlation(function: Callable[[Floats, Floats], Any], x: Floats, y: Floats) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy's about predictions that are nearly equal
        value = float(function(x, y).statistic)
    return value if math.isfinite(value) else 0.0


def _score(metric: str, value: float, library: str, items: int) -> Score:
    version = require(library, "train").__version__
    return Score(metric, float(value), f"{metric}|{library}:{version}|n:{items}")
