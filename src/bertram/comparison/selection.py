"""Which candidate to ship, and why; or that none fits, and by how much.

A candidate fits if it keeps within every limit that was stated. Of those that fit the smallest on disk is chosen. But
where no least score was stated, smallest alone would choose whatever learned nothing, so then a candidate must also
score no significantly worse than the best that fits.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from bertram.comparison.results import Candidate, Choice, Difference, Scored, diverged, scored
from bertram.errors import BadInput
from bertram.pages.figures import interval, megabytes, p_equals, quantity, score, several

BASELINE = "tf-idf"
"""The candidate that is no encoder: it has no configuration, no engine and no training curve."""
SIGNIFICANT = 0.05

_QUANTITY = re.compile(r"(\d+\.?\d*|\.\d+)\s*([a-zµ]+)", re.IGNORECASE | re.ASCII)
_MEGABYTES = {"kb": 1e-3, "mb": 1.0, "gb": 1e3, "kib": 2**10 / 1e6, "mib": 2**20 / 1e6, "gib": 2**30 / 1e6}
_MILLISECONDS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Miss:
    """A limit that a candidate does not keep: in words, and by which part of the limit it misses."""

    words: str
    part: float


@dataclass(frozen=True)
class Limits:
    """What the user can afford; None is no limit."""

    max_memory_mb: float | None = None
    """What the model may add to an idle process."""
    max_latency_ms: float | None = None
    """What 95 of 100 single texts may take at most."""
    min_score: float | None = None

    @classmethod
    def parse(cls, max_memory: str | None, max_latency: str | None, min_score: float | None) -> "Limits":
        """Read what the user typed: "64MB" or "1.5GB", "20ms" or "0.5s", 0.9.

        Raises:
            BadInput: a unit is missing or unknown, or a value is out of range.
        """
        if min_score is not None and not (isinstance(min_score, int | float) and 0 <= min_score <= 1):
            raise BadInput(f"--min-score {min_score!r:.40}: write a score from 0 to 1, such as 0.9")
        return cls(
            _parse("--max-memory", max_memory, _MEGABYTES, "64MB or 1.5GB"),
            _parse("--max-latency", max_latency, _MILLISECONDS, "20ms or 0.5s"),
            min_score,
        )

    def misses(self, row: Candidate) -> list[Miss]:
        """The limits that a candidate does not keep; one that has no score keeps none."""
        if row["score"] is None:
            return [Miss("every run diverged", math.inf)]
        bounds = [
            ("memory", row["inference_memory_mb"], self.max_memory_mb, "MB"),
            ("p95 latency", row["latency_ms"]["p95"], self.max_latency_ms, "ms"),
        ]
        found = [
            Miss(f"{what} {quantity(value)} {unit}, {quantity(value - limit)} {unit} over", value / limit - 1)
            for what, value, limit, unit in bounds
            if limit is not None and value > limit
        ]
        metric, mean = row["score"]["metric"], row["score"]["mean"]
        shipped = mean if row["engine"] is None else row["engine"]["score"]  # which may have lost some of it
        if self.min_score is not None and min(mean, shipped) < self.min_score:
            what, value = (metric, mean) if mean < self.min_score else (f"{metric} of its engine", shipped)
            short = self.min_score - value
            found.append(Miss(f"{what} {score(value)}, {score(short)} short", short / (abs(self.min_score) or 1.0)))
        return found

    def kept_by(self, row: Scored) -> str:
        """The stated limits and how a candidate that fits stands to them, in words."""
        words = []
        if self.max_memory_mb is not None:
            words.append(f"memory {quantity(row['inference_memory_mb'])} MB of {self.max_memory_mb:g}")
        if self.max_latency_ms is not None:
            words.append(f"p95 latency {quantity(row['latency_ms']['p95'])} ms of {self.max_latency_ms:g}")
        if self.min_score is not None:
            words.append(f"{row['score']['metric']} {score(row['score']['mean'])}, at least {self.min_score:g}")
        return "; ".join(words)


def choose(candidates: Sequence[Candidate], comparisons: Sequence[Difference], limits: Limits) -> Choice:
    """Choose the smallest candidate that fits, as the head of this file says.

    Its reason is a sentence or two with the figures.
    """
    misses = {row["model"]: limits.misses(row) for row in candidates}
    fits = scored(row for row in candidates if not misses[row["model"]])
    chosen = None
    if not fits:
        reason = _none_fits(candidates, misses)
    elif limits.min_score is not None:
        chosen = min(fits, key=_size)
        reason = _smallest_fits(chosen, fits, limits)
    else:
        best = max(fits, key=lambda row: (row["score"]["mean"], -row["bytes_on_disk"]))
        chosen = min((row for row in fits if not _is_worse(row, best, comparisons)), key=_size)
        reason = _as_good_as_the_best(chosen, best, fits, comparisons)
        if 1 < len(fits) < len(candidates):
            reason = f"Of the {len(fits)} candidates that fit, {reason}"
        if kept := limits.kept_by(chosen):
            reason += f" It keeps within the limits: {kept}."
    if chosen is not None:
        reason += _of_its_runs(chosen)
    return {
        "model": None if chosen is None else chosen["model"],
        "reason": reason,
        "limits": asdict(limits),
        "fits": [row["model"] for row in fits],
        "missed": {model: [miss.words for miss in found] for model, found in misses.items() if found},
    }


def difference_of(a: str, b: str, comparisons: Sequence[Difference]) -> Difference:
    """The comparison of two models, turned so that its difference is the score of `a` less that of `b`."""
    for row in comparisons:
        if (row["a"], row["b"]) == (a, b):
            return row
        if (row["a"], row["b"]) == (b, a):
            return {**row, "a": a, "b": b, "difference": -row["difference"], "low": -row["high"], "high": -row["low"]}
    raise KeyError(f"{a} and {b} were not compared")


def _size(row: Scored) -> tuple[int, float]:
    return row["bytes_on_disk"], -row["score"]["mean"]


def _is_worse(row: Scored, best: Scored, comparisons: Sequence[Difference]) -> bool:
    if row is best:
        return False
    found = difference_of(row["model"], best["model"], comparisons)
    return bool(found["difference"] < 0 and found["p_holm"] < SIGNIFICANT)


def _none_fits(candidates: Sequence[Candidate], misses: Mapping[str, list[Miss]]) -> str:
    names = [row["model"] for row in scored(candidates)]
    if not names:
        return "No candidate fits: every run diverged."
    nearest = min(names, key=lambda model: max(miss.part for miss in misses[model]))
    by = "; ".join(miss.words for miss in misses[nearest])
    return f"No candidate fits. {nearest} comes nearest: {by}."


def _smallest_fits(chosen: Scored, fits: Sequence[Scored], limits: Limits) -> str:
    size, low = megabytes(chosen["bytes_on_disk"]), chosen["score"]["low"]
    reason = f"{chosen['model']} is {_rank(fits)}, {size} on disk: {limits.kept_by(chosen)}."
    if limits.min_score is not None and low < limits.min_score:
        reason += f" But the 95% interval of its {chosen['score']['metric']} reaches down to {score(low)}."
    return reason


def _rank(fits: Sequence[Scored]) -> str:
    return "the only candidate that fits" if len(fits) == 1 else f"the smallest of {len(fits)} candidates that fit"


def _as_good_as_the_best(
    chosen: Scored, best: Scored, fits: Sequence[Scored], comparisons: Sequence[Difference]
) -> str:
    name, size = chosen["model"], megabytes(chosen["bytes_on_disk"])
    metric, mean = chosen["score"]["metric"], score(chosen["score"]["mean"])
    if len(fits) == 1:
        return f"{name} is the only candidate that fits: {metric} {mean}, {size} on disk."
    if chosen is not best:
        found = difference_of(name, best["model"], comparisons)
        return (
            f"{name}, {size} on disk, is the smallest whose {metric} is not significantly below the best: "
            f"{mean} against {score(best['score']['mean'])} of {best['model']}, a difference of "
            f"{score(found['difference'])} (95% interval {interval(found['low'], found['high'])}, "
            f"{p_equals(found['p_holm'])} by Holm's correction for {several(len(comparisons), 'comparison')}). "
            "To rule such a loss out, state a least score."
        )
    smaller = sum(_size(row) < _size(chosen) for row in fits)
    if not smaller:
        return f"{name} is the smallest candidate, {size} on disk, and none scores better: {metric} {mean}."
    worse = {1: "the one smaller candidate is", 2: "both smaller candidates are"}.get(
        smaller, "all smaller candidates are"
    )
    return (
        f"{name} scores best, {metric} {mean} with {size} on disk; {worse} significantly worse "
        f"(p < {SIGNIFICANT:g} by Holm's correction)."
    )


def _of_its_runs(chosen: Scored) -> str:
    """What its mean score does not say: of runs that diverged, and of an engine that lost some of its model's."""
    words, runs = "", chosen["runs"]
    if lost := len(diverged(chosen)):
        words += f" {lost} of its {len(runs)} runs diverged."
    model = next(run["score"] for run in runs if run["directory"] == chosen["directory"])
    ships = None if chosen["engine"] is None else chosen["engine"]["score"]
    if ships is not None and model is not None and ships < model and score(ships) != score(model):
        words += f" Its engine, which ships, scores {score(ships)}, the model {score(model)}."
    return words


def _parse(option: str, text: str | None, units: Mapping[str, float], examples: str) -> float | None:
    if text is None:
        return None
    match = _QUANTITY.fullmatch(text.strip()) if isinstance(text, str) else None
    value = float(match[1]) * units.get(match[2].lower(), 0.0) if match else 0.0
    if not 0 < value < math.inf:
        raise BadInput(f"{option} {text!r:.40}: write a number above 0 with its unit, such as {examples}")
    return value
