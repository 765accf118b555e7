"""From the packed batch to tensors: the only place where numpy turns into torch.

Letters: B sequences, T tokens; inside a group b sequences padded to s tokens, n real tokens.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bertram.batch import Batch, Examples, Ints

# Tokens of padding that cost as much as one more group of kernel calls; from the profile in docs/experiments.md.
_GROUP_COST = 256
_ROUNDING = 16


class AttentionGroup(NamedTuple):
    """Neighbouring sequences of similar length that attention computes together as [b, s]."""

    sequences: int  # b
    length: int  # s, that of the longest of them, rounded up
    tokens: int  # n
    gather: Tensor  # [b * s], row of the group's tokens for every slot; 0 for padding
    scatter: Tensor  # [n], slot of every token
    mask: Tensor | None  # [b, 1, 1, s], True where a slot holds a token; None when all do


@dataclass(frozen=True)
class PackedTensors:
    """A Batch as int64 tensors on one device, with the grouping that attention uses."""

    token_ids: Tensor  # [T]
    segment_ids: Tensor  # [T]
    positions: Tensor  # [T]
    first: Tensor  # [B], where every sequence begins
    groups: list[AttentionGroup]
    first_groups: list[AttentionGroup]  # the same sequences' first tokens alone


def to_tensors(batch: Batch, device: torch.device | str = "cpu") -> PackedTensors:
    """Move a Batch to `device`. Sequences sorted by length give the least padding inside attention."""

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.astype(np.int64)).to(device)

    cuts = attention_groups(batch.lengths)
    return PackedTensors(
        tensor(batch.token_ids),
        tensor(batch.segment_ids),
        tensor(batch.positions),
        tensor(batch.offsets[:-1]),
        _groups(batch.lengths, cuts, device),
        _groups(np.ones(len(batch), np.int32), cuts, device, rounding=1),
    )


@dataclass(frozen=True)
class PackedPairs:
    """B sources and the B targets that are learned from them, with the grouping of both that cross-attention uses."""

    source: PackedTensors
    target: PackedTensors
    source_groups: list[AttentionGroup]
    target_groups: list[AttentionGroup]


def pairs_to_tensors(source: Batch, target: Batch, device: torch.device | str = "cpu") -> PackedPairs:
    """Move two Batches of B sequences each to `device`."""
    cuts = attention_groups(source.lengths, target.lengths)
    return PackedPairs(
        to_tensors(source, device),
        to_tensors(target, device),
        _groups(source.lengths, cuts, device),
        _groups(target.lengths, cuts, device),
    )


def inputs_of(examples: Examples, device: torch.device | str = "cpu") -> PackedTensors | PackedPairs:
    """What a model reads of examples: one Batch, or two of an encoder and its decoder."""
    if examples.inputs_b is None:
        return to_tensors(examples.inputs, device)
    return pairs_to_tensors(examples.inputs, examples.inputs_b, device)


class Targets(NamedTuple):
    """What a head is to say, and where; M targets."""

    rows: Tensor | None  # [M] of the T tokens or B sequences; None: all of them
    values: Tensor  # [M]


def targets_of(examples: Examples, device: torch.device | str = "cpu") -> dict[str, Targets]:
    """The targets of every head that has one here, on `device`."""
    found = {}
    for head, (rows, values) in examples.targets().items():
        if np.issubdtype(values.dtype, np.integer):
            values = values.astype(np.int64)
        places = None if rows is None else torch.from_numpy(rows).to(device)
        found[head] = Targets(places, torch.from_numpy(values).to(device))
    return found


def attention_groups(*lengths: Ints) -> list[tuple[int, int]]:
    """Cut [B] lengths, in their order, into runs so that padding plus a fixed cost a run is least.

    Of several lengths a sequence, as of a source and a target, the padding of all counts. Returns (start, end) of every
    run. Exact, by dynamic programming over the places where a rounded length changes.
    """
    widths = _rounded(np.stack(lengths))  # [number of lengths, B]
    count = widths.shape[1]
    edges = [0, *(np.flatnonzero((np.diff(widths) != 0).any(0)) + 1).tolist(), count] if count else [0]
    total = np.concatenate([[0], np.cumsum(widths.sum(0), dtype=np.int64)])
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(edges)):
        longest, choices = np.zeros(len(widths), np.int64), []
        for start in range(end - 1, -1, -1):
            longest = np.maximum(longest, widths[:, edges[start]])
            slots = int(longest.sum()) * (edges[end] - edges[start])
            padding = slots - (total[edges[end]] - total[edges[start]])
            if padding > best[end - 1][0] + _GROUP_COST:
                break  # wider runs only pad more
            choices.append((best[start][0] + padding + _GROUP_COST, start))
        best.append(min(choices))
    cuts, end = [], len(edges) - 1
    while end > 0:
        start = best[end][1]
        cuts.append((edges[start], edges[end]))
        end = start
    return cuts[::-1]


def _groups(
    lengths: Ints, cuts: list[tuple[int, int]], device: torch.device | str, rounding: int = _ROUNDING
) -> list[AttentionGroup]:
    return [_group(lengths[start:end], torch.device(device), rounding) for start, end in cuts]


def _group(lengths: Ints, device: torch.device, rounding: int) -> AttentionGroup:
    b, s, n = len(lengths), int(_rounded(lengths.max(initial=1), rounding)), int(lengths.sum())
    real = np.arange(s) < lengths[:, None]  # [b, s]
    gather = np.zeros((b, s), np.int64)
    gather[real] = np.arange(n)
    return AttentionGroup(
        sequences=b,
        length=s,
        tokens=n,
        gather=torch.from_numpy(gather.ravel()).to(device),
        scatter=torch.from_numpy(np.flatnonzero(real)).to(device),
        mask=None if b * s == n else torch.from_numpy(real[:, None, None, :]).to(device),
    )


def _rounded(lengths: Ints, rounding: int = _ROUNDING) -> Ints:
    """Up to a multiple of 16: a softmax over rows of 14 takes torch five times as long as over rows of 16."""
    return (lengths + rounding - 1) // rounding * rounding
