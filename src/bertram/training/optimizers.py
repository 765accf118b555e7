"""AdamW on float32 master weights, under a model that may compute in bfloat16.

Autocast keeps float32 weights and casts all of them at every step; here the cast is part of the update, gradients stay
in the precision they were computed in, and a step allocates no buffer of the model's size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019) in the papers' two parameter groups.

    Weight decay is for matrices alone, not for biases and layer norms (google-research/bert `optimization.py`). Unlike
    that code, the moments are bias-corrected (Kingma & Ba 2015); Mosbach et al. 2021 show why fine-tuning needs it.
    """

    def __init__(
        self,
        model: nn.Module,
        precision: torch.dtype = torch.float32,
        *,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        """Take over `model`'s parameters; those that matrix products read become copies in `precision`.

        Layer norms and embeddings stay in float32: they are applied or looked up, not multiplied. An embedding that is
        an output matrix too is multiplied.
        """
        self.weight_decay, self.betas, self.eps = weight_decay, betas, eps
        self.steps = 0
        self._parameters = dict(model.named_parameters())
        multiplied = {id(p) for m in model.modules() if isinstance(m, nn.Linear) for p in m.parameters()}
        for module in model.modules():
            if isinstance(module, nn.Embedding) and id(module.weight) not in multiplied:
                module.sparse = True  # a step reads some hundred of its many thousand rows
        self._masters = {name: p.detach().float() for name, p in self._parameters.items()}
        self._gradients = {name: torch.zeros_like(master) for name, master in self._masters.items()}
        self._means = {name: torch.zeros_like(master) for name, master in self._masters.items()}
        self._squares = {name: torch.zeros_like(master) for name, master in self._masters.items()}
        for parameter in self._parameters.values():
            if id(parameter) in multiplied:
                parameter.data = parameter.data.to(precision)

    @torch.no_grad()
    def step(self, learning_rate: float, max_norm: float) -> Tensor:
        """Update every parameter that has a gradient, and clear the gradients.

        Gradients are scaled so that their common norm is at most `max_norm`. Returns the norm before that, a scalar.
        """
        self.steps += 1
        used = {name: p for name, p in self._parameters.items() if p.grad is not None}
        for name, parameter in used.items():
            _accumulate(self._gradients[name], parameter.grad)
        norms = torch._foreach_norm([self._gradients[name] for name in used])
        norm = torch.linalg.vector_norm(torch.stack(list(norms)))
        decayed = [name for name, p in used.items() if p.ndim > 1]
        plain = [name for name, p in used.items() if p.ndim <= 1]
        for decay, names in ((self.weight_decay, decayed), (0.0, plain)):
            adamw(
                [self._masters[name] for name in names],
                [self._gradients[name] for name in names],
                [self._means[name] for name in names],
                [self._squares[name] for name in names],
                [],
                [torch.tensor(self.steps - 1.0, device=norm.device) for _ in names],
                fused=True,
                grad_scale=torch.clamp(norm / max_norm, min=1.0),
                amsgrad=False,
                beta1=self.betas[0],
                beta2=self.betas[1],
                lr=learning_rate,
                weight_decay=decay,
                eps=self.eps,
                maximize=False,
            )
        for name, parameter in used.items():
            if parameter.dtype != torch.float32:
                parameter.copy_(self._masters[name])
            _clear(self._gradients[name], parameter.grad)
            parameter.grad = None
        return norm

    def forget(self) -> None:
        """Back to a first step's moments; after trial steps at a learning rate of 0."""
        self.steps = 0
        for buffer in (*self._means.values(), *self._squares.values()):
            buffer.zero_()

    def release(self) -> None:
        """Give the model its parameters back in float32."""
        for name, parameter in self._parameters.items():
            parameter.data = self._masters[name]

    def weights(self) -> dict[str, Tensor]:
        """Every parameter by name, in float32; shared ones stand once."""
        return self._masters

    @torch.no_grad()
    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Take the parameters' values from `weights`.

        Raises:
            KeyError: a tensor is missing.
        """
        for name, parameter in self._parameters.items():
            self._masters[name].copy_(weights[name])
            parameter.copy_(self._masters[name])

    def state(self) -> dict[str, Tensor]:
        """Weights and moments by name, in float32; `load` takes them. Shared parameters stand once."""
        kinds = {"weight": self._masters, "mean": self._means, "square": self._squares}
        return {f"{kind}/{name}": tensor for kind, tensors in kinds.items() for name, tensor in tensors.items()}

    @torch.no_grad()
    def load(self, state: dict[str, Tensor], steps: int) -> None:
        """Take weights and moments from `state` after `steps` steps.

        Raises:
            KeyError: a tensor is missing.
        """
        self.load_weights({name: state[f"weight/{name}"] for name in self._masters})
        for name in self._masters:
            self._means[name].copy_(state[f"mean/{name}"])
            self._squares[name].copy_(state[f"square/{name}"])
        self.steps = steps


def _accumulate(buffer: Tensor, gradient: Any) -> None:
    """Write a gradient to its float32 buffer; that of an embedding lists rows, and the other rows are zero already."""
    if gradient.is_sparse:
        buffer.index_add_(0, gradient._indices()[0], gradient._values())
    else:
        buffer.copy_(gradient)


def _clear(buffer: Tensor, gradient: Any) -> None:
    if gradient.is_sparse:
        buffer.index_fill_(0, gradient._indices()[0], 0.0)
