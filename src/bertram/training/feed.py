"""Where a training's examples come from: a batch for every position, and the position after it."""

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bertram.batch import Examples

Position = tuple[int, ...]
"""A place in a feed, kept in checkpoints: epoch first."""


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


class ShuffledRows:
    """All examples of a data set in a new order every epoch, `batch_size` of them a step."""

    start: Position = (0, 0)

    def __init__(self, examples: Examples, batch_size: int, seed: int) -> None:
        self.examples, self.batch_size, self.seed = examples, batch_size, seed
        self.steps_per_epoch: float = math.ceil(len(examples) / batch_size)
        self.tokens_per_step = len(examples.inputs.token_ids) / self.steps_per_epoch
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def take(self, position: Position) -> tuple[Examples, Position]:
        """The batch at (epoch, number of the batch in it)."""
        epoch, place = position
        rows = self._order_of(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        following = (epoch, place + 1) if place + 1 < self.steps_per_epoch else (epoch + 1, 0)
        return self.examples.select(rows), following

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, epoch]).permutation(len(self.examples))
            self._epoch = epoch
        return self._order
