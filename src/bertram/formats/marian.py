"""The tensors of transformers' MarianMTModel: whose memory each name in the file stands for."""

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bertram.config import EncoderConfig
from bertram.errors import BadInput
from bertram.formats.loading import Sources
from bertram.models.layers import sinusoids
from bertram.models.transformer import Transformer

_SHARED = "model.shared.weight"
_EMBEDDINGS = {side: f"model.{side}.embed_tokens.weight" for side in ("encoder", "decoder")}
_OUTPUT, _BIAS = "lm_head.weight", "final_logits_bias"
_TABLES = {side: f"model.{side}.embed_positions.weight" for side in ("encoder", "decoder")}
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


def written(model: Transformer) -> dict[str, Tensor]:
    """What a file is to hold: `tensors`, and a shared embedding under each of its names if the output is not tied too.

    For then transformers 5 ties nothing: it would leave random what the file lacks.
    """
    found, config = tensors(model), model.config
    if config.share_encoder_decoder_embeddings and not config.tie_word_embeddings:
        found |= dict.fromkeys(_EMBEDDINGS.values(), found[_SHARED])
    return found


def sources(path: Path, file: dict[str, Tensor], model: Transformer) -> Sources:
    """The file's tensors by the names in `tensors`; tied ones may stand there under each of their names.

    Older files hold their sinusoids, which are compared with ours and left there. A final bias that is missing is 0.

    Raises:
        BadInput: positions are no sinusoids.
    """
    config = model.config
    same = {_EMBEDDINGS["encoder"]: _SHARED, _EMBEDDINGS["decoder"]: _SHARED}
    aliases = same if config.share_encoder_decoder_embeddings else {}
    if config.tie_word_embeddings:
        aliases |= {_OUTPUT: aliases.get(_EMBEDDINGS["decoder"], _EMBEDDINGS["decoder"])}
    for side, stack in _sides(model).items():
        if _TABLES[side] in file:
            _check_table(path, _TABLES[side], file[_TABLES[side]], stack.config)
    found: Sources = {_BIAS: {}}
    for name, tensor in file.items():
        if name not in _TABLES.values():
            found.setdefault(aliases.get(name, name), {})[name] = tensor
    found[_BIAS] = found[_BIAS] or {_BIAS: torch.zeros(()).expand(1, config.decoder.vocab_size)}
    return found


def _check_table(path: Path, name: str, table: Tensor, config: EncoderConfig) -> None:
    """Sinusoids in half precision are so to its last digit, others to the fifth."""
    shape = config.max_position_embeddings, config.hidden_size
    if table.shape == shape and table.is_floating_point():
        ours = sinusoids(torch.arange(shape[0]), torch.empty(0, shape[1]))
        if torch.allclose(table.float(), ours, rtol=0, atol=max(1e-5, torch.finfo(table.dtype).eps)):
            return
    raise BadInput(f"{path}: {name!r} is not a sinusoidal position table of shape {list(shape)}")


def _sides(model: Transformer) -> dict[str, Any]:
    return {"encoder": model.encoder, "decoder": model.decoder}
