"""What could stand at a [MASK]: as transformers' pipeline says, by torch and by an engine, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, FillMaskPipeline

import tiny
from bertram import artifacts
from bertram.errors import BadInput
from bertram.exporting import export
from bertram.formats.huggingface import write
from bertram.inference.mask_filler import MaskFiller
from bertram.model_directory import ModelDirectory
from bertram.shrinking.dial import Dial
from bertram.shrinking.shrink import shrink
from bertram.text.tokenizer import Tokenizer
from bertram.training.recipe import Recipe
from torchless import run_without_torch

HEADS = {"masked_language_model": 0, "sentence_pair": 2}
TEXTS = ["a [MASK] room", "[MASK]", "dull song and a cold meal in the grey [MASK]", "the [MASK] film, awful!"]
ALBERT = {"embedding_size": 16, "num_hidden_groups": 1, "max_position_embeddings": 64}


def directory(place: Path, **settings: object) -> Path:
    """A model as pre-training leaves it, with its family's tokenizer."""
    if "embedding_size" not in settings:
        return tiny.model_directory(place, HEADS, unsettled=True, **settings)
    tokenizer = Tokenizer.train([text for text, _ in tiny.rows(200)], "albert", 90)
    tiny.model_directory(place, HEADS, unsettled=True, vocab_size=tokenizer.vocab_size, **settings)
    tokenizer.save(place)
    return place


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return directory(tmp_path / "model")


@pytest.mark.parametrize("settings", [{}, ALBERT], ids=["bert", "albert"])
def test_candidates_are_those_of_transformers(settings: dict[str, int], tmp_path: Path) -> None:
    place = directory(tmp_path / "model", **settings)
    theirs = FillMaskPipeline(
        AutoModelForMaskedLM.from_pretrained(place).eval(), AutoTokenizer.from_pretrained(place), top_k=7
    )
    found = artifacts.load_as(MaskFiller, place).predict(TEXTS, top_k=7)
    for text, answer in zip(TEXTS, found, strict=True):
        expected = theirs(text)
        assert [given["token"] for given in answer["candidates"]] == [given["token_str"] for given in expected]
        assert [given["text"] for given in answer["candidates"]] == [given["sequence"] for given in expected]
        assert [given["score"] for given in answer["candidates"]] == pytest.approx(
            [given["score"] for given in expected], abs=1e-5
        )


@pytest.mark.parametrize("settings", [{}, ALBERT], ids=["bert", "albert"])
def test_an_engine_answers_as_torch_does(settings: dict[str, int], tmp_path: Path) -> None:
    place = directory(tmp_path / "model", **settings)
    export(place, format="engine", out=tmp_path / "fp32.engine", precision="fp32")
    expected = artifacts.load(place).predict(TEXTS)
    found = artifacts.load(tmp_path / "fp32.engine").predict(TEXTS)
    for ours, theirs in zip(found, expected, strict=True):
        assert [given["token"] for given in ours["candidates"]] == [given["token"] for given in theirs["candidates"]]
        assert [given["score"] for given in ours["candidates"]] == pytest.approx(
            [given["score"] for given in theirs["candidates"]], abs=1e-4
        )


def test_an_engine_answers_without_torch(model: Path, tmp_path: Path) -> None:
    export(model, format="engine", out=tmp_path / "model.engine", min_agreement=0)
    done = run_without_torch("fill-mask", tmp_path / "model.engine", "a [MASK] film")
    assert done.returncode == 0, done.stderr
    (candidates,) = json.loads(done.stdout).values()
    assert len(candidates) == 5


def test_answers_keep_the_order_of_texts_of_all_lengths(model: Path) -> None:
    filler = artifacts.load_as(MaskFiller, model)
    texts = [f"[MASK] {'film ' * (number * 7 % 20)}" for number in range(60)]
    alone = [filler.predict([text])[0] for text in texts]
    filler.max_tokens = 40
    for ours, theirs in zip(filler.predict(texts), alone, strict=True):
        assert [given["text"] for given in ours["candidates"]] == [given["text"] for given in theirs["candidates"]]
        assert [given["score"] for given in ours["candidates"]] == pytest.approx(
            [given["score"] for given in theirs["candidates"]], abs=1e-6
        )
    assert filler.predict([]) == []


def test_ids_beyond_the_tokenizer_take_probability_but_are_no_candidates(tmp_path: Path) -> None:
    place = directory(tmp_path / "model", vocab_size=400)
    network = ModelDirectory(place).read_model()
    known = artifacts.load_as(MaskFiller, place).tokenizer.vocab_size
    with torch.no_grad():
        network.heads["masked_language_model"].decoder.bias[known:] = 5
    write(network, place)
    (answer,) = artifacts.load_as(MaskFiller, place).predict(["a [MASK] film"], top_k=1000)
    assert len(answer["candidates"]) == known
    assert sum(given["score"] for given in answer["candidates"]) < 0.5


def test_a_model_of_nan_answers_nothing(model: Path) -> None:
    network = ModelDirectory(model).read_model()
    with torch.no_grad():
        network.encoder.embeddings.norm.bias[0] = float("nan")
    write(network, model)
    with pytest.raises(BadInput, match="answers NaN or infinity"):
        artifacts.load_as(MaskFiller, model).predict(["a [MASK] film"])


def test_the_bias_that_transformers_takes_of_two_that_differ(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place = directory(tmp_path / "model", embedding_size=16, num_hidden_groups=1)
    tensors = load_file(place / "model.safetensors")
    (name,) = (name for name in tensors if name.endswith("predictions.bias"))
    bias = tensors[name] + 1.0
    save_file(tensors | {name.replace(".bias", ".decoder.bias"): bias}, place / "model.safetensors")
    head = ModelDirectory(place).read_model().heads["masked_language_model"]
    torch.testing.assert_close(head.decoder.bias.detach(), bias)
    assert "two biases" in caplog.text
    bare = {name.replace("albert.", ""): tensor for name, tensor in tensors.items()}
    save_file(bare | {f"albert.{name}": bias}, place / "model.safetensors")  # neither is the decoder's
    with pytest.raises(BadInput, match="differs from what the configuration makes it share"):
        ModelDirectory(place).read_model()


def refused(filler: MaskFiller, inputs: list[Any], **options: Any) -> str:
    with pytest.raises(BadInput) as caught:
        filler.predict(inputs, **options)
    return str(caught.value)


def test_what_cannot_be_guessed_is_refused(model: Path) -> None:
    filler = artifacts.load_as(MaskFiller, model)
    assert refused(filler, ["a [MASK]", "none"]) == "inputs[1]: must hold [MASK] once: 'none'"
    assert "inputs[0]: must hold [MASK] once: " in refused(filler, ["[MASK] and [MASK]"])
    assert "once in the 32 tokens that are read" in refused(filler, [f"{'film ' * 40}[MASK]"])
    assert "reads one text, not a pair" in refused(filler, [{"text": "a [MASK]", "text_b": "b"}])
    for top_k in (0, -1, 2.5, 2.0, "2", None):
        assert refused(filler, ["a [MASK]"], top_k=top_k) == f"--top-k {top_k!r}: must be a whole number, at least 1"
    assert len(filler.predict(["a [MASK]"], top_k=np.int64(2))[0]["candidates"]) == 2
    assert "surrogate" in refused(filler, ["a [MASK] \ud800"])


def test_the_command_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "texts.txt").write_text("a [MASK] film\nthe [MASK]\n")
    (tmp_path / "texts.jsonl").write_text('{"said": "a [MASK] film"}\n')
    assert tiny.run("fill-mask", model, tmp_path / "texts.txt", "--top-k", 2) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [len(line["candidates"]) for line in lines] == [2, 2]
    assert tiny.run("predict", model, "a [MASK] film") == 0
    (answer,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [given["token"] for given in answer["candidates"][:2]] == [
        given["token"] for given in lines[0]["candidates"]
    ]

    assert tiny.run("fill-mask", model, tmp_path / "texts.jsonl", "--columns", "text=said") == 0
    (answer,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert answer["candidates"][0]["token"] == lines[0]["candidates"][0]["token"]

    data = tiny.table(tmp_path / "data.csv")
    other = tiny.model_directory(tmp_path / "other", {"classification": 2})
    shrinking = ("shrink", model, "--texts", data, "--out", tmp_path / "out", "--steps", 1, "--embedding-size", 16)
    for arguments, reason in [
        (("fill-mask", other, "a [MASK] film"), "is for classification, not for fill-mask"),
        (("embed", model, "a film"), "use bertram fill-mask"),
        (("evaluate", model, data), "is not scored on labels"),
        (("translate", model, "a film"), "is for fill-mask, not for translation"),
        ((*shrinking, "--evaluate", data), "is not scored on labels"),
    ]:
        assert tiny.run(*arguments) == 2
        said = capsys.readouterr().err
        assert reason in said
        assert said.count("\n") == 1


def test_a_shrunken_masked_language_model_is_one(tmp_path: Path) -> None:
    model = directory(tmp_path / "model")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(text for text, _ in tiny.rows(120)))
    shrink(model, [texts], tmp_path / "out", recipe=Recipe(steps=2, evaluations=1), dial=Dial(embedding_size=16))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "pipeline_tag: fill-mask" in card
    assert "bertram fill-mask this/directory" in card
    for place in (tmp_path / "out", next((tmp_path / "out").glob("*.engine"))):
        (answer,) = artifacts.load(place).predict(["a [MASK] film"])
        assert len(answer["candidates"]) == 5


@pytest.mark.parametrize("verb", ["fill-mask", "predict"])
def test_what_stands_before_a_text_that_cannot_be_guessed_is_answered(
    verb: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("a [MASK]\n" * 1030 + "none\n" + "a [MASK]\n")
    assert tiny.run(verb, model, tmp_path / "texts.txt") == 2
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 1030
    assert said.err == "bertram: text 1,031: must hold [MASK] once: 'none'\n"
