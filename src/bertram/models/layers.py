"""The parts of a layer (Vaswani et al. 2017), post-norm as there and in Devlin et al. 2018, or pre-norm.

Letters: T tokens, B sequences, H hidden width, E embedding width, I intermediate width, S tokens of an encoder.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertram.config import EncoderConfig
from bertram.models.attention import attention
from bertram.models.dropout import dropout
from bertram.models.layout import Layout

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


class LayerNorm(nn.LayerNorm):
    """Ba et al. 2016, by weights in float32 whatever the precision of what is normalised."""

    def forward(self, x: Tensor) -> Tensor:
        """[T, H] → [T, H] in the precision of `x`."""
        if x.dtype == self.weight.dtype:
            return super().forward(x)
        if x.is_cuda:  # torch has no kernel for two precisions there
            return super().forward(x.to(self.weight.dtype)).to(x.dtype)
        normalized: Tensor = _Normalized.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        return normalized


class _Normalized(torch.autograd.Function):
    """A layer norm in 16 bits on a CPU, where torch's own sums its weights' gradients over tokens in 16 bits."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        found, *moments = torch.native_layer_norm(x, weight.shape, weight, bias, eps)
        ctx.save_for_backward(x, *moments, weight, bias)
        return found

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, mean, rstd, weight, bias = ctx.saved_tensors
        grads = torch.ops.aten.native_layer_norm_backward(
            grad.float(), x.float(), weight.shape, mean, rstd, weight, bias, [True] * 3
        )
        return grads[0].to(x.dtype), grads[1], grads[2], None


class _Rows(torch.autograd.Function):
    """Rows of a table in 16 bits on a CPU, where torch's own sums their gradients over tokens in 16 bits too."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.rows = len(table)
        return F.embedding(ids, table)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        read, numbers = ctx.saved_tensors[0].unique(return_inverse=True)
        sums = torch.zeros(len(read), grad.shape[1]).index_add_(0, numbers, grad.float())
        return grad.new_zeros(ctx.rows, grad.shape[1]).index_copy_(0, read, sums.to(grad.dtype)), None


class Embeddings(nn.Module):
    """Token + position + segment embeddings, layer norm, dropout; then E → H where the config factorises.

    Segments, layer norm and learned positions are there where the config has them.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.embedding_width
        self.tokens = nn.Embedding(config.vocab_size, width)
        self.positions = (
            None if config.static_position_embeddings else nn.Embedding(config.max_position_embeddings, width)
        )
        self.segments = nn.Embedding(config.type_vocab_size, width) if config.type_vocab_size else None
        self.norm = LayerNorm(width, eps=config.layer_norm_eps) if config.normalize_embedding else None
        self.projection = None if config.embedding_size is None else nn.Linear(width, config.hidden_size)
        self.scale = math.sqrt(width) if config.scale_embedding else 1.0
        self.dropout_prob = config.hidden_dropout_prob

    def forward(
        self, token_ids: Tensor, positions: Tensor, segment_ids: Tensor | None, precision: torch.dtype
    ) -> Tensor:
        """Embed T tokens by their ids, positions and segments, [T] each: [T, H] in `precision`."""
        table = self.tokens.weight
        coarse = table.dtype == torch.bfloat16 and not table.is_cuda
        x = _Rows.apply(table, token_ids) if coarse else self.tokens(token_ids)  # type: ignore[no-untyped-call]
        if self.scale != 1.0:
            x = x * self.scale
        x = x + (sinusoids(positions, x) if self.positions is None else self.positions(positions))
        if self.segments is not None:
            x = x + self.segments(segment_ids)
        if self.norm is not None:
            x = self.norm(x)
        x = dropout(x.to(precision), self.dropout_prob if self.training else 0.0)
        projected: Tensor = x if self.projection is None else self.projection(x)
        return projected


def sinusoids(positions: Tensor, like: Tensor) -> Tensor:
    """sin and cos of p / 10000^(2i / width) for each position p of [T], [T, width], as wide and of the type of `like`.

    All sines come first, as in Marian; Vaswani et al. 2017 alternate the two, which for a linear layer is the same.
    """
    table = _sinusoids(1 << int(positions.max()).bit_length(), like.shape[-1])
    return table.to(like.device, like.dtype).index_select(0, positions)


@cache
def _sinusoids(positions: int, width: int) -> Tensor:
    rates = 10000 ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(positions, dtype=torch.float64)[:, None] * rates
    return torch.cat([angles.sin(), angles[:, : width // 2].cos()], 1).float()


class ResidualLinear(nn.Module):
    """A product whose weights others share, with what this one adds to them: (W + U V) x + b, the bias its own.

    N outputs, K inputs, R the rank: U is [N, R] and V [R, K] (Bae et al. 2024, arXiv 2410.20672).
    """

    def __init__(self, shared: nn.Linear, rank: int) -> None:
        super().__init__()
        self.shared = shared
        self.down = nn.Linear(shared.in_features, rank, bias=False)
        self.up = nn.Linear(rank, shared.out_features, bias=False)
        self.bias = nn.Parameter(torch.zeros(shared.out_features))

    @property
    def weight(self) -> Tensor:
        """[N, K]; summed before anything is multiplied by it, so that the residual costs no pass over the tokens."""
        return torch.addmm(self.shared.weight, self.up.weight, self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        """[T, K] → [T, N]."""
        return F.linear(x, self.weight, self.bias.to(x.dtype))


class Sublayer(nn.Module):
    """What attention and feed-forward have in common: a residual connection, and a layer norm before or behind it.

    Subclasses make the modules themselves, in the order in which initial weights are drawn.
    """

    output: nn.Linear
    norm: LayerNorm

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.normalize_before = config.normalize_before
        self.dropout_prob = config.hidden_dropout_prob

    def normalized(self, x: Tensor) -> Tensor:
        """What the first products take of `x` [T, H], of the same shape."""
        inner: Tensor = self.norm(x) if self.normalize_before else x
        return inner

    def add(self, x: Tensor, inner: Tensor) -> Tensor:
        """Take `inner` [T, H or I] through the last product and onto `x` [T, H]."""
        x = x + dropout(self.output(inner), self.dropout_prob if self.training else 0.0)
        out: Tensor = x if self.normalize_before else self.norm(x)
        return out


class Attention(Sublayer):
    """Multi-head attention; keys and values are one product."""

    def __init__(self, config: EncoderConfig, memory_width: int | None = None) -> None:
        """`memory_width` is that of the encoder's output which a decoder attends to; None: a text attends to itself."""
        super().__init__(config)
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key_value = nn.Linear(memory_width or config.hidden_size, 2 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.heads = config.num_attention_heads
        self.attention_dropout_prob = config.attention_probs_dropout_prob

    def forward(
        self, x: Tensor, layout: Layout, *, memory: Tensor | None = None, first: Tensor | None = None
    ) -> Tensor:
        """[T, H] → [T, H], or [B, H] where `first` [B] names the rows that are asked for.

        Keys and values come from `memory` [S, memory_width] where it is given, else from `x`.
        """
        inner = self.normalized(x)
        asking, residual = (inner, x) if first is None else (inner.index_select(0, first), x.index_select(0, first))
        dropped = self.attention_dropout_prob if self.training else 0.0
        key_value = self.key_value(inner if memory is None else memory)
        return self.add(residual, attention(self.query(asking), key_value, layout, self.heads, dropped))


class FeedForward(Sublayer):
    """H → I → H for every token by itself."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.intermediate = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output = nn.Linear(config.intermediate_size, config.hidden_size)
        self.norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.activation = ACTIVATIONS[config.hidden_act]
        self.activation_dropout_prob = config.activation_dropout

    def forward(self, x: Tensor) -> Tensor:
        """[T, H] → [T, H]."""
        inner = self.activation(self.intermediate(self.normalized(x)))
        return self.add(x, dropout(inner, self.activation_dropout_prob if self.training else 0.0))


class Layer(nn.Module):
    """Self-attention, in a decoder attention to the encoder's output, then feed-forward.

    Layers that share a part hold the same module.
    """

    def __init__(self, attention: Attention, cross_attention: Attention | None, feed_forward: FeedForward) -> None:
        super().__init__()
        self.attention = attention
        if cross_attention is not None:
            self.cross_attention = cross_attention
        self.feed_forward = feed_forward

    def forward(
        self,
        x: Tensor,
        layout: Layout,
        *,
        memory: Tensor | None = None,
        cross: Layout | None = None,
        first: Tensor | None = None,
    ) -> Tensor:
        """[T, H] → [T, H], or [B, H] where `first` [B] names the rows that are asked for.

        A decoder's layer also attends to `memory` [S, memory width], as `cross` says.
        """
        x = self.attention(x, layout, first=first)
        if cross is not None:
            x = self.cross_attention(x, cross, memory=memory)
        out: Tensor = self.feed_forward(x)
        return out


def layers_of(config: EncoderConfig, memory_width: int | None = None) -> list[Layer]:
    """Layers in run order, each made of its parts; what several of them have is made once.

    With `memory_width` they also attend to an encoder's output of that width, and share that as they do the other.
    """
    attentions: dict[int, tuple[Attention, Attention | None]] = {}
    feed_forwards: dict[int, FeedForward] = {}
    weights: dict[object, nn.Linear] = {}
    layers = []
    for parts in config.layer_parts:
        if parts.attention not in attentions:
            cross = None if memory_width is None else Attention(config, memory_width)
            attentions[parts.attention] = Attention(config), cross
        if parts.feed_forward not in feed_forwards:
            feed_forwards[parts.feed_forward] = FeedForward(config)
        layers.append(Layer(*attentions[parts.attention], feed_forwards[parts.feed_forward]))
        if config.residual_rank:
            _add_residuals(layers[-1], parts.group, weights, config.residual_rank)
    return layers


def _add_residuals(layer: Layer, group: int, weights: dict[object, nn.Linear], rank: int) -> None:
    """Replace the products of a layer by ones of the weights of its group, made on first use, and a residual."""
    for part_name, part in layer.named_children():
        for name, product in part.named_children():
            if isinstance(product, nn.Linear):
                key = group, part_name, name
                if key not in weights:
                    weights[key] = nn.Linear(product.in_features, product.out_features, bias=False)
                setattr(part, name, ResidualLinear(weights[key], rank))


def initialize_weights(model: nn.Module, std: float | None) -> None:
    """Set every weight of a new model.

    ==================  ==============================================  ============================================
    .                   `std` given (google-research/bert)              None (Glorot & Bengio 2010; Vaswani et al. 2017)
    ==================  ==============================================  ============================================
    weights of Linear   normal, mean 0, deviation `std`, cut at two     uniform, deviation √(2 / (inputs + outputs))
    Embedding           likewise                                        normal, mean 0, deviation 1 / √width
    biases, U of a      0                                               0
    ResidualLinear
    LayerNorm           weight 1, bias 0                                weight 1, bias 0
    ==================  ==============================================  ============================================

    A matrix that is an embedding and an output matrix too is set as an embedding.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    residuals: list[nn.Linear] = []
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            if std is not None:
                nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
            elif id(module.weight) in embeddings:
                nn.init.normal_(module.weight, std=module.weight.shape[1] ** -0.5)
            else:
                nn.init.xavier_uniform_(module.weight)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, ResidualLinear):
            nn.init.zeros_(module.bias)
            residuals.append(module.up)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    for up in residuals:  # last, as they are Linears too
        nn.init.zeros_(up.weight)
