"""The tensors of transformers' MarianMTModel: whose memory each name in the file stands for."""

import re
from typing import Any

import torch
from torch import Tensor

from bertram.formats.loading import Sources
from bertram.models.transformer import Transformer

_SHARED = "model.shared.weight"
_EMBEDDINGS = {side: f"model.{side}.embed_tokens.weight" for side in ("encoder", "decoder")}
_OUTPUT, _BIAS = "lm_head.weight", "final_logits_bias"
_TABLES = ("embed_positions.weight",)
# Our modules inside a layer and their names in the file; keys and values are one matrix here.
_NAMES = {
    "attention.query": ("self_attn.q_proj",),
    "attention.key_value": ("self_attn.k_proj", "self_attn.v_proj"),
    "attention.output": ("self_attn.out_proj",),
    "attention.norm": ("self_attn_layer_norm",),
    "cross_attention.query": ("encoder_attn.q_proj",),
    "cross_attention.key_value": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "cross_attention.output": ("encoder_attn.out_proj",),
    "cross_attention.norm": ("encoder_attn_layer_norm",),
    "feed_forward.intermediate": ("fc1",),
    "feed_forward.output": ("fc2",),
    "feed_forward.norm": ("final_layer_norm",),
}


def tensors(model: Transformer) -> dict[str, Tensor]:
    """The file's names and the memory that each stands for: parameters, or rows of them for keys and values."""
    config = model.config
    found = {
        _BIAS: model.head.decoder.bias.detach().view(1, -1),
        **{_EMBEDDINGS[s]: p.embeddings.tokens.weight.detach() for s, p in _sides(model).items()},
    }
    if config.share_encoder_decoder_embeddings:
        found[_SHARED] = found.pop(_EMBEDDINGS["encoder"])
        del found[_EMBEDDINGS["decoder"]]
    if not config.tie_word_embeddings:
        found[_OUTPUT] = model.head.decoder.weight.detach()
    for side, stack in _sides(model).items():
        for name, parameter in stack.layers.named_parameters(remove_duplicate=False):
            layer, module, kind = re.fullmatch(r"(\d+)\.(.*)\.(weight|bias)", name).groups()  # type: ignore[union-attr]
            parts = _NAMES[module]
            for part, rows in zip(parts, parameter.detach().chunk(len(parts)), strict=True):
                found[f"model.{side}.layers.{layer}.{part}.{kind}"] = rows
    return found


def sources(file: dict[str, Tensor], model: Transformer) -> Sources:
    """The file's tensors by the names in `tensors`; tied ones may stand there under each of their names.

    Tables of sinusoids, which older files hold, are passed over; a final bias that is not there is 0.
    """
    config = model.config
    same = {_EMBEDDINGS["encoder"]: _SHARED, _EMBEDDINGS["decoder"]: _SHARED}
    aliases = same if config.share_encoder_decoder_embeddings else {}
    if config.tie_word_embeddings:
        aliases |= {_OUTPUT: aliases.get(_EMBEDDINGS["decoder"], _EMBEDDINGS["decoder"])}
    found: Sources = {}
    for name, tensor in file.items():
        if not name.endswith(_TABLES):
            found.setdefault(aliases.get(name, name), {})[name] = tensor
    return {_BIAS: {_BIAS: torch.zeros(1, config.decoder.vocab_size)}} | found


def _sides(model: Transformer) -> dict[str, Any]:
    return {"encoder": model.encoder, "decoder": model.decoder}
