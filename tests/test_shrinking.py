"""From a BERT to an ALBERT taught by it: what it begins with, what it learns, what is left at OUT."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

import bertram
import tiny
from bertram import model_directory
from bertram.config import EncoderConfig
from bertram.errors import BadInput, BertramError
from bertram.formats.huggingface import read, write
from bertram.inspection import describe, pooler_parameters
from bertram.models.heads import Model
from bertram.models.tensors import to_tensors
from bertram.run_directory import read_manifest
from bertram.shrinking import outcome
from bertram.shrinking.distillation import Distillation, Sayings
from bertram.shrinking.initial import SCHEMES, config_of, student_of
from bertram.shrinking.plan import plan
from bertram.shrinking.shrink import shrink
from bertram.shrinking.teaching import agreement
from bertram.text.tokenizer import Tokenizer
from bertram.training.metrics_file import read_metrics
from bertram.training.recipe import Recipe

RECIPE = Recipe(steps=40, batch_size=16, learning_rate=3e-3, evaluations=4, precision="fp32")


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines are made, and no time is spent on measuring them."""
    row = {"tokens_per_second": 1.0, "latency_ms": {16: 1.0}, "load_seconds": 1.0, "peak_mb": {"8 × 30": 1.0}}
    monkeypatch.setattr(outcome, "bench", lambda *_, **__: {"rows": [row]})


def texts(path: Path, number: int = 300) -> Path:
    path.write_text("".join(f"{text}\n" for text, _ in tiny.rows(number)))
    return path


def teacher(path: Path, heads: dict[str, int] | None = None, **settings: object) -> Path:
    """A BERT of four layers whose embeddings have few directions, as trained ones do, and whose layers differ."""
    directory = tiny.model_directory(path, heads, num_hidden_layers=4, **settings)
    network = read(directory, heads=heads or {})
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.1 * torch.randn_like(weight)
        rows = network.encoder.embeddings.tokens.weight
        rows.copy_(torch.randn(len(rows), 6) @ torch.randn(6, rows.shape[1]))
        network.encoder.embeddings.positions.weight.mul_(0.1)
    write(network, directory)
    return directory


def without_places(model: Model) -> None:
    """Tokens alone make what the first layer takes."""
    with torch.no_grad():
        model.encoder.embeddings.positions.weight.zero_()
        model.encoder.embeddings.segments.weight.zero_()


def sentences(path: Path) -> Path:
    """A teacher with sentence-transformers' files."""
    return teacher(path, {"embedding": 0}, pooling="mean", normalize_pooling=True)


def test_embeddings_of_few_directions_survive_being_narrow(tmp_path: Path) -> None:
    """Six directions and two for the layer norm are all that there is, so that the first layer takes the same."""
    original = read(teacher(tmp_path / "teacher"), heads={})
    config = original.config
    without_places(original)
    student = student_of(original, config_of(config, 1, 9), torch.ones(config.vocab_size).double(), "mean")
    ids = torch.arange(config.vocab_size)
    places = torch.zeros_like(ids)
    taken = [
        model.encoder.embeddings(ids, places, places, torch.float32).detach()
        for model in (original.eval(), student.eval())
    ]
    error = (taken[0] - taken[1]).pow(2).mean() / taken[0].var(0).mean()
    assert float(error) < 0.02
    narrower = student_of(original, config_of(config, 1, 4), torch.ones(config.vocab_size).double(), "mean")
    worse = (taken[0] - narrower.eval().encoder.embeddings(ids, places, places, torch.float32)).pow(2).mean()
    assert float(worse.detach()) > 10 * float((taken[0] - taken[1]).pow(2).mean())


def test_frequent_tokens_are_kept_best(tmp_path: Path) -> None:
    original = read(tiny.model_directory(tmp_path / "teacher"), heads={})
    without_places(original)
    counts = torch.ones(original.config.vocab_size).double()
    counts[50:60] = 1000
    ids = torch.arange(50, 60)
    expected = original.eval().encoder.embeddings(ids, ids * 0, ids * 0, torch.float32)
    errors = []
    for seen in (counts, torch.ones_like(counts)):
        student = student_of(original, config_of(original.config, 1, 16), seen, "mean").eval()
        found = student.encoder.embeddings(ids, ids * 0, ids * 0, torch.float32)
        errors.append(float((found - expected).detach().pow(2).mean()))
    assert errors[0] < 0.5 * errors[1]


def test_layers_are_the_mean_of_their_group_or_one_of_it(tmp_path: Path) -> None:
    original = read(teacher(tmp_path / "teacher"), heads={})
    weights = [layer.feed_forward.output.weight for layer in original.encoder.layers]
    expected = {
        "mean": [(weights[0] + weights[1]) / 2, (weights[2] + weights[3]) / 2],
        **{"first": [weights[0], weights[2]], "middle": [weights[1], weights[3]], "last": [weights[1], weights[3]]},
    }
    assert expected.keys() == set(SCHEMES)
    counts = torch.ones(original.config.vocab_size).double()
    for scheme, of_groups in expected.items():
        student = student_of(original, config_of(original.config, 2, 16), counts, scheme)
        found = [layer.feed_forward.output.weight for layer in student.encoder.layers]
        assert [weight.data_ptr() for weight in found[:2]] == [found[0].data_ptr()] * 2
        for weight, place in zip((found[0], found[3]), of_groups, strict=True):
            torch.testing.assert_close(weight, place)


def test_a_dial_that_only_keeps_gives_the_teacher_itself(tmp_path: Path) -> None:
    """As many groups as layers and two layers tied where they are equal: nothing is lost."""
    original = read(teacher(tmp_path / "teacher"), heads={})
    for place in (1, 3):
        original.encoder.layers[place].load_state_dict(original.encoder.layers[place - 1].state_dict())
    config = config_of(original.config, 2, original.config.hidden_size)
    student = student_of(original, config, torch.ones(config.vocab_size).double(), "mean")
    tokenizer = Tokenizer.load(tmp_path / "teacher")
    batch = to_tensors(tokenizer.encode([text for text, _ in tiny.rows(8)], max_length=32)[0])
    torch.testing.assert_close(student.eval().encoder(batch), original.eval().encoder(batch))


def test_the_plan_counts_what_would_be_there(tmp_path: Path) -> None:
    directory = teacher(tmp_path / "teacher")
    original = read(directory, heads={})
    without_places(original)
    write(original, directory)
    rows = plan(directory, groups=[1, 2], embedding_sizes=[8, 32], ranks=[0, 4, 32])
    assert len(rows) == 12
    for row in rows:
        config = config_of(original.config, row.groups, row.embedding_size, row.rank)
        assert row.parameters == sum(weight.numel() for weight in Model(config, {}, pooler=False).parameters())
        assert row.parameters == describe(config)["unique_parameters"] - pooler_parameters(config)
        assert row.parameters < row.int8_bytes < 4 * row.parameters
    energy = {(row.groups, row.embedding_size, row.rank): (row.embedding_energy, row.layer_energy) for row in rows}
    assert energy[1, 8, 0][0] == pytest.approx(1, abs=1e-6)  # six directions in all
    assert energy[1, 8, 0][1] < energy[2, 8, 0][1] < 1
    assert energy[1, 8, 0][1] < energy[1, 8, 4][1] < energy[1, 8, 32][1] == pytest.approx(1, abs=1e-6)
    assert [row.int8_bytes for row in rows] == sorted(row.int8_bytes for row in rows)
    layers = original.config.num_hidden_layers
    assert {row.rank for row in plan(directory, embedding_sizes=[16], ranks=[4]) if row.groups == layers} == {0}
    with pytest.raises(BadInput, match="--rank 4: is for layers that share"):
        plan(directory, groups=[layers], embedding_sizes=[16], ranks=[4])


@pytest.mark.usefixtures("unmeasured")
def test_teaching_brings_a_student_near_and_leaves_an_albert(tmp_path: Path) -> None:
    source, out = sentences(tmp_path / "teacher"), tmp_path / "out"
    shrink(source, [texts(tmp_path / "texts.txt")], out, embedding_size=16, recipe=RECIPE)
    manifest = read_manifest(out)
    assert manifest["status"] == "finished"
    assert manifest["task"]["name"] == "similarity"
    assert manifest["parameters"]["student"] < 0.5 * manifest["parameters"]["teacher"]
    curve = [line["validation_cosine"] for line in read_metrics(out / "metrics.jsonl") if "validation_cosine" in line]
    assert len(curve) == 4
    found = manifest["agreement"]
    assert found["vectors"]["value"] == pytest.approx(curve[-1], abs=1e-4) or manifest["best_step"] != 40
    assert found["vectors"]["low"] < found["vectors"]["value"] < found["vectors"]["high"]
    assert found["similarities"]["n"] == 15
    initial = manifest["shrinking"]["initial_losses"]
    assert initial[manifest["shrinking"]["initial"]] == min(initial.values())
    assert sum(manifest["losses"].values()) < 0.8 * min(initial.values())

    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["num_hidden_groups"], config["embedding_size"]) == ("albert", 1, 16)
    student = model_directory.read_model(out, {"embedding": 0})
    text = "a warm room and a dull film"
    batch = to_tensors(Tokenizer.load(out).encode([text], max_length=32)[0])
    theirs = AutoModel.from_pretrained(out).eval()(**AutoTokenizer.from_pretrained(out)(text, return_tensors="pt"))
    pooled = torch.nn.functional.normalize(theirs.last_hidden_state.mean(1))
    torch.testing.assert_close(student.eval()(batch)["embedding"], pooled, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("head", ["classification", "regression", "masked_language_model"])
def test_a_head_is_taught_too(head: str, tmp_path: Path) -> None:
    labels = {"classification": 3, "regression": 1, "masked_language_model": 0}[head]
    source = teacher(tmp_path / "teacher", {head: labels})
    out = tmp_path / "out"
    recipe = replace(RECIPE, steps=30)
    shrink(source, [texts(tmp_path / "texts.txt")], out, groups=2, embedding_size=16, recipe=recipe)
    manifest = read_manifest(out)
    losses = [
        line[f"validation_{head}_loss"]
        for line in read_metrics(out / "metrics.jsonl")
        if f"validation_{head}_loss" in line
    ]
    assert losses[-1] < losses[0]
    assert head in manifest["agreement"]
    assert read(out).heads.keys() == {head}


@pytest.mark.usefixtures("unmeasured")
def test_resumes_to_the_same_bits(tmp_path: Path) -> None:
    source, lines = teacher(tmp_path / "teacher", {"masked_language_model": 0}), texts(tmp_path / "texts.txt")
    recipe = replace(RECIPE, steps=8, evaluations=2, save_every=3)
    dial: dict[str, Any] = {"groups": 2, "embedding_size": 16, "recipe": recipe}
    shrink(source, [lines], tmp_path / "whole", **dial)

    class Stopped(Exception):
        pass

    def stop(line: dict[str, Any]) -> None:
        if line.get("step") == 5:
            raise Stopped

    with pytest.raises(Stopped):
        shrink(source, [lines], tmp_path / "parts", **dial, report=stop)
    assert list((tmp_path / "parts" / "checkpoints").glob("step-*"))
    with pytest.raises(BadInput, match="began with another shrinking"):
        shrink(source, [lines], tmp_path / "parts", **(dial | {"groups": 1}), resume=True)
    resumed = shrink(source, [lines], tmp_path / "parts", **dial, resume=True)
    for name in ("whole", "parts"):
        assert (tmp_path / name / "bertram.json").exists()
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]
    assert shrink(source, [lines], tmp_path / "parts", **dial, resume=True) == json.loads(json.dumps(resumed))


def test_agreement_of_a_model_with_itself_is_whole() -> None:

    random = np.random.default_rng(0)
    said = Sayings(
        random.normal(size=(40, 8)).astype(np.float32), {"classification": random.integers(0, 3, 40).astype(np.float32)}
    )
    other = Sayings(said.vectors, {"classification": said.answers["classification"].copy()})
    other.answers["classification"][:10] += 1
    found = agreement(other, said)
    assert found["vectors"]["low"] == pytest.approx(1)
    assert found["similarities"]["value"] == pytest.approx(1)
    assert found["classification"]["value"] == 0.75
    assert 0.5 < found["classification"]["low"] < 0.75 < found["classification"]["high"] < 0.95


@pytest.mark.parametrize(
    ("dial", "message"),
    [
        ({"groups": 5}, "--groups 5: must lie in 1 to the 4 layers"),
        ({"groups": 0}, "--groups 0"),
        ({"groups": 3, "depth": 2}, "--groups 3: must lie in 1 to the 2 layers"),
        ({"depth": 5}, "--depth 5: the model has 4 layers"),
        ({"embedding_size": 33}, "--embedding-size 33: must lie in 4 to the hidden width of 32"),
        ({"rank": 33}, "--rank 33: must lie in 0 to the hidden width of 32"),
        ({"groups": 4, "embedding_size": 32}, "nothing would shrink"),
        ({"lessons": ["states", "music"]}, "no lesson named 'music'"),
        ({"depth": 0}, "--depth 0: the model has 4 layers"),
        ({"lessons": ["logits"]}, "no head whose logits could be taught"),
        ({"recipe": replace(RECIPE, encoder_learning_rate=1e-4)}, "--encoder-learning-rate"),
        ({"recipe": Recipe()}, "no training budget"),
    ],
)
def test_a_dial_that_does_not_fit_is_told_in_one_line(dial: dict[str, Any], message: str, tmp_path: Path) -> None:
    source, lines = teacher(tmp_path / "teacher"), texts(tmp_path / "texts.txt")
    with pytest.raises(BadInput, match=message) as caught:
        shrink(source, [lines], tmp_path / "out", **({"embedding_size": 16, "recipe": RECIPE} | dial))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("out/*"))


def test_texts_and_models_that_cannot_serve_are_told_in_one_line(tmp_path: Path) -> None:
    source, lines = teacher(tmp_path / "teacher"), texts(tmp_path / "texts.txt")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "few.txt").write_text("one\n" * 500 + "two\n")
    shared = tiny.model_directory(tmp_path / "shared", embedding_size=16, num_hidden_groups=1)
    cases: list[tuple[str | Path, list[Path], str]] = [
        (source, [], "give --texts"),
        (source, [tmp_path / "none.txt"], "no such file|cannot be read"),
        (source, [tmp_path / "empty.txt"], "0 different texts are too few"),
        (source, [tmp_path / "few.txt"], "2 different texts are too few"),
        (shared, [lines], "shares layers"),
        ("bert-tiny", [lines], "a preset, which has learned nothing"),
        ("transformer-tiny", [lines], "encoder–decoder"),
    ]
    for model, files, message in cases:
        with pytest.raises(BadInput, match=message) as caught:
            shrink(model, files, tmp_path / "out", embedding_size=16, recipe=RECIPE)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(BadInput, match="--rank 33"):
        plan(source, groups=[1], embedding_sizes=[16], ranks=[33])


def test_a_configuration_can_lose_depth_alone() -> None:
    bert = EncoderConfig(**tiny.SIZES | {"num_hidden_layers": 4}, vocab_size=20)
    shorter = config_of(bert, 2, 32, depth=2)
    assert (shorter.model_type, shorter.num_hidden_layers) == ("bert", 2)


def test_residuals_of_full_rank_give_the_teacher_itself(tmp_path: Path) -> None:
    """Each layer's difference from the mean has at most as many singular values as the layer is wide."""
    original = read(teacher(tmp_path / "teacher"), heads={}).eval()
    config = config_of(original.config, 1, original.config.hidden_size, rank=32)
    student = student_of(original, config, torch.ones(config.vocab_size).double(), "mean").eval()
    tokenizer = Tokenizer.load(tmp_path / "teacher")
    batch = to_tensors(tokenizer.encode([text for text, _ in tiny.rows(8)], max_length=32)[0])
    torch.testing.assert_close(student.encoder(batch), original.encoder(batch), atol=1e-4, rtol=0)
    errors = []
    for rank in (1, 8, 16):
        config = config_of(original.config, 1, original.config.hidden_size, rank=rank)
        student = student_of(original, config, torch.ones(config.vocab_size).double(), "mean").eval()
        errors.append(float((student.encoder(batch) - original.encoder(batch)).detach().pow(2).mean()))
    assert errors == sorted(errors, reverse=True)


def test_residuals_come_back_to_the_bit_and_are_untied_for_transformers(tmp_path: Path) -> None:
    place = tiny.model_directory(
        tmp_path / "model",
        {"embedding": 0},
        num_hidden_layers=4,
        embedding_size=16,
        num_hidden_groups=2,
        residual_rank=3,
    )
    network = model_directory.read_model(place)
    torch.manual_seed(3)
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.1 * torch.randn_like(weight)
    write(network, place)
    again = model_directory.read_model(place)
    assert again.config == network.config
    states = network.state_dict(), again.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    products = [layer.attention.query for layer in again.encoder.layers]
    assert len({product.shared.weight.data_ptr() for product in products}) == 2
    assert len({product.up.weight.data_ptr() for product in products}) == 4
    tokenizer = Tokenizer.load(place)
    batch = to_tensors(tokenizer.encode(["a warm room and a dull film"], max_length=32)[0])
    theirs = AutoModel.from_pretrained(place).eval()
    inputs = AutoTokenizer.from_pretrained(place)("a warm room and a dull film", return_tensors="pt")
    expected = theirs(**inputs).last_hidden_state[0]
    torch.testing.assert_close(again.eval().encoder(batch), expected, atol=1e-5, rtol=0)
    file = place / "residuals.safetensors"
    damaged = {name: tensor + 1 for name, tensor in load_file(file).items()}
    save_file(damaged, file)
    with pytest.raises(BadInput, match=r"is not what model.safetensors holds"):
        model_directory.read_model(place)
    file.unlink()
    with pytest.raises(BadInput, match=r"holds no residuals\.safetensors"):
        model_directory.read_model(place)


def test_a_shrunken_model_is_compared_by_its_engine_and_shown(tmp_path: Path) -> None:
    source, lines = sentences(tmp_path / "teacher"), texts(tmp_path / "texts.txt")
    pairs = tmp_path / "pairs.csv"
    rows = tiny.rows(40)
    pairs.write_text(
        "text,text_b,label\n"
        + "".join(f"{a},{b},{i % 4}\n" for i, ((a, _), (b, _)) in enumerate(zip(rows[:20], rows[20:], strict=True)))
    )
    out = tmp_path / "dial" / "residual"
    command = ["shrink", source, "--texts", lines, "--out", out, "--embedding-size", 8, "--rank", 2]
    command += ["--steps", 6, "--evaluations", 2, "--evaluate", pairs]
    assert tiny.run(*command) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["student"]["parameters"] < results["teacher"]["parameters"]
    assert results["student"]["engine_bytes"] == (out / "model.engine").stat().st_size
    assert {kind: [s["metric"] for s in found] for kind, found in results["student"]["scores"].items()} == {
        "model": ["spearman", "pearson"],
        "engine": ["spearman", "pearson"],
    }
    vectors = bertram.load(out / "model.engine").embed(["a warm room"])
    expected = bertram.load(out).embed(["a warm room"])
    assert float((vectors * expected).sum()) > 0.97
    (out / "report.html").unlink()  # as if it had ended before it was told
    shutil.copytree(out, tmp_path / "dial" / "narrow")
    assert tiny.run(*command, "--resume") == 0
    page = (tmp_path / "dial" / "residual" / "report.html").read_text()
    assert "narrow" in page
    assert "residuals of rank 2" in page


@pytest.mark.usefixtures("unmeasured")
def test_a_diverged_training_is_told_and_told_again(tmp_path: Path) -> None:
    source, lines, out = teacher(tmp_path / "teacher"), texts(tmp_path / "texts.txt"), tmp_path / "out"
    recipe = replace(RECIPE, learning_rate=1e30, evaluations=1)
    for resume in (False, True):
        with pytest.raises(BertramError, match=r"diverged: the loss was .* take a lower --learning-rate"):
            shrink(source, [lines], out, embedding_size=16, recipe=recipe, resume=resume)
    assert read_manifest(out)["status"] == "diverged"
    assert not (out / "model.safetensors").exists()


@pytest.mark.usefixtures("unmeasured")
def test_what_else_stands_around_is_left_alone(tmp_path: Path) -> None:
    """Another command's OUT, the teacher itself, a foreign results.json beside OUT; labels come later."""
    heads, recipe = {"classification": 2}, replace(RECIPE, steps=2, evaluations=1)
    source, lines = teacher(tmp_path / "teacher", heads), texts(tmp_path / "texts.txt")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.json").write_text("[]")
    dial: dict[str, Any] = {"embedding_size": 16, "recipe": recipe}
    with pytest.raises(BadInput, match="is the model to begin with"):
        shrink(source, [lines], source, **dial, resume=True)
    labelled, out = tiny.table(tmp_path / "labelled.csv"), tmp_path / "out"
    bertram.train("classification", labelled, model=source, out=tmp_path / "trained", recipe=recipe)
    with pytest.raises(BadInput, match="was not started by this command"):
        shrink(source, [lines], tmp_path / "trained", **dial, resume=True)
    shrink(source, [lines], out, **dial)
    assert json.loads((out / "bertram.json").read_text())["task"]["labels"] == ["LABEL_0", "LABEL_1"]
    with pytest.raises(BadInput, match=r"labelled\.csv.*knows"):
        shrink(source, [lines], out, **dial, evaluate=labelled, resume=True)
    named = tmp_path / "named.csv"
    named.write_text("text,label\na warm room,LABEL_0\na cold room,LABEL_1\n")
    found = shrink(source, [lines], out, **dial, evaluate=named, resume=True)
    assert found["evaluated"]["file"] == "named.csv"
    assert found["student"]["scores"]["model"][0]["metric"] == "accuracy"


def test_the_plan_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny.run("shrink", teacher(tmp_path / "teacher"), "--plan", "--groups", 2, "--rank", 4, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {(row["groups"], row["rank"]) for row in rows} == {(2, 4)}
    assert tiny.run("shrink", tmp_path / "teacher") == 2
    assert capsys.readouterr().err == "bertram: shrink needs --out, or --plan to look before\n"


def test_a_teacher_that_taught_in_bfloat16_is_judged_as_it_was(tmp_path: Path) -> None:
    original = read(teacher(tmp_path / "teacher"), heads={})
    before = {name: weight.clone() for name, weight in original.state_dict().items()}
    config = config_of(original.config, 1, 16)
    student = student_of(original, config, torch.ones(config.vocab_size).double(), "mean")
    distillation, device = Distillation(student, original), torch.device("cpu")
    some, _ = Tokenizer.load(tmp_path / "teacher").encode([text for text, _ in tiny.rows(8)], max_length=32)
    distillation.prepare(device, torch.bfloat16, some)
    assert distillation.teacher.encoder.layers[0].attention.query.weight.dtype == torch.bfloat16
    distillation.prepare(device, torch.float32, some)
    found = distillation.teacher.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in before.items())
