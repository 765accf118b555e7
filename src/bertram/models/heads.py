"""Heads and the whole model: an encoder, its pooler and the heads on top, each with its own loss.

Letters: T tokens, M masked positions, B sequences, H hidden width, E embedding width, V vocabulary, L labels.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertram.config import EncoderConfig
from bertram.models.dropout import dropout
from bertram.models.encoder import Encoder, Pooler
from bertram.models.layers import ACTIVATIONS, LayerNorm, initialize_weights
from bertram.models.tensors import PackedPairs, PackedTensors, Targets

Reads = Literal["hidden", "mean", "cls", "pooler"]
"""What a head takes: every token's last state, [T, H], or one vector a text, [B, H], by the names of `Pooling`."""


ConstantLoss = Callable[[Tensor], float]
"""The mean loss over targets [B] of an answer that looks at no text."""


class Head(nn.Module, ABC):
    """Logits from the encoder's output, and the loss of those logits."""

    reads: Reads
    label_smoothing = 0.0
    """Share of a label's probability that is spread evenly over all labels while training (Szegedy et al. 2016)."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean loss, a scalar in float32."""

    def constant_loss(self, targets: Tensor) -> ConstantLoss:
        """Mean loss, on any targets, of the best constant prediction for these: of numbers, their mean."""
        mean = targets.double().mean()
        return lambda others: float((others.double() - mean).square().mean())

    def divergence(self, logits: Tensor, taught: Tensor) -> Tensor:
        """How far logits [M, L] are from another model's: the mean KL divergence of their probabilities from its.

        In nats, a scalar in float32 (Hinton et al. 2015).
        """
        own, other = (scores.float().log_softmax(-1) for scores in (logits, taught))
        return F.kl_div(own, other, reduction="batchmean", log_target=True)

    def predictions(self, logits: Tensor) -> Tensor:
        """What logits [M, L] say: the number of the most probable label or token, int64 [M]."""
        return logits.argmax(-1)


class MaskedLanguageModelHead(Head):
    """Scores of every vocabulary entry, with the token embeddings as output weights (Devlin et al. 2018, 3.1)."""

    reads: Reads = "hidden"

    def __init__(self, config: EncoderConfig, embeddings: nn.Embedding) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.embedding_width)
        self.norm = LayerNorm(config.embedding_width, eps=config.layer_norm_eps)
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


class LinearHead(Head):
    """Scores by one linear layer, behind dropout: of texts from their pooled states, or of tokens from theirs."""

    def __init__(self, config: EncoderConfig, outputs: int, dropout_prob: float, reads: Reads = "pooler") -> None:
        super().__init__()
        self.classifier = nn.Linear(config.hidden_size, outputs)
        self.dropout_prob = dropout_prob
        self.reads = reads

    def forward(self, x: Tensor) -> Tensor:
        """[B or T, H] → [B or T, L]."""
        logits: Tensor = self.classifier(dropout(x, self.dropout_prob if self.training else 0.0))
        return logits


class ClassificationHead(LinearHead):
    """One score a label, for each text or token; with two labels also the sentence-pair head (NSP and SOP)."""

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of [B, L] against label numbers [B]; smoothed while training."""
        smoothing = self.label_smoothing if self.training else 0.0
        return F.cross_entropy(logits.float(), targets, label_smoothing=smoothing)

    def constant_loss(self, targets: Tensor) -> ConstantLoss:
        """As `Head.constant_loss`: the prediction is the labels' shares, smoothed, as probabilities."""
        labels, smoothing = self.classifier.out_features, self.label_smoothing
        shares = torch.bincount(targets, minlength=labels).double() / len(targets)
        smooth = (1 - smoothing) * shares + smoothing / labels
        answer = smooth.clamp(min=torch.finfo(smooth.dtype).tiny).log()[None]
        return lambda others: float(F.cross_entropy(answer.expand(len(others), -1), others, label_smoothing=smoothing))


class RegressionHead(LinearHead):
    """One number."""

    def __init__(self, config: EncoderConfig, dropout_prob: float) -> None:
        super().__init__(config, 1, dropout_prob)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of [B, 1] against values [B]."""
        return F.mse_loss(logits.squeeze(-1).float(), targets.float())

    @torch.no_grad()
    def rescale(self, factor: float, shift: float) -> None:
        """Make every value `factor` times what it was, plus `shift`."""
        self.classifier.weight.mul_(factor)
        self.classifier.bias.mul_(factor).add_(shift)

    def divergence(self, logits: Tensor, taught: Tensor) -> Tensor:
        """Mean squared error of [B, 1] against another model's."""
        return F.mse_loss(logits.float(), taught.float())

    def predictions(self, logits: Tensor) -> Tensor:
        """The values themselves, [B, 1] → float32 [B]."""
        return logits.squeeze(-1).float()


class EmbeddingHead(Head):
    """A vector for each text, with no weights of its own; learned from how alike two texts are."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.reads, self.normalize = config.pooling, config.normalize_pooling

    def forward(self, x: Tensor) -> Tensor:
        """[B, H] → [B, H] in float32, of length 1 where the configuration says so."""
        return F.normalize(x.float(), dim=-1) if self.normalize else x.float()

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error of the cosines of two texts' vectors, [2, B, H], against values [B].

        The CosineSimilarityLoss of sentence-transformers (Reimers & Gurevych 2019).
        """
        return F.mse_loss(F.cosine_similarity(logits[0], logits[1], dim=-1), targets.float())

    def divergence(self, logits: Tensor, taught: Tensor) -> Tensor:
        """1 less the mean cosine of each vector of [B, H] and the other model's (cf. Reimers & Gurevych 2020)."""
        return 1 - F.cosine_similarity(logits, taught).mean()

    def predictions(self, logits: Tensor) -> Tensor:
        """The vectors themselves, [B, H]."""
        return logits


class Model(nn.Module):
    """An encoder with any number of heads: what a checkpoint holds and what is trained.

    Heads are named "masked_language_model", "sentence_pair", "classification", "token_classification", "regression" or
    "embedding".
    """

    def __init__(
        self, config: EncoderConfig, heads: Mapping[str, int] | None = None, *, pooler: bool | None = None
    ) -> None:
        """`heads` gives each head's number of labels (ignored where there is nothing to count)."""
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.heads = nn.ModuleDict({name: self._head(name, labels) for name, labels in (heads or {}).items()})
        needs_pooler = any(head.reads == "pooler" for head in self.heads.values())
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
            case "token_classification":  # of a word by its first token (Devlin et al. 2018, 5.3)
                return ClassificationHead(config, labels, config.classifier_dropout, reads="hidden")
            case "regression":
                return RegressionHead(config, config.classifier_dropout)
            case "embedding":
                return EmbeddingHead(config)
        raise ValueError(f"no head named {name!r}")

    def labels(self) -> dict[str, int]:
        """Every head's number of labels, 0 where it has none."""
        return {
            name: head.classifier.out_features if isinstance(head, LinearHead) else 0
            for name, head in self.heads.items()
        }

    def forward(self, batch: PackedTensors, asked: Tensor | None = None) -> dict[str, Tensor]:
        """Every head's logits by its name; "hidden" [T, H] and "pooled" [B, H] if a head reads them.

        Without a head both are there, the second where there is a pooler. A head that reads every token scores those
        that are `asked` for [M], by default all.
        """
        read = self._read(batch, self.heads.keys())
        out = {name: read[key] for name, key in (("hidden", "hidden"), ("pooled", "pooler")) if key in read}
        for name, head in self.heads.items():
            reads = cast(Head, head).reads
            some = asked if reads == "hidden" else None
            out[name] = head(read[reads] if some is None else read[reads].index_select(0, some))
        return out

    def targeted(self, batch: PackedTensors, targets: Mapping[str, Targets]) -> dict[str, Tensor]:
        """Each named head's logits for its targets, [M, …]; a head sees its targets' rows alone."""
        return self.logits(self._read(batch, targets.keys()), targets)

    def logits(self, read: Mapping[Reads, Tensor], targets: Mapping[str, Targets]) -> dict[str, Tensor]:
        """`targeted` of what the named heads read."""
        logits = {}
        for name, (rows, _) in targets.items():
            head = cast(Head, self.heads[name])
            x = read[head.reads]
            logits[name] = head(x if rows is None else x.index_select(0, rows))
        return logits

    def losses(self, inputs: PackedTensors | PackedPairs, targets: Mapping[str, Targets]) -> dict[str, Tensor]:
        """Each named head's mean loss over its targets, a scalar in float32; of two texts read apart, that of both."""
        if isinstance(inputs, PackedPairs):
            sides = [self.targeted(side, targets) for side in (inputs.source, inputs.target)]
            logits = {name: torch.stack([side[name] for side in sides]) for name in targets}
        else:
            logits = self.targeted(inputs, targets)
        return {name: cast(Head, self.heads[name]).loss(logits[name], targets[name].values) for name in targets}

    def _read(self, batch: PackedTensors, heads: Collection[str]) -> dict[Reads, Tensor]:
        """What the named heads read; without heads "hidden" and, where there is one, what the pooler gives."""
        wanted: set[Reads] = {cast(Head, self.heads[name]).reads for name in heads} or {"hidden", "pooler"}
        if wanted <= {"cls", "pooler"}:
            return self._read_first(self.encoder(batch, first_only=True), wanted)
        return self.read(self.encoder(batch), batch.first, wanted)

    def read(self, hidden: Tensor, first: Tensor, wanted: Collection[Reads]) -> dict[Reads, Tensor]:
        """What is `wanted` of the last states of all tokens, [T, H], where `first` [B] names each text's first."""
        out = self._read_first(hidden.index_select(0, first), wanted)
        if "hidden" in wanted:
            out["hidden"] = hidden
        if "mean" in wanted:
            out["mean"] = means(hidden, first)
        return out

    def _read_first(self, first: Tensor, wanted: Collection[Reads]) -> dict[Reads, Tensor]:
        """What is `wanted` of first tokens' last states, [B, H]."""
        out: dict[Reads, Tensor] = {"cls": first} if "cls" in wanted else {}
        if self.pooler is not None and "pooler" in wanted:
            out["pooler"] = self.pooler(first)
        return out


def means(hidden: Tensor, first: Tensor) -> Tensor:
    """The mean of each text's rows of `hidden` [T, H], of which `first` [B] names the first: [B, H] in float32."""
    lengths = torch.diff(first, append=first.new_tensor([len(hidden)]))
    return torch.segment_reduce(hidden.float(), "mean", lengths=lengths, unsafe=True)
