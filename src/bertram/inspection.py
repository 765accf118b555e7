"""What a configuration costs before anything runs: parameters, arithmetic and bytes, in closed form."""

from collections import Counter
from dataclasses import replace
from typing import Any

from rich.table import Table

from bertram.config import EncoderConfig, TransformerConfig
from bertram.errors import BadInput
from bertram.formats.engine_layout import layout_of
from bertram.terminal import plain_table


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
        raise BadInput(f"--tokens {tokens}: must be at least 1")
    if isinstance(config, TransformerConfig):
        unique, unshared = (_parts_of_both(one) for one in (config, _unshared_both(config)))
        flops = sum(flops_per_token(stack, tokens) for stack in (config.encoder, config.decoder))
        flops += _writing_flops(config, tokens)
    else:
        unique, unshared = (_parts(one, pooler=True) for one in (config, _unshared(config)))
        flops = flops_per_token(config, tokens)
    stored = sum(unique.values())
    return {
        "unique_parameters": stored,
        "parameters": sum(unshared.values()),
        "parts": unique,
        "flops_per_token": flops,
        "tokens": tokens,
        "weights_mb": {"fp32": stored * 4 / 1e6, "bf16": stored * 2 / 1e6, "int8": stored / 1e6},
        # float32 weights, gradients and two moments; activations come on top and grow with the batch
        "training_state_mb": stored * 16 / 1e6,
    }


def _unshared(config: EncoderConfig) -> EncoderConfig:
    return replace(config, shared="none", residual_rank=0)


def _unshared_both(config: TransformerConfig) -> TransformerConfig:
    return replace(config, encoder=_unshared(config.encoder), decoder=_unshared(config.decoder))


def _parts(config: EncoderConfig, *, pooler: bool = False) -> dict[str, int]:
    """Parameters of an encoder by part, as an engine names what it holds."""
    layout = layout_of(config, {}, pooler=pooler)
    sizes = {name: outputs * inputs for name, (outputs, inputs) in layout.matrices.items()} | layout.vectors
    if config.static_position_embeddings:
        del sizes["positions"]
    parts = Counter({"embeddings": 0, "attention": 0, "feed-forward": 0})
    for name, size in sizes.items():
        match name.split("."):
            case [*_, "U" | "V"]:
                parts["residuals"] += size
            case ["attention", *_] | ["shared", _, "query_key_value" | "output"]:
                parts["attention"] += size
            case ["feed_forward" | "shared" | "final", *_]:
                parts["feed-forward"] += size
            case ["pooler", *_]:
                parts["pooler"] += size
            case _:
                parts["embeddings"] += size
    return dict(parts)


def _parts_of_both(config: TransformerConfig) -> dict[str, int]:
    parts, decoder = Counter(_parts(config.encoder)), config.decoder
    written = _parts(decoder)
    parts.update(written)
    wider = 2 * decoder.hidden_size * (config.encoder.hidden_size - decoder.hidden_size)
    parts["cross-attention"] = written["attention"] + wider * len({layer.attention for layer in decoder.layer_parts})
    if config.share_encoder_decoder_embeddings:
        parts["embeddings"] -= config.encoder.vocab_size * config.encoder.embedding_width
    return {**parts, "head": head_parameters(config)}


def render(costs: dict[str, dict[str, Any]]) -> Table:
    """What `rich` prints of `describe`d models, a column each."""
    described, rows = list(costs.values()), list[tuple[str, list[str]]]()
    rows.append(("unique parameters", [f"{c['unique_parameters']:,}" for c in described]))
    rows.append(("  without sharing", [f"{c['parameters']:,}" for c in described]))
    for part in dict.fromkeys(part for c in described for part in c["parts"]):
        rows.append((f"  {part}", [f"{c['parts'].get(part, 0):,}" for c in described]))
    rows.append(("MFLOP a token", [f"{c['flops_per_token'] / 1e6:,.1f}" for c in described]))
    for precision in ("fp32", "bf16", "int8"):
        rows.append((f"weights in {precision}, MB", [f"{c['weights_mb'][precision]:,.1f}" for c in described]))
    rows.append(("training, MB + activations", [f"{c['training_state_mb']:,.1f}" for c in described]))
    shown = plain_table("", *costs)
    for name, cells in rows:
        shown.add_row(name, *cells)
    return shown


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
