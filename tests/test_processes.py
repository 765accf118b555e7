"""What a process of ours sets for itself."""

import os
import subprocess
import sys

import pytest

from bertram.processes import share_cores
from tiny import table


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_what_the_user_set_stays(monkeypatch, name):
    for other in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "7")
    before = dict(os.environ)
    share_cores()
    assert dict(os.environ) == before


@pytest.mark.skipif(sys.platform != "linux", reason="torch comes with GNU's OpenMP on Linux")
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["train", "classification", "data.csv", "--model", "bert-tiny", "--dry-run"], 0),
        (["pretrain", "data.csv", "--model", "bert-tiny"], 2),  # for want of a budget, which libraries come before
        (["shrink", "bert-tiny", "--texts", "data.csv"], 2),
    ],
)
def test_a_training_sets_it_before_openmp_looks(tmp_path, command, code):
    """Every library that brings an OpenMP of its own looks when it is loaded."""
    table(tmp_path / "data.csv", 40)
    environment = {
        name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
    }
    done = subprocess.run(
        [sys.executable, "-m", "bertram.cli", *command, "--out", "out"],
        cwd=tmp_path,
        env=environment | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert done.stderr.count("GOMP_SPINCOUNT = '10000'") == done.stderr.count("DISPLAY ENVIRONMENT BEGIN") > 0
