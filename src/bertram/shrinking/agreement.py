"""How nearly a student says what its teacher does, on texts held out.

Letters: B texts, H hidden width, M masked tokens, K terms of a score.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from bertram.comparison.statistics import percentiles, resampled
from bertram.inference.predictor import cosines
from bertram.interruption import check_stop
from bertram.models.heads import Head, Model
from bertram.models.tensors import targets_of, to_tensors
from bertram.shrinking.distillation import Answers, Distillation, DistillationFeed
from bertram.tasks.similarity import Similarity
from bertram.training.feed import first_epoch


@dataclass(frozen=True)
class Predictions:
    """What a model makes of texts."""

    vectors: NDArray[np.float32]
    """[B, H]."""
    heads: dict[str, NDArray[Any]]
    """Of each head: the numbers of the most probable labels or tokens, int64 [B] or [M], or a regression's values."""

    @classmethod
    def of(cls, model: Model, answers: Answers) -> "Predictions":
        """What a model's answers come to."""
        heads = {name: cast(Head, model.heads[name]).predictions(logits) for name, logits in answers.logits.items()}
        return cls(answers.vectors.cpu().numpy(), {name: found.cpu().numpy() for name, found in heads.items()})

    @classmethod
    def joined(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """Those of several batches, one after the other."""
        names = dict.fromkeys(name for part in parts for name in part.heads)  # a batch may have no token to mask
        heads = {name: np.concatenate([part.heads[name] for part in parts if name in part.heads]) for name in names}
        return cls(np.concatenate([part.vectors for part in parts]), heads)


@dataclass(frozen=True)
class SideBySide:
    """A student beside its teacher: the mean of each loss, and what both predict."""

    losses: dict[str, float]
    student: Predictions
    teacher: Predictions


@torch.inference_mode()
def side_by_side(distillation: Distillation, feed: DistillationFeed, device: torch.device) -> SideBySide:
    """Student and teacher over one epoch of `feed`."""
    sums, counts = defaultdict[str, float](float), Counter[str]()
    own: list[Predictions] = []
    taught: list[Predictions] = []
    distillation.eval()
    for examples in first_epoch(feed):
        check_stop()
        inputs, targets = to_tensors(examples.inputs, device), targets_of(examples, device)
        expected = distillation.teacher.answers(inputs, targets, distillation.precision)
        found = distillation.answers(inputs, targets)
        own.append(Predictions.of(distillation.student, found))
        taught.append(Predictions.of(distillation.student, expected))
        for name, loss in distillation.compared(found, expected, targets).items():
            size = len(targets[name].values)
            counts[name] += size
            sums[name] += float(loss) * size
    losses = {name: loss / counts[name] for name, loss in sums.items()}
    return SideBySide(losses, Predictions.joined(own), Predictions.joined(taught))


def agreement(student: Predictions, teacher: Predictions) -> dict[str, dict[str, Any]]:
    """How nearly a student says what its teacher does, each with its 95% interval by the bootstrap over texts.

    Of a masked language model's tokens the bootstrap is over tokens, as if those of a text told nothing of one another.

    "vectors": the mean cosine of both vectors of a text; "similarities": Spearman's correlation of both cosines of
    pairs of texts; of a head the share of the same labels or tokens, of a regression Spearman's correlation.
    """
    vectors = cosines(student.vectors, teacher.vectors)
    half = len(vectors) // 2
    pairs = [cosines(side.vectors[:half], side.vectors[half : 2 * half]) for side in (student, teacher)]
    found = {"vectors": _share(vectors), "similarities": _correlation(*pairs)}
    for name, own in student.heads.items():
        theirs = teacher.heads[name]
        values = np.issubdtype(own.dtype, np.floating)
        found[name] = _correlation(own, theirs) if values else _share(own == theirs)
    return found


def _share(each: NDArray[Any]) -> dict[str, Any]:
    return _interval(each[:, None], lambda means: means[..., 0])


def _correlation(own: NDArray[np.float32], theirs: NDArray[np.float32]) -> dict[str, Any]:
    task = Similarity()
    return _interval(task.terms(own[:, None], theirs), task.score_of)


def _interval(terms: NDArray[Any], score_of: Callable[[NDArray[Any]], NDArray[Any]]) -> dict[str, Any]:
    """A score of the means of terms [B, K], with its interval."""
    low, high = percentiles(resampled(terms[None].astype(np.float64), score_of)[:, 0])
    value = score_of(terms.mean(0, np.float64))
    return {"value": float(value), "low": float(low), "high": float(high), "n": len(terms)}
