"""Text in, text out, whatever writes it: what translation and summarization answer with.

Letters: N texts, B sequences of one batch.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from bertram.batch import Batch, budgeted, chunked
from bertram.errors import BadInput
from bertram.search import Hypothesis, Search
from bertram.tasks.sequence_to_sequence import Generation
from bertram.text.inputs import Input, singles_of, strings_of
from bertram.text.sentences import split_long
from bertram.text.tokenizer import Tokenizer

_QUOTES = "“”‘’\"'"  # around Chinese sentences too, though not of its script's width
_MOST_SCORES = 2**26  # of the vocabulary after every hypothesis of the sources that are searched together


class GeneratingRunner(Protocol):
    """What searches: one for each library that runs models."""

    def generate(self, batch: Batch, search: Search) -> list[list[Hypothesis]]:
        """The n_best hypotheses of each of the B sources, best first; none where nothing can be written."""
        ...


class Generator:
    """A trained encoder–decoder model, ready to write.

    Attributes:
        task, source, target, runner: what it is made of; `source` and `target` are tokenizers.
        search: how it searches unless told otherwise.
        max_length: tokens of a text that are read at a time. A translation's longer texts are cut into sentences, which
            are translated one by one; what a summary is made of loses its end.
        max_tokens: tokens that the runner is given at a time.
    """

    def __init__(
        self,
        task: Generation,
        source: Tokenizer,
        target: Tokenizer,
        runner: GeneratingRunner,
        max_length: int,
        search: Search | None = None,
        max_tokens: int = 2048,
    ) -> None:
        self.task, self.source, self.target, self.runner = task, source, target, runner
        self.max_length, self.search, self.max_tokens = max_length, search or Search(), max_tokens

    def predict(self, inputs: Iterable[Input], search: Search | None = None) -> list[dict[str, Any]]:
        """One answer an input, in the order given: {"text", "score"}, with "others" where n_best asks for more.

        An input is a string or {"text"}. White space alone gives an empty text.

        Raises:
            BadInput: an input is something else, or no valid Unicode, or `search` is no Search.
        """
        if not isinstance(search, Search | None):
            raise BadInput(f"search: must be a bertram.Search, not {type(search).__name__}")
        texts = strings_of(singles_of(inputs, self.task.name))
        answers: list[dict[str, Any]] = []
        for chunk in chunked(len(texts)):
            answers += self._answers(texts[chunk], search or self.search)
        return answers

    def write(self, texts: Sequence[str], search: Search | None = None) -> list[str]:
        """The best text for each of [N]."""
        return [answer["text"] for answer in self.predict(texts, search)]

    def _answers(self, texts: Sequence[str], search: Search) -> list[dict[str, Any]]:
        _, lengths = self.source.pieces(texts, self._room)
        parts = [self._parts(text, length <= self._room) for text, length in zip(texts, lengths, strict=True)]
        found = iter(self._generate([before + piece.strip() for before, own in parts for piece in own], search))
        answers = []
        for _, own in parts:
            written = [next(found) for _ in own]
            ranks = [
                self._joined(own, [ranked[min(rank, len(ranked) - 1)] for ranked in written])
                for rank in range(max((len(ranked) for ranked in written), default=1))
            ]
            first, *others = self.task.answers(*zip(*ranks, strict=True))
            answers.append(first | {"others": others} if search.n_best > 1 else first)
        return answers

    @property
    def _room(self) -> int:
        """Tokens of a text, without those around it, that are read at a time."""
        return self.max_length - self.source.added

    def _parts(self, text: str, fits: bool) -> tuple[str, list[str]]:
        """A text in pieces that the model can read, one if it `fits`, none of white space alone.

        Before them what is to be put before each: every piece has to say which language to write.
        """
        if not text.strip():
            return "", []
        if fits or not self.task.splits:
            return "", [text]
        code, rest = self.source.split_code(text.lstrip())
        before = f"{code} " if code else ""

        def measure(pieces: list[str]) -> Sequence[int]:
            counts: list[int] = self.source.pieces([before + piece for piece in pieces])[1].tolist()
            return counts

        return before, split_long(rest, measure, self._room)

    def _generate(self, texts: Sequence[str], search: Search) -> list[list[Hypothesis]]:
        batch, _ = self.source.encode(texts, max_length=self.max_length)
        found: list[list[Hypothesis]] = [[]] * len(texts)
        most = max(1, _MOST_SCORES // (search.beam_size * self.target.vocab_size))
        # Every token written looks at all sources of a run, padded to the longest.
        for rows in budgeted(batch.lengths, self.max_tokens, most, 2 * self.max_tokens):
            for row, hypotheses in zip(rows, self.runner.generate(batch.select(rows), search), strict=True):
                found[row] = hypotheses or [Hypothesis([], 0.0)]
        return found

    def _joined(self, pieces: Sequence[str], hypotheses: Sequence[Hypothesis]) -> tuple[str, float]:
        """What was written for the pieces of a text, with the white space between them, and the mean score.

        Of two languages one may part its sentences by spaces and the other not; the one that is written decides.
        """
        if not pieces:
            return "", 0.0
        written = ""
        for piece, hypothesis in zip(pieces, hypotheses, strict=True):
            text, read = self.target.written(hypothesis.ids), piece.rstrip()
            if written.endswith(" ") and _ends_wide(written) and _is_wide(text.lstrip(_QUOTES)[:1]):
                written = written.removesuffix(" ")
            written += text + piece[len(read) :]
            if len(read) == len(piece) and _ends_wide(read) and not _ends_wide(text):
                written += " "
        return written.strip(), sum(hypothesis.score for hypothesis in hypotheses) / len(hypotheses)


def _ends_wide(text: str) -> bool:
    return _is_wide(text.rstrip(f" {_QUOTES}")[-1:])


def _is_wide(character: str) -> bool:
    """Whether a character is of a script that has no spaces between words, or its punctuation."""
    if "\uff61" <= character <= "\uff9f":  # Japanese of half the width
        return True
    return character != "" and unicodedata.east_asian_width(character) in "WF" and not "\uac00" <= character <= "\ud7a3"
