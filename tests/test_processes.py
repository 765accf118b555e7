"""What a process of ours sets for itself."""

import os
import subprocess
import sys

import pytest

from bertram.pretraining import pretrain as pretraining
from bertram.processes import share_cores
from bertram.shrinking import shrink as shrinking
from bertram.training.recipe import Recipe
from tiny import table

NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.mark.parametrize("name", NAMES)
def test_what_the_user_set_stays(monkeypatch, name):
    for other in NAMES:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "7")
    before = dict(os.environ)
    share_cores()
    assert dict(os.environ) == before


@pytest.mark.skipif(sys.platform != "linux", reason="torch comes with GNU's OpenMP on Linux")
def test_a_training_sets_it_before_openmp_looks(tmp_path):
    """Every library that brings an OpenMP of its own looks when it is loaded."""
    table(tmp_path / "data.csv", 40)
    command = ["train", "classification", "data.csv", "--model", "bert-tiny", "--dry-run", "--out", "out"]
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run(
        [sys.executable, "-m", "bertram.cli", *command],
        cwd=tmp_path,
        env=environment | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.count("GOMP_SPINCOUNT = '10000'") == done.stderr.count("DISPLAY ENVIRONMENT BEGIN") > 0


class Loading(Exception):
    """Of libraries."""


@pytest.mark.parametrize(
    ("room", "call"),
    [
        (pretraining, lambda: pretraining.pretrain([], model="bert-tiny", out="out", recipe=Recipe())),
        (shrinking, lambda: shrinking.shrink("bert-tiny", [], "out", recipe=Recipe())),
    ],
)
def test_so_do_the_others(monkeypatch, room, call):
    def load(*_):
        raise Loading(os.environ.get("GOMP_SPINCOUNT"))

    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(room, "require_all", load)
    with pytest.raises(Loading, match="10000"):
        call()
