"""How far a measured score may be from the true one, and whether two models differ.

Scores vary with the texts that happened to be tested and with the seeds that happened to be trained. Items are
resampled, the same ones for every run and every model (a bootstrap; Efron and Tibshirani 1993; Dror et al. 2018 on the
choice of tests for language tasks). A metric comes as a function of the means of its terms (`Task.score_of`), so a
resample of items is a product with their counts. Runs are too few to resample, a bootstrap of a few has no tails: so
their mean is taken to deviate as that of normal scores does, by Student's t, whose deviation is pooled over the
candidates as in an analysis of variance (Fisher 1925): two seeds of one candidate alone would say next to nothing.

With one seed of each nothing is known about seeds, and intervals speak of items only.

Letters: S runs (seeds) of one model, N items, K terms of the metric, R resamples.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bertram.comparison.results import Difference, ScoreInterval
from bertram.errors import require
from bertram.tasks.task import Floats, Logits, Targets, Task

RESAMPLES = 2_000
LEVEL = 0.95

_RESAMPLES_A_PAIR = 100
_SEED = 20180715
_ROUNDING = 1e-12
_UNLIKE = 0.01


@dataclass(frozen=True)
class SeedNoise:
    """How far scores of a candidate's runs deviate from each other, and by how many degrees of freedom that is known.

    0 of both where nothing is known, or a candidate has no seeds.
    """

    deviation: float = 0.0
    freedom: int = 0
    pool: int = 0
    """Which candidates share what is not known about it: 0 those that were pooled; others have a pool of their own."""

    @classmethod
    def of(cls, scores: Sequence[Floats], pool: int = 0) -> "SeedNoise":
        """Pooled over candidates with run scores [S] each."""
        freedom = sum(len(own) - 1 for own in scores)
        squares = sum(float(((own - own.mean()) ** 2).sum()) for own in scores)
        return cls(math.sqrt(squares / freedom), freedom, pool) if freedom else cls()

    def drawn(self, number: int, runs: int, stream: int) -> Floats:
        """Deviations of the mean of S runs, [R]: t times the deviation by √S. Two candidates take two streams."""
        if not self.freedom:
            return np.zeros(number)
        squares = np.random.default_rng([_SEED, 1, self.pool]).chisquare(self.freedom, size=number)
        normal = np.random.default_rng([_SEED, 2, stream]).normal(size=number)
        found: Floats = self.deviation / math.sqrt(runs) * normal / np.sqrt(squares / self.freedom)
        return found


NO_SEEDS = SeedNoise()


def seed_noise(scores: Mapping[str, Floats]) -> dict[str, SeedNoise]:
    """That of every candidate, from its run scores [S].

    Pooled, but for a candidate whose scores vary more than the others' by an F test at 1%, such as one with a seed that
    failed: it would hide what the others differ by, and is judged by its own. Where the others'
    runs score all the same, as happens with few rows, nothing is known of how much they vary, and all are pooled.
    """
    pooled = {name: own for name, own in scores.items() if len(own) > 1}
    apart: list[str] = []
    while len(pooled) > 1:
        widest = max(pooled, key=lambda name: pooled[name].var(ddof=1))
        rest = SeedNoise.of([own for name, own in pooled.items() if name != widest])
        variance, freedom = float(pooled[widest].var(ddof=1)), len(pooled[widest]) - 1
        ratio = variance / rest.deviation**2 if rest.deviation > _ROUNDING else 0.0
        if require("scipy.stats", "train").f.sf(ratio, freedom, rest.freedom) * len(pooled) >= _UNLIKE:
            break
        apart.append(widest)
        del pooled[widest]
    common = SeedNoise.of(list(pooled.values()))
    own = {name: SeedNoise.of([scores[name]], place) for place, name in enumerate(apart, 1)}
    return {name: own.get(name, common) for name in scores}


@dataclass(frozen=True)
class Resamples:
    """The scores of one model's runs [S], those of each run on each resample of the N items [R, S], and the terms.

    The terms are the means over the runs, [N, K].
    """

    scores: Floats
    drawn: Floats
    terms: Floats

    @classmethod
    def of(cls, task: Task, runs: Sequence[Logits], targets: Targets, number: int | None = None) -> "Resamples":
        """Of runs' logits, [N, L] each, against targets [N]. The items drawn depend on `number` and N alone."""
        terms = np.stack([task.terms(logits, targets) for logits in runs])
        return cls(task.score_of(terms.mean(1)), resampled(terms, task.score_of, number or RESAMPLES), terms.mean(0))

    def means(self, seeds: SeedNoise, stream: int = 0) -> Floats:
        """The mean score of other items and other seeds, [R]. `stream` numbers the draws of seeds."""
        number, runs = self.drawn.shape
        means: Floats = self.drawn.mean(1) + seeds.drawn(number, runs, stream)
        return means


def resampled(terms: Floats, score_of: Callable[[Floats], Floats], number: int = RESAMPLES) -> Floats:
    """Scores of the means of runs' terms [S, N, K] on each resample of the N items, [R, S]; N alone decides which."""
    items, size = np.random.default_rng(_SEED), terms.shape[1]
    drawn = np.empty((number, len(terms)))
    for resample in drawn:
        counts = np.bincount(items.integers(size, size=size), minlength=size)
        resample[:] = score_of(counts @ terms / size)
    return drawn


def interval(
    task: Task, runs: Sequence[Logits], targets: Targets, *, split: str, seeds: SeedNoise = NO_SEEDS
) -> ScoreInterval:
    """Mean over runs of the primary metric, with a 95% percentile interval over items and, where known of, seeds.

    `runs` holds one [N, L] for each seed; targets are [N]. Returns metric, mean, low, high and signature.
    """
    resamples = Resamples.of(task, runs, targets)
    low, high = np.clip(percentiles(resamples.means(seeds)), *task.bounds)
    over = f"items-seeds-t{seeds.freedom}" if seeds.freedom else "items"
    signed = task.scores(runs[0], targets)[0].signed(
        split=split, seeds=len(runs), interval=f"bootstrap-{LEVEL:.0%}-{over}", resamples=RESAMPLES
    )
    mean = float(resamples.scores.mean())
    return {"metric": task.metric, "mean": mean, "low": float(low), "high": float(high), "signature": signed.signature}


def paired_difference(
    a: Resamples, b: Resamples, seeds_a: SeedNoise = NO_SEEDS, seeds_b: SeedNoise = NO_SEEDS
) -> dict[str, float]:
    """The primary metric of a less that of b, its 95% interval, and the two-sided p of no difference.

    The paired bootstrap (Koehn 2004): each resample takes the same items for both. The p-value counts the resamples
    whose difference lies as far from the one measured as that lies from 0 (Efron and Tibshirani 1993, chapter 16), the
    measured one among them, so that it is never 0; nor is it below what a sign test can give of the items in which the
    two differ: if these go one way, they do so in every resample. Returns difference, low, high and p.
    """
    difference = float(a.scores.mean() - b.scores.mean())
    drawn = a.means(seeds_a, stream=0) - b.means(seeds_b, stream=1)
    low, high = percentiles(drawn)
    beyond = int((np.abs(drawn - difference) >= abs(difference) - _ROUNDING).sum())
    differing = int((a.terms != b.terms).any(1).sum())
    p = min(1.0, max((1 + beyond) / (1 + len(drawn)), 2.0 ** (1 - differing)))
    return {"difference": difference, "low": float(low), "high": float(high), "p": p}


def comparisons_of(
    task: Task, logits: Mapping[str, Sequence[Logits]], targets: Targets, seeds: Mapping[str, SeedNoise]
) -> list[Difference]:
    """Every pair of candidates: the difference of their scores with interval and p, Holm-corrected over all pairs.

    `logits` holds the runs of each by its name, [N, L] each; one without runs is not compared. The least p is 1 over
    the resamples and one: there are enough that it stays below 0.05 when it is corrected.
    """
    names = [name for name, runs in logits.items() if runs]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    number = max(RESAMPLES, _RESAMPLES_A_PAIR * len(pairs))
    resamples = {name: Resamples.of(task, logits[name], targets, number) for name in names}
    found = [paired_difference(resamples[a], resamples[b], seeds[a], seeds[b]) for a, b in pairs]
    widest = task.bounds[1] - task.bounds[0]
    corrected = holm([row["p"] for row in found])
    return [
        {
            "a": a,
            "b": b,
            "difference": row["difference"],
            "low": max(row["low"], -widest),
            "high": min(row["high"], widest),
            "p": row["p"],
            "p_holm": p_holm,
        }
        for (a, b), row, p_holm in zip(pairs, found, corrected, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, raised so that the chance of any false one stays at its level (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted = np.arange(len(order), 0, -1) * np.asarray(p_values, np.float64)[order]
    found = np.empty(len(order))
    found[order] = np.minimum(np.maximum.accumulate(adjusted), 1.0)
    return [float(value) for value in found]


def percentiles(drawn: Floats) -> Floats:
    """The ends of the 95% interval of scores on resamples [R], without what rounding makes."""
    found: Floats = np.quantile(drawn.round(12), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return found
