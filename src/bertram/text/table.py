"""Labelled texts to train on or to score: a table of them, read from a file or made by hand.

Labels are strings, and which numbers they stand for is a task's business.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bertram.errors import BadInput
from bertram.text.lines import checked_cell
from bertram.text.rows import Columns, Rows, checked_columns, read_rows
from bertram.text.tagged import TAGGED, read_tagged


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


def read_table(path: str | Path, columns: Columns = None, *, per_word: bool = False) -> Table:
    """Read a file of labelled texts.

    Args:
        per_word: every word is labelled, and the file is one that `text.tagged.read_tagged` reads.
        path: ends with .csv, .tsv, .jsonl or .parquet; .gz may follow.
        columns: names of the columns to read as text, text_b and label where they are called otherwise. In CSV and TSV
            a number from 1 counts columns, unless one is called so; where there are only numbers there is no header.

    Raises:
        BadInput: the file is missing, empty or broken, or lacks a column, a text or a label somewhere;
            or `columns` has another role.
    """
    if per_word:
        return table_of(str(path), read_tagged(Path(path), checked_columns(columns, TAGGED)))
    return table_of(str(path), read_rows(Path(path), checked_columns(columns)))


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
