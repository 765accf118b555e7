"""From a BERT to an ALBERT taught by it: what `bertram shrink` takes, refuses and leaves at OUT."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoTokenizer

import bertram
import tiny
from bertram.config import PRESETS
from bertram.errors import BadInput, BertramError
from bertram.files import write_json
from bertram.formats.huggingface import read, write
from bertram.model_card import shrinking_card
from bertram.model_directory import ModelDirectory
from bertram.models.tensors import to_tensors
from bertram.run_directory import read_manifest
from bertram.shrinking import outcome, teaching
from bertram.shrinking.dial import Dial
from bertram.shrinking.initial import student_of
from bertram.shrinking.plan import plan
from bertram.shrinking.report import write_report
from bertram.shrinking.shrink import shrink
from bertram.shrinking.table import AGREEMENT_NOTE, figures
from bertram.text.splits import split
from bertram.text.table import Table
from bertram.text.tokenizer import Tokenizer
from bertram.training.metrics_file import read_metrics
from bertram.training.recipe import Recipe
from teachers import pooled, sentences, teacher, texts

RECIPE = Recipe(steps=40, batch_size=16, learning_rate=3e-3, evaluations=4, precision="fp32")


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines are made, and no time is spent on measuring them."""
    row = {"tokens_per_second": 1.0, "latency_ms": {16: 1.0}, "load_seconds": 1.0, "peak_mb": {"8 × 30": 1.0}}
    monkeypatch.setattr(outcome, "bench", lambda *_, **__: {"rows": [row]})


def pairs(path: Path, number: int = 120) -> Path:
    """Pairs of texts of which the first is the same in all."""
    lines = ({"text": "a warm room", "text_b": f"{text} {place}"} for place, (text, _) in enumerate(tiny.rows(number)))
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


@pytest.mark.usefixtures("unmeasured")
def test_teaching_brings_a_student_near_and_leaves_an_albert(tmp_path: Path) -> None:
    source, out = pooled(tmp_path / "teacher"), tmp_path / "out"
    shrink(source, [texts(tmp_path / "texts.txt")], out, dial=Dial(embedding_size=16), recipe=RECIPE)
    manifest = read_manifest(out)
    assert manifest["status"] == "finished"
    assert manifest["task"]["name"] == "similarity"
    assert manifest["parameters"]["student"] < 0.5 * manifest["parameters"]["teacher"]
    (planned,) = plan(source, Dial(groups=1, embedding_size=16, rank=0))
    assert manifest["parameters"]["student"] == planned.parameters
    lines = read_metrics(out / "metrics.jsonl")
    curve = {line["step"]: line["validation_cosine"] for line in lines if "validation_cosine" in line}
    assert len(curve) == 4
    found = manifest["agreement"]
    assert found["vectors"]["value"] == pytest.approx(curve[manifest["best_step"]], abs=1e-4)
    assert found["vectors"]["low"] < found["vectors"]["value"] < found["vectors"]["high"]
    assert found["similarities"]["n"] == 15
    losses = {line["step"]: line["validation_vectors_loss"] for line in lines if "validation_vectors_loss" in line}
    assert manifest["losses"]["vectors"] == pytest.approx(losses[manifest["best_step"]], abs=1e-4)
    assert min(losses.values()) < 0.8 * next(iter(losses.values()))
    card = (out / "README.md").read_text()
    assert "# out, shrunken from teacher\n" in card
    assert '- name: "out"\n' in card

    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["num_hidden_groups"], config["embedding_size"]) == ("albert", 1, 16)
    student = ModelDirectory(out).read_model({"embedding": 0})
    text = "a warm room and a dull film"
    batch = to_tensors(Tokenizer.load(out).encode([text], max_length=32)[0])
    theirs = AutoModel.from_pretrained(out).eval()(**AutoTokenizer.from_pretrained(out)(text, return_tensors="pt"))
    vector = torch.nn.functional.normalize(theirs.last_hidden_state.mean(1))
    torch.testing.assert_close(student.eval()(batch)["embedding"], vector, atol=1e-5, rtol=0)


@pytest.mark.usefixtures("unmeasured")
def test_a_token_counts_by_the_root_of_its_occurrences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []
    monkeypatch.setattr(teaching, "student_of", lambda *asked: given.append(asked[2]) or student_of(*asked))
    source = teacher(tmp_path / "teacher")
    shrink(
        source,
        [texts(tmp_path / "texts.txt")],
        tmp_path / "out",
        dial=Dial(embedding_size=16),
        recipe=RECIPE.of_one_step,
    )
    tokenizer, (counts,) = Tokenizer.load(source), given
    start = tokenizer.encode(["a"], max_length=8)[0].token_ids[0]  # one a text
    number = read_manifest(tmp_path / "out")["data"]["rows"]["train"]
    assert float(counts[start]) == pytest.approx(number**0.5, rel=0.01)
    assert float(counts.min()) == pytest.approx(0.1**0.5)


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize("head", ["classification", "regression", "sentence_pair", "masked_language_model"])
def test_a_head_is_taught_too(head: str, tmp_path: Path) -> None:
    labels = {"classification": 3, "regression": 1, "sentence_pair": 2, "masked_language_model": 0}[head]
    source = teacher(tmp_path / "teacher", {head: labels})
    out = tmp_path / "out"
    recipe, dial = replace(RECIPE, steps=30), Dial(groups=2, embedding_size=16)
    shrink(source, [texts(tmp_path / "texts.txt")], out, dial=dial, recipe=recipe)
    manifest = read_manifest(out)
    name = f"validation_{head}_loss"
    losses = [line[name] for line in read_metrics(out / "metrics.jsonl") if name in line]
    assert losses[-1] < losses[0]
    assert head in manifest["agreement"]
    assert head not in (out / "report.html").read_text().partition("Agreement")[2].partition("</ul>")[0]  # but in words
    assert read(out).heads.keys() == {head}


@pytest.mark.usefixtures("unmeasured")
def test_a_lesson_alone_teaches_something_else(tmp_path: Path) -> None:
    source, lines = sentences(tmp_path / "teacher"), texts(tmp_path / "texts.txt", 120)
    how: dict[str, Any] = {"dial": Dial(embedding_size=16), "recipe": replace(RECIPE, steps=4, evaluations=1)}
    shrink(source, [lines], tmp_path / "all", **how)
    shrink(source, str(lines), tmp_path / "one", **how, lessons=["vectors"])
    assert read_manifest(tmp_path / "all")["losses"].keys() == {"states", "vectors", "similarities"}
    assert read_manifest(tmp_path / "one")["losses"].keys() == {"vectors"}
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("all", "one")]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


@pytest.mark.usefixtures("unmeasured")
def test_pairs_are_read_as_pairs_by_who_reads_them(tmp_path: Path) -> None:
    source, lines, out = (
        teacher(tmp_path / "teacher", {"classification": 2}),
        pairs(tmp_path / "p.jsonl"),
        tmp_path / "out",
    )
    recipe = replace(RECIPE, steps=None, epochs=1, evaluations=1)
    shrink(source, [lines], out, dial=Dial(embedding_size=16), recipe=recipe)
    manifest, read = read_manifest(out), [json.loads(line) for line in lines.read_text().splitlines()]
    assert manifest["data"]["rows"] == {"train": 108, "validation": 12}
    table = Table([row["text"] for row in read], [row["text_b"] for row in read], [""] * len(read))
    train, _ = split(table, 0.1, 0)
    batch, _ = Tokenizer.load(source).encode(*train.inputs, max_length=32)
    assert manifest["tokens"] == len(batch.token_ids)
    assert batch.segment_ids.any()

    how: dict[str, Any] = {"dial": Dial(embedding_size=16), "recipe": recipe}
    one_segment = teacher(tmp_path / "single", {"classification": 2}, type_vocab_size=1)
    for model, files, message in (
        (one_segment, [lines], "single: the model has no second segment"),
        (sentences(tmp_path / "sentences"), [lines], "sentences: this model reads single texts"),
        (source, [lines, texts(tmp_path / "texts.txt")], "texts.txt: all --texts must have a text_b, or none"),
    ):
        with pytest.raises(BadInput, match=message):
            shrink(model, files, tmp_path / "no", **how)
    assert not (tmp_path / "no").exists()


@pytest.mark.usefixtures("unmeasured")
def test_resumes_to_the_same_bits(tmp_path: Path) -> None:
    source, lines = teacher(tmp_path / "teacher", {"masked_language_model": 0}), texts(tmp_path / "texts.txt")
    recipe = replace(RECIPE, steps=8, evaluations=2, save_every=3)
    how: dict[str, Any] = {"dial": Dial(groups=2, embedding_size=16), "recipe": recipe}
    shrink(source, [lines], tmp_path / "whole", **how)

    class Stopped(Exception):
        pass

    def stop(line: dict[str, Any]) -> None:
        if line.get("step") == 5:
            raise Stopped

    with pytest.raises(Stopped):
        shrink(source, [lines], tmp_path / "parts", **how, report=stop)
    assert list((tmp_path / "parts" / "checkpoints").glob("step-*"))
    with pytest.raises(BadInput, match="began with another shrinking"):
        shrink(source, [lines], tmp_path / "parts", **(how | {"dial": Dial(embedding_size=16)}), resume=True)
    resumed = shrink(source, [lines], tmp_path / "parts", **how, resume=True)
    for name in ("whole", "parts"):
        assert (tmp_path / name / "bertram.json").exists()
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]
    assert shrink(source, [lines], tmp_path / "parts", **how, resume=True) == json.loads(json.dumps(resumed))


REFUSED = [
    (["--groups", 5], "--groups 5: must lie in 1 to the 4 layers"),
    (["--groups", 0], "--groups 0"),
    (["--groups", 3, "--depth", 2], "--groups 3: must lie in 1 to the 2 layers"),
    (["--depth", 5], "--depth 5: the model has 4 layers"),
    (["--lessons", ","], "',' names nothing"),
    (["--depth", 0], "--depth 0: the model has 4 layers"),
    (["--embedding-size", 33], "--embedding-size 33: must lie in 4 to the hidden width of 32"),
    (["--rank", 33], "--rank 33: must lie in 0 to 32, the rank of the model's matrices"),
    (["--groups", 4, "--rank", 2], "--rank 2: is for layers that share"),
    (["--depth", 1, "--rank", 2], "--rank 2: is for layers that share, and 1 group of 1 layer do not"),
    (["--groups", 4, "--embedding-size", 32], "nothing would shrink"),
    (["--lessons", "states", "music"], "music"),
    (["--lessons", "states,music"], 'Invalid value "music" for --lessons'),
    (["--lessons", "logits"], "no head whose logits could be taught"),
    (["--encoder-learning-rate", 1e-4], "--encoder-learning-rate"),
    (["--max-length", 2], "--max-length must be a whole number from 3 to 32, not 2"),
    (["--max-length", 1000], "teacher: --max-length must be a whole number from 3 to 32, not 1000"),
]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """A teacher, and texts for it."""
    folder = tmp_path_factory.mktemp("given")
    return [teacher(folder / "teacher"), "--texts", texts(folder / "texts.txt")]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_what_does_not_fit_is_told_in_one_line(
    options: list[object], message: str, given: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = [] if "--embedding-size" in options else ["--embedding-size", 16]
    assert tiny.run("shrink", *given, "--out", tmp_path / "out", "--steps", 1, *size, *options) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not list(tmp_path.glob("out/*"))


def test_the_rank_of_a_narrow_feed_forward_part() -> None:
    narrow = replace(PRESETS["bert-tiny"], hidden_size=32, intermediate_size=16)
    assert Dial(embedding_size=16, rank=16).of(narrow).residual_rank == 16
    with pytest.raises(BadInput, match="--rank 17: must lie in 0 to 16"):
        Dial(embedding_size=16, rank=17).of(narrow)


def test_texts_and_models_that_cannot_serve_are_told_in_one_line(tmp_path: Path) -> None:
    source, lines = teacher(tmp_path / "teacher"), texts(tmp_path / "texts.txt")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "few.txt").write_text("one\n" * 500 + "two\n")
    (tmp_path / "nul.txt").write_text("one\ntw\0o\n")
    shared = tiny.model_directory(tmp_path / "shared", embedding_size=16, num_hidden_groups=1)
    cases: list[tuple[str | Path, list[Path], str]] = [
        (source, [], "give --texts"),
        (source, [tmp_path / "none.txt"], "no such file|cannot be read"),
        (source, [tmp_path / "empty.txt"], "0 different texts are too few"),
        (source, [lines, tmp_path / "nul.txt"], "nul.txt: line 2: a NUL byte in the text"),
        (source, [tmp_path / "few.txt"], "2 different texts are too few"),
        (shared, [lines], "shares layers"),
        ("bert-tiny", [lines], "is a preset with random weights"),
        ("transformer-tiny", [lines], "encoder–decoder"),
    ]
    how: dict[str, Any] = {"dial": Dial(embedding_size=16)}
    for model, files, message in cases:
        with pytest.raises(BadInput, match=message) as caught:
            shrink(model, files, tmp_path / "out", **how, recipe=RECIPE)
        assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="no training budget"):
        shrink(source, [lines], tmp_path / "out", **how, recipe=Recipe())
    with pytest.raises(BadInput, match="no lesson named 'music'"):
        shrink(source, [lines], tmp_path / "out", **how | {"lessons": ["states", "music"]}, recipe=RECIPE)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("unmeasured")
def test_texts_that_the_teacher_does_not_know(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where none can be masked, nothing is trained only to be refused when the engine is made."""
    source, out = teacher(tmp_path / "teacher", {"masked_language_model": 0}), tmp_path / "out"
    chinese = tmp_path / "chinese.txt"
    chinese.write_text("".join(f"{chr(0x4E00 + number)}\n" for number in range(1000)))
    how: dict[str, Any] = {"dial": Dial(embedding_size=16), "recipe": RECIPE.of_one_step}
    for lessons in (None, ["vectors"]):  # the engine is measured at masked tokens, whatever was taught
        with pytest.raises(BadInput, match=f"--texts: {source} knows no token of those held out"):
            shrink(source, [chinese], out, **how, lessons=lessons)
        assert not list(out.iterdir())
    assert not caplog.text
    shrink(source, [chinese, texts(tmp_path / "texts.txt")], out, **how)
    (warning,) = caplog.messages
    assert warning.endswith(f"% of the tokens of --texts are unknown to {source}: does it know the language?")


def test_residuals_come_back_to_the_bit_and_are_untied_for_transformers(tmp_path: Path) -> None:
    place = tiny.model_directory(
        tmp_path / "model",
        {"embedding": 0},
        num_hidden_layers=4,
        embedding_size=16,
        num_hidden_groups=2,
        residual_rank=3,
    )
    network = ModelDirectory(place).read_model()
    tiny.unsettle(network, seed=3)
    write(network, place)
    again = ModelDirectory(place).read_model()
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
        ModelDirectory(place).read_model()
    file.unlink()
    with pytest.raises(BadInput, match=r"lacks residuals\.safetensors"):
        ModelDirectory(place).read_model()


@pytest.mark.usefixtures("unmeasured")
def test_a_shrunken_model_trains_on_with_its_residuals_and_a_new_pooler(tmp_path: Path) -> None:
    source, out = pooled(tmp_path / "teacher"), tmp_path / "out"
    recipe, dial = replace(RECIPE, steps=4, evaluations=1), Dial(embedding_size=16, rank=2, groups=2)
    shrink(source, [texts(tmp_path / "texts.txt", 120)], out, dial=dial, recipe=recipe)
    begun = ModelDirectory(out).read_model()
    assert (begun.config.residual_rank, begun.config.groups, begun.pooler) == (2, 2, None)
    for task, data in (
        ("classification", tiny.table(tmp_path / "table.csv")),
        ("similarity", labelled(tmp_path / "l.csv")),
    ):
        trained = tmp_path / task
        bertram.train(task, data, model=out, out=trained, recipe=recipe)
        network = ModelDirectory(trained).read_model()
        assert network.config == begun.config
        ups = [[layer.attention.query.up.weight for layer in model.encoder.layers] for model in (begun, network)]
        assert all(not torch.equal(a, b) for a, b in zip(*ups, strict=True))
        shared = {layer.attention.query.shared.weight.data_ptr() for layer in network.encoder.layers}
        assert len(shared) == 2
        bertram.export(trained, format="engine", out=tmp_path / f"{task}.engine", precision="fp32")
        asked = [{"text": "a warm room", "text_b": "a dull film"}] if task == "similarity" else ["a warm room"]
        answers = [bertram.load(model).predict(asked)[0]["score"] for model in (trained, tmp_path / f"{task}.engine")]
        assert answers[0] == pytest.approx(answers[1], abs=1e-4)


def labelled(path: Path) -> Path:
    """Pairs with a likeness."""
    rows = tiny.rows(40)
    both = zip(rows[:20], rows[20:], strict=True)
    path.write_text("text,text_b,label\n" + "".join(f"{a},{b},{i % 4}\n" for i, ((a, _), (b, _)) in enumerate(both)))
    return path


@pytest.mark.usefixtures("unmeasured")
def test_what_train_made_keeps_its_labels(tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=2, evaluations=1)
    data, trained, out = tiny.table(tmp_path / "table.csv"), tmp_path / "trained", tmp_path / "out"
    bertram.train("classification", data, model=teacher(tmp_path / "base"), out=trained, recipe=recipe)
    shrink(
        trained, [texts(tmp_path / "texts.txt", 120)], out, dial=Dial(embedding_size=16), recipe=recipe, evaluate=data
    )
    assert read_manifest(out)["task"] == {"name": "classification", "labels": ["bad", "good"]}
    assert set(json.loads((out / "config.json").read_text())["id2label"].values()) == {"bad", "good"}
    assert bertram.load(out).predict(["a warm room"])[0]["label"] in ("bad", "good")
    given = [tmp_path / "texts.txt"], tmp_path / "no"
    with pytest.raises(BadInput, match="trained on single texts"):
        shrink(trained, [pairs(tmp_path / "p.jsonl")], tmp_path / "no", dial=Dial(embedding_size=16), recipe=recipe)
    (tmp_path / "pairs.csv").write_text("text,text_b,label\na,b,good\n")
    with pytest.raises(BadInput, match="trained on single texts"):  # before anything is taught
        shrink(trained, *given, dial=Dial(embedding_size=16), recipe=recipe, evaluate=tmp_path / "pairs.csv")
    with pytest.raises(BadInput, match="--columns: says what columns of --evaluate"):
        shrink(trained, *given, dial=Dial(embedding_size=16), recipe=recipe, columns={"text": "1", "label": "2"})
    assert not (tmp_path / "no").exists()


@pytest.mark.usefixtures("unmeasured")
def test_a_teacher_with_pickled_weights_is_scored_too(tmp_path: Path) -> None:
    source, data = teacher(tmp_path / "teacher", {"classification": 2}), tmp_path / "named.csv"
    data.write_text("said,label\na warm room,LABEL_0\na cold room,LABEL_1\n")
    torch.save(load_file(source / "model.safetensors"), source / "pytorch_model.bin")
    (source / "model.safetensors").unlink()
    how: dict[str, Any] = {"dial": Dial(embedding_size=16), "recipe": replace(RECIPE, steps=2, evaluations=1)}
    given = source, [texts(tmp_path / "texts.txt")], tmp_path / "out"
    with pytest.raises(BadInput, match="no role 'lable'"):
        shrink(*given, **how, allow_pickle=True, evaluate=data, columns={"text": "said", "lable": "label"})
    found = shrink(*given, **how, allow_pickle=True, evaluate=data, columns={"text": "said"})
    assert found["evaluated"]["columns"] == {"text": "said"}
    assert found["teacher"]["scores"].keys() == found["student"]["scores"].keys() == {"model", "engine"}


def test_a_shrunken_model_is_compared_by_its_engine_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, lines, out = sentences(tmp_path / "teacher"), texts(tmp_path / "texts.txt"), tmp_path / "dial" / "residual"
    command = ["shrink", source, "--texts", lines, "--out", out, "--embedding-size", 8, "--rank", 2]
    command += ["--steps", 6, "--evaluations", 2, "--evaluate", labelled(tmp_path / "pairs.csv")]
    assert tiny.run(*command) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["student"]["unique_parameters"] < results["teacher"]["unique_parameters"]
    assert results["shrinking"] == read_manifest(out)["shrinking"]
    assert " ".join(AGREEMENT_NOTE.split()) in " ".join(capsys.readouterr().out.split())
    assert results["student"]["engine_bytes"] == (out / "model.engine").stat().st_size
    assert {kind: [s["metric"] for s in found] for kind, found in results["student"]["scores"].items()} == {
        "model": ["spearman", "pearson"],
        "engine": ["spearman", "pearson"],
    }
    score = results["student"]["scores"]["engine"][0]
    assert score["low"] < score["value"] < score["high"]
    vectors = bertram.load(out / "model.engine").embed(["a warm room"])
    expected = bertram.load(out).embed(["a warm room"])
    assert float((vectors * expected).sum()) > 0.97
    (out / "report.html").unlink()  # as if it had ended before it was told
    neighbours: dict[str, dict[str, Any]] = {
        "narrow": {},
        "foreign": {"teacher": results["teacher"] | {"sha256": "another's"}},  # which is called the same
        "other-texts": {"held_out": results["held_out"] | {"texts": ["others"]}},
        "unscored": {"evaluated": None},
    }
    for name, said in neighbours.items():
        write_json(tmp_path / "dial" / name / "results.json", results | said)
    (tmp_path / "dial" / "odd" / "results.json").mkdir(parents=True)  # which cannot be read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bertram.shrinking.settings._texts", lambda files: pytest.fail("read again"))
        assert tiny.run(*command, "--resume") == 0
    page = (out / "report.html").read_text()
    assert [name for name in neighbours if name in page] == ["narrow", "other-texts"]
    assert ".." not in page.partition("<body>")[2]
    assert AGREEMENT_NOTE in page
    assert "residuals of rank 2" in page
    assert page.count('class="mark base"') == 1  # the teacher
    assert page.count('class="shape"') == 4
    for name, said in neighbours.items():
        write_json(tmp_path / "dial" / name / "results.json", results | said | {"evaluated": None})
    write_report(out, results | {"evaluated": None, "shrinking": results["shrinking"] | {"depth": 1}})
    assert "1 group for 1 layer," in (out / "report.html").read_text()
    assert [name for name in neighbours if name in (out / "report.html").read_text()] == ["narrow", "unscored"]


def test_the_share_of_a_score_is_that_of_the_primary_one() -> None:
    """A greater error would be told as more than the whole."""
    measured = {"unique_parameters": 1, "max_length": 2, "engine_bytes": 3, "precision": "int8"}
    measured |= {"latency_ms": {16: 1.0}, "tokens_per_second": 1.0, "peak_mb": {"8 × 30": 1.0}}

    def scores(*values: float) -> dict[str, Any]:
        metrics = ("pearson", "spearman", "rmse")
        found = [{"metric": metric, "value": value} for metric, value in zip(metrics, values, strict=True)]
        return measured | {"scores": {"model": found}}

    told = figures({"teacher": scores(0.8, 0.8, 0.5), "student": scores(0.6, 0.6, 0.7)})[-3:]
    assert told == [
        ("pearson, fp32", "0.800", "0.600 (75.0%)"),
        ("spearman, fp32", "0.800", "0.600"),
        ("rmse, fp32", "0.500", "0.700"),
    ]


@pytest.mark.usefixtures("unmeasured")
def test_a_diverged_training_is_told_and_told_again(tmp_path: Path) -> None:
    source, lines, out = teacher(tmp_path / "teacher"), texts(tmp_path / "texts.txt"), tmp_path / "out"
    recipe = replace(RECIPE, learning_rate=1e30, evaluations=1)
    for resume in (False, True):
        with pytest.raises(BertramError, match=r"diverged: the loss was .* take a lower --learning-rate"):
            shrink(source, [lines], out, dial=Dial(embedding_size=16), recipe=recipe, resume=resume)
    assert read_manifest(out)["status"] == "diverged"
    assert not (out / "model.safetensors").exists()


@pytest.mark.usefixtures("unmeasured")
def test_what_else_stands_around_is_left_alone(tmp_path: Path) -> None:
    """Another command's OUT, the teacher itself, a foreign results.json beside OUT; labels come later."""
    heads, recipe = {"classification": 2}, replace(RECIPE, steps=2, evaluations=1)
    source, lines = teacher(tmp_path / "teacher", heads), texts(tmp_path / "texts.txt")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.json").write_text("[]")
    how: dict[str, Any] = {"dial": Dial(embedding_size=16), "recipe": recipe}
    with pytest.raises(BadInput, match="is the model to begin with"):
        shrink(source, [lines], source, **how, resume=True)
    labelled, out = tiny.table(tmp_path / "labelled.csv"), tmp_path / "out"
    bertram.train("classification", labelled, model=source, out=tmp_path / "trained", recipe=recipe)
    with pytest.raises(BadInput, match="was not started by this command"):
        shrink(source, [lines], tmp_path / "trained", **how, resume=True)
    shrink(source, [lines], out, **how)
    assert json.loads((out / "bertram.json").read_text())["task"]["labels"] == ["LABEL_0", "LABEL_1"]
    with pytest.raises(BadInput, match=r"labelled\.csv.*its labels are"):
        shrink(source, [lines], out, **how, evaluate=labelled, resume=True)
    named = tmp_path / "named.csv"
    named.write_text("text,label\na warm room,LABEL_0\na cold room,LABEL_1\n")
    found = shrink(source, [lines], out, **how, evaluate=named, resume=True)
    assert found["evaluated"]["file"] == "named.csv"
    assert found["student"]["scores"]["model"][0]["metric"] == "accuracy"


def test_the_plan_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny.run("shrink", teacher(tmp_path / "teacher"), "--plan", "--groups", 2, "--rank", 4, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {(row["groups"], row["rank"]) for row in rows} == {(2, 4)}
    narrow = teacher(tmp_path / "narrow", intermediate_size=16)
    assert tiny.run("shrink", narrow, "--plan", "--json") == 0
    assert {row["rank"] for row in json.loads(capsys.readouterr().out)} == {0, 8}  # and not the usual 16 and 32
    assert tiny.run("shrink", tmp_path / "teacher") == 2
    assert capsys.readouterr().err == "bertram: shrink needs --out, or --plan to see the possible sizes first\n"


def test_a_card_has_the_model_s_own_name_and_what_the_hub_is_told() -> None:
    manifest = {
        **{"base_model": "big", "max_length": 32, "truncated_texts": 0, "status": "finished", "reason": ""},
        **{"steps": 1, "tokens": 2, "seconds": 3.0, "recipe": {"steps": 1}, "parameters": {"teacher": 9, "student": 5}},
        "data": {"train": "texts.txt", "rows": {"train": 100}},
        "shrinking": {"groups": 1, "embedding_size": 16, "rank": 4},
        "agreement": {"vectors": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10}},
    }
    card = shrinking_card(manifest, "small", {"license": "apache-2.0"})
    assert card.startswith('---\nlicense: "apache-2.0"\nlibrary_name: bertram\n')
    assert '- name: "small"' in card
    assert "# small, shrunken from big" in card
    assert "1 group of layers, embeddings 16 wide, residuals of rank 4\n" in card
    assert "deviations" not in card
    regression = shrinking_card(manifest | {"task": {"name": "regression", "mean": 7.5, "std": 2.25}}, "small")
    assert "a value is 2.25 × logit + 7.5\n" in regression
    for said, verb in (
        ({}, "```shell\nbertram train classification reviews.csv"),
        ({"task": {"name": "similarity"}}, "```shell\nbertram embed this/directory texts.txt"),
        ({"task": {"name": "classification"}, "pairs": True}, "```shell\nbertram predict this/directory pairs.csv"),
    ):
        assert verb in shrinking_card(manifest | said, "small")
    assert shrinking_card(manifest, "small").startswith("---\nlibrary_name: bertram\n")
