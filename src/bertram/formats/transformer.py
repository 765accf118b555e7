"""Encoder–decoder directories: config.json and model.safetensors, under our own names or Marian's, in and out."""

from pathlib import Path

import torch
from torch import Tensor

from bertram.files import write_json
from bertram.formats import marian, marian_config
from bertram.formats.loading import Undrawn, allocate, check, fill
from bertram.formats.transformer_config import is_marian, read_transformer_config, write_transformer_config
from bertram.formats.weights import read_tensors, write_tensors
from bertram.formats.weights_file import find_weights
from bertram.models.transformer import Transformer
from bertram.search import Search


def read_transformer(directory: Path, *, allow_pickle: bool = False) -> Transformer:
    """The model in a directory, in float32 on the CPU.

    Raises:
        BadInput: a file is missing or damaged, or config.json and the weights disagree.
    """
    config = read_transformer_config(directory)
    path = find_weights(directory, allow_pickle=allow_pickle)
    tensors = read_tensors(path)
    with torch.device("meta"), Undrawn():  # no memory before the file proves to fill it
        model = Transformer(config)
    if is_marian(directory):
        sources, targets = marian.sources(path, tensors, model), marian.tensors
    else:
        sources, targets = {name: {name: tensor} for name, tensor in tensors.items()}, _own_tensors
    check(path, sources, targets(model))
    allocate(model)
    fill(path, sources, targets(model), {})
    return model


def _own_tensors(model: Transformer) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def write_transformer(model: Transformer, directory: Path) -> None:
    """Write config.json and model.safetensors, in float32; what is shared stands once.

    Raises:
        OSError: a file cannot be written.
    """
    tensors = {name: tensor.to("cpu", torch.float32) for name, tensor in _own_tensors(model).items()}
    write_tensors(directory / "model.safetensors", tensors)
    write_transformer_config(directory, model.config)


def write_marian(model: Transformer, directory: Path, search: Search) -> None:
    """Write config.json, generation_config.json and model.safetensors for transformers' MarianMTModel, in float32.

    Layers that share are written one by one; `marian_config.config_overrides` has what is then to be told to a reader.

    Raises:
        BadInput: the format cannot represent this model.
        OSError: a file cannot be written.
    """
    content = marian_config.describe(model.config)
    tensors = {name: t.to("cpu", torch.float32).clone() for name, t in marian.written(model).items()}
    write_tensors(directory / "model.safetensors", tensors)
    write_json(directory / "config.json", content)
    write_json(directory / "generation_config.json", marian_config.describe_search(model.config, search))
