"""A text with a [MASK] in, what could stand there out."""

from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from bertram.batch import Batch, budgeted, chunked
from bertram.errors import BadInput, bad_option
from bertram.inference.predictor import Runner, check_finite
from bertram.tasks.fill_mask import FillMask
from bertram.text.inputs import Input, singles_of, strings_of
from bertram.text.tokenizer import Tokenizer

_CANDIDATES = 5


class NotOneMask(BadInput):
    """An input cannot be guessed at.

    Attributes:
        place, reason: which, counted from 0, and why.
    """

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(f"inputs[{place}]: {reason}")
        self.place, self.reason = place, reason


class MaskFiller:
    """A masked language model, ready to guess.

    Attributes:
        task, tokenizer, runner: what it is made of.
        max_length: tokens that a text is cut to.
        max_tokens: tokens that the runner is given at a time; each [MASK] is given a score for all of the vocabulary.
    """

    def __init__(self, tokenizer: Tokenizer, runner: Runner, max_length: int, max_tokens: int = 512) -> None:
        self.task, self.tokenizer, self.runner = FillMask(), tokenizer, runner
        self.max_length, self.max_tokens = max_length, max_tokens

    def predict(self, inputs: Iterable[Input], top_k: int = _CANDIDATES) -> list[dict[str, Any]]:
        """One answer an input, in the order given: {"candidates": [{"token", "score", "text"}]}, the best first.

        An input is a string or {"text"}, and holds the tokenizer's mask token once in what is read of it. A score is a
        probability; a candidate's text is the input's tokens with it among them, as the tokenizer writes them.

        Raises:
            NotOneMask: an input's mask token is missing, not alone, or beyond what is read.
            BadInput: an input is something else or no valid Unicode, or `top_k` is no whole number or below 1.
        """
        if not isinstance(top_k, Integral) or top_k < 1:
            raise bad_option("top_k", top_k, "must be a whole number, at least 1")
        texts = strings_of(singles_of(inputs, self.task.name))
        answers: list[dict[str, Any]] = []
        for chunk in chunked(len(texts)):
            answers += self._answers(texts[chunk], chunk.start, top_k)
        return answers

    def answers(self, chunks: Iterable[Sequence[Input]], top_k: int = _CANDIDATES) -> Iterator[list[dict[str, Any]]]:
        """`predict` for every chunk of inputs in turn.

        Raises:
            BadInput: as `predict`; what stands before a text that has not one mask token was answered.
        """
        done = 0
        for chunk in chunks:
            try:
                yield self.predict(chunk, top_k)
            except NotOneMask as fault:
                yield self.predict(chunk[: fault.place], top_k)
                raise BadInput(f"text {done + fault.place + 1:,}: {fault.reason}") from None
            done += len(chunk)

    def _answers(self, texts: Sequence[str], start: int, top_k: int) -> list[dict[str, Any]]:
        batch, _ = self.tokenizer.encode(texts, max_length=self.max_length)
        self._check(batch, texts, start)
        found: list[dict[str, Any]] = [{}] * len(texts)
        for rows in budgeted(batch.lengths, self.max_tokens):
            part = batch.select(rows)
            guessed = np.flatnonzero(part.token_ids == self.tokenizer.mask_id)
            logits = check_finite(self.runner.run(part, guessed)[self.task.head])
            for row, place, first, end, scores in zip(
                rows, guessed, part.offsets[:-1], part.offsets[1:], logits, strict=True
            ):
                before, after = part.token_ids[first:place], part.token_ids[place + 1 : end]
                found[row] = {
                    "candidates": [
                        {
                            "token": self.tokenizer.decode([token]) or self.tokenizer.tokens[token],
                            "score": score,
                            "text": self.tokenizer.decode([*before, token, *after]),
                        }
                        for token, score in self.task.candidates(scores, top_k, self.tokenizer.vocab_size)
                    ]
                }
        return found

    def _check(self, batch: Batch, texts: Sequence[str], start: int) -> None:
        mask = self.tokenizer.tokens[self.tokenizer.mask_id]
        counts = np.add.reduceat(batch.token_ids == self.tokenizer.mask_id, batch.offsets[:-1], dtype=np.int64)
        for row in np.flatnonzero(counts != 1).tolist():
            text, cut = texts[row], f" in the {self.max_length} tokens that are read"
            where = cut if mask in text and not counts[row] else ""
            raise NotOneMask(start + row, f"must hold {mask} once{where}: {text!r:.80}")
