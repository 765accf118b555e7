"""A student to begin with: the teacher's layers made few, its embeddings narrow.

Letters: V vocabulary, H hidden width of both, E embedding width of the student.
"""

from typing import cast

import torch
from torch import Tensor, nn

from bertram.config import EncoderConfig
from bertram.models.encoder import Pooler
from bertram.models.heads import MaskedLanguageModelHead, Model
from bertram.models.layers import Embeddings, Layer, ResidualLinear


def student_of(teacher: Model, config: EncoderConfig, counts: Tensor) -> Model:
    """A model of `config` with the teacher's heads and what they read, and weights made of the teacher's.

    For a group of layers stands their mean. The last of them alone is nearer to the teacher at first, but learns more
    slowly (docs/experiments.md).

    Args:
        counts: what each token counts for, [V]; the embeddings of those that count most are kept best.
    """
    student = Model(config, teacher.labels(), pooler=False)
    with torch.no_grad():
        if config.embedding_size is None:
            student.encoder.embeddings.load_state_dict(teacher.encoder.embeddings.state_dict())
        else:
            _factorise(teacher.encoder.embeddings, student.encoder.embeddings, counts)
        for depth, layer in enumerate(cast(list[Layer], student.encoder.layers)):
            shared = mean(layers_of_group(teacher, config.groups, config.group_of(depth)))
            if config.residual_rank:
                _fill_residual(layer, shared, mean(layers_of_group(teacher, config.num_hidden_layers, depth)))
            else:
                layer.load_state_dict(shared)
        if student.pooler is not None:
            student.pooler.load_state_dict(cast(Pooler, teacher.pooler).state_dict())
        for name, head in student.heads.items():
            original = teacher.heads[name]
            if isinstance(head, MaskedLanguageModelHead) and config.embedding_size is not None:
                head.decoder.bias.copy_(cast(MaskedLanguageModelHead, original).decoder.bias)  # the rest is too wide
            else:
                head.load_state_dict(original.state_dict())
    return student


def layer_energy(teacher: Model, groups: int, depth: int, most: int) -> Tensor:
    """The share of the energy of the teacher's layers' matrices that a student of so many layers keeps, [R + 1].

    By the rank of its residuals, from 0 to R = `most`; its layers have the weights of all those of the teacher's that
    they stand for.
    """
    lost, whole = torch.zeros(most + 1, dtype=torch.float64), 0.0
    for place in range(depth):
        shared = mean(layers_of_group(teacher, groups, place * groups // depth))
        stood_for = layers_of_group(teacher, depth, place)
        own = mean(stood_for)
        for name in (name for name, weight in own.items() if weight.ndim == 2):
            weights = torch.stack([layer.get_parameter(name) for layer in stood_for])
            whole += float(weights.square().sum())
            left = _left_out(own[name] - shared[name], most)
            lost[: len(left)] += len(stood_for) * left
            lost += float((weights - own[name]).square().sum())
    return 1 - lost / whole


def _left_out(matrix: Tensor, most: int) -> Tensor:
    """The energy of a matrix that the best ones of each rank leave out, from rank 0 to `most` or until none is left."""
    if most == 0:
        return matrix.double().square().sum()[None]
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    # Ten times as fast as singular values; the least come first.
    energies: Tensor = torch.linalg.eigvalsh((tall.T @ tall).double())
    return energies.cumsum(0).flip(0)[: most + 1]


def layers_of_group(teacher: Model, groups: int, group: int) -> list[Layer]:
    """Those of the teacher's layers that one of so many groups of the student's stands for."""
    layers = cast(list[Layer], list(teacher.encoder.layers))
    return [layer for place, layer in enumerate(layers) if place * groups // len(layers) == group]


def mean(layers: list[Layer]) -> dict[str, Tensor]:
    """The state of a layer that stands for several."""
    states = [layer.state_dict() for layer in layers]
    return {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}


def _fill_residual(layer: Layer, shared: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """Fill a layer so that its weights are `shared` and as much of what `own` differs by as its rank holds."""
    state = {name: own[name] for name in layer.state_dict() if name in own}  # biases and norms
    for name, product in layer.named_modules():
        if isinstance(product, ResidualLinear):
            u, sizes, v = torch.linalg.svd(own[f"{name}.weight"] - shared[f"{name}.weight"], full_matrices=False)
            roots, rank = sizes.sqrt(), product.down.out_features
            state[f"{name}.shared.weight"] = shared[f"{name}.weight"]
            state[f"{name}.up.weight"] = (u * roots)[:, :rank]
            state[f"{name}.down.weight"] = (v * roots[:, None])[:rank]
    layer.load_state_dict(state)


def _factorise(teacher: Embeddings, student: Embeddings, counts: Tensor) -> None:
    """Fill narrow embeddings so that, projected, they come close to what the teacher's first layer takes.

    That is γ · n + β, where n is a token's row, at the mean position, behind the layer norm. Its principal directions,
    each token weighted by its count, are the columns of the projection, and the coordinates along them a
    token's new row. The student's own layer norm must not change these, and so a row takes coordinates orthogonal to
    (1, …, 1), whose mean is 0, and one more coordinate, projected to nothing, that makes rows equally long.
    """
    norm, projection = cast(nn.LayerNorm, student.norm), cast(nn.Linear, student.projection)
    width, positions = norm.normalized_shape[0], cast(nn.Embedding, teacher.positions).weight.double()
    segments = None if teacher.segments is None else teacher.segments.weight.double()
    gain, bias = (cast(Tensor, getattr(teacher.norm, name)).double() for name in ("weight", "bias"))
    seen, deviations = _taken(teacher)
    middle, directions = _principal(seen, counts)
    kept = directions[:, : width - 2]
    coordinates = (seen - middle) @ kept  # [V, E - 2]
    lengths = coordinates.pow(2).sum(1)
    longest = lengths.max()
    rest = (longest - lengths).sqrt()[:, None]
    basis = _orthogonal_to_ones(width)  # [E, E - 1]
    size = teacher.tokens.weight.double().std()  # the old rows', for the learning rate's sake
    scale = size * width**0.5 / longest.sqrt()
    share = counts / counts.sum()
    spread = (share @ deviations.squeeze(1)).item()

    def narrow(wide: Tensor) -> Tensor:
        found: Tensor = (gain * _centred(wide) / spread) @ kept @ basis[:, :-1].T * scale
        return found

    student.tokens.weight.copy_(torch.cat([coordinates, rest], 1) @ basis.T * scale)
    cast(nn.Embedding, student.positions).weight.copy_(narrow(positions - positions.mean(0)))
    if segments is not None:
        cast(nn.Embedding, student.segments).weight.copy_(narrow(segments - segments[0]))
    projection.weight.copy_(kept @ basis[:, :-1].T * (longest / width).sqrt())
    projection.bias.copy_(middle + bias)


def embedding_energy(teacher: Embeddings, counts: Tensor) -> Tensor:
    """The share of the energy of what the first layer takes that the first k directions keep, [H] from k = 1 on."""
    rows, _ = _taken(teacher)
    middle, directions = _principal(rows, counts)
    energy = ((counts / counts.sum())[:, None] * ((rows - middle) @ directions).pow(2)).sum(0)
    return energy.cumsum(0) / energy.sum()


def _taken(teacher: Embeddings) -> tuple[Tensor, Tensor]:
    """γ · n of every token at the mean position, [V, H], and what the layer norm divided its row by, [V, 1]."""
    context = cast(nn.Embedding, teacher.positions).weight.double().mean(0)
    if teacher.segments is not None:
        context = context + teacher.segments.weight.double()[0]
    rows = _centred(teacher.tokens.weight.double() + context)
    deviations = rows.pow(2).mean(1, keepdim=True).sqrt()
    return cast(Tensor, cast(nn.LayerNorm, teacher.norm).weight).double() * rows / deviations, deviations


def _principal(rows: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of rows [V, H], [H], and the principal directions around it [H, H], the first first."""
    share = (counts / counts.sum())[:, None]
    middle = (share * rows).sum(0)
    _, directions = torch.linalg.eigh((share * (rows - middle)).T @ (rows - middle))
    return middle, directions.flip(1)


def _centred(rows: Tensor) -> Tensor:
    return rows - rows.mean(1, keepdim=True)


def _orthogonal_to_ones(width: int) -> Tensor:
    """Orthonormal columns that sum to 0, [E, E - 1]: a reflection that takes (1, 0, …) to (1, …, 1) / √E."""
    normal = -torch.full((width,), width**-0.5, dtype=torch.float64)
    normal[0] += 1
    normal /= normal.norm()
    return (torch.eye(width, dtype=torch.float64) - 2 * torch.outer(normal, normal))[:, 1:]
