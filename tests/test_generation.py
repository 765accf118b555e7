"""Translation and summarization: from pairs of texts to a directory that writes, by every road that leads there."""

import io
import json
import math
import shutil
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

import bertram
from bertram import artifacts
from bertram.batch import Batch, Examples
from bertram.config import TRANSFORMERS
from bertram.errors import BadInput
from bertram.exporting import export
from bertram.inference.generator import Generator
from bertram.interruption import Interrupted
from bertram.model_directory import ModelDirectory
from bertram.model_names import Preset
from bertram.models.tensors import to_tensors
from bertram.search import Hypothesis, Search
from bertram.supervised import generation
from bertram.tasks.sequence_to_sequence import Summarization, Translation
from bertram.text.pairs import Pairs
from bertram.text.tokenizer import Tokenizer
from bertram.training.distributed import alone
from bertram.training.feed import ShuffledRows
from bertram.training.metrics_file import read_metrics
from bertram.training.recipe import Recipe
from tiny import model_directory, run, table
from torchless import WITHOUT_TORCH, run_python, run_without_torch
from translating import SHORT, SIZES, TINY, WORDS, write_documents, write_pairs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learned to translate numbers."""
    directory = tmp_path_factory.mktemp("numbers")
    bertram.train(
        "translation",
        write_pairs(directory, 400),
        validation=write_pairs(directory, 40, 1, "validation"),
        test=write_pairs(directory, 40, 2, "test"),
        model="transformer-tiny",
        out=directory / "model",
        config=SIZES
        | dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "activation_dropout"), 0.0),
        recipe=Recipe(steps=350, learning_rate=5e-3, batch_tokens=256, evaluations=3, average=3),
    )
    return directory / "model"


def translation_of(tmp_path: Path, *, trial: bool = False) -> generation.EncoderDecoderTraining:
    """One step of a training on forty pairs."""
    return generation.EncoderDecoderTraining(
        task=Translation(),
        splits=generation.read_splits("translation", {"train": write_pairs(tmp_path, 40)}),
        source=Preset("transformer-tiny"),
        config=SIZES,
        recipe=Recipe(steps=1),
        trial=trial,
    )


def test_tokens_are_smoothed_and_untrained_writing_is_no_measure(tmp_path: Path) -> None:
    """Of what later evaluations take: --hours makes as many as are asked for."""
    setup = translation_of(tmp_path).begin(tmp_path, alone())
    assert setup.network.head.label_smoothing == 0.1
    assert not setup.fewer_evaluations


@pytest.mark.parametrize(("written", "trial"), [("", False), ("", True), ("eins", False)])
def test_a_model_that_writes_nothing_is_warned_of(
    written: str, trial: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    training = translation_of(tmp_path, trial=trial)
    monkeypatch.setattr(generation.Generator, "write", lambda self, texts, search=None: [written] * len(texts))
    training.begin(tmp_path, alone()).results()
    said = (
        f"bertram: {tmp_path}: the model writes nothing for any of the 4 validation texts; try a higher --learning-rate"
    )
    assert [message.startswith(said) for message in caplog.messages] == ([] if written or trial else [True])


def test_it_learns_to_translate(trained: Path) -> None:
    manifest = json.loads((trained / "bertram.json").read_text())
    bleu = manifest["scores"]["test"][0]
    assert bleu["metric"] == "bleu"
    assert bleu["value"] > 80
    assert bleu["signature"].endswith("|beam:5|split:test|seed:0")
    assert manifest["status"] == "finished"
    assert bertram.load(trained).predict(["two five"])[0]["text"] == "zwei fünf"
    assert not (trained / "checkpoints").exists()
    assert "bleu" in (trained / "README.md").read_text()


def test_translate_keeps_files_line_for_line(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "numbers.en"
    source.write_text("three\n\n  \nsix one\n")
    assert run("translate", trained, source) == 0
    assert capsys.readouterr().out == "drei\n\n\nsechs eins\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'one\n{"text": "two"}\n')))
    assert run("translate", trained, "--beam-size", 1) == 0
    assert capsys.readouterr().out.splitlines()[0] == "eins"


def test_the_n_best_are_different_texts_with_falling_scores(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "numbers.en"
    source.write_text("one two\n\nsix\n")
    assert run("translate", trained, source, "--n-best", 3, "--json") == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["text"] for answer in answers] == ["eins zwei", "", "sechs"]
    for answer in (answers[0], answers[2]):
        ranked = [answer, *answer["others"]]
        assert len({each["text"] for each in ranked}) == len(ranked) == 3
        assert [each["score"] for each in ranked] == sorted((each["score"] for each in ranked), reverse=True)
    assert run("translate", trained, source, "--n-best", 1) == 0
    assert capsys.readouterr().out == "eins zwei\n\nsechs\n"


def test_a_stream_that_breaks_gives_what_came_before(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "broken.en"
    source.write_bytes(b"three\nfour\n\xff\nfive\n")
    assert run("translate", trained, source) == 2
    out, err = capsys.readouterr()
    assert out == "drei\nvier\n"
    assert err == f"bertram: {source}: line 3: not UTF-8 at byte 1; convert it first: iconv -f ENCODING -t UTF-8\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
    assert run("translate", trained, "-") == 2
    out, err = capsys.readouterr()
    assert out == "drei\nvier\n"
    assert err.startswith("bertram: standard input: line 3: not UTF-8 at byte 1; ")


def test_evaluate_gives_the_score_of_training(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = trained.parent / "test.en", trained.parent / "test.de"
    assert run("evaluate", trained, *files, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    kept = json.loads((trained / "bertram.json").read_text())["scores"]["test"]
    assert [score | {"signature": f"{score['signature']}|split:test|seed:0"} for score in found] == kept


def test_a_training_signs_how_its_test_was_searched(tmp_path: Path) -> None:
    """By the search of the model that it began with, all that is unusual of it."""
    data = write_pairs(tmp_path, 60)
    bertram.train("translation", data, model="transformer-tiny", config=SIZES, out=tmp_path / "first", recipe=SHORT)
    manifest = json.loads((tmp_path / "first" / "bertram.json").read_text())
    manifest["search"] |= {"beam_size": 3, "length_penalty": 0.6, "no_repeat_ngram_size": 2}
    (tmp_path / "first" / "bertram.json").write_text(json.dumps(manifest))
    test = write_pairs(tmp_path, 20, seed=1, name="test")
    again = bertram.train(
        "translation", data, test=test, model=tmp_path / "first", out=tmp_path / "second", recipe=SHORT
    )
    signatures = [score["signature"] for score in again["scores"]["test"]]
    wanted = "|beam:3|length_penalty:0.6|no_repeat_ngram_size:2|split:test|seed:0"
    assert all(signature.endswith(wanted) for signature in signatures), signatures
    assert len(signatures) == 2


def test_the_exported_model_writes_the_same(trained: Path, tmp_path: Path) -> None:
    bertram.export(trained, format="ctranslate2", out=tmp_path / "fp32", precision="fp32")
    sources = (trained.parent / "test.en").read_text().splitlines()
    greedy = Search(beam_size=1)
    ours, theirs = (artifacts.load_as(Generator, model) for model in (trained, tmp_path / "fp32"))
    assert theirs.write(sources, greedy) == ours.write(sources, greedy)
    assert theirs.search == ours.search
    with pytest.raises(BadInput, match="is an encoder"):
        bertram.export(model_directory(tmp_path / "bert"), format="ctranslate2", out=tmp_path / "other")
    vocabulary = tmp_path / "fp32" / "shared_vocabulary.json"
    tokens = json.loads(vocabulary.read_text(encoding="utf-8"))
    vocabulary.write_text(json.dumps([*tokens[:-2], tokens[-1], tokens[-2]]), encoding="utf-8")
    with pytest.raises(BadInput, match="the source tokenizer's vocabulary is not that of the exported model"):
        bertram.load(tmp_path / "fp32")


def test_an_exported_model_writes_without_torch(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "int8"
    assert run("export", trained, "--format", "ctranslate2", "--out", out) == 0
    done = run_without_torch("translate", out, "--text", "two five", "--n-best", 2, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert answer["text"] == "zwei fünf"
    assert [other["text"] == "zwei fünf" for other in answer["others"]] == [False]
    program = f"import bertram; print(bertram.load({str(out)!r}).write(['one', '', 'six two']))"
    done = run_python(WITHOUT_TORCH + program)
    assert (done.stdout, done.stderr) == ("['eins', '', 'sechs zwei']\n", "")


def test_a_vocabulary_map_is_kept_to(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is read, only what stands in "zwei" and "drei" may be written."""
    tokenizer = Tokenizer.load(trained)
    allowed = {tokenizer.tokens[piece] for piece in tokenizer.pieces(["zwei drei", "drei zwei"])[0]}
    (tmp_path / "map").write_text(f"\t{' '.join(sorted(allowed))}\n", encoding="utf-8")
    command = ["export", trained, "--format", "ctranslate2", "--precision", "fp32"]
    assert run(*command, "--vocabulary-map", tmp_path / "map", "--out", tmp_path / "mapped") == 0
    capsys.readouterr()
    assert run("translate", tmp_path / "mapped", "--text", "two five three") == 0
    written = capsys.readouterr().out.split()
    assert written
    assert set(written) <= {"zwei", "drei"}


def test_an_export_that_was_interrupted_can_be_repeated(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise Interrupted(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr("bertram.exporting.write_manifest", interrupted)
        with pytest.raises(Interrupted):
            export(trained, format="ctranslate2", out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "out" / ".unfinished-killed").mkdir(parents=True)  # as one that was killed leaves it
    export(trained, format="ctranslate2", out=tmp_path / "out")
    assert artifacts.load_as(Generator, tmp_path / "out").write(["two five"])
    assert not list((tmp_path / "out").glob(".*"))
    with pytest.raises(BadInput, match="not an empty directory"):
        export(trained, format="ctranslate2", out=tmp_path / "out")


@pytest.mark.parametrize(
    "options",
    [{"separate_vocabularies": True}, {"config": SIZES | {"embedding_size": 16, "num_hidden_groups": 1}}],
    ids=["separate vocabularies", "factorised and shared"],
)
def test_other_kinds_train_and_load(options: dict[str, Any], tmp_path: Path) -> None:
    data = write_pairs(tmp_path, 60)
    settings: dict[str, Any] = {"model": "transformer-tiny", "config": SIZES, "recipe": SHORT} | options
    manifest = bertram.train("translation", data, out=tmp_path / "out", **settings)
    generator = artifacts.load_as(Generator, tmp_path / "out")
    assert (generator.target is not generator.source) == bool(options.get("separate_vocabularies"))
    again = bertram.train("translation", data, model=tmp_path / "out", out=tmp_path / "more", recipe=SHORT)
    assert again["config"] == manifest["config"]


def test_a_decoder_embeds_as_an_encoder_whose_vocabulary_is_padded(tmp_path: Path) -> None:
    """It has no more tokens than there are names for, and so an embedding of its own."""
    directory = ModelDirectory(model_directory(tmp_path / "encoder", vocab_size=400))
    network, tokenizer, _ = generation._on_encoder(directory, {})
    rows = network.decoder.embeddings.tokens.weight
    assert len(rows) == tokenizer.vocab_size < 400
    torch.testing.assert_close(rows, network.encoder.embeddings.tokens.weight[: len(rows)], rtol=0, atol=0)
    torch.testing.assert_close(network.head.decoder.weight, rows, rtol=0, atol=0)


def test_an_encoder_with_residuals_gets_a_decoder_without(tmp_path: Path) -> None:
    directory = ModelDirectory(model_directory(tmp_path / "encoder", num_hidden_groups=1, residual_rank=2))
    network, _, _ = generation._on_encoder(directory, {})
    config = network.config
    assert (config.encoder.shared, config.encoder.residual_rank, config.decoder.residual_rank) == ("none", 0, 0)
    batch = Batch.pack([[2, 7, 8, 3], [2, 9, 3]])
    with torch.inference_mode():
        expected = directory.read_model({}).eval().encoder(to_tensors(batch))
        torch.testing.assert_close(network.eval().encoder(to_tensors(batch)), expected)
    apart = {"num_hidden_groups": 2}  # as many as layers, which residuals do not go with
    data, out = write_documents(tmp_path / "documents.jsonl", 20), tmp_path / "out"
    bertram.train("summarization", data, model=directory.path, out=out, recipe=replace(SHORT, steps=1), config=apart)
    assert ModelDirectory(out).read_transformer().config.decoder.groups == 2


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_a_trained_encoder_gets_a_decoder_of_its_kind(
    family: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {} if family == "bert" else {"embedding_size": 16, "num_hidden_groups": 1}
    encoder = model_directory(tmp_path / "encoder", **sizes)
    data = write_documents(tmp_path / "documents.jsonl")
    recipe = replace(SHORT, encoder_learning_rate=0.0, weight_decay=0.0)
    bertram.train("summarization", data, model=encoder, out=tmp_path / "out", recipe=recipe)
    before = ModelDirectory(encoder).read_model({}).encoder.state_dict()
    network = ModelDirectory(tmp_path / "out").read_transformer()
    for name, weight in network.encoder.state_dict().items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=0)
    layers = network.decoder.layers
    assert (layers[0].feed_forward is layers[1].feed_forward) == (family == "albert")
    assert network.config.decoder.embedding_width == network.config.encoder.embedding_width
    long = "film room " * 40  # of which the model reads 32 tokens
    (tmp_path / "new.txt").write_text(f"a film\n\n{long}\n{long} book\n")
    assert run("summarize", tmp_path / "out", tmp_path / "new.txt", "--json") == 0
    short, nothing, cut, longer = answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert short.keys() == {"text", "score"}
    assert nothing == {"text": "", "score": 0.0}
    assert cut == longer
    assert cut["score"] != short["score"]
    written = "".join(f"{answer['text']}\n" for answer in answers)
    assert run("summarize", tmp_path / "out", tmp_path / "new.txt") == 0
    assert capsys.readouterr().out == written
    rows = [{"document": line, "summary": "-"} for line in ("a film", "", long, f"{long} book")]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run("summarize", tmp_path / "out", tmp_path / "new.jsonl") == 0
    assert capsys.readouterr().out == written
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "a film"}\n')))
    assert run("summarize", tmp_path / "out") == 2
    assert "standard input: line 1: not an object with a document" in capsys.readouterr().err


def test_a_training_that_no_longer_improves_stops_early(tmp_path: Path) -> None:
    recipe = replace(SHORT, learning_rate=0.0, evaluations=4, patience=1)
    manifest = bertram.train(
        "translation",
        write_pairs(tmp_path, 20),
        model="transformer-tiny",
        out=tmp_path / "out",
        recipe=recipe,
        config=SIZES,
    )
    assert (manifest["steps"], manifest["best_step"]) == (2, 2)  # of equals the later


def test_lengths_and_batches_are_those_that_were_asked_for(tmp_path: Path) -> None:
    data, encoder = write_documents(tmp_path / "documents.jsonl", 20), model_directory(tmp_path / "encoder")
    recipe = Recipe(epochs=1, batch_size=6, evaluations=1)
    first = bertram.train("summarization", data, model=encoder, out=tmp_path / "a", recipe=recipe, max_length=9)
    assert first["steps"] == 3  # 18 rows, a tenth being held out
    assert first["max_length"] == 9
    assert AutoTokenizer.from_pretrained(tmp_path / "a").model_max_length == 9  # of 32 positions
    again = bertram.train("summarization", data, model=tmp_path / "a", out=tmp_path / "b", recipe=recipe)
    assert again["max_length"] == 9
    rates = [(run["recipe"]["learning_rate"], run["recipe"]["encoder_learning_rate"]) for run in (first, again)]
    assert rates == [(1e-3, 1e-4), (5e-5, None)]
    sizes = {"max_position_embeddings": 4}  # of the decoder: documents of eight tokens are read whole
    bertram.train("classification", table(tmp_path / "t.csv"), model=encoder, out=tmp_path / "c", recipe=recipe)
    short = bertram.train("summarization", data, model=tmp_path / "c", out=tmp_path / "d", recipe=recipe, config=sizes)
    assert short["max_length"] == 32
    assert (first["truncated_texts"], short["truncated_texts"]) == (0, 0)
    written = artifacts.load_as(Generator, tmp_path / "d").write(["film room book meal film room"])
    assert len(written[0].split()) < 4


def test_the_encoder_learns_at_its_own_rate(tmp_path: Path) -> None:
    """A tenth, untold. Adam's first step moves a weight by the rate, whatever the gradient."""
    encoder, data = model_directory(tmp_path / "encoder"), write_documents(tmp_path / "documents.jsonl")
    recipe = replace(SHORT, steps=1, learning_rate=1e-3, weight_decay=0.0, warmup=0.0)
    bertram.train("summarization", data, model=encoder, out=tmp_path / "out", recipe=recipe)
    before = ModelDirectory(encoder).read_model({}).encoder.state_dict()
    after = ModelDirectory(tmp_path / "out").read_transformer().encoder.state_dict()
    moved = max(float((after[name] - before[name]).abs().max()) for name in before)
    assert moved == pytest.approx(1e-4, rel=0.02)
    decoder = ModelDirectory(tmp_path / "out").read_transformer().decoder.state_dict()
    biases = [weight for name, weight in decoder.items() if name.endswith("bias") and "norm" not in name]
    assert max(float(bias.abs().max()) for bias in biases) == pytest.approx(1e-3, rel=0.02)  # they begin at 0


def test_batches_in_passes_give_the_gradient_of_the_whole(tmp_path: Path) -> None:
    still = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "activation_dropout"), 0.0)
    found = []
    for max_tokens in (10_000, 40):
        recipe, out = (
            replace(SHORT, max_tokens=max_tokens, precision="fp32", batch_tokens=256),
            tmp_path / str(max_tokens),
        )
        bertram.train(
            "translation",
            write_pairs(tmp_path, 60),
            model="transformer-tiny",
            out=out,
            config=SIZES | still,
            recipe=recipe,
        )
        found.append([line["loss"] for line in read_metrics(out / "metrics.jsonl") if "loss" in line])
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_a_stopped_training_goes_on_to_the_same_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_pairs(tmp_path, 60)
    settings: dict[str, Any] = {"model": "transformer-tiny", "config": SIZES, "recipe": replace(SHORT, average=2)}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    bertram.train("translation", data, out=whole, **settings)

    class Killed(Exception):
        pass

    def kill(line: dict[str, Any]) -> None:
        if line["step"] == 3:
            raise Killed

    with pytest.raises(Killed):
        bertram.train("translation", data, out=stopped, report=kill, **settings)
    bertram.train("translation", data, out=stopped, resume=True, **settings)
    curves = [
        [line["loss"] for line in read_metrics(out / "metrics.jsonl") if "loss" in line] for out in (whole, stopped)
    ]
    assert len(curves[0]) == SHORT.steps
    assert curves[0] == curves[1]
    assert (whole / "model.safetensors").read_bytes() == (stopped / "model.safetensors").read_bytes()


def test_what_another_command_finished_is_not_this_ones_result(trained: Path) -> None:
    labelled = table(trained.parent / "labelled.csv")
    with pytest.raises(BadInput, match="was not started by this command"):
        bertram.train("classification", labelled, model="bert-tiny", out=trained, resume=True)


def test_a_dry_run_leaves_nothing(tmp_path: Path) -> None:
    files = write_pairs(tmp_path, 60)
    before = set(tmp_path.iterdir())
    command = ["train", "translation", *files, "--model", "transformer-tiny", "--config", TINY, "--out", tmp_path / "o"]
    assert run(*command, "--dry-run") == 0
    assert set(tmp_path.iterdir()) == before


def test_bad_input_is_one_line_and_exit_code_2(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    english, german = write_pairs(tmp_path, 10)
    (tmp_path / "short.de").write_text("eins\n")
    (tmp_path / "gap.de").write_text("eins\n" * 4 + "\n" + "eins\n" * 5)
    (tmp_path / "bytes.de").write_bytes(b"\xff\n" * 10)
    encoder, wrong = model_directory(tmp_path / "encoder"), tmp_path / "wrong"
    wrong.mkdir()
    for name in ("config.json", "model.safetensors", "bertram.json", "tokenizer_config.json"):
        (wrong / name).write_bytes((trained / name).read_bytes())
    Tokenizer.train([f"{a}{b}" for a in "abcdefghijk" for b in "lmnopqrstuv"], "transformer", 400).save(wrong)
    train, to = ["train", "translation", english], ["--model", "transformer-tiny", "--out", tmp_path / "out"]
    for arguments, message in (
        ([*train, tmp_path / "short.de", *to], "each line must stand beside its counterpart"),
        ([*train, tmp_path / "gap.de", *to], "line 5: is empty"),
        ([*train, tmp_path / "bytes.de", *to], "not UTF-8"),
        ([*train, *to], "needs a second file"),
        ([*train, german, "--model", "bert-tiny", "--out", tmp_path / "out"], "encoder's preset"),
        ([*train, german, *to, "--config", "layers=3"], "--config: no field 'layers'"),
        (
            [*train, german, *to[:2], "--config", "type_vocab_size=2", "--out", tmp_path / "segments"],
            "--config: a decoder has no segments",
        ),
        ([*train, german, *to, "--max-length", 2], "transformer-tiny: --max-length must be a whole number from 3"),
        ([*train, german, *to, "--max-length", 1000], "--max-length must be a whole number from 3 to 512, not 1000"),
        (["train", "classification", english, german, *to], "train.de: one file too many; labelled texts stand in one"),
        ([*train, german, "--test", english, german, "c", *to], "c: one file too many; pairs stand in one table or in"),
        (["translate", trained, english, "--beam-size", 0], "--beam-size 0"),
        (["translate", trained, english, "--text", "eins"], "not both"),
        (["translate", trained, tmp_path / "no news.en"], "no news.en"),
        ([*train, german, *to, "--batch-size", 8, "--batch-tokens", 99], "cannot be combined with --batch-size"),
        (["translate", trained, english, "--n-best", 9, "--json"], "--n-best 9: a beam of 5"),
        (["translate", trained, english, "--n-best", 2], "--n-best 2: needs --json"),
        (["evaluate", trained, english, german, "--n-best", 2], "--n-best 2: only one output per text is scored"),
        (["translate", wrong, english], "entries, the model writes"),
        (["translate", encoder, english], "unknown task: bertram.json names none"),
        (["translate", "transformer-tiny", english], "is a preset"),
        (["summarize", trained, english], "is for translation"),
        (["export", trained, "--format", "ctranslate2", "--out", encoder], "not an empty directory"),
        (["pretrain", shutil.copy(english, tmp_path / "corpus.txt"), "--steps", 1, *to], "encoder–decoder"),
        (["compare", table(tmp_path / "t.csv"), "--models", trained, "--out", tmp_path / "c"], "encoder–decoder"),
        (["train", "classification", tmp_path / "t.csv", "--model", trained, "--out", tmp_path / "c"], "this needs an"),
        (
            ["export", trained, "--format", "engine", "--out", tmp_path / "e"],
            "--format is one of",
        ),
        (["embed", trained, english], "use bertram translate"),
        (["shrink", trained, "--texts", english, "--out", tmp_path / "c", "--steps", 1], "encoder–decoder"),
    ):
        assert run(*arguments) == 2, arguments
        err = capsys.readouterr().err
        assert message in err, err
        assert err.count("\n") == 1, err
    assert not (tmp_path / "out").exists() or not (tmp_path / "out" / "bertram.json").exists()


class Echo:
    """A runner that writes what it reads, and remembers how much that was."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def generate(self, batch: Batch, search: Search) -> list[list[Hypothesis]]:
        self.read += batch.lengths.tolist()
        rows = [batch.token_ids[start : end - 1].tolist() for start, end in pairwise(batch.offsets)]
        return [[Hypothesis(row, -1.0)] * search.n_best for row in rows]


@pytest.fixture
def echo() -> Generator:
    tokenizer = Tokenizer.train([" ".join(WORDS), "A b. C d!"], "transformer", 100)
    return Generator(Translation(), tokenizer, tokenizer, Echo(), 24, max_tokens=100)


def test_a_search_is_no_mapping(echo: Generator) -> None:
    with pytest.raises(BadInput, match=r"^search: must be a bertram\.Search, not dict$"):
        echo.predict(["one"], cast(Search, {"beam_size": 3}))


def test_a_long_line_is_written_by_sentences_and_nothing_is_lost(echo: Generator) -> None:
    random = np.random.default_rng(0)
    sentences = [" ".join(random.choice(list(WORDS), random.integers(1, 60))) + "." for _ in range(200)]
    text = " ".join(sentences)
    assert len(text.split()) > 5000
    assert echo.predict(["one", text, "", "two"]) == [
        {"text": written, "score": score} for written, score in (("one", -1.0), (text, -1.0), ("", 0.0), ("two", -1.0))
    ]
    assert max(echo.runner.read) <= 24  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("read", "written", "joined"),
    [
        (["今天很好。", "我们去。"], ["It is nice.", "We go."], "It is nice. We go."),
        (["It is nice. ", "We go."], ["今天很好。", "我们去。"], "今天很好。我们去。"),
        (["今天很好。", "我们去。"], ["今日はいい。", "行く。"], "今日はいい。行く。"),
        (["It is ", "nice."], ["Es ist", "schön."], "Es ist schön."),
        (["Donau", "dampf"], ["Dan", "ube"], "Danube"),
        (["It is nice. ", "We go."], ["날씨가 좋다.", "간다."], "날씨가 좋다. 간다."),
        (["他说：“你好。”", "她走了。"], ["He said hi.", "She left."], "He said hi. She left."),
        (["彼は行った｡", "彼女も行った｡"], ["He went.", "She went."], "He went. She went."),
        (["He said “hi.” ", "“No,” she said."], ["他说：“你好。”", "“不，”她说。"], "他说：“你好。”“不，”她说。"),
    ],
)
def test_the_language_that_is_written_decides_on_spaces(
    echo: Generator, monkeypatch: pytest.MonkeyPatch, read: list[str], written: list[str], joined: str
) -> None:
    texts = iter(written)
    monkeypatch.setattr(echo, "target", SimpleNamespace(written=lambda ids: next(texts)))
    assert echo._joined(read, [Hypothesis([], -1.0)] * 2) == (joined, -1.0)


def test_every_piece_of_a_long_text_says_which_language_to_write(
    echo: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tokenizer, "split_code", lambda self, text: ("two", text.removeprefix("two")))
    sentence = " ".join(["one"] * 4) + "."
    expected = f"two {sentence} two {sentence}"
    texts = [f"two {sentence} {sentence}", f"\t two {sentence} {sentence}", "two one."]
    assert echo.write(texts) == [expected, expected, "two one."]


def test_few_sources_are_searched_together_where_hypotheses_are_many(
    echo: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    generate = echo.runner.generate

    def watched(batch: Batch, search: Search) -> list[list[Hypothesis]]:
        seen.append(len(batch))
        return generate(batch, search)

    monkeypatch.setattr(echo.runner, "generate", watched)
    texts = ["w"] * 20
    expected = echo.predict(texts)
    assert max(seen) == 20
    seen.clear()
    monkeypatch.setattr("bertram.inference.generator._MOST_SCORES", 3 * 5 * echo.target.vocab_size)
    assert echo.predict(texts, Search(beam_size=5)) == expected
    assert seen == [3] * 6 + [2]


def test_one_long_text_does_not_pad_many_short_ones(echo: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every token written looks at the keys of all sources, which are padded to the longest."""
    seen = []
    generate = echo.runner.generate

    def watched(batch: Batch, search: Search) -> list[list[Hypothesis]]:
        seen.append(len(batch) * int(batch.lengths.max()))
        return generate(batch, search)

    monkeypatch.setattr(echo.runner, "generate", watched)
    monkeypatch.setattr(echo, "max_tokens", 64)
    texts = ["w"] * 12 + ["w " * 12]
    assert echo.predict(texts)[:-1] == [echo.predict(["w"])[0]] * 12
    assert max(seen) <= 128


def test_a_model_whose_weights_are_no_numbers_writes_nothing(trained: Path, tmp_path: Path) -> None:
    place = shutil.copytree(trained, tmp_path / "model")
    weights = load_file(place / "model.safetensors")
    name = next(iter(weights))
    weights[name][0] = math.nan
    save_file(weights, place / "model.safetensors")
    with pytest.raises(BadInput, match="holds NaN or infinity: its training diverged"):
        artifacts.load(place)
    with pytest.raises(BadInput, match="holds NaN"):
        export(place, format="ctranslate2", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_long_document_loses_its_end(echo: Generator) -> None:
    echo.task = Summarization()
    (answer,) = echo.predict([" ".join(["one"] * 100)])
    assert answer["text"]
    assert set(answer["text"].split()) <= {"one", "o", "on"}
    assert echo.runner.read == [24]  # type: ignore[attr-defined]


def test_inputs_that_cannot_be_written_from(echo: Generator) -> None:
    with pytest.raises(BadInput, match=r"inputs\[1\]: translation reads one text"):
        echo.predict(["one", {"text": "one", "text_b": "two"}])
    with pytest.raises(BadInput, match="surrogate"):
        echo.predict(["\ud800"])
    assert echo.predict([]) == []


def test_targets_are_what_follows() -> None:
    tokenizer = Tokenizer.train(list(WORDS), "transformer", 60)
    pairs = Pairs(["one two", "six"], [["six five"], ["one", "four"]])
    examples, cut = generation.pair_examples(pairs, tokenizer, tokenizer, TRANSFORMERS["transformer-tiny"], 64)
    assert cut == 0
    assert len(examples) == 3
    outputs = examples.inputs_b
    assert outputs is not None
    for row, (source, target) in enumerate((("one two", "six five"), ("six", "one"), ("six", "four"))):
        own = examples.select([row])
        assert tokenizer.decode(own.inputs.token_ids) == source
        assert own.inputs_b is not None
        following = own.token_labels["language_model"]
        assert own.inputs_b.token_ids.tolist() == [0, *following[:-1]]
        assert following[-1] == tokenizer.end_id
        assert tokenizer.decode(following) == target


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=60),
    st.integers(1, 80),
    st.integers(0, 9),
)
def test_batches_by_tokens_hold_every_example_once(lengths: list[tuple[int, int]], budget: int, seed: int) -> None:
    """And are as full as can be; a pair beyond the budget is a batch of its own."""
    sides = [Batch.pack([[1] * n for n in side]) for side in zip(*lengths, strict=True)]
    examples = Examples(sides[0], {"number": np.arange(len(lengths))}, inputs_b=sides[1])
    feed = ShuffledRows(examples, 32, seed=seed, batch_tokens=budget)
    for epoch in (0, 1):
        position, numbers, before = (epoch, 0), [], budget
        while position[0] == epoch:
            batch, position = feed.take(position)
            assert len(batch) == 1 or batch.lengths.sum() <= budget
            assert before + batch.lengths[0] > budget
            before = int(batch.lengths.sum())
            numbers += batch.labels["number"].tolist()
        assert sorted(numbers) == list(range(len(lengths)))
