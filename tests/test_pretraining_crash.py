"""Whatever stops a pre-training, the same command goes on bit for bit, reading no more than the place where it stood."""

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

from bertram.text import blocks, store
from bertram.text.blocks import Blocks
from bertram.text.store import TokenStore
from bertram.text.tokenizer import Tokenizer
from bertram.training.metrics_file import read_metrics
from tiny import (
    Fork,
    also_slowly,
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


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    found = tmp_path_factory.mktemp("pretraining")
    (found / "corpus.txt").write_text(prose(80))
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


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def whole(place, kind):
    """A pre-training that nothing stopped."""
    began = time.monotonic()
    finish(pretraining(place, place / kind, kind))
    (place / f"{kind}.seconds").write_text(str(time.monotonic() - began))
    return place / kind


@pytest.fixture(scope="module")
def half(place, kind, whole):
    """A pre-training that was killed in its midst."""
    out = place / f"{kind}-half"
    kill_past(pretraining(place, out, kind), out, 20)
    assert len(checkpoints(out)) == 2
    return out


def pretraining(place, out, kind, prepare=None):
    """A process that begins one, or goes on with one."""
    arguments = ["pretrain", place / "corpus.txt", "--model", f"{kind}-tiny", "--config", SIZES + KINDS[kind]]
    return Fork(*arguments, *OPTIONS, *OFTEN, "--out", out, "--resume", prepare=partial(miniature, prepare))


def miniature(then=None):
    """Cut a few thousand words into as many chunks and blocks as a large corpus is cut into."""
    store._CHUNK, store._SAVED_EVERY, blocks._BLOCK_TOKENS = 2**11, 2, 1
    if then is not None:
        then()
