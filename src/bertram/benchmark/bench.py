"""`bertram bench`: how fast and how large a model is as an engine, beside other libraries in the same run.

Everybody has a process of its own; they take turns, and medians over the rounds are compared.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Group
from rich.text import Text

from bertram.benchmark.contestants import SETTINGS, Ids, not_installed
from bertram.config import PRESETS, EncoderConfig, Lengths
from bertram.environment import default_threads
from bertram.errors import BadInput, BertramError, require_all
from bertram.exporting import MIN_AGREEMENT, export
from bertram.formats.engine_file import read_engine
from bertram.inference.kernels import machine
from bertram.inference.predictor import Reading
from bertram.inspection import flops_per_token
from bertram.model_directory import ModelDirectory
from bertram.model_names import ENGLISH, engine_of, resolve_encoder
from bertram.tasks.task import Task
from bertram.terminal import plain_table
from bertram.text.inputs import Input, first_inputs
from bertram.text.rows import parse_columns
from bertram.text.tokenizer import Tokenizer

LIBRARIES = ("transformers", "onnxruntime", "openvino", "ctranslate2")
LENGTHS: dict[Lengths, tuple[float, float, int]] = {
    "mixed": (3.34, 0.6, 113),
    "sst2": (3.08, 0.55, 64),
    "imdb": (5.42, 0.55, 256),
}
"""Distributions of lengths to draw from where no texts are given: that of docs/benchmarks.md, and such as are fitted to
the lengths of two data sets, SST-2's dev sentences and IMDB's reviews. Each is the mean and the deviation of the
logarithms of the tokens of a text, and the most that one is cut to."""

_INT8 = "bertram int8"
_TEXTS, _BATCH = 192, 32
_SINGLE_LENGTHS = (8, 16, 32, 128)
_PASSES, _PASSES_SECONDS = 5, 6.0  # timed passes over all texts in a round: fewer if they took more seconds
_SINGLES, _STREAM, _STREAM_LENGTH = 10, 100, 16
_MEMORY_SHAPES = (8, 30), (32, 128)  # texts, and tokens of each where the model has as many positions


class _Worker:
    """A contestant's process."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, "-P", "-m", "bertram.benchmark.worker", name, str(os.getpid())]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.name, self.process = name, subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError), self.process:  # which closes its pipes; the process may be gone
            self.process.kill()

    def ask(self, kind: str, **job: Any) -> Any:
        """Have the process do a job; its answer.

        Raises:
            BertramError: the job failed there.
        """
        try:
            self.process.stdin.write(json.dumps({"kind": kind, **job}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": f"its process ended with {self.process.wait()}"}
        if isinstance(answer, dict):
            raise BertramError(answer["error"])
        return answer


def bench(
    model: str | Path,
    *,
    texts: str | Path | None = None,
    columns: str | None = None,
    max_length: int | None = None,
    lengths: Lengths | None = None,
    against: Sequence[str] = (),
    rounds: int = 3,
    with_ceiling: bool = True,
    allow_pickle: bool = False,
) -> dict[str, Any]:
    """Measure an encoder as an engine in fp32 and int8, and in the libraries of `against`.

    Args:
        model: a directory, a preset with random weights, or an engine file, beside which nobody else can be measured.
        texts: a file of inputs, one a line; else tokens are drawn at random. Pairs are measured as the model reads
            them, all in the first segment, which takes as long.
        columns: which columns of a table of texts to read, as on the command line.
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
    if unknown := [name for name in against if name not in LIBRARIES]:
        raise BadInput(f"--against {unknown[0]:.40}: must be one of {', '.join(LIBRARIES)}")
    if missing := [name for name in against if find_spec(name) is None]:
        raise BadInput(f"--against: {not_installed(missing[0])}")
    if lengths is not None and lengths not in LENGTHS:
        raise BadInput(f"--lengths {lengths:.40}: must be one of {', '.join(LENGTHS)}")
    if lengths is not None and texts is not None:
        raise BadInput("--lengths: is for random texts; those of --texts have their own")
    if columns is not None and texts is None:
        raise BadInput("--columns: says what columns of --texts to read, which is not given")
    if rounds < 1:
        raise BadInput(f"--rounds {rounds}: must be at least 1")
    if texts is not None and str(model) in PRESETS:
        raise BadInput("--texts: a preset has no tokenizer")
    inputs = None if texts is None else first_inputs(texts, 8 * _TEXTS, parse_columns(columns) or {})
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        directory = Path(scratch)
        subject, left_out = _prepare(model, directory, against, allow_pickle)
        prepared, config, reading = subject.prepared, subject.config, subject.reading
        if max_length is not None:
            reading = reading._replace(max_length=max_length)
        ids = _drawn(config, lengths or "mixed") if inputs is None else _encoded(inputs, reading)
        ceiling = _ceiling() if with_ceiling else {}
        rows: dict[str, dict[str, Any]] = {name: {"setting": name} for name in prepared}
        short = [[7] * min(_STREAM_LENGTH, config.max_position_embeddings)]
        shapes = [(batch, min(longest, config.max_position_embeddings)) for batch, longest in _MEMORY_SHAPES]
        for name in prepared:  # before the others are there: a process that starts would be in the way
            sys.stderr.write(f"loading and memory: {name}\n")
            with _left_out(name, rows, left_out):
                alone = {
                    f"{batch} × {length}": _alone(name, prepared[name], short, [[[7] * length] * batch] * 2)
                    for batch, length in shapes
                }
                rows[name]["load_seconds"] = min(seconds for seconds, _ in alone.values())
                rows[name]["peak_mb"] = {shape: peak for shape, (_, peak) in alone.items()}
        workers = dict[str, _Worker]()
        for name in rows:
            with _left_out(name, workers, left_out):
                workers[name] = stack.enter_context(_Worker(name))
                workers[name].ask("load", path=str(prepared[name]), text=short)
        measured = _measure(workers, left_out, ids, short, config, rounds)
        if not measured:
            raise BertramError(": ".join(next(iter(left_out.items()))))
    found = [rows[name] | measured[name] for name in measured]
    others = [row for row in found if not row["setting"].startswith("bertram")]
    return {"model": str(model), "texts": len(ids), "mean_tokens": round(float(np.mean([*map(len, ids)])), 1)} | {
        "rounds": rounds,
        "machine": machine(),
        "threads": default_threads(),
        "agreement": subject.agreement,
        "ceiling": ceiling,
        "rows": [row | _share(row, ceiling, config, ids) | _versus(row, others) for row in found],
        "left_out": left_out,
    }


class _Subject(NamedTuple):
    """The model that is measured."""

    prepared: dict[str, Path]
    """What each setting reads."""
    config: EncoderConfig
    reading: Reading
    agreement: float | None = None
    """How far the int8 engine agrees with it; None for a preset, whose random weights answer nothing."""


def _prepare(
    model: str | Path, directory: Path, against: Sequence[str], allow_pickle: bool
) -> tuple[_Subject, dict[str, str]]:
    """What is measured, and the reasons of those settings that are left out."""
    path = engine_of(model)
    if path is not None and not (against and model == ENGLISH):  # which is there as a directory too
        if against:
            raise BadInput(f"{model}: is an engine file; other libraries need the model directory it was exported from")
        engine = read_engine(path)
        return _Subject({f"bertram {engine.precision}": path}, engine.config, Reading.of_engine(engine)), {}
    source = resolve_encoder(model, allow_pickle=allow_pickle)
    trained = not isinstance(source, EncoderConfig)
    if isinstance(source, EncoderConfig):
        source = _random_model(source, directory / "model")
    elif allow_pickle:
        export(source.path, format="huggingface", out=directory / "model", allow_pickle=True)  # no contestant unpickles
        source = ModelDirectory(directory / "model")
    tokenizer = Tokenizer.load(source.path)
    wanted = [name for name in SETTINGS if name.split()[0] in ("bertram", *against)]
    prepared, left_out = dict[str, Path](), dict[str, str]()
    made = dict[Any, str]()  # by what made it: several settings read one file
    for name in wanted:
        sys.stderr.write(f"preparing: {name}\n")
        (folder := directory / name.replace(" ", "-")).mkdir()
        with _Worker(name) as worker:
            try:
                if (how := SETTINGS[name].prepare) not in made:
                    made[how] = worker.ask("prepare", model=str(source), folder=str(folder))
                prepared[name] = Path(made[how])
                worker.ask("load", path=str(prepared[name]), text=[[7, 7, 7]])
            except BertramError as error:
                prepared.pop(name, None)
                left_out[name] = str(error)
    if not prepared:
        raise BadInput(": ".join(next(iter(left_out.items()))))
    task = source.task_if_known
    reading = Reading(tokenizer, source.max_length, isinstance(task, Task) and task.apart, source.pairs)
    agreement = read_engine(prepared[_INT8]).manifest["agreement"] if trained and _INT8 in prepared else None
    return _Subject(prepared, source.config, reading, agreement), left_out


def _random_model(config: EncoderConfig, directory: Path) -> ModelDirectory:
    """A directory with random weights, and a tokenizer that nobody will ask.

    Raises:
        BadInput: torch or safetensors is not installed.
    """
    require_all(("torch", "safetensors"), "train")
    from bertram.formats.huggingface import write
    from bertram.models.heads import Model

    directory.mkdir()
    write(Model(config, {}, pooler=False), directory)
    Tokenizer.train(["a tokenizer of few words"], "bert", 64).save(directory)
    return ModelDirectory(directory)


def _drawn(config: EncoderConfig, lengths: Lengths) -> Ids:
    mean, deviation, most = LENGTHS[lengths]
    random = np.random.default_rng(0)
    sizes = np.exp(random.normal(mean, deviation, _TEXTS)).round().clip(3, min(most, config.max_position_embeddings))
    return [random.integers(0, config.vocab_size, int(size)).tolist() for size in sizes]


def _encoded(inputs: Sequence[Input], reading: Reading) -> Ids:
    batch = reading.batch(inputs)
    return [batch.token_ids[a:b].tolist() for a, b in zip(batch.offsets, batch.offsets[1:], strict=False)]


def _alone(name: str, path: Path, first: Ids, batches: list[Ids]) -> tuple[float, float]:
    """Seconds from a process' start to its first answer, and its peak memory in MB after some batches."""
    began = time.perf_counter()
    with _Worker(name) as worker:
        worker.ask("load", path=str(path), text=first)
        seconds = time.perf_counter() - began
        worker.ask("run", batches=batches, times=1)
        return round(seconds, 2), round(float(worker.ask("peak")), 1)


@contextmanager
def _left_out(name: str, field: dict[str, Any], left_out: dict[str, str]) -> Iterator[None]:
    """One contestant's turn: where it fails, it leaves the field, and the others go on."""
    try:
        yield
    except BertramError as error:
        left_out[name] = str(error)
        field.pop(name)


def _measure(
    workers: dict[str, _Worker], left_out: dict[str, str], ids: Ids, short: Ids, config: EncoderConfig, rounds: int
) -> dict[str, dict[str, Any]]:
    """What each that went through all rounds took."""
    single = [length for length in _SINGLE_LENGTHS if length <= config.max_position_embeddings]
    passes: dict[str, list[float]] = {name: [] for name in workers}
    singles: dict[tuple[str, int], list[float]] = {(name, length): [] for name in workers for length in single}
    streams: dict[str, list[float]] = {name: [] for name in workers}
    for number in range(1, rounds + 1):
        for name, worker in list(workers.items()):
            sys.stderr.write(f"round {number} of {rounds}: {name}\n")
            order = sorted(ids, key=len) if SETTINGS[name].by_length else ids
            batches = [order[start : start + _BATCH] for start in range(0, len(order), _BATCH)]
            with _left_out(name, workers, left_out):
                (warming_up,) = worker.ask("run", batches=batches, times=1)
                times = max(1, min(_PASSES, int(_PASSES_SECONDS / warming_up)))
                passes[name] += worker.ask("run", batches=batches, times=times)
                for length in single:
                    singles[name, length] += worker.ask("run", batches=[[ids[0][:1] * length]], times=_SINGLES + 2)[2:]
                streams[name] += worker.ask("run", batches=[short], times=_STREAM + 2)[2:]
    tokens, rows = sum(map(len, ids)), dict[str, dict[str, Any]]()
    for name in workers:
        p50, p99 = np.percentile(streams[name], [50, 99]) * 1e3
        rows[name] = {
            "tokens_per_second": round(tokens / float(np.median(passes[name])), 1),
            "latency_ms": {length: round(float(np.median(singles[name, length])) * 1e3, 2) for length in single},
            "stream": {"p50_ms": round(p50, 2), "p99_ms": round(p99, 2), "ratio": round(p99 / p50, 2)},
        }
    return rows


def _ceiling() -> dict[str, float]:
    """10⁹ operations a second of products of large matrices; nothing where torch is not installed."""
    with _Worker(_INT8) as worker, suppress(BertramError):
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


def _versus(row: dict[str, Any], others: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The ratios of a row's figures to the best of other libraries', each by itself."""
    if not others:
        return {}
    ratios: dict[str, Any] = {
        name: {key: round(value / min(other[name][key] for other in others), 2) for key, value in row[name].items()}
        for name in ("latency_ms", "peak_mb")
    }
    fastest = max(other["tokens_per_second"] for other in others)
    return {"vs_best_other": {"tokens_per_second": round(row["tokens_per_second"] / fastest, 2)} | ratios}


def render(result: dict[str, Any]) -> Group:
    """What `rich` prints of `bench`'s result."""
    rows = result["rows"]
    lengths, shapes = list(rows[0]["latency_ms"]), list(rows[0]["peak_mb"])
    times, peaks = [f"ms, {length}" for length in lengths], [f"MB, {shape}" for shape in shapes]
    speed = plain_table("", "tokens a second", "of the ceiling", "stream's p99 / p50")
    size = plain_table("", *times, "load, s", *peaks)
    versus = plain_table("vs best other", "speed", *times, *peaks)
    for row in rows:
        speed.add_row(
            Text(row["setting"]),
            f"{row['tokens_per_second']:,.0f}",
            f"{row['ceiling_share']:.0%}" if "ceiling_share" in row else "",
            f"{row['stream']['ratio']:.2f}",
        )
        size.add_row(
            Text(row["setting"]),
            *(f"{row['latency_ms'][length]:.1f}" for length in lengths),
            f"{row['load_seconds']:.2f}",
            *(f"{row['peak_mb'][shape]:.0f}" for shape in shapes),
        )
        if ratios := row.get("vs_best_other"):
            each = ratios["tokens_per_second"], *ratios["latency_ms"].values(), *ratios["peak_mb"].values()
            versus.add_row(Text(row["setting"]), *(f"{ratio:.2f}" for ratio in each))
    notes = [f"{name} is left out: {reason}" for name, reason in result["left_out"].items()]
    if result["agreement"] is not None and result["agreement"] < MIN_AGREEMENT:
        notes.append(
            f"{_INT8} has all weights in int8 and agrees with the model to {result['agreement']:.1%} on drawn tokens; "
            "bertram export --texts measures this on yours, and keeps weights in float32 where needed, which is slower"
        )
    how = (
        f"{result['texts']:,} texts of {result['mean_tokens']} tokens on average, threads: {result['threads']}, "
        f"medians of {result['rounds']} rounds; loading and memory once, before them"
    )
    if ceiling := ", ".join(f"{value:,.0f} in {precision}" for precision, value in result["ceiling"].items()):
        how += f"; the machine multiplies matrices at 10⁹ operations a second: {ceiling}"
    notes.append(how)
    tables = [speed, size, *([versus] if versus.rows else [])]
    return Group(*(part for table in tables for part in (Text(), table)), Text(), Text("\n".join(notes)))
