"""What answering costs: latency, throughput and memory of one model in this process."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bertram.memory import current_memory_mb, peak_memory_mb
from bertram.text.records import Table

_WARM_UP, _SINGLE_TEXTS, _SECONDS = 5, 100, 2.0

Answer = Callable[[list[str], list[str] | None], Any]


def measure(model: Path, sample: Table) -> dict[str, Any]:
    """Load `model` and answer a sample of the user's own texts, one at a time and then together.

    Memory is what the model adds to an idle process that has its runtime imported: weights and working memory at the
    peak. The absolute peak stands beside it. Times are wall-clock: milliseconds for one text, tokens a second for all.

    Raises:
        BadInput: the model is damaged.
    """
    answer, idle, tokens = _transformer(model, sample) if (model / "config.json").exists() else _baseline(model)
    singles = [sample.select([row]).inputs for row in range(min(_SINGLE_TEXTS, len(sample)))]
    for one in singles[:_WARM_UP]:
        answer(*one)
    latencies = [_seconds(answer, one) * 1e3 for one in singles]
    began, passes = time.perf_counter(), 0
    while passes == 0 or time.perf_counter() - began < _SECONDS:
        answer(*sample.inputs)
        passes += 1
    seconds = (time.perf_counter() - began) / passes
    p50, p95 = np.percentile(latencies, [50, 95])
    return {
        "latency_ms": {"p50": round(float(p50), 3), "p95": round(float(p95), 3)},
        "texts_per_second": round(len(sample) / seconds, 1),
        "tokens_per_second": None if tokens is None else round(tokens / seconds, 1),
        "mean_tokens": None if tokens is None else round(tokens / len(sample), 1),
        "inference_memory_mb": round(max(peak_memory_mb() - idle, 0.0), 1),
        "inference_peak_mb": round(peak_memory_mb(), 1),
    }


def _transformer(model: Path, sample: Table) -> tuple[Answer, float, int | None]:
    """What answers, the memory of the idle process in MB, and the tokens of the sample."""
    # The runtime, all of it before the idle reading.
    import bertram.formats.huggingface
    import bertram.training.torch_runner  # noqa: F401
    from bertram.artifacts import load

    idle = current_memory_mb()
    predictor = load(model)
    batch, _ = predictor.tokenizer.encode(*sample.inputs, max_length=predictor.max_length)
    return predictor.logits, idle, len(batch.token_ids)


def _baseline(model: Path) -> tuple[Answer, float, int | None]:
    import scipy.sparse  # noqa: F401
    import sklearn.linear_model  # noqa: F401

    from bertram.comparison.baseline import Baseline

    idle = current_memory_mb()
    return Baseline.load(model).logits, idle, None


def _seconds(answer: Answer, one: tuple[list[str], list[str] | None]) -> float:
    began = time.perf_counter()
    answer(*one)
    return time.perf_counter() - began
