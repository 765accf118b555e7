"""Model arguments: what a user may name, found and loaded; the one place that picks a side."""

import difflib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from bertram.config import PRESETS, EncoderConfig
from bertram.errors import BadInput, require
from bertram.files import write_json, write_text
from bertram.inference.predictor import Predictor
from bertram.memory import peak_memory_mb
from bertram.run_directory import MANIFEST, read_manifest
from bertram.tasks.registry import task_from_dict
from bertram.tasks.task import Task
from bertram.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bertram.models.heads import ClassificationHead, Model


def resolve(model: str | Path) -> Path | EncoderConfig:
    """A model argument as the directory it names, or as a preset's sizes. Only a name with a slash reaches the hub.

    Raises:
        BadInput: nothing goes by that name.
    """
    if isinstance(model, str) and model in PRESETS:
        return PRESETS[model]
    path = Path(model)
    if path.is_dir():
        return path
    if path.exists():
        raise BadInput(f"{path}: is a file; a model is a directory with config.json, or a preset")
    name = str(model)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith("/"):
        return _from_hub(name)
    near = difflib.get_close_matches(name, PRESETS, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"presets are {', '.join(PRESETS)}"
    raise BadInput(f"{name}: no such directory or preset; {hint}")


def load(model: str | Path, *, allow_pickle: bool = False) -> Predictor:
    """Load a trained model, ready to `predict`.

    Raises:
        BadInput: there is none, it is damaged, or it is a bare preset, which has learned nothing.
    """
    source = resolve(model)
    if isinstance(source, EncoderConfig):
        raise BadInput(
            f"{model} is a preset, sizes with random weights; train it first: bertram train … --model {model}"
        )
    manifest = read_manifest(source)
    task = task_of(source, manifest)
    network = read_model(source, allow_pickle=allow_pickle)
    head = cast("ClassificationHead", network.heads[task.head]) if task.head in network.heads else None
    if head is None or head.classifier.out_features != task.outputs:
        raise BadInput(f"{source}: {MANIFEST} tells of {task.name} with {task.outputs} outputs, the weights do not")
    from bertram.training.torch_runner import TorchRunner

    max_length = max_length_of(source, network.config)
    return Predictor(task, read_tokenizer(source, network.config), TorchRunner(network), max_length)


def save(
    network: "Model",
    tokenizer: Tokenizer,
    out: Path,
    manifest: dict[str, Any],
    card: Callable[[dict[str, Any]], str],
    *,
    labels: list[str] | None = None,
) -> None:
    """Write a trained model's directory; bertram.json comes last and makes the training count as finished.

    Args:
        manifest: what came of the training; the configuration and the peak memory are added.
        card: makes README.md of it.
        labels: names of a classification head's labels.
    """
    from bertram.formats.huggingface import write
    from bertram.formats.huggingface_config import config_overrides

    write(network, out, labels=labels)
    tokenizer.save(out, max_length=network.config.max_position_embeddings)
    manifest |= {"config": asdict(network.config), "config_overrides": config_overrides(network.config)}
    write_text(out / "README.md", card(manifest))
    manifest["peak_memory_mb"] = round(peak_memory_mb(), 1)
    write_json(out / MANIFEST, manifest)


def read_model(directory: Path, heads: dict[str, int] | None = None, *, allow_pickle: bool = False) -> "Model":
    """An encoder with the named heads, of which those that the directory lacks start with random weights.

    Without `heads`, with those that the directory holds.

    Raises:
        BadInput: the directory holds no model, or a damaged one.
    """
    require("torch", "train")
    require("safetensors", "train")
    from bertram.formats.huggingface import read

    return read(directory, heads=heads, overrides=_overrides(directory), allow_pickle=allow_pickle)


def _overrides(directory: Path) -> dict[str, Any]:
    """What bertram.json adds to config.json."""
    overrides = read_manifest(directory).get("config_overrides", {})
    if not isinstance(overrides, dict):
        raise BadInput(f"{directory / MANIFEST}: config_overrides must be an object")
    return overrides


def read_tokenizer(directory: Path, config: EncoderConfig) -> Tokenizer:
    """The tokenizer that stands with a model of this configuration.

    Raises:
        BadInput: there is none, it is damaged, or it counts further than the model's vocabulary.
    """
    tokenizer = Tokenizer.load(directory)
    if tokenizer.vocab_size > config.vocab_size:
        raise BadInput(
            f"{directory}: the tokenizer has {tokenizer.vocab_size:,} entries, the model only {config.vocab_size:,}"
        )
    return tokenizer


def max_length_of(source: Path | EncoderConfig, config: EncoderConfig) -> int:
    """Tokens of a text that a model reads: as many as it was trained on, or all that it has positions for.

    Raises:
        BadInput: bertram.json says what cannot be.
    """
    positions = config.max_position_embeddings
    if isinstance(source, EncoderConfig):
        return positions
    max_length = read_manifest(source).get("max_length", positions)
    if type(max_length) is not int or not 3 <= max_length <= positions:
        raise BadInput(f"{source / MANIFEST}: max_length must be a whole number from 3 to {positions}")
    return max_length


def task_of(directory: Path, manifest: dict[str, Any]) -> Task:
    """The task that a model directory was trained for.

    Raises:
        BadInput: neither bertram.json nor config.json says.
    """
    if "task" in manifest:
        try:
            return task_from_dict(manifest["task"])
        except BadInput as error:
            raise BadInput(f"{directory / MANIFEST}: {error}") from None
    raise BadInput(
        f"{directory}: no {MANIFEST} with a task; train it first: bertram train TASK DATA --model {directory}"
    )


def config_of(model: str | Path) -> EncoderConfig:
    """The sizes of a preset or of a model directory.

    Raises:
        BadInput: nothing goes by that name, or its config.json or bertram.json cannot be used.
    """
    source = resolve(model)
    if isinstance(source, EncoderConfig):
        return source
    from bertram.formats.huggingface_config import read_config

    return read_config(source, _overrides(source))


def _from_hub(name: str) -> Path:
    hub = require("huggingface_hub", "hub")
    wanted = ["*.json", "*.safetensors", "vocab.txt", "spiece.model"]
    try:
        return Path(hub.snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # the hub's client raises errors of many libraries
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{name}: neither a directory here nor to be had from the Hugging Face hub: {reason}") from None
