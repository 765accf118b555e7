"""The decoder of a Transformer (Vaswani et al. 2017): layers that see what was written and the encoder's output.

Letters: T tokens of targets, S tokens of sources, B of each, H hidden width, E embedding width, V vocabulary.
"""

from torch import Tensor, nn

from bertram.config import EncoderConfig
from bertram.models.cross_entropy import linear_cross_entropy
from bertram.models.layout import layout
from bertram.models.stack import Stack, fill_rows
from bertram.models.tensors import PackedPairs


class Decoder(Stack):
    """A stack whose tokens see those before them, and the encoder's output."""

    def __init__(self, config: EncoderConfig, memory_width: int) -> None:
        """`memory_width` is that of the encoder's output."""
        super().__init__(config, memory_width)

    def forward(self, pairs: PackedPairs, memory: Tensor) -> Tensor:
        """Hidden states of all tokens of the targets, [T, H], each of what stands before it and itself.

        Args:
            memory: the encoder's output for the sources, [S, memory width].

        Raises:
            BadInput: a target is longer than the positions that the model knows.
        """
        batch, heads = pairs.target, self.config.num_attention_heads
        x = self.embed(batch, None)
        own = layout(batch.lengths, batch.lengths, heads, x, causal=True)
        cross = layout(batch.lengths, pairs.source.lengths, heads, x)
        tokens = len(x)
        x, memory = fill_rows(x), fill_rows(memory)
        for layer in self.layers:
            x = self.run(layer, x, own, memory=memory, cross=cross)
        return self.normalize(x[:tokens])


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
