"""results.json and training curves of comparisons that nobody ran: real statistics of simulated answers."""

import math
from dataclasses import asdict, dataclass

import numpy as np

from bertram.comparison.differences import run_scores
from bertram.comparison.selection import BASELINE, Limits, choose
from bertram.comparison.statistics import NO_SEEDS, comparisons_of, interval, seed_noise
from bertram.config import PRESETS
from bertram.inspection import describe
from bertram.tasks.classification import Classification
from bertram.tasks.regression import Regression
from bertram.training.recipe import Recipe

ITEMS = 300


@dataclass(frozen=True)
class Fake:
    """A candidate: the preset that its costs come from (None: the baseline), how good and how slow it is.

    `slowest` is the p95 of the slowest round to that of the middle one, `agreement` what its engine keeps in int8; None
    is fp32.
    """

    name: str
    preset: str | None
    skill: float
    latency: float
    diverged: tuple[int, ...] = ()
    slowest: float = 1.1
    agreement: float | None = 0.996


USUAL = (
    Fake("tf-idf", None, 0.803, 0.31),
    Fake("bert-tiny", "bert-tiny", 0.822, 1.94),
    Fake("albert-mini", "albert-mini", 0.868, 7.1),
    Fake("bert-mini", "bert-mini", 0.876, 6.8),
    Fake("bert-small", "bert-small", 0.893, 21.4),
)


def comparison(fakes=USUAL, *, seeds=3, task=None, limits=None):
    """(results, curves) as `compare` has them."""
    task = task or Classification(("negative", "positive"))
    logits = {fake.name: _answers(fake, seeds, task) for fake in fakes}
    targets = _targets(task)
    candidates = [_row(fake, seeds, task, logits[fake.name], targets) for fake in fakes]
    noise = seed_noise(run_scores(candidates)) | {BASELINE: NO_SEEDS}
    for row in candidates:
        name = row["model"]
        row["score"] = interval(task, logits[name], targets, split="test", seeds=noise[name]) if logits[name] else None
    results = {
        "task": task.to_dict(),
        "data": {
            "train": "reviews.csv",
            "validation": "a tenth of the training data, drawn with seed 0",
            "test": "reviews-test.csv",
            "rows": {"train": 18_000, "validation": 2_000, "test": ITEMS},
            "split": "test",
            "labels": {"negative": 8_951, "positive": 9_049} if isinstance(task, Classification) else None,
        },
        "machine": {"python": "3.12.3", "cpu": "Example CPU @ 2.10GHz", "threads": 2, "libraries": {"torch": "2.11.0"}},
        "recipe": asdict(Recipe()),
        "seeds": seeds,
        "candidates": candidates,
        "constant_score": 0.5 if isinstance(task, Classification) else 0.0,
        "comparisons": comparisons_of(task, logits, targets, noise),
    }
    results["choice"] = choose(candidates, results["comparisons"], limits or Limits())
    curves = {f.name: {s: _lines(f, s) for s in range(seeds)} for f in fakes if f.preset is not None}
    return results, curves


def _targets(task):
    if isinstance(task, Regression):
        return np.random.default_rng(0).normal(size=ITEMS).astype(np.float32)
    return np.ones(ITEMS, np.int64)


def _answers(fake, seeds, task):
    """Logits of the runs that finished; candidates find the same items hard."""
    hard = np.random.default_rng(1).random(ITEMS)
    found = []
    for seed in range(1 if fake.preset is None else seeds):
        if seed in fake.diverged:
            continue
        noise = np.random.default_rng([seed, *fake.name.encode()]).normal(size=ITEMS)
        if isinstance(task, Regression):
            error = math.sqrt(1 / fake.skill**2 - 1)
            found.append((_targets(task) + error * noise)[:, None].astype(np.float32))
        else:
            right = (hard + 0.06 * noise < fake.skill).astype(float)
            found.append(np.stack([1 - right, right], axis=-1))
    return found


def _row(fake, seeds, task, logits, targets):
    scores = iter([task.scores(values, targets)[0].value for values in logits])
    runs = [
        {
            "seed": seed,
            "status": "diverged" if seed in fake.diverged else "finished",
            "reason": f"the loss was not finite at step {40 + seed}" if seed in fake.diverged else "",
            "score": None if seed in fake.diverged else next(scores),
            "directory": f"runs/{fake.name}-seed-{seed}",
            "steps": 40 + seed if seed in fake.diverged else 1_689,
            "seconds": 61.3 * fake.latency,
            "training_tokens_per_second": 9_800.0,
            "training_memory_mb": 900.0,
        }
        for seed in range(1 if fake.preset is None else seeds)
    ]
    costs = {"parameters": 182_340, "unique_parameters": 182_340, "flops_per_token": None}
    if fake.preset is not None:
        costs = describe(PRESETS[fake.preset], 60)
    engine = {"precision": "fp32", "agreement": 1.0, "score": 0.75}
    if fake.agreement is not None:
        engine |= {"precision": "int8", "agreement": fake.agreement}
    unique = costs["unique_parameters"]
    return {
        "model": fake.name,
        "directory": next((run["directory"] for run in runs if run["status"] == "finished"), runs[0]["directory"]),
        "engine": engine if fake.preset is not None and logits else None,
        **{name: costs[name] for name in ("parameters", "unique_parameters", "flops_per_token")},
        "bytes_on_disk": 4 * unique + 700_000,
        "training_memory_mb": None if fake.preset is None else 520 + unique * 16 / 1e6,
        "inference_memory_mb": 9.4 + 4.4 * unique / 1e6,
        "inference_peak_mb": 320.0 + 4.4 * unique / 1e6,
        "latency_ms": {
            "p50": fake.latency * 0.7,
            "p95": fake.latency,
            "low": fake.latency * 0.95,
            "high": fake.latency * fake.slowest,
        },
        "texts_per_second": 1_900 / fake.latency,
        "tokens_per_second": None if fake.preset is None else 98_000 / fake.latency,
        "mean_tokens": None if fake.preset is None else 59.6,
        "runs": runs,
    }


def _lines(fake, seed):
    """metrics.jsonl of one run."""
    rng = np.random.default_rng([seed, *fake.name.encode()])
    last = 40 + seed if seed in fake.diverged else 1_689
    lines = []
    for step in range(10, last + 1, 10):
        rise = 1 - math.exp(-step / 400)
        loss = 0.69 - (0.69 - 0.1 / fake.skill) * 0.9 * rise + 0.05 * rng.normal()
        if seed in fake.diverged:
            loss = None if step == last - last % 10 else loss * 1.8 ** (step / 10)
        lines.append({"step": step, "tokens": step * 1_900, "seconds": step * 0.2, "loss": loss})
    for step in range(169, last + 1, 169):
        validation = fake.skill - 0.3 * math.exp(-step / 250) + 0.004 * rng.normal()
        lines.append({"step": step, "tokens": step * 1_900, "seconds": step * 0.2, "validation": validation})
    return sorted(lines, key=lambda line: line["step"])
