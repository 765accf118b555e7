"""Contestants take turns, each in processes of its own, so that what disturbs the machine disturbs all of them."""

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

Name = TypeVar("Name")
Figures = dict[str, Any]


def take_turns(
    commands: Mapping[Name, Sequence[object]], rounds: int, environment: Mapping[str, str] | None = None
) -> dict[Name, list[Figures]]:
    """What each command printed as JSON on its last line, a process each, one round after the other."""
    found: dict[Name, list[Figures]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            printed = subprocess.run([*map(str, command)], check=True, stdout=subprocess.PIPE, env=environment).stdout
            found[name].append(json.loads(printed.splitlines()[-1]))
    return found


def median(runs: Sequence[Figures], key: str) -> float:
    return float(statistics.median(run[key] for run in runs))


def ratios(runs: Sequence[Figures], others: Sequence[Figures], key: str) -> list[float]:
    """How many times the others' figure, in each round."""
    return [run[key] / other[key] for run, other in zip(runs, others, strict=True)]


def summary(found: Mapping[str, Sequence[Figures]]) -> dict[str, Any]:
    """Every contestant's medians, and how many times as fast the first is as each other one: the median and all."""
    row: dict[str, Any] = {name: {key: round(median(runs, key), 4) for key in runs[0]} for name, runs in found.items()}
    first, *peers = found
    for peer in peers:
        times = ratios(found[first], found[peer], "tokens_per_second")
        row[f"ratio to {peer}"] = {"median": round(statistics.median(times), 2), "all": [round(r, 2) for r in times]}
    return row


class Worker:
    """A process of a script that was given --serve: it answers each line of JSON with another."""

    def __init__(self, script: str, *arguments: object) -> None:
        command = [sys.executable, script, "--serve", *map(str, arguments)]
        self._process = subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, job: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def end(self) -> None:
        self._process.communicate()
