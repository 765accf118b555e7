"""What a model is made of: frozen configurations and the presets, sizes as published.

Field names are those of Hugging Face's config.json. BERT (Devlin et al. 2018) and ALBERT (Lan et al. 2019) are two
settings of the same fields; `bert` and `albert` below are the whole difference.
"""

from dataclasses import dataclass, replace
from typing import Literal, get_args

from bertram.errors import BadInput

Sharing = Literal["all", "attention", "ffn", "none"]
SentenceObjective = Literal["nsp", "sop", "none"]
Activation = Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]
Masking = Literal["token", "word", "ngram"]


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes and settings of one encoder.

    Raises:
        BadInput: the values do not fit together.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12

    embedding_size: int | None = None
    """Width E of the embeddings, which a linear layer then takes to the hidden width H; None: they are H wide."""
    num_hidden_groups: int | None = None
    """Groups that layers are shared in: layer i belongs to group i * groups // layers. None: every layer its own."""
    inner_group_num: int = 1
    """Layers inside a group, all run at each of the num_hidden_layers steps (ALBERT's inner group)."""
    shared: Sharing = "all"
    """What the layers of a group have in common: their attention, their feed-forward part, all or nothing."""
    sentence_objective: SentenceObjective = "nsp"

    def __post_init__(self) -> None:
        sizes = ["vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"]
        sizes += ["max_position_embeddings", "type_vocab_size", "inner_group_num", "groups", "embedding_width"]
        for name in sizes:
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= 2**24:
                raise BadInput(f"config: {name} must be a whole number from 1 to {2**24}, not {value!r:.80}")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < 1:
                raise BadInput(f"config: {name} must lie in [0, 1), not {value!r:.80}")
        for name in ("initializer_range", "layer_norm_eps"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < 1:
                raise BadInput(f"config: {name} must lie between 0 and 1, not {value!r:.80}")
        choices = {"hidden_act": Activation, "shared": Sharing, "sentence_objective": SentenceObjective}
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value not in get_args(allowed):
                raise BadInput(f"config: {name} must be one of {', '.join(get_args(allowed))}, not {value!r:.80}")
        if self.hidden_size % self.num_attention_heads:
            raise BadInput(f"config: {self.num_attention_heads} heads do not divide a width of {self.hidden_size}")
        if self.groups > self.num_hidden_layers:
            raise BadInput(f"config: {self.groups} groups are more than {self.num_hidden_layers} layers")
        if self.num_hidden_layers * self.inner_group_num > 1024:
            raise BadInput(f"config: {self.num_hidden_layers} × {self.inner_group_num} layers are more than 1,024")

    @property
    def embedding_width(self) -> int:
        return self.hidden_size if self.embedding_size is None else self.embedding_size

    @property
    def groups(self) -> int:
        return self.num_hidden_layers if self.num_hidden_groups is None else self.num_hidden_groups

    def group_of(self, layer: int) -> int:
        """The group of layer step `layer` (google-research/albert `modeling.py`)."""
        return layer * self.groups // self.num_hidden_layers

    @property
    def model_type(self) -> Literal["bert", "albert"]:
        """The published family whose format and tokenizer fit: BERT has neither factorised embeddings nor groups."""
        own_layers = self.groups == self.num_hidden_layers and self.inner_group_num == 1
        return "bert" if own_layers and self.embedding_size is None else "albert"


def bert(layers: int, width: int) -> EncoderConfig:
    """Devlin et al. 2018, and the miniatures of Turc et al. 2019: heads 64 wide, feed-forward four times the width."""
    return EncoderConfig(
        vocab_size=30522,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        intermediate_size=4 * width,
    )


def albert(layers: int, width: int, heads: int | None = None) -> EncoderConfig:
    """Lan et al. 2019, version 2 of the published models: no dropout, GELU by its tanh form."""
    return replace(
        bert(layers, width),
        vocab_size=30000,
        num_attention_heads=heads or width // 64,
        embedding_size=128,
        num_hidden_groups=1,
        sentence_objective="sop",
        hidden_act="gelu_new",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


PRESETS: dict[str, EncoderConfig] = {
    "bert-tiny": bert(2, 128),
    "bert-mini": bert(4, 256),
    "bert-small": bert(4, 512),
    "bert-medium": bert(8, 512),
    "bert-base": bert(12, 768),
    "bert-large": bert(24, 1024),
    "albert-tiny": albert(2, 128),
    "albert-mini": albert(4, 256),
    "albert-small": albert(4, 512),
    "albert-medium": albert(8, 512),
    "albert-base": albert(12, 768),
    "albert-large": albert(24, 1024),
    "albert-xlarge": albert(24, 2048, heads=16),
    "albert-xxlarge": albert(12, 4096),
}


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """What an encoder is pre-trained to do, and on sequences of which length.

    Raises:
        BadInput: a value is out of range.
    """

    sentence_objective: SentenceObjective | None = None
    """Next sentence, sentence order, or neither; by default the model's own: nsp for BERT, sop for ALBERT."""
    masking: Masking = "token"
    """Mask single tokens, whole words, or n-grams of one to three words (Lan et al. 2019)."""
    max_length: int = 128
    """Tokens of a sequence, special ones included; positions beyond stay untrained."""

    def __post_init__(self) -> None:
        choices = {"sentence_objective": SentenceObjective, "masking": Masking}
        for name, allowed in choices.items():
            value = getattr(self, name)
            if value is not None and value not in get_args(allowed):
                option = f"--{name.replace('_', '-')} {value!r:.80}"
                raise BadInput(f"{option}: must be one of {', '.join(get_args(allowed))}")
        if not 8 <= self.max_length <= 2**20:
            raise BadInput(f"--max-length {self.max_length}: the least is 8, the most {2**20:,}")


def parse_fields(text: str) -> dict[str, int | float | str]:
    """Read `hidden_size=320,hidden_dropout_prob=0.1,shared=attention`.

    Raises:
        BadInput: it does not read like that.
    """
    found: dict[str, int | float | str] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or not name or not value or name in found:
            raise BadInput(f"--config {text!r:.80}: write it like hidden_size=320,num_attention_heads=5")
        found[name] = value
        for kind in (float, int):  # the narrowest that reads it
            try:
                found[name] = kind(value)
            except ValueError:
                continue
    return found
