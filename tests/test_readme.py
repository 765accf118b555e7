"""Every command and code block of README.md runs as it stands there, but on small tables, models and few seeds."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from functools import partial
from importlib import metadata
from pathlib import Path

import pytest

from bertram.benchmark import bench, subject
from bertram.config import PRESETS
from bertram.inspection import describe
from bertram.text.table import read_table
from forked_jobs import fork_jobs
from tiny import Fork, finish, model_directory, rows, table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")
NUMBER = re.compile(r"\d[\d,.]*\d|\d")
PYTHON = re.compile(r"(import|from) \w")
COMMAND = re.compile(r"(bertram|python|pip|make) \w")
SMALLER = {
    "sentence-transformers/all-MiniLM-L6-v2": "demo/MiniLM",  # which is on the hub
    "-mini": "-tiny",
    "--seeds 3": "--seeds 1",
    "bench reviews.engine": "bench reviews.engine --rounds 1",
    "--steps 10000": "--steps 1 --evaluations 1",
    "--epochs 5": "--steps 1 --evaluations 1",
    "--hours 1": "--steps 2 --evaluations 1 --embedding-size 16",
    "--out out/alike": "--out out/alike --steps 2 --evaluations 1",
    "--out out/names": "--out out/names --steps 2 --evaluations 1",
    "--out out/taggers": "--out out/taggers --steps 2 --evaluations 1",
}


def code():
    """What to run: tables, blocks of Python or of lines for a shell, and what of these two stands within a sentence."""
    found = BLOCK.findall(README)
    for words in INLINE.findall(BLOCK.sub("", README)):
        if PYTHON.match(words):
            found.append(("python", words))
        elif COMMAND.match(words):
            found.append(("", words))
    return [(language, smaller(text)) for language, text in found]


def smaller(text):
    for words, fewer in SMALLER.items():
        text = text.replace(words, fewer)
    return text


@pytest.fixture
def place(tmp_path):
    """A directory with the files that README names."""
    table(tmp_path / "reviews.csv", 40)
    table(tmp_path / "test.csv", 20, seed=1)
    sentences = [f"{text.capitalize()}." for text, _ in rows(300)]
    (tmp_path / "novels.txt").write_text("\n\n".join(" ".join(sentences[i : i + 5]) for i in range(0, 300, 5)))
    for name, count in (("train.en", 60), ("train.de", 60), ("news.en", 3)):
        (tmp_path / name).write_text("".join(f"{text}\n" for text, _ in rows(count)))
    mails = [{"document": text, "summary": text.split()[0]} for text, _ in rows(60)]
    (tmp_path / "mails.jsonl").write_text("".join(f"{json.dumps(mail)}\n" for mail in mails))
    (tmp_path / "mails.txt").write_text("".join(f"{text}\n" for text, _ in rows(200)))
    for name, count in (("names.conll", 40), ("names-test.conll", 10)):
        (tmp_path / name).write_text("".join(f"Ada B-PER\n{text.split()[0]} O\n\n" for text, _ in rows(count)))
    pairs = "".join(f"{text},{label} {text},{len(text) % 5}\n" for text, label in rows(20))
    (tmp_path / "pairs.csv").write_text(f"text,text_b,label\n{pairs}")
    model_directory(tmp_path / "demo" / "MiniLM", {"embedding": 0})
    return tmp_path


@pytest.fixture
def run(place):
    """Runs one command there in a fresh process."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"}

    def run(command, **options):
        done = subprocess.run(command, cwd=place, env=environment, text=True, capture_output=True, **options)
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    return run


def test_the_chinese_one_has_the_same_code_and_figures():
    chinese = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
    assert BLOCK.findall(chinese) == BLOCK.findall(README)
    assert set(INLINE.findall(BLOCK.sub("", chinese))) == set(INLINE.findall(BLOCK.sub("", README)))
    assert Counter(NUMBER.findall(chinese)) == Counter(NUMBER.findall(README))


def test_it_runs(run, place):
    """From the first command to the last, as later ones use what earlier ones wrote."""
    for language, text in code():
        assert language in ("", "python", "csv", "conll"), f"no way known to run a block of {language}"
        if language in ("csv", "conll"):
            (place / f"shown.{language}").write_text(text)
            shown = read_table(place / f"shown.{language}", per_word=language == "conll")
            assert len(shown) == (len(text.splitlines()) - 1 if language == "csv" else text.count("\n\n"))
        elif language == "python":
            run([sys.executable, "-c", text])
        else:
            for line in text.splitlines():
                run_line(line, run, place)


def run_line(line, run, place):
    if make := re.match(r"make (\w+)", line):  # minutes of work, in an environment of its own
        assert re.search(rf"^{make[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif pip := re.fullmatch(r"pip install (?:\.|'\.\[([\w,]+)\]')", line):  # needs an index of packages
        extras = set(pip[1].split(",")) if pip[1] else set()
        assert extras <= set(metadata.metadata("bertram").get_all("Provides-Extra"))
    elif re.match(r"echo '[^']*' \| bertram ", line):
        run(line, shell=True)
    elif line.startswith("bertram "):
        finish(Fork(*shlex.split(line)[1:], prepare=partial(begin_at, place)))
    else:
        pytest.fail(f"no way known to run this: {line}")


def begin_at(place):
    os.chdir(place)
    fork_jobs()
    subject._TEXTS, bench._SINGLES, bench._STREAM = 8, 2, 4


def test_the_table_of_sizes_is_what_inspect_says():
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in README.splitlines() if line[:2] == "| "]
    told = {row[0]: row[1:] for row in rows if len(row) == 3}
    costs = [describe(PRESETS[name]) for name in ("bert-base", "albert-base")]
    for name, say in {
        "unique parameters": lambda cost: f"{cost['unique_parameters']:,}",
        "in the layers (attention and feed-forward)": lambda cost: (
            f"{cost['parts']['attention'] + cost['parts']['feed-forward']:,}"
        ),
        "in the embeddings": lambda cost: f"{cost['parts']['embeddings']:,}",
        "in the pooler": lambda cost: f"{cost['parts']['pooler']:,}",
        "arithmetic, MFLOP a token": lambda cost: f"{cost['flops_per_token'] / 1e6:.1f}",
        "weights in fp32": lambda cost: f"{cost['weights_mb']['fp32']:.0f} MB",
        "weights, gradients and moments in training": lambda cost: f"{cost['training_state_mb']:,.0f} MB",
    }.items():
        assert all(cell.startswith(say(cost)) for cell, cost in zip(told[name], costs, strict=True)), name
