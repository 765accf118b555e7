"""The directory that a training or comparison writes: which files it begins and ends with, and whether it can go on."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bertram.errors import BadInput, BertramError
from bertram.files import flush, flush_directory, read_if_there, read_object, write_json

SETTINGS = "training.json"
"""All that a training depends on, as it was when it began; the first file."""
MANIFEST = "bertram.json"
"""What came of it; the last file."""
CHECKPOINTS = "checkpoints"
"""What a training goes on from; gone once it has finished."""

_UNFINISHED = ".unfinished-"
_PATIENCE = 2.0  # seconds: what a killed process forked ends soon after it
_MOST_SETTINGS = 2**30  # bytes: they name every file of a corpus
_FORMAT = 1
"""Of bertram.json; to be raised when older versions of Bertram would misread it."""


def read_manifest(directory: Path) -> dict[str, Any]:
    """bertram.json of a directory; empty where there is none.

    Raises:
        BadInput: as `read_object`, or it is of a newer version of Bertram.
    """
    manifest = read_if_there(directory / MANIFEST)
    if (number := manifest.get("format", _FORMAT)) != _FORMAT:
        raise BadInput(f"{directory / MANIFEST}: format {number!r:.40} is unknown; it needs a newer version of Bertram")
    return manifest


def read_settings(directory: Path) -> dict[str, Any]:
    """training.json of a directory; empty where there is none.

    Raises:
        BadInput: as `read_object`.
    """
    return read_if_there(directory / SETTINGS, _MOST_SETTINGS)


def is_unfinished(directory: Path) -> bool:
    """Whether a training began in a directory of which bertram.json does not say what came of it."""
    return not (directory / MANIFEST).exists() and any((directory / name).exists() for name in (SETTINGS, CHECKPOINTS))


def write_manifest(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Write bertram.json: `manifest`, and the number of its format."""
    write_json(directory / MANIFEST, {**manifest, "format": _FORMAT})


def discard_checkpoints(out: Path, manifest: Mapping[str, Any]) -> None:
    """Delete the checkpoints of a training that bertram.json says has finished; those of a diverged one stay."""
    if manifest.get("status") == "finished":
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)


def prepare_directory(
    out: Path, model: Path | None, settings: dict[str, Any], *, resume: bool
) -> dict[str, Any] | None:
    """Check that `out` can take a training; return the manifest if this training is already finished there.

    Args:
        model: the directory of the model to start from, if it has one.
        settings: all that the training depends on, as `begun` takes it.

    Raises:
        BadInput: `out` is the model, a file, not writable, or not empty: without `resume`, or where another command or
            other settings began.
    """
    if model is not None and out.exists() and out.samefile(model):
        raise BadInput(f"{out}: is the model to begin with; name another --out")
    occupied = is_occupied(out)
    if occupied and not resume:
        raise BadInput(f"{out}: is not empty; resume the training that began there, or name another directory")
    if (occupied or (out / SETTINGS).exists()) and read_settings(out).keys() != settings.keys():
        raise BadInput(f"{out}: is not empty and was not started by this command; name another --out")
    if occupied:
        manifest = read_manifest(out)
        if "status" in manifest:
            keep(out / SETTINGS, settings)
            discard_checkpoints(out, manifest)  # of a process that was killed before it did
            return manifest
    make_directory(out)
    if not resume:
        (out / SETTINGS).unlink(missing_ok=True)
    return None


def _differing(kept: dict[str, Any], settings: dict[str, Any]) -> list[str]:
    """What two sets of settings do not agree on; of recipes, which options."""
    found = []
    for name in {**settings, **kept}:
        one, other = kept.get(name), settings.get(name)
        if name == "recipe" and isinstance(one, dict) and isinstance(other, dict):
            found += [f"--{field.replace('_', '-')}" for field in other if one.get(field) != other[field]]
        elif one != other:
            found.append(name)
    return found


def trained_on_pairs(manifest: Mapping[str, Any]) -> bool | None:
    """Whether a model was trained on pairs of texts, as bertram.json says; None where it was made elsewhere."""
    return found if isinstance(found := manifest.get("pairs"), bool) else None


def check_converged(out: Path, manifest: dict[str, Any]) -> None:
    """Refuse what a diverged training left.

    Raises:
        BertramError: the training that left this manifest at `out` diverged.
    """
    if manifest["status"] == "diverged":
        other = "take a lower --learning-rate, or a higher one where the loss fell slowly, and another --out"
        raise BertramError(f"{out}: the training diverged: {manifest['reason']}; {other}")


@contextmanager
def begun(out: Path, settings: dict[str, Any]) -> Iterator[None]:
    """Keep what a training depends on at `out`.

    If the input proves unusable, an `out` that was empty is emptied again, so that the next attempt is not refused.

    Raises:
        BadInput: as `keep`; or what is done inside raised it.
    """
    keep(out / SETTINGS, settings)
    occupied = is_occupied(out)
    try:
        yield
    except BadInput:
        for path in [] if occupied else out.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


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


@contextmanager
def new_directory(out: Path) -> Iterator[Path]:
    """A folder to fill, whose contents stand in `out` once all is there, bertram.json last.

    `out` may be there if it is empty, and stays the one that it is: something may be mounted there, or somebody work in
    it. What a process that was killed left half-filled there goes.

    Raises:
        BadInput: `out` holds something, another process fills it, or it cannot be written.
    """
    made = not out.exists()
    if not made:
        _check_empty(out)
    with alone_in(out):
        _check_empty(out)  # whoever was waited for may have filled it
        for leftover in out.iterdir():
            shutil.rmtree(leftover)
        folder = Path(tempfile.mkdtemp(dir=out, prefix=_UNFINISHED))
        try:
            yield folder
            for path in folder.rglob("*"):
                if path.is_file():
                    flush(path)
            for path in sorted(folder.iterdir(), key=lambda path: path.name == MANIFEST):
                path.replace(out / path.name)
            flush_directory(out)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if made and not any(out.iterdir()):
                out.rmdir()


def _check_empty(out: Path) -> None:
    if not out.is_dir() or any(not path.name.startswith(_UNFINISHED) for path in out.iterdir()):
        raise BadInput(f"{out}: already exists and is not an empty directory; name another --out")


@contextmanager
def alone_in(out: Path) -> Iterator[None]:
    """Lock a directory for this process and its forks until the block or the process ends; create it if it is missing.

    Raises:
        BadInput: another process works there, or it cannot be written.
    """
    until = time.monotonic() + _PATIENCE
    while (handle := _locked(out)) is None:
        if time.monotonic() > until:
            raise BadInput(f"{out}: another process is at work there; wait for it, or name another --out")
        time.sleep(0.05)
    try:
        make_directory(out)  # which tries whether it can be written
        yield
    finally:
        os.close(handle)


def _locked(out: Path) -> int | None:
    """The lock of a directory, as an open file; None where another process has it, or has just removed the directory.

    Raises:
        BadInput: `out` cannot be made or opened.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            handle = os.open(out, os.O_RDONLY)
            if _held(handle) and out.exists() and os.path.samestat(os.fstat(handle), out.stat()):
                return handle
            os.close(handle)
    except OSError as error:
        raise BadInput(f"{out}: cannot be written: {error.strerror}") from None
    return None


def _held(handle: int) -> bool:
    import fcntl  # of POSIX alone; whoever only answers, elsewhere too, imports this room and never comes here

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system that has no locks
        pass
    return True


def keep(path: Path, settings: dict[str, Any]) -> None:
    """Write settings to a JSON file, or check that it already holds the same ones.

    Raises:
        BadInput: the file holds others, or is no JSON.
    """
    if not path.exists():
        write_json(path, settings)
        return
    kept = read_object(path, _MOST_SETTINGS)
    settings = json.loads(json.dumps(settings))  # tuples as lists, as they come back
    if kept != settings:
        differing = _differing(kept, settings)
        raise BadInput(
            f"{path.parent}: began with another {' and '.join(differing) or 'set of settings'}; "
            "repeat the command as it was, or name another --out"
        )
