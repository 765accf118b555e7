"""The loss of a large vocabulary without its logits: they and their gradient exist for some rows at a time.

Letters: M targets, E width, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_ROW_MULTIPLE = 32
"""As in `stack.py`: products get few shapes, since a kernel is compiled for each new one."""
_ELEMENTS = 2**22
"""Logits at a time: 8 MB in bfloat16, which stay in the cache between the passes over them (docs/experiments.md)."""


def linear_cross_entropy(x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """The mean cross-entropy of the logits x Wᵀ + b, a scalar in float32.

    Equal to `F.cross_entropy(F.linear(x, weight, bias), targets, label_smoothing=label_smoothing)` (Szegedy et al.
    2016), gradients included.

    Args:
        x: [M, E].
        weight, bias: [V, E] and [V].
        targets: token ids [M].
    """
    loss: Tensor = _LinearCrossEntropy.apply(x, weight, bias, targets, label_smoothing)  # type: ignore[no-untyped-call]
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes the gradients on the way forward, where the probabilities are at hand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, smoothing: float) -> Tensor:
        uniform = smoothing / len(weight)  # the probability that smoothing gives every token
        total = torch.zeros((), device=x.device)
        state_sum, weight_sum, bias_sum = (summed.sum(0, dtype=torch.float32) for summed in (x, weight, bias))
        x = F.pad(x, (0, 0, 0, -len(x) % _ROW_MULTIPLE))
        grad_x, ones = torch.empty_like(x), x.new_ones(1, len(x))
        grad_weight, grad_bias = (torch.zeros(t.shape, device=t.device) for t in (weight, bias))
        rows = max(_ROW_MULTIPLE, _ELEMENTS // len(weight) // _ROW_MULTIPLE * _ROW_MULTIPLE)
        numbers = torch.arange(rows, device=x.device)
        for states, ids, grad_states in zip(*(torch.split(whole, rows) for whole in (x, targets, grad_x)), strict=True):
            real = len(ids)
            logits = F.linear(states, weight, bias)
            grads = torch.softmax(logits, -1)
            # The highest logit and its probability tell what the softmax divided by; that of the target may be 0.
            divisors = logits[:real].amax(1).float() - grads[:real].amax(1).float().log()
            total += divisors.sum() - uniform * (states[:real].float() @ weight_sum + bias_sum).sum()
            total -= (1 - smoothing) * logits[numbers[:real], ids].sum(dtype=torch.float32)
            grads[numbers[:real], ids] -= 1 - smoothing
            grads[real:] = 0.0
            torch.mm(grads, weight, out=grad_states)
            grad_weight += grads.T @ states
            grad_bias += (ones[:, : len(grads)] @ grads)[0]
        # The same is taken from every probability, without a pass over them.
        grad_x -= (uniform * weight_sum).to(grad_x.dtype)
        grad_weight -= uniform * state_sum
        grad_bias -= uniform * len(targets)
        ctx.save_for_backward(grad_x[: len(targets)], grad_weight.to(weight.dtype), grad_bias.to(bias.dtype))
        ctx.targets = len(targets)
        return total / len(targets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        scale = grad / ctx.targets
        grad_x, grad_weight, grad_bias = (saved * scale.to(saved.dtype) for saved in ctx.saved_tensors)
        return grad_x, grad_weight, grad_bias, None, None
