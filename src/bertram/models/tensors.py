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


def to_tensors(batch: Batch, device: torch.device | str = "cpu") -> PackedTensors:
    """Move a Batch to `device`. Sequences sorted by length give the least padding inside attention."""

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.astype(np.int64)).to(device)

    lengths = batch.lengths
    groups = []
    for start, end in attention_groups(lengths):
        groups.append(_group(lengths[start:end], torch.device(device)))
    return PackedTensors(
        tensor(batch.token_ids), tensor(batch.segment_ids), tensor(batch.positions), tensor(batch.offsets[:-1]), groups
    )


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


def attention_groups(lengths: Ints) -> list[tuple[int, int]]:
    """Cut [B] lengths, in their order, into runs so that padding plus a fixed cost a run is least.

    Returns (start, end) of every run. Exact, by dynamic programming over the places where the rounded length changes.
    """
    widths = _rounded(lengths)
    edges = [0, *(np.flatnonzero(np.diff(widths)) + 1).tolist(), len(lengths)]
    total = np.concatenate([[0], np.cumsum(widths, dtype=np.int64)])
    best: list[tuple[float, int]] = [(0.0, 0)]
    for end in range(1, len(edges)):
        longest, choices = 0, []
        for start in range(end - 1, -1, -1):
            longest = max(longest, int(widths[edges[start] : edges[start + 1]].max(initial=0)))
            padding = longest * (edges[end] - edges[start]) - (total[edges[end]] - total[edges[start]])
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


def _group(lengths: Ints, device: torch.device) -> AttentionGroup:
    b, s, n = len(lengths), int(_rounded(lengths.max(initial=1))), int(lengths.sum())
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


def _rounded(lengths: Ints) -> Ints:
    """Up to a multiple of 16: a softmax over rows of 14 takes torch five times as long as over rows of 16."""
    return (lengths + _ROUNDING - 1) // _ROUNDING * _ROUNDING
