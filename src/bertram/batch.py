"""The packed batch: the one representation of text between tokenizer and model.

Letters: B sequences, T tokens of all of them together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Batch:
    """B sequences laid end to end, without padding.

    Sequence i is the slice offsets[i]:offsets[i + 1] of the other three. A whole data set is a Batch too: training and
    prediction `select` from it.
    """

    token_ids: Ints  # [T]
    segment_ids: Ints  # [T], 0 for a first text and 1 for a second
    positions: Ints  # [T], counted from 0 within each sequence
    offsets: Ints  # [B + 1], from 0 to T

    @classmethod
    def pack(cls, sequences: Sequence[Sequence[int]], segment_ids: Sequence[Sequence[int]] | None = None) -> "Batch":
        """Lay sequences of token ids end to end; without `segment_ids` all are 0."""
        offsets = np.zeros(len(sequences) + 1, np.int32)
        np.cumsum([len(sequence) for sequence in sequences], out=offsets[1:])
        token_ids = np.fromiter((token for sequence in sequences for token in sequence), np.int32, count=offsets[-1])
        segments = np.zeros_like(token_ids)
        if segment_ids is not None:
            segments[:] = np.fromiter((s for sequence in segment_ids for s in sequence), np.int32, count=offsets[-1])
        return cls(token_ids, segments, _ramps(offsets), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """Tokens of each sequence, [B]."""
        return np.diff(self.offsets)

    def select(self, indices: Sequence[int] | NDArray[np.integer]) -> "Batch":
        """The sequences at `indices`, in that order, as a Batch of their own."""
        chosen = np.asarray(indices, dtype=np.int64)
        offsets = np.zeros(len(chosen) + 1, np.int32)
        np.cumsum(self.lengths[chosen], out=offsets[1:])
        positions = _ramps(offsets)
        tokens = np.repeat(self.offsets[:-1][chosen], np.diff(offsets)) + positions
        return Batch(self.token_ids[tokens], self.segment_ids[tokens], self.positions[tokens], offsets)


def _ramps(offsets: Ints) -> Ints:
    """0, 1, 2, … within every sequence, [T]."""
    return np.arange(offsets[-1], dtype=np.int32) - np.repeat(offsets[:-1], np.diff(offsets))


def budgeted(lengths: Ints, max_tokens: int) -> list[NDArray[np.int64]]:
    """Split sequences, shortest first, into runs of at most `max_tokens` tokens; a longer sequence is a run of its own.

    Returns index arrays that together name every sequence once. Similar lengths stand together, which is what keeps
    padding inside attention small.
    """
    order = np.argsort(lengths, kind="stable")
    runs, start, total = [], 0, 0
    for place, length in enumerate(lengths[order].tolist()):
        if total + length > max_tokens and place > start:
            runs.append(order[start:place])
            start, total = place, 0
        total += length
    if start < len(order):
        runs.append(order[start:])
    return runs
