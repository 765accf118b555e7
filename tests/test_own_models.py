"""The models that are part of Bertram: small, licensed, and ready without torch or a name."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

import bertram
from bertram.asking import asked
from bertram.errors import BadInput
from bertram.formats.engine_file import read_engine
from bertram.formats.sentence_transformers import read_max_length
from bertram.model_names import ENGLISH, OWN, SENTIMENT
from bertram.run_directory import read_manifest
from tiny import model_directory, run, table
from torchless import run_without_torch

TEXTS = ["a dog runs through the grass", "the puppy is running on a lawn", "interest rates rose again on friday"]


def test_a_sentence_is_classified_without_torch_or_a_model_named(tmp_path: Path) -> None:
    said = run_without_torch("classify", "what a wonderful film")
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["label"] == "positive"
    answers = bertram.load(SENTIMENT).predict(["a dull and awful waste of time", "the meeting is on monday"])
    assert [answer["label"] for answer in answers] == ["negative", "neutral"]


def test_vectors_of_like_texts_are_alike(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    said = run_without_torch("embed", tmp_path / "texts.txt")
    assert said.returncode == 0, said.stderr
    a, b, c = (np.array(json.loads(line)["embedding"]) for line in said.stdout.splitlines())
    assert np.linalg.norm(a) == pytest.approx(1, abs=1e-5)
    assert a @ b > 0.4 > 0.2 > a @ c


def test_the_weights_are_those_of_the_engine_and_an_albert_for_transformers() -> None:
    place = OWN / ENGLISH
    tokenizer = AutoTokenizer.from_pretrained(place)
    assert (tokenizer.model_max_length, tokenizer("a", "b")["token_type_ids"]) == (128, [0, 0, 0, 1, 1])
    inputs = tokenizer(TEXTS[0], return_tensors="pt")
    network = AutoModel.from_pretrained(place, dtype=torch.float32).eval()
    assert network.config.model_type == "albert"
    with torch.inference_mode():
        theirs = network(**inputs).last_hidden_state[0].mean(0).numpy()
    ours = bertram.load(ENGLISH).embed(TEXTS[:1])[0]
    assert ours @ theirs / np.linalg.norm(theirs) > 0.99
    assert read_max_length(place) == read_engine(OWN / f"{ENGLISH}.engine").manifest["max_length"]


def test_they_are_small_and_say_where_they_come_from() -> None:
    files = [path for path in OWN.rglob("*") if path.is_file() and ENGLISH in str(path)]
    assert sum(path.stat().st_size for path in files) <= 25e6
    assert (OWN / f"{SENTIMENT}.engine").stat().st_size <= 7e6
    card, other = (place.read_text() for place in (OWN / ENGLISH / "README.md", OWN / f"{SENTIMENT}.md"))
    assert 'license: "apache-2.0"' in card
    assert 'license: "apache-2.0"' in other
    assert f"# {SENTIMENT}, trained for classification" in other
    assert f"# {ENGLISH}, shrunken from all-MiniLM-L6-v2" in card
    notice = (OWN / "NOTICE").read_text()
    assert "all-MiniLM-L6-v2" in notice
    assert "Apache License" in notice
    assert read_manifest(OWN / ENGLISH)["shrinking"]["groups"] == 1
    assert (OWN / f"{ENGLISH}.engine").stat().st_size <= 7e6


def test_one_goes_on_training_and_the_other_says_why_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, budget = table(tmp_path / "t.csv", 24), ["--steps", 1, "--evaluations", 1]
    assert run("train", "classification", data, "--model", ENGLISH, "--out", tmp_path / "out", *budget) == 0
    assert run("train", "classification", data, "--model", SENTIMENT, "--out", tmp_path / "no", *budget) == 2
    assert "take bertram-english" in capsys.readouterr().err


def test_what_is_asked_of_which_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, file = model_directory(tmp_path / "model"), tmp_path / "texts.txt"
    file.write_text("one\ntwo\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"three\n")))

    def found(*arguments: str | None) -> tuple[str, list[object]]:
        name, chunks = asked("predict", *arguments, columns=None, own="own")
        return name, [given for chunk in chunks for given in chunk]

    assert found(None, None, "a text") == ("own", ["a text"])
    long = "a text " * 100
    assert found(long, None, None) == ("own", [long])
    assert found("a text", None, None) == ("own", ["a text"])
    assert found("-", None, None) == ("own", ["three"])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"three\n")))
    assert found(str(file), None, None) == ("own", ["one", "two"])
    with pytest.raises(BadInput, match=r"missing\.txt"):
        found(str(tmp_path / "missing.txt"), None, None)
    assert found(str(model), str(file), None) == (str(model), ["one", "two"])
    assert found(str(model), None, "a text") == (str(model), ["a text"])
    assert found(str(model), None, None) == (str(model), ["three"])
    with pytest.raises(BadInput, match="not both"):
        asked("predict", str(model), str(file), "a text", None, "own")
    with pytest.raises(BadInput, match="--columns: is for a table"):
        asked("predict", str(model), None, "a text", {"text": "review"}, "own")
    with pytest.raises(BadInput, match="no role 'txt'; roles are text, text_b, label"):
        asked("predict", str(model), str(file), None, {"txt": "review"}, "own")
    with pytest.raises(BadInput, match="word: no such file; for one text write --text 'word'"):
        found(str(model), "word", None)
    with pytest.raises(BadInput, match=r"old news\.en: no such file"):
        found(str(model), "old news.en", None)
    for content in (b"", b"BER"):  # what a copy that was interrupted leaves
        (tmp_path / "cut.engine").write_bytes(content)
        with pytest.raises(BadInput, match=r"cut\.engine: is no engine file, or is damaged"):
            found(str(tmp_path / "cut.engine"), None, None)
    with pytest.raises(BadInput, match="great: no such model or file; for one text write --text 'great'"):
        found("great", None, None)
