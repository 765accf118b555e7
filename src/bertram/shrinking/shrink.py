"""From a BERT and texts to an ALBERT that says nearly the same: what `bertram shrink` does."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from bertram import model_names
from bertram.batch import NO_PAIRS
from bertram.config import LESSONS, Lesson
from bertram.errors import BadInput, require_all
from bertram.files import fingerprint, read_if_there, write_json
from bertram.inference.predictor import check_inputs, check_kind
from bertram.model_directory import ModelDirectory, check_max_length
from bertram.processes import share_cores
from bertram.progress import Report, silent
from bertram.run_directory import alone_in, check_converged, prepare_directory, read_manifest
from bertram.shrinking.dial import Dial, DialOptions
from bertram.shrinking.outcome import ENGINE, RESULTS, evaluated, outcome
from bertram.shrinking.report import write_report
from bertram.tasks.task import Task
from bertram.text.inputs import read_inputs
from bertram.text.rows import parse_columns
from bertram.text.splits import split
from bertram.text.table import Table, read_table
from bertram.training.recipe import BATCH_SIZE, Recipe

_DEFAULTS = {"learning_rate": 5e-4, "batch_size": BATCH_SIZE}
"""Where a recipe gives none."""

_LEAST_TEXTS = 100
_HELD_OUT, _MOST_HELD_OUT = 0.1, 1000
_LONGEST = 128
_LIBRARIES = ("torch", "safetensors", "scipy", "sklearn", "tensorboard")


def shrink(
    model: str | Path,
    texts: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    dial: DialOptions | None = None,
    recipe: Recipe,
    lessons: Collection[Lesson] | None = None,
    max_length: int | None = None,
    evaluate: str | Path | None = None,
    columns: str | None = None,
    resume: bool = False,
    allow_pickle: bool = False,
    report: Report = silent,
) -> dict[str, Any]:
    """Tie the layers of `model` in groups, narrow its embeddings, and teach the result by the original on `texts`.

    Args:
        texts: files as `text.inputs.read_inputs` takes them: a text a line, or tables with a text or pair in each row.
        out: where an ALBERT directory is left, with the model's heads, pooling and tokenizer. A pooler comes with it
            if a head reads it.
        lessons: what is taught; by default all that the model has.
        max_length: tokens that texts are cut to; by default as many as the model reads, at most 128.
        evaluate, columns: a labelled table to score teacher and student on at the end, and what its columns are called,
            as on the command line; the model must have a task with labels.

    Leaves the student's engine, results.json and report.html there too, and returns what results.json says.

    Raises:
        BadInput: the texts, the model or a setting cannot be used, or `out` is not empty and `resume` is not given.
        BertramError: the training diverged.
        Interrupted: a signal came; `resume` goes on from there.
    """
    share_cores()
    require_all(_LIBRARIES, "train")
    out, data = Path(out), None if evaluate is None else Path(evaluate)
    lessons = tuple(LESSONS if lessons is None else lessons)
    _check(recipe, lessons)
    source = model_names.resolve_trained_encoder(model, allow_pickle=allow_pickle)
    # What the model's small files tell comes before the texts, which may be many.
    chosen = Dial(**(dial or {}))
    student = chosen.of(source.config)
    chosen = replace(chosen, depth=student.num_hidden_layers, embedding_size=student.embedding_width)
    if data is not None:
        _check_evaluated(source, data, columns)
    elif columns is not None:
        raise BadInput("--columns: says what columns of --evaluate to read, which is not given")
    check_max_length(model, source.config, max_length)
    shrinking = Shrinking(
        model=model,
        source=source,
        texts=[Path(file) for file in ([texts] if isinstance(texts, str | Path) else texts)],
        dial=chosen,
        lessons=lessons,
        recipe=recipe.resolved(**_DEFAULTS),
        max_length=min(source.max_length, _LONGEST) if max_length is None else max_length,
    )

    @cache
    def examples() -> tuple[Table, Table]:
        """To learn from, and held out."""
        read = _texts(shrinking.texts)
        _check_texts(source, pairs=read.texts_b is not None)
        return split(read, min(_HELD_OUT, _MOST_HELD_OUT / len(read)), recipe.seed)

    if not resume or "status" not in read_manifest(out):
        examples()  # what is wrong with them is heard of before anything is written
    with alone_in(out):
        manifest = prepare_directory(out, source.path, shrinking.settings, resume=resume)
        if manifest is None:
            from bertram.shrinking.teaching import teach

            manifest = teach(shrinking, *examples(), out, report)
        check_converged(out, manifest)
        results = read_if_there(out / RESULTS)
        scored = data is None or results.get("evaluated") == evaluated(data, columns)
        if "held_out" not in results or not scored or not (out / ENGINE).exists():
            if data is None and results.get("evaluated"):
                raise BadInput(f"{out / ENGINE}: is missing; to write and measure it again, give --evaluate as before")
            write_json(out / RESULTS, outcome(source, out, examples()[1], data, columns))
            results = read_if_there(out / RESULTS)
        write_report(out, results)
        return results


@dataclass(frozen=True, kw_only=True)
class Shrinking:
    """What is to be shrunken, how far, and how it is taught."""

    model: str | Path
    source: ModelDirectory
    texts: Sequence[Path]
    dial: Dial
    lessons: tuple[Lesson, ...]
    recipe: Recipe
    max_length: int

    @property
    def settings(self) -> dict[str, Any]:
        """All that the training depends on, for training.json."""
        return {
            "model": model_names.identity(self.model),
            "texts": [(file.name, fingerprint(file)) for file in self.texts],
            "shrinking": asdict(self.dial) | {"lessons": self.lessons},
            "recipe": asdict(self.recipe),
            "max_length": self.max_length,
        }


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


def _check_evaluated(source: ModelDirectory, data: Path, columns: str | None) -> None:
    """Check that a model can be scored on a table.

    Raises:
        BadInput: the model has no task with labels, or could not be scored on this table.
    """
    table = read_table(data, parse_columns(columns))
    task = source.task
    if not isinstance(task, Task):
        raise BadInput(f"{data}: a model for {task.name} is not scored on labels")
    task.targets(table.labels, str(data))
    try:
        check_inputs(task, table.texts_b is not None, trained_on=source.pairs)
    except BadInput as error:
        raise BadInput(f"{data}: {error}") from None
    if not task.apart and table.texts_b is not None and source.config.type_vocab_size < 2:
        raise BadInput(f"{source}: {NO_PAIRS}")


def _check_texts(source: ModelDirectory, *, pairs: bool) -> None:
    """Check that a model reads such texts.

    Raises:
        BadInput: the model does not read pairs of texts, or nothing else.
    """
    if isinstance(task := source.task_if_known, Task) and task.apart:
        if pairs:
            raise BadInput(
                f"{source}: this model reads single texts; give --texts without a text_b, each text on its own line"
            )
        return
    check_kind(pairs, trained_on=source.pairs)
    if pairs and source.config.type_vocab_size < 2:
        raise BadInput(f"{source}: {NO_PAIRS}")


def _texts(files: Sequence[Path]) -> Table:
    """Every text or pair that is not blank, once, in the files' order, with no labels.

    Raises:
        BadInput: a file cannot be read, some hold pairs and others do not, or there are too few texts.
    """
    if not files:
        raise BadInput("shrink teaches on texts: give --texts FILE")
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
