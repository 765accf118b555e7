"""Where the sequences of a packed batch stand while attention mixes them; the same for all layers.

Sequences of similar length stand in one block [b, s], padded; that is the only place in a model where padding exists.
Rows move between the packed order and the blocks head by head, in one gather each way, which also brings every head's
rows together. Kernels of newer GPUs read packed rows as they are (Dao 2023), in 16 bits and for most widths of a head.

Letters: T tokens, R of them asking, B sequences, H width, h heads of d = H / h; inside a block b sequences of s slots,
r slots for what asks, n real tokens. R is T and r is s where a text attends to itself.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bertram.batch import Ints

# Tokens of padding that cost as much as one more group of kernel calls; from the profile in docs/experiments.md.
_GROUP_COST = 256
_ROUNDING = 16
_HALVES = (torch.float16, torch.bfloat16)
_WIDEST_HEAD, _HEAD_MULTIPLE, _LEAST_CAPABILITY = 192, 8, (8, 0)
"""What the kernels for packed rows take, their gradients on every such GPU included."""


@dataclass(frozen=True)
class Side:
    """Where the heads of what asks, or of what is asked, stand in a block. A place is a row of d numbers."""

    length: int  # s, or r
    rows: slice  # its n of the T, or of the R
    to_slots: Tensor  # [b * h * s], the place in [T, h] that every slot of [b, h, s] takes
    from_slots: Tensor  # [n * h], the slot of every place


@dataclass(frozen=True)
class Block:
    """Queries and keys of sequences that attention computes together. Values stand as keys do, beside them."""

    queries: Side
    keys: Side  # of keys and values side by side: [T, 2, h] and [2, b, h, s]
    real: Tensor | None  # [b, 1, r, 1], 1 where a slot holds a query and 0 where it is padding; None: no padding
    mask: Tensor | None  # [b, 1, 1, s] or [r, s], added to scores: 0 or -inf, float32


class Ragged(NamedTuple):
    """Sequences that attention reads where they are."""

    query_starts: Tensor  # [B + 1], int32
    key_starts: Tensor  # likewise
    longest_query: int
    longest_key: int
    causal: bool


Layout = list[Block] | Ragged


def layout(queries: Ints, keys: Ints, heads: int, like: Tensor, *, causal: bool = False) -> Layout:
    """How attention reads B sequences.

    Args:
        queries, keys: lengths [B] of what asks and of what is asked; the very same where texts attend to themselves.
            Sequences sorted by length give the least padding.
        like: has the device, the precision and, in its last dimension, the width of the queries.
        causal: a token sees those before it and itself alone.
    """
    if _is_read_packed(like, like.shape[-1] // heads):
        starts = [torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int32)) for lengths in (queries, keys)]
        query_starts, key_starts = torch.stack(starts).to(like.device)
        return Ragged(query_starts, key_starts, int(queries.max()), int(keys.max()), causal)
    cuts = attention_groups(keys) if queries is keys else attention_groups(queries, keys)
    return list(_blocks(queries, keys, cuts, heads, like.device, causal=causal))


def _is_read_packed(like: Tensor, width: int) -> bool:
    """Whether there is a kernel that reads such rows, of heads of that width, as they are."""
    return (
        like.is_cuda
        and like.dtype in _HALVES
        and width <= _WIDEST_HEAD
        and width % _HEAD_MULTIPLE == 0
        and torch.cuda.get_device_capability(like.device) >= _LEAST_CAPABILITY
        and torch.backends.cuda.is_flash_attention_available()
    )


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


def _blocks(
    queries: Ints, keys: Ints, cuts: list[tuple[int, int]], heads: int, device: torch.device, *, causal: bool
) -> Iterator[Block]:
    query_row = key_row = 0
    for start, end in cuts:
        asking, asked = queries[start:end], keys[start:end]
        query_side, query_real = _side(asking, query_row, heads, 1, device)
        key_side, key_real = _side(asked, key_row, heads, 2, device)
        mask = None if key_real is None else torch.where(key_real[:, None, None, :], 0.0, -math.inf)
        if causal:  # this hides the padding too, since it stands at the end
            mask = torch.full((query_side.length, key_side.length), -math.inf, device=device).triu(1)
        yield Block(query_side, key_side, None if query_real is None else query_real[:, None, :, None], mask)
        query_row, key_row = query_side.rows.stop, key_side.rows.stop


def _side(lengths: Ints, row: int, heads: int, parts: int, device: torch.device) -> tuple[Side, Tensor | None]:
    """One side of a block whose first token is `row`, and which slots are real, [b, s]; None where all are.

    `parts` is how many matrices stand side by side.
    """
    longest = int(lengths.max(initial=1))
    b, s, n = len(lengths), longest if longest == 1 else int(_rounded(lengths.max())), int(lengths.sum())
    real = np.arange(s) < lengths[:, None]
    gather = np.zeros((b, s), np.int64)  # padding takes the first row of all
    gather[real] = np.arange(n)
    rows = torch.from_numpy(gather + row).to(device).view(b, 1, s)
    scatter = torch.from_numpy(np.flatnonzero(real)).to(device)
    head, part = torch.arange(heads, device=device), torch.arange(parts, device=device)
    slots = (scatter // s * heads * s + scatter % s).view(n, 1) + head * s  # [n, h]
    side = Side(
        length=s,
        rows=slice(row, row + n),
        to_slots=((rows * parts + part.view(parts, 1, 1, 1)) * heads + head.view(heads, 1)).flatten(),
        from_slots=(part.view(parts, 1) * (b * heads * s) + slots.view(n, 1, heads)).flatten(),
    )
    return side, None if b * s == n else torch.from_numpy(real).to(device)


def _rounded(lengths: Ints) -> Ints:
    """Up to a multiple of 16: a softmax over rows of 14 takes torch five times as long as over rows of 16."""
    return (lengths + _ROUNDING - 1) // _ROUNDING * _ROUNDING
