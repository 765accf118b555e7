"""From the tensors of a file to a model's memory: what every format's reader does once it knows whose is whose."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bertram.errors import BadInput

Sources = dict[str, dict[str, Tensor]]
"""Plain names, and the tensors in the file that go there by their names in the file: tied weights may stand twice."""


class Undrawn(TorchFunctionMode):
    """Modules are made without the normal numbers of their constructors.

    They would be overwritten, and to "draw" them on "meta" torch imports its compiler: a second, and 80 MB that every
    loaded model would seem to take.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        return named["tensor"] if function is nn.init.normal_ else function(*args, **named)


def check(path: Path, sources: Sources, targets: dict[str, Tensor]) -> None:
    """Every target has its source and the other way round, in shapes and types that fit."""
    for name, target in targets.items():
        for found, tensor in sources.get(name, {}).items():
            if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
                raise BadInput(f"{path}: {found!r:.120} must be F32, F16 or BF16, not {tensor.dtype}")
            if tensor.shape != target.shape:
                shapes = " but config.json makes it ".join(str(list(shape)) for shape in (tensor.shape, target.shape))
                raise BadInput(f"{path}: {found!r:.120} is {shapes}")
    if missing := targets.keys() - sources.keys():
        raise BadInput(f"{path}: lacks {some(missing)}, but config.json asks for it")
    if unknown := sources.keys() - targets.keys():
        raise BadInput(f"{path}: holds {some(unknown)}, which config.json does not have")


def some(names: Iterable[str]) -> str:
    """The first of some names, cut to what fits a line, and how many more there are."""
    first, *rest = sorted(names)
    return f"{first!r:.120}" + (f" and {len(rest)} more" if rest else "")


def allocate(model: nn.Module) -> None:
    """Give a model on "meta" memory, as yet uninitialised. Unlike `to_empty` this keeps tied parameters tied.

    A parameter is made by shape and type, because `empty_like` of one on "meta" would import torch's compiler.
    """
    fresh: dict[nn.Parameter, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in fresh:
                fresh[parameter] = nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype))
            setattr(module, name, fresh[parameter])


def fill(path: Path, sources: Sources, targets: dict[str, Tensor], constants: dict[str, Tensor]) -> None:
    """Copy every source to its target. What has its value already, tied weights and constants, must have the same."""
    filled = {constant.data_ptr() for constant in constants.values()}
    targets = targets | constants
    for name, found in sources.items():
        target = targets[name]
        for source, tensor in found.items():
            if target.data_ptr() not in filled:
                target.copy_(tensor)
                filled.add(target.data_ptr())
            elif not same(target, tensor):
                raise BadInput(f"{path}: {source!r:.120} differs from what the configuration makes it share")


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same numbers, which may be NaN."""
    return one.shape == other.shape and torch.allclose(one.float(), other.float(), rtol=0, atol=0, equal_nan=True)
