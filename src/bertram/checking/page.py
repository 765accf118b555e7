"""What is told of examples, whatever they are: counts, lengths and warnings on a page for a terminal 80 columns wide.

`found` is what a check found: "model", "tables" with "file" and "rows" each, and "warnings".
"""

import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from rich.cells import cell_len

from bertram.pages.labels import short
from bertram.tasks.rouge import HAN, SOUTHEAST_ASIAN
from bertram.text.lines import kind_of

NOTABLE = 0.01
"""Share of long texts, unknown tokens and their like that a user should hear of."""
NO_LIMIT = 2**30
"""Tokens; more than any line holds that is read."""

_WIDTH = 80
_WITHOUT_SPACES = re.compile(f"{HAN}|{SOUTHEAST_ASIAN}")  # Japanese too, which hardly does without Han
_NAMED = 5  # labels that a warning lists before it only counts them

Found = Mapping[str, Any]


def render(
    found: Found,
    facts: Sequence[str],
    counts: Iterable[list[str]],
    lengths: Iterable[tuple[str, str, Mapping[str, int]]],
) -> str:
    """The page: files, `facts`, a line for each of `counts`, `lengths` by part and unit, and the warnings."""
    parts = found["tables"]
    lines = [f"{part:12}{table['file']}, {table['rows']:,} rows" for part, table in parts.items()]
    lines += [*facts, "", *_grid(["", *parts], counts), ""]
    measured = [[f"{part:12}{unit}", *(f"{length:,}" for length in by.values())] for part, unit, by in lengths]
    lines += [*_grid(["length", "half up to", "90% up to", "99% up to", "longest"], measured), ""]
    if (model := found["model"]) is not None:
        origin = f", learned from all of {parts['train']['file']}" if model["learned_here"] else ""
        lines += [*wrapped(f"{model['name']}: a vocabulary of {model['vocab_size']:,} tokens{origin}."), ""]
    lines.append("Look at this before training:" if found["warnings"] else "Nothing here needs a warning.")
    for warning in found["warnings"]:
        lines += wrapped(warning, "- ")
    return "\n".join(lines)


def told_apart(names: Mapping[str, str]) -> dict[str, str]:
    """Display names of the splits: their files', or their own if two files share a name."""
    return dict(names) if len(set(names.values())) == len(names) else {part: part for part in names}


def percentiles(lengths: ArrayLike) -> dict[str, int]:
    """50th, 90th, 99th and 100th percentiles, each a length that occurs."""
    values = np.percentile(np.asarray(lengths), [50, 90, 99, 100], method="inverted_cdf")
    return dict(zip(("p50", "p90", "p99", "max"), map(int, values), strict=True))


def lengths_of(examples: Sequence[Sequence[str]]) -> dict[str, dict[str, int]]:
    """Percentiles of the characters of texts or pairs and, unless most are written without spaces, of their words."""
    units: dict[str, Callable[[str], int]] = {"characters": len}
    if 2 * sum(any(map(_WITHOUT_SPACES.search, texts)) for texts in examples) <= len(examples):
        units["words"] = lambda text: len(text.split())
    return {unit: percentiles([sum(map(count, texts)) for texts in examples]) for unit, count in units.items()}


def count_rows(
    found: Found, counted: Mapping[str, str], overlap: str, rows_of: Callable[[Any], int]
) -> Iterator[list[str]]:
    """A row for each count of the tables by its title, for each earlier table's `overlap`, and those of tokens."""
    tables = found["tables"]
    for title, count in counted.items():
        yield [title, *(f"{table[count]:,}" for table in tables.values())]
    for other in list(tables)[:-1]:
        overlaps = [table["also_in"].get(other) for table in tables.values()]
        yield [f"{overlap} {other}", *("–" if value is None else f"{rows_of(value):,}" for value in overlaps)]
    if found["model"] is not None:
        yield from token_rows(found)


def token_rows(found: Found) -> Iterator[list[str]]:
    """Counts of what is longer than the model reads, and of what it does not know."""
    tables = found["tables"].values()
    yield [
        f"past {found['model']['max_length']:,} tokens",
        *(share(table["too_long"], table["rows"]) for table in tables),
    ]
    yield ["unknown tokens", *(f"{table['unknown_tokens']:.1%}" for table in tables)]


def count_quoted(file: Path, *texts: Sequence[str]) -> int:
    """How many rows of a TSV file hold a text that is quoted as in CSV; of any other file 0."""
    if kind_of(file) != ".tsv":
        return 0
    return sum(any(map(_looks_quoted, cells)) for cells in zip(*texts, strict=True))


def warnings_of_quotes(table: Found) -> Iterator[str]:
    """Of texts that are quoted as in CSV."""
    if table["quoted"]:
        hold = rows(table["quoted"], table, "hold")
        yield f"{hold} a text quoted as in CSV; TSV has no quoting here, so the quotation marks are part of the text"


def warnings_of_tokens(found: Found, made: str = "cut") -> Iterator[str]:
    """Of texts longer than the model reads, with what is made of them, and of a language that it does not know or has
    learned too little of.
    """
    model, tables = found["model"], found["tables"]
    name, longest = model["name"], model["max_length"]
    for table in tables.values():
        if table["too_long"] >= NOTABLE * table["rows"]:
            past = rows(table["too_long"], table, "run")
            yield f"{past} past the {longest:,} tokens that {name} reads, and would be {made}"
        if table["unknown_tokens"] >= NOTABLE:
            part = f"{table['unknown_tokens']:.1%}"
            unknown = f"unknown to {name}: does it know the language?"
            unlearned = f"not in the vocabulary learned from {tables['train']['file']}: learn from more texts"
            yield f"{part} of the tokens of {table['file']} are {unlearned if model['learned_here'] else unknown}"


def rows(count: int, table: Found, verb: str, counted: str = "rows") -> str:
    """The beginning of a sentence on so many rows of a table, or of what else is counted there."""
    return f"{count:,} of {table[counted]:,} {counted} of {table['file']} {verb}{'s' if count == 1 else ''}"


def share(count: int, whole: int) -> str:
    """So many, with their share."""
    return f"{count:,} {count / whole if whole else 0:6.1%}"


def named(labels: Iterable[str]) -> str:
    """Some labels or columns by name, each cut to what fits a line, and how many more there are."""
    names = [repr(short(label, 38)) for label in labels]
    rest = [f"{len(names) - _NAMED:,} more"] if len(names) > _NAMED else []
    return ", ".join(names[:_NAMED] + rest)


def wrapped(text: str, bullet: str = "") -> list[str]:
    """Lines of a text that stand behind a bullet."""
    indent = " " * len(bullet)
    return textwrap.wrap(text, _WIDTH, initial_indent=bullet, subsequent_indent=indent, break_on_hyphens=False)


def _looks_quoted(text: str) -> bool:
    return text.startswith('"') and text.endswith('"') and '""' in text[1:-1]


def _grid(header: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    """Lines of a table whose first column stands left and whose others stand right."""
    lines = [header, *rows]
    widths = [max(cell_len(line[place]) for line in lines) for place in range(len(header))]
    for first, *figures in lines:
        padding = " " * (widths[0] - cell_len(first))  # a Chinese character takes two cells
        cells = [f"{figure:>{width}}" for figure, width in zip(figures, widths[1:], strict=True)]
        yield "  ".join([first + padding, *cells]).rstrip()
