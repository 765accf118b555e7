"""What texts hold whose words are labelled one by one, and the entities that the labels make.

Letters: W words of all texts, E entities.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
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
from bertram.tasks.entities import Numbers
from bertram.tasks.tagging import Tagging
from bertram.tasks.task import parse_number
from bertram.text.rows import Columns
from bertram.text.table import Table, read_table
from bertram.text.words import lay_out, words_of

_MOST_LABELS = 300
"""Above the tagsets that people use, but for those that join a part of speech with all its features."""
_NO_VALUE = "_"  # of a column in CoNLL-U


def check_tagged(
    files: Mapping[str, Sequence[Path]],
    *,
    model: str | Path | None = None,
    columns: Columns = None,
    vocab_size: int | None = None,
    cased: bool = False,
) -> dict[str, Any]:
    """Count what stands in files of labelled words and what is wrong with it.

    `files` are one for "train", perhaps for "validation" and "test", as `text.tagged.read_tagged` takes them. A row is
    a text; texts are equal if all their words are. Entities are read from the labels as `tasks.entities.Scheme` does.
    Lengths are in characters, in words and with `model` in its tokens, special ones included; those of a preset are
    learned from all training texts, a tokenizer of at most `vocab_size` entries, `cased` or not.

    Returns:
        "task"; "model": name, vocabulary and length, or None; "tables": for each of train, validation and test that is
        there, its counts, which of entities and their kinds are None where every word stands alone, as for parts of
        speech; "warnings": what to look at, in plain words.

    Raises:
        BadInput: a file or the model cannot be used.
    """
    paths = {part: path for part, (path,) in files.items()}
    names = page.told_apart({part: path.name for part, path in paths.items()})
    tables = {part: read_table(path, columns, per_word=True) for part, path in paths.items()}
    reader = None if model is None else Reader.of_labelled(model, tables["train"].texts, vocab_size, cased)
    found: dict[str, Any] = {"task": Tagging.name, "model": reader and reader.described, "tables": {}}
    labelled = {part: _rows(table) for part, table in tables.items()}
    counts = {part: Counter(label for _, labels in rows for label in labels) for part, rows in labelled.items()}
    task = Tagging(Classification(tuple(dict.fromkeys(label for part in counts.values() for label in part))))
    for part, table in tables.items():
        earlier = {other: labelled[other] for other in found["tables"]}
        ordered = dict(counts[part].most_common())
        found["tables"][part] = {
            "file": names[part],
            "rows": len(table),
            "words": counts[part].total(),
            "labels": ordered,
            "unusable_labels": {label: count for label, count in ordered.items() if label not in counts["train"]},
            **_entities(task, table),
            **repetitions(labelled[part], earlier),
            **_lengths(table, [words for words, _ in labelled[part]], reader),
        }
    found["warnings"] = list(_warnings(found))
    return found


def render(found: dict[str, Any]) -> str:
    """What `check_tagged` found, for a terminal 80 columns wide."""
    facts = [f"{'task':12}{found['task']}: a row is a text, and its words are labelled"]
    lengths = [
        (part, unit, length) for part, table in found["tables"].items() for unit, length in table["lengths"].items()
    ]
    return page.render(found, facts, [*_label_rows(found), *_count_rows(found)], lengths)


def _rows(table: Table) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The words of every text, and their labels."""
    both = zip(table.texts, table.labels, strict=True)
    return [(tuple(words_of(text)), tuple(words_of(labels))) for text, labels in both]


def _entities(task: Tagging, table: Table) -> dict[str, Any]:
    """Counts of entities, of their words and kinds, and of labels that begin one where others are made for that."""
    texts, labels = task.targets(table.labels).T
    scheme = task.scheme
    if scheme.ends[:-1].all():  # every word stands alone
        return dict.fromkeys(("entities", "words_in_entities", "kinds", "odd_beginnings"))
    entities = scheme.read(labels, texts)
    first = labels[entities.starts]
    bare = set(scheme.names)
    prefixed = np.array([label not in bare for label in task.labels])
    odd = first[prefixed[first] & ~scheme.begins[first] & scheme.begins.any()]
    return {
        "entities": len(first),
        "words_in_entities": int((entities.ends - entities.starts).sum()),
        "kinds": _counted(entities.kinds, scheme.names),
        "odd_beginnings": _counted(odd, task.labels),
    }


def _counted(numbers: Numbers, names: Sequence[str]) -> dict[str, int]:
    """How often each name stands there by its number, the most frequent first."""
    return {names[number]: count for number, count in Counter(numbers.tolist()).most_common()}


def _lengths(table: Table, texts: Sequence[Sequence[str]], reader: Reader | None) -> dict[str, Any]:
    lengths = {
        "characters": page.percentiles(table.lengths),
        "words": page.percentiles([len(words) for words in texts]),
    }
    if reader is None:
        return {"lengths": lengths}
    batch, _ = lay_out(reader.source, texts, page.NO_LIMIT)
    lengths["tokens"] = page.percentiles(batch.lengths)
    return {
        "lengths": lengths,
        "too_long": int((batch.lengths > reader.max_length).sum()),
        "unknown_tokens": float((batch.token_ids == reader.source.unk_id).mean()),
    }


def _warnings(found: dict[str, Any]) -> Iterator[str]:
    tables = found["tables"]
    train = tables["train"]
    yield from _warnings_of_column(train)
    for table in tables.values():
        if unusable := table["unusable_labels"]:
            hold = page.rows(sum(unusable.values()), table, "hold", "words")
            yield f"{hold} a label that {train['file']} lacks, which training refuses: {page.named(unusable)}"
        if table["entities"] is not None:
            yield from _warnings_of_entities(table)
        yield from warnings_of_repetitions(table, tables)
    names = ([*table["labels"], *(table["kinds"] or ())] for table in tables.values())
    yield from warnings_of_spelling(chain.from_iterable(names))
    if train["kinds"] is None:
        yield from warnings_of_few(train["labels"], train, "words")
    else:
        yield from warnings_of_few(train["kinds"], train, "entities", "kinds")
    if found["model"] is not None:
        yield from page.warnings_of_tokens(found, "read in several parts")


def _warnings_of_column(train: dict[str, Any]) -> Iterator[str]:
    """Of labels that tell nothing, or that seem to be something else."""
    labels, file = train["labels"], train["file"]
    other = "is it their column? --columns label=NAME names another, in CoNLL by its number"
    if len(labels) < 2:
        yield f"every label of {file} is {page.named(labels)}; there is nothing to learn"
    elif all(parse_number(label) is not None for label in labels):
        yield f"all labels of {file} are numbers, which say of no word that it begins an entity: {other}"
    elif len(labels) > _MOST_LABELS:
        yield f"{len(labels):,} labels of {file} differ: {other}"
    if _NO_VALUE in labels:
        hold = page.rows(labels[_NO_VALUE], train, "hold", "words")
        yield f"{hold} the label '_', which is none in CoNLL-U: of that, --columns text=2,label=4 reads parts of speech"


def _warnings_of_entities(table: dict[str, Any]) -> Iterator[str]:
    """Of entities that are hardly there, or begin as none should."""
    if odd := table["odd_beginnings"]:
        begin = page.rows(sum(odd.values()), table, "begin", "entities")
        why = "IOB1 if most do, else words or labels are missing"
        yield f"{begin} with {page.named(odd)} though other labels are for beginnings: {why}"
    if table["words_in_entities"] < page.NOTABLE * table["words"]:
        stand = page.rows(table["words_in_entities"], table, "stand", "words")
        yield f"{stand} in an entity: is all of it labelled?"


def _label_rows(found: dict[str, Any]) -> Iterator[list[str]]:
    """Lines of words, of entities, and of the counts of each kind or else of each label."""
    tables = list(found["tables"].values())
    words = [table["words"] for table in tables]
    yield ["words", *(f"{count:,}" for count in words)]
    if tables[0]["entities"] is None:
        yield from label_rows("label", [table["labels"] for table in tables], words)
        return
    entities = [table["entities"] for table in tables]
    yield ["words in entities", *(page.share(table["words_in_entities"], table["words"]) for table in tables)]
    yield ["entities", *(f"{count:,}" for count in entities)]
    yield from label_rows("kind", [table["kinds"] for table in tables], entities)


def _count_rows(found: dict[str, Any]) -> Iterator[list[str]]:
    counted = {"texts of an earlier row": "repeated", "texts labelled otherwise": "contradictory"}
    return page.count_rows(found, counted, "also in", itemgetter("rows"))
