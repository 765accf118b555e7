"""Where a training's examples come from: a batch for every position, and the position after it."""

import math
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bertram.batch import Examples, Position


class Feed(Protocol):
    """An endless stream of batches that depends on nothing but the position asked for.

    Attributes:
        steps_per_epoch, tokens_per_step: what budgets are turned into steps by; may be estimates.
    """

    start: Position
    steps_per_epoch: float
    tokens_per_step: float

    def take(self, position: Position) -> tuple[Examples, Position]:
        """The batch at `position`, and where the next one begins."""
        ...


def first_epoch(feed: Feed, tokens: float = math.inf) -> Iterator[Examples]:
    """The batches that a model is judged on: all of a feed's first epoch, or the first ones, until they hold `tokens`.

    In each, similar lengths stand together, which keeps padding inside attention small.
    """
    position, taken = feed.start, 0
    while position[0] == 0 and taken < tokens:
        examples, position = feed.take(position)
        taken += examples.tokens
        yield examples.select(np.argsort(examples.lengths, kind="stable"))


class ShuffledRows:
    """All examples of a data set in a new order every epoch, cut into batches of `batch_size` or by `batch_tokens`."""

    start: Position = (0, 0)

    def __init__(self, examples: Examples, batch_size: int | None, seed: int, batch_tokens: int | None = None) -> None:
        """With `batch_tokens` a batch is filled up to so many tokens, and a longer example is a batch of its own."""
        self.examples, self.batch_size, self.batch_tokens, self.seed = examples, batch_size, batch_tokens, seed
        self._epoch, self._batches = -1, [np.empty(0, np.int64)]
        self.steps_per_epoch: float = len(self._batches_of(0))
        self.tokens_per_step = examples.tokens / self.steps_per_epoch

    def take(self, position: Position) -> tuple[Examples, Position]:
        """The batch at (epoch, number of the batch in it)."""
        epoch, place = position
        batches = self._batches_of(epoch)
        following = (epoch, place + 1) if place + 1 < len(batches) else (epoch + 1, 0)
        return self.examples.select(batches[place]), following

    def _batches_of(self, epoch: int) -> list[NDArray[np.int64]]:
        if epoch != self._epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.examples))
            self._batches = np.split(order, self._cuts(order))
            self._epoch = epoch
        return self._batches

    def _cuts(self, order: NDArray[np.int64]) -> list[int]:
        """Where in the order a new batch begins, but for the first."""
        if self.batch_tokens is None:
            assert self.batch_size is not None
            return list(range(self.batch_size, len(order), self.batch_size))
        cuts, total = [], 0
        for place, length in enumerate(self.examples.lengths[order].tolist()):
            if total + length > self.batch_tokens and total:
                cuts.append(place)
                total = 0
            total += length
        return cuts
