"""Files of tensors that strangers wrote: nothing in them is run, and nothing is copied before its shape is known."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bertram.errors import BadInput
from bertram.files import replacing


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a file by its name, of any type.

    Those of a .safetensors file are mapped from the disk: they take memory when they are read, and no more than the
    file is long. A .bin file is read by torch's restricted unpickler, which builds tensors only.

    Raises:
        BadInput: the file is damaged or holds something else.
    """
    try:
        tensors: dict[str, Tensor] = _unpickled(path) if path.suffix == ".bin" else load_file(path)
    except BadInput:
        raise
    except Exception as error:
        # Both libraries raise what they happen to meet: their own errors, RuntimeError, KeyError, UnpicklingError, …
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BadInput(f"{path}: not a readable file of tensors: {reason:.200}") from None
    return tensors


def _unpickled(path: Path) -> dict[str, Tensor]:
    tensors = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(tensors, dict):
        raise BadInput(f"{path}: holds no named tensors")
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise BadInput(f"{path}: {name!r:.120} is not a plain tensor with a name")
        if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.itemsize:
            raise BadInput(f"{path}: {name!r:.120} claims more values than the file holds")
    return dict(tensors)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write contiguous tensors that share no memory, whole or not at all.

    Raises:
        OSError: the disk did not take them; what stood there before still stands.
    """
    with replacing(path) as temporary:
        try:
            save_file(tensors, temporary, {"format": "pt"})
        except SafetensorError as error:
            raise OSError(f"{path}: {error}") from None
