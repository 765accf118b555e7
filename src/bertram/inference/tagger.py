"""Text in, entities out: runs of words with a label.

Letters: N texts, W words of all of them, L labels.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertram.batch import Ints, budgeted, chunked
from bertram.errors import BadInput
from bertram.inference.predictor import Predictor, Runner, check_finite
from bertram.tasks.tagging import Tagging
from bertram.tasks.task import Task
from bertram.text.inputs import Input, singles_of, strings_of
from bertram.text.table import Table
from bertram.text.tokenizer import Tokenizer
from bertram.text.words import find_words, lay_out, words_of


class Tagger:
    """A trained model that labels words, ready to answer. Of a long text nothing is cut: it is read in several parts.

    Attributes:
        task, tokenizer, runner: what it is made of.
        max_length: tokens that are read at a time.
        max_tokens: tokens that the runner is given at a time.
    """

    def __init__(
        self, task: Tagging, tokenizer: Tokenizer, runner: Runner, max_length: int, *, max_tokens: int = 2048
    ) -> None:
        self.task, self.tokenizer, self.runner = task, tokenizer, runner
        self.max_length, self.max_tokens = max_length, max_tokens

    def logits(self, texts: Iterable[str], texts_b: Iterable[str] | None = None) -> NDArray[np.float32]:
        """Those of every word, [W, L], in the order given, of texts whose words are parted by spaces.

        Raises:
            BadInput: a text is no string, no valid Unicode or stands in no list, or there are second texts.
        """
        if texts_b is not None:
            raise BadInput(f"inputs: {self.task.name} reads one text, not a pair")
        return self._run([words_of(text) for text in strings_of(texts)])

    def _run(self, texts: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        found = [np.zeros((0, self.task.outputs), np.float32)]
        for chunk in chunked(len(texts)):
            batch, places = lay_out(self.tokenizer, texts[chunk], self.max_length)
            logits = np.empty((len(places), self.task.outputs), np.float32)
            words = np.full(len(batch.token_ids), -1)
            words[places] = np.arange(len(places))
            for rows in budgeted(batch.lengths, self.max_tokens):
                part, tokens = batch.taken(rows)
                asked = np.flatnonzero(words[tokens] >= 0)
                logits[words[tokens][asked]] = self.runner.run(part, asked)[self.task.head]
            found.append(logits)
        return np.concatenate(found)

    def predict(self, inputs: Iterable[Input]) -> list[dict[str, Any]]:
        """One answer an input, in the order given: {"entities": [{"start", "end", "label", "text", "score"}]}.

        An input is a string or {"text"}; start and end count its code points.

        Raises:
            BadInput: an input is something else, or no valid Unicode.
        """
        texts = strings_of(singles_of(inputs, self.task.name))
        spans = [list(find_words(text)) for text in texts]
        logits = self._run([[text[a:b] for a, b in words] for text, words in zip(texts, spans, strict=True)])
        return self.task.entities(texts, spans, check_finite(logits))

    def lengths(self, table: Table) -> Ints:
        """As `Predictor.lengths`."""
        return lay_out(self.tokenizer, [words_of(text) for text in table.texts], self.max_length).batch.lengths


def predictor_of(
    task: Task, tokenizer: Tokenizer, runner: Runner, max_length: int, *, pairs: bool | None = None
) -> Predictor | Tagger:
    """A Predictor, or a Tagger where words are labelled; `pairs` is as for the former."""
    if isinstance(task, Tagging):
        return Tagger(task, tokenizer, runner, max_length)
    return Predictor(task, tokenizer, runner, max_length, pairs=pairs)
