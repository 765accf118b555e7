"""What answering costs: latency, throughput and memory of one model in this process."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bertram.baseline.linear import Baseline, is_baseline
from bertram.comparison.results import Answering, Latency
from bertram.memory import current_memory_mb, peak_memory_mb
from bertram.text.table import Table

_WARM_UP, _SINGLE_TEXTS = 5, 40
_ROUNDS = 5  # of single texts: a machine that is busy for a while disturbs some of them, and it shows

Answer = Callable[[list[str], list[str] | None], Any]


def measure(model: Path, sample: Table, seconds: float) -> Answering:
    """Load `model` and answer a sample of the user's own texts, one at a time, and all together for so many `seconds`.

    Memory is what the model adds to an idle process that has its runtime imported: weights and working memory at the
    peak. The absolute peak stands beside it. Times are wall-clock: milliseconds for one text, tokens a second for all.
    Latency is that of the middle of several rounds over the same texts, which have all lengths of the sample; "low" and
    "high" are the least and greatest p95 of a round.

    Raises:
        BadInput: the model is damaged.
    """
    answer, idle, lengths = _baseline(model) if is_baseline(model) else _transformer(model, sample)
    singles = [sample.select([row]).inputs for row in _of_all_lengths(sample)]
    for one in singles[-_WARM_UP:]:
        answer(*one)
    rounds: list[list[float]] = []
    passes: list[float] = []
    while len(rounds) < _ROUNDS:
        rounds.append([_seconds(answer, one) * 1e3 for one in singles])
        while sum(passes) < seconds * len(rounds) / _ROUNDS:  # in between, so that the rounds lie apart
            passes.append(_seconds(answer, sample.inputs))
    a_pass = sum(passes) / len(passes)
    return {
        "latency_ms": _latency(rounds),
        "texts_per_second": round(len(sample) / a_pass, 1),
        "tokens_per_second": None if lengths is None else round(sum(lengths) / a_pass, 1),
        "mean_tokens": None if lengths is None else round(sum(lengths) / len(lengths), 1),
        "inference_memory_mb": round(max(peak_memory_mb() - idle, 0.0), 1),
        "inference_peak_mb": round(peak_memory_mb(), 1),
    }


def _transformer(model: Path, sample: Table) -> tuple[Answer, float, list[int] | None]:
    """What answers, the memory of the idle process in MB, and the tokens of each text that is read by itself."""
    from bertram.artifacts import load_predictor

    if model.is_dir():  # not an engine: torch, all of it before the idle reading
        import bertram.formats.huggingface
        import bertram.training.torch_runner  # noqa: F401

    idle = current_memory_mb()
    predictor = load_predictor(model)
    return predictor.logits, idle, predictor.lengths(sample).tolist()


def _baseline(model: Path) -> tuple[Answer, float, list[int] | None]:
    import safetensors.numpy  # noqa: F401
    import scipy.sparse  # noqa: F401
    import sklearn.feature_extraction.text
    import sklearn.linear_model  # noqa: F401

    idle = current_memory_mb()
    return Baseline.load(model).logits, idle, None


def _of_all_lengths(sample: Table) -> list[int]:
    """Rows at even steps from the shortest text to the longest."""
    places = np.linspace(0, len(sample) - 1, min(_SINGLE_TEXTS, len(sample))).round().astype(int)
    rows: list[int] = np.argsort(sample.lengths, kind="stable")[places].tolist()
    return rows


def _latency(rounds: list[list[float]]) -> Latency:
    """p50 and p95 of the round whose p95 is the middle one, and the "low" and "high" p95 of all; milliseconds."""
    by_p95 = sorted(np.percentile(rounds, [50, 95], axis=1).T.tolist(), key=lambda percentiles: percentiles[1])
    (_, low), (p50, p95), (_, high) = by_p95[0], by_p95[len(by_p95) // 2], by_p95[-1]
    return {"p50": round(p50, 3), "p95": round(p95, 3), "low": round(low, 3), "high": round(high, 3)}


def _seconds(answer: Answer, one: tuple[list[str], list[str] | None]) -> float:
    began = time.perf_counter()
    answer(*one)
    return time.perf_counter() - began
