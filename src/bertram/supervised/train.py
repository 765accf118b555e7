"""Any task by its name: what `bertram train` does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertram.config import NEVER_CASED
from bertram.errors import BadInput
from bertram.interruption import scratch
from bertram.model_names import require_encoder, require_writer, resolve
from bertram.processes import under_torchrun
from bertram.progress import Report, silent
from bertram.run_directory import alone_in, prepare_directory
from bertram.supervised.finetuning import EncoderTraining, LabelledSplits
from bertram.supervised.generation import EncoderDecoderTraining, read_splits
from bertram.tasks.registry import GENERATIONS, TASKS, is_per_word
from bertram.text.rows import Columns
from bertram.text.splits import Files, files_of
from bertram.training.recipe import Recipe


def train(
    task: str | None,
    data: Files,
    *,
    model: str | Path,
    out: str | Path,
    validation: Files | None = None,
    test: Files | None = None,
    columns: Columns = None,
    recipe: Recipe | None = None,
    vocab_size: int | None = None,
    cased: bool = False,
    separate_vocabularies: bool = False,
    config: Mapping[str, Any] | None = None,
    max_length: int | None = None,
    resume: bool = False,
    dry_run: bool = False,
    allow_pickle: bool = False,
    report: Report = silent,
) -> dict[str, Any]:
    """Train `model` for a task and leave a model directory at `out`.

    Args:
        task: classification, regression, similarity, tagging, translation or summarization; None guesses one of the
            first two from the labels.
        data: a table; for translation and summarization also two files of aligned lines.
        model: a preset, a directory or a name on the hub. Where texts are written: a preset such as transformer-tiny, a
            trained encoder–decoder directory, or a trained encoder's, which gets a new decoder of the same kind (Rothe
            et al. 2020): a BERT's for a BERT, an ALBERT's for an ALBERT.
        validation: chooses the best weights; without it a seeded tenth of the training data is held out.
        columns: which columns of a table to read: {"text": "sentence", "label": "2"}.
        recipe: budget, learning rate and all else that `bertram train --help` explains; None: three epochs.
        cased: a BERT's or ALBERT's preset learns a tokenizer that keeps upper case and accents.
        separate_vocabularies: an encoder–decoder preset learns a tokenizer for each side.
        config: fields to change, of both stacks of an encoder–decoder preset or of a new decoder.
        max_length: tokens that texts are truncated to, by default the model's own maximum length.
        dry_run: one batch goes through training, validation and test, and nothing is left at `out`.

    Returns what OUT/bertram.json says; there are no scores where the training diverged.

    Raises:
        BadInput: the data, the model or the settings cannot be used, or `out` is not empty and `resume` is not given.
        Interrupted: a signal came; `resume` goes on from there.
    """
    out, recipe = Path(out), recipe or Recipe()
    if under_torchrun():
        raise BadInput("train: takes one process; start it without torchrun, of which only pretrain makes use")
    if dry_run and resume:
        raise BadInput("--dry-run: leaves nothing to --resume")
    if task is not None and task not in (known := [*TASKS, *GENERATIONS]):
        raise BadInput(f"no task named {task}; tasks are {', '.join(known)}")
    training: EncoderTraining | EncoderDecoderTraining
    if task in GENERATIONS:
        if cased:
            raise BadInput(NEVER_CASED)
        files = files_of(data, validation, test, most=2)
        source = require_writer(resolve(model, allow_pickle=allow_pickle))  # before anything is read or written
        training = EncoderDecoderTraining(
            task=GENERATIONS[task](),
            splits=read_splits(task, files, columns=columns, seed=recipe.seed),
            source=source,
            recipe=recipe,
            vocab_size=vocab_size,
            separate_vocabularies=separate_vocabularies,
            config=config or {},
            max_length=max_length,
        )
    elif separate_vocabularies or config:
        option = "--config" if config else "--separate-vocabularies"
        raise BadInput(f"{option}: is for {' and '.join(GENERATIONS)} alone")
    else:
        files = files_of(data, validation, test, most=1)
        source = require_encoder(resolve(model, allow_pickle=allow_pickle))  # likewise
        splits = LabelledSplits.read(files, columns=columns, seed=recipe.seed, per_word=is_per_word(task))
        training = EncoderTraining(
            task=splits.task(task),
            splits=splits,
            source=source,
            recipe=recipe,
            vocab_size=vocab_size,
            cased=cased,
            max_length=max_length,
        )
    if dry_run:
        with scratch() as folder:
            return training.of_one_step.run(folder, report)
    with alone_in(out):
        finished = prepare_directory(out, training.source.path, training.settings, resume=resume)
        return training.run(out, report) if finished is None else finished


def summary(manifest: Mapping[str, Any]) -> str:
    """What a person wants to know after a training, in a few lines."""
    amount = f"{manifest['steps']:,} steps, {manifest['tokens']:,} tokens"
    lines = [f"{manifest['status']} after {amount} in {manifest['seconds']:,.0f} s"]
    data, rows = manifest["data"], manifest["data"]["rows"]
    if "validation" not in data["sha256"]:
        all_rows = rows["train"] + rows["validation"]
        lines.append(f"held out for validation: {rows['validation']:,} of {all_rows:,} rows, {data['validation']}")
    if cut := manifest["truncated_texts"]:
        lines.append(f"cut to {manifest['max_length']:,} tokens: {cut:,} training texts")
    for name, scores in manifest["scores"].items():
        lines += [f"{name} {score['metric']} {score['value']:.4f}   {score['signature']}" for score in scores]
    return "\n".join(lines)
