"""Scaled dot-product attention over packed sequences (Vaswani et al. 2017, section 3.2).

Sequences of similar length stand in one block [b, s], padded; that is the only place where padding exists. Rows move
between the packed order and the blocks head by head, in one gather each way, which also brings every head's rows
together. Forward and backward are written out, since what autograd makes of the same steps is three times as slow for
the short texts that most data sets hold (docs/experiments.md).

Letters: T tokens, R of them asking, B sequences, H width, h heads of d = H / h; inside a block b sequences of s slots,
r slots for what asks, n real tokens. R is T and r is s where a text attends to itself.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bertram.models.dropout import keep_mask
from bertram.models.tensors import AttentionGroup


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


def blocks(
    queries: Sequence[AttentionGroup], keys: Sequence[AttentionGroup], heads: int, *, causal: bool = False
) -> list[Block]:
    """Where the heads of a batch's tokens stand; the same for all layers.

    Args:
        queries, keys: groups of the same sequences, and the very same groups where a text attends to itself.
        causal: a token sees those before it and itself alone.
    """
    sides = zip(_sides(queries, heads, 1), _sides(keys, heads, 2), queries, keys, strict=True)
    made = []
    for asking, asked, query_group, key_group in sides:
        real = None if query_group.mask is None else query_group.mask.view(-1, 1, asking.length, 1)
        mask = None if key_group.mask is None else torch.where(key_group.mask, 0.0, -math.inf)
        if causal:  # which hides the padding too, since it stands at the end
            mask = torch.full((asking.length, asked.length), -math.inf, device=key_group.gather.device).triu(1)
        made.append(Block(asking, asked, real, mask))
    return made


def _sides(groups: Sequence[AttentionGroup], heads: int, parts: int) -> Iterator[Side]:
    """`parts` is how many matrices stand side by side."""
    row = 0
    for group in groups:
        b, s, n = group.sequences, group.length, group.tokens
        head = torch.arange(heads, device=group.gather.device)
        part = torch.arange(parts, device=head.device)
        rows = (group.gather + row).view(b, 1, s)
        slots = (group.scatter // s * heads * s + group.scatter % s).view(n, 1) + head * s  # [n, h]
        yield Side(
            length=s,
            rows=slice(row, row + n),
            to_slots=((rows * parts + part.view(parts, 1, 1, 1)) * heads + head.view(heads, 1)).flatten(),
            from_slots=(part.view(parts, 1) * (b * heads * s) + slots.view(n, 1, heads)).flatten(),
        )
        row += n


def attention(query: Tensor, pair: Tensor, layout: list[Block], heads: int, dropout_prob: float) -> Tensor:
    """softmax(QKᵀ / √d) V for every sequence by itself.

    Args:
        query: queries [R, H].
        pair: keys and values of every token side by side, [T, 2H]. In both, rows may follow that belong to no sequence.
        layout: from `blocks`.
        dropout_prob: of each of the softmax's weights (Devlin et al. 2018 drop them).

    Returns the mixed values, of `query`'s shape. Memory is that of the blocks' [b, h, r, s] weights; there is no mask
    wider than [b, 1, 1, s] or [r, s].
    """
    if torch.is_grad_enabled():
        mixed: Tensor = _Attention.apply(query, pair, layout, heads, dropout_prob)  # type: ignore[no-untyped-call]
        return mixed
    out = _empty_rows(query, query.shape, layout[-1].queries)
    for block in layout:
        q, (k, v) = _read(query, block.queries, heads), _read_pair(pair, block.keys, heads)
        q, k, v = (x.view(-1, heads, *x.shape[1:]) for x in (q, k, v))
        mask = None if block.mask is None else block.mask.to(q.dtype)
        _write(F.scaled_dot_product_attention(q, k, v, attn_mask=mask), block.queries, out)
    return out


class _Attention(torch.autograd.Function):
    """Keeps for the way back the slots of queries, keys and values, and the softmax's weights with what was dropped."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, pair: Tensor, layout: list[Block], heads: int, dropout_prob: float) -> Tensor:
        ctx.layout, ctx.heads, ctx.kept_share, ctx.shapes = layout, heads, 1 - dropout_prob, (query.shape, pair.shape)
        out, saved = _empty_rows(query, query.shape, layout[-1].queries), []
        for block in layout:
            q, (k, v) = _read(query, block.queries, heads), _read_pair(pair, block.keys, heads)
            weights = _weights(q, k, block, heads)
            kept = keep_mask(weights.shape, dropout_prob, weights.device) if dropout_prob else None
            mixed = _product(_dropped(weights, kept, v.dtype), v, 1 / ctx.kept_share)
            _write(mixed, block.queries, out)
            saved += [q, k, v, weights, kept]
        ctx.save_for_backward(*saved)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        heads = ctx.heads
        last = ctx.layout[-1]
        grad_query, grad_pair = map(partial(_empty_rows, grad), ctx.shapes, (last.queries, last.keys))
        for place, block in enumerate(ctx.layout):
            q, k, v, weights, kept = ctx.saved_tensors[5 * place : 5 * place + 5]
            scale = 1 / math.sqrt(q.shape[-1])
            grad_mixed = _read(grad.contiguous(), block.queries, heads)
            if block.real is not None:
                grad_mixed.view(-1, heads, *grad_mixed.shape[1:]).mul_(block.real)
            grads = torch.empty((2, *k.shape), dtype=k.dtype, device=k.device)
            _product(_dropped(weights, kept, v.dtype).mT, grad_mixed, 1 / ctx.kept_share, out=grads[1])
            grad_weights = _product(grad_mixed, v.mT, 1 / ctx.kept_share).to(weights.dtype)
            if kept is not None:
                grad_weights.mul_(kept)
            grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, weights.dtype).to(k.dtype)
            _product(grad_scores.mT, q, scale, out=grads[0])
            _write(_product(grad_scores, k, scale), block.queries, grad_query)
            _write(grads, block.keys, grad_pair)
        return grad_query, grad_pair, None, None, None


def _weights(q: Tensor, k: Tensor, block: Block, heads: int) -> Tensor:
    """The softmax of [b * h, r, d] and [b * h, s, d], [b * h, r, s] in float32 or wider."""
    scores, scale = torch.bmm(q, k.mT), 1 / math.sqrt(q.shape[-1])
    mask = scores.new_zeros(1, dtype=torch.float32) if block.mask is None else block.mask
    masked = torch.add(mask, scores.view(-1, heads, *scores.shape[1:]), alpha=scale)
    return torch.softmax(masked.view(scores.shape), -1)


def _dropped(weights: Tensor, kept: Tensor | None, precision: torch.dtype) -> Tensor:
    return (weights if kept is None else weights * kept).to(precision)


def _product(a: Tensor, b: Tensor, scale: float, out: Tensor | None = None) -> Tensor:
    """scale * a @ b of batches of matrices."""
    product: Tensor = torch.baddbmm(a.new_empty(1), a, b, beta=0, alpha=scale, out=out)
    return product


def _empty_rows(like: Tensor, shape: torch.Size, last: Side) -> Tensor:
    """Rows to be written block by block; those past the last block's belong to no sequence and are zero."""
    rows = like.new_empty(shape)
    rows[last.rows.stop :].zero_()
    return rows


def _read(rows: Tensor, side: Side, heads: int) -> Tensor:
    """A block's part of [R, H] by head: [b * h, r, d]. Padding holds a copy of some real token."""
    d = rows.shape[1] // heads
    return rows.view(-1, d).index_select(0, side.to_slots).view(-1, side.length, d)


def _read_pair(rows: Tensor, side: Side, heads: int) -> Tensor:
    """A block's part of [T, 2H] by head: [2, b * h, s, d]."""
    d = rows.shape[1] // (2 * heads)
    return rows.view(-1, d).index_select(0, side.to_slots).view(2, -1, side.length, d)


def _write(slots: Tensor, side: Side, rows: Tensor) -> None:
    """`_read` and `_read_pair` the other way round."""
    d = slots.shape[-1]
    torch.index_select(slots.reshape(-1, d), 0, side.from_slots, out=rows[side.rows].view(-1, d))
