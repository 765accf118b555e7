"""config.json of any model's directory, and of bertram.json what it cannot represent; without torch."""

from pathlib import Path
from typing import Any, get_args

from bertram.config import Activation
from bertram.errors import BadInput
from bertram.files import read_object
from bertram.run_directory import MANIFEST, read_manifest

ACTIVATIONS: dict[str, Activation] = {
    **{name: name for name in get_args(Activation)},
    **{"swish": "silu", "gelu_python": "gelu", "gelu_fast": "gelu_new", "gelu_python_tanh": "gelu_pytorch_tanh"},
}
"""Ours by transformers' names; some of these are one function."""


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
        BadInput: there is none, or it is no JSON object.
    """
    path = directory / "config.json"
    if not path.is_file():
        raise BadInput(f"{directory}: holds no config.json")
    return read_object(path)
