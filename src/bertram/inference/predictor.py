"""Text in, answer out, whatever computes the logits.

Letters: N texts, B sequences, T tokens and M asked for of one batch, L logits a text, H hidden width.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from bertram.batch import NO_PAIRS, Batch, Ints, budgeted, chunked
from bertram.errors import BadInput
from bertram.formats.engine_file import Engine
from bertram.formats.engine_layout import EMBEDDING
from bertram.tasks.task import Task
from bertram.text.inputs import Input, columns_of, strings_of
from bertram.text.table import Table
from bertram.text.tokenizer import Tokenizer


class Runner(Protocol):
    """What computes: one for each library that runs models."""

    def run(self, batch: Batch, asked: NDArray[np.integer] | None = None) -> dict[str, NDArray[np.float32]]:
        """Every head's logits [B, L] by the head's name; those of "embedding" are the texts' vectors [B, H].

        Heads that read every token score the tokens that are `asked` for, [M, L]; by default all, [T, L].
        """
        ...


class Predictor:
    """A trained model, ready to answer.

    Attributes:
        task, tokenizer, runner: what it is made of.
        max_length: tokens that a text is cut to.
        pairs: whether it was trained on pairs of texts or on single ones, None where that is not known.
        max_tokens: tokens that the runner is given at a time; on a CPU more make it no faster.
    """

    def __init__(
        self,
        task: Task,
        tokenizer: Tokenizer,
        runner: Runner,
        max_length: int,
        *,
        pairs: bool | None = None,
        max_tokens: int = 2048,
    ) -> None:
        self.task, self.tokenizer, self.runner = task, tokenizer, runner
        self.max_length, self.pairs, self.max_tokens = max_length, pairs, max_tokens

    def logits(self, texts: Iterable[str], texts_b: Iterable[str] | None = None) -> NDArray[np.float32]:
        """The task's logits of every text or pair, [N, L], in the order given.

        Raises:
            BadInput: a text is no string, no valid Unicode or stands in no list, `texts_b` is not as long as `texts`,
                or there are pairs where there should be single texts, or vice versa.
        """
        texts, texts_b = strings_of(texts), None if texts_b is None else strings_of(texts_b)
        if texts_b is not None and len(texts_b) != len(texts):
            raise BadInput(f"inputs: {len(texts):,} texts and {len(texts_b):,} second ones; each needs one")
        check_inputs(self.task, texts_b is not None, trained_on=self.pairs)
        if self.task.apart:
            return cosines(self._run(texts), self._run(texts_b or []))[:, None]
        return self._run(texts, texts_b)

    def embed(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """The vector of every text, [N, H], in the order given, by a model whose task compares vectors.

        Of no texts, [0, 1].

        Raises:
            BadInput: a text is no string, no valid Unicode or stands in no list, or the task is another.
        """
        if not self.task.apart:
            raise BadInput(f"the model is for {self.task.name}, which makes no vectors of texts")
        return check_finite(self._run(strings_of(texts)))

    def _run(self, texts: Sequence[str], texts_b: Sequence[str] | None = None) -> NDArray[np.float32]:
        """What the task's head says of every text: logits [N, L] or vectors [N, H]."""
        found: NDArray[np.float32] | None = None  # as wide as the first answer, and never held twice
        for chunk in chunked(len(texts)):
            seconds = None if texts_b is None else texts_b[chunk]
            batch, _ = self.tokenizer.encode(texts[chunk], seconds, max_length=self.max_length)
            for rows in budgeted(batch.lengths, self.max_tokens):
                said = self.runner.run(batch.select(rows))[self.task.head]
                if found is None:
                    found = np.empty((len(texts), said.shape[1]), np.float32)
                found[chunk][rows] = said
        return np.empty((0, self.task.outputs), np.float32) if found is None else found

    def predict(self, inputs: Iterable[Input]) -> list[dict[str, Any]]:
        """One answer an input, in the order given. An input is a string or {"text"} or {"text", "text_b"}.

        Where the task compares two texts, one alone is answered by its {"embedding"}.

        Raises:
            BadInput: an input is something else, or some are pairs and others are not.
        """
        texts, texts_b = columns_of(inputs)
        if not texts:
            return []
        if self.task.apart and texts_b is None:
            return [{"embedding": vector} for vector in self.embed(texts).tolist()]
        return self.task.answers(check_finite(self.logits(texts, texts_b)))

    def lengths(self, table: Table) -> Ints:
        """Tokens of every sequence that is read of a table's texts."""
        sides = table.sides(apart=self.task.apart)
        return np.concatenate([self.tokenizer.encode(*side, max_length=self.max_length)[0].lengths for side in sides])


def check_inputs(task: Task, pairs: bool, *, trained_on: bool | None, segments: int = 2) -> None:
    """Refuse single texts or pairs that a task or a model cannot read.

    Raises:
        BadInput: the task compares two texts, and these are single ones; or as `check_kind`.
    """
    if task.apart and not pairs:
        raise BadInput(f"{task.name} compares two texts: each needs a text_b")
    if not task.apart:
        check_kind(pairs, trained_on=trained_on, segments=segments)


def check_kind(pairs: bool, *, trained_on: bool | None, segments: int = 2) -> None:
    """Refuse single texts or pairs where a model that reads the texts of a pair together cannot read them.

    `trained_on` says whether it was trained on pairs, if that is known, and `segments` how many it tells apart, for
    those who ask before a runner does, which refuses a batch of more.

    Raises:
        BadInput: it was trained on the other kind, or has no segment for the second text of a pair.
    """
    if trained_on not in (None, pairs):
        wanted = "pairs of texts: each needs a text_b" if trained_on else "single texts: leave text_b out"
        raise BadInput(f"the model was trained on {wanted}")
    if pairs and segments < 2:
        raise BadInput(NO_PAIRS)


def check_finite(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a model answers, if it is numbers.

    Raises:
        BadInput: it is not.
    """
    if not np.isfinite(values).all():
        raise BadInput("the model answers NaN or infinity: its training diverged, or its file is damaged")
    return values


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """The cosine of each row of [N, H] and the same of another, [N]; 0 for a vector of zeros."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    found: NDArray[np.float32] = (a * b).sum(1) / np.maximum(lengths, np.finfo(np.float32).tiny)
    return found


class Reading(NamedTuple):
    """How a model reads texts."""

    tokenizer: Tokenizer
    max_length: int
    """Tokens that it cuts a text to."""
    apart: bool
    """Whether it reads the two texts of a pair one by one."""
    pairs: bool | None
    """Whether it was trained on pairs of texts, if that is known."""

    @classmethod
    def of_engine(cls, engine: Engine) -> "Reading":
        """As the file says."""
        return cls(engine.tokenizer, engine.max_length, EMBEDDING in engine.heads, engine.pairs)

    def batch(self, inputs: Iterable[Input]) -> Batch:
        """Inputs as one batch, of pairs that are read apart all first texts and then the second.

        Raises:
            BadInput: as `columns_of` and `check_kind`.
        """
        texts, texts_b = columns_of(inputs)
        if not self.apart:
            check_kind(texts_b is not None, trained_on=self.pairs)
        elif texts_b is not None:
            texts, texts_b = texts + texts_b, None
        return self.tokenizer.encode(texts, texts_b, max_length=self.max_length)[0]
