"""What is asked of a shrinking: a model, texts for it, and settings, checked before anything is written."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from bertram.batch import checked_length
from bertram.config import LESSONS, Lesson
from bertram.errors import BadInput, failing_in
from bertram.files import fingerprint
from bertram.inference.predictor import check_inputs, check_kind
from bertram.model_directory import ModelDirectory
from bertram.model_names import require_encoder, require_trained, resolve
from bertram.shrinking.dial import Dial
from bertram.tasks.task import Task
from bertram.text.inputs import read_inputs
from bertram.text.rows import Columns
from bertram.text.splits import split
from bertram.text.table import Table, read_table
from bertram.training.recipe import BATCH_SIZE, Recipe

_DEFAULTS = {"learning_rate": 5e-4, "batch_size": BATCH_SIZE}
"""Where a recipe gives none."""

_LEAST_TEXTS = 100
_HELD_OUT, _MOST_HELD_OUT = 0.1, 1000
_LONGEST = 128


@dataclass(frozen=True, kw_only=True)
class Shrinking:
    """What is to be shrunken, how far, and how it is taught."""

    source: ModelDirectory
    texts: Sequence[Path]
    dial: Dial
    lessons: tuple[Lesson, ...]
    recipe: Recipe
    max_length: int

    @classmethod
    def of(
        cls,
        model: str | Path,
        texts: Sequence[Path],
        *,
        dial: Dial,
        recipe: Recipe,
        lessons: Collection[Lesson] | None,
        max_length: int | None,
        allow_pickle: bool,
    ) -> "Shrinking":
        """The shrinking that these arguments of `shrink` ask for; its texts, which may be many, are not read yet.

        Raises:
            BadInput: the model or a setting cannot be used.
        """
        lessons = tuple(LESSONS if lessons is None else lessons)
        _check(recipe, lessons)
        source = require_trained(require_encoder(resolve(model, allow_pickle=allow_pickle)))
        student = dial.of(source.config)
        longest = min(source.max_length, _LONGEST) if max_length is None else max_length
        with failing_in(source):
            checked_length(longest, "--max-length", source.config.max_position_embeddings)
        return cls(
            source=source,
            texts=texts,
            dial=Dial.at(student),
            lessons=lessons,
            recipe=recipe.resolved(**_DEFAULTS),
            max_length=longest,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """All that the training depends on, for training.json."""
        return {
            "model": self.source.identity,
            "texts": [(file.name, fingerprint(file)) for file in self.texts],
            "shrinking": asdict(self.dial) | {"lessons": self.lessons},
            "recipe": asdict(self.recipe),
            "max_length": self.max_length,
        }

    @cached_property
    def examples(self) -> tuple[Table, Table]:
        """The texts to learn from, and those held out.

        Raises:
            BadInput: they cannot be read, are too few, or not such as the model reads.
        """
        read = _texts(self.texts)
        _check_texts(self.source, pairs=read.texts_b is not None)
        return split(read, min(_HELD_OUT, _MOST_HELD_OUT / len(read)), self.recipe.seed)


@dataclass(frozen=True)
class Evaluated:
    """A labelled table that teacher and student are scored on."""

    table: Table
    description: dict[str, Any]
    """What results.json says of it."""

    @classmethod
    def read(cls, source: ModelDirectory, file: Path, columns: Columns) -> Self:
        """The table in a file, on which a model can be scored.

        Raises:
            BadInput: the model has no task with labels, or cannot be scored on this table.
        """
        if not isinstance(task := source.task, Task):
            raise BadInput(f"{file}: a model for {task.name} is not scored on labels")
        table = read_table(file, columns, per_word=task.per_word)
        task.targets(table.labels, str(file))
        pairs, segments = table.texts_b is not None, source.config.type_vocab_size
        with failing_in(file):
            check_inputs(task, pairs, trained_on=source.pairs, segments=segments)
        return cls(
            table, {"file": file.name, "sha256": fingerprint(file), "columns": dict(columns) if columns else None}
        )


def _check(recipe: Recipe, lessons: Collection[str]) -> None:
    """Check what does not depend on the model.

    Raises:
        BadInput: a setting is not one that shrinking takes.
    """
    recipe.require_budget()
    if recipe.encoder_learning_rate is not None:
        raise BadInput("--encoder-learning-rate: shrink trains one stack; give --learning-rate")
    if recipe.label_smoothing:
        raise BadInput("--label-smoothing: a student learns what its teacher says, not labels")
    if unknown := [name for name in lessons if name not in LESSONS]:
        raise BadInput(f"no lesson named {unknown[0]!r:.40}; lessons are {', '.join(LESSONS)}")


def _check_texts(source: ModelDirectory, *, pairs: bool) -> None:
    """Check that a model reads such texts.

    Raises:
        BadInput: the model does not read pairs of texts, or nothing else.
    """
    task = source.task_if_known
    if not isinstance(task, Task) or not task.apart:
        with failing_in(source):
            check_kind(pairs, trained_on=source.pairs, segments=source.config.type_vocab_size)
    elif pairs:
        raise BadInput(
            f"{source}: this model reads single texts; give --texts without a text_b, each text on its own line"
        )


def _texts(files: Sequence[Path]) -> Table:
    """Every text or pair that is not blank, once, in the files' order, with no labels.

    Raises:
        BadInput: a file cannot be read, some hold pairs and others do not, or there are too few texts.
    """
    found: dict[tuple[str, ...], None] = {}
    for file in files:
        for chunk in read_inputs(str(file)):
            inputs = [(given,) if isinstance(given, str) else tuple(given.values()) for given in chunk]
            found |= dict.fromkeys(given for given in inputs if any(text.strip() for text in given))
        if len({len(given) for given in found}) > 1:
            raise BadInput(f"{file}: all --texts must have a text_b, or none")
    if len(found) < _LEAST_TEXTS:
        raise BadInput(f"{len(found)} different texts are too few to learn from; at least {_LEAST_TEXTS} are needed")
    texts, *texts_b = ([*column] for column in zip(*found, strict=True))
    return Table(texts, texts_b[0] if texts_b else None, [""] * len(texts))
