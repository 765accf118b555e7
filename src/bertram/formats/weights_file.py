"""Which file of a Hugging Face directory holds the weights, and whether it may be read."""

from pathlib import Path

from bertram.errors import BadInput

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
    if not pickled.is_file() and any(directory.glob("*.index.json")):
        raise BadInput(
            f"{directory}: the weights are in several files; write them as one with transformers' "
            "save_pretrained(…, max_shard_size='100GB')"
        )
    if not pickled.is_file():
        raise BadInput(f"{directory}: holds no model.safetensors (a pytorch_model.bin is read with --allow-pickle)")
    if not allow_pickle:
        raise BadInput(
            f"{pickled}: a pickle, which may hold code; convert it there with {CONVERSION} or pass --allow-pickle"
        )
    return pickled
