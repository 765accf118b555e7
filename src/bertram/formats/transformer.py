"""Encoder–decoder directories of ours: config.json and model.safetensors under our own names, in and out."""

from pathlib import Path

import torch

from bertram.formats.loading import Sources, Undrawn, allocate, check, fill
from bertram.formats.transformer_config import read_transformer_config, write_transformer_config
from bertram.formats.weights import find_weights, read_tensors, write_tensors
from bertram.models.transformer import Transformer


def read_transformer(directory: Path, *, allow_pickle: bool = False) -> Transformer:
    """The model in a directory, in float32 on the CPU.

    Raises:
        BadInput: a file is missing or damaged, or config.json and the weights disagree.
    """
    config = read_transformer_config(directory)
    path = find_weights(directory, allow_pickle=allow_pickle)
    sources: Sources = {name: {name: tensor} for name, tensor in read_tensors(path).items()}
    with torch.device("meta"), Undrawn():  # no memory before the file proves to fill it
        model = Transformer(config)
    check(path, sources, dict(model.named_parameters()))
    allocate(model)
    fill(path, sources, {name: parameter.detach() for name, parameter in model.named_parameters()}, {})
    return model


def write_transformer(model: Transformer, directory: Path) -> None:
    """Write config.json and model.safetensors, in float32; what is shared stands once.

    Raises:
        OSError: a file cannot be written.
    """
    tensors = {name: parameter.detach().to("cpu", torch.float32) for name, parameter in model.named_parameters()}
    write_tensors(directory / "model.safetensors", tensors)
    write_transformer_config(directory, model.config)
