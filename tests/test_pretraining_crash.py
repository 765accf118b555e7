"""Whatever stops a pre-training, the same command goes on bit for bit, and reads only the place where it stood."""

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from functools import partial

import numpy as np
import pytest

from bertram.corpus import blocks, store
from bertram.corpus.blocks import Blocks
from bertram.corpus.store import TokenStore
from bertram.text.tokenizer import Tokenizer
from bertram.training.metrics_file import read_metrics
from tiny import (
    Fork,
    also_slowly,
    bertram,
    checkpoints,
    finish,
    harm,
    kill_after,
    kill_past,
    losses,
    same_training,
    stop,
    wait_for,
)

KINDS = {"bert": "", "albert": ",embedding_size=16"}
SIZES = "hidden_size=32,num_attention_heads=2,intermediate_size=64"
OPTIONS = ["--max-length", "32", "--batch-size", "8", "--steps", "40", "--vocab-size", "200"]
OFTEN = ["--save-every", "5", "--log-every", "1", "--evaluations", "2"]
HOUR = 3600.0
BOTH = pytest.mark.parametrize("kind", KINDS, indirect=True)
"""Where it matters how weights are shared; elsewhere ALBERT is for the slow tests."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    found = tmp_path_factory.mktemp("pretraining")
    (found / "corpus.txt").write_text(prose(80))
    finish(Fork("version"))  # takes the time of the imports, once
    return found


def prose(documents):
    """Some 80 made-up words a document, of a lexicon of 400."""
    draws = random.Random(0)
    words = ["".join(draws.choices("aeioudklmnrst", k=draws.randint(2, 8))) for _ in range(400)]

    def sentence():
        return " ".join(draws.choices(words, k=draws.randint(4, 14))).capitalize() + "."

    return "\n\n".join(
        "\n".join(" ".join(sentence() for _ in range(draws.randint(1, 5))) for _ in range(draws.randint(1, 7)))
        for _ in range(documents)
    )


@pytest.fixture(scope="module", params=["bert", pytest.param("albert", marks=pytest.mark.slow)])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def seconds(place, kind):
    """How long a pre-training takes that nothing stops."""
    began = time.monotonic()
    finish(pretraining(place, place / kind, kind))
    return time.monotonic() - began


@pytest.fixture(scope="module")
def whole(place, kind, seconds):
    """What it leaves."""
    return place / kind


@pytest.fixture(scope="module")
def half(place, kind, whole):
    """A pre-training that was killed in its midst."""
    out = place / f"{kind}-half"
    kill_past(pretraining(place, out, kind), out, 20)
    assert len(checkpoints(out)) == 2
    return out


def pretraining(place, out, kind, prepare=None):
    """A process that begins one or goes on with one; `prepare` is called in it first."""
    return Fork(*command(place, out, kind), prepare=partial(miniature, prepare))


def command(place, out, kind):
    arguments = ["pretrain", place / "corpus.txt", "--model", f"{kind}-tiny", "--config", SIZES + KINDS[kind]]
    return [*arguments, *OPTIONS, *OFTEN, "--out", out, "--resume"]


def miniature(then=None):
    """Cut a few thousand words into as many chunks and blocks as a large corpus is cut into."""
    store._CHUNK, store._SAVED_EVERY, blocks._BLOCK_TOKENS, blocks._BATCHES_A_BLOCK = 2**11, 2, 1, 4
    if then is not None:
        then()


@BOTH
@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_pretraining_goes_on_bit_for_bit(place, kind, seconds, whole, tmp_path, kills):
    """Killed again and again, later and later, from the tokenizer's training to the last file."""
    draws, outs, phases = random.Random(kills), (tmp_path / str(number) for number in range(10 * kills)), []
    out = next(outs)
    for number in range(kills):
        instant = draws.uniform(number, number + 1) / kills * seconds
        while (code := kill_after(pretraining(place, out, kind), instant)) == 0:  # it had come to its end
            same_training(out, whole)
            out, instant = next(outs), draws.uniform(0, seconds)
        assert code == -signal.SIGKILL
        phases.append(phase(out))
    finish(pretraining(place, out, kind))
    same_training(out, whole)
    assert "training" in phases
    if kills == 50:
        assert {"tokenizer", "store"} < set(phases)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_on_two_threads_in_bfloat16_it_goes_on_bit_for_bit_too(place, tmp_path, kind):
    def pretraining(out):
        return bertram(*command(place, out, kind), "--precision", "bf16", threads=2)

    finish(pretraining(tmp_path / "whole"))
    for step in (7, 22):
        kill_past(pretraining(tmp_path / "out"), tmp_path / "out", step)
    facts = json.loads((checkpoints(tmp_path / "out")[-1] / "state.json").read_text())
    assert (facts["machine"]["threads"], facts["precision"]) == (2, "bf16")
    finish(pretraining(tmp_path / "out"))
    same_training(tmp_path / "out", tmp_path / "whole")


def phase(out):
    """What a training that was stopped was at."""
    if not (out / "tokenizer.json").exists():
        return "tokenizer"
    return "training" if (out / "store" / "train" / "store.json").exists() else "store"


def test_a_killed_build_of_the_store_goes_on_where_it_was(place, kind, whole, tmp_path):
    out = tmp_path / "out"
    process = pretraining(place, out, kind)
    wait_for((out / "store" / "train" / "progress.json").exists, process)
    process.kill()
    process.communicate()
    assert phase(out) == "store"
    unfinished = out / "store" / "train" / ".progress.json.unfinished-0"  # as if killed while writing it
    unfinished.mkdir()
    (unfinished / "progress.json").touch()
    finish(pretraining(place, out, kind))
    same_training(out, whole)
    for file in (whole / "store").rglob("*.*"):
        assert (out / file.relative_to(whole)).read_bytes() == file.read_bytes()


class TestSignals:
    @BOTH
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_training_ends_with_a_checkpoint(self, place, kind, whole, tmp_path, number):
        out = tmp_path / "out"
        process = pretraining(place, out, kind)
        wait_for(lambda: len(losses(out)) > 10, process)
        code, line, seconds = stop(process, number)
        assert code == 128 + number
        assert line == (
            f"bertram: stopped by {number.name}; a checkpoint was written, and the same command with --resume "
            "goes on from it\n"
        )
        assert seconds < 10
        assert checkpoints(out)[-1].name == f"step-{max(losses(out))}"
        finish(pretraining(place, out, kind))
        same_training(out, whole)

    @pytest.mark.parametrize(
        "file", also_slowly(["store/train/progress.json"], [("training.json",), ("tokenizer.json",)])
    )
    def test_before_training_it_ends_at_once(self, place, kind, whole, tmp_path, file):
        out = tmp_path / "out"
        process = pretraining(place, out, kind)
        wait_for((out / file).exists, process)
        code, line, seconds = stop(process, signal.SIGTERM)
        assert code == 128 + signal.SIGTERM
        assert line.startswith("bertram: stopped by SIGTERM")
        assert line.count("\n") == 1
        assert seconds < 10
        finish(pretraining(place, out, kind))
        same_training(out, whole)


@pytest.mark.parametrize(
    ("file", "damage"),
    also_slowly(
        [("state.safetensors", "torn"), ("state.safetensors", "flipped"), ("manifest.json", "gone")],
        [("state.json", "torn"), ("state.json", "flipped"), ("manifest.json", "flipped"), ("state.json", "gone")],
    ),
)
def test_the_checkpoint_before_a_damaged_one_is_used(place, kind, whole, half, tmp_path, file, damage):
    out = shutil.copytree(half, tmp_path / "out")
    newest = checkpoints(out)[-1]
    harm(newest / file, damage)
    said = finish(pretraining(place, out, kind))
    assert f"{newest}: this checkpoint is damaged; going on with the one before it\n" in said
    same_training(out, whole)


@pytest.mark.parametrize("part", also_slowly([0.03, 0.8], [((k / 31) ** 2,) for k in range(1, 31)]))
def test_a_full_disk_is_said_and_leaves_what_is_whole(place, kind, whole, tmp_path, part):
    """The disk fills up at some part of all that a pre-training leaves on it, more often among the early files."""
    out = tmp_path / "out"
    process = pretraining(place, out, kind, partial(full_disk, out, int(part * size(whole))))
    said = process.communicate()
    assert process.returncode == 1
    assert said[0] == ""
    assert said[1].count("\n") == 1
    assert said[1].startswith("bertram: ")
    assert "File too large" in said[1]
    assert all(map(is_whole, checkpoints(out)))
    assert len(checkpoints(out)) >= min(2, (max(losses(out), default=1) - 1) // 5)  # of all steps but the last
    assert "damaged" not in finish(pretraining(place, out, kind))
    same_training(out, whole)


def size(directory):
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def full_disk(out, room):
    """Let files in `out` take so many bytes: whenever one is opened, what is left becomes the limit of any file."""

    def look(event, arguments):
        if event == "open":
            left = max(0, room - size(out))
            resource.setrlimit(resource.RLIMIT_FSIZE, (left, resource.RLIM_INFINITY))

    sys.addaudithook(look)


def is_whole(checkpoint):
    sums = json.loads((checkpoint / "manifest.json").read_text())
    return sums == {name: hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() for name in sums}


def test_a_jumping_clock_disturbs_nothing(place, kind, whole, tmp_path):
    out = tmp_path / "out"
    for step, hours in ((8, -7), (22, 9)):
        kill_past(pretraining(place, out, kind, jumping_clock), out, step)
        for path in out.rglob("*"):
            os.utime(path, times=(then := time.time() + hours * HOUR, then))
    finish(pretraining(place, out, kind, jumping_clock))
    same_training(out, whole)
    lines = read_metrics(out / "metrics.jsonl")
    assert all(value >= 0 for line in lines for value in line.values())
    assert [line["seconds"] for line in lines] == sorted(line["seconds"] for line in lines)
    assert lines[-1]["seconds"] < HOUR


def jumping_clock():
    """Have the time of day jump by hours, forwards or backwards, whenever it is looked at."""
    draws, now, now_ns = random.Random(0), time.time, time.time_ns
    time.time = lambda: now() + draws.uniform(-12, 12) * HOUR
    time.time_ns = lambda: now_ns() + int(draws.uniform(-12, 12) * HOUR * 1e9)


def test_the_corpus_is_not_read_again(place, kind, whole, half, tmp_path):
    """Bytes of the same number that are no text, where the corpus was."""
    out = shutil.copytree(half, tmp_path / "out")
    corpus = place / "corpus.txt"
    (tmp_path / "corpus.txt").write_bytes(b"\xff" * corpus.stat().st_size)
    finish(pretraining(tmp_path, out, kind))
    same_training(out, whole)


class Counted:
    """An array that counts the elements read from it."""

    def __init__(self, values):
        self.values, self.read = values, 0

    def __len__(self):
        return len(self.values)

    def __getitem__(self, key):
        found = self.values[key]
        self.read += np.size(found)
        return found

    def searchsorted(self, wanted, side="left", sorter=None):
        self.read += np.size(wanted) * len(self).bit_length()
        return self.values.searchsorted(wanted, side)


@pytest.mark.parametrize("objective", ["nsp", "sop"])
def test_a_place_is_found_without_what_lies_before_it(monkeypatch, objective):
    """Resuming reads two blocks, the first and its own, of a corpus of any size; what it finds is what a walk finds."""
    monkeypatch.setattr(blocks, "_BLOCK_TOKENS", 2**12)
    tokenizer = Tokenizer.train(prose(20).splitlines(), "bert", 200)

    def feed(parts):
        columns = {name: Counted(values) for name, values in made_up_store(parts, tokenizer).items()}
        settings = {"max_length": 32, "batch_tokens": 256, "seed": 0}
        return columns, Blocks(TokenStore(**columns), tokenizer, objective, "token", **settings)

    walker, position = feed(1000)[1], Blocks.start
    while position != (3, 2, 5):
        position = walker.take(position)[1]
    expected, read = walker.take(position)[0], {}
    for parts in (1000, 10_000):
        columns, blocks_of = feed(parts)
        found = blocks_of.take((3, 2, 5))[0]
        read[parts] = {name: column.read for name, column in columns.items()}
        if parts == 1000:
            assert np.array_equal(found.inputs.token_ids, expected.inputs.token_ids)
            assert np.array_equal(found.inputs.offsets, expected.inputs.offsets)
            for ours, theirs in ((found.labels, expected.labels), (found.token_labels, expected.token_labels)):
                assert ours.keys() == theirs.keys()
                assert all(np.array_equal(ours[head], theirs[head]) for head in ours)
    assert all(read[10_000][name] < 1.5 * read[1000][name] for name in read[1000])
    assert read[10_000]["tokens"] < 10 * 2**12


def made_up_store(parts, tokenizer):
    """Parts of four sentences of eight random tokens, two a document."""
    tokens = np.random.default_rng(0).choice(np.flatnonzero(~tokenizer.special), 32 * parts)
    return {
        "tokens": tokens.astype("<u2"),
        "sentences": np.arange(0, len(tokens) + 1, 8),
        "parts": np.arange(0, 4 * parts + 1, 4),
        "documents": np.arange(parts) // 2,
    }
