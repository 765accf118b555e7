"""The arguments of commands that answer: which model, and texts from a file, a pipe or the command line."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertram.errors import BadInput
from bertram.model_names import engine_of, exists, may_be
from bertram.tasks.sequence_to_sequence import Summarization, Translation
from bertram.text.inputs import Input, read_documents, read_inputs, read_lines, read_texts
from bertram.text.lines import kind_of
from bertram.text.rows import ROLES, Columns, checked_columns, is_table

Reader = Callable[[str, Columns], Iterator[Any]]
_READERS: Mapping[str, tuple[Reader, Sequence[str]]] = {
    "predict": (read_inputs, ROLES),
    "embed": (read_texts, ROLES),
    "fill-mask": (read_texts, ROLES),
    "tag": (read_texts, ROLES),
    "translate": (read_lines, Translation.columns),
    "summarize": (read_documents, Summarization.columns),
}
"""How the commands that answer read a source, and the columns that may be named: those that training reads too."""
_FILE_ENDING = re.compile(r"\.[A-Za-z]\w{0,5}")


def asked(
    verb: str, model: str | None, source: str | None, text: str | None, columns: Columns, own: str
) -> tuple[str, Iterable[Sequence[Input]]]:
    """Which model is to answer, and what it is asked: MODEL and SOURCE, each of which may be missing.

    Without a model `own` answers. One argument alone is a source if it is "-", a pipe or a file that is no engine, or
    ends as files of texts do; else it is a model, or a text as `chunks_of` knows them.

    Raises:
        BadInput: as `chunks_of`.
    """
    if model is not None and source is None and text is None:
        path = Path(model)
        if path.suffix == ".engine" and exists(path) and path.is_file() and engine_of(path) is None:
            raise BadInput(f"{model}: is no engine file, or is damaged")
        is_source = engine_of(path) is None and not path.is_dir() if exists(path) else _ends_as_texts(path)
        if model == "-" or is_source or _is_text(model):
            model, source = None, model
        elif not may_be(model):
            raise BadInput(f"{model}: no such model or file; for one text write --text {model!r:.80}")
    return own if model is None else model, chunks_of(verb, source, text, columns)


def chunks_of(verb: str, source: str | None, text: str | None, columns: Columns) -> Iterable[Sequence[Input]]:
    """What is asked of a model: one text, or what stands in a source; without either, in standard input.

    A source that has white space in it, names nothing and does not end as file names do is a text. `verb` is the
    command's name.

    Raises:
        BadInput: both a source and a text are given; there is no such source; `columns` has a role that the command
            does not read, or is given with a text.
    """
    read, roles = _READERS[verb]
    named = checked_columns(columns, roles)
    if source is not None and text is not None:
        raise BadInput(f"{source}: give a source or --text, not both")
    if source is not None and _is_text(source):
        text = source
    elif source not in (None, "-") and not exists(Path(source)):
        raise BadInput(f"{source}: no such file; for one text write --text {source!r:.80}")
    if text is None:
        return read("-" if source is None else source, named)
    if named:
        raise BadInput("--columns: is for a table, and this is a text")
    return [[text]]


def _is_text(argument: str) -> bool:
    path = Path(argument)
    return len(argument.split()) > 1 and not exists(path) and not _FILE_ENDING.fullmatch(path.suffix)


def _ends_as_texts(path: Path) -> bool:
    return is_table(path) or kind_of(path) == ".txt"
