"""The decoder of a Transformer (Vaswani et al. 2017): layers that see what was written and the encoder's output.

Letters: T tokens of targets, S tokens of sources, B of each, H hidden width, E embedding width, V vocabulary.
"""

from typing import cast

import torch
from torch import Tensor, nn

from bertram.batch import check_length
from bertram.config import EncoderConfig
from bertram.models.cross_entropy import linear_cross_entropy
from bertram.models.encoder import fill_rows, precision_of
from bertram.models.layers import Embeddings, Layer, LayerNorm, layers_of, run_layer
from bertram.models.layout import layout
from bertram.models.tensors import PackedPairs


class Decoder(nn.Module):
    """Embeddings and layers as an encoder's, each with attention to the encoder's output."""

    def __init__(self, config: EncoderConfig, memory_width: int) -> None:
        """`memory_width` is that of the encoder's output."""
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(layers_of(config, memory_width))
        self.norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.normalize_before else None
        self.gradient_checkpointing = self.compiled = False

    def forward(self, pairs: PackedPairs, memory: Tensor) -> Tensor:
        """Hidden states of all tokens of the targets, [T, H], each of what stands before it and itself.

        Args:
            memory: the encoder's output for the sources, [S, memory width].

        Raises:
            BadInput: a target is longer than the positions that the model knows.
        """
        batch, heads = pairs.target, self.config.num_attention_heads
        check_length(int(batch.lengths.max()), self.config.max_position_embeddings)
        x: Tensor = self.embeddings(batch.token_ids, batch.positions, None, precision_of(self))
        own = layout(batch.lengths, batch.lengths, heads, x, causal=True)
        cross = layout(batch.lengths, pairs.source.lengths, heads, x)
        tokens = len(x)
        x, memory = fill_rows(x), fill_rows(memory)
        keep = not (self.gradient_checkpointing and torch.is_grad_enabled())
        for layer in cast(list[Layer], self.layers):
            x = run_layer(layer, x, own, memory=memory, cross=cross, keep_activations=keep, compiled=self.compiled)
        x = x[:tokens]
        return x if self.norm is None else self.norm(x)


class LanguageModelHead(nn.Module):
    """Scores of every vocabulary entry for what follows a token; H → E first where the decoder factorises."""

    def __init__(self, config: EncoderConfig, embeddings: nn.Embedding | None) -> None:
        """`embeddings` are the output matrix too where they are given (Press & Wolf 2017)."""
        super().__init__()
        width = config.embedding_width
        self.projection = None if config.embedding_size is None else nn.Linear(config.hidden_size, width)
        self.decoder = nn.Linear(width, config.vocab_size)
        if embeddings is not None:
            self.decoder.weight = embeddings.weight
        self.label_smoothing = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """[T, H] → [T, V]."""
        logits: Tensor = self.decoder(x if self.projection is None else self.projection(x))
        return logits

    def loss(self, x: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of the states [M, H] against the ids that follow, [M]; smoothed while training.

        Never holds the logits of all of them.
        """
        x = x if self.projection is None else self.projection(x)
        smoothing = self.label_smoothing if self.training else 0.0
        return linear_cross_entropy(x, self.decoder.weight, self.decoder.bias, targets, smoothing)
