"""The encoder: BERT (Devlin et al. 2018) and ALBERT (Lan et al. 2019) as two settings of one stack.

Letters: T tokens, B sequences, H hidden width.
"""

from typing import cast

import torch
from torch import Tensor, nn

from bertram.config import EncoderConfig
from bertram.errors import BadInput
from bertram.models.layers import Embeddings, FeedForward, Layer, SelfAttention, checkpointed
from bertram.models.tensors import PackedTensors


class Encoder(nn.Module):
    """Embeddings and num_hidden_layers × inner_group_num layers, in run order, some of which share their parts."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(_layers(config))
        self.gradient_checkpointing = False

    def forward(self, batch: PackedTensors) -> Tensor:
        """Hidden states of the last layer, [T, H].

        Raises:
            BadInput: a sequence is longer than the positions that the model knows.
        """
        longest, positions = max(group.length for group in batch.groups), self.config.max_position_embeddings
        if longest > positions:
            raise BadInput(f"a text of {longest} tokens is longer than the model's {positions} positions")
        precision = cast(Layer, self.layers[0]).attention.qkv.weight.dtype
        x: Tensor = self.embeddings(batch, precision)
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                x = checkpointed(layer, x, batch.groups)
            else:
                x = layer(x, batch.groups)
        return x


class Pooler(nn.Module):
    """tanh(W h + b) of each sequence's first token, the [CLS] of both papers."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden: Tensor, batch: PackedTensors) -> Tensor:
        """[T, H] → [B, H]."""
        return torch.tanh(self.dense(hidden[batch.first]))


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
