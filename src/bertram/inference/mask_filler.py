"""A text with a [MASK] in, what could stand there out."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bertram.batch import Batch, budgeted
from bertram.errors import BadInput
from bertram.inference.predictor import Runner
from bertram.tasks.fill_mask import FillMask
from bertram.text.inputs import check_characters, singles_of
from bertram.text.tokenizer import Tokenizer

_CHUNK = 4096  # as the Predictor's
_CANDIDATES = 5


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

    def predict(self, inputs: Sequence[str | Mapping[str, str]], top_k: int = _CANDIDATES) -> list[dict[str, Any]]:
        """One answer an input, in the order given: {"candidates": [{"token", "score", "text"}]}, the best first.

        An input is a string or {"text"}, and holds the tokenizer's mask token once. A score is a probability; a
        candidate's text is the input's tokens with it among them, as the tokenizer writes them.

        Raises:
            BadInput: an input is something else, no valid Unicode, or has its mask token beyond what is read; or
                `top_k` is below 1.
        """
        if top_k < 1:
            raise BadInput(f"--top-k {top_k}: at least 1 is needed")
        texts = singles_of(inputs, self.task.name)
        check_characters(texts)
        answers: list[dict[str, Any]] = []
        for start in range(0, len(texts), _CHUNK):
            answers += self._answers(texts[start : start + _CHUNK], start, top_k)
        return answers

    def _answers(self, texts: Sequence[str], start: int, top_k: int) -> list[dict[str, Any]]:
        batch, _ = self.tokenizer.encode(texts, max_length=self.max_length)
        self._check(batch, texts, start)
        found: list[dict[str, Any]] = [{}] * len(texts)
        for rows in budgeted(batch.lengths, self.max_tokens):
            part = batch.select(rows)
            guessed = np.flatnonzero(part.token_ids == self.tokenizer.mask_id)
            logits = self.runner.run(part, guessed)[self.task.head]
            ids, scores = self.task.candidates(logits, top_k, self.tokenizer.vocab_size)
            for row, place, end, tokens, probabilities in zip(
                rows, guessed, part.offsets[1:], ids.tolist(), scores.tolist(), strict=True
            ):
                before, after = part.token_ids[end - batch.lengths[row] : place], part.token_ids[place + 1 : end]
                found[row] = {
                    "candidates": [
                        {
                            "token": self.tokenizer.decode([token]) or self.tokenizer.tokens[token],
                            "score": score,
                            "text": self.tokenizer.decode([*before, token, *after]),
                        }
                        for token, score in zip(tokens, probabilities, strict=True)
                    ]
                }
        return found

    def _check(self, batch: Batch, texts: Sequence[str], start: int) -> None:
        mask = self.tokenizer.tokens[self.tokenizer.mask_id]
        counts = np.add.reduceat(batch.token_ids == self.tokenizer.mask_id, batch.offsets[:-1], dtype=np.int64)
        for row in np.flatnonzero(counts != 1).tolist():
            text, cut = texts[row], f" in the {self.max_length} tokens that are read"
            where = cut if mask in text and not counts[row] else ""
            raise BadInput(f"inputs[{start + row}]: must hold {mask} once{where}: {text!r:.80}")
