"""Several processes make the same training as one, whatever stops them, and speak with one voice."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import numpy as np
import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from bertram import saving
from bertram.batch import Batch, Examples
from bertram.corpus import store
from bertram.errors import BadInput
from bertram.models import heads
from bertram.processes import speaks
from bertram.training import checkpoint
from bertram.training.distributed import Processes, together
from bertram.training.metrics_file import read_metrics
from tiny import Fork, checkpoints, finish, losses, same_training, wait_for

SIZES = "hidden_size=32,num_attention_heads=2,intermediate_size=64,num_hidden_layers=2"
NO_DROPOUT = "hidden_dropout_prob=0.0,attention_probs_dropout_prob=0.0"
TIMINGS = ("seconds", "tokens_per_second", "data_share")

FIGURES = 1e-6
"""Relative. A loss or norm is a float32 sum, which the processes add up in another order. Each rounding on the way is
off by at most 2^-24 = 6e-8 of it; the largest difference seen is 1.9e-7, and this allows for 16 roundings. One process
that takes the same batches in smaller passes, another order too, differs from itself by 1.6e-7."""
WEIGHTS = 3e-6
"""Absolute. AdamW divides a gradient by its own size, so that the rounding of one that nearly cancels counts in full.
Seen were 1.2e-7, one rounding of a weight of 1, and on another corpus 5.7e-7; 20 steps move weights by up to 1e-2."""


def test_only_who_prepares_is_waited_for_patiently(monkeypatch):
    asked = []
    monkeypatch.setattr(dist, "barrier", asked.append)
    processes = Processes(0, 2, torch.device("cpu"), "usual", "patient")
    processes.wait()
    processes.wait(patiently=True)
    assert asked == ["usual", "patient"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Some 6,000 made-up words in 40 documents."""
    draws = random.Random(0)
    words = ["".join(draws.choices("aeioudklmnrst", k=draws.randint(2, 6))) for _ in range(150)]
    documents = [
        "\n".join(" ".join(draws.choices(words, k=draws.randint(4, 14))) + "." for _ in range(draws.randint(8, 26)))
        for _ in range(40)
    ]
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n\n".join(documents))
    return path


def command(corpus, out, *options, steps=20, batch_size=8):
    sizes = ["--model", "bert-mini", "--config", f"{SIZES},{NO_DROPOUT}", "--vocab-size", 200, "--max-length", 32]
    budget = ["--batch-size", batch_size, "--steps", steps, "--evaluations", 2, "--save-every", 10, "--log-every", 1]
    return ["pretrain", corpus, *sizes, *budget, "--precision", "fp32", "--out", out, *options]


class Together:
    """The command line in several processes, told of each other as torchrun does it."""

    def __init__(self, size, arguments, hooks=None):
        """`hooks` are called in the process of that number before the command."""
        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.processes = [
            Fork(*arguments, prepare=partial(join, self.store.port, size, rank, (hooks or {}).get(rank)))
            for rank in range(size)
        ]

    def end(self):
        """Exit codes, what was said on stdout, and on stderr; of each process."""
        said = [process.communicate() for process in self.processes]
        return [process.returncode for process in self.processes], *map(list, zip(*said, strict=True))


def join(port, size, rank, hook):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_USE_AGENT_STORE="True")
    os.environ.update(WORLD_SIZE=str(size), RANK=str(rank), LOCAL_WORLD_SIZE=str(size), LOCAL_RANK=str(rank))
    if rank > 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # these write no byte to any file, or fail
    if hook is not None:
        hook()


def finish_together(size, arguments, hooks=None):
    codes, out, err = Together(size, arguments, hooks).end()
    assert codes == [0] * size, err
    assert "finished after" in out[0]
    assert not any(out[1:] + err[1:])


def torchrun(arguments):
    runner = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*runner, "-m", "bertram.cli", *map(str, arguments)],
        text=True,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def our_lines(err):
    return [line for line in err.splitlines() if line.startswith("bertram: ")]


def same_curve(out, expected):
    """Every figure and every weight, to what float32 sums in another order need."""
    ours, theirs = (read_metrics(path / "metrics.jsonl") for path in (out, expected))
    assert [line.keys() for line in ours] == [line.keys() for line in theirs]
    for line, other in zip(ours, theirs, strict=True):
        for name in line.keys() - set(TIMINGS):
            assert line[name] == pytest.approx(other[name], rel=FIGURES, abs=0), (name, line["step"])
    scores, others = (json.loads((path / "bertram.json").read_text())["scores"] for path in (out, expected))
    assert scores == pytest.approx(others, rel=FIGURES, abs=0)
    weights, others = (load_file(path / "model.safetensors") for path in (out, expected))
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        assert (weight - others[name]).abs().max() < WEIGHTS, name


@pytest.fixture(scope="module")
def by_one(corpus, tmp_path_factory):
    """What one process leaves, and its checkpoints."""
    out = tmp_path_factory.mktemp("by") / "one"
    finish(Fork(*command(corpus, out), prepare=keep_checkpoints))
    return out


@pytest.fixture(scope="module")
def by_two(corpus, tmp_path_factory):
    """What two leave, and their checkpoints."""
    out = tmp_path_factory.mktemp("by") / "two"
    finish_together(2, command(corpus, out), {0: keep_checkpoints})
    return out


def half_of(whole, out):
    """What a kill after step 10 and before the end would have left of a training."""
    shutil.copytree(whole, out, ignore=shutil.ignore_patterns("step-20", "bertram.json", "model.safetensors", "*.md"))
    assert [path.name for path in checkpoints(out)] == ["step-10"]
    return out


@given(st.lists(st.integers(1, 6), min_size=1, max_size=12), st.integers(1, 5))
def test_every_sequence_is_in_one_share(lengths, size):
    """With its own targets; also where there are fewer sequences than processes."""
    ids = [[100 * row + place for place in range(length)] for row, length in enumerate(lengths)]
    batch = Batch.pack(ids)
    examples = Examples(batch, {"sentence_pair": np.arange(len(ids))}, {"masked_language_model": -batch.token_ids})
    found = []
    for rank in range(size):
        share = Processes(rank, size, torch.device("cpu")).share(examples)
        assert (share.token_labels["masked_language_model"] == -share.inputs.token_ids).all()
        cut = [part.tolist() for part in np.split(share.inputs.token_ids, share.inputs.offsets[1:-1])]
        found += list(zip(share.labels["sentence_pair"].tolist(), cut, strict=False))
        assert len(share) in (len(ids) // size, -(-len(ids) // size))
    assert sorted(found) == list(enumerate(ids))


class TestTheCurveIsThatOfOneProcess:
    def test_two(self, by_one, by_two):
        same_curve(by_two, by_one)

    @pytest.mark.parametrize(
        "options",
        [["--max-tokens", 64], ["--optimizer", "lamb"], ["--optimizer", "lamb", "--max-tokens", 64]],
        ids=["several passes", "lamb", "lamb, several passes"],
    )
    def test_two_with_lamb_or_several_passes_a_step(self, corpus, tmp_path, options):
        finish(Fork(*command(corpus, tmp_path / "one", *options)))
        finish_together(2, command(corpus, tmp_path / "two", *options))
        same_curve(tmp_path / "two", tmp_path / "one")

    def test_three_with_batches_of_fewer_sequences(self, corpus, tmp_path):
        finish(Fork(*command(corpus, tmp_path / "one", batch_size=1)))
        finish_together(3, command(corpus, tmp_path / "three", batch_size=1))
        same_curve(tmp_path / "three", tmp_path / "one")

    def test_resumed_by_another_number_of_processes(self, corpus, by_one, by_two, tmp_path):
        finish(Fork(*command(corpus, half_of(by_two, tmp_path / "then one"), "--resume")))
        finish_together(2, command(corpus, half_of(by_one, tmp_path / "then two"), "--resume"))
        for out in (tmp_path / "then one", tmp_path / "then two"):
            same_curve(out, by_one)


def test_finished_training_is_left_as_it_is(corpus, by_two, tmp_path):
    out = shutil.copytree(by_two, tmp_path / "out", ignore=shutil.ignore_patterns("checkpoints"))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    finish_together(2, command(corpus, out, "--resume"))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_stopped_under_torchrun_and_resumed(corpus, tmp_path):
    """With every process told to stop, as torchrun tells them; nothing shows afterwards."""
    out, steps = tmp_path / "out", 150
    process = torchrun(command(corpus, out, steps=steps))
    wait_for(lambda: max(losses(out), default=0) > 20, process)
    process.terminate()
    _, err = process.communicate()
    assert process.returncode != 0
    assert our_lines(err) == [
        "bertram: stopped by SIGTERM; a checkpoint was written, and the same command with --resume goes on from it"
    ]
    step = max(losses(out))
    assert 20 < step < steps
    _, facts = checkpoint.load_latest(out / "checkpoints")
    assert facts["state"]["step"] == step

    finish_together(2, command(corpus, out, "--resume", steps=steps))
    finish_together(2, command(corpus, tmp_path / "unbroken", steps=steps))
    same_training(out, tmp_path / "unbroken")


def test_signal_to_one_stops_all_when_the_checkpoint_is_written(corpus, tmp_path):
    """Else torchrun, which ends all when it sees one end, would break off the writing."""
    out = tmp_path / "out"
    together = Together(2, command(corpus, out, steps=100), {0: slow_checkpoints})
    wait_for(lambda: max(losses(out), default=0) > 3, together.processes[0])
    together.processes[1].send_signal(signal.SIGTERM)
    together.processes[1].wait()
    assert checkpoints(out)[-1].name == f"step-{max(losses(out))}"
    assert together.end()[0] == [128 + signal.SIGTERM] * 2


class TestWhoIsStartedByTorchrun:
    """One that knows both its number and how many there are."""

    @pytest.mark.parametrize("alone", ["RANK", "WORLD_SIZE"])
    def test_half_of_it_is_nobody(self, monkeypatch, alone):
        for name in ("RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(alone, "3")
        assert speaks()
        with together() as processes:
            assert (processes.rank, processes.size) == (0, 1)

    @pytest.mark.parametrize("rank", [0, 1])
    def test_number_0_speaks(self, monkeypatch, rank):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert speaks() == (rank == 0)

    @pytest.mark.parametrize("size", ["1", "two"], ids=["no address", "no number"])
    def test_what_cannot_be_used_is_one_line(self, monkeypatch, size):
        monkeypatch.delenv("MASTER_ADDR", raising=False)
        monkeypatch.setenv("RANK", "0")
        monkeypatch.setenv("WORLD_SIZE", size)
        with pytest.raises(BadInput, match=r"^[^\n]+; torchrun sets what is needed[^\n]+$"), together():
            pass


class TestErrorsAreSaidOnce:
    """And all processes end."""

    def one_line(self, together, code):
        codes, out, err = together.end()
        assert 0 not in codes
        assert code in codes
        assert not any(out)
        lines = [line for text in err for line in text.splitlines()]
        assert len(lines) == 1, err
        assert lines[0].startswith("bertram: ")
        return lines[0]

    def test_of_all(self, corpus, tmp_path):
        line = self.one_line(Together(2, command(tmp_path / "nowhere.txt", tmp_path / "out")), 2)
        assert "nowhere.txt" in line

    def test_while_the_others_wait(self, corpus, tmp_path):
        (tmp_path / "file").write_text("")
        assert "is not empty" in self.one_line(Together(2, command(corpus, tmp_path)), 2)

    def test_before_the_first_step(self, corpus, tmp_path):
        (tmp_path / "one.txt").write_text("one two three")
        self.one_line(Together(2, command(tmp_path / "one.txt", tmp_path / "out")), 2)

    def test_full_disk(self, corpus, tmp_path):
        together = Together(2, command(corpus, tmp_path / "out"), {0: small_disk})
        assert "File too large" in self.one_line(together, 1)
        assert not losses(tmp_path / "out")

    def test_process_that_is_killed(self, corpus, tmp_path):
        out = tmp_path / "out"
        together = Together(2, command(corpus, out, steps=100))
        wait_for(lambda: max(losses(out), default=0) > 20, together.processes[0])
        together.processes[1].kill()
        assert "another process of this training ended" in self.one_line(together, 1)
        finish_together(2, command(corpus, out, "--resume", steps=100))

    def test_signal_while_the_others_wait(self, corpus, tmp_path):
        out = tmp_path / "out"
        together = Together(2, command(corpus, out), {0: slow_store})
        wait_for((out / "tokenizer.json").exists, together.processes[0])
        began = time.monotonic()
        for process in together.processes:
            process.send_signal(signal.SIGTERM)
        assert self.one_line(together, 128 + signal.SIGTERM) == "bertram: stopped by SIGTERM"
        assert time.monotonic() - began < 5

    def test_processes_that_do_not_begin_alike(self, corpus, tmp_path):
        line = self.one_line(Together(2, command(corpus, tmp_path / "out"), {1: other_weights}), 2)
        assert "different weights" in line


def small_disk():
    """Room for a tokenizer and a store, not for a checkpoint."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def keep_checkpoints():
    """Also when a training has finished."""
    saving.discard_checkpoints = lambda out, manifest: None


def slow_checkpoints():
    write = checkpoint.write_tensors
    checkpoint.write_tensors = lambda *arguments: (time.sleep(0.5), write(*arguments))


def slow_store():
    store.build = lambda *arguments, **how: time.sleep(60)


def other_weights():
    heads.initialize_weights = lambda model, deviation: None
