"""What files of examples hold, before anyone trains on them: what `bertram check` does."""

from pathlib import Path
from typing import Any

from bertram.checking import pairs, tables, tagged
from bertram.config import NEVER_CASED, PRESETS, TRANSFORMERS
from bertram.errors import BadInput
from bertram.tasks.registry import GENERATIONS, is_per_word
from bertram.text.rows import ROLES, Columns, checked_columns, read_rows
from bertram.text.splits import Files, files_of, listed


def check(
    data: Files,
    validation: Files | None = None,
    test: Files | None = None,
    *,
    task: str | None = None,
    model: str | None = None,
    columns: Columns = None,
    vocab_size: int | None = None,
    cased: bool = False,
) -> tuple[dict[str, Any], str]:
    """What was found in the files of any task, and the page that tells it.

    Without `task` two files of lines are taken for a translation, and a table for what `columns` says, or its columns
    are called, or its labels look like. `vocab_size` and `cased` are of the tokenizer that a preset learns.

    Raises:
        BadInput: a file or the model cannot be used.
    """
    if (vocab_size is not None or cased) and model not in {*PRESETS, *TRANSFORMERS}:
        raise BadInput("--vocab-size and --cased are for the tokenizer that a preset learns; give a preset as --model")
    if task is None:
        table, *more = listed(data)
        task = "translation" if more else _by_columns(table, columns)
    if task in GENERATIONS:
        if cased:
            raise BadInput(NEVER_CASED)
        files = files_of(data, validation, test, most=2)
        found = pairs.check_pairs(task, files, model=model, columns=columns, vocab_size=vocab_size)
        return found, pairs.render(found)
    files = files_of(data, validation, test, most=1)
    if is_per_word(task):
        found = tagged.check_tagged(files, model=model, columns=columns, vocab_size=vocab_size, cased=cased)
        return found, tagged.render(found)
    found = tables.check_tables(files, task=task, model=model, columns=columns, vocab_size=vocab_size, cased=cased)
    return found, tables.render(found)


def _by_columns(table: Path, columns: Columns) -> str | None:
    """The task that writes texts whose columns `columns` names or, without it, a table has, if there is one.

    A table that has the columns of labelled texts is one of these, whatever else it has.
    """
    roles = (*ROLES, *(role for kind in GENERATIONS.values() for role in kind.columns))
    if named := checked_columns(columns, roles):
        return next((task for task, kind in GENERATIONS.items() if named.keys() <= set(kind.columns)), None)
    names = set(read_rows(table, None, roles=()).columns)
    if names >= {"text", "label"}:
        return None
    return next((task for task, kind in GENERATIONS.items() if names >= set(kind.columns)), None)
