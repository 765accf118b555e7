"""What stands in results.json of a comparison: the keys of candidates, differences and the choice.

Memory is in MB (10⁶ bytes), "ms" is milliseconds for one text, times are wall-clock.
"""

from collections.abc import Iterable
from typing import Any, Literal, NotRequired, TypedDict, cast


class Run(TypedDict):
    """A training of a candidate with one seed, left at OUT/`directory`; what tf-idf has not is not required."""

    seed: int
    status: Literal["finished", "diverged"]
    score: float | None  # the primary metric on the judged split; None where the run diverged
    directory: str
    seconds: float
    reason: NotRequired[str]  # why it diverged, or empty
    validation_score: NotRequired[float | None]
    steps: NotRequired[int]
    training_tokens_per_second: NotRequired[float]
    training_memory_mb: NotRequired[float]  # the process's peak
    training_gpu_memory_mb: NotRequired[float | None]


class ScoreInterval(TypedDict):
    """The primary metric, its mean over the finished runs with a 95% interval."""

    metric: str
    mean: float
    low: float
    high: float
    signature: str


class Latency(TypedDict):
    """Of one text, ms: percentiles of the middle one of several rounds, and the least and greatest p95 of a round."""

    p50: float
    p95: float
    low: float
    high: float


class Answering(TypedDict):
    """What answering costs."""

    latency_ms: Latency
    texts_per_second: float
    tokens_per_second: float | None  # None of tf-idf, which has no tokens
    mean_tokens: float | None
    inference_memory_mb: float  # what the model adds to an idle process
    inference_peak_mb: float  # the whole process


class ShippedEngine(TypedDict):
    """The engine of the run that can be shipped."""

    precision: Literal["int8", "fp32"]
    agreement: float  # of int8 with the model, on validation texts; 1 of fp32
    score: float


class Trained(TypedDict):
    """A candidate before it is measured; what tf-idf has not is not required."""

    model: str
    directory: str  # of the run that can be shipped
    training_memory_mb: float
    runs: list[Run]
    training_gpu_memory_mb: NotRequired[float | None]
    config: NotRequired[dict[str, Any]]
    max_length: NotRequired[int]
    truncated_texts: NotRequired[int]


class Size(TypedDict):
    """What storing and computing a candidate costs."""

    parameters: int  # as if nothing were shared
    unique_parameters: int
    bytes_on_disk: int
    flops_per_token: float | None


class _Measured(Trained, Answering, Size):
    engine: ShippedEngine | None  # None of tf-idf, and where every run diverged


class Candidate(_Measured):
    score: ScoreInterval | None  # None where every run diverged


class Scored(_Measured):
    """A candidate of which a run finished."""

    score: ScoreInterval


class Difference(TypedDict):
    """The score of `a` less that of `b`, its 95% interval, and p before and after Holm's correction."""

    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float


class Choice(TypedDict):
    """What to ship and why; `model` is None where none fits the limits that were stated."""

    model: str | None
    reason: str
    limits: dict[str, float | None]
    fits: list[str]
    missed: dict[str, list[str]]  # model → which limits, and by how much


class Results(TypedDict):
    task: dict[str, Any]
    data: dict[str, Any]  # files, hashes, rows and labels; "split" is the one that candidates are judged on
    recipe: dict[str, Any]
    machine: dict[str, Any]
    seeds: int
    candidates: list[Candidate]
    constant_score: float  # the most that one answer to every text, or every word, scores
    comparisons: list[Difference]
    choice: Choice


def finished(row: Trained) -> list[Run]:
    """The runs of a candidate that have a score."""
    return [run for run in row["runs"] if run["status"] == "finished"]


def diverged(row: Trained) -> list[Run]:
    """The runs of a candidate that have none."""
    return [run for run in row["runs"] if run["status"] == "diverged"]


def scored(candidates: Iterable[Candidate]) -> list[Scored]:
    """Those that have a score."""
    return [cast("Scored", row) for row in candidates if row["score"] is not None]
