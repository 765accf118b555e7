"""What tables of labelled texts hold."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from bertram.checking import page
from bertram.checking.reader import Reader
from bertram.model_directory import ModelDirectory
from bertram.model_names import require_encoder, resolve
from bertram.pages.labels import short
from bertram.tasks.classification import Classification
from bertram.tasks.registry import kind_of_task
from bertram.tasks.task import Task, parse_number
from bertram.text.rows import Columns, Rows, checked_columns, read_rows
from bertram.text.table import Table, table_of
from bertram.text.tokenizer import Tokenizer

_LISTED_LABELS = 20  # lines of the table
_FEW = 10  # rows of a label below which little can be learned of it
_MOST = 0.9  # share of one label above which scores say little

Example = tuple[str, str | None]
Labels = dict[Example, set[str | float | None]]
"""The labels that every text or pair of a table has."""


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
    `bertram.tasks.registry.TASKS`; None guesses from the training labels. Texts are equal if every character is; a pair
    counts as one text. Lengths are in characters and, unless most rows are written without spaces, words, with `model`
    also in its tokens, special ones included, where of two texts that the task reads apart the longer counts; those of
    a preset are learned from all training texts, a tokenizer of at most `vocab_size` entries, `cased` or not.

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
    reader = None if model is None else _reader(model, tables["train"], vocab_size, cased)
    described = reader and reader.described
    found: dict[str, Any] = {"task": kind.name, "guessed": task is None, "model": described, "tables": {}}
    known = {part: _labels_of_texts(table, kind) for part, table in tables.items()}
    for part, table in tables.items():
        earlier = list(found["tables"])
        found["tables"][part] = {
            "file": names[part],
            "rows": len(table),
            "pairs": table.texts_b is not None,
            **_columns(rows[part]),
            **_labels(table, tables["train"], kind),
            "blank": sum(not all(text.strip() for text in example if text is not None) for example in _examples(table)),
            "repeated": len(table) - len(known[part]),
            "quoted": page.count_quoted(paths[part], *(texts for texts in table.inputs if texts is not None)),
            "contradictory": sum(len(known[part][example]) > 1 for example in _examples(table)),
            "also_in": {other: _overlap(table, kind, known[other]) for other in earlier},
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


def _reader(model: str | Path, train: Table, vocab_size: int | None, cased: bool) -> Reader:
    source = require_encoder(resolve(model))
    if isinstance(source, ModelDirectory):
        return Reader.of_encoder(source)
    config = source.config
    size = config.vocab_size if vocab_size is None else vocab_size
    tokenizer = Tokenizer.train(train.all_texts, config.model_type, size, cased=cased)
    return Reader(source.name, tokenizer, tokenizer, config.max_position_embeddings, learned_here=True)


def _examples(table: Table) -> list[Example]:
    seconds: Sequence[str | None] = table.texts_b or [None] * len(table)
    return list(zip(table.texts, seconds, strict=True))


def _values(table: Table, task: type[Task]) -> list[str | float | None]:
    """Labels as the task compares them: 1 and 1.0 are one number, but two names."""
    return list(table.labels) if task is Classification else [parse_number(label) for label in table.labels]


def _labels_of_texts(table: Table, task: type[Task]) -> Labels:
    found: Labels = {}
    for example, label in zip(_examples(table), _values(table, task), strict=True):
        found.setdefault(example, set()).add(label)
    return found


def _overlap(table: Table, task: type[Task], known: Labels) -> dict[str, int]:
    """How many rows have a text of another table, and how many of these a label that it does not have there."""
    rows = zip(_examples(table), _values(table, task), strict=True)
    agreeing = [label in known[example] for example, label in rows if example in known]
    return {"rows": len(agreeing), "otherwise_labelled": agreeing.count(False)}


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
        "truncated": int((longest > reader.max_length).sum()),
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
        for other, overlap in table["also_in"].items():
            if overlap["rows"]:
                differing = overlap["otherwise_labelled"]
                labelled = f", {differing:,} of them with another label" if differing else ""
                flattered = f"; scores on {name} will flatter" if other == "train" else ""
                stand = page.rows(overlap["rows"], table, "also stand")
                yield f"{stand} in {tables[other]['file']}{labelled}{flattered}"
        if unusable := table["unusable_labels"]:
            why = "that is no number" if table["labels"] is None else f"that {train} lacks"
            yield f"{page.rows(sum(unusable.values()), table, 'hold')} a label {why}: {page.named(unusable)}"
        if table["blank"]:
            yield f"{page.rows(table['blank'], table, 'hold')} a blank text"
        yield from page.warnings_of_quotes(table)
        if table["repeated"]:
            yield f"{page.rows(table['repeated'], table, 'repeat')} the text of an earlier one"
        if table["contradictory"]:
            yield f"{page.rows(table['contradictory'], table, 'share')} a text with a row that is labelled otherwise"
    yield from _warnings_of_spelling(tables.values())
    yield from _warnings_of_balance(tables["train"])
    if found["model"] is not None:
        yield from page.warnings_of_tokens(found)


def _warnings_of_spelling(tables: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Of names that a reader would take for one."""
    alike: dict[str | float, list[str]] = {}
    for label in dict.fromkeys(label for table in tables for label in table["labels"] or ()):
        number = parse_number(label)
        name = unicodedata.normalize("NFC", " ".join(label.split()))
        alike.setdefault(name if number is None else number, []).append(label)
    if several := [label for labels in alike.values() if len(labels) > 1 for label in labels]:
        names = page.named(several)
        differ = "only in white space, in how accents are composed or in how a number is written"
        yield f"labels that differ {differ} count as different ones: {names}"


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
    if few := [label for label, rows in labels.items() if rows < _FEW]:
        yield f"fewer than {_FEW} rows of {file} each for {len(few):,} of {len(labels):,} labels: {page.named(few)}"


def _label_rows(found: dict[str, Any]) -> Iterator[list[str]]:
    """Lines of the labels' counts and shares, or of the numbers' range."""
    tables = list(found["tables"].values())
    if tables[0]["labels"] is None:
        for bound in ("min", "mean", "max"):
            yield [f"label, {bound}", *(f"{t['numbers'][bound]:,.4g}" if t["numbers"] else "–" for t in tables)]
        return
    labels = list(dict.fromkeys(label for table in tables for label in table["labels"]))
    for label in labels[:_LISTED_LABELS]:
        yield [f"label {short(label, 18)!r}", *(page.share(table["labels"].get(label, 0), table) for table in tables)]
    if rest := labels[_LISTED_LABELS:]:
        counts = [sum(table["labels"].get(label, 0) for label in rest) for table in tables]
        yield [f"{len(rest):,} more labels", *map(page.share, counts, tables)]


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
