"""Heads and the whole model: an encoder, its pooler and the heads on top, each with its own loss.

Letters: T tokens, M masked positions, B sequences, H hidden width, E embedding width, V vocabulary, L labels.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertram.batch import IGNORED
from bertram.config import EncoderConfig
from bertram.models.dropout import dropout
from bertram.models.encoder import Encoder, Pooler
from bertram.models.layers import ACTIVATIONS, initialize_weights
from bertram.models.tensors import PackedTensors, Targets


class Head(nn.Module, ABC):
    """Logits from the encoder's output, and the loss of those logits."""

    pooled: bool
    """Whether `forward` takes the pooler's [B, H] or the encoder's [T, H]."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean loss, a scalar in float32."""

    @abstractmethod
    def blind_loss(self, targets: Tensor) -> float:
        """The least mean loss of a model that gives every text the same answer."""


class MaskedLanguageModelHead(Head):
    """Scores of every vocabulary entry, with the token embeddings as output weights (Devlin et al. 2018, 3.1)."""

    pooled = False

    def __init__(self, config: EncoderConfig, embeddings: nn.Embedding) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.embedding_width)
        self.norm = nn.LayerNorm(config.embedding_width, eps=config.layer_norm_eps)
        self.decoder = nn.Linear(config.embedding_width, config.vocab_size)
        self.decoder.weight = embeddings.weight
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """[T or M, H] → [T or M, V]. Give it the masked positions alone where nothing else is asked."""
        logits: Tensor = self.decoder(self.norm(self.activation(self.dense(x))))
        return logits

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of [M, V] against the original ids [M]; IGNORED ones do not count."""
        return F.cross_entropy(logits.float(), targets)

    def blind_loss(self, targets: Tensor) -> float:
        """The entropy of the shares of the ids, in nats."""
        return _entropy(targets[targets != IGNORED])


class ClassificationHead(Head):
    """One score a label from the pooled state; with two labels also the sentence-pair head (NSP and SOP)."""

    pooled = True

    def __init__(self, config: EncoderConfig, labels: int, dropout_prob: float) -> None:
        super().__init__()
        self.classifier = nn.Linear(config.hidden_size, labels)
        self.dropout_prob = dropout_prob
        self.label_smoothing = 0.0

    def forward(self, x: Tensor) -> Tensor:
        """[B, H] → [B, L]."""
        logits: Tensor = self.classifier(dropout(x, self.dropout_prob if self.training else 0.0))
        return logits

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of [B, L] against label numbers [B]; smoothed while training."""
        smoothing = self.label_smoothing if self.training else 0.0
        return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)

    def blind_loss(self, targets: Tensor) -> float:
        """The entropy of the labels' shares, in nats."""
        return _entropy(targets)


class RegressionHead(ClassificationHead):
    """One number from the pooled state."""

    def __init__(self, config: EncoderConfig, dropout_prob: float) -> None:
        super().__init__(config, 1, dropout_prob)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of [B, 1] against values [B]."""
        return F.mse_loss(logits.squeeze(-1).float(), targets.float())

    def blind_loss(self, targets: Tensor) -> float:
        """The variance of the values."""
        return float(targets.double().var(correction=0))


class Model(nn.Module):
    """An encoder with any number of heads: what a checkpoint holds and what is trained.

    Heads are named "masked_language_model", "sentence_pair", "classification" or "regression".
    """

    def __init__(
        self, config: EncoderConfig, heads: Mapping[str, int] | None = None, *, pooler: bool | None = None
    ) -> None:
        """`heads` gives each head's number of labels (ignored where there is nothing to count)."""
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.heads = nn.ModuleDict({name: self._head(name, labels) for name, labels in (heads or {}).items()})
        needs_pooler = any(head.pooled for head in self.heads.values())
        self.pooler = Pooler(config) if needs_pooler or pooler or (pooler is None and not self.heads) else None
        initialize_weights(self, config.initializer_range)

    def _head(self, name: str, labels: int) -> Head:
        config = self.config
        match name:
            case "masked_language_model":
                return MaskedLanguageModelHead(config, self.encoder.embeddings.tokens)
            case "sentence_pair":
                # google-research/bert scores the pair without dropout, google-research/albert likewise;
                # fine-tuning adds it (Devlin et al. 2018, A.3).
                return ClassificationHead(config, 2, 0.0)
            case "classification":
                return ClassificationHead(config, labels, config.classifier_dropout)
            case "regression":
                return RegressionHead(config, config.classifier_dropout)
        raise ValueError(f"no head named {name!r}")

    def forward(self, batch: PackedTensors) -> dict[str, Tensor]:
        """Every head's logits by its name, and "pooled" [B, H] where there is a pooler.

        "hidden" [T, H] is there if a head reads it or there is no head.
        """
        out = self._read(batch, self.heads.keys())
        for name, head in self.heads.items():
            out[name] = head(out["pooled"] if head.pooled else out["hidden"])
        return out

    def targeted(self, batch: PackedTensors, targets: Mapping[str, Targets]) -> dict[str, Tensor]:
        """Each named head's logits for its targets, [M, …]; a head sees its targets' rows alone."""
        out, logits = self._read(batch, targets.keys()), {}
        for name, (rows, _) in targets.items():
            head = cast(Head, self.heads[name])
            x = out["pooled"] if head.pooled else out["hidden"]
            logits[name] = head(x if rows is None else x.index_select(0, rows))
        return logits

    def losses(self, batch: PackedTensors, targets: Mapping[str, Targets]) -> dict[str, Tensor]:
        """Each named head's mean loss over its targets, a scalar in float32."""
        logits = self.targeted(batch, targets)
        return {name: cast(Head, self.heads[name]).loss(logits[name], targets[name].values) for name in targets}

    def _read(self, batch: PackedTensors, heads: Collection[str]) -> dict[str, Tensor]:
        """What heads read: "hidden" [T, H], unless first tokens are enough, and "pooled" [B, H] with a pooler."""
        out = {}
        if heads and all(cast(Head, self.heads[name]).pooled for name in heads):
            first = self.encoder(batch, first_only=True)
        else:
            out["hidden"] = self.encoder(batch)
            first = out["hidden"].index_select(0, batch.first)
        if self.pooler is not None:
            out["pooled"] = self.pooler(first)
        return out


def _entropy(numbers: Tensor) -> float:
    counts = torch.unique(numbers, return_counts=True)[1].double()
    return float(torch.special.entr(counts / counts.sum()).sum())
