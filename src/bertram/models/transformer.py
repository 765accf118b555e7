"""The encoder–decoder Transformer (Vaswani et al. 2017), its parts shared and factorised as ALBERT's where asked for.

Letters: T tokens of targets, S tokens of sources, H hidden width, V vocabulary, M targets to learn.
"""

from collections.abc import Mapping

from torch import Tensor, nn

from bertram.config import TransformerConfig
from bertram.models.decoder import Decoder, LanguageModelHead
from bertram.models.encoder import Encoder
from bertram.models.layers import initialize_weights
from bertram.models.tensors import PackedPairs, PackedTensors, Targets

HEAD = "language_model"
"""The one head's name in examples and losses."""


class Transformer(nn.Module):
    """An encoder, a decoder and a head over the vocabulary: what a checkpoint holds and what is trained."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.decoder = Decoder(config.decoder, config.encoder.hidden_size)
        if config.share_encoder_decoder_embeddings:
            self.decoder.embeddings.tokens = self.encoder.embeddings.tokens
        self.head = LanguageModelHead(
            config.decoder, self.decoder.embeddings.tokens if config.tie_word_embeddings else None
        )
        for part, stack in (
            (self.encoder, config.encoder),
            (self.head, config.decoder),
            (self.decoder, config.decoder),
        ):
            initialize_weights(part, stack.initializer_range)

    def encode(self, sources: PackedTensors) -> Tensor:
        """The encoder's output, [S, H]."""
        memory: Tensor = self.encoder(sources)
        return memory

    def decode(self, pairs: PackedPairs, memory: Tensor) -> Tensor:
        """The decoder's hidden states, [T, H], where `memory` is [S, H]."""
        hidden: Tensor = self.decoder(pairs, memory)
        return hidden

    def forward(self, pairs: PackedPairs) -> Tensor:
        """Logits of what follows each token of the targets, [T, V]."""
        logits: Tensor = self.head(self.decode(pairs, self.encode(pairs.source)))
        return logits

    def losses(self, pairs: PackedPairs, targets: Mapping[str, Targets]) -> dict[str, Tensor]:
        """The head's mean loss over its targets, a scalar in float32."""
        rows, values = targets[HEAD]
        hidden = self.decode(pairs, self.encode(pairs.source))
        return {HEAD: self.head.loss(hidden if rows is None else hidden.index_select(0, rows), values)}
