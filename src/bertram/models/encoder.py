"""The encoder: BERT (Devlin et al. 2018) and ALBERT (Lan et al. 2019) as two settings of one stack.

Letters: T tokens, B sequences, H hidden width.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from bertram.config import EncoderConfig
from bertram.models.layout import layout
from bertram.models.stack import Stack, fill_rows
from bertram.models.tensors import PackedTensors


class Encoder(Stack):
    """A stack whose tokens see all of their sequence."""

    def forward(self, batch: PackedTensors, *, first_only: bool = False) -> Tensor:
        """Hidden states of the last layer, [T, H], or those of first tokens alone, [B, H].

        What a pooler reads is the first tokens; the last layer then computes no other token's query, output and
        feed-forward part, a sixth of the arithmetic of a layer being left.

        Raises:
            BadInput: a sequence is longer than the positions that the model knows.
        """
        x = deque(self._run(batch, first_only=first_only), maxlen=1).pop()
        return self.normalize(x if first_only else x[: len(batch.token_ids)])

    def states(self, batch: PackedTensors) -> list[Tensor]:
        """What the first layer takes and what each layer gives, [T, H] each.

        Raises:
            BadInput: as `forward`.
        """
        return [x[: len(batch.token_ids)] for x in self._run(batch)]

    def _run(self, batch: PackedTensors, *, first_only: bool = False) -> Iterator[Tensor]:
        """The same with further rows that belong to no sequence; with `first_only` [B, H] comes last."""
        lengths, heads, last = batch.lengths, self.config.num_attention_heads, len(self.layers)
        x = self.embed(batch, batch.segment_ids)
        own = layout(lengths, lengths, heads, x)
        x = fill_rows(x)
        yield x
        for place, layer in enumerate(self.layers, 1):
            if first_only and place == last:
                own, first = layout(np.ones_like(lengths), lengths, heads, x), batch.first
            else:
                first = None
            x = self.run(layer, x, own, first=first)
            yield x


class Pooler(nn.Module):
    """tanh(W h + b) of each sequence's first token, the [CLS] of both papers."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first: Tensor) -> Tensor:
        """[B, H] → [B, H]."""
        return torch.tanh(self.dense(first))
