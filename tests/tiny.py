"""Tables and models so small that a training takes a second, and what stops one."""

import contextlib
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bertram import cli
from bertram.batch import Batch
from bertram.comparison import candidates
from bertram.config import EncoderConfig
from bertram.corpus.parts import Part, Start
from bertram.files import write_json
from bertram.formats.huggingface import write
from bertram.formats.huggingface_config import config_overrides
from bertram.models.heads import Model
from bertram.run_directory import MANIFEST
from bertram.text.tokenizer import Tokenizer
from bertram.training.metrics_file import read_metrics

GOOD, BAD = ["fine", "lovely", "warm", "bright"], ["dull", "cold", "awful", "grey"]
NOUNS = ["film", "room", "book", "meal", "song", "trip", "hotel", "phone"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def rows(number: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts with labels that a word decides."""
    random = np.random.default_rng(seed)
    found = []
    for label in random.integers(0, 2, number):
        words = [random.choice(NOUNS) for _ in range(random.integers(2, 12))]
        words.insert(int(random.integers(len(words))), random.choice(GOOD if label else BAD))
        found.append((" ".join(words), "good" if label else "bad"))
    return found


def made(parts: Iterable[Part]) -> Callable[[Start], Iterable[Part]]:
    """A corpus for a store that is handed on from its beginning, whatever part is asked for."""
    return lambda start: parts


def table(path: Path, number: int = 64, seed: int = 0) -> Path:
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows(number, seed)))
    return path


def unsettle(model: torch.nn.Module, seed: int = 0, scale: float = 0.1) -> None:
    """Move every weight that learns: fresh biases are 0, norms 1 and residuals nothing, which would hide a mix-up."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += scale * torch.randn(parameter.shape, generator=generator)


def random_batch(config: EncoderConfig, lengths: Iterable[int], seed: int = 0) -> Batch:
    """Texts of random ids in random segments."""
    random, segments = np.random.default_rng(seed), max(1, config.type_vocab_size)
    rows = [random.integers(config.vocab_size, size=length).tolist() for length in lengths]
    return Batch.pack(rows, [random.integers(segments, size=len(row)).tolist() for row in rows])


def model_directory(
    path: Path, heads: dict[str, int] | None = None, *, unsettled: bool = False, **settings: object
) -> Path:
    """A model directory with random weights and a tokenizer for `rows`."""
    path.mkdir(parents=True)
    tokenizer = Tokenizer.train([text for text, _ in rows(200)], "bert", 200)
    torch.manual_seed(0)
    config = EncoderConfig(**SIZES | {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 32} | settings)
    model = Model(config, heads or {})
    if unsettled:
        unsettle(model)
    write(model, path)
    tokenizer.save(path)
    if overrides := config_overrides(config):
        write_json(path / MANIFEST, {"config_overrides": overrides})
    return path


def run(*arguments: object) -> object:
    """The command line in this process; its exit code."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as left:
        return left.code
    return 0


def bertram(*arguments: object, threads: int = 1, **options: object) -> subprocess.Popen[str]:
    """The command line in a process of its own, on one thread unless told: tests run side by side."""
    command = [sys.executable, "-m", "bertram.cli", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=environment, **pipes, **options)


class Fork:
    """The command line in a fork of a process that has imported all it needs: begins at once, and serves as a Popen."""

    _context = multiprocessing.get_context("forkserver")
    _context.set_forkserver_preload(
        [
            *("bertram.cli", "bertram.pretraining.pretrain", "bertram.pretraining.training", "pytest"),
            *("bertram.supervised.finetuning", "bertram.training.torch_runner", "bertram.formats.huggingface"),
            *("sklearn.metrics", "sklearn.linear_model", "sklearn.feature_extraction.text", "scipy.stats"),
            *("tensorboard.compat.proto.event_pb2", "tensorboard.summary.writer.record_writer"),
        ]
    )

    def __init__(self, *arguments: object, prepare: Callable[[], object] | None = None) -> None:
        """`prepare` is called in the fork before the command."""
        pipes = [self._context.Pipe(duplex=False) for _ in ("stdout", "stderr")]
        self._ours, theirs = zip(*pipes, strict=True)
        self._process = self._context.Process(target=_command, args=(arguments, prepare, theirs))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OMP_NUM_THREADS", "1")  # for the process that is forked, which begins with the first fork
            self._process.start()
        for pipe in theirs:
            pipe.close()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> None:
        self._process.join(timeout)

    def communicate(self) -> tuple[str, ...]:
        said = []
        for pipe in self._ours:
            with open(os.dup(pipe.fileno()), encoding="utf-8") as stream:  # noqa: PTH123  a pipe has no path
                said.append(stream.read())
            pipe.close()
        self.wait()
        return tuple(said)

    def send_signal(self, number: int) -> None:
        os.kill(self._process.pid or 0, number)

    def kill(self) -> None:
        self._process.kill()


def _command(arguments: list[object], prepare: Callable[[], object] | None, pipes: Iterable[Connection]) -> None:
    for stream, pipe in zip((1, 2), pipes, strict=True):
        os.dup2(pipe.fileno(), stream)
        pipe.close()
    if prepare is not None:
        prepare()
    sys.exit(run(*arguments))


def measure_briefly() -> None:
    """Have comparisons in this process answer for a moment only where they measure."""
    candidates._SECONDS = 0.1


Process = subprocess.Popen[str] | Fork


def wait_for(condition: Callable[[], object], process: Process | None = None, seconds: float = 60.0) -> None:
    """Wait until something holds, while a process runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def finish(process: Process) -> str:
    """Let a command end well; what it says on stderr."""
    said = process.communicate()
    assert process.returncode == 0, said
    return said[1]


def kill_after(process: Process, seconds: float) -> int | None:
    """Kill a process after so many seconds, unless it has ended; its exit code."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    process.kill()
    process.communicate()
    return process.returncode


def kill_past(process: Process, out: Path, step: int) -> None:
    """Kill a training that writes to `out` when it is past a step."""
    wait_for(lambda: max(losses(out), default=0) > step, process)
    process.kill()
    process.communicate()


def stop(process: Process, number: int) -> tuple[int | None, str, float]:
    """Send a signal; exit code, what was said on stderr, and the seconds that it took to end."""
    began = time.monotonic()
    process.send_signal(number)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(60)
    took = time.monotonic() - began
    process.kill()
    line = process.communicate()[1]
    return process.returncode, line, took


def handles(process: Process, number: int) -> bool:
    """Whether a process has a handler of its own for a signal (proc_pid_status(5), SigCgt)."""
    status = Path("/proc", str(process.pid), "status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def losses(out: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in read_metrics(out / "metrics.jsonl") if "loss" in line}


def checkpoints(out: Path) -> list[Path]:
    """Oldest first."""
    return sorted((out / "checkpoints").glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


def same_training(out: Path, expected: Path) -> None:
    """Nothing shows that a training was stopped: it measured the same, left the same weights, and no half of a file."""
    assert _measured(out) == _measured(expected)
    ours, theirs = (json.loads((d / "bertram.json").read_text()) for d in (out, expected))
    assert {"scores", "agreement"} & ours.keys()
    assert all(ours.get(name) == theirs.get(name) for name in ("scores", "agreement"))
    assert (out / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    assert not list(out.rglob(".*"))


def _measured(out: Path) -> list[dict[str, float]]:
    timings = ("seconds", "tokens_per_second", "data_share")
    lines = read_metrics(out / "metrics.jsonl")
    return [{name: value for name, value in line.items() if name not in timings} for line in lines]


def harm(file: Path, damage: str) -> None:
    """Leave half of a file ("torn"), all of it but one bit ("flipped"), or nothing ("gone")."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "torn" else content)


def also_slowly(quick: Iterable[Any], rest: Iterable[Any]) -> list[Any]:
    """Parameters of which some are for the slow tests."""
    return [*quick, *(pytest.param(*values, marks=pytest.mark.slow) for values in rest)]
