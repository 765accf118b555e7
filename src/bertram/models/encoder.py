"""The encoder: BERT (Devlin et al. 2018) and ALBERT (Lan et al. 2019) as two settings of one stack.

Letters: T tokens, B sequences, H hidden width.
"""

from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertram.config import EncoderConfig
from bertram.errors import BadInput
from bertram.models.attention import blocks
from bertram.models.layers import Embeddings, FeedForward, Layer, SelfAttention, checkpointed
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
        self.layers = nn.ModuleList(_layers(config))
        self.gradient_checkpointing = False

    def forward(self, batch: PackedTensors, *, first_only: bool = False) -> Tensor:
        """Hidden states of the last layer, [T, H], or those of first tokens alone, [B, H].

        What a pooler reads is the first tokens; the last layer then computes no other token's query, output and
        feed-forward part, a sixth of the arithmetic of a layer being left.

        Raises:
            BadInput: a sequence is longer than the positions that the model knows.
        """
        longest, positions = int(batch.positions.max()) + 1, self.config.max_position_embeddings
        if longest > positions:
            raise BadInput(f"a text of {longest} tokens is longer than the model's {positions} positions")
        precision = cast(Layer, self.layers[0]).attention.query.weight.dtype
        layout = blocks(batch.groups, self.config.num_attention_heads)
        x: Tensor = self.embeddings(batch, precision)
        tokens = len(x)
        x = F.pad(x, (0, 0, 0, -tokens % _ROW_MULTIPLE))
        for place, layer in enumerate(self.layers, 1):
            first = batch.first if first_only and place == len(self.layers) else None
            run = partial(checkpointed, layer) if self.gradient_checkpointing and self.training else layer
            x = run(x, layout, first)
        return x if first_only else x[:tokens]


class Pooler(nn.Module):
    """tanh(W h + b) of each sequence's first token, the [CLS] of both papers."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first: Tensor) -> Tensor:
        """[B, H] → [B, H]."""
        return torch.tanh(self.dense(first))


def _layers(config: EncoderConfig) -> list[Layer]:
    """Layers in run order; what `shared` names is made once for a (group, inner) place, the rest for every layer."""
    attentions: dict[object, SelfAttention] = {}
    feed_forwards: dict[object, FeedForward] = {}
    layers = []
    for step in range(config.num_hidden_layers):
        for inner in range(config.inner_group_num):
            group, own = (config.group_of(step), inner), (step, inner, "own")
            a = group if config.shared in ("all", "attention") else own
            f = group if config.shared in ("all", "ffn") else own
            if a not in attentions:
                attentions[a] = SelfAttention(config)
            if f not in feed_forwards:
                feed_forwards[f] = FeedForward(config)
            layers.append(Layer(attentions[a], feed_forwards[f]))
    return layers
