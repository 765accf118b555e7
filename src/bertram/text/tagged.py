"""Texts whose words are labelled one by one: CoNLL files, and tables with as many labels as words in a row."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from bertram.errors import BadInput
from bertram.text.lines import checked_cell, kind_of, numbered_lines, opened
from bertram.text.rows import Columns, Row, Rows, is_table, read_rows

TAGGED = ("text", "label")
_DOCUMENT = "-DOCSTART-"  # stands for a word in CoNLL 2003 where a document begins
_CONLL_U = 10  # columns, of which the first numbers the words
_NO_WORD = re.compile(r"\d+[-.]\d+")  # its number where several words are written as one, or one is not written


def read_tagged(path: Path, columns: Columns) -> Rows:
    """Texts of words with spaces between them, and of as many labels likewise: the columns text and label of a table.

    A table's cells may hold lists of strings too. Any file is CoNLL that is no CSV, JSONL or Parquet, and no TSV with a
    header of these columns: a line for each word, which is the first of its columns, and its label the last, unless
    `columns` counts others from 1; a blank line between texts.

    Raises:
        BadInput: the file is missing, empty or broken, or has not as many labels as words somewhere.
    """
    if not path.exists():
        raise BadInput(f"{path}: no such file")
    if _is_table(path, columns):
        found = read_rows(path, columns, TAGGED)
        places = [found.places[role] for role in TAGGED]
        rows = (
            (number, _strings(str(path), number, [cells[place] for place in places])) for number, cells in found.rows
        )
        return Rows([found.columns[place] for place in places], {"text": 0, "label": 1}, rows)
    named = columns or {}
    if named and not all(name.isdecimal() and int(name) for name in named.values()):
        raise BadInput(f"--columns: {path} is read as CoNLL, which has no header: count columns from 1")
    texts = _conll(path, named)
    if (first := next(texts, None)) is None:
        raise BadInput(f"{path}: holds no words")
    return Rows(list(TAGGED), {"text": 0, "label": 1}, chain([first], texts))


def _is_table(path: Path, columns: Columns) -> bool:
    if kind_of(path) != ".tsv":
        return is_table(path)
    with opened(path) as stream:
        _, header = next(numbered_lines(str(path), stream), (1, ""))
    return {(columns or {}).get(role, role) for role in TAGGED} <= set(header.split("\t"))


def _strings(name: str, number: int, cells: list[Any]) -> list[str]:
    """A text's words and labels, from lists or strings of them."""
    found = []
    for role, cell in zip(TAGGED, cells, strict=True):
        words = [checked_cell(name, number, role, word) for word in (cell if isinstance(cell, list) else [cell])]
        if odd := [word for word in words if isinstance(cell, list) and len(word.split()) != 1]:
            raise BadInput(f"{name}: line {number}: the {role} {odd[0]!r:.60} is not one word")
        found.append(" ".join(words))
    many, labels = (len(cell.split()) for cell in found)
    if many != labels:
        raise BadInput(f"{name}: line {number}: words: {many:,}, labels: {labels:,}; each word needs one")
    return found


def _conll(path: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    """Each text by its first line: its words and its labels."""
    begun = 0
    text: list[tuple[str, str]] = []
    for number, word, label in _words(path, columns):
        if word:
            begun = begun if text else number
            text.append((word, label))
        elif text:
            yield begun, [" ".join(column) for column in zip(*text, strict=True)]
            text = []
    if text:
        yield begun, [" ".join(column) for column in zip(*text, strict=True)]


def _words(path: Path, columns: Mapping[str, str]) -> Iterator[tuple[int, str, str]]:
    """Every word by its line, and its label; empty ones between texts.

    What CoNLL-U has beside words is left out: comments before a text, and lines of words written as one.
    """
    width, tabs = _columns(path)
    places = [int(columns.get(role, default)) - 1 for role, default in zip(TAGGED, (1, width), strict=True)]
    inside = False
    with opened(path) as stream:
        for number, line in numbered_lines(str(path), stream):
            cells = _cells(line)
            if not line.strip() or cells[0] == _DOCUMENT:
                inside = False
                yield number, "", ""
                continue
            if not inside and line.startswith("#") and _is_comment(line, cells, width, tabs):
                continue
            inside = True
            if len(cells) != width or width < 2:
                expected = f"; {width} are expected" if width > 1 else "; a word and its label are expected"
                raise BadInput(f"{path}: line {number}: has {len(cells)} columns{expected}")
            if max(places) >= width:
                raise BadInput(f"{path}: line {number}: has {width} columns, and none has the number {max(places) + 1}")
            if tabs and width == _CONLL_U and places[0] and _NO_WORD.fullmatch(cells[0]):
                continue
            word, label = _strings(str(path), number, [[cells[place]] for place in places])
            yield number, word, label


def _columns(path: Path) -> tuple[int, bool]:
    """How many columns the first line has that is surely a word, and whether tabs part them; 0 where there is none."""
    with opened(path) as stream:
        for _, line in numbered_lines(str(path), stream):
            cells = _cells(line)
            if line.strip() and cells[0] != _DOCUMENT and not line.startswith("#"):
                return len(cells), "\t" in line
    return 0, False


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("\t")] if "\t" in line else line.split()


def _is_comment(line: str, cells: Sequence[str], width: int, tabs: bool) -> bool:
    """Whether a line that begins with # before a text tells of it, as "# id 7"; "# O" may be a word and its label."""
    return "\t" not in line if tabs else len(cells) != width or "=" in cells[-1]
