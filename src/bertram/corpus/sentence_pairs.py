"""What a pre-training sequence is made of: spans of text, and pairs of spans for a sentence objective.

A place is a token's number in a token store. A span is a stretch of places within one passage; it ends with a sentence
where it can, else before a word. Only a word that alone is longer than a sequence is cut.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

import numpy as np

from bertram.batch import IGNORED
from bertram.config import SentenceObjective

IS_NEXT, IS_RANDOM = 0, 1
IN_ORDER, SWAPPED = 0, 1
"""Sentence labels, numbered as in transformers."""

_SHORT = 0.1  # share of sequences that aim at a random shorter length (google-research/bert, google-research/albert)


class Pair(NamedTuple):
    """A sequence: span A, span B (empty where there is none) and the sentence label, or IGNORED."""

    a: int
    a_end: int
    b: int
    b_end: int
    label: int


class Draws:
    """Random numbers one at a time, at a fraction of a Generator's price for one."""

    def __init__(self, random: np.random.Generator) -> None:
        self._numbers: Iterator[float] = (number for _ in repeat(None) for number in random.random(4096).tolist())

    def share(self) -> float:
        """Uniform in [0, 1)."""
        return next(self._numbers)

    def below(self, count: int) -> int:
        """A whole number from 0 to count - 1."""
        return int(next(self._numbers) * count)

    def length(self, longest: int) -> int:
        """How many tokens of text a sequence is to hold: mostly `longest`, now and then fewer, but two at least."""
        return longest if self.share() >= _SHORT or longest < 3 else 2 + self.below(longest - 1)


@dataclass(frozen=True, slots=True)
class Passage:
    """Neighbouring sentences of one document."""

    edges: list[int]  # the places where sentences begin, and the end of the last one
    words: Callable[[int, int], list[int]]  # the places in start:end where words begin

    def span_end(self, start: int, length: int, longest: int) -> int:
        """Where a span of about `length` tokens from `start` ends: of fewer, so as to end with a sentence or a word, or
        of more, up to `longest`, where a first word takes them."""
        limit = start + length
        if limit >= self.edges[-1]:
            return self.edges[-1]
        end = self.edges[bisect_right(self.edges, limit) - 1]
        if end > start:
            return end
        if words := self.words(start + 1, limit + 1):
            return words[-1]
        furthest = min(start + longest, self.edges[-1])
        return next(iter(self.words(limit + 1, furthest)), furthest)

    def span_near(self, start: int, about: int, most: int, longest: int) -> int:
        """Where a span of about `about` tokens ends: with the nearest sentence within `most`, or as `span_end`."""
        edges = self.edges
        after = bisect_left(edges, start + about)
        before = edges[after - 1] if after else start
        if (
            after < len(edges)
            and edges[after] <= start + most
            and edges[after] - start - about < start + about - before
        ):
            return edges[after]
        return before if before > start else self.span_end(start, about, longest)

    def begins_sentence(self, place: int) -> bool:
        return self.edges[bisect_left(self.edges, place)] == place

    def middle(self, start: int, end: int, draws: Draws) -> int:
        """A place inside start:end to part it at, drawn from where sentences begin, or else words.

        Returns `start` where neither begins inside.
        """
        first, last = bisect_right(self.edges, start), bisect_left(self.edges, end)
        if last > first:
            return self.edges[first + draws.below(last - first)]
        words = self.words(start + 1, end)
        return words[draws.below(len(words))] if words else start


Foreign = Callable[[int, int, int, bool], tuple[int, int]]
"""A span of another document: about how long, how long where it holds a sentence or several words, how long at all, and
whether it begins with a sentence or with any word."""


def next_sentence_pairs(passage: Passage, room: int, draws: Draws, foreign: Foreign) -> Iterator[Pair]:
    """Next-sentence prediction (Devlin et al. 2018, A.1), in sequences of at most `room` tokens.

    In half of the pairs B is the text that follows A. In the others it is of another document, and what followed A
    opens the next sequence. It takes the room there is or, where the document ended, as much as what followed A, since
    lengths must not tell the label. A passage of one word makes a sequence without a pair.
    """
    start, stop = passage.edges[0], passage.edges[-1]
    while start < stop:
        length = draws.length(room - 3)
        end = passage.span_end(start, length, room - 3)
        middle = passage.middle(start, end, draws)
        if middle == start:
            yield Pair(start, end, 0, 0, IGNORED)
            start = end
        elif draws.share() < 0.5:
            yield Pair(start, middle, middle, end, IS_NEXT)
            start = end
        else:
            left = max(end - start, length) - (middle - start)
            about = left if end < stop else end - middle
            b, b_end = foreign(about, left, room - 4, passage.begins_sentence(middle))
            if middle - start > (left := room - 3 - (b_end - b)):  # B's first word is long
                middle = next(reversed(passage.words(start + 1, start + left + 1)), start)
            if middle == start:
                yield Pair(start, end, 0, 0, IGNORED)
                start = end
            else:
                yield Pair(start, middle, b, b_end, IS_RANDOM)
                start = middle


def sentence_order_pairs(passage: Passage, room: int, draws: Draws, foreign: Foreign) -> Iterator[Pair]:
    """Sentence-order prediction (Lan et al. 2019, 3.1), in sequences of at most `room` tokens.

    Two consecutive spans of one document, half of them swapped; never another document's, however short this one is. A
    passage of one word makes a sequence without a pair.
    """
    start, stop = passage.edges[0], passage.edges[-1]
    while start < stop:
        end = passage.span_end(start, draws.length(room - 3), room - 3)
        middle = passage.middle(start, end, draws)
        if middle == start:
            yield Pair(start, end, 0, 0, IGNORED)
        elif draws.share() < 0.5:
            yield Pair(start, middle, middle, end, IN_ORDER)
        else:
            yield Pair(middle, end, start, middle, SWAPPED)
        start = end


def single_spans(passage: Passage, room: int, draws: Draws, foreign: Foreign) -> Iterator[Pair]:
    """No sentence objective: one span a sequence of at most `room` tokens."""
    start, stop = passage.edges[0], passage.edges[-1]
    while start < stop:
        end = passage.span_end(start, draws.length(room - 2), room - 2)
        yield Pair(start, end, 0, 0, IGNORED)
        start = end


OBJECTIVES: dict[SentenceObjective, Callable[[Passage, int, Draws, Foreign], Iterator[Pair]]] = {
    "nsp": next_sentence_pairs,
    "sop": sentence_order_pairs,
    "none": single_spans,
}
