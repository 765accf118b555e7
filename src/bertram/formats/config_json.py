"""config.json of any model's directory, and of bertram.json what it cannot represent; without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from bertram.config import Activation, EncoderConfig
from bertram.errors import BadInput
from bertram.files import read_object
from bertram.run_directory import MANIFEST, is_unfinished, read_manifest

ACTIVATIONS: dict[str, Activation] = {
    **{name: name for name in get_args(Activation)},
    **{"swish": "silu", "gelu_python": "gelu"},
    **{"gelu_fast": "gelu_new", "gelu_pytorch_tanh": "gelu_new", "gelu_python_tanh": "gelu_new"},
}
"""Ours by transformers' names; some of these are one function."""


def encoder_config(values: Mapping[str, Any]) -> EncoderConfig:
    """The configuration with fields as a file has them, whose activation may have any of its names.

    Raises:
        BadInput: a value makes no sense.
        TypeError: a size is missing, or there is no such field.
    """
    if isinstance(name := values.get("hidden_act"), str):
        values = {**values, "hidden_act": ACTIVATIONS.get(name, name)}
    return EncoderConfig(**values)


def overrides_of(directory: Path) -> dict[str, Any]:
    """What bertram.json says of a configuration that config.json cannot.

    Raises:
        BadInput: it is no object.
    """
    overrides = read_manifest(directory).get("config_overrides", {})
    if not isinstance(overrides, dict):
        raise BadInput(f"{directory / MANIFEST}: config_overrides must be an object")
    return overrides


def read_config_json(directory: Path) -> dict[str, Any]:
    """config.json as it stands.

    Raises:
        BadInput: there is none, which may be for a training that was stopped, or it is no JSON object.
    """
    path = directory / "config.json"
    if not path.is_file():
        if is_unfinished(directory):
            raise BadInput(f"{directory}: its training has not finished; repeat the command with --resume")
        raise BadInput(f"{directory}: holds no model (no config.json)")
    return read_object(path)
