"""What a student learns from its teacher on the same texts.

Letters: T tokens, B texts, H hidden width, N boundaries of groups, M masked tokens, L labels.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bertram.batch import IGNORED, Batch, Examples, Position
from bertram.config import LESSONS, Lesson
from bertram.corpus.masking import Masker
from bertram.formats.engine_layout import MASKED, TOKENS
from bertram.models.heads import EmbeddingHead, Head, Model
from bertram.models.tensors import PackedTensors, Targets, to_tensors
from bertram.training.feed import ShuffledRows


class Answers(NamedTuple):
    """What a model makes of a batch."""

    states: list[Tensor]
    """What goes into the first layer and comes out of each group's last, N of [T, H]."""
    vectors: Tensor
    """By the model's own pooling, [B, H]."""
    logits: dict[str, Tensor]
    """Of each head that has targets, [B, L]; of a masked language model's at the masked tokens, [M, V]."""


def answers(model: Model, groups: int, inputs: PackedTensors, targets: Mapping[str, Targets]) -> Answers:
    """What a model makes of a batch, its layers cut into so many groups; `targets` may name what is no head."""
    config, states = model.config, model.encoder.states(inputs)
    heads = {name: targets[name] for name in model.heads if name in targets}
    read = model.read(states[-1], inputs.first, {config.pooling, *(cast(Head, model.heads[n]).reads for n in heads)})
    ends = [-(-(group + 1) * config.num_hidden_layers // groups) for group in range(groups)]  # layers done there
    return Answers(
        [states[end] for end in (0, *ends)], EmbeddingHead(config)(read[config.pooling]), model.logits(read, heads)
    )


class Teacher:
    """A model to learn from. It is no nn.Module, so that its weights are not trained with the student's.

    Attributes:
        groups: of layers, at whose boundaries its states are looked at.
        variances: of the states there, N of them, measured once.
    """

    def __init__(self, model: Model, groups: int, batch: Batch, device: torch.device) -> None:
        """Take over a model, and measure the variances on `batch`."""
        self.groups = groups
        self._models = {torch.float32: model.to(device).eval().requires_grad_(False)}
        states = self.answers(to_tensors(batch, device), {}, torch.float32).states
        self.variances = [float(state.float().var(0).mean()) for state in states]

    @torch.no_grad()
    def answers(self, inputs: PackedTensors, targets: Mapping[str, Targets], precision: torch.dtype) -> Answers:
        """What it makes of a batch, its products computed in `precision`, which is the student's."""
        if precision not in self._models:
            self._models[precision] = rounded = copy.deepcopy(self._models[torch.float32])
            for module in rounded.modules():
                if isinstance(module, nn.Linear):
                    module.to(precision)
        return answers(self._models[precision], self.groups, inputs, targets)


class Distillation(nn.Module):
    """A student's losses against its teacher, a Trainable whose weights are the student's.

    ============  ==================================================================================================
    states        `states_loss`
    vectors       `EmbeddingHead.divergence`
    similarities  `similarities_loss`, × 10
    a head        its `divergence`
    ============  ==================================================================================================
    """

    def __init__(self, student: Model, teacher: Teacher) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher

    def losses(self, inputs: PackedTensors, targets: Mapping[str, Targets]) -> dict[str, Tensor]:
        """The loss of each lesson and head that has targets: means over T tokens, B texts or M masked tokens."""
        self.student.eval()  # no dropout: the teacher's answers have none either
        taught = self.teacher.answers(inputs, targets, self.precision)
        return self.compared(self.answers(inputs, targets), taught, targets)

    @property
    def precision(self) -> torch.dtype:
        """What the student's products are computed in."""
        return self.student.encoder.precision

    def answers(self, inputs: PackedTensors, targets: Mapping[str, Targets]) -> Answers:
        """The student's."""
        return answers(self.student, self.teacher.groups, inputs, targets)

    def compared(self, own: Answers, taught: Answers, names: Collection[str]) -> dict[str, Tensor]:
        """The named `losses` of the student's answers against the teacher's."""
        return {name: self._loss(name, own, taught) for name in names}

    def _loss(self, name: str, own: Answers, taught: Answers) -> Tensor:
        match name:
            case "states":
                return states_loss(own.states, taught.states, self.teacher.variances)
            case "vectors":
                return EmbeddingHead(self.student.config).divergence(own.vectors, taught.vectors)
            case "similarities":
                return 10 * similarities_loss(own.vectors, taught.vectors)
            case head:
                return cast(Head, self.student.heads[head]).divergence(own.logits[head], taught.logits[head])


def states_loss(own: Sequence[Tensor], taught: Sequence[Tensor], variances: Sequence[float]) -> Tensor:
    """Mean over N boundaries of the squared error of [T, H] against [T, H], by the teacher's variance there."""
    pairs = zip(own, taught, variances, strict=True)
    return torch.stack([F.mse_loss(a.float(), b.float()) / variance for a, b, variance in pairs]).mean()


def similarities_loss(own: Tensor, taught: Tensor) -> Tensor:
    """Mean squared error of the cosines of every two of B texts computed together, [B, H] each (Park et al. 2019)."""
    units = (F.normalize(vectors) for vectors in (own, taught))
    a, b = (unit @ unit.T for unit in units)
    return (a - b).pow(2).sum() / max(len(a) * (len(a) - 1), 1)


def loss_names(model: Model, lessons: Collection[Lesson]) -> list[str]:
    """The losses that a model of these heads is taught by: lessons, and for "logits" the heads' names.

    What the head of "embedding" says is the vectors, a lesson of their own.
    """
    heads = [name for name, head in model.heads.items() if not isinstance(head, EmbeddingHead)]
    names = [name for name in LESSONS if name in lessons and name != "logits"]
    return [*names, *(heads if "logits" in lessons else [])]


class DistillationFeed:
    """Shuffled texts, for a masked language model masked anew in every epoch.

    The target of a loss is the number of the text, at each of its tokens or once: the answer is the teacher's.
    """

    start: Position = ShuffledRows.start

    def __init__(
        self,
        batch: Batch,
        names: Collection[str],
        masker: Masker | None,
        batch_size: int | None,
        seed: int,
        batch_tokens: int | None = None,
        *,
        asked: NDArray[np.bool_] | None = None,
    ) -> None:
        """`names` are those of losses; `masker` is for that of a masked language model, and `asked` for a tagger's.

        The latter says of every id whether something is asked about it, [V].
        """
        numbers = np.arange(len(batch), dtype=np.int32)
        texts = {name: numbers for name in names if name not in ("states", TOKENS, MASKED)}
        tokens = {"states": np.repeat(numbers, batch.lengths)} if "states" in names else {}
        if TOKENS in names:  # only there has a tagger learned to say something
            assert asked is not None
            tokens[TOKENS] = np.where(asked[batch.token_ids], np.repeat(numbers, batch.lengths), np.int32(IGNORED))
        self._rows = ShuffledRows(Examples(batch, texts, tokens), batch_size, seed, batch_tokens)
        self._masker, self._seed = masker if MASKED in names else None, seed
        self.steps_per_epoch, self.tokens_per_step = self._rows.steps_per_epoch, self._rows.tokens_per_step

    def take(self, position: Position) -> tuple[Examples, Position]:
        """The batch at (epoch, number of the batch in it)."""
        examples, following = self._rows.take(position)
        if self._masker is None:
            return examples, following
        seen, masked = self._masker.mask(examples.inputs, np.random.default_rng([self._seed, *position]))
        inputs = replace(examples.inputs, token_ids=seen)
        return replace(examples, inputs=inputs, token_labels={**examples.token_labels, MASKED: masked}), following
