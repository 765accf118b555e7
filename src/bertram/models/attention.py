"""Scaled dot-product attention over packed sequences (Vaswani et al. 2017, section 3.2).

Letters: T tokens, H width, h heads of d = H / h; inside a group b sequences of s slots, n real tokens.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bertram.models.dropout import dropout
from bertram.models.tensors import AttentionGroup


def attention(qkv: Tensor, groups: list[AttentionGroup], heads: int, dropout_prob: float) -> Tensor:
    """softmax(QKᵀ / √d) V for every sequence by itself, [T, 3H] → [T, H].

    Memory is that of the groups' [b, h, s, s] scores; there is no mask wider than [b, 1, 1, s].
    """
    parts = torch.split(qkv, [group.tokens for group in groups])
    return torch.cat(
        [_group_attention(part, group, heads, dropout_prob) for part, group in zip(parts, groups, strict=True)]
    )


def _group_attention(qkv: Tensor, group: AttentionGroup, heads: int, dropout_prob: float) -> Tensor:
    b, s = group.sequences, group.length
    if group.gather is not None:
        qkv = _Pad.apply(qkv, group.gather, group.scatter, group.mask)
    q, k, v = qkv.view(b, s, 3, heads, -1).permute(2, 0, 3, 1, 4)  # each [b, h, s, d]
    if dropout_prob == 0:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=group.mask)
    else:
        scores = torch.matmul(q * (1 / math.sqrt(q.shape[-1])), k.transpose(-1, -2))  # [b, h, s, s]
        if group.mask is not None:
            scores = scores.masked_fill(~group.mask, -math.inf)
        out = torch.matmul(dropout(torch.softmax(scores, -1), dropout_prob), v)
    out = out.transpose(1, 2).reshape(b * s, -1)
    return out if group.scatter is None else _Unpad.apply(out, group.gather, group.scatter, group.mask)


class _Pad(torch.autograd.Function):
    """[n, …] → [b·s, …]; padding slots repeat the group's first row, and attention's mask keeps them out.

    Both directions are gathers, which threads share; the scatter-add that autograd would choose is serial.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, gather: Tensor, scatter: Tensor, mask: Tensor) -> Tensor:
        ctx.scatter = scatter
        return rows[gather]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return grad[ctx.scatter], None, None, None


class _Unpad(torch.autograd.Function):
    """[b·s, …] → [n, …]; the gradient of a padding slot is zero."""

    @staticmethod
    def forward(ctx: Any, slots: Tensor, gather: Tensor, scatter: Tensor, mask: Tensor) -> Tensor:
        ctx.gather, ctx.mask = gather, mask
        return slots[scatter]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        return grad[ctx.gather] * ctx.mask.view(-1, 1), None, None, None
