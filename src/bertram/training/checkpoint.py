"""Checkpoints: directories OUT/checkpoints/step-N that are whole or do not count."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bertram.errors import BadInput
from bertram.files import flush_directory, replacing, write_json

_TENSORS, _MANIFEST = "state.safetensors", "manifest.json"
_KEPT = 2


def save(directory: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write DIRECTORY/step-N: tensors, then the manifest with their checksum, then the rename that makes it count.

    The two newest checkpoints stay, older ones are deleted.

    Raises:
        OSError: the disk is full or not writable; checkpoints written before stand untouched.
    """
    directory.mkdir(parents=True, exist_ok=True)
    target, temporary = directory / f"step-{step}", directory / f".step-{step}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        write_tensors(temporary / _TENSORS, tensors)
        write_json(temporary / _MANIFEST, {"sha256": _checksum(temporary / _TENSORS), "step": step, **state})
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    flush_directory(directory)
    for old in _steps(directory)[_KEPT:]:
        shutil.rmtree(directory / f"step-{old}", ignore_errors=True)


def load_latest(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole checkpoint's tensors and state, or None. A damaged one is passed over with a warning line.

    Raises:
        BadInput: checkpoints are there and none of them is whole.
    """
    steps = _steps(directory)
    for step in steps:
        place = directory / f"step-{step}"
        try:
            manifest = json.loads((place / _MANIFEST).read_text(encoding="utf-8"))
            if manifest["sha256"] == _checksum(place / _TENSORS):
                return load_file(place / _TENSORS), manifest
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            pass
    if steps:
        raise BadInput(f"{directory}: no checkpoint is whole; delete the directory to start again")
    return None


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file, whole or not at all.

    Raises:
        OSError: the disk is full or not writable.
    """
    with replacing(path) as temporary:
        try:
            save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, temporary)
        except SafetensorError as error:
            raise OSError(f"{path}: {error}") from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    return load_file(path)


def machine_state() -> dict[str, Any]:
    """What bit-exact resume depends on besides the recipe."""
    return {"torch": torch.__version__, "threads": torch.get_num_threads()}


def _steps(directory: Path) -> list[int]:
    """Steps that have a checkpoint with a manifest, newest first."""
    found = [p.parent.name.removeprefix("step-") for p in directory.glob(f"step-*/{_MANIFEST}")]
    return sorted((int(step) for step in found if step.isdecimal()), reverse=True)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
