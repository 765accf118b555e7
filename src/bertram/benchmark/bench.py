"""`bertram bench`: how fast and how large a model is as an engine, beside other libraries in the same run.

Everybody has a process of its own; they take turns, and medians over the rounds are compared.
"""

import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bertram.benchmark.contestants import INT8, SETTINGS, Ids, not_installed
from bertram.benchmark.process import Worker, loading_and_peak, turn_of
from bertram.benchmark.subject import LENGTHS, drawn, encoded, prepare
from bertram.config import PRESETS, EncoderConfig, LengthDistribution
from bertram.environment import default_threads
from bertram.errors import BadInput, BertramError
from bertram.inference.kernels import machine
from bertram.inspection import flops_per_token
from bertram.text.inputs import Input, first_inputs
from bertram.text.rows import Columns

LIBRARIES = ("transformers", "onnxruntime", "openvino", "ctranslate2")

_MOST_TEXTS, _BATCH = 1536, 32
_SINGLE_LENGTHS = (8, 16, 32, 128)
_PASSES, _PASSES_SECONDS = 5, 6.0  # timed passes over all texts in a round: fewer if they took more seconds
_SINGLES, _STREAM, _STREAM_LENGTH = 10, 100, 16
_MEMORY_SHAPES = (8, 30), (32, 128)  # texts, and tokens of each where the model has as many positions


def bench(
    model: str | Path,
    *,
    texts: str | Path | Sequence[Input] | None = None,
    columns: Columns = None,
    max_length: int | None = None,
    lengths: LengthDistribution | None = None,
    against: Sequence[str] = (),
    rounds: int = 3,
    with_ceiling: bool = True,
    allow_pickle: bool = False,
) -> dict[str, Any]:
    """Measure an encoder as an engine in fp32 and int8, and in the libraries of `against`.

    Args:
        model: a directory, a preset with random weights, or an engine file, beside which nobody else can be measured.
        texts: inputs, or a file of them; else tokens are drawn at random. Pairs are measured as the model reads them,
            all in the first segment, which takes as long.
        columns: what the columns of a table of texts are called, as for `text.table.read_table`.
        max_length: tokens that texts are cut to, by default as the model reads.
        lengths: what the lengths of random texts are drawn from, one of `LENGTHS`, by default "mixed".
        with_ceiling: whether to measure what the machine can do, too.
        allow_pickle: read pytorch_model.bin where there is no model.safetensors.

    Returns "rows", one a setting, with "tokens_per_second" (hidden states of all tokens of texts in batches of 32),
    "latency_ms" of one text by its tokens, "stream" (p99 / p50 of texts of 16 tokens, or of as many as the model reads,
    in succession); and, measured once before the rounds, "peak_mb" of a process that answered batches of a shape and
    "load_seconds" from its start to its first answer, the shorter of both shapes. "threads" that each has; "agreement"
    of the int8 engine with a trained model, on drawn tokens; "ceiling" in 10⁹ operations a second, of which
    "ceiling_share" of a row was reached; where there are other libraries, "vs_best_other" of a row holds the ratios of
    its "tokens_per_second", "latency_ms" and "peak_mb" to the best that any of them reached; "left_out" with reasons.

    Raises:
        BadInput: the model, the texts or a library's name cannot be used, or a library is not installed.
    """
    _check_options(model, texts, lengths, against, rounds)
    inputs = first_inputs(texts, _MOST_TEXTS, columns)
    with tempfile.TemporaryDirectory() as scratch:
        subject, left_out = prepare(model, Path(scratch), against, allow_pickle=allow_pickle)
        config, reading = subject.config, subject.reading
        if max_length is not None:
            reading = reading._replace(max_length=max_length)
        ids = drawn(config, lengths or "mixed") if inputs is None else encoded(inputs, reading)
        ceiling = _ceiling() if with_ceiling else {}
        # Before the others are there: a process that starts would be in the way.
        loading = _loading_and_memory(subject.prepared, config.max_position_embeddings, left_out)
        paths = {name: subject.prepared[name] for name in loading}
        measured = _measure(paths, ids, config.max_position_embeddings, rounds, left_out)
    if not measured:
        raise BertramError(": ".join(next(iter(left_out.items()))))
    rows = [{"setting": name} | loading[name] | figures for name, figures in measured.items()]
    others = [row for row in rows if not row["setting"].startswith("bertram")]
    return {
        "model": str(model),
        "texts": len(ids),
        "mean_tokens": round(float(np.mean([*map(len, ids)])), 1),
        "rounds": rounds,
        "machine": machine(),
        "threads": default_threads(),
        "agreement": subject.agreement,
        "ceiling": ceiling,
        "rows": [row | _share(row, ceiling, config, ids) | versus(row, others) for row in rows],
        "left_out": left_out,
    }


def _check_options(
    model: str | Path,
    texts: str | Path | Sequence[Input] | None,
    lengths: LengthDistribution | None,
    against: Sequence[str],
    rounds: int,
) -> None:
    if unknown := [name for name in against if name not in LIBRARIES]:
        raise BadInput(f"--against {unknown[0]:.40}: must be one of {', '.join(LIBRARIES)}")
    if missing := [name for name in against if find_spec(name) is None]:
        raise BadInput(f"--against: {not_installed(missing[0])}")
    if lengths is not None and lengths not in LENGTHS:
        raise BadInput(f"--lengths {lengths:.40}: must be one of {', '.join(LENGTHS)}")
    if lengths is not None and texts is not None:
        raise BadInput("--lengths: is for random texts; those of --texts have their own")
    if rounds < 1:
        raise BadInput(f"--rounds {rounds}: must be at least 1")
    if texts is not None and str(model) in PRESETS:
        raise BadInput("--texts: a preset has no tokenizer")


def _short(positions: int) -> Ids:
    """The text of a stream, or as many of its tokens as the model reads."""
    return [[7] * min(_STREAM_LENGTH, positions)]


def _loading_and_memory(
    paths: Mapping[str, Path], positions: int, left_out: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """How long loading took each that answered batches of all shapes, and its peak memory with each shape."""
    found = dict[str, dict[str, Any]]()
    for name, path in paths.items():
        sys.stderr.write(f"loading and memory: {name}\n")
        with turn_of(name, found, left_out):
            seconds, peaks = list[float](), dict[str, float]()
            for texts, longest in _MEMORY_SHAPES:
                length = min(longest, positions)
                batches = [[[7] * length] * texts] * 2
                took, peaks[f"{texts} × {length}"] = loading_and_peak(name, path, _short(positions), batches)
                seconds.append(took)
            found[name] = {"load_seconds": min(seconds), "peak_mb": peaks}
    return found


@dataclass
class _Times:
    """What one contestant took, in seconds."""

    passes: list[float] = field(default_factory=list)
    """Over all texts."""
    singles: dict[int, list[float]] = field(default_factory=dict)
    """For one text, by its tokens."""
    stream: list[float] = field(default_factory=list)
    """For each of many short texts."""

    def figures(self, tokens: int) -> dict[str, Any]:
        p50, p99 = np.percentile(self.stream, [50, 99]) * 1e3
        return {
            "tokens_per_second": round(tokens / float(np.median(self.passes)), 1),
            "latency_ms": {length: round(float(np.median(took)) * 1e3, 2) for length, took in self.singles.items()},
            "stream": {"p50_ms": round(p50, 2), "p99_ms": round(p99, 2), "ratio": round(p99 / p50, 2)},
        }


def _measure(
    paths: Mapping[str, Path], ids: Ids, positions: int, rounds: int, left_out: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """The figures of each that went through all rounds."""
    with ExitStack() as stack:
        workers = dict[str, Worker]()
        for name, path in paths.items():
            with turn_of(name, workers, left_out):
                workers[name] = stack.enter_context(Worker(name))
                workers[name].ask("load", path=str(path), text=_short(positions))
        times = {name: _Times() for name in workers}
        for number in range(1, rounds + 1):
            for name, worker in list(workers.items()):
                sys.stderr.write(f"round {number} of {rounds}: {name}\n")
                with turn_of(name, workers, left_out):
                    _round(worker, ids, positions, times[name])
    return {name: times[name].figures(sum(map(len, ids))) for name in workers}


def _round(worker: Worker, ids: Ids, positions: int, times: _Times) -> None:
    """One contestant's part of a round."""
    order = sorted(ids, key=len) if SETTINGS[worker.name].by_length else ids
    batches = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
    (warming_up,) = worker.ask("run", batches=batches, times=1)
    passes = max(1, min(_PASSES, int(_PASSES_SECONDS / warming_up)))
    times.passes += worker.ask("run", batches=batches, times=passes)
    for length in _SINGLE_LENGTHS:
        if length <= positions:
            took = worker.ask("run", batches=[[ids[0][:1] * length]], times=_SINGLES + 2)[2:]
            times.singles.setdefault(length, []).extend(took)
    times.stream += worker.ask("run", batches=[_short(positions)], times=_STREAM + 2)[2:]


def _ceiling() -> dict[str, float]:
    """10⁹ operations a second of products of large matrices; nothing where torch is not installed."""
    with Worker(INT8) as worker, suppress(BertramError):
        return {precision: round(worker.ask("ceiling", precision=precision), 1) for precision in ("int8", "fp32")}
    return {}


def _share(row: dict[str, Any], ceiling: dict[str, float], config: EncoderConfig, ids: Ids) -> dict[str, float]:
    """The share of the ceiling that one of Bertram's settings reached."""
    library, precision = row["setting"].split(maxsplit=1)
    if library != "bertram" or precision not in ceiling:
        return {}
    tokens = np.array([*map(len, ids)])
    flops = flops_per_token(config, max(1, round(float((tokens**2).sum() / tokens.sum()))))
    return {"ceiling_share": round(row["tokens_per_second"] * flops / ceiling[precision] / 1e9, 3)}


def versus(row: dict[str, Any], others: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The ratios of a row's figures to the best of other libraries', each by itself."""
    if not others:
        return {}
    ratios: dict[str, Any] = {
        name: {key: round(value / min(other[name][key] for other in others), 2) for key, value in row[name].items()}
        for name in ("latency_ms", "peak_mb")
    }
    fastest = max(other["tokens_per_second"] for other in others)
    return {"vs_best_other": {"tokens_per_second": round(row["tokens_per_second"] / fastest, 2)} | ratios}
