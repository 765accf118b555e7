"""ONNX files, run by onnxruntime: what transformers says of the same padded texts."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import transformers

from bertram.batch import Batch
from bertram.errors import BadInput
from bertram.exporting import export
from bertram.model_directory import ModelDirectory
from bertram.training.torch_runner import TorchRunner
from tiny import model_directory, run

LENGTHS = [9, 1, 4]
SETTINGS = {
    "bert": {},
    "albert": {"embedding_size": 16, "num_hidden_groups": 1, "hidden_act": "gelu_new", "num_hidden_layers": 3},
}
CLASSES = {
    "classification": (transformers.AutoModelForSequenceClassification, "logits"),
    "token_classification": (transformers.AutoModelForTokenClassification, "logits"),
    "masked_language_model": (transformers.AutoModelForMaskedLM, "logits"),
    None: (transformers.AutoModel, "last_hidden_state"),
}


def padded():
    random = np.random.default_rng(0)
    ids, mask = np.zeros((3, 9), np.int64), np.zeros((3, 9), np.int64)
    for row, length in enumerate(LENGTHS):
        ids[row, :length], mask[row, :length] = random.integers(5, 40, length), 1
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": mask * (ids % 2)}


def answers(path, inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


@pytest.mark.parametrize("head", CLASSES)
@pytest.mark.parametrize("family", SETTINGS)
def test_onnxruntime_says_what_transformers_says(tmp_path, family, head):
    heads = {} if head is None else {head: 3}
    place = model_directory(tmp_path / "model", heads, unsettled=True, **SETTINGS[family])
    export(place, format="onnx", out=tmp_path / "model.onnx")
    kind, name = CLASSES[head]
    original, inputs = kind.from_pretrained(place).eval(), padded()
    with torch.inference_mode():
        expected = original(**{key: torch.from_numpy(value) for key, value in inputs.items()})
    found = answers(tmp_path / "model.onnx", inputs)
    real = ... if found[name].ndim == 2 else inputs["attention_mask"].astype(bool)
    np.testing.assert_allclose(found[name][real], expected[name].numpy()[real], atol=1e-4)
    if head is None:
        np.testing.assert_allclose(found["pooler_output"], expected["pooler_output"].numpy(), atol=1e-4)


@pytest.mark.parametrize("settings", [{}, {"normalize_pooling": True}, {"pooling": "cls", "residual_rank": 2}])
def test_vectors_are_those_of_the_model(tmp_path, settings):
    place = model_directory(tmp_path / "model", {"embedding": 0}, unsettled=True, **SETTINGS["albert"] | settings)
    export(place, format="onnx", out=tmp_path / "model.onnx")
    inputs, network = padded(), ModelDirectory(place).read_model()
    ids = [row[:length].tolist() for row, length in zip(inputs["input_ids"], LENGTHS, strict=True)]
    segments = [row[:length].tolist() for row, length in zip(inputs["token_type_ids"], LENGTHS, strict=True)]
    expected = TorchRunner(network).run(Batch.pack(ids, segments))["embedding"]
    found = answers(tmp_path / "model.onnx", inputs)
    np.testing.assert_allclose(found["sentence_embedding"], expected, atol=1e-5)
    inputs["attention_mask"][1] = 0  # a row that only fills a batch
    again = answers(tmp_path / "model.onnx", inputs)["sentence_embedding"]
    np.testing.assert_allclose(again[[0, 2]], expected[[0, 2]], atol=1e-5)
    assert np.isfinite(again[1]).all()
    assert again[1].any() == (settings.get("pooling") == "cls")


@pytest.mark.parametrize(
    ("heads", "settings"),
    [
        ({"masked_language_model": 0, "sentence_pair": 2}, {}),
        ({"sentence_pair": 2}, {"type_vocab_size": 1}),
        ({"classification": 3, "sentence_pair": 2, "masked_language_model": 0}, {"type_vocab_size": 1}),
    ],
)
@pytest.mark.parametrize("family", SETTINGS)
def test_several_heads_are_named(tmp_path, family, heads, settings):
    place = model_directory(tmp_path / "model", heads, unsettled=True, **SETTINGS[family] | settings)
    export(place, format="onnx", out=tmp_path / "model.onnx")
    inputs, network = padded(), ModelDirectory(place).read_model()
    if "type_vocab_size" in settings:
        inputs["token_type_ids"][:] = 0
    given = [
        [row[:length].tolist() for row, length in zip(inputs[name], LENGTHS, strict=True)]
        for name in ("input_ids", "token_type_ids")
    ]
    expected = TorchRunner(network).run(Batch.pack(*given))
    found = answers(tmp_path / "model.onnx", inputs)
    names = dict.fromkeys(heads, "logits") if len(heads) == 1 else {head: head for head in heads}
    assert set(found) == set(names.values())
    for head, name in names.items():
        logits = found[name]
        real = ... if logits.ndim == 2 else inputs["attention_mask"].astype(bool)
        np.testing.assert_allclose(logits[real], expected[head], atol=1e-4)


def test_shared_weights_stand_there_once(tmp_path):
    place = model_directory(tmp_path / "model", **SETTINGS["albert"] | {"num_hidden_layers": 12})
    export(place, format="onnx", out=tmp_path / "model.onnx")
    parameters = sum(parameter.numel() for parameter in ModelDirectory(place).read_model().parameters())
    held = sum(np.prod(tensor.dims) for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer)
    assert parameters <= held < parameters + 200


def test_more_than_a_file_holds_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("bertram.formats.onnx._MOST_BYTES", 1000)
    with pytest.raises(BadInput, match="more than an ONNX file holds"):
        export(model_directory(tmp_path / "model"), format="onnx", out=tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_it_is_not_int8(tmp_path, capsys):
    place = model_directory(tmp_path / "model")
    with pytest.raises(BadInput, match="no other --precision"):
        export(place, format="onnx", out=tmp_path / "model.onnx", precision="int8")
    assert run("export", place, "--format", "onnx", "--out", tmp_path / "model.onnx") == 0
    assert run("export", place, "--format", "onnx", "--out", tmp_path / "model.onnx") == 2
    assert "already exists" in capsys.readouterr().err
