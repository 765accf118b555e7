"""What differed between the candidates, and between rounds of measuring one, in plain words."""

from collections.abc import Sequence

import numpy as np

from bertram.checking.page import NOTABLE
from bertram.comparison.results import Candidate, Results, Scored, Trained, diverged, finished, scored
from bertram.comparison.selection import BASELINE, SIGNIFICANT, difference_of
from bertram.comparison.statistics import seed_noise
from bertram.pages.figures import count, interval, megabytes, p_equals, quantity, relative, score, several
from bertram.tasks.registry import task_from_dict
from bertram.tasks.task import Floats

_LITTLE_KNOWN = 4  # degrees of freedom
_FEW = 30  # judged rows below which a difference says little
_SAME = 0.05  # costs that are nearer than this part are called the same
_UNSTEADY = 1.5  # the slowest round of measuring to the fastest


def paragraphs(results: Results) -> list[tuple[str, str]]:
    """The chosen candidate, or the best if none fits, set against each of the others: (whom against whom, how)."""
    rows = scored(results["candidates"])
    if not rows:
        return []
    named = results["choice"]["model"]
    first = next((row for row in rows if row["model"] == named), max(rows, key=lambda row: row["score"]["mean"]))
    others = sorted((row for row in rows if row is not first), key=lambda row: -row["score"]["mean"])
    return [
        (
            f"{first['model']} against {other['model']}.",
            " ".join(
                [
                    _judged(first, other, results),
                    _stored(first, other),
                    *_computed(first, other),
                    _answered(first, other),
                ]
            ),
        )
        for other in others
    ]


def caveats(results: Results) -> list[str]:
    """What to know before one believes the figures, a sentence or two each."""
    found, split = [], results["data"]["split"]
    if (rows := results["data"]["rows"][split]) < _FEW:
        found.append(f"Only {several(rows, 'row')} {'was' if rows == 1 else 'were'} judged: another sample may differ.")
    if split == "validation":
        found.append("Scores are on the validation data, which chose the checkpoints too and so flatters; give --test.")
    candidates = results["candidates"]
    return found + _guessing(results) + _seeds(candidates) + _alike(candidates) + _cut(results) + _unsteady(candidates)


def run_scores(candidates: Sequence[Trained]) -> dict[str, Floats]:
    """The scores of every encoder's runs, by its name, of which one or more finished."""
    scores = {
        row["model"]: np.array([run["score"] for run in finished(row)])
        for row in candidates
        if row["model"] != BASELINE
    }
    return {name: own for name, own in scores.items() if len(own)}


def _guessing(results: Results) -> list[str]:
    """Whether a candidate may be no better than one that reads nothing."""
    least = results["constant_score"]
    names = [row["model"] for row in scored(results["candidates"]) if row["score"]["low"] <= least]
    if not names:
        return []
    told = (
        f"One answer to every {'word' if task_from_dict(results['task']).per_word else 'text'} can score {score(least)}"
    )
    return [
        f"{told}, and {' and '.join(names)} cannot be told from that: try "
        f"more texts{'' if names == [BASELINE] else ', a higher --learning-rate or more --epochs'}."
    ]


def _seeds(candidates: Sequence[Candidate]) -> list[str]:
    """Whether a score is that of some of a candidate's runs, and what is known of how seeds vary."""
    found, noise = [], seed_noise(run_scores(candidates))
    known = max((own.freedom for own in noise.values()), default=0)
    if noise and not known:
        found.append("One run a model: how far another seed would lie from it is not known, and in no interval.")
    elif 0 < known < _LITTLE_KNOWN:
        found.append("With so few seeds, their spread is hardly known: real differences may not show.")
    found += [
        f"{name} varies more from seed to seed than the others, so it is judged by its own seeds alone."
        for name, own in noise.items()
        if own.pool
    ]
    for row in candidates:
        lost = len(diverged(row))
        if 0 < lost < len(row["runs"]):
            found.append(f"{row['model']}: {lost} of {len(row['runs'])} runs diverged; its score is of the others.")
    return found


def _alike(candidates: Sequence[Candidate]) -> list[str]:
    """Whether there is a score that no other draw of the same texts would change."""
    names = [row["model"] for row in scored(candidates) if row["score"]["low"] == row["score"]["high"]]
    told = "any draw of these texts scores the same, so the interval has no width and says nothing of other texts"
    return [f"{' and '.join(names)}: {told}."] if names else []


def _cut(results: Results) -> list[str]:
    """Whether a candidate read less of the training texts than it was given."""
    rows = results["data"]["rows"]["train"] * (2 if task_from_dict(results["task"]).apart else 1)
    return [
        f"{row['model']} read only the first {row['max_length']:,} tokens of {row['truncated_texts']:,} of the "
        f"{rows:,} training texts."
        for row in results["candidates"]
        if row.get("truncated_texts", 0) >= NOTABLE * rows
    ]


def _unsteady(candidates: Sequence[Candidate]) -> list[str]:
    """Whether latencies changed from round to round."""
    spans = [
        f"{row['model']} {quantity(latency['low'])} to {quantity(latency['high'])} ms"
        for row in candidates
        if (latency := row["latency_ms"])["high"] > _UNSTEADY * latency["low"]
    ]
    if not spans:
        return []
    return [
        f"The machine seems to have been busy while latency was measured; p95 by round: {', '.join(spans)}. Repeat the "
        "command to measure again; finished trainings are not repeated."
    ]


def _judged(a: Scored, b: Scored, results: Results) -> str:
    found = difference_of(a["model"], b["model"], results["comparisons"])
    metric, value = a["score"]["metric"], found["difference"]
    apart, means = score(abs(value)), f"{score(a['score']['mean'])} against {score(b['score']['mean'])}"
    verdict = "a significant difference" if found["p_holm"] < SIGNIFICANT else "which may be chance"
    way = f"{apart} {'higher' if value > 0 else 'lower'} ({means}), {verdict}"
    within = f"95% interval {interval(found['low'], found['high'])}, {p_equals(found['p_holm'])} by Holm's correction"
    return f"Its {metric} is {f'the same ({means})' if apart == score(0.0) else way} ({within})."


def _stored(a: Scored, b: Scored) -> str:
    parameters = relative(a["unique_parameters"], b["unique_parameters"])
    size = relative(a["bytes_on_disk"], b["bytes_on_disk"])
    return (
        f"It stores {count(a['unique_parameters'])} parameters against {count(b['unique_parameters'])} ({parameters}), "
        f"in {megabytes(a['bytes_on_disk'])} against {megabytes(b['bytes_on_disk'])} ({size})."
    )


def _computed(a: Scored, b: Scored) -> list[str]:
    """Arithmetic, where both count it; equal arithmetic in unequal storage is what sharing does, so that is told."""
    mine, theirs = a["flops_per_token"], b["flops_per_token"]
    if mine is None or theirs is None:
        return []
    figures = f"{quantity(mine / 1e6)} against {quantity(theirs / 1e6)} MFLOP per token"
    if abs(mine / theirs - 1) >= _SAME:
        return [f"It computes {figures} ({relative(mine, theirs)})."]
    shares = [row for row in (a, b) if row["unique_parameters"] < row["parameters"]]
    why = "; sharing parameters saves storage, not computation" if len(shares) == 1 else ""
    return [f"Both compute about the same, {figures}{why}."]


def _answered(a: Scored, b: Scored) -> str:
    mine, theirs = a["latency_ms"]["p95"], b["latency_ms"]["p95"]
    memory, other_memory = a["inference_memory_mb"], b["inference_memory_mb"]
    took = f" ({relative(mine, theirs)})" if mine and theirs else ""
    held = f" ({relative(memory, other_memory)})" if memory and other_memory else ""
    return (
        f"95 of 100 texts are answered within {quantity(mine)} ms each against {quantity(theirs)} ms{took}, in "
        f"{quantity(memory)} MB of memory against {quantity(other_memory)} MB{held}."
    )
