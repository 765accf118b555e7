"""What answering costs: latency, throughput and memory of one model in this process."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bertram.memory import current_memory_mb, peak_memory_mb

_WARM_UP, _SINGLE_TEXTS, _SECONDS = 5, 100, 5.0


def measure(model: str, texts: list[str], texts_b: list[str] | None) -> dict[str, Any]:
    """Load `model` and answer a sample of the user's own texts, one at a time and then together.

    Memory is what the model adds to an idle process that has its runtime imported: weights and working memory at the
    peak. The absolute peak stands beside it. Times are wall-clock: milliseconds for one text, tokens a second for all.
    """
    if (Path(model) / "config.json").exists():
        import torch.utils.data  # noqa: F401  the runtime, before the idle reading

        from bertram.artifacts import load

        idle = current_memory_mb()
        predictor = load(model)
        answer: Callable[[list[str], list[str] | None], Any] = predictor.logits
        length = predictor.max_length
        batch, _ = predictor.tokenizer.encode(texts, texts_b, max_length=length)
        tokens = len(batch.token_ids)
    else:
        import scipy.sparse  # noqa: F401
        import sklearn.linear_model  # noqa: F401

        from bertram.comparison.baseline import Baseline

        idle = current_memory_mb()
        answer = Baseline.load(Path(model)).logits_of
        tokens = None
    singles = [([t], None if texts_b is None else [texts_b[i]]) for i, t in enumerate(texts[:_SINGLE_TEXTS])]
    for one in singles[:_WARM_UP]:
        answer(*one)
    latencies = [_seconds(lambda one=one: answer(*one)) * 1e3 for one in singles]
    began, passes = time.perf_counter(), 0
    while passes == 0 or time.perf_counter() - began < _SECONDS:
        answer(texts, texts_b)
        passes += 1
    seconds = (time.perf_counter() - began) / passes
    p50, p95 = np.percentile(latencies, [50, 95])
    return {
        "latency_ms": {"p50": round(float(p50), 3), "p95": round(float(p95), 3)},
        "texts_per_second": round(len(texts) / seconds, 1),
        "tokens_per_second": None if tokens is None else round(tokens / seconds, 1),
        "mean_tokens": None if tokens is None else round(tokens / len(texts), 1),
        "inference_memory_mb": round(max(peak_memory_mb() - idle, 0.0), 1),
        "inference_peak_mb": round(peak_memory_mb(), 1),
    }


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
