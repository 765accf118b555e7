"""From a CoNLL file to entities in texts: training, `bertram tag`, other formats, a student; what is refused."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from huggingface_hub import ModelCard

import bertram
import tiny
from bertram.artifacts import load_as
from bertram.errors import BadInput
from bertram.evaluation import evaluate
from bertram.exporting import export
from bertram.formats.engine_file import read_engine
from bertram.formats.huggingface import write
from bertram.inference.engine_runner import EngineRunner
from bertram.inference.numpy_encoder import NumpyEncoder
from bertram.inference.predictor import Predictor
from bertram.inference.tagger import Tagger
from bertram.model_directory import ModelDirectory
from bertram.run_directory import read_manifest
from bertram.shrinking import outcome
from bertram.shrinking.dial import Dial
from bertram.shrinking.shrink import shrink
from bertram.supervised.finetuning import labelled_examples
from bertram.supervised.train import train
from bertram.text.table import Table, read_table
from bertram.text.words import find_words, words_of
from bertram.training.recipe import Recipe
from bertram.training.torch_runner import TorchRunner
from teachers import texts as lines_of
from tiny import Fork, finish, kill_past, same_training
from torchless import run_without_torch

RECIPE = Recipe(steps=60, batch_size=16, learning_rate=3e-3, evaluations=3, precision="fp32")
BRIEF = Recipe(steps=2, evaluations=1, precision="fp32")
TEXTS = [text for text, _ in tiny.rows(40, seed=3)]
ALBERT = {"embedding_size": 16, "num_hidden_groups": 1}


def label_of(word: str) -> str:
    return "B-GOOD" if word in tiny.GOOD else "B-BAD" if word in tiny.BAD else "O"


def conll(path: Path, number: int, seed: int = 0) -> Path:
    """Texts with labels that each word decides."""
    texts = [text.split() for text, _ in tiny.rows(number, seed)]
    path.write_text("".join("".join(f"{word} {label_of(word)}\n" for word in text) + "\n" for text in texts))
    return path


def expected(text: str) -> list[tuple[int, int, str]]:
    found = [(start, end, label_of(text[start:end])) for start, end in find_words(text)]
    return [(start, end, label.removeprefix("B-")) for start, end, label in found if label != "O"]


def entities(answer: dict[str, Any]) -> list[tuple[int, int, str]]:
    return [(entity["start"], entity["end"], entity["label"]) for entity in answer["entities"]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("tagger")
    data, test = conll(found / "train.conll", 200), conll(found / "test.conll", 50, seed=1)
    model = tiny.model_directory(found / "bare", {"sentence_pair": 2})  # with a pooler, as pre-training leaves one
    train("tagging", data, model=model, out=found / "out", test=test, recipe=RECIPE)
    export(found / "out", format="engine", out=found / "fp32.engine", precision="fp32")
    return found


def random_tagger(path: Path, **settings: object) -> Path:
    return tiny.model_directory(path, {"token_classification": 4}, unsettled=True, **settings)


# Training


def test_it_learned_and_says_so(place: Path) -> None:
    manifest = read_manifest(place / "out")
    assert manifest["task"] == {"name": "tagging", "labels": ["B-BAD", "B-GOOD", "O"]}
    assert manifest["data"]["rows"] == {"train": 180, "validation": 20, "test": 50}
    assert [score["metric"] for score in manifest["scores"]["test"]] == ["f1", "precision", "recall", "accuracy"]
    assert manifest["scores"]["test"][0]["value"] > 0.95
    assert manifest["scores"]["test"][0]["signature"] == "f1|entities|n:50|split:test|seed:0"
    card = ModelCard.load(place / "out" / "README.md")
    assert card.data.pipeline_tag == "token-classification"
    assert "texts longer than 32 tokens are read in parts" in card.content


def test_scores_are_those_of_the_model_that_was_saved(place: Path) -> None:
    held, tagger = read_table(place / "test.conll", per_word=True), load_as(Tagger, place / "out")
    scores = read_manifest(place / "out")["scores"]["test"]
    assert [score.value for score in evaluate(tagger, held)] == [score["value"] for score in scores]
    logits = tagger.logits(held.texts)
    assert len(logits) == len(" ".join(held.texts).split())
    np.testing.assert_array_equal(logits, np.load(place / "out" / "logits-test.npy"))


def test_evaluate_reads_what_training_reads(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = read_table(place / "test.conll", per_word=True)
    rows = zip(table.texts, table.labels, strict=True)
    (tmp_path / "t.csv").write_text("words,tags\n" + "".join(f"{text},{labels}\n" for text, labels in rows))
    columns = ["--columns", "text=words,label=tags"]
    said = []
    for model, arguments in (
        ("out", [place / "test.conll"]),
        ("out", [tmp_path / "t.csv", *columns]),
        ("fp32.engine", [place / "test.conll"]),
    ):
        assert tiny.run("evaluate", place / model, *arguments, "--json") == 0
        said.append(json.loads(capsys.readouterr().out))
    assert said[0] == said[1] == said[2]


def test_a_stopped_training_goes_on_bit_for_bit(place: Path, tmp_path: Path) -> None:
    how = ["--batch-size", 8, "--steps", 60, "--save-every", 7, "--log-every", 1, "--evaluations", 6]
    command = ["train", "tagging", place / "train.conll", "--model", place / "bare", *how, "--resume", "--out"]
    finish(Fork(*command, tmp_path / "whole"))
    process = Fork(*command, tmp_path / "out")
    kill_past(process, tmp_path / "out", 20)
    finish(Fork(*command, tmp_path / "out"))
    same_training(tmp_path / "out", tmp_path / "whole")


def test_a_word_is_learned_by_its_first_token_alone(place: Path) -> None:
    tagger, table = load_as(Tagger, place / "out"), read_table(place / "train.conll", per_word=True)
    targets = tagger.task.targets(table.labels)
    examples, cut = labelled_examples(tagger.task, tagger.tokenizer, table, targets, 8)
    assert cut == 0
    assert examples.inputs.lengths.max() == 8
    assert examples.counts() == {"token_classification": len(" ".join(table.texts).split())}
    learned = examples.targets()["token_classification"]
    assert learned[1].tolist() == targets[:, 1].tolist()
    assert tagger.tokenizer.starts_word[examples.inputs.token_ids[learned[0]]].all()


def test_a_preset_learns_tags_too(place: Path, tmp_path: Path) -> None:
    given = {"model": "albert-tiny", "out": tmp_path / "out", "recipe": BRIEF}
    manifest = train("tagging", place / "train.conll", **given, vocab_size=90)
    assert manifest["scores"]["validation"][0]["metric"] == "f1"
    assert isinstance(bertram.load(tmp_path / "out"), Tagger)


def test_a_training_that_learns_nothing_is_called_diverged(place: Path, tmp_path: Path) -> None:
    still = Recipe(steps=100, batch_size=4, evaluations=1, learning_rate=0.0, precision="fp32")
    manifest = train("tagging", place / "test.conll", model=place / "bare", out=tmp_path / "out", recipe=still)
    assert manifest["status"] == "diverged"
    assert "no more than one answer" in manifest["reason"]


def test_a_model_that_labels_all_words_alike_is_warned_of(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny.model_directory(tmp_path / "model")
    network = ModelDirectory(place / "out").read_model()
    with torch.no_grad():
        network.heads["token_classification"].classifier.weight.zero_()
        network.heads["token_classification"].classifier.bias.copy_(torch.tensor([0.0, 0.0, 1.0]))
    write(network, model, labels=["B-BAD", "B-GOOD", "O"])
    still = Recipe(steps=1, evaluations=1, learning_rate=0.0, precision="fp32")
    manifest = train("tagging", place / "train.conll", model=model, out=tmp_path / "out", recipe=still)
    words = manifest["scores"]["validation"][3]["signature"].partition("|n:")[2].partition("|")[0]
    assert f"all {words} validation words got the label 'O': the model tells none apart" in caplog.text
    assert manifest["scores"]["validation"][0]["value"] == 0.0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a O\nb O\n\nc O\n", "every label is 'O'"),
        ("a O\nb B-X\n", "one row is too few"),
        ("a\nb\n", "line 1: has 1 columns; a word and its label are expected"),
    ],
)
def test_data_that_cannot_be_learned(content: str, message: str, place: Path, tmp_path: Path) -> None:
    (tmp_path / "t.conll").write_text(content)
    with pytest.raises(BadInput, match=message):
        train("tagging", tmp_path / "t.conll", model=place / "bare", out=tmp_path / "out", recipe=BRIEF)
    assert not (tmp_path / "out").exists()


# Answers


TEXT = "😀 a 😀lovely film, l'awful hotel 中\n"


def test_offsets_count_code_points(place: Path) -> None:
    (answer,) = bertram.load(place / "out").predict([TEXT])
    assert entities(answer) == expected(TEXT) == [(5, 11, "GOOD"), (20, 25, "BAD")]
    assert [entity["text"] for entity in answer["entities"]] == ["lovely", "awful"]
    assert all(0.5 < entity["score"] < 1 for entity in answer["entities"])


@pytest.mark.parametrize("model", ["out", "fp32.engine"])
def test_tag_reads_files_pipes_and_texts(
    model: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [*TEXTS, "", "   ", TEXT.strip()]
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in texts))
    (tmp_path / "texts.csv").write_text("said\n" + "".join(f'"{text}"\n' for text in texts))
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text, "text_b": "x"}) + "\n" for text in texts))

    def said(verb: str, *arguments: object) -> list[dict[str, Any]]:
        assert tiny.run(verb, place / model, *arguments) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    answers = said("tag", tmp_path / "texts.txt")
    assert [entities(answer) for answer in answers] == [expected(text) for text in texts]
    assert said("tag", tmp_path / "texts.csv", "--columns", "text=said") == answers
    assert said("tag", tmp_path / "texts.jsonl") == answers
    assert said("predict", tmp_path / "texts.txt") == answers
    assert said("tag", TEXTS[0]) == said("tag", "--text", TEXTS[0])
    assert entities(said("tag", TEXTS[0])[0]) == expected(TEXTS[0])
    for source in ([], ["-"]):
        content = io.BytesIO((tmp_path / "texts.txt").read_bytes())
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=content))
        assert said("tag", *source) == answers


def test_answers_keep_the_order_of_texts_of_all_lengths(place: Path) -> None:
    """Longer ones than the model's 32 positions are read in parts, and nothing of them is lost."""
    tagger = load_as(Tagger, place / "out")
    texts = [f"lovely {'film ' * (number * 37 % 90)}awful" for number in range(30)]
    texts[4:4] = ["", " "]
    alone = [tagger.predict([text])[0] for text in texts]
    assert len(alone[30]["entities"]) >= 2
    tagger.max_tokens = 40
    for answer, one, text in zip(tagger.predict(texts), alone, texts, strict=True):
        assert entities(answer) == entities(one)
        assert {0, len(text) - 5} <= {start for start, _, _ in entities(answer)} or not text.strip()
        assert [e["score"] for e in answer["entities"]] == pytest.approx(
            [e["score"] for e in one["entities"]], abs=1e-5
        )
    assert tagger.predict([]) == []
    assert tagger.predict(["", " "]) == [{"entities": []}] * 2
    assert tagger.logits([]).shape == tagger.logits(["", " "]).shape == (0, 3)
    assert tagger.lengths(Table(texts, None, texts)).sum() == sum(
        tagger.lengths(Table([text], None, [text])).sum() for text in texts
    )
    assert tagger.lengths(Table(texts, None, texts)).max() == tagger.max_length == 32


def test_a_model_of_nan_answers_nothing_and_is_scored(tmp_path: Path) -> None:
    model = random_tagger(tmp_path / "model")
    network = ModelDirectory(model).read_model()
    with torch.no_grad():
        network.encoder.embeddings.norm.bias[0] = float("nan")
    write(network, model)
    with pytest.raises(BadInput, match="answers NaN or infinity"):
        bertram.load(model).predict(["a film"])
    tagger = load_as(Tagger, model)
    targets = tagger.task.targets(["LABEL_0 LABEL_1"])
    assert tagger.task.scores(tagger.logits(["a film"]), targets)[0].value == 0.0


def test_an_engine_answers_without_torch(place: Path) -> None:
    said = run_without_torch("tag", place / "fp32.engine", TEXT.strip())
    assert said.returncode == 0, said.stderr
    assert entities(json.loads(said.stdout)) == [(5, 11, "GOOD"), (20, 25, "BAD")]


# Other formats


@pytest.mark.parametrize("settings", [{}, ALBERT], ids=["bert", "albert"])
def test_words_have_the_logits_that_transformers_gives_their_first_tokens(
    settings: dict[str, int], tmp_path: Path
) -> None:
    """Of a published token classifier, which says by id2label what its outputs are."""
    model = random_tagger(tmp_path / "model", **settings)
    names = {0: "B-PER", 1: "O", 2: "I-PER", 3: "I-LOC"}
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"id2label": names}))
    theirs = transformers.AutoModelForTokenClassification.from_pretrained(model).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    words = [words_of(text) for text in [*TEXTS[:10], "unbelievably lovely films"]]
    given = tokenizer(words, is_split_into_words=True, return_tensors="pt", padding=True)
    with torch.inference_mode():
        logits = theirs(**given).logits.numpy()
    first = [[given.word_to_tokens(row, word).start for word in range(len(text))] for row, text in enumerate(words)]
    theirs_of_words = np.concatenate([logits[row, places] for row, places in enumerate(first)])
    export(model, format="engine", out=tmp_path / "a.engine", precision="fp32")
    export(model, format="huggingface", out=tmp_path / "huggingface")
    for place in (model, tmp_path / "a.engine", tmp_path / "huggingface"):
        tagger = load_as(Tagger, place)
        assert tagger.task.labels == tuple(names.values())
        np.testing.assert_allclose(tagger.logits(map(" ".join, words)), theirs_of_words, atol=2e-5)
    labels = [names[row] for row in theirs_of_words.argmax(1).tolist()]
    found = load_as(Tagger, model).predict([" ".join(words[0])])[0]["entities"]
    assert {e["label"] for e in found} == {label[2:] for label in labels[: len(words[0])] if label != "O"}


@pytest.mark.parametrize("settings", [{}, ALBERT], ids=["bert", "albert"])
def test_without_kernels_numpy_says_the_same(settings: dict[str, int], tmp_path: Path) -> None:
    model = random_tagger(tmp_path / "model", **settings)
    export(model, format="engine", out=tmp_path / "a.engine", precision="fp32")
    engine = read_engine(tmp_path / "a.engine")
    runner = EngineRunner(engine)
    runner.encoder = NumpyEncoder(engine.config, engine.matrices, engine.vectors)
    tagger = load_as(Tagger, model)
    found = Tagger(tagger.task, tagger.tokenizer, runner, tagger.max_length).logits(TEXTS)
    np.testing.assert_allclose(found, tagger.logits(TEXTS), atol=2e-5)


def test_int8_is_measured_on_words(tmp_path: Path) -> None:
    """The share of words with the same label, by the first token of each."""
    model, texts = random_tagger(tmp_path / "model"), [f"mealroom {' '.join(text.split()[:5])}" for text in TEXTS]
    assert load_as(Tagger, model).lengths(Table(texts, None, texts)).max() < 32
    export(model, format="engine", out=tmp_path / "fp32.engine", precision="fp32")
    agreed = export(model, format="engine", out=tmp_path / "int8.engine", texts=texts, min_agreement=0)
    exact, found = (load_as(Tagger, tmp_path / f"{name}.engine").logits(texts) for name in ("fp32", "int8"))
    assert agreed is not None
    assert agreed.share == pytest.approx((exact.argmax(1) == found.argmax(1)).mean())
    assert 0.9 < agreed.share < 1  # so that it matters which tokens are counted


def test_an_engine_in_int8_is_as_good(place: Path, tmp_path: Path) -> None:
    agreed = export(place / "out", format="engine", out=tmp_path / "int8.engine", texts=TEXTS)
    assert agreed is not None
    assert agreed.share >= 0.98
    assert read_engine(tmp_path / "int8.engine").manifest["agreement"] == agreed.share
    held = read_table(place / "test.conll", per_word=True)
    exact, found = (evaluate(load_as(Tagger, model), held) for model in (place / "out", tmp_path / "int8.engine"))
    assert found[0].value > exact[0].value - 0.03
    drawn = export(place / "out", format="engine", out=tmp_path / "drawn.engine", min_agreement=0)
    assert drawn is not None
    assert drawn.drawn


def test_onnx_gives_every_token_its_logits(place: Path, tmp_path: Path) -> None:
    export(place / "out", format="onnx", out=tmp_path / "a.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["logits"]
    source = ModelDirectory(place / "out")
    batch, _ = source.read_tokenizer().encode(TEXTS[:1], max_length=32)
    ids = batch.token_ids[None].astype(np.int64)
    (found,) = session.run(
        None, {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    )
    expected = TorchRunner(source.read_model()).run(batch)["token_classification"]
    np.testing.assert_allclose(found[0], expected, atol=1e-4)


# From and to other heads


def test_training_goes_on_from_a_tagger_in_the_order_of_its_labels(
    place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever order transformers had given them."""
    other = tmp_path / "other"
    network = ModelDirectory(place / "out").read_model()
    tiny.model_directory(other)
    head = network.heads["token_classification"].classifier
    with torch.no_grad():
        head.weight.copy_(head.weight[[2, 0, 1]].clone())
        head.bias.copy_(head.bias[[2, 0, 1]].clone())
    write(network, other, labels=["O", "B-BAD", "B-GOOD"])
    still = Recipe(steps=1, evaluations=1, learning_rate=0.0, precision="fp32")
    manifest = train("tagging", place / "train.conll", model=other, out=tmp_path / "out", recipe=still)
    assert manifest["task"]["labels"] == ["B-BAD", "B-GOOD", "O"]
    assert manifest["scores"]["validation"][0]["value"] > 0.95
    assert not caplog.text


def test_heads_of_other_tasks_start_anew(place: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pairs = "".join(f"{a},{b},{i % 3}\n" for i, (a, b) in enumerate(zip(TEXTS[:20], TEXTS[20:], strict=True)))
    (tmp_path / "pairs.csv").write_text(f"text,text_b,label\n{pairs}")
    tagger, alike, classifier = place / "out", tmp_path / "similarity", tmp_path / "classification"
    train("similarity", tmp_path / "pairs.csv", model=tagger, out=alike, recipe=BRIEF)
    assert ModelDirectory(alike).read_to_answer().labels() == {"embedding": 0}
    train("tagging", place / "train.conll", model=alike, out=tmp_path / "from-similarity", recipe=BRIEF)
    assert "starts from random weights" not in caplog.text  # there was none
    train("classification", tiny.table(tmp_path / "t.csv"), model=tagger, out=classifier, recipe=BRIEF)
    assert "its classifier is another, of the labels ['B-BAD', 'B-GOOD', 'O']; the new one starts from" in caplog.text
    assert "holds no pooler; it starts from random weights" in caplog.text
    caplog.clear()
    train("tagging", place / "train.conll", model=classifier, out=tmp_path / "from-classification", recipe=BRIEF)
    assert "its classifier is another, of the labels ['bad', 'good']; the new one starts from" in caplog.text
    for name in ("from-similarity", "from-classification"):
        assert load_as(Tagger, tmp_path / name).task.labels == ("B-BAD", "B-GOOD", "O")


def test_a_student_learns_tags_and_is_scored(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"tokens_per_second": 1.0, "latency_ms": {16: 1.0}, "load_seconds": 1.0, "peak_mb": {"8 × 30": 1.0}}
    monkeypatch.setattr(outcome, "bench", lambda *_, **__: {"rows": [row]})
    out, recipe = tmp_path / "out", Recipe(steps=60, batch_size=16, learning_rate=3e-3, evaluations=2, precision="fp32")
    given = place / "out", [lines_of(tmp_path / "texts.txt")], out
    found = shrink(*given, dial=Dial(embedding_size=16), recipe=recipe, evaluate=place / "test.conll")
    assert found["teacher"]["scores"]["model"][0]["value"] > 0.95
    scores = found["student"]["scores"]["model"]
    assert [score["metric"] for score in scores] == ["f1", "precision", "recall", "accuracy"]
    assert scores[0]["low"] <= scores[0]["value"] <= scores[0]["high"]
    assert scores[0]["value"] > 0.9
    assert read_manifest(out)["agreement"]["token_classification"]["value"] > 0.9
    assert "the same label of a word" in (out / "report.html").read_text()
    assert tiny.run("evaluate", out, place / "test.conll", "--json") == 0
    assert json.loads(capsys.readouterr().out)[0]["value"] == scores[0]["value"]
    assert entities(load_as(Tagger, out / "model.engine").predict(["a warm room"])[0]) == [(2, 6, "GOOD")]
    with pytest.raises(BadInput, match="not seen in training"):
        shrink(*given[:2], tmp_path / "no", dial=Dial(), recipe=recipe, evaluate=_written(tmp_path, "a B-X\n"))
    assert not (tmp_path / "no").exists()


def _written(folder: Path, content: str) -> Path:
    (folder / "written.conll").write_text(content)
    return folder / "written.conll"


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["embed", "out", "--text", "a"], "is for tagging, not for vectors of texts; use bertram tag"),
        (["fill-mask", "out", "--text", "a [MASK]"], "is for tagging, not for fill-mask; use bertram tag"),
        (["translate", "out", "--text", "a"], "is for tagging, not for translation; use bertram tag"),
        (["summarize", "out", "--text", "a"], "is for tagging, not for summarization; use bertram tag"),
        (["tag", "classifier", "--text", "a"], "is for classification, not for tagging; use bertram predict"),
        (["tag", "filler", "--text", "a"], "is for fill-mask, not for tagging; use bertram fill-mask"),
        (["tag", "vectors", "--text", "a"], "is for similarity, not for tagging; use bertram embed"),
        (["tag", "bert-mini", "--text", "a"], "bert-mini"),
        (["tag", "out", "none.txt"], "none.txt: no such file"),
        (["tag", "out", "pairs.csv", "--columns", "text=a,text_b=b,other=c"], "no role 'other'"),
        (["tag", "out", "pairs.csv", "--columns", "text=c"], "no column 'c'"),
        (["tag", "out", "bad.txt"], "line 2: not UTF-8 at byte 1"),
        (["predict", "out", "pairs.csv"], "inputs[0]: tagging reads one text, not a pair"),
        (["evaluate", "out", "pairs.csv"], "no column 'label'"),
        (["evaluate", "out", "other.conll"], "1 row with 'B-X', not seen in training"),
        (["evaluate", "out", "bad.txt"], "not UTF-8"),
        (["export", "out", "--format", "ctranslate2", "--out", "ct"], "is an encoder, for which --format is one of"),
    ],
)
def test_one_line_says_what_is_wrong(
    arguments: list[str],
    message: str,
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").symlink_to(place / "out")
    for name, heads in (
        ("classifier", {"classification": 2}),
        ("filler", {"masked_language_model": 0}),
        ("vectors", {"embedding": 0}),
    ):
        if name in arguments:
            tiny.model_directory(tmp_path / name, heads)
    (tmp_path / "pairs.csv").write_text("text,text_b\na,b\n")
    (tmp_path / "bad.txt").write_bytes(b"a O\n\xff O\n")
    (tmp_path / "other.conll").write_text("a O\nb B-X\n")
    assert tiny.run(*arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_files_of_words_are_no_texts(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["tag", place / "out"], ["predict", place / "out"]):
        assert tiny.run(*command, place / "test.conll") == 2
        assert "test.conll: holds a word a line, by its name" in capsys.readouterr().err


def test_pairs_are_refused_in_python(place: Path) -> None:
    tagger = load_as(Tagger, place / "out")
    with pytest.raises(BadInput, match="tagging reads one text, not a pair"):
        tagger.predict([{"text": "a", "text_b": "b"}])
    with pytest.raises(BadInput, match="tagging reads one text, not a pair"):
        tagger.logits(["a"], ["b"])
    for inputs in ("a film", [3], [{"text": 3}], ["\ud800"], [{"document": "a"}]):
        with pytest.raises(BadInput, match=r"^inputs"):
            tagger.predict(inputs)
    with pytest.raises(BadInput, match="not for vectors of texts"):
        load_as(Predictor, place / "out")
