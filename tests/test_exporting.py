"""`bertram export`: which formats there are, and a trained encoder as transformers loads it."""

import numpy as np
import pytest
import torch
import transformers

import bertram
from bertram.errors import BadInput
from bertram.exporting import export
from bertram.files import write_json
from bertram.model_directory import read_model
from bertram.run_directory import MANIFEST, read_manifest
from bertram.text.tokenizer import Tokenizer
from tiny import model_directory, rows

TEXTS = [text for text, _ in rows(20, seed=5)]


@pytest.mark.parametrize("format", ["google", "engin", None])
def test_a_format_that_does_not_exist(tmp_path, format):
    with pytest.raises(BadInput, match=rf"^--format {format}: there are engine, onnx, ctranslate2, huggingface$"):
        export(tmp_path, format=format, out=tmp_path / "out")


@pytest.mark.parametrize("settings", [{}, {"embedding_size": 16, "num_hidden_groups": 1, "residual_rank": 2}])
def test_an_encoder_for_transformers(tmp_path, settings):
    place = model_directory(tmp_path / "model", {"classification": 2}, unsettled=True, **settings)
    task = {"name": "classification", "labels": ["bad", "good"]}
    write_json(place / MANIFEST, read_manifest(place) | {"task": task, "max_length": 20, "base_model": "bert"})
    weights = {name: weight.clone() for name, weight in read_model(place).state_dict().items()}
    export(place, format="huggingface", out=tmp_path / "out")
    found = read_model(tmp_path / "out").state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())
    assert bertram.load(tmp_path / "out").predict(TEXTS) == bertram.load(place).predict(TEXTS)
    assert bertram.load(tmp_path / "out").max_length == 20
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert list(model.config.id2label.values()) == ["bad", "good"]
    ids = torch.tensor([Tokenizer.load(tmp_path / "out").encode(TEXTS[:1], max_length=20)[0].token_ids.tolist()])
    with torch.inference_mode():
        theirs = model(ids).logits.numpy()
    np.testing.assert_allclose(theirs, bertram.load(place).logits(TEXTS[:1]), atol=1e-5)
    with pytest.raises(BadInput, match="is not empty"):
        export(place, format="huggingface", out=tmp_path / "out")
    with pytest.raises(BadInput, match="no other --precision"):
        export(place, format="huggingface", out=tmp_path / "int8", precision="int8")
