"""A model directory knows its own tokenizers from others of the same size."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bertram import saving
from bertram.config import TRANSFORMERS, EncoderConfig, TransformerConfig
from bertram.models.heads import Model
from bertram.models.transformer import Transformer
from bertram.run_directory import MANIFEST
from bertram.text.tokenizer import Family, Tokenizer
from tiny import SIZES, run


def tokenizer(family: Family, words: str) -> Tokenizer:
    return Tokenizer.train([words], family, 60)


def classifier(out: Path) -> None:
    words = tokenizer("bert", "a good film, a bad room")
    torch.manual_seed(0)
    config = EncoderConfig(**SIZES, vocab_size=words.vocab_size, max_position_embeddings=32)
    task = {"name": "classification", "labels": ["bad", "good"]}
    network = Model(config, {"classification": 2})
    saving.save(network, words, out, {"task": task, "max_length": 32}, "")


def translator(out: Path) -> None:
    sides = [tokenizer("transformer", words) for words in ("one two three", "eins zwei drei")]
    stack = replace(TRANSFORMERS["transformer-tiny"].encoder, **SIZES)
    encoder, decoder = (replace(stack, vocab_size=side.vocab_size) for side in sides)
    torch.manual_seed(0)
    network = Transformer(TransformerConfig(encoder=encoder, decoder=decoder, share_encoder_decoder_embeddings=False))
    saving.save_transformer(network, *sides, out, {"task": {"name": "translation"}, "max_length": 32}, "")


def test_a_learned_vocabulary_is_as_large_as_asked_for(tmp_path: Path) -> None:
    """Also larger than usual; what stands there already stays."""
    words = ["low lower lowest slow slower slowest"] * 9
    for place, asked, size in (("usual", None, 25), ("larger", 30, 30), ("larger", 20, 30)):
        found = saving.learned_tokenizer(tmp_path / place, words, "bert", 25, asked)
        assert found.vocab_size == size


def exported(out: Path) -> None:
    translator(out / "model")
    assert run("export", out / "model", "--format", "ctranslate2", "--out", out / "artifact") == 0


def exchange(path: Path) -> None:
    """Give two tokens of a tokenizer.json each other's ids: it is as large as before, and as valid."""
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("make", "place", "file"),
    [
        (classifier, ".", "tokenizer.json"),
        (translator, ".", "tokenizer.json"),
        (translator, ".", "target/tokenizer.json"),
        (exported, "artifact", "target/tokenizer.json"),
    ],
    ids=["an encoder", "what is read", "what is written", "an artifact"],
)
def test_a_swapped_tokenizer_is_refused(
    make: Callable[[Path], None], place: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path)
    model = tmp_path / place
    command = ("predict" if make is classifier else "translate", model, "--text", "one")
    assert run(*command) == 0
    (model / file).write_text(json.dumps(json.loads((model / file).read_text())))  # other bytes, the same tokenizer
    assert run(*command) == 0
    exchange(model / file)
    capsys.readouterr()
    assert run(*command) == 2
    line = f"bertram: {model}: the tokenizer's vocabulary is not the one that the model was saved with\n"
    assert capsys.readouterr().err == line
    manifest = json.loads((model / MANIFEST).read_text())
    del manifest["vocabularies"]  # as in directories of others' making
    (model / MANIFEST).write_text(json.dumps(manifest))
    assert run(*command) == (2 if make is exported else 0)  # CTranslate2's files hold the vocabularies too
