"""What stands in a directory with a trained model: weights, tokenizers, and what bertram.json says of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertram.config import EncoderConfig, TransformerConfig
from bertram.environment import environment
from bertram.errors import BadInput, require_all
from bertram.files import write_text
from bertram.formats.config_json import overrides_of
from bertram.formats.huggingface_config import Description, config_overrides, read_description
from bertram.formats.marian_config import read_search
from bertram.formats.sentence_transformers import has_pooling, read_max_length, write_max_length
from bertram.formats.transformer_config import is_marian, is_transformer
from bertram.memory import gpu_peak_memory_mb, peak_memory_mb
from bertram.run_directory import MANIFEST, read_manifest, write_manifest
from bertram.search import Search
from bertram.tasks.classification import Classification
from bertram.tasks.fill_mask import FillMask
from bertram.tasks.registry import AnyTask, any_task_from_dict
from bertram.tasks.regression import Regression
from bertram.tasks.sequence_to_sequence import Translation
from bertram.tasks.similarity import Similarity
from bertram.tasks.task import Task
from bertram.text import marian
from bertram.text.tokenizer import Family, Tokenizer

if TYPE_CHECKING:
    from bertram.models.heads import Model
    from bertram.models.transformer import Transformer

LEAST_LENGTH = 3
"""Tokens of the shortest text that is read: [CLS], one, [SEP]."""

TARGET = "target"
"""Where in a model directory the tokenizer of what is written stands, if it is another than that of what is read."""


def read_model(
    directory: Path,
    heads: dict[str, int] | None = None,
    *,
    labels: Sequence[str] | None = None,
    allow_pickle: bool = False,
) -> "Model":
    """An encoder with the named heads, of which those that the directory lacks start with random weights.

    Without `heads`, with those that the directory holds. A classification head is another if its `labels` are.

    Raises:
        BadInput: the directory holds no model, or a damaged one.
    """
    require_all(("torch", "safetensors"), "train")
    from bertram.formats.huggingface import read

    return read(directory, heads=heads, labels=labels, overrides=overrides_of(directory), allow_pickle=allow_pickle)


def read_transformer(directory: Path, *, allow_pickle: bool = False) -> "Transformer":
    """The encoder–decoder model in a directory.

    Raises:
        BadInput: the directory holds none, or a damaged one, or one whose weights are not finite.
    """
    require_all(("torch", "safetensors"), "train")
    from bertram.formats import transformer

    network = transformer.read_transformer(directory, allow_pickle=allow_pickle)
    check_numbers(directory, network)
    return network


def check_numbers(directory: Path, network: "Model | Transformer") -> None:
    """Refuse a model that answers nothing. An encoder whose training diverged may still be measured, and is read.

    Raises:
        BadInput: a weight is not finite.
    """
    for name, weight in network.named_parameters():
        if not weight.isfinite().all():
            raise BadInput(f"{directory}: {name} holds NaN or infinity: its training diverged, or the file is damaged")


def read_tokenizer(directory: Path, config: EncoderConfig) -> Tokenizer:
    """The tokenizer that stands with a model of this configuration.

    Raises:
        BadInput: there is none, it is damaged, it counts further than the model's vocabulary, or is not the one that
            the model was saved with.
    """
    tokenizer = Tokenizer.load(directory)
    if tokenizer.vocab_size > config.vocab_size:
        raise BadInput(
            f"{directory}: the tokenizer has {tokenizer.vocab_size:,} entries, the model only {config.vocab_size:,}"
        )
    _check_vocabularies(directory, tokenizer)
    return tokenizer


def tokenizers_of(directory: Path, config: TransformerConfig) -> tuple[Tokenizer, Tokenizer]:
    """`read_tokenizers` for a model of this configuration."""
    return read_tokenizers(directory, config.encoder.vocab_size, config.decoder.vocab_size)


def read_tokenizers(directory: Path, read: int, written: int) -> tuple[Tokenizer, Tokenizer]:
    """The tokenizers of what an encoder–decoder model reads and writes, which may be one; it knows so many tokens.

    Raises:
        BadInput: one is missing or damaged, or of another vocabulary than the model's.
    """
    if (directory / marian.FIRST_FILE).is_file():
        found = source, target = marian.read_marian(directory)
    else:
        source = Tokenizer.load(directory)
        target = Tokenizer.load(directory / TARGET) if (directory / TARGET).is_dir() else source
        found = source, target
    if source.vocab_size > read:
        raise BadInput(f"{directory}: the tokenizer has {source.vocab_size:,} entries, the model only {read:,}")
    if target.vocab_size != written:  # it could write what has no name
        raise BadInput(f"{directory}: the tokenizer has {target.vocab_size:,} entries, the model writes {written:,}")
    _check_vocabularies(directory, *found)
    return found


def _check_vocabularies(directory: Path, *tokenizers: Tokenizer) -> None:
    """Tell a model's own tokenizers from others of the same size, where bertram.json has their fingerprints.

    Raises:
        BadInput: these are others.
    """
    expected = read_manifest(directory).get("vocabularies")
    if isinstance(expected, list):  # an encoder–decoder's may be asked for the tokenizer of what it reads alone
        expected = expected[: len(tokenizers)]
    if expected is not None and expected != vocabularies(*tokenizers)["vocabularies"]:
        raise BadInput(f"{directory}: the tokenizer's vocabulary is not the one that the model was saved with")


def vocabularies(*tokenizers: Tokenizer) -> dict[str, list[str]]:
    """What bertram.json says of a model's tokenizers."""
    return {"vocabularies": [tokenizer.fingerprint for tokenizer in tokenizers]}


def learned_tokenizer(
    place: Path, texts: Iterable[str], family: Family, usual: int, vocab_size: int | None, *, cased: bool = False
) -> Tokenizer:
    """The tokenizer that stands at `place`, learned from `texts` where there is none yet.

    A training that goes on finds its own there. It has at most `vocab_size` entries, or the `usual` number.
    """
    if not (place / "tokenizer.json").exists():
        place.mkdir(exist_ok=True)
        size = usual if vocab_size is None else vocab_size
        Tokenizer.train(texts, family, size, cased=cased).save(place)
    return Tokenizer.load(place)


def check_max_length(model: str | Path, config: EncoderConfig, asked: int | None) -> None:
    """Refuse texts longer than the positions of a model, or with no room for a token between special ones.

    Raises:
        BadInput: texts cannot be as long as asked for.
    """
    if asked is not None and asked > config.max_position_embeddings:
        raise BadInput(f"--max-length {asked}: {model} has {config.max_position_embeddings} positions")
    if asked is not None and asked < LEAST_LENGTH:
        raise BadInput(f"--max-length {asked}: leaves no room for text; it must be at least {LEAST_LENGTH}")


def max_length_of(
    source: Path | EncoderConfig | TransformerConfig,
    config: EncoderConfig | TransformerConfig,
    asked: int | None = None,
) -> int:
    """Tokens of a text that a model reads: as many as asked for, as it was trained on or its files say, or all it has
    positions for; of an encoder–decoder model as many as its decoder can also write.

    Raises:
        BadInput: bertram.json says what cannot be.
    """
    if asked is not None:
        return asked
    max_length = positions = (config if isinstance(config, EncoderConfig) else config.encoder).max_position_embeddings
    if isinstance(source, Path):
        longest = min(read_max_length(source) or positions, positions)
        max_length = read_manifest(source).get("max_length", longest)
        if type(max_length) is not int or not LEAST_LENGTH <= max_length <= positions:
            raise BadInput(f"{source / MANIFEST}: max_length must be a whole number from {LEAST_LENGTH} to {positions}")
    return min(max_length, config.max_position_embeddings)


def search_of(directory: Path) -> Search:
    """How a model directory says that its outputs are searched for; bertram.json first, else generation_config.json.

    Raises:
        BadInput: it says what cannot be.
    """
    manifest = read_manifest(directory)
    if "search" not in manifest:
        return read_search(directory) if is_marian(directory) else Search()
    try:
        return Search(**manifest["search"])
    except (TypeError, BadInput):
        raise BadInput(f"{directory / MANIFEST}: search must be an object of search settings") from None


def task_of(directory: Path) -> AnyTask:
    """The task that a model directory was trained for.

    Raises:
        BadInput: no file in it says.
    """
    if (task := find_task(directory)) is None:
        file = directory / "config.json"
        reason = "" if is_transformer(directory) or not file.exists() else _description_of(directory).unknown
        if reason:
            raise BadInput(f"{file}: {reason}")
        raise BadInput(
            f"{directory}: no {MANIFEST} with a task, no classifier and no masked language model; "
            f"train it first: bertram train TASK DATA --model {directory}"
        )
    return task


def check_head(source: Path, task: Task | FillMask, labels: Mapping[str, int]) -> None:
    """Refuse a model that cannot do its task: `labels` are its heads', 0 where a head counts none.

    Raises:
        BadInput: the task's head is not there, or has other outputs.
    """
    wanted = 0 if isinstance(task, FillMask) or task.apart else task.outputs
    if labels.get(task.head) != wanted:
        outputs = f" with {wanted} outputs" if wanted else ""
        raise BadInput(f"{source}: is for {task.name}{outputs}, the weights are not")


def find_task(directory: Path) -> AnyTask | None:
    """The task that bertram.json names, or that other libraries' files imply; None where there is none.

    Raises:
        BadInput: bertram.json names none that is known.
    """
    manifest = read_manifest(directory)
    if "task" in manifest:
        try:
            return any_task_from_dict(manifest["task"])
        except BadInput as error:
            raise BadInput(f"{directory / MANIFEST}: {error}") from None
    if is_marian(directory):
        return Translation()
    return Similarity() if has_pooling(directory) else _task_of_class(directory)


def _task_of_class(directory: Path) -> Task | FillMask | None:
    """What a published model is for, by the class that config.json names; its numbers are in the labels' unit."""
    if not (directory / "config.json").exists() or is_transformer(directory):
        return None
    said = _description_of(directory)
    if "regression" in said.heads:
        return Regression(0.0, 1.0)
    if "classification" in said.heads:
        return Classification(tuple(said.labels or (f"LABEL_{number}" for number in range(said.num_labels))))
    return FillMask() if FillMask.head in said.heads else None


def _description_of(directory: Path) -> Description:
    return read_description(directory, overrides_of(directory))


def read_config(directory: Path) -> EncoderConfig:
    """The sizes of an encoder's directory.

    Raises:
        BadInput: its config.json or bertram.json cannot be used.
    """
    return _description_of(directory).config


def save(
    network: "Model",
    tokenizer: Tokenizer,
    out: Path,
    manifest: Mapping[str, Any],
    card: Callable[[dict[str, Any]], str],
    *,
    labels: Sequence[str] | None = None,
) -> None:
    """Write a trained model's directory; bertram.json comes last and makes the training count as finished.

    Args:
        manifest: what came of the training; the configuration and the peak memory are added.
        card: makes README.md of it.
        labels: names of a classification head's labels.
    """
    files = save_files(network, tokenizer, out, manifest["max_length"], labels)
    _finish(out, {**manifest, "config": asdict(network.config), **files}, card)


def save_files(
    network: "Model", tokenizer: Tokenizer, out: Path, max_length: int, labels: Sequence[str] | None
) -> dict[str, Any]:
    """Write an encoder's weights, configuration and tokenizer, which transformers loads; `labels` as `save` takes them.

    Returns what bertram.json is to say of them.
    """
    from bertram.formats.huggingface import write

    write(network, out, labels=labels)
    tokenizer.save(out, max_length=network.config.max_position_embeddings)
    if has_pooling(out):
        write_max_length(out, max_length)
    return {"config_overrides": config_overrides(network.config), **vocabularies(tokenizer)}


def save_transformer(
    network: "Transformer",
    source: Tokenizer,
    target: Tokenizer,
    out: Path,
    manifest: Mapping[str, Any],
    card: Callable[[dict[str, Any]], str],
) -> None:
    """`save` for an encoder–decoder model and the tokenizers of what it reads and writes, which may be one."""
    from bertram.formats.transformer import write_transformer

    write_transformer(network, out)
    files = save_tokenizers(source, target, out, network.config)
    _finish(out, {**manifest, "config": asdict(network.config), **files}, card)


def _finish(out: Path, manifest: dict[str, Any], card: Callable[[dict[str, Any]], str]) -> None:
    write_text(out / "README.md", card(manifest))
    peaks = {"peak_memory_mb": peak_memory_mb(), "gpu_peak_memory_mb": gpu_peak_memory_mb()}
    rounded = {name: round(peak, 1) for name, peak in peaks.items() if peak is not None}
    write_manifest(out, {**manifest, **rounded, "machine": environment()})


def save_tokenizers(source: Tokenizer, target: Tokenizer, out: Path, config: TransformerConfig) -> dict[str, Any]:
    """Write the tokenizers of what is read and written; where they are one, once.

    Returns what bertram.json is to say of them.
    """
    if target is not source:
        place = out if isinstance(target, marian.MarianTokenizer) else out / TARGET
        target.save(place, max_length=config.decoder.max_position_embeddings)
    source.save(out, max_length=config.encoder.max_position_embeddings)
    return vocabularies(source, target)
