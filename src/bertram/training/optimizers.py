"""AdamW and LAMB on float32 master weights, under a model that may compute in bfloat16.

Autocast keeps float32 weights and casts all of them at every step; here the cast is part of the update, gradients stay
in the precision they were computed in, also where those of a few passes are summed, and a step allocates no buffer of
the model's size (but for sums over many passes or several processes, which need one in float32).
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from bertram.training.recipe import Rule

EPS: Mapping[Rule, float] = {"adamw": 1e-8, "lamb": 1e-6}
"""What keeps the division from 0, as torch and You et al. have it."""

_BETAS = 0.9, 0.999

_RUN, _GPU_RUN = 2**18, 2**26
"""Elements updated together. On a CPU, with gradient and moments 4 MB, which stay in the cache between the passes over
them; on a GPU, in as few kernels as can be, but not with all gradients in float32 at once."""


class Optimizer:
    """Adam with decoupled weight decay, or LAMB, in the papers' two parameter groups.

    With m and v the bias-corrected moments (Kingma & Ba 2015) of the gradient and r = m / (√v + eps) + decay · w:

        adamw   w ← w - rate · r                (Loshchilov & Hutter 2019)
        lamb    w ← w - rate · |w| / |r| · r    (You et al. 2020, Algorithm 2, φ the identity)

    where |w| and |r| are the norms of a whole matrix, which counts once however many layers share it; where one of them
    is 0, their ratio is 1. Biases and layer norms have no weight decay (google-research/bert `optimization.py`) and a
    ratio of 1 (google-research/albert `lamb_optimizer.py`), so that both rules are one for them. Unlike that code, the
    moments are bias-corrected, as in both papers; Mosbach et al. 2021 show why fine-tuning needs it.
    """

    def __init__(
        self,
        model: nn.Module,
        precision: torch.dtype = torch.float32,
        *,
        rule: Rule = "adamw",
        weight_decay: float = 0.01,
        eps: float | None = None,
        rates: Mapping[str, float] | None = None,
        reduce: Callable[[Tensor], object] | None = None,
    ) -> None:
        """Take over `model`'s parameters; those that matrix products read become copies in `precision`.

        Layer norms and embeddings stay in float32: they are applied or looked up, not multiplied. An embedding that is
        an output matrix too is multiplied.

        Args:
            eps: by default the rule's own in `EPS`.
            rates: how the names of parameters begin, and what their learning rate is multiplied by; others' by 1.
            reduce: where several processes train one model, sums a float32 vector over all of them, in place
                (`torch.distributed.all_reduce`). A step calls it once, with all gradients end to end, and so every
                process makes the same step. The losses must be scaled for the sum to be the whole batch's gradient.
        """
        self.rule: Rule = rule
        self.weight_decay, self.eps = weight_decay, EPS[rule] if eps is None else eps
        self.steps = 0
        self._parameters = dict(model.named_parameters())
        multiplied = {id(p) for m in model.modules() if isinstance(m, nn.Linear) for p in m.parameters()}
        for module in model.modules():
            if isinstance(module, nn.Embedding) and id(module.weight) not in multiplied:
                module.sparse = not module.weight.is_cuda  # a step reads some hundred of its many thousand rows
        self._masters = {name: p.detach().float() for name, p in self._parameters.items()}
        self._means = {name: torch.zeros_like(master) for name, master in self._masters.items()}
        self._squares = {name: torch.zeros_like(master) for name, master in self._masters.items()}
        self._elements = _GPU_RUN if any(p.is_cuda for p in self._parameters.values()) else _RUN
        self._tables: dict[str, Tensor] = {}  # gradients of embeddings, zero between steps
        self._gathered: dict[str, Tensor] = {}
        self._sum = None if reduce is None else _Sum(self._masters, reduce)
        for parameter in self._parameters.values():
            if id(parameter) in multiplied:
                parameter.data = parameter.data.to(precision)
        self._matrices: list[tuple[float, list[_Piece]]] = []
        alike: dict[tuple[float, float], list[str]] = {}
        for name, parameter in self._parameters.items():
            rate = next((rate for beginning, rate in (rates or {}).items() if name.startswith(beginning)), 1.0)
            if parameter.ndim > 1 and rule == "lamb":
                self._matrices.append((rate, self._pieces(name)))
            else:
                alike.setdefault((rate, weight_decay if parameter.ndim > 1 else 0.0), []).append(name)
        self._runs = [(*setting, run) for setting, names in alike.items() for run in self._cut(names)]

    def _cut(self, names: list[str]) -> list[list["_Piece"]]:
        """All elements of these parameters, in runs of about `_elements`."""
        runs: list[list[_Piece]] = [[]]
        for piece in (piece for name in names for piece in self._pieces(name)):
            if sum(len(other.master) for other in runs[-1]) + len(piece.master) > self._elements:
                runs.append([])
            runs[-1].append(piece)
        return runs

    def _pieces(self, name: str) -> list["_Piece"]:
        """A parameter in pieces of at most `_elements` elements."""
        kinds = (self._masters[name], self._means[name], self._squares[name], self._parameters[name].data)
        parts = zip(*(torch.split(kind.view(-1), self._elements) for kind in kinds), strict=True)
        return [_Piece(name, place, *part) for place, part in enumerate(parts)]

    @torch.no_grad()
    def gather(self) -> None:
        """Take what the passes so far made of the step's gradients into sums in float32.

        A sum in bfloat16 that is hundreds of times as large as what comes next no longer grows.
        """
        for name, parameter in self._parameters.items():
            if parameter.grad is not None and parameter.grad.dtype != torch.float32:
                self._gathered.setdefault(name, torch.zeros_like(self._masters[name])).add_(parameter.grad)
                parameter.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float, max_norm: float) -> Tensor:
        """Update every parameter that has a gradient, and clear the gradients.

        Gradients are scaled so that their common norm is at most `max_norm`. Returns the norm before that, a scalar; 0
        where there are none, in a step that moves nothing.
        """
        self.steps += 1
        if self._gathered:
            self.gather()
        found = self._gathered | {name: p.grad for name, p in self._parameters.items() if p.grad is not None}
        self._gathered = {}
        if self._sum is not None:
            found = self._sum(found)
        if not found:
            return torch.zeros(())
        sparse = {name: grad.coalesce() for name, grad in found.items() if grad.is_sparse}
        norm = _norm([sparse[name].values() if name in sparse else grad for name, grad in found.items()])
        scale = torch.clamp(norm / max_norm, min=1.0)
        gradients = {
            name: torch.split(self._dense(name, sparse.get(name, grad)).reshape(-1), self._elements)
            for name, grad in found.items()
        }
        for rate, decay, run in self._runs:
            if used := [piece for piece in run if piece.name in gradients]:
                self._adam([piece.master for piece in used], used, gradients, rate * learning_rate, decay, scale)
                _round(used)
        for rate, matrix in self._matrices:
            if matrix[0].name in gradients:
                self._lamb(matrix, gradients, rate * learning_rate, scale)
                _round(matrix)
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

    def _adam(
        self,
        weights: list[Tensor],
        run: list["_Piece"],
        gradients: dict[str, tuple[Tensor, ...]],
        learning_rate: float,
        weight_decay: float,
        scale: Tensor,
    ) -> None:
        """Take the gradients of a run into its moments, and move `weights` by AdamW's rule; all while in the cache."""
        adamw(
            weights,
            [gradients[piece.name][piece.place].float() for piece in run],
            [piece.mean for piece in run],
            [piece.square for piece in run],
            [],
            list(torch.full((len(run),), self.steps - 1.0, device=scale.device).unbind()),
            fused=True,
            grad_scale=scale,
            amsgrad=False,
            beta1=_BETAS[0],
            beta2=_BETAS[1],
            lr=learning_rate,
            weight_decay=weight_decay,
            eps=self.eps,
            maximize=False,
        )

    def _lamb(
        self, matrix: list["_Piece"], gradients: dict[str, tuple[Tensor, ...]], learning_rate: float, scale: Tensor
    ) -> None:
        """Move one whole matrix by LAMB's rule."""
        directions = [torch.zeros_like(piece.master) for piece in matrix]
        for piece, direction in zip(matrix, directions, strict=True):
            self._adam([direction], [piece], gradients, -1.0, 0.0, scale)  # 0 moved by rate -1: m / (√v + eps)
            direction.add_(piece.master, alpha=self.weight_decay)
        weight_norm, norm = _norm([piece.master for piece in matrix]), _norm(directions)
        ratio = torch.where((weight_norm > 0) & (norm > 0), weight_norm / norm, 1.0)
        for piece, direction in zip(matrix, directions, strict=True):
            piece.master.addcmul_(direction, ratio, value=-learning_rate)

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


class _Sum:
    """The sum of gradients over all processes, in one vector of the model's size."""

    def __init__(self, masters: dict[str, Tensor], reduce: Callable[[Tensor], object]) -> None:
        like = next(iter(masters.values()))
        sizes = [master.numel() for master in masters.values()]
        # Behind the gradients, how many processes have one of each parameter
        self._vector = torch.zeros(sum(sizes) + len(masters), device=like.device)
        *parts, self._counts = torch.split(self._vector, [*sizes, len(masters)])
        self._parts = {name: part.view_as(m) for (name, m), part in zip(masters.items(), parts, strict=True)}
        self._reduce = reduce

    def __call__(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """Sums, dense and in float32, for every parameter that some process has a gradient of."""
        self._vector.zero_()
        for name, gradient in gradients.items():
            self._parts[name].add_(gradient)
        self._counts.copy_(torch.tensor([name in gradients for name in self._parts]))
        self._reduce(self._vector)
        return {name: part for (name, part), n in zip(self._parts.items(), self._counts.tolist(), strict=True) if n}


def _norm(tensors: list[Tensor]) -> Tensor:
    """The Euclidean norm of all elements together, a scalar in float32."""
    alike: dict[torch.dtype, list[Tensor]] = {}  # which a GPU takes together
    for tensor in tensors:
        alike.setdefault(tensor.dtype, []).append(tensor)
    norms = [norm for some in alike.values() for norm in torch._foreach_norm(some, dtype=torch.float32)]
    norm: Tensor = torch.linalg.vector_norm(torch.stack(norms))
    return norm


def _round(run: list[_Piece]) -> None:
    """Give the model its weights in the precision that it computes in."""
    if rounded := [piece for piece in run if piece.parameter.dtype != torch.float32]:
        torch._foreach_copy_([piece.parameter for piece in rounded], [piece.master for piece in rounded])
