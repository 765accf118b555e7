"""From a BERT and texts to an ALBERT that says nearly the same: what `bertram shrink` does."""

from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertram import model_directory, model_names
from bertram.config import LESSONS, EncoderConfig, Lesson
from bertram.errors import BadInput, require
from bertram.files import fingerprint, write_json
from bertram.model_card import shrinking_card
from bertram.progress import Report, silent
from bertram.run_directory import (
    MANIFEST,
    SETTINGS,
    check_converged,
    keep,
    prepare_directory,
    read_if_there,
    read_manifest,
)
from bertram.shrinking.outcome import RESULTS, evaluated, outcome
from bertram.shrinking.report import write_report
from bertram.tasks.task import Task
from bertram.text.inputs import read_inputs
from bertram.text.records import Table, parse_columns, read_table, split
from bertram.training.recipe import Recipe

if TYPE_CHECKING:
    from bertram.models.heads import Model

LEARNING_RATE = 5e-4
"""Where a recipe gives none."""

_LEAST_TEXTS = 100
_HELD_OUT, _MOST_HELD_OUT = 0.1, 1000
_LONGEST = 128
_LIBRARIES = ("torch", "safetensors", "tensorboard")


def shrink(
    model: str | Path,
    texts: Sequence[str | Path],
    out: str | Path,
    *,
    groups: int = 1,
    embedding_size: int = 128,
    rank: int = 0,
    depth: int | None = None,
    recipe: Recipe,
    max_length: int | None = None,
    lessons: Collection[Lesson] | None = None,
    evaluate: str | Path | None = None,
    columns: str | None = None,
    resume: bool = False,
    allow_pickle: bool = False,
    report: Report = silent,
) -> dict[str, Any]:
    """Tie the layers of `model` in groups, narrow its embeddings, and teach the result by the original on `texts`.

    Args:
        texts: text files, a text a line, or JSONL with a text in each; .gz may follow.
        out: where an ALBERT directory is left, with the model's heads, pooling and tokenizer.
        groups, embedding_size, depth: of the student; by default as many layers as the model has.
        max_length: tokens that texts are cut to; by default as many as the model reads, at most 128.
        lessons: what is taught; by default all that the model has.
        evaluate, columns: labelled data to score teacher and student on at the end, as `evaluation.evaluate_files`
            reads it; the model must have a task.

    Leaves the student's engine, results.json and report.html there too, and returns what results.json says.

    Raises:
        BadInput: the texts, the model or a setting cannot be used, or `out` is not empty and `resume` is not given.
        BertramError: the training diverged.
        Interrupted: a signal came; `resume` goes on from there.
    """
    for library in _LIBRARIES:
        require(library, "train")
    from bertram.shrinking.distillation import taught
    from bertram.shrinking.initial import config_of

    out, recipe = Path(out), recipe.resolved(learning_rate=LEARNING_RATE)
    lessons = tuple(LESSONS if lessons is None else lessons)
    source = _source(model, recipe, lessons, allow_pickle)
    # Before the texts, which may be many.
    sizes = config_of(model_directory.read_config(source), groups, embedding_size, rank, depth)
    if evaluate is not None:
        _check_evaluated(source, Path(evaluate), columns)
    read = _texts(texts)
    train, held_out = split(read, min(_HELD_OUT, _MOST_HELD_OUT / len(read)), recipe.seed)
    if max_length is None:
        max_length = min(model_directory.max_length_of(source, sizes), _LONGEST)
    dial = {"groups": groups, "embedding_size": embedding_size, "rank": rank, "depth": sizes.num_hidden_layers}
    settings = {
        "model": str(model),
        "texts": [(Path(file).name, fingerprint(Path(file))) for file in texts],
        "shrinking": dial | {"lessons": lessons},
        "recipe": asdict(recipe),
        "max_length": min(max_length, sizes.max_position_embeddings),
    }
    manifest = prepare_directory(out, source, settings, resume=resume)
    if manifest is None:
        teacher = model_directory.read_model(source, allow_pickle=allow_pickle)
        if not taught(teacher, lessons):
            raise BadInput(f"{model}: has no head whose logits could be taught; name other --lessons")
        manifest = _teach(teacher, sizes, source, train, held_out, settings, recipe, out, report)
    check_converged(out, manifest)
    results = read_if_there(out / RESULTS)
    if not results or (evaluate is not None and results.get("evaluated") != evaluated(Path(evaluate), columns)):
        data = None if evaluate is None else Path(evaluate)
        write_json(out / RESULTS, outcome(source, out, held_out, data, columns, allow_pickle))
        results = read_if_there(out / RESULTS)
    write_report(out, results)
    return results


def _teach(
    teacher: "Model",
    sizes: EncoderConfig,
    source: Path,
    train: Table,
    held_out: Table,
    settings: dict[str, Any],
    recipe: Recipe,
    out: Path,
    report: Report,
) -> dict[str, Any]:
    """Teach a student of `sizes`, leave it at `out`, and return what bertram.json says of it."""
    from bertram.shrinking.teaching import teach

    tokenizer = model_directory.read_tokenizer(source, sizes)
    max_length = settings["max_length"]
    batch, truncated = tokenizer.encode(train.texts, max_length=max_length)
    judged, _ = tokenizer.encode(held_out.texts, max_length=max_length)
    lessons = settings["shrinking"]["lessons"]
    keep(out / SETTINGS, settings)
    student, came = teach(teacher, sizes, tokenizer, batch, judged, lessons, recipe, out, report)
    if (task := model_directory.find_task(source, read_manifest(source))) is not None:
        came["task"] = task.to_dict()
    manifest = {
        "format": 1,
        "base_model": Path(settings["model"]).name,
        "max_length": max_length,
        "truncated_texts": truncated,
        "data": {
            "train": ", ".join(name for name, _ in settings["texts"]),
            "rows": {"train": len(train), "validation": len(held_out)},
        },
        "recipe": settings["recipe"],
        **came,
        "shrinking": settings["shrinking"] | came["shrinking"],
    }
    if came["status"] == "diverged":
        write_json(out / MANIFEST, manifest)
    else:
        labels = manifest.get("task", {}).get("labels")
        model_directory.save(student, tokenizer, out, manifest, shrinking_card, labels=labels)
    return manifest


def _source(model: str | Path, recipe: Recipe, lessons: Collection[str], allow_pickle: bool) -> Path:
    """The teacher's directory, after the checks that need no model."""
    source = model_names.resolve_encoder(model, allow_pickle=allow_pickle)
    if isinstance(source, EncoderConfig):
        raise BadInput(f"{model} is a preset, which has learned nothing that it could teach")
    if not recipe.bounded:
        raise BadInput("no training budget: give --hours, --steps, --tokens or --epochs")
    if recipe.encoder_learning_rate is not None:
        raise BadInput("--encoder-learning-rate: shrink trains one stack; give --learning-rate")
    if unknown := [name for name in lessons if name not in LESSONS]:
        raise BadInput(f"no lesson named {unknown[0]!r:.40}; there are {', '.join(LESSONS)}")
    return source


def _check_evaluated(source: Path, data: Path, columns: str | None) -> None:
    """Raises:
    BadInput: the model has no task, or could not be scored on this table.
    """
    task, table = model_directory.task_of(source, read_manifest(source)), read_table(data, parse_columns(columns))
    if isinstance(task, Task):
        task.targets(table.labels, str(data))
        if task.apart and table.texts_b is None:
            raise BadInput(f"{data}: {task.name} compares two texts: it needs a column text_b")


def _texts(files: Sequence[str | Path]) -> Table:
    """Every text that is not blank, once, in the files' order, with no labels.

    Raises:
        BadInput: a file cannot be read, or there are too few texts.
    """
    if not files:
        raise BadInput("shrink teaches on texts: give --texts FILE")
    inputs = (given for file in files for chunk in read_inputs(str(file)) for given in chunk)
    texts = list(dict.fromkeys(given if isinstance(given, str) else given["text"] for given in inputs))
    texts = [text for text in texts if text.strip()]
    if len(texts) < _LEAST_TEXTS:
        raise BadInput(f"{len(texts)} different texts are too few to learn from; {_LEAST_TEXTS} are the least")
    return Table(texts, None, [""] * len(texts))
