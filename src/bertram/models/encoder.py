"""The encoder: BERT (Devlin et al. 2018) and ALBERT (Lan et al. 2019) as two settings of one stack.

Letters: T tokens, B sequences, H hidden width.
"""

from collections.abc import Iterator
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertram.batch import check_length
from bertram.config import EncoderConfig
from bertram.models.layers import Embeddings, Layer, LayerNorm, layers_of, run_layer
from bertram.models.layout import layout
from bertram.models.tensors import PackedTensors

# The library below compiles a kernel for each new shape of a product, so products get few: rows of zeros that belong to
# no sequence fill T up. Measured in docs/experiments.md.
_ROW_MULTIPLE = 32


class Encoder(nn.Module):
    """Embeddings and num_hidden_layers × inner_group_num layers, in run order, some of which share their parts."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(layers_of(config))
        self.norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.normalize_before else None
        self.gradient_checkpointing = self.compiled = False

    def forward(self, batch: PackedTensors, *, first_only: bool = False) -> Tensor:
        """Hidden states of the last layer, [T, H], or those of first tokens alone, [B, H].

        What a pooler reads is the first tokens; the last layer then computes no other token's query, output and
        feed-forward part, a sixth of the arithmetic of a layer being left.

        Raises:
            BadInput: a sequence is longer than the positions that the model knows.
        """
        for x in self._run(batch, first_only=first_only):  # noqa: B007
            pass
        x = x if first_only else x[: len(batch.token_ids)]
        return x if self.norm is None else self.norm(x)

    def states(self, batch: PackedTensors) -> list[Tensor]:
        """What the first layer takes and what each layer gives, [T, H] each.

        Raises:
            BadInput: as `forward`.
        """
        return [x[: len(batch.token_ids)] for x in self._run(batch)]

    def _run(self, batch: PackedTensors, *, first_only: bool = False) -> Iterator[Tensor]:
        """The same with further rows that belong to no sequence; with `first_only` [B, H] comes last."""
        lengths, heads, last = batch.lengths, self.config.num_attention_heads, len(self.layers)
        check_length(int(lengths.max()), self.config.max_position_embeddings)
        x: Tensor = self.embeddings(batch.token_ids, batch.positions, batch.segment_ids, precision_of(self))
        own = layout(lengths, lengths, heads, x)
        x = fill_rows(x)
        yield x
        keep = not (self.gradient_checkpointing and torch.is_grad_enabled())
        for place, layer in enumerate(cast(list[Layer], self.layers), 1):
            if first_only and place == last:
                own, first = layout(np.ones_like(lengths), lengths, heads, x), batch.first
            else:
                first = None
            x = run_layer(layer, x, own, first=first, keep_activations=keep, compiled=self.compiled)
            yield x


def precision_of(stack: nn.Module) -> torch.dtype:
    """The type that a stack's products are computed in."""
    return cast(Layer, cast(nn.ModuleList, stack.layers)[0]).attention.query.weight.dtype


def fill_rows(x: Tensor) -> Tensor:
    """[T, H] with rows of zeros below, up to a multiple of 32; on a GPU as it is."""
    return x if x.is_cuda else F.pad(x, (0, 0, 0, -len(x) % _ROW_MULTIPLE))


class Pooler(nn.Module):
    """tanh(W h + b) of each sequence's first token, the [CLS] of both papers."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first: Tensor) -> Tensor:
        """[B, H] → [B, H]."""
        return torch.tanh(self.dense(first))
