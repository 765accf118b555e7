"""The arguments that commands share: their types, how they are read from the command line, what each says of itself."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from cyclopts import Parameter, Token, convert

from bertram.config import assignments, parse_fields
from bertram.errors import BadInput
from bertram.search import SearchOptions
from bertram.training.recipe import Recipe


def _no_option(_: object, value: str | None) -> None:
    """Refuse a source that begins with "-", unless it is "-", standard input: it is a mistyped option."""
    if value is not None and value != "-" and value.startswith("-"):
        raise ValueError(f"Unknown option: {value}. For a text write --text {value!r:.80}.")


def _no_columns(_: object, value: Path | None) -> None:
    """Refuse a second file that is the rest of --columns, after a space."""
    from bertram.model_names import exists

    if value is not None and "=" in value.name and not exists(value):
        raise ValueError(f"{value}: no such file. Join columns with a comma: --columns text=sentence,label=2.")


def _task(kind: Any, tokens: Sequence[Token]) -> Any:
    """The name of a task; where it was forgotten, a file stands in its place."""
    from bertram.model_names import exists

    word = tokens[0].value
    if word not in get_args(kind) and exists(Path(word)):
        raise ValueError(f"The task comes first: bertram train classification {word} …")
    return convert(kind, tokens)


def _separated(kind: Any, tokens: Sequence[Token]) -> Any:
    """Names that commas separate too; one with a comma that is a path stays whole."""
    from bertram.model_names import exists

    names = [(token, [token.value] if exists(Path(token.value)) else token.value.split(",")) for token in tokens]
    found = [token.evolve(value=name) for token, parts in names for name in parts if name]
    if not found:
        raise BadInput(f"{tokens[0].value!r:.40} names nothing")
    return convert(kind, found)


def _column_names(_: object, tokens: Sequence[Token]) -> Mapping[str, str]:
    return assignments(tokens[0].value, "text=sentence,label=2")


def _fields(_: object, tokens: Sequence[Token]) -> Mapping[str, Any]:
    return parse_fields(assignments(tokens[0].value, "hidden_size=320,num_attention_heads=5"))


Data = Annotated[
    Path,
    Parameter(
        help="A CSV, TSV, JSONL or Parquet table with the columns text [, text_b] and label; for translation, source "
        "and target; for summarization, document and summary; for tagging, a CoNLL file, or a table with a label for "
        "every word."
    ),
]
Data2 = Annotated[
    Path | None,
    Parameter(
        validator=_no_columns,
        help="For translation from two text files: the target side, whose lines translate those of DATA.",
    ),
]
Names = Parameter(converter=_separated, consume_multiple=True, negative="")
Files = Annotated[list[Path] | None, Parameter(consume_multiple=True, negative="")]
ColumnNames = Annotated[Mapping[str, str] | None, Parameter(converter=_column_names, n_tokens=1, accepts_keys=False)]
TableColumns = Annotated[
    ColumnNames,
    Parameter(
        help="Which columns of a table to read, by name or counted from 1: text=sentence,label=2. If every column is "
        "given by number, the file has no header row."
    ),
]
Columns = Annotated[
    ColumnNames,
    Parameter(
        help="Which columns of a table to read, by name or counted from 1: text=sentence,label=2; for translation "
        "source=en,target=de, for summarization document=body,summary=title. If every column is given by number, the "
        "file has no header row."
    ),
]
Config = Annotated[Mapping[str, Any] | None, Parameter(converter=_fields, n_tokens=1, accepts_keys=False)]
Json = Annotated[bool, Parameter(negative="", help="Print JSON.")]
Flag = Annotated[bool, Parameter(negative="")]
Pickle = Annotated[
    bool,
    Parameter(negative="", help="Also accept weights in a pytorch_model.bin; only tensors are unpickled."),
]
VocabSize = Annotated[
    int | None, Parameter(help="Maximum size of the vocabulary learned for a preset. Default: the preset's own size.")
]
Cased = Annotated[
    bool,
    Parameter(
        negative="",
        help="Learn a vocabulary that keeps upper case and accents for a BERT or ALBERT preset. Hindi, Thai and "
        "Japanese need it: their vowel and voicing marks count as accents.",
    ),
]
MaxLength = Annotated[
    int | None, Parameter(help="Truncate texts to this many tokens. Default: the maximum length of the model.")
]
Resume = Annotated[
    bool, Parameter(negative="", help="Resume the training in OUT. A finished training is left unchanged.")
]
Training = Annotated[Recipe, Parameter(name="*")]
TaskName = Literal["classification", "regression", "similarity", "tagging"]
WritingTask = Literal["translation", "summarization"]
AnyTaskName = Literal[TaskName, WritingTask]
Task = Annotated[AnyTaskName, Parameter(converter=_task)]
SingleText = Annotated[
    str | None,
    Parameter(
        allow_leading_hyphen=True,
        help="A single text, instead of a file. A text of two or more words can also be given directly as SOURCE.",
    ),
]
Source = Annotated[str, Parameter(allow_leading_hyphen=True, validator=_no_option)]
Searching = Annotated[SearchOptions | None, Parameter(name="*")]
