"""How far a measured score may be from the true one, and whether two models differ.

Scores vary with the texts that happened to be tested and with the seeds that happened to be trained, so both are
resampled: first the runs, then the items, the same items for every run and every model (a bootstrap of two levels;
Efron and Tibshirani 1993; Dror et al. 2018 on the choice of tests for language tasks). A metric comes as a function of
the means of its terms (`Task.score_of`), so a resample of items is a product with their counts.

With one run nothing is known about seeds, and intervals speak of items only. With few runs intervals are still somewhat
narrow, as those of every bootstrap are.

Letters: S runs (seeds) of one model, N items, K terms of the metric, R resamples.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertram.tasks.task import Floats, Logits, Targets, Task

RESAMPLES = 2_000
LEVEL = 0.95

_RESAMPLES_A_PAIR = 100
_SEED = 20180715
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Resamples:
    """The scores of one model's runs [S], and those of each run on each resample of the items [R, S]."""

    scores: Floats
    drawn: Floats

    @classmethod
    def of(cls, task: Task, runs: Sequence[Logits], targets: Targets, number: int | None = None) -> "Resamples":
        """Of runs' logits, [N, L] each, against targets [N]. The items drawn depend on `number` and N alone."""
        terms = np.stack([task.terms(logits, targets) for logits in runs])  # [S, N, K]
        items = np.random.default_rng(_SEED)
        drawn = np.empty((number or RESAMPLES, len(runs)))
        for resample in drawn:
            counts = np.bincount(items.integers(len(targets), size=len(targets)), minlength=len(targets))
            resample[:] = task.score_of(counts @ terms / len(targets))
        return cls(task.score_of(terms.mean(1)), drawn)

    def means(self, stream: int = 0) -> Floats:
        """The mean score of each resample of items and runs, [R]. `stream` numbers the draws of runs."""
        number, runs = self.drawn.shape
        means: Floats = (self.drawn * _run_weights(number, runs, stream)).sum(1)
        return means


def interval(task: Task, runs: Sequence[Logits], targets: Targets, *, split: str) -> dict[str, Any]:
    """Mean over runs of the primary metric, with a 95% percentile interval over items and, of several runs, seeds.

    `runs` holds one [N, L] for each seed; targets are [N]. Returns metric, mean, low, high and signature.
    """
    resamples = Resamples.of(task, runs, targets)
    low, high = np.clip(_percentiles(resamples.means()), *task.bounds)  # weights of runs may lie below 0
    over = "items-seeds" if len(runs) > 1 else "items"
    signed = task.scores(runs[0], targets)[0].signed(
        split=split, seeds=len(runs), interval=f"bootstrap-{LEVEL:.0%}-{over}", resamples=RESAMPLES
    )
    mean = float(resamples.scores.mean())
    row = {"metric": task.metric, "mean": mean, "low": float(low), "high": float(high)}
    return row | {"signature": signed.signature}


def paired_difference(a: Resamples, b: Resamples) -> dict[str, float]:
    """The primary metric of a less that of b, its 95% interval, and the two-sided p of no difference.

    The paired bootstrap (Koehn 2004): each resample takes the same items for both. The p-value counts the resamples
    whose difference lies as far from the one measured as that lies from 0 (Efron and Tibshirani 1993, chapter 16), the
    measured one among them, so that it is never 0. Returns difference, low, high and p.
    """
    difference, resampled = float(a.scores.mean() - b.scores.mean()), a.means(stream=0) - b.means(stream=1)
    low, high = _percentiles(resampled)
    beyond = int((np.abs(resampled - difference) >= abs(difference) - _ROUNDING).sum())
    return {"difference": difference, "low": float(low), "high": float(high), "p": (1 + beyond) / (1 + len(resampled))}


def comparisons_of(task: Task, logits: Mapping[str, Sequence[Logits]], targets: Targets) -> list[dict[str, Any]]:
    """Every pair of candidates: the difference of their scores with interval and p, Holm-corrected over all pairs.

    `logits` holds the runs of each by its name, [N, L] each; one without runs is not compared. The least p is 1 over
    the resamples and one: there are enough that it stays below 0.05 when it is corrected.
    """
    names = [name for name, runs in logits.items() if runs]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    number = max(RESAMPLES, _RESAMPLES_A_PAIR * len(pairs))
    resamples = {name: Resamples.of(task, logits[name], targets, number) for name in names}
    found = [paired_difference(resamples[a], resamples[b]) for a, b in pairs]
    corrected = holm([row["p"] for row in found])
    return [{"a": a, "b": b, **row, "p_holm": p} for (a, b), row, p in zip(pairs, found, corrected, strict=True)]


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, raised so that the chance of any false one stays at its level (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.arange(len(order), 0, -1) * np.asarray(p_values, np.float64)[order]
    found = np.empty(len(order))
    found[order] = np.minimum(np.maximum.accumulate(adjusted), 1.0)
    return [float(value) for value in found]


def _run_weights(number: int, runs: int, stream: int) -> Floats:
    """Weights of S runs drawn S times with replacement, [R, S]."""
    draws = np.random.default_rng([_SEED, runs, stream]).multinomial(runs, np.full(runs, 1 / runs), size=number)
    # The mean of such draws varies only (S - 1)/S as much as that of S new runs; S is small, so it is put right
    # (Rao and Wu 1988).
    scale = np.sqrt(runs / (runs - 1)) if runs > 1 else 0.0
    weights: Floats = 1 / runs + scale * (draws - 1) / runs
    return weights


def _percentiles(resampled: Floats) -> Floats:
    """The ends of the interval; weights that add up to 1 but for rounding make no difference."""
    found: Floats = np.quantile(resampled.round(12), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return found
