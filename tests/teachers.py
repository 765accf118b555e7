"""BERTs so small that shrinking them takes a second, and texts to teach on."""

from pathlib import Path

import torch

import tiny
from bertram.formats.huggingface import read, write
from bertram.models.heads import Model
from bertram.models.tensors import PackedTensors, to_tensors
from bertram.text.tokenizer import Tokenizer


def texts(path: Path, number: int = 300) -> Path:
    path.write_text("".join(f"{text}\n" for text, _ in tiny.rows(number)))
    return path


def teacher(path: Path, heads: dict[str, int] | None = None, **settings: object) -> Path:
    """A BERT of four layers whose embeddings have few directions, as trained ones do, and whose layers differ."""
    directory = tiny.model_directory(path, heads, num_hidden_layers=4, **settings)
    network = read(directory, heads=heads or {})
    tiny.unsettle(network, seed=1)
    torch.manual_seed(1)
    with torch.no_grad():
        rows = network.encoder.embeddings.tokens.weight
        rows.copy_(torch.randn(len(rows), 6) @ torch.randn(6, rows.shape[1]))
        network.encoder.embeddings.positions.weight.mul_(0.1)
    write(network, directory)
    return directory


def sentences(path: Path) -> Path:
    """A teacher with sentence-transformers' files."""
    return teacher(path, {"embedding": 0}, pooling="mean", normalize_pooling=True)


def pooled(path: Path) -> Path:
    """The same with a pooler that no head reads, as published sentence encoders have."""
    directory = sentences(path)
    original = read(directory, heads={"embedding": 0})
    model = Model(original.config, {"embedding": 0}, pooler=True)
    model.load_state_dict(original.state_dict(), strict=False)
    write(model, directory)
    return directory


def batch(directory: Path, number: int = 8) -> PackedTensors:
    """Some texts as a model reads them."""
    return to_tensors(Tokenizer.load(directory).encode([text for text, _ in tiny.rows(number)], max_length=32)[0])
