"""Scaled dot-product attention over packed sequences (Vaswani et al. 2017, section 3.2).

Sequences of similar length stand in one block [b, s], padded; that is the only place where padding exists. Rows move
between the packed order and the blocks head by head, in one gather each way, which also brings every head's rows
together. Forward and backward are written out, since what autograd makes of the same steps is three times as slow for
the short texts that most data sets hold (docs/experiments.md).

Letters: T tokens, B sequences, H width, h heads of d = H / h; inside a block b sequences of s slots, n real tokens,
r queries a sequence: s, or 1 where only first tokens ask.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from bertram.models.dropout import keep_mask
from bertram.models.tensors import AttentionGroup


@dataclass(frozen=True)
class Block:
    """An AttentionGroup's places by head. A place is a row of d numbers."""

    length: int  # s
    sequences: slice  # its b of the B
    rows: slice  # its n of the T
    to_slots: Tensor  # [b * h * s], the place in [T, h] that every slot of [b, h, s] takes
    from_slots: Tensor  # [n * h], the slot of every place
    pair_to_slots: Tensor  # [2 * b * h * s], the same for keys and values side by side: [T, 2, h] and [2, b, h, s]
    pair_from_slots: Tensor  # [n * 2 * h]
    real: Tensor | None  # [b, 1, s, 1], 1 where a slot holds a token and 0 where it is padding; None: no padding
    mask: Tensor | None  # [b, 1, 1, s], added to scores: 0 or -inf, float32


def blocks(groups: list[AttentionGroup], heads: int) -> list[Block]:
    """Where the heads of a batch's tokens stand; the same for all layers."""
    made, sequence, row = [], 0, 0
    for group in groups:
        b, s, n = group.sequences, group.length, group.tokens
        head = torch.arange(heads, device=group.gather.device)
        rows = (group.gather + row).view(b, 1, s)
        pair = torch.arange(2, device=head.device).view(2, 1, 1, 1)
        slots = (group.scatter // s * heads * s + group.scatter % s).view(n, 1) + head * s  # [n, h]
        made.append(
            Block(
                length=s,
                sequences=slice(sequence, sequence + b),
                rows=slice(row, row + n),
                to_slots=(rows * heads + head.view(heads, 1)).flatten(),
                from_slots=slots.flatten(),
                pair_to_slots=((rows * 2 + pair) * heads + head.view(heads, 1)).flatten(),
                pair_from_slots=(pair.view(2, 1) * (b * heads * s) + slots.view(n, 1, heads)).flatten(),
                real=None if group.mask is None else group.mask.view(b, 1, s, 1),
                mask=None if group.mask is None else torch.where(group.mask, 0.0, -math.inf),
            )
        )
        sequence, row = sequence + b, row + n
    return made


def attention(query: Tensor, pair: Tensor, layout: list[Block], heads: int, dropout_prob: float) -> Tensor:
    """softmax(QKᵀ / √d) V for every sequence by itself.

    Args:
        query: queries of every token, [T, H], or of the first token of every sequence, [B, H].
        pair: keys and values of every token side by side, [T, 2H]. Rows may follow that belong to no sequence.
        layout: from `blocks`.
        dropout_prob: of each of the softmax's weights (Devlin et al. 2018 drop them).

    Returns the mixed values, of `query`'s shape. Memory is that of the blocks' [b, h, r, s] weights; there is no mask
    wider than [b, 1, 1, s].
    """
    if torch.is_grad_enabled():
        mixed: Tensor = _Attention.apply(query, pair, layout, heads, dropout_prob)  # type: ignore[no-untyped-call]
        return mixed
    out = _empty_rows(query, query.shape, layout)
    first_only = len(query) < len(pair)
    for block in layout:
        q, (k, v) = _read(query, block, heads, first_only), _read_pair(pair, block, heads)
        q, k, v = (x.view(-1, heads, *x.shape[1:]) for x in (q, k, v))
        mask = None if block.mask is None else block.mask.to(q.dtype)
        _write(F.scaled_dot_product_attention(q, k, v, attn_mask=mask), block, out, first_only)
    return out


class _Attention(torch.autograd.Function):
    """Keeps for the way back the slots of queries, keys and values, and the softmax's weights with what was dropped."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, pair: Tensor, layout: list[Block], heads: int, dropout_prob: float) -> Tensor:
        ctx.layout, ctx.heads, ctx.kept_share, ctx.shapes = layout, heads, 1 - dropout_prob, (query.shape, pair.shape)
        first_only = len(query) < len(pair)
        out, saved = _empty_rows(query, query.shape, layout), []
        for block in layout:
            q, (k, v) = _read(query, block, heads, first_only), _read_pair(pair, block, heads)
            weights = _weights(q, k, block, heads)
            kept = keep_mask(weights.shape, dropout_prob, weights.device) if dropout_prob else None
            mixed = _product(_dropped(weights, kept, v.dtype), v, 1 / ctx.kept_share)
            _write(mixed, block, out, first_only)
            saved += [q, k, v, weights, kept]
        ctx.save_for_backward(*saved)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        heads = ctx.heads
        grad_query, grad_pair = (_empty_rows(grad, shape, ctx.layout) for shape in ctx.shapes)
        first_only = len(grad_query) < len(grad_pair)
        for place, block in enumerate(ctx.layout):
            q, k, v, weights, kept = ctx.saved_tensors[5 * place : 5 * place + 5]
            scale, d = 1 / math.sqrt(q.shape[-1]), q.shape[-1]
            grad_mixed = _read(grad.contiguous(), block, heads, first_only)
            if block.real is not None and not first_only:
                grad_mixed.view(-1, heads, *grad_mixed.shape[1:]).mul_(block.real)
            grads = torch.empty((2, *k.shape), dtype=k.dtype, device=k.device)
            _product(_dropped(weights, kept, v.dtype).mT, grad_mixed, 1 / ctx.kept_share, out=grads[1])
            grad_weights = _product(grad_mixed, v.mT, 1 / ctx.kept_share).to(weights.dtype)
            if kept is not None:
                grad_weights.mul_(kept)
            grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, weights.dtype).to(k.dtype)
            _product(grad_scores.mT, q, scale, out=grads[0])
            _write(_product(grad_scores, k, scale), block, grad_query, first_only)
            torch.index_select(grads.view(-1, d), 0, block.pair_from_slots, out=grad_pair[block.rows].view(-1, d))
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


def _empty_rows(like: Tensor, shape: torch.Size, layout: list[Block]) -> Tensor:
    """Rows to be written block by block; those past the last block's belong to no sequence and are zero."""
    rows = like.new_empty(shape)
    rows[layout[-1].rows.stop :].zero_()
    return rows


def _read(rows: Tensor, block: Block, heads: int, first_only: bool) -> Tensor:
    """A block's part of [T, H], or of [B, H], by head: [b * h, r, d]. Padding holds a copy of some real token."""
    d = rows.shape[1] // heads
    if first_only:
        return rows[block.sequences].view(-1, 1, d)
    return rows.view(-1, d).index_select(0, block.to_slots).view(-1, block.length, d)


def _read_pair(rows: Tensor, block: Block, heads: int) -> Tensor:
    """A block's part of [T, 2H] by head: [2, b * h, s, d]."""
    d = rows.shape[1] // (2 * heads)
    slots = rows.view(-1, d).index_select(0, block.pair_to_slots)
    return slots.view(2, -1, block.length, d)


def _write(slots: Tensor, block: Block, rows: Tensor, first_only: bool) -> None:
    """`_read` the other way round."""
    d = slots.shape[-1]
    if first_only:
        rows[block.sequences] = slots.reshape(-1, rows.shape[1])
    else:
        torch.index_select(slots.reshape(-1, d), 0, block.from_slots, out=rows[block.rows].view(-1, d))
