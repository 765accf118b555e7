"""From the packed batch to tensors: the only place where numpy turns into torch.

Letters: B sequences, T tokens.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bertram.batch import Batch, Examples, Ints


@dataclass(frozen=True)
class PackedTensors:
    """A Batch as int64 tensors on one device, and its lengths as they were, for attention to be laid out by."""

    token_ids: Tensor  # [T]
    segment_ids: Tensor  # [T]
    positions: Tensor  # [T]
    first: Tensor  # [B], where every sequence begins
    lengths: Ints  # [B]


def to_tensors(batch: Batch, device: torch.device | str = "cpu") -> PackedTensors:
    """Move a Batch to `device`. Sequences sorted by length give the least padding inside attention."""

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.astype(np.int64)).to(device)

    return PackedTensors(
        tensor(batch.token_ids),
        tensor(batch.segment_ids),
        tensor(batch.positions),
        tensor(batch.offsets[:-1]),
        batch.lengths,
    )


@dataclass(frozen=True)
class PackedPairs:
    """B sources and the B targets that are learned from them, or two texts each that are compared."""

    source: PackedTensors
    target: PackedTensors


def pairs_to_tensors(source: Batch, target: Batch, device: torch.device | str = "cpu") -> PackedPairs:
    """Move two Batches of B sequences each to `device`."""
    return PackedPairs(to_tensors(source, device), to_tensors(target, device))


def inputs_of(examples: Examples, device: torch.device | str = "cpu") -> PackedTensors | PackedPairs:
    """What a model reads of examples: one Batch, or two."""
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
