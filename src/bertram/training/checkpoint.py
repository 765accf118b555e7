"""Checkpoints: directories step-N that are whole or do not count."""

import json
import logging
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from bertram.errors import BadInput
from bertram.files import fingerprint, flush_directory, write_json
from bertram.formats.weights import read_tensors, write_tensors

logger = logging.getLogger(__name__)

KEPT = 2
"""Checkpoints of a training that stay: should the newest be damaged, there is the one before."""

_TENSORS, _STATE, _MANIFEST = "state.safetensors", "state.json", "manifest.json"


def save(
    directory: Path,
    step: int,
    tensors: dict[str, Tensor],
    state: dict[str, Any],
    kept: int = KEPT,
    spared: Collection[int] = (),
) -> None:
    """Write DIRECTORY/step-N: tensors and state, a manifest of their checksums, then the rename that makes it count.

    The `kept` newest checkpoints stay, and those of the steps `spared`; older ones are deleted.

    Raises:
        OSError: the disk is full or not writable; checkpoints written before stand untouched.
    """
    directory.mkdir(parents=True, exist_ok=True)
    target, temporary = directory / f"step-{step}", directory / f".step-{step}"
    for leftover in directory.glob(".step-*"):  # of a process that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    temporary.mkdir()
    try:
        write_tensors(temporary / _TENSORS, tensors)
        write_json(temporary / _STATE, {"step": step, **state})
        write_json(temporary / _MANIFEST, _checksums(temporary))
        shutil.rmtree(target, ignore_errors=True)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    flush_directory(directory)
    for old in _steps(directory)[kept:]:
        if old not in spared:
            shutil.rmtree(directory / f"step-{old}", ignore_errors=True)


def load_latest(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole checkpoint's tensors and state; None where there is none.

    Raises:
        BadInput: checkpoints are there and none of them is whole.
    """
    found = next(whole(directory), None)
    if found is None and _steps(directory):
        raise BadInput(f"{directory}: no checkpoint is whole; delete the directory to start again")
    return found


def whole(directory: Path) -> Iterator[tuple[dict[str, Tensor], dict[str, Any]]]:
    """Tensors and state of every whole checkpoint, newest first; of a damaged one a warning."""
    for step in _steps(directory):
        folder = directory / f"step-{step}"
        if _is_whole(folder):
            yield read_tensors(folder / _TENSORS), json.loads((folder / _STATE).read_text(encoding="utf-8"))
        else:
            logger.warning("bertram: %s: this checkpoint is damaged; going on with the one before it", folder)


def discard_after(directory: Path, step: int) -> None:
    """Delete the checkpoints after a step, which a training that goes on from there will make again."""
    for later in _steps(directory):
        if later > step:
            shutil.rmtree(directory / f"step-{later}", ignore_errors=True)


def _steps(directory: Path) -> list[int]:
    """Steps that have a checkpoint, whole or not, newest first."""
    found = [path.name.removeprefix("step-") for path in directory.glob("step-*")]
    return sorted((int(step) for step in found if step.isdecimal()), reverse=True)


def _is_whole(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / _MANIFEST).read_text(encoding="utf-8")) == _checksums(folder))
    except (OSError, ValueError):
        return False


def _checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of the two files that a checkpoint consists of."""
    return {name: fingerprint(folder / name) for name in (_TENSORS, _STATE)}
