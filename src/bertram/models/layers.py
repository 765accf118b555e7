"""The parts of an encoder layer, post-norm as in Vaswani et al. 2017 and Devlin et al. 2018.

Letters: T tokens, H hidden width, E embedding width, I intermediate width.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertram.config import EncoderConfig
from bertram.models.attention import Block, attention
from bertram.models.dropout import dropout
from bertram.models.tensors import PackedTensors

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
}


class Embeddings(nn.Module):
    """Token + position + segment embeddings, layer norm, dropout; then E → H where the config factorises."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.embedding_width
        self.tokens = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Embedding(config.max_position_embeddings, width)
        self.segments = nn.Embedding(config.type_vocab_size, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.projection = None if config.embedding_size is None else nn.Linear(width, config.hidden_size)
        self.dropout_prob = config.hidden_dropout_prob

    def forward(self, batch: PackedTensors, precision: torch.dtype) -> Tensor:
        """Embed T tokens, [T, H]; what follows computes in `precision`."""
        x = self.tokens(batch.token_ids) + self.positions(batch.positions) + self.segments(batch.segment_ids)
        x = self.norm(x).to(precision)
        x = dropout(x, self.dropout_prob if self.training else 0.0)
        projected: Tensor = x if self.projection is None else self.projection(x)
        return projected


class SelfAttention(nn.Module):
    """Multi-head self-attention with its residual connection and layer norm; keys and values are one product."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key_value = nn.Linear(config.hidden_size, 2 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.heads = config.num_attention_heads
        self.attention_dropout_prob = config.attention_probs_dropout_prob
        self.dropout_prob = config.hidden_dropout_prob

    def forward(self, x: Tensor, layout: list[Block], first: Tensor | None) -> Tensor:
        """[T, H] → [T, H], or [B, H] where `first` [B] names the rows that are asked for."""
        asking = x if first is None else x.index_select(0, first)
        dropped = self.attention_dropout_prob if self.training else 0.0
        mixed = attention(self.query(asking), self.key_value(x), layout, self.heads, dropped)
        out: Tensor = self.norm(asking + dropout(self.output(mixed), self.dropout_prob if self.training else 0.0))
        return out


class FeedForward(nn.Module):
    """H → I → H with its residual connection and layer norm."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.intermediate = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.dropout_prob = config.hidden_dropout_prob

    def forward(self, x: Tensor) -> Tensor:
        """[T, H] → [T, H]."""
        inner = self.output(self.activation(self.intermediate(x)))
        out: Tensor = self.norm(x + dropout(inner, self.dropout_prob if self.training else 0.0))
        return out


class Layer(nn.Module):
    """Self-attention, then feed-forward. Layers that share a part hold the same module."""

    def __init__(self, attention: SelfAttention, feed_forward: FeedForward) -> None:
        super().__init__()
        self.attention = attention
        self.feed_forward = feed_forward

    def forward(self, x: Tensor, layout: list[Block], first: Tensor | None = None) -> Tensor:
        """[T, H] → [T, H], or [B, H] where `first` [B] names the rows that are asked for."""
        out: Tensor = self.feed_forward(self.attention(x, layout, first))
        return out


def initialize_weights(model: nn.Module, std: float) -> None:
    """Set every weight of a new model.

    ============================  =======================================================================
    weights of Linear, Embedding  normal, mean 0, deviation `std`, cut at two deviations (google-research/bert)
    biases                        0
    LayerNorm                     weight 1, bias 0
    ============================  =======================================================================
    """
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)


def checkpointed(layer: nn.Module, x: Tensor, layout: list[Block], first: Tensor | None) -> Tensor:
    """Run a layer without keeping its activations; the backward pass computes them again (Chen et al. 2016)."""
    out: Tensor = torch.utils.checkpoint.checkpoint(layer, x, layout, first, use_reentrant=False)
    return out
