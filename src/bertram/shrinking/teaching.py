"""The training of a student by its teacher, and how nearly it says the same in the end."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bertram.batch import Batch
from bertram.config import EncoderConfig, Lesson
from bertram.inference.predictor import cosines
from bertram.models.heads import Model
from bertram.progress import Report
from bertram.shrinking.distillation import Distillation, Lessons, Sayings, compare, taught_heads
from bertram.shrinking.initial import SCHEMES, student_of
from bertram.tasks.similarity import Similarity
from bertram.text.masking import Masker
from bertram.text.tokenizer import Tokenizer
from bertram.training.distributed import alone
from bertram.training.loop import Evaluation, Loop
from bertram.training.precision import DTYPES
from bertram.training.recipe import Recipe

_MEASURED, _CHOOSING = 64, 256
"""Texts that the teacher's variances are measured on, and that the student to begin with is chosen by."""
_JUDGED_BATCH = 32
_RARE = 0.1
"""What a token counts for besides its occurrences, lest those that the texts lack come out as nothing."""
_RESAMPLES = 1000


def teach(
    teacher: Model,
    sizes: EncoderConfig,
    tokenizer: Tokenizer,
    train: Batch,
    held_out: Batch,
    lessons: Collection[Lesson],
    recipe: Recipe,
    out: Path,
    report: Report,
) -> tuple[Model, dict[str, Any]]:
    """The student of `sizes` after its training, and what bertram.json says of that."""
    masker = Masker(tokenizer.starts_word, tokenizer.special, tokenizer.mask_id, "token")
    processes = alone()
    device = processes.device

    def feed(batch: Batch, size: int, tokens: int | None = None) -> Lessons:
        return Lessons(batch, lessons, taught_heads(teacher, lessons), masker, size, recipe.seed, tokens)

    some, judged = _first(train, _MEASURED), feed(held_out, _JUDGED_BATCH)
    counts = torch.from_numpy(np.bincount(train.token_ids, minlength=sizes.vocab_size) + _RARE)
    students, first_losses = dict[str, Model](), dict[str, float]()
    # Where a group stands for one layer, all schemes are the same.
    for scheme in SCHEMES if sizes.groups < teacher.config.num_hidden_layers else SCHEMES[:1]:
        torch.manual_seed(recipe.seed)  # heads that cannot be made of the teacher's begin alike
        students[scheme] = student_of(teacher, sizes, counts, scheme)
    for scheme, begun in students.items():  # after all are made, on the CPU: what follows moves the teacher
        attempt = Distillation(begun.to(device), teacher, lessons)
        attempt.prepare(device, torch.float32, some)
        losses, *_ = compare(attempt, feed(_first(held_out, _CHOOSING), _JUDGED_BATCH), device)
        first_losses[scheme] = round(sum(losses.values()), 4)
    initial = min(first_losses, key=first_losses.__getitem__)
    distillation = Distillation(students.pop(initial), teacher, lessons)
    students.clear()

    def evaluate() -> Evaluation:
        losses, student, original = compare(distillation, judged, device)
        figures = {f"validation_{name}_loss": loss for name, loss in losses.items()}
        figures["validation_cosine"] = float(cosines(student.vectors, original.vectors).mean())
        return Evaluation(-sum(losses.values()), figures)

    lesson = feed(train, recipe.batch_size, recipe.batch_tokens)
    loop = Loop(distillation, lesson, recipe, out, evaluate=evaluate, report=report, processes=processes)
    distillation.prepare(device, DTYPES[loop.precision], some)
    outcome = loop.run()
    parameters = {
        name: sum(weight.numel() for weight in network.parameters())
        for name, network in (("teacher", teacher), ("student", distillation.student))
    }
    came = outcome.to_dict() | {
        "shrinking": {"initial": initial, "initial_losses": first_losses},
        "parameters": parameters,
    }
    if outcome.finished:
        distillation.prepare(device, torch.float32, some)
        losses, student, original = compare(distillation, judged, device)
        came |= {"losses": losses, "agreement": agreement(student, original)}
    return distillation.student, came


def _first(batch: Batch, number: int) -> Batch:
    return batch.select(np.arange(min(len(batch), number)))


def agreement(student: Sayings, teacher: Sayings) -> dict[str, dict[str, Any]]:
    """How nearly a student says what its teacher does, each with its 95% interval by the bootstrap over texts.

    Of a masked language model's tokens the bootstrap is over tokens, as if those of a text told nothing of one another.

    "vectors": the mean cosine of both vectors of a text; "similarities": Spearman's correlation of both cosines of
    pairs of texts; of a head the share of the same labels or tokens, of a regression Spearman's correlation.
    """
    found = {"vectors": _interval(cosines(student.vectors, teacher.vectors)[:, None], lambda means: means[..., 0])}
    task, half = Similarity(), len(student.vectors) // 2
    pairs = [cosines(said.vectors[:half], said.vectors[half : 2 * half]) for said in (student, teacher)]
    found["similarities"] = _interval(task.terms(pairs[0][:, None], pairs[1]), task.score_of)
    for name, own in student.answers.items():
        theirs = teacher.answers[name]
        if name == "regression":
            found[name] = _interval(task.terms(own[:, None], theirs), task.score_of)
        else:
            found[name] = _interval((own == theirs)[:, None].astype(np.float64), lambda means: means[..., 0])
    return found


def _interval(terms: NDArray[Any], score_of: Callable[[NDArray[Any]], NDArray[Any]]) -> dict[str, Any]:
    draws, rows = np.random.default_rng(0), len(terms)
    means = [terms[draws.integers(rows, size=rows)].mean(0, np.float64) for _ in range(_RESAMPLES)]
    low, high = np.quantile(score_of(np.stack(means)), [0.025, 0.975])
    value = score_of(terms.mean(0, np.float64))
    return {"value": float(value), "low": float(low), "high": float(high), "n": rows}
