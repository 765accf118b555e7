"""The loss of a large vocabulary without its logits: they and their gradient exist for some rows at a time.

Letters: M targets, E width, V vocabulary.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_ROW_MULTIPLE = 32
"""As in the encoder: products get few shapes, since a kernel is compiled for each new one."""
_ELEMENTS = 2**22
"""Logits at a time: in float32 16 MB, which stay in the cache between the passes over them; measured in
docs/experiments.md."""


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
        vocabulary = len(weight)
        total = torch.zeros((), device=x.device)
        x = F.pad(x, (0, 0, 0, -len(x) % _ROW_MULTIPLE))
        grad_x = torch.empty_like(x)
        grad_weight, grad_bias = (torch.zeros(t.shape, device=t.device) for t in (weight, bias))
        rows = max(_ROW_MULTIPLE, _ELEMENTS // vocabulary // _ROW_MULTIPLE * _ROW_MULTIPLE)
        for states, ids, grad_states in zip(*(torch.split(whole, rows) for whole in (x, targets, grad_x)), strict=True):
            logits = torch.log_softmax(F.linear(states, weight, bias).float(), -1)
            real, places = logits[: len(ids)], ids[:, None]
            total -= (1 - smoothing) * real.gather(1, places).sum() + smoothing * real.mean(1).sum()
            grads = logits.exp_().sub_(smoothing / vocabulary)
            grads[: len(ids)].scatter_add_(1, places, grads.new_full(places.shape, smoothing - 1))
            grads[len(ids) :] = 0.0
            grad_bias += grads.sum(0)
            narrow = grads.to(weight.dtype)
            torch.mm(narrow, weight, out=grad_states)
            grad_weight += narrow.T @ states
        ctx.save_for_backward(grad_x[: len(targets)], grad_weight.to(weight.dtype), grad_bias.to(bias.dtype))
        ctx.targets = len(targets)
        return total / len(targets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        scale = grad / ctx.targets
        grad_x, grad_weight, grad_bias = (saved * scale.to(saved.dtype) for saved in ctx.saved_tensors)
        return grad_x, grad_weight, grad_bias, None, None
