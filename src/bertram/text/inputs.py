"""Lines of texts to answer, from a file or standard input.

They come in lists of some, so that what stands before a line that cannot be read is answered.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO

from bertram.errors import BadInput
from bertram.text.records import checked_cell, kind_of, numbered_lines, opened

_INPUT: Sequence[str] = ("text", "text_b")
_CHUNK = 1024  # inputs answered at a time


def read_inputs(source: str) -> Iterator[list[str | dict[str, str]]]:
    """Inputs to answer, in lists of some: the lines of a text file, or of standard input where `source` is "-".

    Lines are JSONL if the file's name says so, or the first of them is an object with a text; of an object text and
    text_b are taken, and all have the second or none.

    Raises:
        BadInput: there is no such file, or a line cannot be read; what stood before it was given.
    """
    with _source(source) as (name, stream):
        lines = numbered_lines(name, stream)
        first = next(lines, None)
        if first is None:
            return
        lines = chain([first], lines)
        if kind_of(Path(name)) == ".jsonl" or _object(first[1]) is not None:
            yield from _chunks(_checked_objects(name, lines))
        else:
            yield from _chunks(line for _, line in lines)


def first_inputs(source: str | Path, most: int) -> list[str | dict[str, str]]:
    """The first inputs of a file, at most so many.

    Raises:
        BadInput: as `read_inputs`, or it holds none.
    """
    found = list(islice(chain.from_iterable(read_inputs(str(source))), most))
    if not found:
        raise BadInput(f"{source}: holds no texts")
    return found


def read_lines(source: str) -> Iterator[list[str]]:
    """The lines of a text file, in lists of some, or of standard input where `source` is "-"; whatever they hold.

    Raises:
        BadInput: there is no such file, or a line cannot be read; what stood before it was given.
    """
    with _source(source) as (name, stream):
        yield from _chunks(line for _, line in numbered_lines(name, stream))


@contextmanager
def _source(source: str) -> Iterator[tuple[str, BinaryIO]]:
    if source == "-":
        yield "standard input", sys.stdin.buffer
        return
    path = Path(source)
    with opened(path) as stream:
        yield str(path), stream


def _chunks(items: Iterator[Any]) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    try:
        for item in items:
            chunk.append(item)
            if len(chunk) == _CHUNK:
                yield chunk
                chunk = []
    except BadInput:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def _object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and "text" in value else None


def _checked_objects(name: str, lines: Iterator[tuple[int, str]]) -> Iterator[dict[str, str]]:
    first: dict[str, str] = {}
    for number, line in lines:
        if not line.strip():
            continue
        value = _object(line)
        if value is None:
            raise BadInput(f'{name}: line {number}: not an object with a text, like {{"text": …}}')
        found = {f: checked_cell(name, number, f, value[f]) for f in _INPUT if f in value}
        first = first or found
        if found.keys() != first.keys():
            raise BadInput(f"{name}: line {number}: all must have a text_b, or none; this one is unlike the first")
        yield found
