"""What tables hold, before anyone trains on them: what `bertram check` does."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from rich.cells import cell_len

from bertram import model_directory, model_names
from bertram.config import EncoderConfig
from bertram.tasks.classification import Classification
from bertram.tasks.registry import kind_of_task
from bertram.tasks.task import Task, parse_number
from bertram.text.records import Rows, Table, read_rows, table_of
from bertram.text.tokenizer import Tokenizer

_WIDTH = 80
_LISTED_LABELS = 20  # lines of the table
_NAMED = 5  # labels that a warning lists before it only counts them
_FEW = 10  # rows of a label below which little can be learned of it
_MOST = 0.9  # share of one label above which scores say little
_NOTABLE = 0.01  # share of cut texts or unknown tokens that a user should hear of
_NO_LIMIT = 2**30  # tokens; longer than any line that is read

Example = tuple[str, str | None]
Labels = dict[Example, set[str | float | None]]
"""The labels that every text or pair of a table has."""


@dataclass(frozen=True)
class _Reader:
    """A model argument as far as it decides about lengths."""

    model: str
    tokenizer: Tokenizer
    max_length: int
    """Tokens that it cuts texts to."""
    learned_here: bool
    """Whether the tokenizer was learned from the training texts, as `train` does for a preset."""

    @classmethod
    def of(cls, model: str | Path, train: Table) -> "_Reader":
        source = model_names.resolve_encoder(model)
        name = Path(model).name
        if isinstance(source, EncoderConfig):
            tokenizer = Tokenizer.train(train.texts + (train.texts_b or []), source.model_type, source.vocab_size)
            return cls(name, tokenizer, source.max_position_embeddings, learned_here=True)
        config = model_directory.read_config(source)
        tokenizer = model_directory.read_tokenizer(source, config)
        return cls(name, tokenizer, model_directory.max_length_of(source, config), learned_here=False)


def check_tables(
    data: str | Path,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    *,
    task: str | None = None,
    model: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Count what stands in the tables and what is wrong with them.

    `task` is one of `bertram.tasks.registry.TASKS`; None guesses from the training labels. Texts are equal if every
    character is; a pair counts as one text. Lengths are in characters and words between white space, with `model` also
    in its tokens, special ones included, where of two texts that the task reads apart the longer counts; those of a
    preset are learned from the training texts.

    Returns:
        "task": its name; "guessed": whether by the labels; "model": name, vocabulary and length, or None; "tables": for
        each of train, validation and test that is there, its columns and counts; "warnings": what to look at, in plain
        words.

    Raises:
        BadInput: a file or the model cannot be used.
    """
    given = {"train": data, "validation": validation, "test": test}
    files = {part: Path(file) for part, file in given.items() if file is not None}
    names = {part: file.name for part, file in files.items()}
    if len(set(names.values())) < len(names):
        names = {part: part for part in names}
    rows = {part: read_rows(file, columns or {}) for part, file in files.items()}
    tables = {part: table_of(str(files[part]), found) for part, found in rows.items()}
    kind = kind_of_task(task, tables["train"].labels)
    reader = None if model is None else _Reader.of(model, tables["train"])
    found: dict[str, Any] = {"task": kind.name, "guessed": task is None, "model": None, "tables": {}}
    if reader is not None:
        found["model"] = {
            "name": reader.model,
            "vocab_size": reader.tokenizer.vocab_size,
            "learned_here": reader.learned_here,
            "max_length": reader.max_length,
        }
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
            "contradictory": sum(len(known[part][example]) > 1 for example in _examples(table)),
            "also_in": {other: _overlap(table, kind, known[other]) for other in earlier},
            **_lengths(table, kind, reader),
        }
    found["warnings"] = list(_warnings(found, kind))
    return found


def render(found: dict[str, Any]) -> str:
    """What `check_tables` found, for a terminal 80 columns wide."""
    parts = found["tables"]
    lines = [f"{part:12}{table['file']}, {table['rows']:,} rows" for part, table in parts.items()]
    lines += _column_lines(parts)
    lines += [f"{'task':12}{found['task']}{', by the labels' if found['guessed'] else ''}", ""]
    lines += [*_grid(["", *parts], [*_label_rows(found), *_count_rows(found)]), ""]
    units = next(iter(parts.values()))["lengths"]
    lengths = [
        [f"{part:12}{unit}", *(f"{length:,}" for length in table["lengths"][unit].values())]
        for part, table in parts.items()
        for unit in units
    ]
    lines += [*_grid(["length", "half up to", "90% up to", "99% up to", "longest"], lengths), ""]
    if (model := found["model"]) is not None:
        origin = f", learned from {parts['train']['file']} as training would" if model["learned_here"] else ""
        lines += _wrapped(f"{model['name']}: a vocabulary of {model['vocab_size']:,} tokens{origin}.")
        lines.append("")
    lines.append("Look at this before training:" if found["warnings"] else "Nothing here needs a warning.")
    for warning in found["warnings"]:
        lines += _wrapped(warning, "- ")
    return "\n".join(lines)


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


def _lengths(table: Table, task: type[Task], reader: _Reader | None) -> dict[str, Any]:
    both = [[text for text in example if text is not None] for example in _examples(table)]
    lengths = {
        "characters": _percentiles([sum(map(len, texts)) for texts in both]),
        "words": _percentiles([sum(len(text.split()) for text in texts) for texts in both]),
    }
    if reader is None:
        return {"lengths": lengths}
    read = [table.inputs]
    if task.apart and table.texts_b is not None:
        read = [(table.texts, None), (table.texts_b, None)]
    batches = [reader.tokenizer.encode(*texts, max_length=_NO_LIMIT)[0] for texts in read]
    longest = np.max([batch.lengths for batch in batches], axis=0)
    lengths["tokens"] = _percentiles(longest)
    token_ids = np.concatenate([batch.token_ids for batch in batches])
    return {
        "lengths": lengths,
        "truncated": int((longest > reader.max_length).sum()),
        "unknown_tokens": float((token_ids == reader.tokenizer.unk_id).mean()),
    }


def _percentiles(lengths: ArrayLike) -> dict[str, int]:
    """Lengths that occur, such that 50, 90, 99 and 100 of 100 rows are no longer."""
    values = np.percentile(np.asarray(lengths), [50, 90, 99, 100], method="inverted_cdf")
    return dict(zip(("p50", "p90", "p99", "max"), map(int, values), strict=True))


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
                yield f"{_rows(overlap['rows'], table, 'also stand')} in {tables[other]['file']}{labelled}{flattered}"
        if unusable := table["unusable_labels"]:
            why = "that is no number" if table["labels"] is None else f"that {train} lacks"
            yield f"{_rows(sum(unusable.values()), table, 'hold')} a label {why}: {_named(unusable)}"
        if table["blank"]:
            yield f"{_rows(table['blank'], table, 'hold')} a blank text"
        if table["repeated"]:
            yield f"{_rows(table['repeated'], table, 'repeat')} the text of an earlier one"
        if table["contradictory"]:
            yield f"{_rows(table['contradictory'], table, 'share')} a text with a row that is labelled otherwise"
    yield from _warnings_of_balance(tables["train"])
    if found["model"] is not None:
        yield from _warnings_of_tokens(found)


def _warnings_of_balance(train: dict[str, Any]) -> Iterator[str]:
    labels, numbers, file = train["labels"], train["numbers"], train["file"]
    if labels is None:
        if numbers is not None and numbers["min"] == numbers["max"]:
            yield f"every label of {file} is {numbers['min']:g}; there is nothing to learn"
        return
    first, count = next(iter(labels.items()))
    if len(labels) < 2:
        yield f"every label of {file} is {_named(labels)}; there is nothing to learn"
    elif count >= _MOST * train["rows"]:
        yield f"{_rows(count, train, 'hold')} the label {_named([first])}; to give it always would score as much"
    if few := [label for label, rows in labels.items() if rows < _FEW]:
        yield f"fewer than {_FEW} rows of {file} each for {len(few):,} of {len(labels):,} labels: {_named(few)}"


def _warnings_of_tokens(found: dict[str, Any]) -> Iterator[str]:
    name, longest = found["model"]["name"], found["model"]["max_length"]
    for table in found["tables"].values():
        if table["truncated"] >= _NOTABLE * table["rows"]:
            past = _rows(table["truncated"], table, "run")
            yield f"{past} past the {longest:,} tokens that {name} reads, and would be cut"
        if table["unknown_tokens"] >= _NOTABLE:
            share = f"{table['unknown_tokens']:.1%}"
            yield f"{share} of the tokens of {table['file']} are unknown to {name}: does it know the language?"


def _rows(count: int, table: dict[str, Any], verb: str) -> str:
    return f"{count:,} of {table['rows']:,} rows of {table['file']} {verb}{'s' if count == 1 else ''}"


def _named(labels: Iterable[str]) -> str:
    """Some labels or columns by name, each cut to what fits a line, and how many more there are."""
    names = [f"{label!r:.40}" for label in labels]
    rest = [f"{len(names) - _NAMED:,} more"] if len(names) > _NAMED else []
    return ", ".join(names[:_NAMED] + rest)


def _label_rows(found: dict[str, Any]) -> Iterator[list[str]]:
    """Lines of the labels' counts and shares, or of the numbers' range."""
    tables = list(found["tables"].values())
    if tables[0]["labels"] is None:
        for bound in ("min", "mean", "max"):
            yield [f"label, {bound}", *(f"{t['numbers'][bound]:,.4g}" if t["numbers"] else "–" for t in tables)]
        return
    labels = list(dict.fromkeys(label for table in tables for label in table["labels"]))
    for label in labels[:_LISTED_LABELS]:
        yield [f"label {label!r:.20}", *(_share(table["labels"].get(label, 0), table) for table in tables)]
    if rest := labels[_LISTED_LABELS:]:
        counts = [sum(table["labels"].get(label, 0) for label in rest) for table in tables]
        yield [f"{len(rest):,} more labels", *map(_share, counts, tables)]


def _column_lines(tables: dict[str, Any]) -> Iterator[str]:
    """What each table's columns are taken as, once if it is the same for all."""
    said = {part: _taken(table["columns"], table["other_columns"]) for part, table in tables.items()}
    alike = len(set(said.values())) == 1
    for part, words in list(said.items())[: 1 if alike else None]:
        yield from _wrapped(words if alike else f"of {part}: {words}", f"{'columns':12}")


def _taken(columns: dict[str, str], others: list[str]) -> str:
    roles = [role if role == name else f"{name!r:.40} as {role}" for role, name in columns.items()]
    return ", ".join(roles) + (f"; not read: {_named(others)}" if others else "")


def _count_rows(found: dict[str, Any]) -> Iterator[list[str]]:
    tables = found["tables"]
    counted = {
        "blank texts": "blank",
        "texts of an earlier row": "repeated",
        "texts labelled otherwise": "contradictory",
    }
    for title, count in counted.items():
        yield [title, *(f"{table[count]:,}" for table in tables.values())]
    for other in list(tables)[:-1]:
        overlaps = [table["also_in"].get(other) for table in tables.values()]
        yield [f"also in {other}", *("–" if overlap is None else f"{overlap['rows']:,}" for overlap in overlaps)]
    if found["model"] is not None:
        cut = [_share(table["truncated"], table) for table in tables.values()]
        yield [f"past {found['model']['max_length']:,} tokens", *cut]
        yield ["unknown tokens", *(f"{table['unknown_tokens']:.1%}" for table in tables.values())]


def _share(count: int, table: dict[str, Any]) -> str:
    return f"{count:,} {count / table['rows']:6.1%}"


def _grid(header: list[str], rows: Iterable[list[str]]) -> Iterator[str]:
    """Lines of a table whose first column stands left and whose others stand right."""
    lines = [header, *rows]
    widths = [max(cell_len(line[place]) for line in lines) for place in range(len(header))]
    for first, *figures in lines:
        padding = " " * (widths[0] - cell_len(first))  # a Chinese character takes two cells
        cells = [f"{figure:>{width}}" for figure, width in zip(figures, widths[1:], strict=True)]
        yield "  ".join([first + padding, *cells]).rstrip()


def _wrapped(text: str, bullet: str = "") -> list[str]:
    indent = " " * len(bullet)
    return textwrap.wrap(text, _WIDTH, initial_indent=bullet, subsequent_indent=indent, break_on_hyphens=False)
