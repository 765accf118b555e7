"""config.json of transformers' MarianMTModel, in and out; without torch.

Marian (Junczys-Dowmunt et al. 2018) is the Transformer as published: post-norm, sinusoids, no layer norm on embeddings.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bertram.config import EncoderConfig, TransformerConfig
from bertram.errors import BadInput, failing_in
from bertram.files import read_if_there
from bertram.formats.config_json import ACTIVATIONS
from bertram.search import Search

MODEL_TYPE = "marian"

logger = logging.getLogger(__name__)

# The file's names of what both stacks have alike, and of what each has for itself.
_COMMON = {
    "d_model": "hidden_size",
    "max_position_embeddings": "max_position_embeddings",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "activation_dropout": "activation_dropout",
    "scale_embedding": "scale_embedding",
}
_OWN = {
    "{}_layers": "num_hidden_layers",
    "{}_attention_heads": "num_attention_heads",
    "{}_ffn_dim": "intermediate_size",
}
_IDS = ("pad_token_id", "eos_token_id", "decoder_start_token_id")
_DEFAULTS: dict[str, Any] = {
    "max_position_embeddings": 1024,
    "dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "scale_embedding": False,
    "activation_function": "gelu",
    "pad_token_id": 58100,
    "eos_token_id": 0,
    "decoder_start_token_id": 58100,
    "share_encoder_decoder_embeddings": True,
    "tie_word_embeddings": True,
}
_UNLIKE: dict[str, Any] = {
    "do_sample": False,
    "early_stopping": False,
    "num_beam_groups": 1,
    "sequence_bias": None,
    "forced_bos_token_id": None,
    "repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "exponential_decay_length_penalty": None,
    "suppress_tokens": [],
    "min_length": 0,
}
"""Settings of `generate` that our search lacks, each with the value at which it changes nothing."""
_FIXED = {"normalize_before": False, "normalize_embedding": False, "add_final_layer_norm": False}
_SHARING = ("num_hidden_groups", "shared")
_PLAIN: dict[str, Any] = {
    "type_vocab_size": 0,
    "sentence_objective": "none",
    "layer_norm_eps": 1e-5,
    "initializer_range": None,
    "normalize_embedding": False,
    "normalize_before": False,
    "static_position_embeddings": True,
    "embedding_size": None,
    "inner_group_num": 1,
}


def parse(content: Mapping[str, Any], overrides: Mapping[str, Any]) -> TransformerConfig:
    """The configuration that a config.json describes.

    Args:
        overrides: from `config_overrides`, what the file cannot represent.

    Raises:
        BadInput: it describes nothing that can be, or not a Marian model as transformers has it.
    """
    values = _DEFAULTS | {name: value for name, value in content.items() if value is not None}
    for name, value in _FIXED.items():
        if content.get(name, value) != value:
            raise BadInput(f"{name} must be {str(value).lower()}")
    if values["activation_function"] not in list(ACTIVATIONS):
        raise BadInput(f"activation_function must be one of {', '.join(ACTIVATIONS)}")
    vocabulary = {"encoder": values.get("vocab_size"), "decoder": values.get("decoder_vocab_size")}
    vocabulary["decoder"] = vocabulary["decoder"] or vocabulary["encoder"]
    parts: dict[str, Any] = {}
    for side in ("encoder", "decoder"):
        names = _COMMON | {name.format(side): field for name, field in _OWN.items()}
        if lacking := [name for name in ("vocab_size", *names) if name not in values]:
            raise BadInput(f"lacks {', '.join(lacking)}")
        fields: dict[str, Any] = {field: values[name] for name, field in names.items()}
        fields |= {"vocab_size": vocabulary[side], "hidden_act": ACTIVATIONS[values["activation_function"]]}
        own = overrides.get(side, {})
        if not isinstance(own, dict) or own.keys() - set(_SHARING):
            raise BadInput(f"overrides of the {side} must be some of {', '.join(_SHARING)}")
        parts[side] = EncoderConfig(**_PLAIN | fields | own)
    tied = ("share_encoder_decoder_embeddings", "tie_word_embeddings")
    return TransformerConfig(**parts | {name: values[name] for name in (*tied, *_IDS)})


def describe(config: TransformerConfig) -> dict[str, Any]:
    """The content of a model's config.json.

    Raises:
        BadInput: the format cannot represent this model.
    """
    if reason := _why_not(config):
        raise BadInput(f"Marian's format cannot represent this model: {reason}")
    encoder, decoder = config.encoder, config.decoder
    return {
        "architectures": ["MarianMTModel"],
        "model_type": MODEL_TYPE,
        "is_encoder_decoder": True,
        "vocab_size": encoder.vocab_size,
        "decoder_vocab_size": decoder.vocab_size,
        **{name: getattr(encoder, field) for name, field in _COMMON.items()},
        **{
            name.format(side): getattr(stack, field)
            for side, stack in (("encoder", encoder), ("decoder", decoder))
            for name, field in _OWN.items()
        },
        "activation_function": encoder.hidden_act,
        "share_encoder_decoder_embeddings": config.share_encoder_decoder_embeddings,
        "tie_word_embeddings": config.tie_word_embeddings,
        "forced_eos_token_id": config.eos_token_id,
        "dtype": "float32",
        **{name: getattr(config, name) for name in _IDS},
    }


def describe_search(config: TransformerConfig, search: Search) -> dict[str, Any]:
    """The content of generation_config.json, by which `generate` without arguments searches so.

    Its limit is one for all texts, ours by default that of each text's length: without one it is the model's positions.
    """
    longest = config.decoder.max_position_embeddings
    return {
        **{name: getattr(config, name) for name in _IDS},
        "forced_eos_token_id": config.eos_token_id,
        "bad_words_ids": [[config.pad_token_id]],
        "renormalize_logits": True,
        "num_beams": search.beam_size,
        "length_penalty": search.length_penalty,
        "no_repeat_ngram_size": search.no_repeat_ngram_size,
        "min_new_tokens": search.min_length,
        "max_new_tokens": longest if search.max_length is None else min(search.max_length, longest),
    }


def read_search(directory: Path) -> Search:
    """The inverse of `describe_search`, as far as ours goes: a limit of `generate` that is one for all texts is left.

    So is num_return_sequences: how many outputs are wanted is for whoever asks to say. Older directories have these
    settings in config.json.

    Raises:
        BadInput: the file is damaged, or says what cannot be.
    """
    path = directory / "generation_config.json"
    if not path.is_file():
        path = directory / "config.json"
    content = read_if_there(path)
    names = {
        "beam_size": "num_beams",
        "length_penalty": "length_penalty",
        "no_repeat_ngram_size": "no_repeat_ngram_size",
        "min_length": "min_new_tokens",
    }
    found = {field: content[name] for field, name in names.items() if content.get(name) is not None}
    usual = _UNLIKE | {"bad_words_ids": [[content.get("pad_token_id")]]}
    if unlike := [name for name, value in usual.items() if content.get(name) not in (None, value)]:
        logger.warning("%s: %s would change what is found, and is not followed here", path, ", ".join(unlike))
    with failing_in(path):
        return Search(**found)


def _why_not(config: TransformerConfig) -> str:
    """Why the format cannot represent a model; empty where it can."""
    for side, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
        for field, value in _PLAIN.items():
            if field not in ("sentence_objective", "initializer_range") and getattr(stack, field) != value:
                return f"its {side} has {field} {getattr(stack, field)}, not {value}"
    for field in (*_COMMON.values(), "hidden_act"):
        if getattr(config.encoder, field) != getattr(config.decoder, field):
            return f"encoder and decoder differ in {field}"
    return ""


def config_overrides(config: TransformerConfig) -> dict[str, dict[str, Any]]:
    """What the file cannot represent, for `parse`: layers that share stand there one by one."""
    plain = replace(config.encoder, num_hidden_groups=None, shared="all")
    return {
        side: found
        for side, stack in (("encoder", config.encoder), ("decoder", config.decoder))
        if (found := {f: getattr(stack, f) for f in _SHARING if getattr(stack, f) != getattr(plain, f)})
    }
