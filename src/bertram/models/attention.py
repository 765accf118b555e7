"""Scaled dot-product attention over packed sequences (Vaswani et al. 2017, section 3.2).

In the blocks of a CPU forward and backward are written out, since what autograd makes of the same steps is three times
as slow for the short texts that most data sets hold (docs/experiments.md).

Letters are those of `layout`.
"""

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bertram.models.dropout import keep_mask
from bertram.models.layout import Block, Layout, Ragged, Side


def attention(query: Tensor, key_value: Tensor, layout: Layout, heads: int, dropout_prob: float) -> Tensor:
    """softmax(QKᵀ / √d) V for every sequence by itself.

    Args:
        query: queries [R, H].
        key_value: keys and values of every token side by side, [T, 2H]. In blocks, rows may follow in both
            that belong to no sequence.
        layout: from `layout.layout`.
        dropout_prob: of each of the softmax's weights (Devlin et al. 2018 drop them).

    Returns the mixed values, of `query`'s shape. Memory is that of the blocks' [b, h, r, s] weights, or none where
    rows are read as they are; there is no mask wider than [b, 1, 1, s] or [r, s].
    """
    if isinstance(layout, Ragged):
        return _ragged(query, key_value, layout, heads, dropout_prob)
    if torch.is_grad_enabled():
        mixed: Tensor = _Attention.apply(query, key_value, layout, heads, dropout_prob)  # type: ignore[no-untyped-call]
        return mixed
    out = _empty_rows(query, query.shape, layout[-1].queries)
    for block in layout:
        q, (k, v) = _read(query, block.queries, heads), _read_key_value(key_value, block.keys, heads)
        q, k, v = (x.view(-1, heads, *x.shape[1:]) for x in (q, k, v))
        mask = None if block.mask is None else block.mask.to(q.dtype)
        _write(F.scaled_dot_product_attention(q, k, v, attn_mask=mask), block.queries, out)
    return out


def _ragged(query: Tensor, key_value: Tensor, layout: Ragged, heads: int, dropout_prob: float) -> Tensor:
    """By torch's own kernel; what it has in public, `varlen_attn`, drops nothing."""
    q, (k, v) = query.view(len(query), heads, -1), key_value.view(len(key_value), 2, heads, -1).unbind(1)
    starts, longest = (layout.query_starts, layout.key_starts), (layout.longest_query, layout.longest_key)
    mixed: Tensor = torch.ops.aten._flash_attention_forward(
        q, k, v, *starts, *longest, dropout_prob, layout.causal, return_debug_mask=False
    )[0]
    return mixed.view_as(query)


class _Attention(torch.autograd.Function):
    """Keeps for the way back the slots of queries, keys and values, and the softmax's weights with what was dropped."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key_value: Tensor, layout: list[Block], heads: int, dropout_prob: float
    ) -> Tensor:
        ctx.layout, ctx.heads, ctx.kept_share = layout, heads, 1 - dropout_prob
        ctx.shapes = query.shape, key_value.shape
        out, saved = _empty_rows(query, query.shape, layout[-1].queries), []
        for block in layout:
            q, (k, v) = _read(query, block.queries, heads), _read_key_value(key_value, block.keys, heads)
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
        grad_query, grad_key_value = map(partial(_empty_rows, grad), ctx.shapes, (last.queries, last.keys))
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
            _write(grads, block.keys, grad_key_value)
        return grad_query, grad_key_value, None, None, None


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


def _read_key_value(rows: Tensor, side: Side, heads: int) -> Tensor:
    """A block's part of [T, 2H] by head: [2, b * h, s, d]."""
    d = rows.shape[1] // (2 * heads)
    return rows.view(-1, d).index_select(0, side.to_slots).view(2, -1, side.length, d)


def _write(slots: Tensor, side: Side, rows: Tensor) -> None:
    """`_read` and `_read_key_value` the other way round."""
    d = slots.shape[-1]
    torch.index_select(slots.reshape(-1, d), 0, side.from_slots, out=rows[side.rows].view(-1, d))
