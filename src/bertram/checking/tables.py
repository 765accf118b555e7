"""What tables of labelled texts hold."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from bertram.checking import page
from bertram.checking.labels import (
    label_rows,
    repetitions,
    warnings_of_few,
    warnings_of_repetitions,
    warnings_of_spelling,
)
from bertram.checking.reader import Reader
from bertram.tasks.classification import Classification
from bertram.tasks.registry import kind_of_task
from bertram.tasks.task import Task, parse_number
from bertram.text.rows import Columns, Rows, checked_columns, read_rows
from bertram.text.table import Table, table_of

_MOST = 0.9  # share of one label above which scores say little

Example = tuple[str, str | None]


def check_tables(
    files: Mapping[str, Sequence[Path]],
    *,
    task: str | None = None,
    model: str | Path | None = None,
    columns: Columns = None,
    vocab_size: int | None = None,
    cased: bool = False,
) -> dict[str, Any]:
    """Count what stands in the tables and what is wrong with them.

    `files` are a table for "train", perhaps for "validation" and "test". `task` is one of
    `bertram.tasks.registry.TASKS` that labels whole texts; None guesses from the training labels. Texts are equal if
    every character is; a pair counts as one text. Lengths are in characters and, unless most rows are written without
    spaces, words, with `model` also in its tokens, special ones included, where of two texts that the task reads apart
    the longer counts; those of a preset are learned from all training texts, a tokenizer of at most `vocab_size`
    entries, `cased` or not.

    Returns:
        "task": its name; "guessed": whether by the labels; "model": name, vocabulary and length, or None; "tables": for
        each of train, validation and test that is there, its columns and counts; "warnings": what to look at, in plain
        words.

    Raises:
        BadInput: a file or the model cannot be used.
    """
    paths = {part: path for part, (path,) in files.items()}
    names = page.told_apart({part: path.name for part, path in paths.items()})
    named = checked_columns(columns)
    rows = {part: read_rows(path, named) for part, path in paths.items()}
    tables = {part: table_of(str(paths[part]), found) for part, found in rows.items()}
    kind = kind_of_task(task, tables["train"].labels)
    reader = None if model is None else Reader.of_labelled(model, tables["train"].all_texts, vocab_size, cased)
    described = reader and reader.described
    found: dict[str, Any] = {"task": kind.name, "guessed": task is None, "model": described, "tables": {}}
    labelled = {part: list(zip(_examples(table), _values(table, kind), strict=True)) for part, table in tables.items()}
    for part, table in tables.items():
        earlier = {other: labelled[other] for other in found["tables"]}
        found["tables"][part] = {
            "file": names[part],
            "rows": len(table),
            "pairs": table.texts_b is not None,
            **_columns(rows[part]),
            **_labels(table, tables["train"], kind),
            "blank": sum(not all(text.strip() for text in example if text is not None) for example in _examples(table)),
            "quoted": page.count_quoted(paths[part], *(texts for texts in table.inputs if texts is not None)),
            **repetitions(labelled[part], earlier),
            **_lengths(table, kind, reader),
        }
    found["warnings"] = list(_warnings(found, kind))
    return found


def render(found: dict[str, Any]) -> str:
    """What `check_tables` found, for a terminal 80 columns wide."""
    facts = [
        *_column_lines(found["tables"]),
        f"{'task':12}{found['task']}{', by the labels' if found['guessed'] else ''}",
    ]
    lengths = [
        (part, unit, length) for part, table in found["tables"].items() for unit, length in table["lengths"].items()
    ]
    return page.render(found, facts, [*_label_rows(found), *_count_rows(found)], lengths)


def _examples(table: Table) -> list[Example]:
    seconds: Sequence[str | None] = table.texts_b or [None] * len(table)
    return list(zip(table.texts, seconds, strict=True))


def _values(table: Table, task: type[Task]) -> list[str | float | None]:
    """Labels as the task compares them: 1 and 1.0 are one number, but two names."""
    return list(table.labels) if task is Classification else [parse_number(label) for label in table.labels]


def _labels(table: Table, train: Table, task: type[Task]) -> dict[str, Any]:
    """Counts of names or the range of numbers, and the labels that a model of `train` could not be scored on."""
    counts = Counter(table.labels)
    if task is Classification:
        unusable = counts.keys() - set(train.labels)
        return {"labels": _chosen(counts, set(counts)), "numbers": None, "unusable_labels": _chosen(counts, unusable)}
    numbers = [value for value in map(parse_number, table.labels) if value is not None]
    bounds = {"min": min(numbers), "mean": float(np.mean(numbers)), "max": max(numbers)} if numbers else None
    unusable = {label for label in counts if parse_number(label) is None}
    return {"labels": None, "numbers": bounds, "unusable_labels": _chosen(counts, unusable)}


def _chosen(counts: Counter[str], labels: set[str]) -> dict[str, int]:
    """Counts of these labels, the most frequent first."""
    return {label: count for label, count in counts.most_common() if label in labels}


def _columns(rows: Rows) -> dict[str, Any]:
    """What the columns are called that have a role, and the others."""
    roles = {role: rows.columns[place] for role, place in rows.places.items()}
    others = [name for place, name in enumerate(rows.columns) if place not in rows.places.values()]
    return {"columns": roles, "other_columns": others}


def _lengths(table: Table, task: type[Task], reader: Reader | None) -> dict[str, Any]:
    both = [[text for text in example if text is not None] for example in _examples(table)]
    lengths = page.lengths_of(both)
    if reader is None:
        return {"lengths": lengths}
    batches = [reader.source.encode(*side, max_length=page.NO_LIMIT)[0] for side in table.sides(apart=task.apart)]
    longest = np.max([batch.lengths for batch in batches], axis=0)
    lengths["tokens"] = page.percentiles(longest)
    token_ids = np.concatenate([batch.token_ids for batch in batches])
    return {
        "lengths": lengths,
        "too_long": int((longest > reader.max_length).sum()),
        "unknown_tokens": float((token_ids == reader.source.unk_id).mean()),
    }


def _warnings(found: dict[str, Any], task: type[Task]) -> Iterator[str]:
    tables = found["tables"]
    train = tables["train"]["file"]
    if task.apart and not tables["train"]["pairs"]:
        yield f"{task.name} compares two texts: {train} needs a column text_b"
    for table in tables.values():
        name = table["file"]
        if table["pairs"] != tables["train"]["pairs"]:
            yield f"of {train} and {name} one holds pairs of texts and the other single texts"
        if unusable := table["unusable_labels"]:
            why = "that is no number" if table["labels"] is None else f"that {train} lacks"
            yield f"{page.rows(sum(unusable.values()), table, 'hold')} a label {why}: {page.named(unusable)}"
        if table["blank"]:
            yield f"{page.rows(table['blank'], table, 'hold')} a blank text"
        yield from page.warnings_of_quotes(table)
        yield from warnings_of_repetitions(table, tables)
    yield from warnings_of_spelling(label for table in tables.values() for label in table["labels"] or ())
    yield from _warnings_of_balance(tables["train"])
    if found["model"] is not None:
        yield from page.warnings_of_tokens(found)


def _warnings_of_balance(train: dict[str, Any]) -> Iterator[str]:
    labels, numbers, file = train["labels"], train["numbers"], train["file"]
    if labels is None:
        if numbers is not None and numbers["min"] == numbers["max"]:
            yield f"every label of {file} is {numbers['min']:g}; there is nothing to learn"
        return
    first, count = next(iter(labels.items()))
    if len(labels) < 2:
        yield f"every label of {file} is {page.named(labels)}; there is nothing to learn"
    elif count >= _MOST * train["rows"]:
        hold = page.rows(count, train, "hold")
        yield f"{hold} the label {page.named([first])}; a model that always answers so is as accurate"
    yield from warnings_of_few(labels, train, "rows")


def _label_rows(found: dict[str, Any]) -> Iterator[list[str]]:
    """Lines of the labels' counts and shares, or of the numbers' range."""
    tables = list(found["tables"].values())
    if tables[0]["labels"] is None:
        for bound in ("min", "mean", "max"):
            yield [f"label, {bound}", *(f"{t['numbers'][bound]:,.4g}" if t["numbers"] else "–" for t in tables)]
        return
    yield from label_rows("label", [table["labels"] for table in tables], [table["rows"] for table in tables])


def _column_lines(tables: dict[str, Any]) -> Iterator[str]:
    """What each table's columns are taken as, once if it is the same for all."""
    said = {part: _taken(table["columns"], table["other_columns"]) for part, table in tables.items()}
    alike = len(set(said.values())) == 1
    for part, words in list(said.items())[: 1 if alike else None]:
        yield from page.wrapped(words if alike else f"of {part}: {words}", f"{'columns':12}")


def _taken(columns: dict[str, str], others: list[str]) -> str:
    roles = [role if role == name else f"{name!r:.40} as {role}" for role, name in columns.items()]
    return ", ".join(roles) + (f"; not read: {page.named(others)}" if others else "")


def _count_rows(found: dict[str, Any]) -> Iterator[list[str]]:
    counted = {
        "blank texts": "blank",
        "texts of an earlier row": "repeated",
        "texts labelled otherwise": "contradictory",
    }
    return page.count_rows(found, counted, "also in", itemgetter("rows"))
