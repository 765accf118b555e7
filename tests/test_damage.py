"""Thousands of damaged model directories: each is refused in one line or loads, and none hangs, runs or swells."""

import json
import resource
import shutil
from functools import partial
from pathlib import Path

import pytest

from bertram.files import write_json
from bertram.run_directory import MANIFEST
from bertram.supervised.train import train
from bertram.tasks.fill_mask import FillMask
from bertram.training.recipe import Recipe
from damage import file_of, refusal, survive
from tiny import model_directory, table

WEIGHTS, SETTINGS = "model.safetensors", "config.json"
FILES = {
    **{WEIGHTS: 0.1, SETTINGS: 0.25, "tokenizer.json": 0.4, "vocab.txt": 0.6, "bertram.json": 0.7},
    "tokenizer_config.json": 0.55,
}
"""What share of the damaged ones answers at most; what was changed in them is read by nobody, or as good as before."""
ATTEMPTS = 334
"""By file and model, so that damaged weights and settings are 2,000 in all."""


@pytest.fixture(scope="module", params=["bert", "albert", "pretrained"])
def whole(request, tmp_path_factory):
    place = tmp_path_factory.mktemp(request.param)
    if request.param == "pretrained":
        model = model_directory(place / "model", {"masked_language_model": 0, "sentence_pair": 2})
        write_json(model / MANIFEST, {"task": FillMask().to_dict()})
        return model
    albert = {"embedding_size": 7, "num_hidden_groups": 2} if request.param == "albert" else {}
    model, data = model_directory(place / "bare", **albert), table(place / "good.csv")
    train("classification", data, model=model, out=place / "model", recipe=Recipe(steps=2))
    return place / "model"


@pytest.fixture(autouse=True)
def bounded():
    """No allocation beyond what a tiny model could ask for: 4 GB above what is mapped already."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + 4 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def place(whole, tmp_path):
    """A copy to harm."""
    return shutil.copytree(whole, tmp_path / "model", ignore=shutil.ignore_patterns("checkpoints", "tensorboard"))


def survived(place, name, attempts):
    """How many of so many models with one file damaged answer."""
    if name == "vocab.txt":
        vocabulary = json.loads((place / "tokenizer.json").read_text())["model"]["vocab"]
        (place / name).write_text("\n".join(sorted(vocabulary, key=vocabulary.get)))
        (place / "tokenizer.json").unlink()
    return survive(place / name, partial(file_of, name), partial(refusal, place), attempts, megabytes=200)


@pytest.mark.parametrize("name", FILES)
def test_damaged_files_are_refused_in_one_line(place, name):
    number = ATTEMPTS if name in (WEIGHTS, SETTINGS) else ATTEMPTS // 10
    assert survived(place, name, range(number)) < FILES[name] * number


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 11))
@pytest.mark.parametrize("name", FILES)
def test_many_more_damaged_files(place, name, seed):
    assert survived(place, name, range(seed * ATTEMPTS, (seed + 1) * ATTEMPTS)) < FILES[name] * ATTEMPTS


def test_what_is_whole_answers(place):
    assert refusal(place) is None
