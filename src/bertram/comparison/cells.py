"""What is told of a candidate, as people read it: the cells of the terminal's table and of the page's."""

from collections.abc import Sequence

from bertram.comparison.results import Candidate
from bertram.pages.figures import MISSING, count, interval, quantity, score


def figures(row: Candidate) -> dict[str, str]:
    """A candidate's figures by their names, with units: those that the choice rests on, then the others.

    Training memory is the peak of the process and, if it trained on a GPU, the peak there: 1,753+16,150.
    """
    found, engine, flops = row["score"], row["engine"], row["flops_per_token"]
    gpu = row.get("training_gpu_memory_mb")
    return {
        "score": score(found and found["mean"]),
        "95% interval": interval(found["low"], found["high"]) if found else MISSING,
        "MB on disk": quantity(row["bytes_on_disk"] / 1e6),
        "p95 ms": quantity(row["latency_ms"]["p95"]),
        "answering MB": quantity(row["inference_memory_mb"]),
        "engine": f"{engine['precision']}, {score(engine['score'])}" if engine else MISSING,
        "agreement": f"{engine['agreement']:.1%}" if engine else MISSING,
        "parameters": count(row["unique_parameters"]),
        "unshared": count(row["parameters"]),
        "MFLOP a token": quantity(flops and flops / 1e6),
        "training MB": quantity(row["training_memory_mb"]) + (f"+{quantity(gpu)}" if gpu else ""),
        "p50 ms": quantity(row["latency_ms"]["p50"]),
        "texts a second": count(row["texts_per_second"]),
        "tokens a second": count(row["tokens_per_second"]),
    }


def metric(candidates: Sequence[Candidate]) -> str:
    """What their score is called."""
    return next((row["score"]["metric"] for row in candidates if row["score"]), "score")
