"""Whatever stops a training or a comparison, the same command goes on, and nothing shows that it was stopped."""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from bertram.training.metrics_file import read_metrics
from tiny import bertram, model_directory, table

STEPS = ["--steps", "120", "--batch-size", "4", "--save-every", "7", "--log-every", "1", "--evaluations", "6"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A table, a model, and a training and a comparison of them that nothing stopped."""
    found = tmp_path_factory.mktemp("crash")
    table(found / "good.csv")
    model_directory(found / "bare")
    for arguments in (training(found, found / "trained"), comparing(found, found / "compared")):
        process = bertram(*arguments)
        said = process.communicate()
        assert process.returncode == 0, said
    return found


def training(place, out):
    return ["train", "classification", place / "good.csv", "--model", place / "bare", "--out", out, *STEPS, "--resume"]


def comparing(place, out):
    models = ["--models", place / "bare", "bert-tiny"]
    return ["compare", place / "good.csv", *models, "--out", out, *STEPS, "--steps", "40"]


def losses(out):
    return {line["step"]: line["loss"] for line in read_metrics(out / "metrics.jsonl") if "loss" in line}


def checkpoints(out):
    return sorted((out / "checkpoints").glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


def kill(arguments, seconds):
    """Start the command and kill it after so many seconds, unless it has ended; its exit code."""
    process = bertram(*arguments)
    with contextlib.suppress(Exception):
        process.communicate(timeout=seconds)
    process.kill()
    process.communicate()
    return process.returncode


def killed_often(arguments, kills, longest, seed):
    """Kill the command at random instants, then let it end. How often it was killed while it ran."""
    instants = random.Random(seed)
    codes = [kill(arguments, instants.uniform(0.1, longest)) for _ in range(kills)]
    process = bertram(*arguments)
    said = process.communicate()
    assert process.returncode == 0, said
    assert set(codes) <= {0, -signal.SIGKILL}
    return codes.count(-signal.SIGKILL)


def same_training(out, expected):
    assert losses(out) == losses(expected)
    ours, theirs = (json.loads((d / "bertram.json").read_text()) for d in (out, expected))
    assert ours["scores"] == theirs["scores"]
    assert (out / "model.safetensors").read_bytes() == (expected / "model.safetensors").read_bytes()
    assert not [path for path in out.rglob(".*") if path.name.startswith((".model", ".step", ".best", ".state"))]


@pytest.mark.parametrize(
    ("kills", "seed"), [pytest.param(3, 0), *(pytest.param(10, s, marks=pytest.mark.slow) for s in range(1, 21))]
)
def test_killed_training_goes_on_bit_for_bit(place, tmp_path, kills, seed):
    assert killed_often(training(place, tmp_path / "out"), kills, 4, seed) > 0
    same_training(tmp_path / "out", place / "trained")


@pytest.mark.parametrize(
    ("kills", "seed"), [pytest.param(3, 0), *(pytest.param(10, s, marks=pytest.mark.slow) for s in range(1, 21))]
)
def test_killed_comparison_goes_on(place, tmp_path, kills, seed):
    out, whole = tmp_path / "out", place / "compared"
    assert killed_often(comparing(place, out), kills, 12, seed) > 0
    for run in sorted((whole / "runs").iterdir()):
        if run.name != "tf-idf":
            same_training(out / "runs" / run.name, run)
    ours, theirs = (json.loads((d / "results.json").read_text()) for d in (out, whole))
    assert [row["score"] for row in ours["candidates"]] == [row["score"] for row in theirs["candidates"]]
    assert ours["comparisons"] == theirs["comparisons"]


def test_a_killed_comparison_leaves_no_process_behind(place, tmp_path):
    process = bertram(*comparing(place, tmp_path / "out"), "--steps", "100000")
    job = tmp_path / "out" / "jobs" / "bare-seed-0.json"
    wait_for(lambda: (tmp_path / "out" / "runs" / "bare-seed-0" / "metrics.jsonl").exists(), process)
    process.kill()
    process.communicate()
    wait_for(lambda: not workers(job))


def workers(job):
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(job).encode() in command.read_bytes():
                found.append(command)
    return found


def wait_for(condition, process=None, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_finished_work_is_not_repeated(place, tmp_path):
    out = shutil.copytree(place / "trained", tmp_path / "trained")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    process = bertram(*training(place, out))
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before

    out = shutil.copytree(place / "compared", tmp_path / "compared")
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    process = bertram(*comparing(place, out))
    process.communicate()
    assert process.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")} == before


class TestSignals:
    """A signal is answered within 10 seconds with a checkpoint, and the same command goes on."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_training(self, place, tmp_path, number):
        out = tmp_path / "out"
        process = bertram(*training(place, out))
        wait_for(lambda: len(losses(out)) > 20, process)
        code, line, seconds = stop(process, number)
        assert code == 128 + number
        assert line.endswith(
            f"stopped by {number.name}; a checkpoint was written, and the same command with --resume goes on from it\n"
        )
        assert seconds < 10
        last = max(losses(out))
        assert checkpoints(out)[-1].name == f"step-{last}"
        assert bertram(*training(place, out)).wait() == 0
        same_training(out, place / "trained")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize(
        "phase", ["jobs/tf-idf.json", "runs/bare-seed-0/metrics.jsonl", "jobs/tf-idf-measure.json"]
    )
    def test_comparing(self, place, tmp_path, number, phase):
        out = tmp_path / "out"
        process = bertram(*comparing(place, out))
        wait_for(lambda: (out / phase).exists(), process)
        code, line, seconds = stop(process, number)
        assert code == 128 + number
        assert line.endswith(f"bertram: stopped by {number.name}; the same command goes on from here\n")
        assert seconds < 10
        assert not workers(out)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("seconds", [0.6, 1.0, 1.6, 2.2])
    def test_anywhere(self, place, tmp_path, number, seconds):
        process = bertram(*training(place, tmp_path / "out"), "--steps", "100000")
        time.sleep(seconds)
        code, line, took = stop(process, number)
        assert code == 128 + number
        assert f"stopped by {number.name}" in line
        assert "Traceback" not in line
        assert took < 10


def stop(process, number):
    began = time.monotonic()
    process.send_signal(number)
    line = process.communicate()[1]
    return process.returncode, line, time.monotonic() - began


@pytest.mark.parametrize("file", ["state.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["torn", "flipped", "gone"])
def test_the_checkpoint_before_a_damaged_one_is_used(place, tmp_path, file, damage):
    out = tmp_path / "out"
    process = bertram(*training(place, out))
    wait_for(lambda: len(checkpoints(out)) == 2 and max(losses(out)) > 30, process)
    process.kill()
    process.communicate()
    newest = checkpoints(out)[-1]
    content = bytearray((newest / file).read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        (newest / file).unlink()
    else:
        (newest / file).write_bytes(content[: len(content) // 2] if damage == "torn" else content)
    process = bertram(*training(place, out))
    said = process.communicate()[1]
    assert process.returncode == 0
    if (file, damage) != ("manifest.json", "gone"):  # without one it never was a checkpoint
        assert f"{newest}: this checkpoint is damaged; trying the one before it\n" in said
    same_training(out, place / "trained")


@pytest.mark.parametrize("sixteenth", range(16))
def test_a_full_disk_is_said_and_leaves_what_is_whole(place, tmp_path, sixteenth):
    """RLIMIT_FSIZE stands for a disk that fills up: during a checkpoint, or with 0 at the very first file."""
    out = tmp_path / "out"
    shutil.copytree(place / "trained", out)
    (out / "bertram.json").unlink()
    before = {path: path.read_bytes() for path in out.glob("checkpoints/step-*/*")}
    size = max(map(len, before.values()))

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size * sixteenth // 16,) * 2)

    process = bertram(*training(place, out), preexec_fn=fill, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    said = process.communicate()
    assert process.returncode == 1
    assert said[0] == ""
    assert said[1].startswith("bertram: ")
    assert said[1].count("\n") == 1
    assert "File too large" in said[1]
    assert {path: path.read_bytes() for path in before} == before
    assert bertram(*training(place, out)).wait() == 0
    same_training(out, place / "trained")
