"""Whatever stops a training or a comparison, the same command goes on, and nothing shows that it was stopped."""

import contextlib
import json
import os
import pty
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from forked_jobs import fork_jobs
from teachers import teacher, texts
from tiny import (
    Fork,
    also_slowly,
    bertram,
    checkpoints,
    finish,
    handles,
    harm,
    kill_after,
    kill_past,
    losses,
    measure_briefly,
    model_directory,
    same_training,
    stop,
    table,
    wait_for,
)
from translating import TINY, write_pairs

OPTIONS = ["--batch-size", "4", "--save-every", "7", "--log-every", "1", "--evaluations", "6"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    found = tmp_path_factory.mktemp("crash")
    table(found / "good.csv")
    model_directory(found / "bare")
    finish(Fork("version"))  # takes the time of the imports, once
    return found


@pytest.fixture(scope="module")
def training_seconds(place):
    """How long a training takes that nothing stops."""
    return complete(training(place, place / "trained"))


@pytest.fixture(scope="module")
def trained(place, training_seconds):
    """What it leaves."""
    return place / "trained"


@pytest.fixture(scope="module")
def comparing_seconds(place):
    """How long a comparison takes that nothing stops."""
    return complete(comparing(place, place / "compared"))


@pytest.fixture(scope="module")
def compared(place, comparing_seconds):
    """What it leaves."""
    return place / "compared"


def begin(arguments):
    """A process that runs the command, and forks its jobs if it compares."""
    return Fork(*arguments, prepare=fork_jobs)


def complete(arguments):
    """Run the command to its end; how many seconds that took."""
    began = time.monotonic()
    finish(begin(arguments))
    return time.monotonic() - began


@pytest.fixture(scope="module")
def half(place):
    """A training that was stopped in its midst."""
    out = place / "half"
    kill_past(begin(training(place, out)), out, 40)
    assert len(checkpoints(out)) in (2, 3)  # the third was written and the first not yet deleted
    return out


def training(place, out, steps=120):
    arguments = ["train", "classification", place / "good.csv", "--model", place / "bare", "--out", out]
    return [*arguments, *OPTIONS, "--learning-rate", 1e-3, "--steps", steps, "--resume"]


def comparing(place, out, steps=40):
    models = ["--models", place / "bare", "--seeds", 2]
    return ["compare", place / "good.csv", *models, "--out", out, *OPTIONS, "--steps", steps]


def translating(place, out):
    model = ["--model", "transformer-tiny", "--config", TINY, "--vocab-size", 100, "--out", out]
    return ["train", "translation", *write_pairs(place, 200), *model, *OPTIONS, "--steps", 120, "--resume"]


def killed_often(command, place, same, *, kills, seconds, seed):
    """Kill a command when it has a checkpoint to go on from, then so often at random instants, and let it end.

    Undisturbed it takes so many `seconds`. Where it had come to its end, what it left at `place` must be the `same`,
    and it begins again elsewhere.
    """
    draws, outs = random.Random(seed), (place / f"out-{number}" for number in range(10 * kills))
    out = next(outs)
    process = begin(command(out))
    wait_for(lambda: any(any(out.glob(f"{run}checkpoints/step-*")) for run in ("", "runs/*/")), process)
    process.kill()
    process.communicate()
    for _ in range(kills):
        while (code := kill_after(begin(command(out)), draws.uniform(0, seconds))) == 0:
            same(out)
            out = next(outs)
        assert code == -signal.SIGKILL
    complete(command(out))
    same(out)


@pytest.mark.parametrize(("kills", "seed"), also_slowly([(3, 0)], [(10, seed) for seed in range(1, 21)]))
def test_killed_training_goes_on_bit_for_bit(place, training_seconds, trained, tmp_path, kills, seed):
    command, same = partial(training, place), partial(same_training, expected=trained)
    killed_often(command, tmp_path, same, kills=kills, seconds=training_seconds, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_translation_goes_on_bit_for_bit(tmp_path, seed):
    seconds = complete(translating(tmp_path, tmp_path / "whole"))
    command, same = partial(translating, tmp_path), partial(same_training, expected=tmp_path / "whole")
    killed_often(command, tmp_path, same, kills=10, seconds=seconds, seed=seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_shrinking_goes_on_bit_for_bit(tmp_path, seed):
    """The teaching, and then measuring both as engines."""
    teacher(tmp_path / "teacher", {"masked_language_model": 0})
    texts(tmp_path / "texts.txt")

    def shrinking(out):
        sizes = ["--groups", 2, "--embedding-size", 16]
        taught = ["shrink", tmp_path / "teacher", "--texts", tmp_path / "texts.txt", "--out", out, *sizes]
        return [*taught, *OPTIONS, "--steps", 40, "--resume"]

    def same(out):
        same_training(out, tmp_path / "whole")
        ours, theirs = (json.loads((place / "results.json").read_text()) for place in (out, tmp_path / "whole"))
        assert ours["agreement"] == theirs["agreement"]
        assert (out / "model.engine").read_bytes() == (tmp_path / "whole" / "model.engine").read_bytes()

    seconds = complete(shrinking(tmp_path / "whole"))
    killed_often(shrinking, tmp_path, same, kills=10, seconds=seconds, seed=seed)


@pytest.mark.parametrize(("kills", "seed"), also_slowly([(1, 25)], [(10, seed) for seed in range(1, 21)]))
def test_killed_comparison_goes_on(place, comparing_seconds, compared, tmp_path, kills, seed):
    command, same = partial(comparing, place), partial(same_comparison, expected=compared)
    killed_often(command, tmp_path, same, kills=kills, seconds=comparing_seconds, seed=seed)


def same_comparison(out, expected):
    for run in sorted((expected / "runs").iterdir()):
        if run.name != "tf-idf":
            same_training(out / "runs" / run.name, run)
    ours, theirs = (json.loads((d / "results.json").read_text()) for d in (out, expected))
    assert [row["score"] for row in ours["candidates"]] == [row["score"] for row in theirs["candidates"]]
    assert ours["comparisons"] == theirs["comparisons"]


def test_a_killed_comparison_leaves_no_process_behind(place, tmp_path):
    process = bertram(*comparing(place, tmp_path / "out", steps=100_000))
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


def test_finished_work_is_not_repeated(place, trained, compared, tmp_path):
    out = shutil.copytree(trained, tmp_path / "trained")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    process = begin(training(place, out))
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before

    out = shutil.copytree(compared, tmp_path / "compared")
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    complete(comparing(place, out))
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")} == before


class TestSignals:
    """A signal is answered within 10 seconds with a checkpoint, and the same command goes on."""

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_training(self, place, trained, tmp_path, number):
        out = tmp_path / "out"
        process = begin(training(place, out))
        wait_for(lambda: len(losses(out)) > 20, process)
        code, line, seconds = stop(process, number)
        assert code == 128 + number
        assert line.endswith(
            f"stopped by {number.name}; a checkpoint was written, and the same command with --resume goes on from it\n"
        )
        assert seconds < 10
        last = max(losses(out))
        assert checkpoints(out)[-1].name == f"step-{last}"
        complete(training(place, out))
        same_training(out, trained)

    def test_a_terminal_that_is_closed(self, place, trained, tmp_path):
        """Which sends a hangup, and takes nothing any more that is written to it."""
        out, (ours, theirs) = tmp_path / "out", pty.openpty()
        leads = """
import os, sys
handle = os.open(sys.argv[1], os.O_RDWR)  # as the first to open it
for number in range(3):
    os.dup2(handle, number)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
        command = ["-m", "bertram.cli", *map(str, training(place, out))]
        process = subprocess.Popen([sys.executable, "-c", leads, os.ttyname(theirs), *command], start_new_session=True)
        os.close(theirs)
        os.set_blocking(ours, False)

        def far():
            with contextlib.suppress(OSError):  # there is nothing, or nobody has opened it yet
                os.read(ours, 2**16)
            return len(losses(out)) > 20

        wait_for(far, process)
        os.close(ours)
        assert process.wait(10) == 128 + signal.SIGHUP
        assert checkpoints(out)[-1].name == f"step-{max(losses(out))}"
        complete(training(place, out))
        same_training(out, trained)

    @pytest.mark.parametrize(
        ("number", "phase"),
        also_slowly(
            [(signal.SIGINT, "jobs/tf-idf.json"), (signal.SIGTERM, "runs/bare-seed-0/metrics.jsonl")],
            [(signal.SIGINT, "jobs/tf-idf-measure.json"), (signal.SIGTERM, "jobs/bare-measure.json")],
        ),
    )
    def test_comparing(self, place, tmp_path, number, phase):
        out = tmp_path / "out"
        process = Fork(*comparing(place, out), prepare=measure_briefly)  # with jobs that `workers` finds
        wait_for(lambda: (out / phase).exists(), process)
        code, line, seconds = stop(process, number)
        assert code == 128 + number
        assert line.splitlines()[-1].startswith(f"bertram: stopped by {number.name}")
        assert seconds < 10
        assert not workers(out)

    @pytest.mark.parametrize(
        ("number", "seconds"),
        also_slowly(
            [(signal.SIGINT, 1.0), (signal.SIGTERM, 2.0)],
            [(number, tenths / 10) for number in (signal.SIGINT, signal.SIGTERM) for tenths in range(0, 36, 3)],
        ),
    )
    def test_anywhere(self, place, tmp_path, number, seconds):
        """From where the command line begins, which shows in a handler of SIGTERM: Python itself has none."""
        process = bertram(*training(place, tmp_path / "out", steps=100_000))
        wait_for(lambda: handles(process, signal.SIGTERM), process)
        time.sleep(seconds)
        code, line, took = stop(process, number)
        assert code == 128 + number
        assert f"stopped by {number.name}" in line
        assert "Traceback" not in line
        assert took < 10


@pytest.mark.parametrize(
    ("file", "damage"),
    also_slowly(
        [("state.safetensors", "torn"), ("state.json", "flipped"), ("manifest.json", "torn")],
        [("state.safetensors", "flipped"), ("state.json", "gone"), ("manifest.json", "gone")],
    ),
)
def test_the_checkpoint_before_a_damaged_one_is_used(place, trained, half, tmp_path, file, damage):
    out = shutil.copytree(half, tmp_path / "out")
    newest = checkpoints(out)[-1]
    harm(newest / file, damage)
    said = finish(begin(training(place, out)))
    assert f"{newest}: this checkpoint is damaged; going on with the one before it\n" in said
    same_training(out, trained)


def test_without_a_whole_checkpoint_nothing_is_made_up(place, half, tmp_path):
    out = shutil.copytree(half, tmp_path / "out")
    for checkpoint in checkpoints(out):
        (checkpoint / "state.safetensors").write_bytes(b"")
    process = begin(training(place, out))
    said = process.communicate()[1]
    assert process.returncode == 2
    assert said.endswith("no checkpoint is whole; delete the directory to start again\n")


@pytest.mark.parametrize(
    "part", also_slowly([1 / 32, 15 / 32, 31 / 32], [(k / 32,) for k in range(3, 31, 2) if k != 15])
)
def test_a_full_disk_is_said_and_leaves_what_is_whole(place, trained, half, tmp_path, part):
    """RLIMIT_FSIZE stands for a disk that fills up at some part of a checkpoint."""
    out = shutil.copytree(half, tmp_path / "out")
    before = {path: path.read_bytes() for path in checkpoints(out)[-1].iterdir()}
    limit = int(max(map(len, before.values())) * part)
    full = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (limit, limit))
    process = Fork(*training(place, out), prepare=full)
    said = process.communicate()
    assert process.returncode == 1
    assert said[0] == ""
    assert "Traceback" not in said[1]
    last = said[1].splitlines()[-1]
    assert [line for line in said[1].splitlines() if "File too large" in line] == [last]
    assert last.startswith(f"bertram: {out}/")
    assert {path: path.read_bytes() for path in before} == before
    complete(training(place, out))
    same_training(out, trained)
