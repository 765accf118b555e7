"""Residuals of tied layers, which no other library's format knows: beside the untied weights, in residuals.safetensors.

model.safetensors holds every layer's weights summed, as transformers reads them. Here stand, exactly, what they were
summed of: for a layer's product "NAME.shared.weight", which all layers of a group have in common and the first has
written, "NAME.up.weight" and "NAME.down.weight".
"""

from pathlib import Path

import torch

from bertram.config import EncoderConfig
from bertram.errors import BadInput
from bertram.formats.huggingface_config import RESIDUALS
from bertram.formats.loading import check
from bertram.formats.weights import read_tensors, write_tensors
from bertram.models.heads import Model
from bertram.models.layers import ResidualLinear

_ROUNDING = 1e-4  # of a weight's largest value: sums of float32, or of the halves that a file may hold


def untied(model: Model) -> Model:
    """A model with every layer's weights summed and its own; one without residuals is returned as it is."""
    if not model.config.residual_rank:
        return model
    found = Model(model.config.untied, model.labels(), pooler=model.pooler is not None)
    weights = model.state_dict()
    weights |= {f"{name}.weight": product.weight for name, product in _products(model).items()}
    with torch.no_grad():
        for name, weight in found.state_dict().items():
            weight.copy_(weights[name])
    return found


def write_residuals(directory: Path, model: Model) -> None:
    """Write what the weights of the layers are summed of.

    Raises:
        OSError: the file cannot be written.
    """
    named = {name: weight for name, weight in model.named_parameters() if _is_residual(name)}
    write_tensors(
        directory / RESIDUALS, {name: w.detach().to("cpu", torch.float32).clone() for name, w in named.items()}
    )


def read_residuals(directory: Path, plain: Model, config: EncoderConfig) -> Model:
    """The model of `config` that `plain` is `untied` of.

    Raises:
        BadInput: the file is missing or damaged, or gives other weights than `plain` has.
    """
    path = directory / RESIDUALS
    if not path.is_file():
        raise BadInput(f"{directory}: lacks {RESIDUALS}, which its residual_rank asks for")
    model, sources = Model(config, plain.labels(), pooler=plain.pooler is not None), read_tensors(path)
    targets = {name: weight.detach() for name, weight in model.named_parameters() if _is_residual(name)}
    check(path, {name: {name: tensor} for name, tensor in sources.items()}, targets)
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(sources[name])
        weights = plain.state_dict()
        for name, weight in model.named_parameters():
            if not _is_residual(name):
                weight.copy_(weights[name])
        for name, product in _products(model).items():
            own = weights[f"{name}.weight"]
            if not torch.allclose(product.weight, own, rtol=0, atol=_ROUNDING * float(own.abs().max())):
                raise BadInput(f"{path}: {name} is not what model.safetensors holds")
    return model


def _products(model: Model) -> dict[str, ResidualLinear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, ResidualLinear)}


def _is_residual(name: str) -> bool:
    return name.endswith((".shared.weight", ".up.weight", ".down.weight"))
