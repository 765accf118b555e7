"""Lines of files of examples: of text, perhaps gzipped, in UTF-8, and what may stand in one."""

import codecs
import gzip
import json
import math
import zlib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO, cast

from bertram.errors import BadInput

LONGEST_LINE = 16 * 2**20
"""Bytes that a line may have."""


def kind_of(path: Path) -> str:
    """The ending that says what a file is, .gz aside."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def opened(path: Path) -> BinaryIO:
    """A file's bytes, decompressed if its name ends with .gz.

    Raises:
        BadInput: there is no such file or it may not be read.
    """
    try:
        return cast(BinaryIO, gzip.GzipFile(path)) if path.suffix.lower() == ".gz" else path.open("rb")
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from None


def numbered_lines(name: str, stream: BinaryIO, offset: int = 0, number: int = 0) -> Iterator[tuple[int, str]]:
    """Lines and their numbers from 1; only a line feed ends one.

    Args:
        offset, number: bytes, and the lines in them, to pass over. A gzip file unpacks them all the same.

    Raises:
        BadInput: a line is longer than 16 MB or no UTF-8, or the gzip file ends early.
    """
    try:
        if offset:
            stream.seek(offset)
        while raw := stream.readline(LONGEST_LINE + 1):
            number += 1
            if len(raw) > LONGEST_LINE:
                raise BadInput(f"{name}: line {number}: longer than {LONGEST_LINE >> 20} MB")
            if number == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            yield number, raw.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{name}: line {number}: not UTF-8 at byte {error.start + 1}; convert it first: iconv -f ENCODING -t UTF-8"
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(f"{name}: not a whole gzip file: {error}") from None


def numbered_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a JSONL file and the numbers of their lines from 1; blank lines are skipped.

    Raises:
        BadInput: the file cannot be read, or a line is no JSON object.
    """
    with opened(path) as stream:
        for number, line in numbered_lines(str(path), stream):
            if line.strip():
                yield number, object_of(str(path), number, line)


def object_of(name: str, number: int, line: str) -> dict[str, Any]:
    """The object that line `number` of the JSONL file `name` is.

    Raises:
        BadInput: it is no JSON object.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{name}: line {number}: not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadInput(f"{name}: line {number}: not an object")
    return value


def checked_cell(name: str, line: int, role: str, value: Any) -> str:
    """The string that stands for a text or a label in `line` of the file `name`.

    Raises:
        BadInput: it is missing, no string (nor, of a label, a finite number), an empty label, or holds a NUL byte or an
            unpaired surrogate.
    """
    if isinstance(value, int | float | Decimal) and role == "label":
        if value != value or abs(value) == math.inf:
            raise BadInput(f"{name}: line {line}: the label is no finite number: {value}")
        value = str(value).lower() if isinstance(value, bool) else str(value)
    if not isinstance(value, str):
        raise BadInput(f"{name}: line {line}: {role} is {'missing' if value is None else f'no string: {value!r:.60}'}")
    if role == "label" and not value.strip():
        raise BadInput(f"{name}: line {line}: the label is empty")
    if "\0" in value:
        raise BadInput(f"{name}: line {line}: a NUL byte in the {role}")
    if not is_unicode(value):
        raise BadInput(f"{name}: line {line}: an unpaired surrogate in the {role}, which is not valid Unicode")
    return value


def is_unicode(text: str) -> bool:
    """Whether a text is valid Unicode: not one with half of a surrogate pair, which JSON and Python's strings take."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
