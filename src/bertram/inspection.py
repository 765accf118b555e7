"""What a configuration costs before anything runs: parameters, arithmetic and bytes, in closed form."""

from typing import Any

from bertram.config import EncoderConfig


def describe(config: EncoderConfig, tokens: int = 128) -> dict[str, Any]:
    """Parameters by part, FLOPs a token in a text of `tokens` tokens, and the bytes that weights and training take.

    `unique_parameters` counts what is stored, `parameters` what an encoder without sharing would store: sharing saves
    the first and leaves the second, and the arithmetic, as they are. Both count the pooler and no other head, the
    convention of the published totals (109M for BERT-base, 12M for ALBERT-base).
    """
    layers = config.num_hidden_layers * config.inner_group_num
    shared_places = config.groups * config.inner_group_num
    attentions = shared_places if config.shared in ("all", "attention") else layers
    feed_forwards = shared_places if config.shared in ("all", "ffn") else layers
    outside = embedding_parameters(config) + pooler_parameters(config)
    unique = outside + attentions * attention_parameters(config) + feed_forwards * feed_forward_parameters(config)
    unique += residual_parameters(config)
    return {
        "unique_parameters": unique,
        "parameters": outside + layers * (attention_parameters(config) + feed_forward_parameters(config)),
        "parts": {
            "embeddings": embedding_parameters(config),
            "attention": attentions * attention_parameters(config),
            "feed-forward": feed_forwards * feed_forward_parameters(config),
            "residuals": residual_parameters(config),
            "pooler": pooler_parameters(config),
        },
        "flops_per_token": flops_per_token(config, tokens),
        "tokens": tokens,
        "weights_mb": {"fp32": unique * 4 / 1e6, "bf16": unique * 2 / 1e6, "int8": unique / 1e6},
        # float32 weights, gradients and two moments; activations come on top and grow with the batch
        "training_state_mb": unique * 16 / 1e6,
    }


def render(costs: dict[str, dict[str, Any]]) -> str:
    """A plain table of `describe`d models, one column each."""
    rows: list[tuple[str, list[str]]] = [("", list(costs))]
    described = list(costs.values())
    rows.append(("unique parameters", [f"{c['unique_parameters']:,}" for c in described]))
    rows.append(("  without sharing", [f"{c['parameters']:,}" for c in described]))
    for part in described[0]["parts"]:
        rows.append((f"  {part}", [f"{c['parts'][part]:,}" for c in described]))
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
    """Three tables and their layer norm, and the E → H projection where there is one."""
    rows = config.vocab_size + config.max_position_embeddings + config.type_vocab_size
    width = config.embedding_width
    projection = 0 if config.embedding_size is None else (width + 1) * config.hidden_size
    return (rows + 2) * width + projection


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


def flops_per_token(config: EncoderConfig, tokens: int) -> int:
    """Floating-point operations of a forward pass over one token of a text of `tokens` tokens.

    A multiply-add counts as two. Products of weights are 8 H² + 4 H I a layer, attention's own 4 · tokens · H.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    layer = 8 * hidden**2 + 4 * hidden * inner + 4 * tokens * hidden
    projection = 0 if config.embedding_size is None else 2 * config.embedding_size * hidden
    return config.num_hidden_layers * config.inner_group_num * layer + projection
