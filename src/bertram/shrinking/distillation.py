"""What a student learns from its teacher on the same texts.

Letters: T tokens, B texts, H hidden width, N boundaries of groups, M masked tokens, L labels.
"""

import copy
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bertram.batch import Batch, Examples
from bertram.config import LESSONS, Lesson
from bertram.models.heads import EmbeddingHead, Head, Model, Reads, means
from bertram.models.tensors import PackedTensors, Targets, targets_of, to_tensors
from bertram.text.masking import Masker
from bertram.training.feed import Position, ShuffledRows
from bertram.training.interruption import check_stop

MASKED = "masked_language_model"
_WEIGHTS = {"states": 1.0, "vectors": 1.0, "similarities": 10.0}


class Answers(NamedTuple):
    """What a model makes of a batch."""

    states: list[Tensor]
    """What goes into the first layer and comes out of each group's last, [T, H] each."""
    vectors: Tensor
    """By the model's own pooling, [B, H]."""
    logits: dict[str, Tensor]
    """Of each head, [B, L]; of a masked language model's at the masked tokens, [M, V]."""


class Distillation(nn.Module):
    """A student's losses against its teacher, a Trainable whose only weights are the student's.

    ============  ==================================================================================================
    states        squared error of the hidden states at the boundaries of groups, by the teacher's variance there
    vectors       1 less the cosine of both vectors of a text (Reimers & Gurevych 2020 have their squared error)
    similarities  squared error of the cosines between the texts computed together (Park et al. 2019), × 10
    a head        Kullback–Leibler divergence of its labels' or tokens' probabilities (Hinton et al. 2015); of a
                  regression the squared error
    ============  ==================================================================================================
    """

    def __init__(self, student: Model, teacher: Model, lessons: Collection[Lesson] = LESSONS) -> None:
        super().__init__()
        self.student, self.lessons = student, lessons
        self.originals = (teacher.eval().requires_grad_(False),)  # in a tuple, lest they count as to be trained
        self.computing = self.originals
        self.variances = [1.0] * (student.config.groups + 1)

    @property
    def teacher(self) -> Model:
        return self.computing[0]

    def prepare(self, device: torch.device, precision: torch.dtype, batch: Batch) -> None:
        """Have the teacher where and as the student is computed, and measure its states' variances on `batch`."""
        (original,) = self.originals
        self.computing = (original if precision == torch.float32 else copy.deepcopy(original),)
        self.teacher.to(device)
        for module in self.teacher.modules():
            if isinstance(module, nn.Linear):
                module.to(precision)
        with torch.inference_mode():
            states = self._answers(self.teacher, to_tensors(batch, device), {}).states
        self.variances = [float(state.float().var(0).mean()) for state in states]

    def losses(self, inputs: PackedTensors, targets: Mapping[str, Targets]) -> dict[str, Tensor]:
        """The loss of each lesson that `targets` names, means over T tokens, B texts or M masked tokens."""
        self.student.eval()  # no dropout: what the teacher says has none either
        return self.compared(*self.both(inputs, targets), targets)

    def compared(self, student: Answers, teacher: Answers, targets: Collection[str]) -> dict[str, Tensor]:
        """`losses` of what both have said."""
        return {name: self._loss(name, student, teacher) for name in targets}

    def both(self, inputs: PackedTensors, targets: Mapping[str, Targets]) -> tuple[Answers, Answers]:
        """What the student and the teacher say."""
        with torch.no_grad():
            teacher = self._answers(self.teacher, inputs, targets)
        return self._answers(self.student, inputs, targets), teacher

    def _answers(self, model: Model, inputs: PackedTensors, targets: Mapping[str, Targets]) -> Answers:
        states = model.encoder.states(inputs)
        hidden, first = states[-1], states[-1].index_select(0, inputs.first)
        read: dict[Reads, Tensor] = {"hidden": hidden, "cls": first, "mean": means(hidden, inputs.first)}
        if model.pooler is not None:
            read["pooler"] = model.pooler(first)
        logits = {}
        for name in taught_heads(model, self.lessons):
            head = cast(Head, model.heads[name])
            rows = targets[name].rows if name in targets else None
            if name in targets or head.reads != "hidden":
                x = read[head.reads]
                logits[name] = head(x if rows is None else x.index_select(0, rows))
        config, layers = model.config, model.config.num_hidden_layers
        groups = self.student.config.groups
        ends = [-(-(group + 1) * layers // groups) for group in range(groups)]  # layers done where a group ends
        return Answers([states[end] for end in (0, *ends)], EmbeddingHead(config)(read[config.pooling]), logits)

    def _loss(self, name: str, student: Answers, teacher: Answers) -> Tensor:
        match name:
            case "states":
                pairs = zip(student.states, teacher.states, self.variances, strict=True)
                loss = torch.stack([F.mse_loss(a.float(), b.float()) / scale for a, b, scale in pairs]).mean()
            case "vectors":
                loss = 1 - F.cosine_similarity(student.vectors, teacher.vectors).mean()
            case "similarities":
                units = (F.normalize(answers.vectors) for answers in (student, teacher))
                a, b = (unit @ unit.T for unit in units)
                loss = (a - b).pow(2).sum() / max(len(a) * (len(a) - 1), 1)
            case _:
                a, b = student.logits[name].float(), teacher.logits[name].float()
                loss = (
                    F.mse_loss(a, b)
                    if a.shape[1] == 1
                    else F.kl_div(a.log_softmax(-1), b.log_softmax(-1), reduction="batchmean", log_target=True)
                )
        return loss * _WEIGHTS.get(name, 1.0)


def taught_heads(model: Model, lessons: Collection[Lesson]) -> list[str]:
    """The heads whose logits are taught."""
    return [name for name in model.heads if name != "embedding"] if "logits" in lessons else []


def taught(model: Model, lessons: Collection[Lesson]) -> list[str]:
    """The names of the losses that a model of these heads is taught by."""
    return [*(name for name in _WEIGHTS if name in lessons), *taught_heads(model, lessons)]


class Lessons:
    """The feed of a distillation: shuffled texts, for a masked language model masked anew in every epoch.

    A lesson has a target for every token or text, of value 0: what is to be said there, the teacher says.
    """

    start: Position = ShuffledRows.start

    def __init__(
        self,
        batch: Batch,
        lessons: Collection[Lesson],
        heads: Collection[str],
        masker: Masker,
        batch_size: int,
        seed: int,
        batch_tokens: int | None = None,
    ) -> None:
        """`heads` are those of `taught_heads`."""
        self._lessons, self._heads = lessons, heads
        self._rows = ShuffledRows(Examples(batch), batch_size, seed, batch_tokens)
        self._masker, self._seed = masker, seed
        self.steps_per_epoch, self.tokens_per_step = self._rows.steps_per_epoch, self._rows.tokens_per_step

    def take(self, position: Position) -> tuple[Examples, Position]:
        """The batch at (epoch, number of the batch in it)."""
        examples, following = self._rows.take(position)
        batch = examples.inputs
        each = np.broadcast_to(np.float32(0), len(batch))
        names = [name for name in ("vectors", "similarities") if name in self._lessons]
        labels = dict.fromkeys([*names, *(name for name in self._heads if name != MASKED)], each)
        tokens = {"states": np.broadcast_to(np.int32(0), len(batch.token_ids))} if "states" in self._lessons else {}
        if MASKED in self._heads:
            seen, tokens[MASKED] = self._masker.mask(batch, np.random.default_rng([self._seed, *position]))
            batch = Batch(seen, batch.segment_ids, batch.positions, batch.offsets)
        return Examples(batch, labels, tokens), following


@dataclass(frozen=True)
class Sayings:
    """What a model says of held-out texts."""

    vectors: NDArray[np.float32]
    """[B, H]."""
    answers: dict[str, NDArray[np.float32]]
    """Of each head: the numbers of the likeliest labels or tokens, [B] or [M], or a regression's values."""


@torch.inference_mode()
def compare(
    distillation: Distillation, feed: Lessons, device: torch.device
) -> tuple[dict[str, float], Sayings, Sayings]:
    """Every lesson's mean loss over one epoch of `feed`, and what the student and the teacher say of its texts."""
    distillation.eval()
    sums, counts = defaultdict[str, float](float), Counter[str]()
    said: tuple[list[Sayings], list[Sayings]] = ([], [])
    position = feed.start
    while position[0] == 0:
        check_stop()
        examples, position = feed.take(position)
        examples = examples.select(np.argsort(examples.lengths, kind="stable"))
        inputs, targets = to_tensors(examples.inputs, device), targets_of(examples, device)
        both = distillation.both(inputs, targets)
        for name, loss in distillation.compared(*both, targets).items():
            sums[name] += float(loss) * len(targets[name].values)
            counts[name] += len(targets[name].values)
        for side, answers in zip(said, both, strict=True):
            side.append(_saying(answers))
    student, teacher = (_joined(side) for side in said)
    return {name: total / counts[name] for name, total in sums.items()}, student, teacher


def _saying(answers: Answers) -> Sayings:
    best = {
        name: (logits.argmax(1) if logits.shape[1] > 1 else logits[:, 0]).float().cpu().numpy()
        for name, logits in answers.logits.items()
    }
    return Sayings(answers.vectors.float().cpu().numpy(), best)


def _joined(parts: list[Sayings]) -> Sayings:
    names = parts[0].answers.keys()
    answers = {name: np.concatenate([part.answers[name] for part in parts]) for name in names}
    return Sayings(np.concatenate([part.vectors for part in parts]), answers)
