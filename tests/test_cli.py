"""The command line: what it prints where, and its exit codes. Bad input has a file of its own."""

import io
import json
import os
import re
import shlex
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import get_args

import pytest

from bertram import __version__
from bertram.cli.arguments import TaskName, WritingTask
from bertram.comparison.selection import Limits
from bertram.model_names import OWN, SENTIMENT
from bertram.tasks.registry import GENERATIONS, TASKS
from fake_comparison import comparison
from tiny import bertram, model_directory, run, table


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    found = tmp_path_factory.mktemp("cli")
    table(found / "good.csv", 100)
    model_directory(found / "bare")
    training = ["train", "classification", found / "good.csv", "--model", found / "bare", "--out", found / "out"]
    assert run(*training, "--steps", 2) == 0
    return found


def test_train_prints_scores_or_json(place, tmp_path, capsys):
    training = ["train", "classification", place / "good.csv", "--model", place / "bare", "--steps", 2]
    assert run(*training, "--out", tmp_path / "a") == 0
    assert capsys.readouterr().out.startswith("finished after 2 steps")
    assert run(*training, "--out", tmp_path / "b", "--json") == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == json.loads((tmp_path / "b" / "bertram.json").read_text())
    assert "step 2/2" in said.err


def test_evaluate(place, capsys):
    assert run("evaluate", place / "out", place / "good.csv", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [score["metric"] for score in found] == ["accuracy", "macro-f1", "matthews"]
    assert all("n:100" in score["signature"] for score in found)
    assert run("evaluate", place / "out", place / "good.csv", place / "good.csv") == 2
    assert "good.csv: one file too many; labelled texts stand in one table" in capsys.readouterr().err


def test_predict_answers_in_order(place, capsys, monkeypatch):
    lines = "a lovely film\n\n冷 <b>awful</b>\n"
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(lines.encode())))
    assert run("predict", place / "out") == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer.keys() for answer in answers] == [{"label", "score", "scores"}] * 3
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"")))
    assert run("classify", place / "out", "-") == 0
    assert capsys.readouterr().out == ""
    assert run("predict", place / "out", "no such film.csv") == 2
    assert "no such film.csv: no such file" in capsys.readouterr().err
    for command in (["a lovely film"], ["--text", "a lovely film"]):
        assert run("predict", place / "out", *command) == 0
        assert json.loads(capsys.readouterr().out)["score"] == pytest.approx(answers[0]["score"], abs=1e-6)
    assert run("predict", place / "out", "--text", "-5 degrees, and a lovely film") == 0
    assert capsys.readouterr().out
    assert run("predict", place / "out", "- a lovely film") == 2
    assert "For a text write --text '- a lovely film'." in capsys.readouterr().err


def test_a_pipe_alone_is_a_source(tmp_path, capsys):
    """Of which nothing is read to see whether it is an engine."""
    os.mkfifo(tmp_path / "mails")
    lines = "a lovely film\nan awful meal\n"
    threading.Thread(target=(tmp_path / "mails").write_text, args=(lines,), daemon=True).start()
    assert run("classify", tmp_path / "mails") == 0
    assert [json.loads(line)["label"] for line in capsys.readouterr().out.splitlines()] == ["positive", "negative"]


@pytest.mark.parametrize("arguments", [["classify", "--beam"], ["embed", "x", "-b"], ["translate", "x", "--beam", "3"]])
def test_an_option_that_is_none_is_no_file(arguments, capsys):
    assert run(*arguments) == 2
    assert "Unknown option: -" in capsys.readouterr().err


def test_a_limit_that_nothing_keeps_is_exit_code_3(capsys, monkeypatch):
    results, _ = comparison(limits=Limits.parse("1kB", None, None))
    monkeypatch.setattr("bertram.comparison.compare.compare", lambda *_, **__: results)
    assert run("compare", "good.csv", "--models", "bert-tiny", "--out", "out", "--max-memory", "1kB") == 3
    said = capsys.readouterr()
    assert "report: " in said.out
    assert said.err.startswith("bertram: No candidate fits.")


def test_models_separated_by_commas(place, capsys, monkeypatch):
    given = []

    def compare(_data, models, _out, **_options):
        given.extend(models)
        return comparison()[0]

    monkeypatch.setattr("bertram.comparison.compare.compare", compare)
    (place / "with,comma").mkdir()
    models = ["bert-tiny,albert-tiny", "bert-mini", place / "with,comma"]
    assert run("compare", "good.csv", "--models", *models, "--out", "out") == 0
    assert given == ["bert-tiny", "albert-tiny", "bert-mini", str(place / "with,comma")]


@pytest.mark.parametrize(
    "command",
    [
        *("check", "train", "compare", "pretrain", "shrink", "evaluate", "predict", "embed", "translate", "summarize"),
        *("export", "inspect", "bench", "version"),
    ],
)
def test_help_has_an_example_or_says_what(command, capsys):
    assert run(command, "--help") == 0
    example = re.search(rf"^For example:\s.*bertram {command} ", capsys.readouterr().out, re.MULTILINE | re.DOTALL)
    assert (example is not None) == (command != "version")


def test_every_task_is_offered():
    assert get_args(TaskName) == tuple(TASKS)
    assert get_args(WritingTask) == tuple(GENERATIONS)


def test_version(capsys):
    assert run("version") == 0
    assert capsys.readouterr().out == f"bertram {__version__}\n"
    assert run("version", "--json") == 0
    assert json.loads(capsys.readouterr().out)["bertram"] == __version__


def test_tables_lose_no_digit_where_there_is_no_room(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    models = [f"{kind}-{size}" for size in ("base", "mini", "tiny") for kind in ("bert", "albert")]
    assert run("inspect", *models) == 0
    written = capsys.readouterr().out
    assert "…" not in written
    assert max(map(len, written.splitlines())) <= 80
    assert run("inspect", "bert-base", "albert-base") == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("unique parameters"))
    assert line.split()[2:] == ["109,482,240", "11,683,584"]


def test_inspect_and_check(place, capsys):
    assert run("inspect", "bert-base", "albert-base", "--json") == 0
    assert json.loads(capsys.readouterr().out)["albert-base"]["unique_parameters"] < 12e6
    assert run("check", place / "good.csv") == 0
    assert "classification, by the labels" in capsys.readouterr().out
    (place / "numbers.tsv").write_text("by\ttext\tmark\n" + "".join(f"me\ttext {i}\t{i % 5}\n" for i in range(50)))
    assert run("check", place / "numbers.tsv", "--columns", "label=3,text=text", "--task", "regression", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["task"], found["tables"]["train"]["other_columns"]) == ("regression", ["by"])
    assert found["tables"]["train"]["columns"] == {"text": "text", "label": "mark"}


def test_a_reader_that_leaves_early_is_no_traceback(tmp_path):
    (tmp_path / "inputs.txt").write_text("a film\n" * 5000)
    process = bertram("predict", OWN / f"{SENTIMENT}.engine", tmp_path / "inputs.txt")
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 1


@pytest.mark.parametrize(("closed", "code"), [("<&-", 0), (">&-", 0), ("2>&-", 2)])
def test_closed_streams_are_empty(closed, code, tmp_path):
    source = "missing.txt" if code else ""
    command = f"exec {shlex.quote(sys.executable)} -m bertram.cli classify {source} {closed}"
    done = subprocess.run(command, shell=True, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


def test_output_is_utf8_whatever_the_locale_says(tmp_path):
    (tmp_path / "t.csv").write_text("text,label\nein Film,“gut”\nzwei Filme,→\n", encoding="utf-8")
    command = [sys.executable, "-m", "bertram.cli", "check", "t.csv"]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "“gut”" in done.stdout.decode()
    assert "→" in done.stdout.decode()
