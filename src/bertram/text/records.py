"""Tables of labelled texts to train on, and how any file of examples is read.

CSV as in RFC 4180, TSV without quoting, JSONL and Parquet; all but the last optionally gzipped. What a file says is
taken as it stands: labels are strings, and which numbers they stand for is a task's business.
"""

import codecs
import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, Protocol, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from bertram.errors import BadInput, failing_as, require

ROLES = ("text", "text_b", "label")
_OPTIONAL = "text_b"
_LONGEST_LINE = 16 * 2**20  # bytes
_SURROGATE = re.compile("[\ud800-\udfff]")
_SEPARATORS = {";": "semicolons; CSV takes commas", "\t": "tabs; name the file .tsv", ",": "commas; name it .csv"}
"""Separators that a table of its ending does not have, and what to do about them."""

Columns = Mapping[str, str] | None
"""What the columns of some roles are called; None where the user cannot say so."""
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


class Selectable(Protocol):
    """Examples read from files."""

    def __len__(self) -> int: ...

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Characters of each example."""

    def select(self, rows: Iterable[int] | NDArray[np.integer], /) -> Self:
        """The examples at these places, in their order."""


E = TypeVar("E", bound=Selectable)


@dataclass(frozen=True)
class Table:
    """Labelled texts or pairs of texts, as many of each."""

    texts: list[str]
    texts_b: list[str] | None
    labels: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def inputs(self) -> tuple[list[str], list[str] | None]:
        """Texts and second texts, as a tokenizer or a predictor takes them."""
        return self.texts, self.texts_b

    @property
    def asked(self) -> list[str | dict[str, str]]:
        """The texts as inputs to answer, which `read_inputs` gives too."""
        if self.texts_b is None:
            return list(self.texts)
        return [{"text": a, "text_b": b} for a, b in zip(self.texts, self.texts_b, strict=True)]

    def sides(self, *, apart: bool) -> list[tuple[list[str], list[str] | None]]:
        """What is encoded at a time: all there is, or of pairs read `apart` the first texts and then the second."""
        return [(self.texts, None), (self.texts_b, None)] if apart and self.texts_b is not None else [self.inputs]

    @property
    def all_texts(self) -> list[str]:
        """Every text, those of pairs one by one."""
        return self.texts + (self.texts_b or [])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Characters of each text or pair, [N]."""
        columns = [[len(text) for text in column] for column in self.inputs if column is not None]
        lengths: NDArray[np.int64] = np.array(columns, np.int64).sum(0)
        return lengths

    def select(self, rows: Iterable[int] | NDArray[np.integer]) -> "Table":
        """The rows at these places, in their order, as a Table of their own."""
        places = [int(row) for row in rows]
        return Table(
            [self.texts[i] for i in places],
            None if self.texts_b is None else [self.texts_b[i] for i in places],
            [self.labels[i] for i in places],
        )


def read_table(path: str | Path, columns: Mapping[str, str] | None = None) -> Table:
    """Read a file of labelled texts.

    Args:
        path: ends with .csv, .tsv, .jsonl or .parquet; .gz may follow.
        columns: names of the columns to read as text, text_b and label where they are called otherwise. In CSV and TSV
            a number from 1 counts columns, unless one is called so; where there are only numbers there is no header.

    Raises:
        BadInput: the file is missing, empty or broken, or lacks a column, a text or a label somewhere.
    """
    return table_of(str(path), read_rows(Path(path), columns or {}))


def table_of(name: str, found: Rows) -> Table:
    """The Table that the rows of the file `name` make.

    Raises:
        BadInput: there are none, or one lacks a text or a label.
    """
    cells_of: dict[str, list[str]] = {role: [] for role in found.places}
    for number, cells in found.rows:
        for role, place in found.places.items():
            cells_of[role].append(checked_cell(name, number, role, cells[place]))
    if not cells_of["text"]:
        raise BadInput(f"{name}: holds no rows")
    return Table(cells_of["text"], cells_of.get("text_b"), cells_of["label"])


def parse_columns(text: str | None, roles: Sequence[str] = ROLES) -> dict[str, str] | None:
    """Read `--columns text=sentence,label=2`, where the columns' roles are text and label; None of None.

    Raises:
        BadInput: it does not read like that.
    """
    if text is None:
        return None
    columns: dict[str, str] = {}
    for part in text.split(","):
        role, equals, name = part.partition("=")
        if not equals or not name or role not in roles or role in columns:
            raise BadInput(
                f"--columns {text!r:.80}: write it like {roles[0]}=sentence,{roles[-1]}=2; roles are {', '.join(roles)}"
            )
        columns[role] = name
    return columns


def split(examples: E, share: float, seed: int) -> tuple[E, E]:
    """Hold out a share of the rows, drawn with `seed`; both parts keep the file's order.

    Raises:
        BadInput: there are too few rows for two parts.
    """
    held_out = min(max(1, round(len(examples) * share)), len(examples) - 1)
    if len(examples) < 2:
        raise BadInput("one row is too few to hold some out for validation; give a --validation file")
    chosen = np.zeros(len(examples), bool)
    chosen[np.random.default_rng([seed, len(examples)]).permutation(len(examples))[:held_out]] = True
    return examples.select(np.flatnonzero(~chosen)), examples.select(np.flatnonzero(chosen))


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
                raise BadInput(f"{path}: line {number}: {error}") from None

    csv.field_size_limit(_LONGEST_LINE)
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
            frame = polars.read_parquet(stream, columns=[names[place] for place in places.values()])
    names = [*frame.columns, *(name for name in names if name not in frame.columns)]
    return Rows(names, _places(str(path), names, columns, roles), enumerate(frame.iter_rows(), 1))


_READERS: dict[str, Callable[[Path, Columns, Sequence[str]], Rows]] = {
    ".csv": _csv,
    ".tsv": _tsv,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}


def is_table(path: Path) -> bool:
    """Whether a file's name says that `read_rows` can read it."""
    return kind_of(path) in _READERS


def kind_of(path: Path) -> str:
    """The ending that says what a file is, .gz aside."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def read_rows(path: Path, columns: Columns, roles: Sequence[str] = ROLES) -> Rows:
    """The rows of a file that has a column for each role, but need have none for text_b. Cells come unchecked.

    Raises:
        BadInput: the file is missing, empty or broken, or lacks a column.
    """
    reader = _READERS.get(kind_of(path))
    if reader is None:
        raise BadInput(
            f"{path}: what kind of table is it? Names end with {', '.join(_READERS)}; .gz may follow the first three"
        )
    if not path.exists():
        raise BadInput(f"{path}: no such file")
    return reader(path, columns, roles)


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
    columns: Mapping[str, str] | None,
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


def checked_cell(name: str, line: int, role: str, value: Any) -> str:
    """The string that stands for a text or a label in `line` of the file `name`.

    Raises:
        BadInput: it is missing, no string, an empty label, or holds a NUL byte or an unpaired surrogate.
    """
    if isinstance(value, int | float) and role == "label" and value == value:
        value = str(value).lower() if isinstance(value, bool) else str(value)
    if not isinstance(value, str):
        raise BadInput(f"{name}: line {line}: {role} is {'missing' if value is None else f'no string: {value!r:.60}'}")
    if role == "label" and not value.strip():
        raise BadInput(f"{name}: line {line}: the label is empty")
    if "\0" in value:
        raise BadInput(f"{name}: line {line}: a NUL byte in the {role}")
    if _SURROGATE.search(value):
        raise BadInput(f"{name}: line {line}: an unpaired surrogate in the {role}, which is not valid Unicode")
    return value


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
        while raw := stream.readline(_LONGEST_LINE + 1):
            number += 1
            if len(raw) > _LONGEST_LINE:
                raise BadInput(f"{name}: line {number}: longer than {_LONGEST_LINE >> 20} MB")
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
