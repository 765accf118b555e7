"""Files: written whole or not at all, and JSON read with one clear line where it cannot be."""

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertram.errors import BadInput


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path in a temporary folder beside `path`; on a clean exit flush its file and rename it onto `path`.

    A reader sees the old content or the new, never a part. After an error the old content stands and the folder is
    gone, with whatever else a library made there: safetensors writes a temporary file of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    discard_unfinished(path)
    # A name of its own, so that who writes the same file at the same time makes this fail and never ends up in it.
    begun = folder = _begun(path)
    flushed = begun.with_name(f"{begun.name}flushed")
    try:
        folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=begun.name))
        yield (temporary := folder / path.name)
        flush(temporary)
        (usual := folder / f"{path.name}.usual").touch()
        temporary.chmod(usual.stat().st_mode)  # safetensors makes it for its owner alone
        temporary.replace(flushed)
        shutil.rmtree(folder)
        flushed.replace(path)  # last, so that whoever is killed leaves nothing beside a file that is whole
        flush_directory(path.parent)
    except OSError as error:
        # A full disk's names no file, or the temporary one.
        if error.errno and (error.filename is None or str(error.filename).startswith(str(begun))):
            error.filename = str(path)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        flushed.unlink(missing_ok=True)


def discard_unfinished(path: Path) -> None:
    """Delete what a process that was killed while `replacing` a file left beside it."""
    for leftover in path.parent.glob(f"{glob.escape(_begun(path).name)}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _begun(path: Path) -> Path:
    """How the names of what is to become a file begin."""
    return path.with_name(f".{path.name}.unfinished-")


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Make a file's content survive a power cut."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_directory(path: Path) -> None:
    """Make the renames in a directory survive a power cut (POSIX: the directory's own fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_array(path: Path, values: NDArray[Any]) -> None:
    """Write a .npy file."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, values, allow_pickle=False)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_if_there(path: Path, most_bytes: int = 2**24) -> dict[str, Any]:
    """A JSON file's object; empty where there is no such file.

    Raises:
        BadInput: as `read_object`.
    """
    return read_object(path, most_bytes) if path.exists() else {}


def read_json(path: Path, most_bytes: int = 2**24) -> Any:
    """What a JSON file says.

    Raises:
        BadInput: it is no JSON in UTF-8, or larger than a file of its kind may be.
    """
    if path.stat().st_size > most_bytes:
        raise BadInput(f"{path}: larger than {most_bytes:,} bytes")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # ValueError: bytes that are no text and endless numbers too
        raise BadInput(f"{path}: not readable as JSON: {error}") from None


def read_object(path: Path, most_bytes: int = 2**24) -> dict[str, Any]:
    """`read_json` where an object is wanted.

    Raises:
        BadInput: as `read_json`, or it holds something else.
    """
    said = read_json(path, most_bytes)
    if not isinstance(said, dict):
        raise BadInput(f"{path}: must hold one JSON object")
    return said
