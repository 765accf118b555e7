"""The training of a student by its teacher."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bertram.batch import Batch
from bertram.config import EncoderConfig, Lesson
from bertram.corpus.masking import Masker
from bertram.inference.predictor import cosines
from bertram.models.heads import Model
from bertram.progress import Report
from bertram.shrinking.agreement import SideBySide, side_by_side
from bertram.shrinking.distillation import MASKED, Distillation, DistillationFeed, Teacher, loss_names
from bertram.shrinking.initial import student_of
from bertram.text.tokenizer import Tokenizer
from bertram.training.distributed import alone
from bertram.training.loop import Evaluation, Loop, Outcome
from bertram.training.recipe import Recipe

_MEASURED = 64
"""Texts that the teacher's variances are measured on."""
_JUDGED_BATCH = 32
_RARE = 0.1
"""What a token counts for besides its occurrences, lest those that the texts lack come out as nothing."""


@dataclass(frozen=True)
class Taught:
    """What a teaching came to.

    Attributes:
        final: the student beside its teacher on all texts held out, both in float32; None where it diverged.
    """

    student: Model
    outcome: Outcome
    final: SideBySide | None


def teach(
    teacher: Model,
    config: EncoderConfig,
    *,
    tokenizer: Tokenizer,
    train: Batch,
    held_out: Batch,
    lessons: Collection[Lesson],
    recipe: Recipe,
    out: Path,
    report: Report,
) -> Taught:
    """Make a student of `config` and train it; checkpoints and metrics go to `out`."""
    names = loss_names(teacher, lessons)
    masker = Masker.of_tokens(tokenizer) if MASKED in names else None
    processes = alone()
    device = processes.device

    def feed(batch: Batch, size: int | None, tokens: int | None = None) -> DistillationFeed:
        return DistillationFeed(batch, names, masker, size, recipe.seed, tokens)

    counts = np.bincount(train.token_ids, minlength=config.vocab_size) + _RARE
    torch.manual_seed(recipe.seed)  # for heads that cannot be made of the teacher's
    # The roots, because otherwise a few frequent tokens would determine all directions.
    student = student_of(teacher, config, torch.from_numpy(np.sqrt(counts)))
    measured = train.select(np.arange(min(len(train), _MEASURED)))
    # Only now, because a Teacher moves the model.
    distillation = Distillation(student.to(device), Teacher(teacher, config.groups, measured, device))
    judged = feed(held_out, _JUDGED_BATCH)

    def evaluate() -> Evaluation:
        found = side_by_side(distillation, judged, device)
        figures = {f"validation_{name}_loss": loss for name, loss in found.losses.items()}
        figures["validation_cosine"] = float(cosines(found.student.vectors, found.teacher.vectors).mean())
        return Evaluation(-sum(found.losses.values()), figures)

    lesson = feed(train, recipe.batch_size, recipe.batch_tokens)
    loop = Loop(distillation, lesson, recipe, out, evaluate=evaluate, report=report, processes=processes)
    outcome = loop.run()
    final = side_by_side(distillation, judged, device) if outcome.finished else None
    return Taught(student, outcome, final)
