"""`bertram export`: which formats there are, how int8 is judged, and a trained encoder as transformers loads it."""

import json
import math
import shutil
import signal
from dataclasses import asdict, replace

import numpy as np
import onnxruntime
import pytest
import torch
import transformers

import bertram
from bertram.batch import Batch
from bertram.errors import BadInput
from bertram.exporting import export
from bertram.files import write_json
from bertram.formats.engine_file import read_engine
from bertram.formats.huggingface import write
from bertram.interruption import Interrupted
from bertram.model_directory import ModelDirectory
from bertram.quantizing import Agreement, agreement, quantized
from bertram.run_directory import MANIFEST, new_directory, read_manifest
from bertram.text.tokenizer import Tokenizer
from tiny import model_directory, rows, run

TEXTS = [text for text, _ in rows(100, seed=5)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_directory(tmp_path_factory.mktemp("export") / "model", {"classification": 2})


@pytest.mark.parametrize("format", ["google", "engin", None])
def test_a_format_that_does_not_exist(tmp_path, format):
    with pytest.raises(BadInput, match=rf"^--format {format}: must be one of engine, onnx, ctranslate2, huggingface$"):
        export(tmp_path, format=format, out=tmp_path / "out")


@pytest.mark.parametrize("settings", [{}, {"embedding_size": 16, "num_hidden_groups": 1, "residual_rank": 2}])
def test_an_encoder_for_transformers(tmp_path, settings):
    place = model_directory(tmp_path / "model", {"classification": 2}, unsettled=True, **settings)
    task = {"name": "classification", "labels": ["bad", "good"]}
    write_json(place / MANIFEST, read_manifest(place) | {"task": task, "max_length": 20, "base_model": "bert"})
    weights = {name: weight.clone() for name, weight in ModelDirectory(place).read_model().state_dict().items()}
    export(place, format="huggingface", out=tmp_path / "out")
    found = ModelDirectory(tmp_path / "out").read_model().state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())
    assert bertram.load(tmp_path / "out").predict(TEXTS) == bertram.load(place).predict(TEXTS)
    assert bertram.load(tmp_path / "out").max_length == 20
    assert read_manifest(tmp_path / "out")["vocabularies"] == [Tokenizer.load(place).fingerprint]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert list(model.config.id2label.values()) == ["bad", "good"]
    ids = torch.tensor([Tokenizer.load(tmp_path / "out").encode(TEXTS[:1], max_length=20)[0].token_ids.tolist()])
    with torch.inference_mode():
        theirs = model(ids).logits.numpy()
    np.testing.assert_allclose(theirs, bertram.load(place).logits(TEXTS[:1]), atol=1e-5)
    with pytest.raises(BadInput, match="not an empty directory"):
        export(place, format="huggingface", out=tmp_path / "out")
    with pytest.raises(BadInput, match="no other --precision"):
        export(place, format="huggingface", out=tmp_path / "int8", precision="int8")


def test_agreement_is_measured_on_the_texts_that_are_given(model, tmp_path, monkeypatch):
    seen = []

    def watched(*arguments):
        seen.append(arguments[1])
        return quantized(*arguments)

    monkeypatch.setattr("bertram.exporting.quantized", watched)
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    found = export(model, format="engine", out=tmp_path / "a.engine", texts=tmp_path / "texts.txt", min_agreement=0)
    expected, _ = Tokenizer.load(model).encode(TEXTS, max_length=32)
    assert found.texts == len(TEXTS)
    np.testing.assert_array_equal(seen[0].token_ids, expected.token_ids)


@pytest.mark.parametrize("max_length", [5, 32])
def test_random_tokens_stand_between_special_ones(model, tmp_path, monkeypatch, max_length):
    place = shutil.copytree(model, tmp_path / "model")
    write_json(place / MANIFEST, read_manifest(place) | {"max_length": max_length})
    seen = []
    monkeypatch.setattr("bertram.quantizing.agreement", lambda *_, **__: 1.0)
    monkeypatch.setattr("bertram.exporting.quantized", lambda *given: seen.append(given[1]) or quantized(*given))
    assert export(place, format="engine", out=tmp_path / "a.engine").drawn
    assert not export(place, format="engine", out=tmp_path / "b.engine", texts=TEXTS).drawn
    drawn, tokenizer = seen[0], Tokenizer.load(model)
    assert drawn.lengths.tolist() == [max_length] * 64
    assert set(drawn.token_ids[drawn.offsets[:-1]]) == {tokenizer.cls_id}
    assert set(drawn.token_ids[drawn.offsets[1:] - 1]) == {tokenizer.sep_id}


def test_of_many_texts_a_bare_encoder_is_compared_on_the_first(tmp_path, monkeypatch):
    """Hidden states of every token are held twice."""
    place = model_directory(tmp_path / "model", {})
    batch, _ = Tokenizer.load(place).encode(TEXTS, max_length=64)
    width = ModelDirectory(place).config.hidden_size
    monkeypatch.setattr("bertram.quantizing._MOST_SCORES", width * int(batch.offsets[3]))
    found = export(place, format="engine", out=tmp_path / "a.engine", texts=TEXTS, min_agreement=0.0)
    assert found.texts == 3


def test_an_engine_that_answers_nothing_is_warned_of(model, tmp_path, caplog):
    bare = model_directory(tmp_path / "bare")
    for place, said in (
        (bare, [f"bertram: {bare}: no file says what task it is for; its engine answers nothing"]),
        (model, []),
    ):
        export(place, format="engine", out=tmp_path / f"{place.name}.engine", precision="fp32")
        assert caplog.messages == said
        caplog.clear()


def test_two_exports_to_one_directory_do_not_mix(model, tmp_path, monkeypatch):
    monkeypatch.setattr("bertram.run_directory._PATIENCE", 0.0)
    with new_directory(tmp_path / "out") as folder:
        (folder / "half").touch()
        with pytest.raises(BadInput, match="another process is at work there"):
            export(model, format="huggingface", out=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["half"]


def test_a_masked_language_model_is_compared_at_masks_alone(tmp_path, monkeypatch):
    place = model_directory(tmp_path / "model", {"masked_language_model": 0})
    tokenizer, seen, compared = Tokenizer.load(place), [], []

    def watched(engine, batch, least):
        seen.append(batch)
        return quantized(engine, batch, least)

    monkeypatch.setattr("bertram.exporting.quantized", watched)
    monkeypatch.setattr("bertram.quantizing.agreement", lambda a, b: compared.append(a | b) or 1.0)
    for name, texts in (("a", TEXTS), ("b", TEXTS), ("c", None)):
        export(place, format="engine", out=tmp_path / name, texts=texts)
    given, _ = tokenizer.encode(TEXTS, max_length=32)
    masked = seen[0].token_ids != given.token_ids
    assert set(seen[0].token_ids[masked]) == {tokenizer.mask_id}
    assert not tokenizer.special[given.token_ids[masked]].any()
    assert masked.mean() == pytest.approx(0.15, abs=0.02)
    np.testing.assert_array_equal(seen[0].token_ids, seen[1].token_ids)
    for batch, outputs in zip(seen, compared, strict=True):
        (scores,) = outputs.values()
        assert scores.shape == ((batch.token_ids == tokenizer.mask_id).sum(), tokenizer.vocab_size)


def test_what_an_export_says(model, tmp_path, capsys, monkeypatch):
    told = Agreement(0.9876, [0.01, 0.02], {"feed_forward.0.down": 3e-4}, 1234)
    assert told.render().splitlines() == [
        "after layer   error of the hidden states, relative to their size",
        "          1   0.0100",
        "          2   0.0200",
        "feed_forward.0.down: kept in float32; quantized alone it shifts the outputs by 3.0e-04",
        "agreement with float32: 98.76% on 1,234 texts",
    ]
    drawn = replace(told, drawn=True)
    assert drawn.render().splitlines()[-2:] == [
        "agreement with float32: 98.76% on 1,234 texts of random tokens",
        "on real texts it may differ; --texts measures it on yours",
    ]
    (tmp_path / "texts.txt").write_text("a film\n")
    monkeypatch.setattr("bertram.exporting.quantized", lambda engine, batch, least: (engine, told))
    assert run("export", model, "--format", "engine", "--out", tmp_path / "drawn.engine") == 0
    assert capsys.readouterr().out.startswith(f"{drawn.render()}\n")
    arguments = ["export", model, "--format", "engine", "--texts", tmp_path / "texts.txt", "--out"]
    assert run(*arguments, tmp_path / "a.engine") == 0
    size = (tmp_path / "a.engine").stat().st_size
    assert capsys.readouterr().out == f"{told.render()}\n{tmp_path / 'a.engine'}: {size / 1e6:.1f} MB\n"
    assert run(*arguments, tmp_path / "b.engine", "--json") == 0
    out = tmp_path / "b.engine"
    assert json.loads(capsys.readouterr().out) == asdict(told) | {"out": str(out), "bytes": out.stat().st_size}
    assert read_engine(tmp_path / "b.engine").manifest["agreement"] == told.share
    assert run(*arguments, tmp_path / "c.engine", "--min-agreement", 0.99) == 2
    assert "agrees with the model to 98.76% on 1,234 texts, below --min-agreement 0.99" in capsys.readouterr().err


def test_weights_that_int8_spoils_stay_in_float32(tmp_path, monkeypatch):
    """What a unit that is never active weighs a thousand times makes steps in which the others' weights vanish."""
    place = model_directory(tmp_path / "model", {"embedding": 0})
    network = ModelDirectory(place).read_model()
    with torch.no_grad():
        for layer in network.encoder.layers:
            layer.feed_forward.intermediate.weight *= 20
            layer.feed_forward.output.weight *= 20
            layer.feed_forward.output.weight[:, 1] = 1000
            layer.feed_forward.intermediate.bias[1] = -60
    write(network, place)
    found = export(place, format="engine", out=tmp_path / "a.engine", min_agreement=0.0)
    assert found.floats == {}
    assert found.share < 0.9
    kept = export(place, format="engine", out=tmp_path / "b.engine", min_agreement=0.98)
    assert kept.share >= 0.98
    assert set(kept.floats) == {"feed_forward.0.down", "feed_forward.1.down"}
    assert {name for name, m in read_engine(tmp_path / "b.engine").matrices.items() if m.precision == "fp32"} == set(
        kept.floats
    )

    monkeypatch.setattr("bertram.quantizing._MOST_FLOATS", 0.1)  # where there is room for one of the two
    with pytest.raises(BadInput, match=r"below --min-agreement 0\.98, with half of its weights in float32"):
        export(place, format="engine", out=tmp_path / "c.engine", min_agreement=0.98)
    assert not (tmp_path / "c.engine").exists()


def test_a_regression_that_int8_spoils_agrees_by_nothing_not_by_less():
    near, far = {"regression": np.array([[1.0], [1.01]])}, {"regression": np.array([[3.0], [-3.0]])}
    assert agreement(near, far) == 0


def test_vectors_that_point_the_other_way_agree_by_nothing_not_by_less():
    fine = np.eye(2, dtype=np.float32)
    assert agreement({"embedding": fine}, {"embedding": -fine}) == 0


@pytest.mark.parametrize("head", ["classification", "regression", "embedding"])
def test_one_head_that_answers_nothing_is_enough_to_disagree(head):
    fine = np.eye(2, 1 if head == "regression" else 2, dtype=np.float32)
    spoilt = fine.copy()
    spoilt[1, 0] = math.nan
    for a, b in ((fine, spoilt), (spoilt, fine), (spoilt, spoilt)):
        assert agreement({"hidden": fine, head: a}, {"hidden": fine, head: b}) == 0


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_a_model_whose_states_overflow_answers_in_no_format(tmp_path, activation):
    place = model_directory(tmp_path / "model", {"classification": 2}, hidden_act=activation)
    network = ModelDirectory(place).read_model()
    with torch.no_grad():
        network.encoder.layers[1].feed_forward.intermediate.weight *= 1e38
        network.encoder.layers[1].feed_forward.output.weight *= 1e38
    write(network, place, labels=["bad", "good"])
    write_json(place / MANIFEST, {"task": {"name": "classification", "labels": ["bad", "good"]}})
    export(place, format="engine", out=tmp_path / "fp32.engine", precision="fp32")
    with pytest.raises(BadInput, match=r"agrees with the model to 0\.00%"):
        export(place, format="engine", out=tmp_path / "int8.engine")
    assert not (tmp_path / "int8.engine").exists()
    assert export(place, format="engine", out=tmp_path / "int8.engine", min_agreement=0).share == 0
    for path in (place, tmp_path / "fp32.engine", tmp_path / "int8.engine"):
        with pytest.raises(BadInput, match="the model answers NaN or infinity"):
            bertram.load(path).predict(TEXTS[:1])


def test_what_agrees_too_little_is_not_written(model, tmp_path, monkeypatch):
    monkeypatch.setattr("bertram.quantizing.agreement", lambda *_, **__: 0.5)
    with pytest.raises(BadInput, match=r"--min-agreement 0\.9"):
        export(model, format="engine", out=tmp_path / "a.engine", min_agreement=0.9)
    assert not (tmp_path / "a.engine").exists()
    export(model, format="engine", out=tmp_path / "a.engine", min_agreement=0)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("options", [{"format": "engine"}, {"format": "onnx"}])
def test_weights_that_are_not_finite(model, tmp_path, options, value):
    place = shutil.copytree(model, tmp_path / "model")
    network = ModelDirectory(place).read_model()
    with torch.no_grad():
        network.encoder.layers[1].attention.output.weight[3, 4] = value
    write(network, place, labels=list("ab"))
    with pytest.raises(BadInput, match=r"model: encoder\.layers\.1\..* holds NaN or infinity: its training diverged"):
        export(place, **options, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_others_get_a_regression_s_values_in_the_unit_of_the_labels(tmp_path):
    place = model_directory(tmp_path / "model", {"regression": 1}, unsettled=True)
    write_json(place / "bertram.json", {"task": {"name": "regression", "mean": 50.0, "std": 20.0}, "max_length": 32})
    texts = ["a warm film", "a dull book about a room"]
    expected = [answer["score"] for answer in bertram.load(place).predict(texts)]
    export(place, format="huggingface", out=tmp_path / "out")
    assert [answer["score"] for answer in bertram.load(tmp_path / "out").predict(texts)] == pytest.approx(expected)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    inputs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(texts, return_tensors="pt", padding=True)
    with torch.inference_mode():
        assert model(**inputs).logits[:, 0].tolist() == pytest.approx(expected, abs=1e-3)
    export(place, format="onnx", out=tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    arrays = {name: value.numpy() for name, value in inputs.items()}
    (found,) = session.run(None, arrays | {"token_type_ids": np.zeros_like(arrays["input_ids"])})
    assert found[:, 0].tolist() == pytest.approx(expected, abs=1e-3)


def test_agreement_counts_equal_answers():
    a, b = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[[0, 1, 2, 2]]
    assert agreement({"classification": a}, {"classification": b}) == 0.75
    assert agreement({"hidden": a}, {"hidden": b}) == 0.75
    assert agreement({"regression": a[:, :1]}, {"regression": a[:, :1]}) == 1
    small, large = ({"regression": a[:, :1] + shift} for shift in (0.01, 0.1))
    assert (
        1
        > agreement({"regression": a[:, :1]}, small, soft=True)
        > agreement({"regression": a[:, :1]}, large, soft=True)
    )


def test_an_export_that_was_interrupted_can_be_repeated(model, tmp_path, monkeypatch):
    def interrupted(*_):
        raise Interrupted(signal.SIGINT)

    out = tmp_path / "exported" / "out"
    with monkeypatch.context() as patch:
        patch.setattr("bertram.exporting.write_manifest", interrupted)
        with pytest.raises(Interrupted):
            export(model, format="huggingface", out=out)
    assert list(out.parent.iterdir()) == []
    (there := tmp_path / "there").mkdir()  # mounted, or somebody's working directory: it stays the one it is
    number = there.stat().st_ino
    with monkeypatch.context() as patch:
        patch.setattr("bertram.exporting.write_manifest", interrupted)
        with pytest.raises(Interrupted):
            export(model, format="huggingface", out=there)
    assert list(there.iterdir()) == []
    for place in (out, there):
        export(model, format="huggingface", out=place)
        found = ModelDirectory(place).read_model().state_dict()
        assert all(
            torch.equal(found[name], weight) for name, weight in ModelDirectory(model).read_model().state_dict().items()
        )
    assert there.stat().st_ino == number


@pytest.mark.parametrize("format", ["engine", "onnx", "huggingface"])
@pytest.mark.parametrize("task", [{"name": "classification", "labels": ["a", "b", "c"]}, {"name": "fill-mask"}])
def test_a_model_that_cannot_do_its_task_is_not_exported(model, tmp_path, format, task):
    place = shutil.copytree(model, tmp_path / "model")
    write_json(place / MANIFEST, read_manifest(place) | {"task": task})
    with pytest.raises(BadInput, match=f"the weights are not those of a model for {task['name']}"):
        export(place, format=format, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_errors_by_layer_are_those_of_the_first_tokens(model, tmp_path):
    export(model, format="engine", out=tmp_path / "fp32.engine", precision="fp32")
    engine = read_engine(tmp_path / "fp32.engine")
    texts = np.random.default_rng(0).integers(5, 30, (128, 32)).tolist()
    few, many = (quantized(engine, Batch.pack(texts[:count]), 0.0)[1] for count in (64, 128))
    assert (few.texts, many.texts) == (64, 128)
    assert many.layers == few.layers
    assert min(few.layers) > 0


@pytest.mark.parametrize(
    ("said", "options"),
    [
        ("already exists", {"out": "taken"}),
        ("an encoder, for which --format is one of engine", {"format": "ctranslate2"}),
        ("--min-agreement 2", {"min_agreement": 2}),
        ("holds no texts", {"texts": "empty.txt"}),
        ("--texts: is for an int8 engine", {"texts": "empty.txt", "precision": "fp32"}),
        ("--min-agreement: is for an int8 engine", {"min_agreement": 0.5, "format": "onnx"}),
        ("--vocabulary-map", {"vocabulary_map": "x"}),
        ("--columns: says what columns of --texts", {"columns": {"text": "1"}}),
    ],
)
def test_refusals(model, tmp_path, said, options):
    (tmp_path / "taken").write_text("mine")
    (tmp_path / "empty.txt").write_text("")
    for key in ("out", "texts"):
        if key in options:
            options = options | {key: tmp_path / options[key]}
    with pytest.raises(BadInput, match=said):
        export(model, **{"format": "engine", "out": tmp_path / "out"} | options)
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_preset_is_no_model(tmp_path):
    with pytest.raises(BadInput, match="preset"):
        export("bert-tiny", format="engine", out=tmp_path / "a.engine")
