"""`bertram pretrain`: from text files to a directory that everything else takes."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

import bertram
from bertram.corpus import store
from bertram.corpus.source import Corpus
from bertram.errors import BadInput
from bertram.model_directory import ModelDirectory
from bertram.models.tensors import to_tensors
from bertram.pretraining.pretrain import summary
from bertram.text.tokenizer import Tokenizer
from bertram.training.distributed import Processes
from bertram.training.metrics_file import read_metrics
from bertram.training.recipe import Recipe
from tiny import model_directory, rows, run, table

MINUTE = "hidden_size=32,num_attention_heads=2,intermediate_size=48,num_hidden_layers=2"
SHORT = ["--max-length", "24", "--batch-size", "8", "--vocab-size", "150", "--evaluations", "2", "--log-every", "1"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 documents of four sentences."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    texts = [f"{text.capitalize()}." for text, _ in rows(800)]
    path.write_text("\n\n".join(" ".join(texts[i : i + 4]) for i in range(0, 800, 4)), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=["bert-tiny", "albert-tiny"])
def trained(request: pytest.FixtureRequest, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("pretrained") / request.param
    command = ["pretrain", corpus, "--model", request.param, "--config", MINUTE, *SHORT, "--steps", "120"]
    assert run(*command, "--out", out) in (None, 0)
    return out


def test_it_learns(trained: Path) -> None:
    """Held-out loss falls well below that of guessing by frequency, and metrics tell of both objectives."""
    manifest = json.loads((trained / "bertram.json").read_text())
    assert " documents (separated by blank lines)\nvalidation: held out of the corpus, " in summary(manifest)
    pair = "sentence-order" if trained.name == "albert-tiny" else "next-sentence"
    assert f"\nobjective: masked tokens and {pair} prediction\n" in summary(manifest)
    said = [line.rpartition(" ")[0] for line in summary(manifest).splitlines()]
    assert [said.count(f"held-out {name} accuracy") for name in ("next-sentence", "sentence-order")] == [1, 1]
    lines = read_metrics(trained / "metrics.jsonl")
    first = next(line for line in lines if "loss" in line)
    assert manifest["status"] == "finished"
    assert manifest["scores"]["masked_language_model_loss"] < first["masked_language_model_loss"] - 1
    assert {"nsp_accuracy", "sop_accuracy"} <= manifest["scores"].keys()
    assert "sentence_pair_accuracy" not in manifest["scores"]  # which is one of the two
    assert all(0 <= line["data_share"] <= 1 for line in lines if "loss" in line)
    assert any("validation_masked_language_model_loss" in line for line in lines)
    assert manifest["recipe"]["learning_rate"] == 1e-3
    card = (trained / "README.md").read_text()
    assert "fill-mask" in card
    assert "at most 24 tokens; positions beyond are untrained" in card


def test_transformers_loads_it_and_computes_the_same(trained: Path) -> None:
    theirs = transformers.AutoModelForPreTraining.from_pretrained(trained).eval()
    tokenizer = Tokenizer.load(trained)
    batch, _ = tokenizer.encode(["a lovely film", "the room was cold"], ["dull book", "warm"], max_length=24)
    ours = ModelDirectory(trained).read_model().eval()
    with torch.inference_mode():
        logits = ours(to_tensors(batch))
        for row, (start, end) in enumerate(zip(batch.offsets[:-1], batch.offsets[1:], strict=True)):
            ids, segments = (
                torch.from_numpy(x[start:end][None].astype(np.int64)) for x in (batch.token_ids, batch.segment_ids)
            )
            out = theirs(input_ids=ids, token_type_ids=segments)
            pair = out.seq_relationship_logits if hasattr(out, "seq_relationship_logits") else out.sop_logits
            torch.testing.assert_close(logits["masked_language_model"][start:end], out.prediction_logits[0])
            torch.testing.assert_close(logits["sentence_pair"][row], pair[0])
    own = transformers.AutoTokenizer.from_pretrained(trained)
    found, first = own("a lovely film", "dull book"), slice(batch.offsets[1])
    assert found["input_ids"] == batch.token_ids[first].tolist()
    assert found["token_type_ids"] == batch.segment_ids[first].tolist()
    assert own.model_max_length == ModelDirectory(trained).max_length  # positions beyond are untrained


def test_train_takes_it(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    code = run("train", "classification", table(tmp_path / "t.csv"), "--model", trained, "--steps", "4", "--out", out)
    assert code in (None, 0)


@pytest.mark.slow
def test_compare_takes_it_beside_a_shrunken_one(trained: Path, tmp_path: Path) -> None:
    lines = tmp_path / "texts.txt"
    lines.write_text("".join(f"{text}\n" for text, _ in rows(200)))
    models = [trained]
    if trained.name == "bert-tiny":
        models.append(tmp_path / "shrunken")
        sizes = ["--embedding-size", "16", "--steps", "4", "--evaluations", "1"]
        assert run("shrink", trained, "--texts", lines, "--out", models[1], *sizes) in (None, 0)
    options = ["--steps", "4", "--evaluations", "1", "--batch-size", "8", "--max-length", "24"]
    command = ["compare", table(tmp_path / "t.csv", 120), "--models", *models, *options]
    assert run(*command, "--out", tmp_path / "out") in (None, 0)
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["model"] for row in results["candidates"]] == ["tf-idf", *(model.name for model in models)]
    assert all(row["engine"] for row in results["candidates"][1:])


def test_it_is_trained_on(trained: Path, corpus: Path, tmp_path: Path) -> None:
    """A model directory in place of a preset: its weights and tokenizer go on, with another objective."""
    command = ["pretrain", corpus, "--model", trained, *SHORT[:4], "--steps", "3", "--sentence-objective", "none"]
    assert run(*command, "--evaluations", "1", "--log-every", "1", "--out", tmp_path / "on") in (None, 0)
    lines = [line for line in read_metrics(tmp_path / "on" / "metrics.jsonl") if "loss" in line]
    before = json.loads((trained / "bertram.json").read_text())["scores"]["masked_language_model_loss"]
    assert lines[0]["loss"] < before + 0.7
    assert (tmp_path / "on" / "tokenizer.json").read_bytes() == (trained / "tokenizer.json").read_bytes()
    config = json.loads((tmp_path / "on" / "config.json").read_text())
    assert config["architectures"][0].endswith("ForMaskedLM")


def test_a_tokenizer_and_validation_of_ones_own(trained: Path, corpus: Path, tmp_path: Path) -> None:
    held_out = tmp_path / "held.jsonl"
    held_out.write_text("".join(json.dumps({"text": f"{text}. {text}."}) + "\n" for text, _ in rows(40, seed=9)))
    command = ["pretrain", corpus, "--model", "bert-tiny", "--config", MINUTE, *SHORT[:4], "--steps", "2"]
    command += ["--tokenizer", trained, "--validation", held_out, "--masking", "ngram", "--evaluations", "1"]
    command += ["--optimizer", "lamb", "--decay-power", "2", "--gradient-checkpointing", "--max-tokens", "64"]
    assert run(*command, "--out", tmp_path / "own") in (None, 0)
    manifest = json.loads((tmp_path / "own" / "bertram.json").read_text())
    assert manifest["data"]["validation"]["source"] == "held.jsonl"
    assert manifest["data"]["train"]["documents"] == 200


@pytest.mark.parametrize(
    ("budget", "steps"), [(["--tokens", "2000"], range(10, 13)), (["--epochs", "1"], range(30, 60))], ids=str
)
def test_budgets(corpus: Path, tmp_path: Path, budget: list[str], steps: range) -> None:
    command = ["pretrain", corpus, "--model", "bert-tiny", "--config", MINUTE, *SHORT, *budget]
    assert run(*command, "--sentence-objective", "none", "--out", tmp_path / "out") in (None, 0)
    assert json.loads((tmp_path / "out" / "bertram.json").read_text())["steps"] in steps


def test_documents_are_parted_as_a_name_says_or_not_at_all(corpus: Path, tmp_path: Path) -> None:
    unknown: Any = "files"
    with pytest.raises(BadInput, match="--documents 'files': must be one of file, blank-line"):
        bertram.pretrain([corpus], model="bert-tiny", out=tmp_path / "out", recipe=Recipe(steps=1), documents=unknown)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "2", "--config", "hidden_sice=3"], "no field 'hidden_sice'"),
        (["--steps", "2", "--config", "hidden_size"], "write it like"),
        (["--steps", "2", "--config", "hidden_size=101"], "--config: 2 heads do not divide a width of 101"),
        (["--steps", "2", "--config", "scale_embedding=true"], "scale_embedding=True: is for translation"),
        (["--steps", "2", "--config", "normalize_before=true"], "not supported by BERT or ALBERT"),
        (["--steps", "2", "--max-length", "1000"], "bert-tiny: --max-length must be a whole number from 3 to 512"),
        (["--steps", "2", "--max-length", "4"], "--max-length 4: must be a whole number, at least 8"),
        ([], "no training budget"),
        (["--steps", "2", "--tokenizer", "nowhere"], "nowhere"),
        (["--steps", "2", "--tokenizer", "TOKENIZER", "--vocab-size", "100"], "which has its own size"),
        (["--steps", "2", "--tokenizer", "TOKENIZER", "--cased"], "there is a tokenizer already"),
        (["--steps", "2", "--config", "type_vocab_size=1"], "cannot read pairs"),
        (["--steps", "2", "--validation", "nowhere.txt"], "nowhere.txt"),
        (["--steps", "2", "--validation", "CORPUS"], "no file to train on, as --validation is left out"),
    ],
)
def test_bad_input_is_one_line(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    config = [] if "--config" in arguments else ["--config", MINUTE]
    arguments = [str(corpus) if argument == "CORPUS" else argument for argument in arguments]
    assert run("pretrain", corpus, "--model", "bert-tiny", *config, *arguments, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert message in said[0]


def pretrained(corpus: Path, out: Path, *arguments: object) -> object:
    """Two steps of a minute model; the exit code."""
    command = ["pretrain", corpus, "--model", "bert-tiny", "--config", MINUTE, "--steps", "2", "--evaluations", "1"]
    return run(*command, "--max-length", "24", "--batch-size", "8", *arguments, "--out", out)


def test_a_held_out_store_that_was_deleted_is_built_anew(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pretrained(corpus, tmp_path / "out") == 0
    stores = tmp_path / "out" / "store"
    before = {file: file.read_bytes() for file in sorted(stores.rglob("*.*"))}
    (tmp_path / "out" / "bertram.json").unlink()
    (stores / "validation" / "tokens.bin").write_bytes(b"torn")
    assert pretrained(corpus, tmp_path / "out", "--resume") == 2
    assert f"{stores / 'validation'}: not a whole token store" in capsys.readouterr().err
    shutil.rmtree(stores / "validation")
    assert pretrained(corpus, tmp_path / "out", "--resume") == 0
    assert {file: file.read_bytes() for file in sorted(stores.rglob("*.*"))} == before


def test_only_the_preparation_is_waited_for_patiently(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(Processes, "wait", lambda self, *, patiently=False: asked.append(patiently))
    assert pretrained(corpus, tmp_path) == 0
    first, *others = asked
    assert first
    assert others
    assert not any(others)


def test_of_a_large_corpus_less_is_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "HELD_OUT_TOKENS", 10)
    (tmp_path / "a.txt").write_text("x" * 1000)
    assert Corpus([tmp_path / "a.txt"], "file").held_out_of == 40  # 400 tokens
    (tmp_path / "b.txt").write_text("x" * 100)
    assert Corpus([tmp_path / "b.txt"], "file").held_out_of == 10


def test_a_diverged_training_ends_as_such(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert pretrained(corpus, tmp_path, "--learning-rate", "1e30", "--warmup", "0") == 1
    assert "the training diverged: the loss was" in capsys.readouterr().err
    manifest = json.loads((tmp_path / "bertram.json").read_text())
    assert manifest["status"] == "diverged"
    assert manifest["scores"] == {}
    assert "model-index" not in (tmp_path / "README.md").read_text()


def test_one_held_out_document_is_judged_by_masked_tokens(corpus: Path, tmp_path: Path) -> None:
    """Its pairs cannot have another document's text; the model learns next sentences all the same."""
    held_out = tmp_path / "held.jsonl"
    held_out.write_text(json.dumps({"text": "A lovely film. The room was cold. A warm meal."}))
    assert pretrained(corpus, tmp_path / "out", "--validation", held_out) == 0
    scores = json.loads((tmp_path / "out" / "bertram.json").read_text())["scores"]
    assert "masked_language_model_loss" in scores
    assert "nsp_accuracy" not in scores


def test_texts_without_blank_lines_between_them_are_one_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mails = tmp_path / "mails.txt"
    mails.write_text("".join(f"{text}\n" for text, _ in rows(50)))
    assert pretrained(mails, tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "too short to hold some of it out: give a --validation file" in said
    assert said.count("\n") == 1


def test_texts_of_one_word_make_no_pairs(tmp_path: Path) -> None:
    corpus = tmp_path / "words.jsonl"
    corpus.write_text("".join(json.dumps({"text": word}) + "\n" for word in ["Film", "Room", "Book"] * 30))
    assert pretrained(corpus, tmp_path / "out", "--cased") == 0
    manifest = json.loads((tmp_path / "out" / "bertram.json").read_text())
    assert "nsp_accuracy" not in manifest["scores"]
    assert " documents\n" in summary(manifest)
    assert "Film" in Tokenizer.load(tmp_path / "out").tokens


def test_what_cannot_be_leaves_the_directory_free(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One document and next-sentence pairs: found out after the store is built, and no obstacle to another try."""
    out = tmp_path / "out"
    held_out = ["--validation", shutil.copy(corpus, tmp_path / "held.txt"), "--documents", "file"]
    assert pretrained(corpus, out, *held_out) == 2
    assert "two documents" in capsys.readouterr().err
    assert not any(out.iterdir())
    assert pretrained(corpus, out, *held_out, "--sentence-objective", "sop") == 0


def test_a_tokenizer_that_cannot_serve_is_refused_before_the_corpus_is_read(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One without special tokens; one that reads pairs as XLM-R does, which serves where there are none."""

    def build(*arguments: object, **options: object) -> None:
        raise BadInput("read")

    monkeypatch.setattr(store, "build", build)
    Tokenizer.train(["a b c d"] * 4, "transformer", 32).save(tmp_path)
    assert pretrained(corpus, tmp_path / "out", "--tokenizer", tmp_path) == 2
    assert "has no cls token" in capsys.readouterr().err
    Tokenizer.train(["a b c d"] * 4, "bert", 32).save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    content["post_processor"]["pair"].insert(2, content["post_processor"]["pair"][2])
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    command = ["--tokenizer", tmp_path, "--sentence-objective"]
    assert pretrained(corpus, tmp_path / "out", *command, "sop") == 2
    assert "other tokens or segments around pairs" in capsys.readouterr().err
    assert pretrained(corpus, tmp_path / "out", *command, "none") == 2
    assert capsys.readouterr().err == "bertram: read\n"


def test_validation_is_left_out_of_the_corpus_and_read_as_it_is(corpus: Path, tmp_path: Path) -> None:
    """Two text files are a document each, and so is the one beside them to validate on; none counts twice."""
    for name in ("a.txt", "b.txt", "held.txt"):
        (tmp_path / name).write_text(corpus.read_text())
    command = ["pretrain", tmp_path, tmp_path / "a.txt", "--validation", tmp_path / "held.txt", "--steps", "1"]
    assert run(*command, "--model", "bert-tiny", "--config", MINUTE, "--out", tmp_path / "out") == 0
    data = json.loads((tmp_path / "out" / "bertram.json").read_text())["data"]
    assert (data["documents"], data["train"]["documents"], data["validation"]["documents"]) == ("file", 2, 1)


def test_a_model_of_ones_own_keeps_its_objective(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A BERT that learned sentence order goes on with it, which config.json cannot say, and reads as far as before."""
    assert pretrained(corpus, tmp_path / "first", "--sentence-objective", "sop") == 0
    command = ["pretrain", corpus, "--model", tmp_path / "first", "--steps", "1", "--max-length", "16"]
    assert run(*command, "--out", tmp_path / "second") == 0
    manifest = json.loads((tmp_path / "second" / "bertram.json").read_text())
    assert manifest["pretraining"]["sentence_objective"] == "sop"
    assert manifest["recipe"]["learning_rate"] == 1e-4
    assert manifest["max_length"] == 24
    card = (tmp_path / "second" / "README.md").read_text()
    assert "at most 16 tokens; positions beyond are as first had them" in card
    assert run(*command, "--tokenizer", tmp_path / "first", "--out", tmp_path / "third") == 2
    assert "first has its own; another's tokens" in capsys.readouterr().err


def test_a_pickle_is_refused_at_once_and_read_when_allowed(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_directory(tmp_path / "model")
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    command = ["pretrain", corpus, "--model", model, "--steps", "1", "--max-length", "24", "--out", tmp_path / "out"]
    assert run(*command) == 2
    assert "a pickle, which may hold code" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run(*command, "--allow-pickle") == 0


def test_fine_tuning_reads_no_further_than_was_trained(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned"
    data = table(tmp_path / "t.csv")
    assert run("train", "classification", data, "--model", trained, "--steps", "1", "--out", out) == 0
    assert json.loads((out / "bertram.json").read_text())["max_length"] == 24
