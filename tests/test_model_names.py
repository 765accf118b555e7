"""What a model argument may name."""

import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest

from bertram.baseline.linear import FILES
from bertram.errors import BadInput
from bertram.exporting import export
from bertram.formats.ctranslate2_file import WEIGHTS
from bertram.model_directory import ModelDirectory
from bertram.model_names import ENGLISH, OWN, SENTIMENT, config_of, engine_of, require_trained, resolve
from tiny import model_directory


def test_a_model_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are fetched, pickled weights where they are allowed; and only a name with one slash is asked for.

    It goes by that name, wherever they are kept.
    """
    place = model_directory(tmp_path / "cache", {"classification": 2})
    asked: list[list[str]] = []

    def download(name: str, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        if name == "nobody/nothing":
            raise OSError("404 Client Error.\nand more")
        return str(place)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    found = resolve("owner/name")
    assert (found.path, found.name) == (place, "name")
    assert str(found) == found.argument == found.identity == "owner/name"
    resolve("owner/name", allow_pickle=True)
    files = [file.relative_to(place).as_posix() for file in place.rglob("*") if file.is_file()]
    assert all(any(fnmatch(file, pattern) for pattern in asked[0]) for file in files)
    assert ["pytorch_model.bin" in patterns for patterns in asked] == [False, True]
    for name in ("bert-tinny", "./a/b", "/a/b", "~/a", "a/b/c", "a/"):
        with pytest.raises(BadInput):
            resolve(name)
    assert len(asked) == 2
    with pytest.raises(BadInput, match=r"^nobody/nothing: no such directory, and [^\n]*404 Client Error\.$"):
        resolve("nobody/nothing")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("bert-base-uncased", "on the hub it is google-bert/bert-base-uncased, presets have random weights"),
        ("bert-large-cased-whole-word-masking", "google-bert/bert-large-cased-whole-word-masking"),
        ("albert-xxlarge-v2", "on the hub it is albert/albert-xxlarge-v2"),
        ("bert-bas", "did you mean bert-base"),
        ("bertram-englich", "did you mean bertram-english"),
        ("distilbert-base-uncased", "reads BERT, ALBERT and MarianMT models: give a directory, owner/name on the hub"),
        ("roberta-base", "bertram-english, or a preset with random weights"),
    ],
)
def test_a_name_that_the_hub_knows_with_its_owner(name: str, hint: str) -> None:
    with pytest.raises(BadInput, match=hint):
        resolve(name)


def test_an_engine_by_its_path_or_name(tmp_path: Path) -> None:
    place = model_directory(tmp_path / "model")
    export(place, format="engine", out=tmp_path / "a.engine", precision="fp32")
    (tmp_path / "texts.txt").write_text("a text")
    assert [engine_of(name) for name in (ENGLISH, SENTIMENT)] == [
        OWN / f"{name}.engine" for name in (ENGLISH, SENTIMENT)
    ]
    assert engine_of(tmp_path / "a.engine") == tmp_path / "a.engine"
    with pytest.raises(BadInput, match="an engine only answers"):
        resolve(tmp_path / "a.engine")
    with pytest.raises(BadInput, match=r"^out/best\.engine: no such engine file$"):
        resolve("out/best.engine")  # which is no name on the hub
    for name in (place, tmp_path / "texts.txt", tmp_path / "none", "bert-tiny", "a text " * 100):
        assert engine_of(name) is None
    assert config_of(tmp_path / "a.engine") == config_of(place)


def test_what_only_answers_is_named_where_answers_are_wanted(tmp_path: Path) -> None:
    for kind, files in (("ctranslate2", [WEIGHTS]), ("baseline", FILES)):
        (place := tmp_path / kind).mkdir()
        for file in files:
            (place / file).touch()
        with pytest.raises(BadInput, match="only answers"):
            resolve(place)
        assert str(resolve(place, answers=True)) == str(place)


def test_a_directory_that_is_called_like_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_directory(tmp_path / "bert-tiny")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=r"write \./bert-tiny for the directory"):
        require_trained(resolve("bert-tiny"))
    assert require_trained(resolve("./bert-tiny")).path == Path("bert-tiny")


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("bert-tiny", ["bertram train TASK DATA --model bert-tiny", "bertram pretrain CORPUS --model bert-tiny"]),
        ("transformer-tiny", ["bertram train translation DATA DATA2 --model transformer-tiny"]),
    ],
)
def test_a_preset_is_to_be_trained_first(name: str, commands: list[str]) -> None:
    with pytest.raises(BadInput) as caught:
        require_trained(resolve(name))
    assert all(command in str(caught.value) for command in commands)
    assert not any(command in str(caught.value) for command in ("embed", "fill-mask"))  # it may be another that asks


def test_no_model_is_nameless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "reviews" / "inner").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "reviews" / "inner")
    names = {".": "inner", "..": "reviews", "../../reviews/": "reviews", "bert-tiny": "bert-tiny", ENGLISH: ENGLISH}
    assert {model: resolve(model).name for model in names} == names


def test_a_preset_is_known_by_its_name_and_a_directory_by_its_files(tmp_path: Path) -> None:
    place, copy = model_directory(tmp_path / "a"), shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert resolve("bert-tiny").identity == "bert-tiny"
    assert resolve(ENGLISH).identity == ModelDirectory(OWN / ENGLISH).identity
    assert resolve(place).identity == resolve(copy).identity != resolve(ENGLISH).identity
