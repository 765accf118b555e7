"""Rows of a table in a file: CSV as in RFC 4180, TSV without quoting, JSONL and Parquet, each perhaps gzipped."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from bertram.errors import BadInput, failing_as, require
from bertram.text.lines import LONGEST_LINE, kind_of, numbered_lines, numbered_objects, opened

ROLES = ("text", "text_b", "label")
_OPTIONAL = "text_b"
_SEPARATORS = {";": "semicolons; CSV takes commas", "\t": "tabs; name the file .tsv", ",": "commas; name it .csv"}
"""Separators that a table of its ending does not have, and what to do about them."""

Columns = Mapping[str, str] | None
"""What the columns of some roles are called; the others are called like their roles."""
Row = tuple[int, Sequence[Any]]
"""A row's line in its file, and its cells."""


@dataclass(frozen=True)
class Rows:
    """What stands in a file of examples: the columns' names, in which of them each role stands, and the rows.

    Columns without a header are called by their numbers from 1.
    """

    columns: list[str]
    places: dict[str, int]
    rows: Iterator[Row]


def read_rows(path: Path, columns: Columns, roles: Sequence[str] = ROLES) -> Rows:
    """The rows of a file that has a column for each role, but need have none for text_b. Cells come unchecked.

    `columns` is None where the user cannot name any, so that no error says how.

    Raises:
        BadInput: the file is missing, empty or broken, or lacks a column.
    """
    reader = _READERS.get(kind_of(path))
    if reader is None:
        raise BadInput(
            f"{path}: what kind of table is it? Names end with {', '.join(_READERS)}; .gz may follow. For labelled "
            "words, such as CoNLL's, the task is tagging"
        )
    if not path.exists():
        raise BadInput(f"{path}: no such file")
    return reader(path, columns, roles)


def is_table(path: Path) -> bool:
    """Whether a file's name says that `read_rows` can read it."""
    return kind_of(path) in _READERS


def checked_columns(columns: Columns, roles: Sequence[str] = ROLES) -> Mapping[str, str]:
    """The columns that a user has named, if any, where the roles are these.

    Raises:
        BadInput: they are no mapping, or one has another role or is not named by a text.
    """
    named = {} if columns is None else columns
    if not isinstance(named, Mapping):
        raise BadInput(f"--columns: {named!r:.40} is no mapping of roles to names, such as {{'text': 'sentence'}}")
    if unknown := [role for role in named if role not in roles]:
        raise BadInput(f"--columns: no role {unknown[0]!r:.40}; roles are {', '.join(roles)}")
    if unnamed := [name for name in named.values() if not isinstance(name, str)]:
        raise BadInput(f"--columns: {unnamed[0]!r:.40} is no text; columns counted from 1 are named '1', '2' and so on")
    return named


def _csv(path: Path, columns: Columns, roles: Sequence[str]) -> Rows:
    def rows() -> Iterator[Row]:
        with opened(path) as stream:
            reader = csv.reader((f"{line}\n" for _, line in numbered_lines(str(path), stream)), strict=True)
            number = 1
            try:
                for cells in reader:
                    yield number, cells
                    number = reader.line_num + 1
            except csv.Error as error:
                stray = "a carriage return outside quotes; quote the text, or end lines with line feeds"
                reason = stray if str(error).startswith("new-line") else error
                raise BadInput(f"{path}: line {number}: {reason}") from None

    csv.field_size_limit(LONGEST_LINE)
    return _headed(str(path), rows(), columns, roles)


def _tsv(path: Path, columns: Columns, roles: Sequence[str]) -> Rows:
    def rows() -> Iterator[Row]:
        with opened(path) as stream:
            lines = numbered_lines(str(path), stream)
            yield from ((number, line.split("\t") if line else []) for number, line in lines)

    return _headed(str(path), rows(), columns, roles)


def _jsonl(path: Path, columns: Columns, roles: Sequence[str]) -> Rows:
    found = numbered_objects(path)
    first = next(found, None)
    if first is None:
        raise BadInput(f"{path}: is empty")
    names = list(first[1])
    places = _places(str(path), names, columns, roles)
    optional = _OPTIONAL if _OPTIONAL in roles and _OPTIONAL not in places else None

    def rows() -> Iterator[Row]:
        for number, value in chain([first], found):
            if optional in value:
                raise BadInput(f"{path}: line {number}: has a {optional}, which the first object lacks")
            yield number, [value.get(name) for name in names]

    return Rows(names, places, rows())


def _parquet(path: Path, columns: Columns, roles: Sequence[str]) -> Rows:
    polars = require("polars", "train")
    with failing_as(f"{path}: not a readable Parquet file"):
        with opened(path) as stream:  # by its name polars would take it for a pattern of names
            names = list(polars.read_parquet_schema(stream))
        places = _places(str(path), names, columns, roles)
        with opened(path) as stream:
            wanted = sorted(set(places.values()))  # one may have two roles; names may read as patterns of names
            frame = polars.read_parquet(stream, columns=wanted)
    names = [*frame.columns, *(name for name in names if name not in frame.columns)]
    return Rows(names, _places(str(path), names, columns, roles), enumerate(frame.iter_rows(), 1))


_READERS: dict[str, Callable[[Path, Columns, Sequence[str]], Rows]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}


def _headed(name: str, rows: Iterator[Row], columns: Columns, roles: Sequence[str]) -> Rows:
    """A file whose first row names its columns, unless `columns` only counts them."""
    named = columns or {}
    headless = bool(named) and all(column.isdecimal() for column in named.values())
    needed = [role for role in roles if role != _OPTIONAL]
    if headless and (not named.keys() >= set(needed) or not all(map(int, named.values()))):
        wanted = " and ".join(f"the {role}'s" for role in needed)
        raise BadInput(
            f"--columns: without a header, name {wanted} column by numbers from 1, or one of them by its header"
        )
    blank: list[Row] = []
    while (first := next(rows, None)) and not first[1]:
        blank.append(first)
    if first is None:
        raise BadInput(f"{name}: is empty")
    header, numbers = list(first[1]), [str(number) for number in range(1, len(first[1]) + 1)]
    if headless:
        places = {role: int(named[role]) - 1 for role in roles if role in named}
        rows = _filled(chain(blank, [first], rows), len(header))
        return Rows(numbers, places, _checked_width(name, rows, 1 + max(places.values()), "at least "))
    rows = _filled(rows, len(header))
    return Rows(header, _places(name, header, columns, roles, numbers), _checked_width(name, rows, len(header)))


def _filled(rows: Iterable[Row], width: int) -> Iterator[Row]:
    """A blank line is an empty cell of the only column there is; of several columns it is no row."""
    for number, cells in rows:
        if cells or width == 1:
            yield number, cells or [""]


def _checked_width(name: str, rows: Iterator[Row], width: int, bound: str = "") -> Iterator[Row]:
    for number, cells in rows:
        if len(cells) < width or (not bound and len(cells) > width):
            raise BadInput(f"{name}: line {number}: has {len(cells)} columns; {bound}{width} are expected")
        yield number, cells


def _places(
    name: str,
    header: Sequence[str],
    columns: Columns,
    roles: Sequence[str],
    numbers: Sequence[str] = (),
) -> dict[str, int]:
    """The place of each role's column, which is called by its name or one of the `numbers`."""
    places, named = {}, columns or {}
    for role in roles:
        column = named.get(role, role)
        if (number := list(header).count(column)) > 1:
            raise BadInput(f"{name}: has {number} columns named {column!r:.80}")
        if column in header:
            places[role] = list(header).index(column)
        elif column in numbers:
            places[role] = numbers.index(column)
        elif role in named or role != _OPTIONAL:
            known = ", ".join(f"{other!r:.40}" for other in header[:12])
            hint = "" if columns is None else f"; --columns {role}=NAME names another"
            if numbers == ["1"] and (marks := [mark for mark in _SEPARATORS if mark in header[0]]):
                hint = f"; its columns seem to be separated by {_SEPARATORS[marks[0]]}"
            raise BadInput(f"{name}: no column {column!r:.80} (it has {known}){hint}")
    return places
