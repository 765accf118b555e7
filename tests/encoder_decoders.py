"""Small encoder–decoders of every kind, pairs of texts for them, and the same in torch's layers."""

from dataclasses import replace

import torch
from torch import nn

from bertram.batch import Batch
from bertram.config import TRANSFORMERS, TransformerConfig
from bertram.models.transformer import Transformer
from tiny import unsettle

STACK = replace(
    TRANSFORMERS["transformer-tiny"].encoder,
    **{"vocab_size": 40, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 2},
    **{"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "activation_dropout": 0.0},
    max_position_embeddings=64,
)
BERT = replace(
    STACK,
    **{"hidden_size": 24, "type_vocab_size": 2, "normalize_embedding": True, "scale_embedding": False},
    **{"static_position_embeddings": False, "initializer_range": 0.02, "hidden_act": "gelu"},
)
CONFIGS = {
    "as published": TransformerConfig(encoder=STACK, decoder=STACK),
    "pre-norm, learned positions": TransformerConfig(
        encoder=replace(STACK, normalize_before=True, static_position_embeddings=False),
        decoder=replace(STACK, normalize_before=True, static_position_embeddings=False),
    ),
    "groups, factorised": TransformerConfig(
        encoder=replace(STACK, num_hidden_groups=1, embedding_size=8),
        decoder=replace(STACK, num_hidden_groups=2, embedding_size=8, num_hidden_layers=4),
    ),
    "a BERT encoder of another width": TransformerConfig(
        encoder=BERT, decoder=replace(STACK, vocab_size=30), share_encoder_decoder_embeddings=False
    ),
    "untied": TransformerConfig(encoder=STACK, decoder=STACK, tie_word_embeddings=False),
}
LENGTHS = [(3, 4), (1, 1), (20, 2), (2, 19), (5, 5)]


def make(config: TransformerConfig) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(config).eval()
    unsettle(model)
    return model


def batches(seed: int = 0, lengths: list[tuple[int, int]] = LENGTHS) -> tuple[Batch, Batch]:
    generator = torch.Generator().manual_seed(seed)
    ids = [[torch.randint(3, 30, (n,), generator=generator).tolist() for n in pair] for pair in lengths]
    return Batch.pack([source for source, _ in ids]), Batch.pack([[0, *target[1:]] for _, target in ids])


def as_torch(model: Transformer) -> nn.Transformer:
    """torch's layers with a model's weights; it has no embeddings and no head."""
    encoder, decoder = model.config.encoder, model.config.decoder
    settings = {"dropout": 0.0, "batch_first": True, "norm_first": encoder.normalize_before}
    sizes = encoder.hidden_size, encoder.num_attention_heads, encoder.intermediate_size
    layers = nn.TransformerEncoderLayer(*sizes, **settings), nn.TransformerDecoderLayer(*sizes, **settings)
    peer = nn.Transformer(
        *sizes[:2],
        batch_first=True,
        custom_encoder=nn.TransformerEncoder(layers[0], encoder.num_hidden_layers, enable_nested_tensor=False),
        custom_decoder=nn.TransformerDecoder(layers[1], decoder.num_hidden_layers),
    ).eval()
    for ours, theirs in ((model.encoder, peer.encoder), (model.decoder, peer.decoder)):
        theirs.norm = ours.norm  # torch has one behind post-norm layers too, the paper has not
        for layer, other in zip(ours.layers, theirs.layers, strict=True):
            parts = [(layer.attention, other.self_attn, other.norm1)]
            if ours is model.decoder:
                parts.append((layer.cross_attention, other.multihead_attn, other.norm2))
            for part, attention, norm in parts:
                for kind in ("weight", "bias"):
                    joined = torch.cat([getattr(part.query, kind), getattr(part.key_value, kind)])
                    getattr(attention, f"in_proj_{kind}").data = joined
                attention.out_proj.load_state_dict(part.output.state_dict())
                norm.load_state_dict(part.norm.state_dict())
            other.linear1.load_state_dict(layer.feed_forward.intermediate.state_dict())
            other.linear2.load_state_dict(layer.feed_forward.output.state_dict())
            last = other.norm3 if ours is model.decoder else other.norm2
            last.load_state_dict(layer.feed_forward.norm.state_dict())
    return peer
