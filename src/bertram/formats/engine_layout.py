"""What an engine holds of an encoder and its heads: names and sizes, each shared thing once.

Letters: H hidden width, E embedding width, F feed-forward width, V vocabulary, L labels, R rank of residuals.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bertram.config import EncoderConfig

POOLED = ("classification", "regression", "sentence_pair")
"""Heads of one linear layer over what the pooler gives."""
TOKENS = "token_classification"
LINEAR = (*POOLED, TOKENS)
"""All heads of one linear layer."""
MASKED, EMBEDDING = "masked_language_model", "embedding"

Sizes = dict[str, tuple[int, int]]
"""Outputs and inputs of weights, by name."""


@dataclass(frozen=True)
class Residual:
    """A weight that is the sum of one that layers share and of a low-rank one.

    Attributes:
        shared: the name of the one that is shared.
        parts: whose products U Vᵀ, of "PART.U" and "PART.V", stand below one another in the low-rank one.
    """

    shared: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Layout:
    """Attributes:
    matrices: outputs and inputs of every weight, by its name. "tokens", the embeddings, are the output weights of a
        masked-language-model head too.
    vectors: the length of every other tensor: biases, "WEIGHT.bias", and layer norms, "PART.norm.weight" and ".bias".
    residuals: the weights that do not stand among the matrices but are made of some.
    """

    matrices: Sizes
    vectors: dict[str, int]
    residuals: dict[str, Residual]


def layout_of(config: EncoderConfig, heads: Mapping[str, int], *, pooler: bool) -> Layout:
    """The layout of an encoder with `heads`, which give each one's number of labels."""
    hidden, width, inner = config.hidden_size, config.embedding_width, config.intermediate_size
    layers = layer_names(config)
    matrices = {"tokens": (config.vocab_size, width), "positions": (config.max_position_embeddings, width)}
    if config.type_vocab_size:
        matrices["segments"] = (config.type_vocab_size, width)
    norms = {"embedding": width} if config.normalize_embedding else {}
    biased = {}
    if config.embedding_size is not None:
        biased["projection"] = (hidden, width)
    for attention in dict.fromkeys(attention for attention, _ in layers):
        biased[f"{attention}.query_key_value"] = (3 * hidden, hidden)
        biased[f"{attention}.output"] = (hidden, hidden)
        norms[attention] = hidden
    for feed_forward in dict.fromkeys(feed_forward for _, feed_forward in layers):
        biased[f"{feed_forward}.up"] = (inner, hidden)
        biased[f"{feed_forward}.down"] = (hidden, inner)
        norms[feed_forward] = hidden
    if config.normalize_before:
        norms["final"] = hidden
    if pooler:
        biased["pooler"] = (hidden, hidden)
    biased |= {f"heads.{name}": (labels, hidden) for name, labels in heads.items() if name in LINEAR}
    vectors = {f"{name}.bias": outputs for name, (outputs, _) in biased.items()}
    if MASKED in heads:
        biased[f"heads.{MASKED}"] = (width, hidden)
        norms[f"heads.{MASKED}"] = width
        vectors |= {f"heads.{MASKED}.bias": width, "tokens.bias": config.vocab_size}
    vectors |= {f"{name}.norm.{part}": size for name, size in norms.items() for part in ("weight", "bias")}
    residuals = _residuals(config)
    matrices |= {name: size for name, size in biased.items() if name not in residuals}
    for name, residual in residuals.items():
        outputs, inputs = matrices[residual.shared] = biased[name]
        outputs //= 3 if len(residual.parts) > 1 else 1  # of keys and values there are twice as many as of queries
        for place, part in enumerate(residual.parts, 1):
            matrices |= {
                f"{part}.U": (place * outputs, config.residual_rank),
                f"{part}.V": (inputs, config.residual_rank),
            }
    return Layout(matrices, vectors, residuals)


def layer_names(config: EncoderConfig) -> list[tuple[str, str]]:
    """Of every layer in run order, the names of its attention and of its feed-forward part."""
    return [(f"attention.{layer.attention}", f"feed_forward.{layer.feed_forward}") for layer in config.layer_parts]


def _residuals(config: EncoderConfig) -> dict[str, Residual]:
    if not config.residual_rank:
        return {}
    found = {}
    for layer, (attention, feed_forward) in zip(config.layer_parts, layer_names(config), strict=True):
        group = f"shared.{layer.group}"
        parts = tuple(f"{attention}.{part}" for part in ("query", "key_value"))
        found[f"{attention}.query_key_value"] = Residual(f"{group}.query_key_value", parts)
        for name in (f"{attention}.output", f"{feed_forward}.up", f"{feed_forward}.down"):
            found[name] = Residual(f"{group}.{name.rpartition('.')[2]}", (name,))
    return found
