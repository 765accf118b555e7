"""What is told of labels, be they of texts or of words: which texts come again and with which, and their counts."""

import unicodedata
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from bertram.checking import page
from bertram.pages.labels import short
from bertram.tasks.task import parse_number

Row = tuple[Hashable, Hashable]
"""A text or a pair, and what labels it, both as the task compares them."""

_LISTED = 20  # lines of the table
_FEW = 10  # examples of a label below which little can be learned of it


def repetitions(rows: Sequence[Row], earlier: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """How many rows have the text of an earlier one, of one that is labelled otherwise, and of one in other tables."""
    own = _labels_of(rows)
    return {
        "repeated": len(rows) - len(own),
        "contradictory": sum(len(own[text]) > 1 for text, _ in rows),
        "also_in": {other: _overlap(rows, _labels_of(theirs)) for other, theirs in earlier.items()},
    }


def _labels_of(rows: Sequence[Row]) -> dict[Hashable, set[Hashable]]:
    found: dict[Hashable, set[Hashable]] = {}
    for text, label in rows:
        found.setdefault(text, set()).add(label)
    return found


def _overlap(rows: Sequence[Row], known: Mapping[Hashable, set[Hashable]]) -> dict[str, int]:
    """How many rows have a text of another table, and how many of these a label that it does not have there."""
    agreeing = [label in known[text] for text, label in rows if text in known]
    return {"rows": len(agreeing), "otherwise_labelled": agreeing.count(False)}


def warnings_of_repetitions(table: page.Found, tables: page.Found) -> Iterator[str]:
    """Of what `repetitions` found in a table, beside the others."""
    for other, overlap in table["also_in"].items():
        if overlap["rows"]:
            differing = overlap["otherwise_labelled"]
            labelled = f", {differing:,} of them labelled otherwise" if differing else ""
            flattered = f"; scores on {table['file']} will flatter" if other == "train" else ""
            stand = page.rows(overlap["rows"], table, "also stand")
            yield f"{stand} in {tables[other]['file']}{labelled}{flattered}"
    if table["repeated"]:
        yield f"{page.rows(table['repeated'], table, 'repeat')} the text of an earlier one"
    if table["contradictory"]:
        yield f"{page.rows(table['contradictory'], table, 'share')} a text with a row that is labelled otherwise"


def warnings_of_spelling(labels: Iterable[str]) -> Iterator[str]:
    """Of labels that a reader would take for one."""
    alike: dict[str | float, list[str]] = {}
    for label in dict.fromkeys(labels):
        number = parse_number(label)
        name = unicodedata.normalize("NFC", " ".join(label.casefold().split()))
        alike.setdefault(name if number is None else number, []).append(label)
    if several := [label for labels in alike.values() if len(labels) > 1 for label in labels]:
        differ = "only in case, in white space, in how accents are composed or in how a number is written"
        yield f"labels that differ {differ} count as different ones: {page.named(several)}"


def warnings_of_few(
    counts: Mapping[str, int], table: page.Found, counted: str, labels: str = "labels"
) -> Iterator[str]:
    """Of labels, or what else is called `labels`, that a training table has few examples of, by what is counted."""
    if few := [label for label, count in counts.items() if count < _FEW]:
        each = f"fewer than {_FEW} {counted} of {table['file']} each"
        yield f"{each} for {len(few):,} of {len(counts):,} {labels}: {page.named(few)}"


def label_rows(name: str, counts: Sequence[Mapping[str, int]], wholes: Sequence[int]) -> Iterator[list[str]]:
    """Lines of each label's counts in the tables, and of its shares in so many; `name` says what a label is of."""
    labels = list(dict.fromkeys(label for table in counts for label in table))
    for label in labels[:_LISTED]:
        shares = (page.share(table.get(label, 0), whole) for table, whole in zip(counts, wholes, strict=True))
        yield [f"{name} {short(label, 18)!r}", *shares]
    if rest := labels[_LISTED:]:
        sums = [sum(table.get(label, 0) for label in rest) for table in counts]
        yield [f"{len(rest):,} more {name}s", *map(page.share, sums, wholes)]
