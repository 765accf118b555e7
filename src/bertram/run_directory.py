"""The directory that a training or comparison writes: which files it begins and ends with, and whether it can go on."""

import json
import tempfile
from pathlib import Path
from typing import Any

from bertram.errors import BadInput
from bertram.files import write_json

SETTINGS = "training.json"
"""All that a training depends on, as it was when it began; the first file."""
MANIFEST = "bertram.json"
"""What came of it; the last file."""

_LARGEST_FILE = 2**24  # bytes


def read_manifest(directory: Path, name: str = MANIFEST) -> dict[str, Any]:
    """bertram.json of a directory, or another file of settings; empty where there is none.

    Raises:
        BadInput: as `read_object`.
    """
    path = directory / name
    return read_object(path) if path.exists() else {}


def read_object(path: Path) -> dict[str, Any]:
    """A file of settings.

    Raises:
        BadInput: it is no JSON object, or larger than any of settings.
    """
    if path.stat().st_size > _LARGEST_FILE:
        raise BadInput(f"{path}: larger than {_LARGEST_FILE:,} bytes")
    try:
        said = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:  # ValueError: bytes that are no text and endless numbers too
        raise BadInput(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(said, dict):
        raise BadInput(f"{path}: must hold one JSON object")
    return said


def prepare_directory(out: Path, *, resume: bool) -> dict[str, Any] | None:
    """Check that `out` can take a training; return the manifest of one that is finished there already.

    Raises:
        BadInput: it is a file, not writable, or holds something and `resume` is not given.
    """
    if is_occupied(out):
        if not resume:
            raise BadInput(f"{out}: is not empty; resume the training that began there, or name another directory")
        manifest = read_manifest(out)
        if "status" in manifest:
            return manifest
    make_directory(out)
    if not resume:
        (out / SETTINGS).unlink(missing_ok=True)
    return None


def is_occupied(out: Path, first_file: str = SETTINGS) -> bool:
    """Whether a directory is there and holds more than its first file, whole or half-written: nothing is lost then."""
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    return any(name != first_file and not name.startswith(f".{first_file}.") for name in names)


def make_directory(out: Path) -> None:
    """Make a directory, if it is not there, and try whether it can be written.

    Raises:
        BadInput: it is a file, or cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise BadInput(f"{out}: cannot be written: {error.strerror}") from None


def keep(path: Path, settings: dict[str, Any]) -> None:
    """Write settings to a JSON file, or find them there.

    Raises:
        BadInput: the file holds others, or is no JSON.
    """
    if not path.exists():
        write_json(path, settings)
        return
    kept = read_manifest(path.parent, path.name)
    settings = json.loads(json.dumps(settings))  # tuples as lists, as they come back
    if kept != settings:
        differing = [name for name in settings if kept.get(name) != settings[name]]
        raise BadInput(
            f"{path.parent}: began with another {' and '.join(differing) or 'set of settings'}; "
            "repeat the command as it was, or name another --out"
        )
