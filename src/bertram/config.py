"""What a model is made of: frozen configurations and presets, sizes as published; and the choices that options take.

Field names are those of Hugging Face's config.json. BERT (Devlin et al. 2018), ALBERT (Lan et al. 2019) and either half
of the Transformer (Vaswani et al. 2017) are settings of the same fields; `bert`, `albert` and `transformer` below are
the whole difference.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple, get_args

from bertram.errors import BadInput, bad_option, failing_in
from bertram.fields import Interval, check_fields

Sharing = Literal["all", "attention", "ffn", "none"]
SentenceObjective = Literal["nsp", "sop", "none"]
Activation = Literal["gelu", "gelu_new", "relu", "silu"]
Masking = Literal["token", "word", "ngram"]
Pooling = Literal["mean", "cls"]

_BOUNDS = {
    **dict.fromkeys(("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads"), Interval(1, 2**24)),
    **dict.fromkeys(("intermediate_size", "max_position_embeddings", "embedding_size"), Interval(1, 2**24)),
    **dict.fromkeys(("num_hidden_groups", "inner_group_num"), Interval(1, 2**24)),
    **dict.fromkeys(("type_vocab_size", "residual_rank"), Interval(0, 2**24)),
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), Interval(0, 1, "[)")),
    **dict.fromkeys(("activation_dropout", "classifier_dropout"), Interval(0, 1, "[)")),
    **dict.fromkeys(("initializer_range", "layer_norm_eps"), Interval(0, 1, "()")),
}


def _bad_field(name: str, value: object, rule: str) -> BadInput:
    return BadInput(f"{name} {rule}, not {value!r:.80}")


class LayerParts(NamedTuple):
    """Numbers from 0 in the order of first use."""

    group: int
    attention: int
    feed_forward: int


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes and settings of one stack of layers: an encoder, or a decoder, whose layers also attend to an encoder.

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
    activation_dropout: float = 0.0
    """Between the two products of a feed-forward part, where torch's TransformerEncoderLayer has it too."""
    classifier_dropout: float = 0.1
    initializer_range: float | None = 0.02
    """Deviation of all new weights; None: by the width of each matrix (`initialize_weights`)."""
    layer_norm_eps: float = 1e-12

    embedding_size: int | None = None
    """Width E of the embeddings, which a linear layer then takes to the hidden width H; None: they are H wide."""
    num_hidden_groups: int | None = None
    """Groups that layers are shared in: layer i belongs to group i * groups // layers. None: every layer its own."""
    inner_group_num: int = 1
    """Layers inside a group, all run at each of the num_hidden_layers steps (ALBERT's inner group)."""
    shared: Sharing = "all"
    """What the layers of a group have in common: their attention, their feed-forward part, all or nothing."""
    residual_rank: int = 0
    """Rank of what each layer adds to the weights that its group shares, having biases and layer norms of its own then
    (Bae et al. 2024, arXiv 2410.20672); 0: nothing."""
    sentence_objective: SentenceObjective = "nsp"

    pooling: Pooling = "mean"
    """A text's vector: the mean of its tokens' last states, or that of its first token."""
    normalize_pooling: bool = False
    """Vectors of texts have length 1."""

    normalize_embedding: bool = True
    """Layer norm over the sum of the embeddings, as in both papers of encoders and unlike the Transformer."""
    normalize_before: bool = False
    """Layer norm before each part of a layer and once behind the last (pre-norm) instead of behind each part."""
    scale_embedding: bool = False
    """Token embeddings times the square root of their width (Vaswani et al. 2017, 3.4)."""
    static_position_embeddings: bool = False
    """Sines and cosines of the position instead of learned embeddings (Vaswani et al. 2017, 3.5)."""

    def __post_init__(self) -> None:
        check_fields(self, _BOUNDS, _bad_field)
        if self.hidden_size % self.num_attention_heads:
            raise BadInput(f"{self.num_attention_heads} heads do not divide a width of {self.hidden_size}")
        if self.groups > self.num_hidden_layers:
            raise BadInput(f"{self.groups} groups are more than {self.num_hidden_layers} layers")
        if self.residual_rank > self.hidden_size:
            raise BadInput(f"a rank of {self.residual_rank} is more than the width of {self.hidden_size}")
        if self.residual_rank and (self.shared != "all" or self.groups == self.num_hidden_layers):
            raise BadInput('residual_rank needs shared="all" and fewer groups than layers')
        if self.num_hidden_layers * self.inner_group_num > 1024:
            raise BadInput(f"{self.num_hidden_layers} × {self.inner_group_num} layers are more than 1,024")

    @property
    def untied(self) -> "EncoderConfig":
        """The configuration of the same model with every layer's weights its own, residuals summed."""
        return replace(self, residual_rank=0, shared="none") if self.residual_rank else self

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
    def layer_parts(self) -> list[LayerParts]:
        """Of every layer in run order, where its parameters are: what has equal numbers is stored once.

        With residuals a layer is its own, but for the weights of its products, which its group shares.
        """
        shared, found = "none" if self.residual_rank else self.shared, []
        for layer in range(self.num_hidden_layers * self.inner_group_num):
            step, inner = divmod(layer, self.inner_group_num)
            group = self.group_of(step) * self.inner_group_num + inner
            attention = group if shared in ("all", "attention") else layer
            found.append(LayerParts(group, attention, group if shared in ("all", "ffn") else layer))
        return found

    @property
    def model_type(self) -> Literal["bert", "albert"]:
        """The published family whose format and tokenizer fit: BERT has neither factorised embeddings nor groups."""
        own_layers = self.groups == self.num_hidden_layers and self.inner_group_num == 1
        return "bert" if own_layers and self.embedding_size is None else "albert"


def check_published(config: EncoderConfig) -> None:
    """Refuse an encoder that computes what no BERT or ALBERT does, and that transformers therefore cannot be given.

    Raises:
        BadInput: it is one.
    """
    usual = {
        "normalize_before": False,
        "normalize_embedding": True,
        "scale_embedding": False,
        "static_position_embeddings": False,
    }
    for name, value in usual.items():
        if (found := getattr(config, name)) != value:
            raise BadInput(f"{name}={found}: is for translation and summarization, and not supported by BERT or ALBERT")


def changed(config: EncoderConfig, changes: Mapping[str, Any]) -> EncoderConfig:
    """A configuration with some fields changed as a user asks for; the tokenizer and the objective have the others.

    Raises:
        BadInput: a field is unknown, or its value makes no sense.
    """
    known = [field.name for field in fields(EncoderConfig) if field.name not in ("vocab_size", "sentence_objective")]
    with failing_in("--config"):
        for name in changes:
            if name not in known:
                raise BadInput(f"no field {name!r:.40}; fields are {', '.join(known)}")
        return replace(config, **changes)


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """An encoder and a decoder (Vaswani et al. 2017); of either kind, so that a BERT may be the encoder.

    Raises:
        BadInput: the two do not fit together.
    """

    encoder: EncoderConfig
    decoder: EncoderConfig
    share_encoder_decoder_embeddings: bool = True
    """Both embed tokens of one vocabulary by one matrix."""
    tie_word_embeddings: bool = True
    """The decoder's embeddings are its output matrix too (Press & Wolf 2017)."""
    pad_token_id: int = 0
    eos_token_id: int = 1
    decoder_start_token_id: int = 0

    @property
    def max_position_embeddings(self) -> int:
        """Tokens of a text that may be read or written."""
        return min(self.encoder.max_position_embeddings, self.decoder.max_position_embeddings)

    def __post_init__(self) -> None:
        encoder, decoder = self.encoder, self.decoder
        if self.share_encoder_decoder_embeddings and (
            (encoder.vocab_size, encoder.embedding_width) != (decoder.vocab_size, decoder.embedding_width)
        ):
            raise BadInput(
                f"embeddings of {encoder.vocab_size} × {encoder.embedding_width} in the encoder and "
                f"{decoder.vocab_size} × {decoder.embedding_width} in the decoder cannot be one"
            )
        if encoder.residual_rank or decoder.residual_rank:
            raise BadInput("residual_rank is for an encoder without a decoder")
        if decoder.type_vocab_size:
            raise BadInput("a decoder has no segments, so its type_vocab_size must be 0")
        tokens = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
        check_fields(self, dict.fromkeys(tokens, Interval(0, 2**24)), _bad_field)
        for name in tokens:
            if (value := getattr(self, name)) >= decoder.vocab_size:
                raise _bad_field(name, value, f"must be a token of the decoder's {decoder.vocab_size}")


Lesson = Literal["states", "vectors", "similarities", "logits"]
"""What a model may teach another: its hidden states, its vectors of texts, their cosines, what its heads say."""
LESSONS: tuple[Lesson, ...] = get_args(Lesson)

NEVER_CASED = "--cased: is for labelled texts; an encoder–decoder preset keeps case and accents anyway"

Documents = Literal["file", "blank-line"]
"""What parts the documents of text files."""
ExportFormat = Literal["engine", "onnx", "ctranslate2", "huggingface"]
"""What a trained model is exported to."""
Precision = Literal["fp32", "int8"]
"""What an exported model's weights are kept in."""
LengthDistribution = Literal["mixed", "sst2", "imdb"]
"""How the lengths of random texts are distributed that speed is measured on."""


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


def transformer(
    layers: int, width: int, heads: int, intermediate: int, dropout: float, vocab_size: int = 37000
) -> TransformerConfig:
    """Vaswani et al. 2017: as many layers in the decoder as in the encoder, one vocabulary, one embedding matrix.

    Dropout is theirs (5.4): of embeddings and of what each part adds, not inside the parts.
    """
    stack = EncoderConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=intermediate,
        type_vocab_size=0,
        hidden_act="relu",
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=0.0,
        initializer_range=None,
        layer_norm_eps=1e-5,
        sentence_objective="none",
        normalize_embedding=False,
        scale_embedding=True,
        static_position_embeddings=True,
    )
    return TransformerConfig(encoder=stack, decoder=stack)


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

TRANSFORMERS: dict[str, TransformerConfig] = {
    "transformer-tiny": transformer(4, 128, 4, 256, dropout=0.3, vocab_size=10000),
    "transformer-base": transformer(6, 512, 8, 2048, dropout=0.1),
    "transformer-big": transformer(6, 1024, 16, 4096, dropout=0.3),
}


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """What an encoder is pre-trained to do, and on sequences of which length.

    Raises:
        BadInput: a value is out of range.
    """

    sentence_objective: SentenceObjective | None = None
    """Next-sentence prediction, sentence-order prediction, or none. Default: the model's own, nsp for BERT and sop for
    ALBERT."""
    masking: Masking = "token"
    """Mask single tokens, whole words, or n-grams of one to three words (Lan et al. 2019)."""
    max_length: int = 128
    """Sequence length in tokens, special tokens included; position embeddings beyond it are not trained."""

    def __post_init__(self) -> None:
        check_fields(self, {"max_length": Interval(8, 2**20)}, bad_option)


def assignments(text: str, example: str) -> dict[str, str]:
    """What `text` assigns to which name; it is written like `example`, name=value,name=value.

    Raises:
        BadInput: it is not, or assigns to a name twice.
    """
    found: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if not equals or not (name := name.strip()) or not value or name in found:
            raise BadInput(f"{text!r:.80}: write it like {example}")
        found[name] = value
    return found


def parse_fields(values: Mapping[str, str]) -> dict[str, bool | int | float | str]:
    """The values of fields as what they are written like: true and false, numbers, or text."""
    found: dict[str, bool | int | float | str] = {}
    for name, value in values.items():
        value = value.strip()
        found[name] = {"true": True, "false": False}.get(value.lower(), value)
        for kind in (float, int):  # the narrowest that reads it
            try:
                found[name] = kind(value)
            except ValueError:
                continue
    return found
