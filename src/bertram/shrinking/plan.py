"""What a model would shrink to, before anything trains."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from bertram.config import EncoderConfig
from bertram.errors import BadInput, require_all
from bertram.formats.engine_layout import layout_of
from bertram.model_names import require_encoder, require_trained, resolve
from bertram.shrinking.dial import LEAST_WIDTH, Dial, highest_rank
from bertram.terminal import plain_table

EMBEDDING_SIZES, RANKS = (64, 128, 256), (0, 8, 16, 32)
"""What a plan tries where nothing is asked for, beside the width of the model."""

_SCALE_BYTES = 4
"""A float32 for every output of an int8 weight."""


@dataclass(frozen=True)
class Row:
    """One setting of the dial, for the encoder alone: heads and their pooler come on top.

    Attributes:
        embedding_energy: share of the singular energy of the token embeddings, as the first layer takes them, that
            remains; every token counts alike.
        layer_energy: share of the energy of all of the teacher's layers' matrices that the student's hold, its groups
            begun as means, its residuals as the best of their rank.
    """

    groups: int
    embedding_size: int
    rank: int
    depth: int
    parameters: int
    int8_bytes: int
    embedding_energy: float
    layer_energy: float


def plan(model: str | Path, fixed: Dial = Dial(), *, allow_pickle: bool = False) -> list[Row]:
    """A row for every combination of settings with those that are `fixed`, the smallest first.

    Groups are the divisors of the number of layers, sizes and ranks such as are worth a look.

    Raises:
        BadInput: the model cannot be shrunk, or a fixed setting does not fit it.
    """
    require_all(("torch", "safetensors"), "train")
    import torch

    from bertram.shrinking.initial import embedding_energy, layer_energy

    source = require_trained(require_encoder(resolve(model, allow_pickle=allow_pickle)))
    teacher = source.read_model({})
    original = teacher.config
    width, layers = original.hidden_size, original.num_hidden_layers if fixed.depth is None else fixed.depth
    Dial(embedding_size=LEAST_WIDTH, depth=layers).of(original)  # what no setting makes fit
    divisors = [number for number in range(1, layers + 1) if layers % number == 0]
    narrow = [size for size in EMBEDDING_SIZES if size < width]
    low = [rank for rank in RANKS if rank < highest_rank(original)]
    groups = divisors if fixed.groups is None else [fixed.groups]
    embedding_sizes = [*narrow, width] if fixed.embedding_size is None else [fixed.embedding_size]
    ranks = low if fixed.rank is None else [fixed.rank]
    # Where nothing is shared there is nothing to add to, and who asks for both is told so.
    untied = [0] if fixed.groups is None or fixed.rank is None else ranks
    tried = {group: ranks if group < layers else untied for group in groups}
    students = [
        Dial(groups=group, embedding_size=size, rank=rank, depth=layers).of(original)
        for group, size in product(groups, embedding_sizes)
        if (group, size) != (original.num_hidden_layers, width)  # the model itself
        for rank in tried[group]
    ]
    if not students:
        raise BadInput("--groups and --embedding-size are the model's own: nothing would shrink")
    with torch.no_grad():
        kept = embedding_energy(teacher.encoder.embeddings, torch.ones(original.vocab_size).double())
        held = {group: layer_energy(teacher, group, layers, max(tried[group])) for group in groups}
    rows = []
    for student in students:
        size, rank = student.embedding_width, student.residual_rank
        energy = 1.0 if size == width else float(kept[size - 3])  # two directions go to the layer norm
        rows.append(Row(student.groups, size, rank, layers, *sizes(student), energy, float(held[student.groups][rank])))
    return sorted(rows, key=lambda row: row.int8_bytes)


def render_plan(rows: Sequence[Mapping[str, Any]]) -> Table:
    """What `rich` prints of a plan's rows, each as a dictionary."""
    shown = plain_table("groups", "embedding", "rank", "parameters", "MB in int8", "energy kept: embeddings", "layers")
    for row in rows:
        shown.add_row(
            *(str(row[name]) for name in ("groups", "embedding_size", "rank")),
            f"{row['parameters']:,}",
            f"{row['int8_bytes'] / 1e6:.2f}",
            *(f"{row[name]:.1%}" for name in ("embedding_energy", "layer_energy")),
        )
    shown.caption = Text(
        "Energy kept: the share of the model's squared weights that the student begins with, before it learns; no "
        "forecast of its score."
    )
    shown.caption_justify = "left"
    return shown


def sizes(config: EncoderConfig) -> tuple[int, int]:
    """Parameters of an encoder and the bytes of its weights in int8."""
    layout = layout_of(config, {}, pooler=False)
    vectors = sum(layout.vectors.values())
    weights = sum(rows * columns for rows, columns in layout.matrices.values())
    outputs = sum(rows for rows, _ in layout.matrices.values())
    return weights + vectors, weights + _SCALE_BYTES * (outputs + vectors)
