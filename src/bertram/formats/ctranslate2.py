"""CTranslate2 directories, written: a Transformer as the specification that CTranslate2's native code runs.

Letters: H hidden width, E embedding width, V vocabulary, P positions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from bertram.config import Precision, TransformerConfig
from bertram.errors import BadInput, require
from bertram.formats.ctranslate2_file import VOCABULARY_MAP, vocabulary
from bertram.models.decoder import Decoder
from bertram.models.layers import Attention, Embeddings, FeedForward, Layer, sinusoids
from bertram.models.stack import Stack
from bertram.models.transformer import Transformer

_ACTIVATIONS = {
    "gelu": "GELU",
    "gelu_new": "GELUTanh",
    "relu": "RELU",
    "silu": "SWISH",
}
_UNKNOWN = ("<unk>", "[UNK]")


def write_ctranslate2(
    model: Transformer,
    source_tokens: Sequence[str],
    target_tokens: Sequence[str],
    directory: Path,
    precision: Precision = "fp32",
    *,
    vocabulary_map: Path | None = None,
) -> None:
    """Write model.bin, config.json and the vocabularies into a directory that is there.

    Parts that layers share are written once. Nothing is added to a source: its ids are what the model reads.

    Args:
        source_tokens, target_tokens: the tokens by their ids. An id beyond them, or whose token stood at a lower id,
            gets a name of its own.
        precision: of matrices; "int8" has a scale for each row, and all else stays in float32.
        vocabulary_map: CTranslate2's vmap.txt, which says for source tokens what they may become. Where it is there,
            a search sees no other targets than those of all sources in its batch.

    Raises:
        BadInput: CTranslate2 cannot represent this model, or tokens or map do not fit.
        OSError: a file cannot be written.
    """
    if reason := _why_not(model.config):
        raise BadInput(f"CTranslate2 cannot represent this model: {reason}")
    if vocabulary_map is not None and not (vocabulary_map.is_file() and vocabulary_map.stat().st_size):
        raise BadInput(f"{vocabulary_map}: no vocabulary map, or an empty one")
    source = vocabulary("source", source_tokens, model.config.encoder.vocab_size)
    target = vocabulary("target", target_tokens, model.config.decoder.vocab_size)

    spec = _specification(model, require("ctranslate2.specs", "ctranslate2"))
    spec.register_source_vocabulary(source)
    spec.register_target_vocabulary(target)
    if vocabulary_map is not None:
        spec.register_file(str(vocabulary_map), VOCABULARY_MAP)
    for name, value in _settings(model.config, target).items():
        spec.config.add_attribute(name, value)
    spec.validate()
    spec.optimize(quantization={"fp32": None, "int8": "int8"}[precision])
    spec.save(str(directory))


def _why_not(config: TransformerConfig) -> str:
    """Why CTranslate2 cannot represent a model; empty where it can."""
    encoder, decoder = config.encoder, config.decoder
    if encoder.embedding_size is not None:
        return f"its encoder projects embeddings from {encoder.embedding_width} to {encoder.hidden_size}"
    if decoder.embedding_size is not None and decoder.normalize_embedding:
        return "its decoder projects embeddings behind their layer norm, not before it"
    if encoder.layer_norm_eps != decoder.layer_norm_eps:
        return f"layer_norm_eps is {encoder.layer_norm_eps} in the encoder and {decoder.layer_norm_eps} in the decoder"
    return ""


def _settings(config: TransformerConfig, target: list[str]) -> dict[str, Any]:
    """config.json; pad_token, which no output holds, is for our own runner."""
    start, end, pad = (
        target[token_id] for token_id in (config.decoder_start_token_id, config.eos_token_id, config.pad_token_id)
    )
    return {
        "layer_norm_epsilon": config.encoder.layer_norm_eps,
        "unk_token": next((token for token in _UNKNOWN if token in target), pad),
        "bos_token": start,
        "eos_token": end,
        "decoder_start_token": start,
        "add_source_bos": False,
        "add_source_eos": False,
        "pad_token": pad,
    }


def _specification(model: Transformer, specs: Any) -> Any:
    encoder, decoder = model.config.encoder, model.config.decoder
    activation = {name: getattr(specs.Activation, foreign) for name, foreign in _ACTIVATIONS.items()}
    spec = specs.TransformerSpec(
        specs.TransformerEncoderSpec(
            len(model.encoder.layers),
            encoder.num_attention_heads,
            pre_norm=encoder.normalize_before,
            activation=activation[encoder.hidden_act],
            layernorm_embedding=encoder.normalize_embedding,
        ),
        specs.TransformerDecoderSpec(
            len(model.decoder.layers),
            decoder.num_attention_heads,
            pre_norm=decoder.normalize_before,
            activation=activation[decoder.hidden_act],
            layernorm_embedding=decoder.normalize_embedding,
            project_in_out=decoder.embedding_size is not None,
        ),
    )
    _fill_stack(spec.encoder, spec.encoder.embeddings[0], model.encoder)
    _fill_stack(spec.decoder, spec.decoder.embeddings, model.decoder)
    if model.head.projection is not None:
        _fill(spec.decoder.project_out, model.head.projection)
    _fill(spec.decoder.projection, model.head.decoder)
    return spec


def _fill_stack(spec: Any, token_spec: Any, stack: Stack) -> None:
    embeddings = stack.embeddings
    token_spec.weight = _copy(embeddings.tokens.weight)
    spec.scale_embeddings = embeddings.scale
    spec.position_encodings.encodings = _positions(embeddings, stack.config.max_position_embeddings)
    if embeddings.projection is not None:
        spec.project_in.weight = _copy(embeddings.projection.weight)
    if embeddings.norm is not None:
        _fill_norm(spec.layernorm_embedding, embeddings.norm)
    for layer_spec, layer in zip(spec.layer, cast(list[Layer], stack.layers), strict=True):
        _fill_attention(layer_spec.self_attention, layer.attention, fused=True)
        if isinstance(stack, Decoder):
            _fill_attention(layer_spec.attention, layer.cross_attention, fused=False)
        _fill_feed_forward(layer_spec.ffn, layer.feed_forward)
    if stack.norm is not None:
        _fill_norm(spec.layer_norm, stack.norm)


@torch.inference_mode()
def _positions(embeddings: Embeddings, positions: int) -> Tensor:
    """What CTranslate2 adds at each position, [P, H]: with it the first segment, for a source has no other.

    It adds this behind the projection, which is linear, so the table is projected too.
    """
    if embeddings.positions is None:
        table = sinusoids(torch.arange(positions), embeddings.tokens.weight.cpu().float())
    else:
        table = _copy(embeddings.positions.weight)
    if embeddings.segments is not None:
        table = table + _copy(embeddings.segments.weight[0])
    if embeddings.projection is not None:
        table = nn.functional.linear(table, _copy(embeddings.projection.weight), _copy(embeddings.projection.bias))
    return table.clone()


def _fill_attention(spec: Any, part: Attention, *, fused: bool) -> None:
    """`fused`: queries, keys and values are one product there, else the query is one and the other two another."""
    _fill_norm(spec.layer_norm, part.norm)
    products = [[part.query, part.key_value]] if fused else [[part.query], [part.key_value]]
    for linear, parts in zip(spec.linear, [*products, [part.output]], strict=True):
        _fill(linear, *parts)


def _fill_feed_forward(spec: Any, part: FeedForward) -> None:
    _fill_norm(spec.layer_norm, part.norm)
    _fill(spec.linear_0, part.intermediate)
    _fill(spec.linear_1, part.output)


def _fill(spec: Any, *parts: nn.Linear) -> None:
    spec.weight = torch.cat([_copy(part.weight) for part in parts])
    spec.bias = torch.cat([_copy(part.bias) for part in parts])


def _fill_norm(spec: Any, norm: nn.LayerNorm) -> None:
    spec.gamma, spec.beta = _copy(norm.weight), _copy(norm.bias)


def _copy(parameter: Tensor) -> Tensor:
    """In float32 on the CPU and in memory of its own, for CTranslate2 quantizes in place."""
    return parameter.detach().to("cpu", torch.float32, copy=True)
