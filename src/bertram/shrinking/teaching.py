"""The training of a student by its teacher."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bertram.batch import Batch
from bertram.corpus.masking import Masker
from bertram.corpus.store import MANY_UNKNOWN
from bertram.errors import BadInput
from bertram.formats.engine_layout import MASKED, TOKENS
from bertram.inference.predictor import cosines
from bertram.model_card import shrinking_card
from bertram.model_directory import check_head
from bertram.progress import Report
from bertram.run_directory import begun, write_manifest
from bertram.saving import save
from bertram.shrinking.agreement import agreement, side_by_side
from bertram.shrinking.distillation import Distillation, DistillationFeed, Teacher, loss_names
from bertram.shrinking.initial import student_of
from bertram.shrinking.outcome import TEXTS
from bertram.shrinking.settings import Shrinking
from bertram.tasks.task import Task
from bertram.text.words import begins_word
from bertram.training.distributed import alone
from bertram.training.loop import carry_out
from bertram.training.setup import Evaluation, TrainingSetup

if TYPE_CHECKING:
    from bertram.models.heads import Model

logger = logging.getLogger(__name__)

_MEASURED = 64
"""Texts that the teacher's variances are measured on."""
_JUDGED_BATCH = 32
_RARE = 0.1
"""What a token counts for besides its occurrences, lest those that the texts lack come out as nothing."""


def teach(shrinking: Shrinking, out: Path, report: Report) -> dict[str, Any]:
    """Teach a student, leave it at `out`, and return what bertram.json says of it.

    Raises:
        BadInput: the model has nothing to teach, weights that are not for its task, or knows nothing of the texts.
        Interrupted: a signal came; the same call goes on from there.
    """
    source, recipe, processes = shrinking.source, shrinking.recipe, alone()
    train, held_out = shrinking.examples
    device = processes.device
    with begun(out, shrinking.settings):
        teacher, tokenizer = source.read_model(), source.read_tokenizer()
        if not (names := loss_names(teacher, shrinking.lessons)):
            raise BadInput(f"{source}: has no head whose logits could be taught; name other --lessons")
        if isinstance(task := source.task_if_known, Task):
            check_head(source.path, task, teacher.labels())  # or the engine is refused in the end
        batch, truncated = tokenizer.encode(*train.inputs, max_length=shrinking.max_length)
        judged, _ = tokenizer.encode(*held_out.inputs, max_length=shrinking.max_length)
        masker = Masker.of_tokens(tokenizer) if MASKED in teacher.heads else None
        asked = begins_word(tokenizer) if TOKENS in teacher.heads else None
        measured = judged.token_ids[: judged.offsets[: TEXTS + 1][-1]]
        if masker is not None and masker.special.take(measured).all():  # or the engine is refused in the end
            raise BadInput(f"--texts: {source} knows no token of those held out, so that none could be masked")
        if (unknown := (batch.token_ids == tokenizer.unk_id).mean()) > MANY_UNKNOWN:
            logger.warning(
                "bertram: %.0f%% of the tokens of --texts are unknown to %s: does it know the language?",
                *(100 * unknown, source),
            )

    def feed(batch: Batch, size: int | None, tokens: int | None = None) -> DistillationFeed:
        return DistillationFeed(batch, names, masker, size, recipe.seed, tokens, asked=asked)

    distillation = _distillation(teacher, shrinking, batch, device)
    judging = feed(judged, _JUDGED_BATCH)

    def evaluate() -> Evaluation:
        found = side_by_side(distillation, judging, device)
        figures = {f"validation_{name}_loss": loss for name, loss in found.losses.items()}
        figures["validation_cosine"] = float(cosines(found.student.vectors, found.teacher.vectors).mean())
        return Evaluation(-sum(found.losses.values()), figures)

    def results() -> dict[str, Any]:
        final = side_by_side(distillation, judging, device)
        return {"losses": final.losses, "agreement": agreement(final.student, final.teacher)}

    def leave(manifest: dict[str, Any]) -> None:
        if manifest["status"] == "finished":
            save(distillation.student, tokenizer, out, manifest, shrinking_card(manifest, out.resolve().name))
        else:
            write_manifest(out, manifest)

    networks = {"teacher": teacher, "student": distillation.student}
    setup = TrainingSetup(
        network=distillation,
        feed=feed(batch, recipe.batch_size, recipe.batch_tokens),
        evaluate=evaluate,
        results=results,
        save=leave,
        facts={
            "base_model": source.name,
            "max_length": shrinking.max_length,
            "truncated_texts": truncated,
            "data": {
                "train": ", ".join(file.name for file in shrinking.texts),
                "rows": {"train": len(train), "validation": len(held_out)},
            },
            "shrinking": asdict(shrinking.dial) | {"lessons": shrinking.lessons},
            "parameters": {name: sum(w.numel() for w in network.parameters()) for name, network in networks.items()},
            **({} if source.task_if_known is None else {"task": source.task_if_known.to_dict()}),
            **({} if source.pairs is None else {"pairs": source.pairs}),
        },
    )
    return carry_out(setup, recipe, out, processes, report)


def _distillation(teacher: "Model", shrinking: Shrinking, train: Batch, device: torch.device) -> Distillation:
    """A student beside its teacher, both as they are before the first step."""
    config = shrinking.dial.of(teacher.config)
    counts = np.bincount(train.token_ids, minlength=config.vocab_size) + _RARE
    torch.manual_seed(shrinking.recipe.seed)  # for heads that cannot be made of the teacher's
    # The roots, because otherwise a few frequent tokens would determine all directions.
    student = student_of(teacher, config, torch.from_numpy(np.sqrt(counts)))
    measured = train.select(np.arange(min(len(train), _MEASURED)))
    # Only now, because a Teacher moves the model.
    return Distillation(student.to(device), Teacher(teacher, config.groups, measured, device))
