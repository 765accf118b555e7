"""The packed batch: the one representation of text between tokenizer and model.

Letters: B sequences, T tokens of all of them together.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertram.errors import BadInput

Ints = NDArray[np.int32]

IGNORED = -100
"""The whole-number target of what is not to be learned from, as in PyTorch's cross_entropy."""

Position = tuple[int, ...]
"""A place in a feed of batches, kept in checkpoints: epoch first."""

NO_PAIRS = "the model has no second segment (type_vocab_size < 2), so it cannot read pairs"

_LEAST_LENGTH = 3
"""Tokens of the shortest text that is read: [CLS], one, [SEP]."""

_CHUNK = 4096


def checked_length(value: Any, what: str, positions: int | None = None) -> int:
    """A `value` for the tokens that texts are cut to; errors call it `what`, a file and its key or an option.

    Raises:
        BadInput: it is no whole number, too small, or more than the positions of the model.
    """
    if type(value) is not int or value < _LEAST_LENGTH or (positions is not None and value > positions):
        bound = "" if positions is None else f" to {positions}"
        raise BadInput(f"{what} must be a whole number from {_LEAST_LENGTH}{bound}, not {value!r:.40}")
    return value


def check_positions(longest: int, positions: int) -> None:
    """Refuse texts that are longer than the positions that a model knows.

    Raises:
        BadInput: one of `longest` tokens is.
    """
    if longest > positions:
        raise BadInput(f"a text of {longest} tokens is longer than the model's {positions} positions")


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
        offsets, positions = laid_out(np.array([len(sequence) for sequence in sequences], np.int64))
        token_ids = np.fromiter((token for sequence in sequences for token in sequence), np.int32, count=offsets[-1])
        segments = np.zeros_like(token_ids)
        if segment_ids is not None:
            segments[:] = np.fromiter((s for sequence in segment_ids for s in sequence), np.int32, count=offsets[-1])
        return cls(token_ids, segments, positions, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Ints:
        """Tokens of each sequence, [B]."""
        return np.diff(self.offsets)

    def check(self, vocab_size: int, positions: int, segments: int) -> None:
        """Make sure that a model with so many of each can look up all that stands here.

        Raises:
            BadInput: a token, position or segment is none of the model's, a sequence is empty, or the arrays do not
                belong together.
        """
        total, starts, ends = len(self.token_ids), self.offsets[:-1], self.offsets[1:]
        if self.offsets[0] != 0 or (starts > ends).any() or self.positions.min(initial=0) < 0:  # differences may wrap
            raise BadInput("the batch's offsets must start at 0, and offsets and positions must not be negative")
        if not total == self.offsets[-1] == len(self.segment_ids) == len(self.positions):
            raise BadInput(f"the batch's offsets, segments or positions are not those of its {total:,} tokens")
        if (starts == ends).any():
            raise BadInput("a text of no tokens")
        if self.token_ids.min(initial=0) < 0 or self.token_ids.max(initial=0) >= vocab_size:
            raise BadInput(f"a token id lies outside the model's vocabulary of {vocab_size:,}")
        check_positions(int(self.positions.max(initial=0)) + 1, positions)
        if self.segment_ids.min(initial=0) < 0 or self.segment_ids.max(initial=0) >= max(1, segments):
            raise BadInput(NO_PAIRS if segments < 2 else f"a segment id lies outside the model's {segments}")

    def select(self, indices: Sequence[int] | NDArray[np.integer]) -> "Batch":
        """The sequences at `indices`, in that order, as a Batch of their own."""
        return self.taken(indices)[0]

    def taken(self, indices: Sequence[int] | NDArray[np.integer]) -> tuple["Batch", NDArray[np.int64]]:
        """`select`, and where the tokens of that Batch stand here, [T]."""
        chosen = np.asarray(indices, np.int64)
        offsets = np.zeros(len(chosen) + 1, np.int32)
        np.cumsum(self.offsets[chosen + 1] - self.offsets[chosen], out=offsets[1:])
        tokens = ranges(self.offsets[chosen], np.diff(offsets))
        return Batch(self.token_ids[tokens], self.segment_ids[tokens], self.positions[tokens], offsets), tokens


@dataclass(frozen=True)
class Examples:
    """A Batch, or two of as many sequences, and what heads learn from them, by the heads' names."""

    inputs: Batch
    labels: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # [B] each: a label or value for a sequence
    token_labels: Mapping[str, Ints] = field(default_factory=dict)  # [T] each: a label for a token
    inputs_b: Batch | None = None
    """A decoder's input, to whose T tokens `token_labels` then refer, or the second texts of pairs encoded apart."""

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def lengths(self) -> Ints:
        """Tokens of each example, [B]; of two Batches those of the longer."""
        inputs, inputs_b = self.inputs, self.inputs_b
        return inputs.lengths if inputs_b is None else np.maximum(inputs.lengths, inputs_b.lengths)

    @property
    def tokens(self) -> int:
        """Tokens of all examples together; where a decoder learns, of those that it writes."""
        if self.inputs_b is None:
            return len(self.inputs.token_ids)
        return len(self.inputs_b.token_ids) + (0 if self.token_labels else len(self.inputs.token_ids))

    def select(self, indices: Sequence[int] | NDArray[np.integer]) -> "Examples":
        """The examples at `indices`, in that order."""
        chosen = np.asarray(indices, np.int64)
        (inputs, tokens), inputs_b = self.inputs.taken(chosen), self.inputs_b
        if inputs_b is not None:
            inputs_b, tokens = inputs_b.taken(chosen)
        labels = {head: values[chosen] for head, values in self.labels.items()}
        return Examples(inputs, labels, {head: values[tokens] for head, values in self.token_labels.items()}, inputs_b)

    def targets(self) -> dict[str, tuple[NDArray[np.int64] | None, NDArray[Any]]]:
        """Each head's targets, M of them: where they stand, [M] of the B sequences or T tokens, and what they are, [M].

        None stands for everywhere. Heads without a target here are left out.
        """
        found: dict[str, tuple[NDArray[np.int64] | None, NDArray[Any]]] = {}
        for head, values in (*self.labels.items(), *self.token_labels.items()):
            whole = np.issubdtype(values.dtype, np.integer)
            rows = np.flatnonzero(values != IGNORED) if whole else np.arange(len(values))
            if len(rows):
                found[head] = (None, values) if len(rows) == len(values) else (rows, values[rows])
        return found

    def counts(self) -> dict[str, int]:
        """How many targets each head has here; those with none are left out."""
        return {head: len(values) for head, (_, values) in self.targets().items()}


def laid_out(lengths: NDArray[np.integer]) -> tuple[Ints, Ints]:
    """Offsets [B + 1] and positions [T] of sequences of these lengths, [B], laid end to end."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return offsets, ranges(np.zeros_like(lengths), lengths).astype(np.int32)


def ranges(starts: NDArray[np.integer], lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    """start, start + 1, … of the given lengths, range behind range, [sum of lengths]."""
    ends = np.cumsum(lengths, dtype=np.int64)
    places = np.repeat(starts - ends + lengths, lengths)
    return places + np.arange(len(places))


def chunked(texts: int) -> Iterator[slice]:
    """Slices of so many texts, to tokenize one after the other.

    Each is of enough texts to find like lengths among, and of few enough to take no more memory for more texts.
    """
    for start in range(0, texts, _CHUNK):
        yield slice(start, start + _CHUNK)


def budgeted(
    lengths: Ints, max_tokens: int, max_rows: float = math.inf, max_padded: float = math.inf
) -> list[NDArray[np.int64]]:
    """Split sequences, shortest first, into runs of at most `max_tokens` tokens; a longer sequence is a run of its own.

    No run holds more than `max_rows` sequences, nor `max_padded` tokens when all are padded to the longest.

    Returns index arrays that together name every sequence once. Similar lengths stand together, which is what keeps
    padding inside attention small.
    """
    order = np.argsort(lengths, kind="stable")
    runs, start, total = [], 0, 0
    for place, length in enumerate(lengths[order].tolist()):
        rows = place - start
        if rows and (total + length > max_tokens or rows == max_rows or (rows + 1) * length > max_padded):
            runs.append(order[start:place])
            start, total = place, 0
        total += length
    if start < len(order):
        runs.append(order[start:])
    return runs
