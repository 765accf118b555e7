"""What a model is asked: texts and pairs, from Python, a file or standard input.

A file is read in chunks, so that the inputs before an unreadable line are still answered.
"""

import json
import select
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BufferedReader
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from bertram.errors import BadInput
from bertram.text.lines import checked_cell, is_unicode, kind_of, numbered_lines, opened
from bertram.text.rows import Columns, checked_columns, is_table, read_rows

Input = str | Mapping[str, str]
"""What a model is asked: a text, or an object with "text" and perhaps "text_b"."""

_OF_WORDS = (".conll", ".conllu", ".bio", ".iob", ".iob2")
"""Endings of files that hold a word and its label a line."""
_FIELDS = ("text", "text_b")
_CHUNK, _CHARACTERS = 1024, 2**22  # inputs answered at a time, at most, and when they are enough
_BLOCK = 2**16  # bytes, as many as a pipe holds


def read_inputs(
    source: str, columns: Columns = None, roles: Sequence[str] = _FIELDS
) -> Iterator[list[str | dict[str, str]]]:
    """Inputs to answer, in chunks: the lines of a text file, or of standard input where `source` is "-".

    What has arrived of standard input is a chunk: whoever writes to a pipe need not close it to be answered.

    Lines are JSONL if the file's name says so, or the first that is not blank is an object with a text. All objects
    have a text_b or none, and so have the rows of any other table.

    Args:
        columns: the columns of a table, or the keys of objects, to read for `roles` where they are called otherwise, as
            for `table.read_table`; None where the user cannot say so.
        roles: of an input's text and, if it can have one, its text_b.

    Raises:
        BadInput: there is no such file, it is no table and has no columns, or a line cannot be read or holds a NUL
            byte; what stood before it was given, unless all of that was blank.
    """
    if is_table(Path(source)) and kind_of(Path(source)) != ".jsonl":
        yield from _chunks(_cells(source, columns, roles))
        return
    _check_lines(source)
    with _source(source) as (name, stream, waits):
        lines = numbered_lines(name, stream)
        begun: list[tuple[int, str]] = []
        for line in lines:
            begun.append(line)
            if line[1].strip():
                break
        if not begun:
            return
        lines = chain(begun, lines)
        key = (columns or {}).get(roles[0], roles[0])
        if kind_of(Path(name)) == ".jsonl" or {key, "text"} & _object(begun[-1][1]).keys():
            yield from _chunks(_checked_objects(name, lines, columns, roles), waits)
        else:
            _check_plain(name, columns)
            yield from _chunks((checked_cell(name, number, roles[0], line) for number, line in lines), waits)


def read_documents(source: str, columns: Columns = None) -> Iterator[list[str | dict[str, str]]]:
    """What is to be summarized; as `read_inputs`, but from the column document, which training reads."""
    return read_inputs(source, columns, ("document",))


def read_texts(source: str, columns: Columns = None) -> Iterator[list[str | dict[str, str]]]:
    """Single texts; as `read_inputs`, but a text_b is left where it stands."""
    return read_inputs(source, columns, ("text",))


def first_inputs(texts: str | Path | Iterable[Input] | None, most: int, columns: Columns = None) -> list[Input] | None:
    """The first of some inputs, or of those in a file with such `columns`, at most so many; None of None.

    Raises:
        BadInput: as `read_inputs` and `checked_columns`; there are none; or columns are named without a file.
    """
    if isinstance(texts, str | Path):
        given: Iterable[Input] = chain.from_iterable(read_inputs(str(texts), checked_columns(columns)))
        nothing = f"{texts}: holds no texts"
    elif columns is not None:
        raise BadInput("--columns: says what columns of --texts to read, which is not given")
    elif texts is None:
        return None
    else:
        _check_list(texts)
        given, nothing = texts, "texts: none are given"
    found = list(islice(given, most))
    if not found:
        raise BadInput(nothing)
    return found


def read_lines(source: str, columns: Columns = None) -> Iterator[list[str]]:
    """The lines of a text file or of standard input, in chunks as those of `read_inputs`; none is taken for JSON.

    Of a table, the column named source, or what `columns` calls so.

    Raises:
        BadInput: as `read_inputs`.
    """
    if is_table(Path(source)):
        yield from _chunks(cells["text"] for cells in _cells(source, columns, ("source",)))
        return
    with _source(source) as (name, stream, waits):
        _check_plain(name, columns)
        lines = numbered_lines(name, stream)
        yield from _chunks((checked_cell(name, number, "source", line) for number, line in lines), waits)


def columns_of(inputs: Iterable[Input]) -> tuple[list[str], list[str] | None]:
    """The inputs' texts and, where they have them, their second texts.

    Raises:
        BadInput: as `pairs_of`, or some are pairs and others are not.
    """
    pairs = pairs_of(inputs)
    texts_b = [second for _, second in pairs if second is not None]
    if texts_b and len(texts_b) < len(pairs):
        odd = next(i for i, (_, second) in enumerate(pairs) if (second is None) != (pairs[0][1] is None))
        raise BadInput(f"inputs[{odd}]: all inputs must have a text_b, or none; this one is unlike inputs[0]")
    return [text for text, _ in pairs], texts_b or None


def singles_of(inputs: Iterable[Input], reader: str) -> list[str]:
    """Every input as its text; errors call by the name of `reader` what reads no pairs.

    Raises:
        BadInput: as `pairs_of`, or an input is a pair.
    """
    pairs = pairs_of(inputs)
    for place, (_, second) in enumerate(pairs):
        if second is not None:
            raise BadInput(f"inputs[{place}]: {reader} reads one text, not a pair")
    return [text for text, _ in pairs]


def pairs_of(inputs: Iterable[Input]) -> list[tuple[str, str | None]]:
    """Every input as its text and, where there is one, its text_b.

    Raises:
        BadInput: an input is neither a string nor an object of these two.
    """
    _check_list(inputs)
    return [_pair(given, place) for place, given in enumerate(inputs)]


def _check_list(inputs: object) -> None:
    if isinstance(inputs, str | Mapping) or not isinstance(inputs, Iterable):
        raise BadInput("inputs: must be a list of texts; put the one text into a list")


def _pair(given: object, place: int) -> tuple[str, str | None]:
    fields = {"text": given} if isinstance(given, str) else given
    if not isinstance(fields, Mapping):
        raise BadInput(f"inputs[{place}]: must be a string or an object with text, not {type(given).__name__}")
    if unknown := [key for key in fields if key not in ("text", "text_b")]:
        raise BadInput(f"inputs[{place}]: {unknown[0]!r:.80} is unknown; an input has text and may have text_b")
    if "text" not in fields:
        raise BadInput(f"inputs[{place}]: has no text")
    for key, text in fields.items():
        if not isinstance(text, str):
            raise BadInput(f"inputs[{place}]: {key} must be a string, not {type(text).__name__}")
    return fields["text"], fields.get("text_b")


def strings_of(texts: Iterable[str]) -> list[str]:
    """Texts that a tokenizer reads.

    Raises:
        BadInput: a text is no string or no valid Unicode, or there is one that stands in no list.
    """
    _check_list(texts)
    found = list(texts)
    for place, text in enumerate(found):
        if not isinstance(text, str):
            raise BadInput(f"inputs[{place}]: must be a string, not {type(text).__name__}")
        if not is_unicode(text):
            raise BadInput(f"inputs[{place}]: an unpaired surrogate, which is not valid Unicode")
    return found


class _Arriving:
    """Lines of a stream that somebody may still be writing to."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._arrived = cast(BufferedReader, stream), bytearray()

    def readline(self, size: int) -> bytes:
        """The next line with its end, or `size` bytes of it; the last may have no end."""
        while (end := self._arrived.find(b"\n") + 1) == 0 and len(self._arrived) < size:
            if not (block := self._stream.read1(_BLOCK)):
                break
            self._arrived += block
        end = min(end or len(self._arrived), size)
        line = bytes(self._arrived[:end])
        del self._arrived[:end]
        return line

    def waits(self) -> bool:
        """Whether the next line has not arrived yet."""
        if b"\n" in self._arrived:
            return False
        try:
            return not select.select([self._stream], [], [], 0)[0]
        except (OSError, ValueError):  # nothing that can be waited for
            return False


@contextmanager
def _source(source: str) -> Iterator[tuple[str, BinaryIO, Callable[[], bool]]]:
    """A source's name, its bytes, and whether its next line is still to be waited for."""
    if source == "-":
        arriving = _Arriving(sys.stdin.buffer)
        yield "standard input", cast(BinaryIO, arriving), arriving.waits
        return
    path = Path(source)
    with opened(path) as stream:
        yield str(path), stream, bool


def _check_lines(source: str) -> None:
    if kind_of(Path(source)) in _OF_WORDS:
        raise BadInput(f"{source}: holds a word a line, by its name; a text a line is read here, or a table of texts")


def _check_plain(name: str, columns: Columns) -> None:
    if columns:
        raise BadInput(f"--columns: {name} is no table; every line is a text")


def _cells(source: str, columns: Columns, roles: Sequence[str]) -> Iterator[dict[str, str]]:
    """An input for each of a table's rows; of the columns only text_b may be missing."""
    found = read_rows(Path(source), columns, roles)
    places = [(f, role, found.places[role]) for f, role in zip(_FIELDS, roles, strict=False) if role in found.places]
    for number, cells in found.rows:
        yield {field: checked_cell(source, number, role, cells[place]) for field, role, place in places}


def _chunks(items: Iterator[Any], waits: Callable[[], bool] = bool) -> Iterator[list[Any]]:
    """Items in lists, none of which is kept back while more is waited for; None stands for nothing to answer."""
    chunk: list[Any] = []
    characters = 0
    try:
        for item in items:
            if item is not None:
                chunk.append(item)
                characters += len(item) if isinstance(item, str) else sum(map(len, item.values()))
            if chunk and (len(chunk) == _CHUNK or characters >= _CHARACTERS or waits()):
                yield chunk
                chunk, characters = [], 0
    except (BadInput, OSError):
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def _object(line: str) -> dict[str, Any]:
    """The object that a line is, an empty one if it is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _checked_objects(
    name: str, lines: Iterator[tuple[int, str]], columns: Columns, roles: Sequence[str]
) -> Iterator[dict[str, str] | None]:
    """The inputs that lines hold, None for a blank one."""
    named, fields = columns or {}, dict(zip(roles, _FIELDS, strict=False))
    keys = {role: named.get(role, role) for role in roles}
    needed = [role for role in roles if role in named or fields[role] == "text"]
    first: dict[str, str] = {}
    for number, line in lines:
        if not line.strip():
            yield None
            continue
        value = _object(line)
        if missing := [role for role in needed if keys[role] not in value]:
            hint = f"; --columns {missing[0]}=NAME names another key" if value and columns is not None else ""
            raise BadInput(f"{name}: line {number}: not an object with a {keys[missing[0]]}{hint}")
        found = {
            fields[role]: checked_cell(name, number, role, value[key]) for role, key in keys.items() if key in value
        }
        first = first or found
        if found.keys() != first.keys():
            raise BadInput(f"{name}: line {number}: all must have a text_b, or none; this one is unlike the first")
        yield found
