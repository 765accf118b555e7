"""What a model would shrink to, before anything trains."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from bertram import model_directory, model_names
from bertram.config import EncoderConfig
from bertram.errors import BadInput, require
from bertram.formats.engine_layout import layout_of

if TYPE_CHECKING:
    from torch import Tensor

    from bertram.models.heads import Model

EMBEDDING_SIZES, RANKS = (64, 128, 256), (0, 8, 16, 32)
"""What a plan tries where nothing is asked for, beside the width of the model."""

_SCALE_BYTES = 4
"""A float32 for every output of an int8 weight."""


@dataclass(frozen=True)
class Row:
    """One setting of the dial, for the encoder alone.

    Attributes:
        embedding_energy: share of the singular energy of the token embeddings, as the first layer takes them, that
            remains; every token counts alike.
        layer_energy: share of that of the layers' matrices which their group's mean and the residuals hold.
    """

    groups: int
    embedding_size: int
    rank: int
    parameters: int
    int8_bytes: int
    embedding_energy: float
    layer_energy: float


def plan(
    model: str | Path,
    *,
    groups: Sequence[int] | None = None,
    embedding_sizes: Sequence[int] | None = None,
    ranks: Sequence[int] | None = None,
    depth: int | None = None,
    allow_pickle: bool = False,
) -> list[Row]:
    """A row for every combination of the settings, the smallest first; what the model cannot take is an error.

    By default groups are the divisors of the number of layers, and sizes and ranks such as are worth a look.

    Raises:
        BadInput: the model cannot be shrunk, or a setting does not fit it.
    """
    require("torch", "train")
    require("safetensors", "train")
    import torch

    from bertram.shrinking.initial import LEAST_WIDTH, config_of, embedding_energy

    source = model_names.resolve_encoder(model, allow_pickle=allow_pickle)
    if isinstance(source, EncoderConfig):
        raise BadInput(f"{model} is a preset, which has learned nothing to be kept")
    teacher = model_directory.read_model(source, {}, allow_pickle=allow_pickle)
    config_of(teacher.config, 1, LEAST_WIDTH, depth=depth)  # what no setting makes fit
    width, layers = teacher.config.hidden_size, teacher.config.num_hidden_layers if depth is None else depth
    # Where nothing is shared there is nothing to add to, and who asks for both is told so.
    untied = (0,) if ranks is None or groups is None else ranks
    groups = groups or [number for number in range(1, layers + 1) if layers % number == 0]
    embedding_sizes = embedding_sizes or [*(size for size in EMBEDDING_SIZES if size < width), width]
    ranks = ranks or [rank for rank in RANKS if rank < width]
    rows, energies = [], dict[tuple[int, int], float]()
    with torch.no_grad():
        kept = embedding_energy(teacher.encoder.embeddings, torch.ones(teacher.config.vocab_size).double())
        for group in groups:
            for size in embedding_sizes:
                if (group, size) == (teacher.config.num_hidden_layers, width):
                    continue  # the model itself
                for rank in ranks if group < layers else untied:
                    config = config_of(teacher.config, group, size, rank, depth)
                    if (group, rank) not in energies:
                        energies[group, rank] = _layer_energy(teacher, group, rank)
                    energy = 1.0 if size == width else float(kept[size - 3])  # two directions go to the layer norm
                    parameters, size_in_bytes = sizes(config)
                    rows.append(Row(group, size, rank, parameters, size_in_bytes, energy, energies[group, rank]))
    if not rows:
        raise BadInput("--groups and --embedding-size are the model's own: nothing would shrink")
    return sorted(rows, key=lambda row: row.int8_bytes)


def render(rows: Sequence[Row]) -> str:
    """A plain table."""
    lines = ["groups  embedding  rank  parameters  MB in int8  energy kept: embeddings  layers"]
    lines += [
        f"{row.groups:6}  {row.embedding_size:9}  {row.rank:4}  {row.parameters:10,}  {row.int8_bytes / 1e6:10.2f}  "
        f"{row.embedding_energy:24.1%}  {row.layer_energy:6.1%}"
        for row in rows
    ]
    return "\n".join(lines)


def sizes(config: EncoderConfig) -> tuple[int, int]:
    """Parameters of an encoder and the bytes of its weights in int8."""
    layout = layout_of(config, {}, pooler=False)
    vectors = sum(layout.vectors.values())
    weights = sum(rows * columns for rows, columns in layout.matrices.values())
    outputs = sum(rows for rows, _ in layout.matrices.values())
    return weights + vectors, weights + _SCALE_BYTES * (outputs + vectors)


def _layer_energy(teacher: "Model", groups: int, rank: int) -> float:
    import torch

    from bertram.shrinking.initial import layers_of_group

    lost, whole = 0.0, 0.0
    for group in range(groups):
        layers = layers_of_group(teacher, groups, group)
        for name in (name for name, weight in layers[0].named_parameters() if weight.ndim == 2):
            weights = torch.stack([cast("Tensor", layer.get_parameter(name)) for layer in layers])
            residuals = weights - weights.mean(0)
            energy = torch.linalg.svdvals(residuals).square() if rank else residuals.square().sum((1, 2))[:, None]
            lost += float(energy[:, rank:].sum())
            whole += float(weights.square().sum())
    return 1 - lost / whole
