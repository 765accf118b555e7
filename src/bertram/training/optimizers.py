"""AdamW on float32 master weights, under a model that may compute in bfloat16.

Autocast keeps float32 weights and casts all of them at every step; here the cast is part of the update, gradients stay
in the precision they were computed in, and a step allocates no buffer of the model's size.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

_RUN = 2**18
"""Elements updated together: with gradient and moments 4 MB, which stay in the cache between the passes over them."""


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
        self._means = {name: torch.zeros_like(master) for name, master in self._masters.items()}
        self._squares = {name: torch.zeros_like(master) for name, master in self._masters.items()}
        self._tables: dict[str, Tensor] = {}  # gradients of embeddings, zero between steps
        for parameter in self._parameters.values():
            if id(parameter) in multiplied:
                parameter.data = parameter.data.to(precision)
        matrices = [name for name, p in self._parameters.items() if p.ndim > 1]
        vectors = [name for name, p in self._parameters.items() if p.ndim <= 1]
        self._runs = [(weight_decay, run) for run in self._cut(matrices)] + [(0.0, run) for run in self._cut(vectors)]

    def _cut(self, names: list[str]) -> list[list["_Piece"]]:
        """All elements of these parameters, in runs of about `_RUN` that a core's cache holds with their moments."""
        runs: list[list[_Piece]] = [[]]
        for name in names:
            kinds = (self._masters[name], self._means[name], self._squares[name], self._parameters[name].data)
            for place, parts in enumerate(zip(*(torch.split(kind.view(-1), _RUN) for kind in kinds), strict=True)):
                if sum(len(piece.master) for piece in runs[-1]) + len(parts[0]) > _RUN:
                    runs.append([])
                runs[-1].append(_Piece(name, place, *parts))
        return runs

    @torch.no_grad()
    def step(self, learning_rate: float, max_norm: float) -> Tensor:
        """Update every parameter that has a gradient, and clear the gradients.

        Gradients are scaled so that their common norm is at most `max_norm`. Returns the norm before that, a scalar.
        """
        self.steps += 1
        found = {name: p.grad for name, p in self._parameters.items() if p.grad is not None}
        sparse = {name: grad.coalesce() for name, grad in found.items() if grad.is_sparse}
        values = [sparse[name].values() if name in sparse else grad for name, grad in found.items()]
        norm: Tensor = torch.linalg.vector_norm(torch.stack(list(torch._foreach_norm(values, dtype=torch.float32))))
        scale = torch.clamp(norm / max_norm, min=1.0)
        gradients = {
            name: torch.split(self._dense(name, sparse.get(name, grad)).reshape(-1), _RUN)
            for name, grad in found.items()
        }
        for decay, run in self._runs:
            if used := [piece for piece in run if piece.name in gradients]:
                self._update(used, gradients, learning_rate, decay, scale)
        for name, grad in sparse.items():
            self._tables[name].index_fill_(0, grad.indices()[0], 0.0)
        for name in found:
            self._parameters[name].grad = None
        return norm

    def _dense(self, name: str, gradient: Tensor) -> Tensor:
        """A gradient as it is, or one that lists rows of a table in that table's shape."""
        if not gradient.is_sparse:
            return gradient
        if name not in self._tables:
            self._tables[name] = torch.zeros_like(self._masters[name])
        return self._tables[name].index_copy_(0, gradient.indices()[0], gradient.values())

    def _update(
        self,
        run: list["_Piece"],
        gradients: dict[str, tuple[Tensor, ...]],
        learning_rate: float,
        weight_decay: float,
        scale: Tensor,
    ) -> None:
        """One step of one run, while it is in the cache: widen the gradient, update, round the weights."""
        adamw(
            [piece.master for piece in run],
            [gradients[piece.name][piece.place].float() for piece in run],
            [piece.mean for piece in run],
            [piece.square for piece in run],
            [],
            [torch.tensor(self.steps - 1.0, device=scale.device) for _ in run],
            fused=True,
            grad_scale=scale,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=learning_rate,
            weight_decay=weight_decay,
            eps=self.eps,
            maximize=False,
        )
        for piece in run:
            if piece.parameter.dtype != torch.float32:
                piece.parameter.copy_(piece.master)

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


class _Piece(NamedTuple):
    """Some elements of one parameter, flat views of what belongs to them."""

    name: str
    place: int  # among the parameter's pieces
    master: Tensor
    mean: Tensor
    square: Tensor
    parameter: Tensor
