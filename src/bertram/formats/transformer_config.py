"""config.json of an encoder–decoder directory, ours or Marian's, in and out; without torch."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from bertram.config import EncoderConfig, TransformerConfig
from bertram.errors import BadInput, failing_in
from bertram.files import write_json
from bertram.formats import marian_config
from bertram.formats.config_json import encoder_config, overrides_of, read_config_json

MODEL_TYPE = "bertram-transformer"

_STACKS = ("encoder", "decoder")


def is_transformer(directory: Path) -> bool:
    """Whether a directory's config.json says that it holds an encoder–decoder model.

    Raises:
        BadInput: as `read_config_json`.
    """
    return _model_type(directory) in (MODEL_TYPE, marian_config.MODEL_TYPE)


def is_marian(directory: Path) -> bool:
    """Whether a directory's config.json says that it holds a Marian model.

    Raises:
        BadInput: as `read_config_json`.
    """
    return _model_type(directory) == marian_config.MODEL_TYPE


def _model_type(directory: Path) -> str:
    return str(read_config_json(directory).get("model_type"))


def read_transformer_config(directory: Path) -> TransformerConfig:
    """Read and check config.json, and of bertram.json what the former cannot represent.

    Raises:
        BadInput: there is no such file, or it describes no encoder–decoder model of these kinds.
    """
    path, content = directory / "config.json", read_config_json(directory)
    try:
        with failing_in(path):
            if content.get("model_type") == marian_config.MODEL_TYPE:
                return marian_config.parse(content, overrides_of(directory))
            values = {name: value for name, value in content.items() if name != "model_type"}
            values |= {name: encoder_config(_only(EncoderConfig, content.get(name))) for name in _STACKS}
            return TransformerConfig(**_only(TransformerConfig, values))
    except TypeError:
        raise BadInput(f"{path}: lacks a size of its encoder or decoder") from None


def write_transformer_config(directory: Path, config: TransformerConfig) -> None:
    """Write config.json."""
    write_json(directory / "config.json", {"model_type": MODEL_TYPE, **asdict(config)})


def _only(kind: type[EncoderConfig] | type[TransformerConfig], values: Any) -> Mapping[str, Any]:
    """The values, if they are an object of fields that `kind` has."""
    if not isinstance(values, dict):
        raise BadInput("must have an object each for encoder and decoder")
    if unknown := values.keys() - {field.name for field in fields(kind)}:
        raise BadInput(f"has no field {min(unknown)!r:.80}")
    return values
