"""From labelled texts and a model argument to a trained encoder's directory."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bertram.batch import IGNORED, Examples
from bertram.errors import BadInput, failing_in
from bertram.files import write_array
from bertram.inference.predictor import check_inputs
from bertram.inference.tagger import predictor_of
from bertram.model_card import model_card
from bertram.model_directory import ModelDirectory
from bertram.saving import learned_tokenizer, save
from bertram.supervised.base import Training
from bertram.tasks.registry import kind_of_task, labels_of
from bertram.tasks.regression import Regression
from bertram.tasks.task import Logits, Score, Targets, Task
from bertram.text.rows import Columns
from bertram.text.splits import Splits
from bertram.text.table import Table, read_table
from bertram.text.tokenizer import Tokenizer
from bertram.text.words import lay_out, words_of
from bertram.training.recipe import BATCH_SIZE

if TYPE_CHECKING:
    from bertram.models.heads import Head, Model, RegressionHead
    from bertram.training.distributed import Processes
    from bertram.training.setup import TrainingSetup

logger = logging.getLogger(__name__)

DEFAULTS: Mapping[str, float] = {"learning_rate": 5e-5, "batch_size": BATCH_SIZE}  # Devlin et al. 2018, A.3

_COMPARED = 64
"""Training rows that show which unit a regression model's numbers are in."""


@dataclass(frozen=True)
class LabelledSplits(Splits[Table]):
    """The tables of one training."""

    @classmethod
    def read(
        cls,
        files: Mapping[str, Sequence[Path]],
        *,
        columns: Columns = None,
        seed: int = 0,
        per_word: bool = False,
    ) -> "LabelledSplits":
        """Read a table for each split, as `files_of` has them; without validation a seeded tenth is held out.

        `per_word` is as for `read_table`.

        Raises:
            BadInput: a file cannot be used.
        """
        tables = {name: read_table(file, columns, per_word=per_word) for name, (file,) in files.items()}
        for name, (file,) in files.items():
            if (tables[name].texts_b is None) != (tables["train"].texts_b is None):
                raise BadInput(f"of {files['train'][0]} and {file} one holds pairs of texts and the other single texts")
        return cls.of_files(tables, files, columns, seed)

    @property
    def labels(self) -> list[str]:
        """What a task learns from: the labels of the training data, a part held out of it included."""
        held_out = "validation" not in self.description["sha256"]
        return self.train.labels + (self.validation.labels if held_out else [])

    def task(self, name: str | None) -> Task:
        """The task of that name, or the one that the labels look like, with what it learns from the labels.

        Raises:
            BadInput: there is no such task, or the data do not suit it.
        """
        kind, source = kind_of_task(name, self.labels), self.description["train"]
        if kind.apart and self.train.texts_b is None:
            raise BadInput(f"{source}: {kind.name} compares two texts: it needs a column text_b")
        return kind.from_labels(self.labels, source)

    def targets(self, task: Task) -> dict[str, Targets]:
        """The targets of every table, [N] each.

        Raises:
            BadInput: a label is not one that the task knows.
        """
        return {name: task.targets(table.labels, self.description[name]) for name, table in self.all.items()}


@dataclass(frozen=True, kw_only=True)
class EncoderTraining(Training[Task, LabelledSplits]):
    """An encoder's training on labelled texts; `source` is an encoder's."""

    cased: bool = False

    libraries = ("torch", "safetensors", "scipy", "sklearn", "tensorboard")

    @property
    def defaults(self) -> Mapping[str, float]:
        """As `Training.defaults`."""
        return DEFAULTS

    def __post_init__(self) -> None:
        super().__post_init__()
        source = self.source
        if self.recipe.label_smoothing and labels_of(self.task) is None:
            raise BadInput(f"--label-smoothing: is for labels, and {self.task.name} has none")
        if (self.vocab_size is not None or self.cased) and isinstance(source, ModelDirectory):
            raise BadInput(f"{source}: has its tokenizer already; --vocab-size and --cased are for presets")
        pairs, segments = self.splits.train.texts_b is not None, source.config.type_vocab_size
        with failing_in(source):
            check_inputs(self.task, pairs, trained_on=None, segments=segments)  # it may learn the other kind

    @property
    def positions(self) -> int:
        """As `Training.positions`."""
        return self.source.config.max_position_embeddings

    @property
    def settings(self) -> dict[str, Any]:
        """As `Training.settings`."""
        return super().settings | {"cased": self.cased}

    def begin(self, out: Path, processes: "Processes") -> "TrainingSetup":
        """As `Training.begin`; later the logits of every judged split are left at `out`."""
        from bertram.models.tensors import targets_of
        from bertram.training.setup import Evaluation, TrainingSetup
        from bertram.training.torch_runner import TorchRunner

        task, splits, source, targets = self.task, self.splits, self.source, self.splits.targets(self.task)
        network, tokenizer = _start(self, out)
        network.to(processes.device)
        max_length = self.longest
        examples, truncated = labelled_examples(task, tokenizer, splits.train, targets["train"], max_length)
        predictor = predictor_of(task, tokenizer, TorchRunner(network, processes.device), max_length)

        head = cast("Head", network.heads[task.head])
        before = source.task_if_known if isinstance(source, ModelDirectory) else None
        if isinstance(task, Regression) and isinstance(before, Regression):
            some = splits.train.select(range(min(len(splits.train), _COMPARED)))
            values, expected = predictor.logits(*some.inputs)[:, 0], targets["train"][: len(some)]
            _take_up(cast("RegressionHead", head), before, task, values, expected)
        head.label_smoothing = self.recipe.label_smoothing or 0.0
        constant_loss = head.constant_loss(targets_of(examples)[task.head].values)

        def evaluate() -> Evaluation:
            score = task.scores(predictor.logits(*splits.validation.inputs), targets["validation"])[0].value
            return Evaluation(score, {"validation": score})

        def scores(name: str) -> list[Score]:
            values = predictor.logits(*splits.judged[name].inputs)
            write_array(out / f"logits-{name}.npy", values)
            label = task.only_answer(values, targets[name]) if name == "validation" else None
            if label is not None and not self.trial:
                pretrained = "" if isinstance(source, ModelDirectory) else ", or pre-trained weights"
                logger.warning(
                    "bertram: %s: all %d validation %s got the label %.60r: the model tells none apart; "
                    "try a higher --learning-rate, more --epochs or more texts%s",
                    *(out, len(values), "words" if task.per_word else "texts", label, pretrained),
                )
            return task.scores(values, targets[name])

        def leave(manifest: dict[str, Any]) -> None:
            save(network, tokenizer, out, manifest, model_card(manifest))

        return TrainingSetup(
            network=network,
            feed=self.feed(examples),
            evaluate=evaluate,
            results=lambda: self.results(scores),
            save=leave,
            facts={
                **self.facts,
                "max_length": max_length,
                "truncated_texts": truncated,
                "pairs": splits.train.texts_b is not None,
            },
            constant_loss=lambda batch: constant_loss(targets_of(batch)[task.head].values),
        )


def labelled_examples(
    task: Task, tokenizer: Tokenizer, table: Table, targets: Targets, max_length: int
) -> tuple[Examples, int]:
    """A table as a task's head learns it, with its `targets`, and how many texts were cut.

    A word is learned by its first token (Devlin et al. 2018, 5.3); texts of labelled words are not cut.
    A task that reads two texts apart needs a table of pairs, which `LabelledSplits.task` sees to.

    Raises:
        BadInput: as `Tokenizer.encode`.
    """
    if task.per_word:
        batch, places = lay_out(tokenizer, [words_of(text) for text in table.texts], max_length)
        labels = np.full(len(batch.token_ids), IGNORED, np.int32)
        labels[places] = targets[:, 1]
        return Examples(batch, token_labels={task.head: labels}), 0
    read = [tokenizer.encode(*side, max_length=max_length) for side in table.sides(apart=task.apart)]
    (inputs, cut), *second = read
    inputs_b, also_cut = second[0] if second else (None, 0)
    return Examples(inputs, {task.head: targets}, inputs_b=inputs_b), cut + also_cut


def _start(training: EncoderTraining, out: Path) -> tuple["Model", Tokenizer]:
    """The model to train and its tokenizer. A preset's is learned from the training texts, once for every OUT."""
    task, source = training.task, training.source
    heads = {task.head: task.outputs}
    if isinstance(source, ModelDirectory):
        return source.read_model(heads, labels=labels_of(task)), source.read_tokenizer()
    from bertram.models.heads import Model

    tokenizer = learned_tokenizer(
        out,
        training.splits.train.all_texts,
        source.config.model_type,
        source.config.vocab_size,
        training.vocab_size,
        cased=training.cased,
    )
    return Model(replace(source.config, vocab_size=tokenizer.vocab_size), heads), tokenizer


def _take_up(head: "RegressionHead", before: Regression, task: Regression, logits: Logits, targets: Targets) -> None:
    """Let a head that counts deviations of the labels that it learned `before` count those of the task's, and answer
    what it did.

    Not where its logits [N], as they are, lie nearer to the targets [N]: then the labels are in another unit, in which
    its old answers would be so far off that training diverges.
    """
    factor, shift = before.std / task.std, (before.mean - task.mean) / task.std
    logits = logits.astype(np.float64)  # a factor may be more than float32 holds
    if np.square(factor * logits + shift - targets).mean() < np.square(logits - targets).mean():
        head.rescale(factor, shift)
