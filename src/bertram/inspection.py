"""What a configuration costs before anything runs: parameters, arithmetic and bytes, in closed form."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from bertram.config import EncoderConfig, TransformerConfig
from bertram.errors import BadInput


def describe(config: EncoderConfig | TransformerConfig, tokens: int = 128) -> dict[str, Any]:
    """Parameters by part, FLOPs a token in a text of `tokens` tokens, and the bytes that weights and training take.

    `unique_parameters` counts what is stored, `parameters` what a model without sharing would store: sharing saves the
    first and leaves the second, and the arithmetic, as they are. Of an encoder both count the pooler and no other head,
    the convention of the published totals (109M for BERT-base, 12M for ALBERT-base). Of an encoder–decoder model a
    token is one that is read and one that is written, the head counted, both texts being `tokens` long.

    Raises:
        BadInput: a text of no tokens.
    """
    if tokens < 1:
        raise BadInput(f"--tokens {tokens}: a text has one or more")
    if isinstance(config, TransformerConfig):
        unique, unshared = (_parts_of_both(config, count) for count in (_stored, _run))
        flops = sum(flops_per_token(stack, tokens) for stack in (config.encoder, config.decoder))
        flops += _writing_flops(config, tokens)
    else:
        unique, unshared = (_parts(config, count(config)) for count in (_stored, _run))
        unique["pooler"] = unshared["pooler"] = pooler_parameters(config)
        flops = flops_per_token(config, tokens)
    stored = sum(unique.values())
    return {
        "unique_parameters": stored,
        "parameters": sum(value for name, value in unshared.items() if name != "residuals"),
        "parts": unique,
        "flops_per_token": flops,
        "tokens": tokens,
        "weights_mb": {"fp32": stored * 4 / 1e6, "bf16": stored * 2 / 1e6, "int8": stored / 1e6},
        # float32 weights, gradients and two moments; activations come on top and grow with the batch
        "training_state_mb": stored * 16 / 1e6,
    }


def _stored(config: EncoderConfig) -> tuple[int, int]:
    """How many attentions and feed-forward parts are stored, residuals apart."""
    places = replace(config, residual_rank=0).places
    return len({place.attention for place in places}), len({place.feed_forward for place in places})


def _run(config: EncoderConfig) -> tuple[int, int]:
    """How many are run."""
    return len(config.places), len(config.places)


def _parts_of_both(config: TransformerConfig, count: Callable[[EncoderConfig], tuple[int, int]]) -> dict[str, int]:
    parts = Counter(_parts(config.encoder, count(config.encoder)))
    parts.update(_parts(config.decoder, count(config.decoder), config.encoder.hidden_size))
    if config.share_encoder_decoder_embeddings:
        parts["embeddings"] -= config.encoder.vocab_size * config.encoder.embedding_width
    return {**parts, "head": head_parameters(config)}


def _parts(config: EncoderConfig, number: tuple[int, int], memory: int | None = None) -> dict[str, int]:
    """Parameters of a stack with so many attentions and feed-forward parts; a decoder attends to `memory` too."""
    attentions, feed_forwards = number
    norm = 2 * config.hidden_size if config.normalize_before else 0
    parts = {
        "embeddings": embedding_parameters(config),
        "attention": attentions * attention_parameters(config),
        "feed-forward": feed_forwards * feed_forward_parameters(config) + norm,
    }
    if memory is not None:
        wider = 2 * config.hidden_size * (memory - config.hidden_size)
        parts["cross-attention"] = attentions * (attention_parameters(config) + wider)
    if config.residual_rank:
        parts["residuals"] = residual_parameters(config)
    return parts


def render(costs: dict[str, dict[str, Any]]) -> str:
    """A plain table of `describe`d models, one column each."""
    rows: list[tuple[str, list[str]]] = [("", list(costs))]
    described = list(costs.values())
    rows.append(("unique parameters", [f"{c['unique_parameters']:,}" for c in described]))
    rows.append(("  without sharing", [f"{c['parameters']:,}" for c in described]))
    for part in dict.fromkeys(part for c in described for part in c["parts"]):
        rows.append((f"  {part}", [f"{c['parts'].get(part, 0):,}" for c in described]))
    rows.append(("MFLOP a token", [f"{c['flops_per_token'] / 1e6:,.1f}" for c in described]))
    for precision in ("fp32", "bf16", "int8"):
        rows.append((f"weights in {precision}, MB", [f"{c['weights_mb'][precision]:,.1f}" for c in described]))
    rows.append(("training, MB + activations", [f"{c['training_state_mb']:,.1f}" for c in described]))
    widths = [max(len(row[1][i]) for row in rows) for i in range(len(costs))]
    return "\n".join(
        f"{name:28}" + "  ".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        for name, cells in rows
    )


def embedding_parameters(config: EncoderConfig) -> int:
    """The tables that there are and their layer norm, and the E → H projection where there is one."""
    positions = 0 if config.static_position_embeddings else config.max_position_embeddings
    rows = config.vocab_size + positions + config.type_vocab_size + (2 if config.normalize_embedding else 0)
    width = config.embedding_width
    projection = 0 if config.embedding_size is None else (width + 1) * config.hidden_size
    return rows * width + projection


def attention_parameters(config: EncoderConfig) -> int:
    """Q, K, V and output products with their biases, and the layer norm."""
    return 4 * (config.hidden_size + 1) * config.hidden_size + 2 * config.hidden_size


def feed_forward_parameters(config: EncoderConfig) -> int:
    """Both products with their biases, and the layer norm."""
    hidden, inner = config.hidden_size, config.intermediate_size
    return 2 * hidden * inner + inner + hidden + 2 * hidden


def residual_parameters(config: EncoderConfig) -> int:
    """What layers add to the weights they share: both factors for six products, and each its own biases and norms."""
    if not config.residual_rank:
        return 0
    hidden, inner = config.hidden_size, config.intermediate_size
    factors = config.residual_rank * (2 * hidden + 3 * hidden + 2 * hidden + 2 * (hidden + inner))
    own = 4 * hidden + inner + hidden + 4 * hidden
    layers, groups = config.num_hidden_layers, config.groups
    return config.inner_group_num * (layers * (factors + own) - groups * own)


def pooler_parameters(config: EncoderConfig) -> int:
    return (config.hidden_size + 1) * config.hidden_size


def head_parameters(config: TransformerConfig) -> int:
    """What writes tokens: a bias each, the H → E projection where the decoder factorises, and a matrix of its own."""
    decoder = config.decoder
    width, hidden = decoder.embedding_width, decoder.hidden_size
    projection = 0 if decoder.embedding_size is None else (hidden + 1) * width
    return decoder.vocab_size * (1 if config.tie_word_embeddings else 1 + width) + projection


def _writing_flops(config: TransformerConfig, tokens: int) -> int:
    """Attention to a source of `tokens` tokens, whose keys and values are made once, and the head; for one token."""
    decoder = config.decoder
    hidden, width = decoder.hidden_size, decoder.embedding_width
    layer = 4 * hidden**2 + 4 * hidden * config.encoder.hidden_size + 4 * tokens * hidden
    projection = 0 if decoder.embedding_size is None else 2 * hidden * width
    return decoder.num_hidden_layers * decoder.inner_group_num * layer + projection + 2 * width * decoder.vocab_size


def flops_per_token(config: EncoderConfig, tokens: int) -> int:
    """Floating-point operations of a forward pass over one token of a text of `tokens` tokens.

    A multiply-add counts as two. Products of weights are 8 H² + 4 H I a layer, attention's own 4 · tokens · H.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    layer = 8 * hidden**2 + 4 * hidden * inner + 4 * tokens * hidden
    projection = 0 if config.embedding_size is None else 2 * config.embedding_size * hidden
    return config.num_hidden_layers * config.inner_group_num * layer + projection
