"""From a model in torch to what an engine holds of it."""

from typing import cast

import torch
from torch import Tensor, nn

from bertram.formats.engine_layout import LINEAR, MASKED, layer_names, layout_of
from bertram.formats.quantization import Floats
from bertram.models.heads import LinearHead, MaskedLanguageModelHead, Model
from bertram.models.layers import Layer, ResidualLinear, sinusoids


def tensors_of(model: Model) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """The weights and the vectors of a model, by their names in `engine_layout.Layout`, in float32."""
    weights: dict[str, Tensor] = {}
    vectors: dict[str, Tensor] = {}

    residuals = layout_of(model.config, model.labels(), pooler=model.pooler is not None).residuals

    def add(name: str, *linears: nn.Linear | ResidualLinear) -> None:
        vectors[f"{name}.bias"] = torch.cat([linear.bias for linear in linears])
        shared = [linear for linear in linears if isinstance(linear, ResidualLinear)]
        if not shared:
            weights[name] = torch.cat([linear.weight for linear in linears])
            return
        weights[residuals[name].shared] = torch.cat([linear.shared.weight for linear in shared])
        for part, linear in zip(residuals[name].parts, shared, strict=True):
            weights[f"{part}.U"], weights[f"{part}.V"] = linear.up.weight, linear.down.weight.T

    def norm(name: str, module: nn.LayerNorm) -> None:
        vectors[f"{name}.norm.weight"], vectors[f"{name}.norm.bias"] = module.weight, module.bias

    config, embeddings = model.config, model.encoder.embeddings
    weights["tokens"] = embeddings.tokens.weight
    places = torch.arange(config.max_position_embeddings)
    like = embeddings.tokens.weight.float()
    weights["positions"] = sinusoids(places, like) if embeddings.positions is None else embeddings.positions.weight
    if embeddings.segments is not None:
        weights["segments"] = embeddings.segments.weight
    if embeddings.norm is not None:
        norm("embedding", embeddings.norm)
    if embeddings.projection is not None:
        add("projection", embeddings.projection)
    layers = cast(list[Layer], model.encoder.layers)
    for layer, (attention, feed_forward) in zip(layers, layer_names(config), strict=True):
        if f"{attention}.norm.weight" not in vectors:
            add(f"{attention}.query_key_value", layer.attention.query, layer.attention.key_value)
            add(f"{attention}.output", layer.attention.output)
            norm(attention, layer.attention.norm)
        if f"{feed_forward}.norm.weight" not in vectors:
            add(f"{feed_forward}.up", layer.feed_forward.intermediate)
            add(f"{feed_forward}.down", layer.feed_forward.output)
            norm(feed_forward, layer.feed_forward.norm)
    if model.encoder.norm is not None:
        norm("final", model.encoder.norm)
    if model.pooler is not None:
        add("pooler", model.pooler.dense)
    for name, head in model.heads.items():
        if name in LINEAR:
            add(f"heads.{name}", cast(LinearHead, head).classifier)
        elif name == MASKED:
            masked = cast(MaskedLanguageModelHead, head)
            add(f"heads.{name}", masked.dense)
            norm(f"heads.{name}", masked.norm)
            vectors["tokens.bias"] = masked.decoder.bias
    return _arrays(weights), _arrays(vectors)


def _arrays(tensors: dict[str, Tensor]) -> dict[str, Floats]:
    return {name: tensor.detach().float().cpu().contiguous().numpy() for name, tensor in tensors.items()}
