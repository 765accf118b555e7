"""Files of texts and what is to be written from them: sentences and translations, documents and summaries.

Either two text files, the texts of one line by line beside those of the other, or a table with a column for each. What
a file says is taken as it stands, white space included.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertram.errors import BadInput
from bertram.text.lines import checked_cell, numbered_lines, opened
from bertram.text.rows import Columns, checked_columns, is_table, read_rows


@dataclass(frozen=True)
class Pairs:
    """Texts, and one or several right ones to write from each; none of them is empty."""

    sources: list[str]
    targets: list[list[str]]
    dropped: int = 0
    """How many more pairs the file had, all of them empty on both sides."""

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def flat(self) -> tuple[list[str], list[str]]:
        """Sources and targets of equal number: a source stands there once for each of its targets."""
        sources = [source for source, targets in zip(self.sources, self.targets, strict=True) for _ in targets]
        return sources, [target for targets in self.targets for target in targets]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Characters of each source and its longest target, [N]."""
        both = zip(self.sources, self.targets, strict=True)
        return np.array([len(source) + max(map(len, targets)) for source, targets in both], np.int64)

    def select(self, rows: Iterable[int] | NDArray[np.integer]) -> "Pairs":
        """The pairs at these places, in their order, as Pairs of their own."""
        places = [int(row) for row in rows]
        return Pairs([self.sources[i] for i in places], [self.targets[i] for i in places])


def read_pairs(
    data: str | Path,
    data2: str | Path | None = None,
    *,
    columns: Columns = None,
    names: tuple[str, str] = ("source", "target"),
) -> Pairs:
    """Read two aligned text files, or a table of both.

    Args:
        data: a file of sources, one a line; or a path that `read_rows` takes. In JSONL and Parquet a target may be a
            list of strings, which are as many right ones.
        data2: the file of the sources' targets, one a line, unless `data` is a table.
        columns: names of the table's columns where they are not `names`, or numbers as `read_table` takes them.
        names: what errors, columns and the keys of `columns` call a source and a target.

    Raises:
        BadInput: a file is missing, empty or broken, or lacks a column; one file has more lines than the other; or a
            text is empty where its counterpart is not, or holds a NUL byte; or `columns` has another role.
    """
    named = checked_columns(columns, names)
    first, second = Path(data), None if data2 is None else Path(data2)
    if second is not None:
        return _aligned(first, second, named, names)
    if not is_table(first):
        raise BadInput(
            f"{first}: needs a second file that has the {names[1]} of each line; "
            "a table of both is named .csv, .tsv, .jsonl or .parquet (.gz may follow)"
        )
    return _table(first, named, names)


def _aligned(first: Path, second: Path, columns: Mapping[str, str], names: tuple[str, str]) -> Pairs:
    for path in (first, second):
        if is_table(path):
            raise BadInput(f"{path}: is named like a table; give one table alone, or two files of lines")
    if columns:
        raise BadInput(f"--columns: {first} and {second} are files of lines and have no columns")
    sources, targets = _lines(first, names[0]), _lines(second, names[1])
    if len(sources) != len(targets):
        raise BadInput(
            f"{second}: has {len(targets):,} lines, but {first} has {len(sources):,}; "
            "each line must stand beside its counterpart"
        )

    def lone(line: int, side: int) -> str:
        empty, other = (first, second)[side], (second, first)[side]
        return f"{empty}: line {line}: is empty, but line {line} of {other} is not"

    rows = ((line, source, [target]) for line, (source, target) in enumerate(zip(sources, targets, strict=True), 1))
    return _filled(str(first), rows, lone)


def _lines(path: Path, role: str) -> list[str]:
    with opened(path) as stream:
        return [checked_cell(str(path), number, role, line) for number, line in numbered_lines(str(path), stream)]


def _table(path: Path, columns: Mapping[str, str], names: tuple[str, str]) -> Pairs:
    read = read_rows(path, columns, names)
    source, target = (read.places[name] for name in names)

    def lone(line: int, side: int) -> str:
        return f"{path}: line {line}: the {names[side]} is empty, but not the {names[1 - side]}"

    found = (
        (line, checked_cell(str(path), line, names[0], cells[source]), _targets(path, line, names[1], cells[target]))
        for line, cells in read.rows
    )
    return _filled(str(path), found, lone)


def _targets(path: Path, line: int, role: str, value: Any) -> list[str]:
    """A text, or those of a list; none if there is nothing but white space."""
    texts = [checked_cell(str(path), line, role, text) for text in (value if isinstance(value, list) else [value])]
    filled = [text for text in texts if text.strip()]
    if filled and len(filled) < len(texts):
        raise BadInput(f"{path}: line {line}: one {role} of {len(texts)} is empty")
    return filled


def _filled(name: str, rows: Iterable[tuple[int, str, list[str]]], lone: Callable[[int, int], str]) -> Pairs:
    """The rows that are not empty; `lone` says what is wrong where the source (0) or the target (1) alone is."""
    sources: list[str] = []
    targets: list[list[str]] = []
    dropped, wrong, first = 0, 0, ""
    for line, source, texts in rows:
        empty = not source.strip(), not any(text.strip() for text in texts)
        if all(empty):
            dropped += 1
        elif any(empty):
            wrong += 1
            first = first or lone(line, empty.index(True))
        else:
            sources.append(source)
            targets.append(texts)
    if wrong:
        raise BadInput(f"{first}{f', and {wrong - 1:,} more like it' if wrong > 1 else ''}")
    if not sources:
        raise BadInput(f"{name}: holds no text")
    return Pairs(sources, targets, dropped)
