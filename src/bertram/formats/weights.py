"""Files of tensors that strangers wrote: nothing in them is run, and nothing is copied before its shape is known."""

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bertram.errors import BadInput
from bertram.files import replacing

CONVERSION = (
    'python -c "import torch, safetensors.torch as s; '
    "w = torch.load('pytorch_model.bin', weights_only=True, map_location='cpu'); "
    "s.save_file({n: t.contiguous().clone() for n, t in w.items()}, 'model.safetensors', {'format': 'pt'})\""
)


def find_weights(directory: Path, *, allow_pickle: bool) -> Path:
    """The file of weights in a Hugging Face directory: model.safetensors, or pytorch_model.bin where that is allowed.

    Raises:
        BadInput: there is neither, or only a form that Bertram does not read.
    """
    tensors, pickled = directory / "model.safetensors", directory / "pytorch_model.bin"
    if tensors.is_file():
        return tensors
    if (directory / "model.safetensors.index.json").exists():
        raise BadInput(
            f"{directory}: the weights are in several files; write them as one with transformers' "
            "save_pretrained(…, max_shard_size='100GB')"
        )
    if not pickled.is_file():
        raise BadInput(f"{directory}: holds no model.safetensors")
    if not allow_pickle:
        raise BadInput(
            f"{pickled}: a pickle, which may hold code; convert it there with {CONVERSION} or pass --allow-pickle"
        )
    return pickled


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
            raise BadInput(f"{path}: {name!r:.120} is no plain tensor with a name")
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
