import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import bertram
from bertram import environment as room
from bertram.environment import environment

XEON = """processor\t: 0
model name\t: Some Processor @ 2.60GHz
flags\t\t: fpu avx avx2 avx512f avx512_vnni amx_bf16 amx_tile amx_int8

processor\t: 1
model name\t: Another
flags\t\t: fpu
"""
ARM = "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd asimddp sve i8mm bf16\nCPU part\t: 0xd40\n"


def test_versions_are_those_of_what_runs():
    found = environment()
    assert found["bertram"] == bertram.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["libraries"]["numpy"] == np.__version__
    assert found["libraries"]["torch"] == torch.__version__
    assert json.loads(json.dumps(found)) == found


def test_a_library_that_is_not_there_has_no_version(monkeypatch):
    monkeypatch.setattr(room, "_LIBRARIES", ("numpy", "no-such-library"))
    assert environment()["libraries"] == {"numpy": np.__version__, "no-such-library": None}


def test_the_first_core_and_what_it_can_do(tmp_path):
    (tmp_path / "xeon").write_text(XEON)
    (tmp_path / "arm").write_text(ARM)
    xeon, arm = room._fields(tmp_path / "xeon"), room._fields(tmp_path / "arm")
    assert xeon["model name"] == "Some Processor @ 2.60GHz"
    assert room._features(xeon) == ["avx2", "avx512f", "avx512_vnni", "amx_int8", "amx_bf16"]
    assert room._features(arm) == ["asimddp", "i8mm", "bf16", "sve"]
    assert room._fields(tmp_path / "absent") == {}
    assert room._features({}) == []


def test_cores_are_those_that_this_process_may_use():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert environment()["cores"] == 1
    finally:
        os.sched_setaffinity(0, allowed)
    assert room.usable_cores(Path("no root")) == len(allowed)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 64),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "20000 100000"}, 1),
        ({"cpu.max": "max 100000"}, 64),
        ({"cpu.max": ""}, 64),
        ({"a/b/cpu.max": "300000 100000"}, 3),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "500000 100000", "cpu.max": "900000 100000"}, 5),
        ({"c/cpu.max": "300000 100000"}, 64),
        ({"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64),
    ],
)
def test_a_container_may_have_less(files, cores, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    told = {"proc/self/cgroup": "4:cpu,cpuacct:/else\n0::/a/b"}
    for name, content in (told | {f"sys/fs/cgroup/{name}": content for name, content in files.items()}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{content}\n")
    assert room.usable_cores(tmp_path) == cores


@pytest.mark.parametrize(
    ("asked", "found"), [("3", 3), ("96", 96), ("100000", 128), ("0", 64), ("-2", 64), ("many", 64), ("", 64)]
)
def test_threads_are_as_many_as_are_asked_for_and_no_more_than_cores(asked, found, monkeypatch):
    monkeypatch.setattr(room, "usable_cores", lambda: 64)
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert room.default_threads() == found


def test_memory_is_what_the_system_says():
    kilobytes = int(Path("/proc/meminfo").read_text(encoding="ascii").split()[1])
    assert environment()["memory_mb"] == round(kilobytes * 1024 / 1e6)


def test_graphics_are_named_as_their_driver_does(tmp_path):
    for number in range(2):
        (tmp_path / f"0000:0{number}:00.0").mkdir()
        information = f"Model: \t\t NVIDIA Card {number}\nIRQ:   \t\t 16\n"
        (tmp_path / f"0000:0{number}:00.0" / "information").write_text(information)
    assert room._graphics(tmp_path) == ["NVIDIA Card 0", "NVIDIA Card 1"]
    assert room._graphics(tmp_path / "absent") == []


def test_no_library_is_imported_and_nobody_is_named(tmp_path):
    program = (
        "import json, sys; from bertram.environment import environment; found = environment()\n"
        "heavy = sorted({'torch', 'numpy', 'scipy', 'sklearn', 'polars', 'transformers'} & sys.modules.keys())\n"
        "print(json.dumps([heavy, found]))"
    )
    home = tmp_path / "home-of-marker"
    home.mkdir()
    marked = dict.fromkeys(("USER", "LOGNAME", "USERNAME", "HOSTNAME"), "marker") | {"HOME": str(home)}
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=home, env=os.environ | marked, capture_output=True, text=True, check=True
    )
    heavy, found = json.loads(run.stdout)
    assert heavy == []
    assert "marker" not in run.stdout
    assert os.uname().nodename not in found.values()
    assert "/" not in found["platform"]
