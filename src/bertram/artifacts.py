"""Model arguments: what a user may name, found and loaded; the one place that picks a side."""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertram.config import PRESETS, TRANSFORMERS, EncoderConfig, Search, TransformerConfig
from bertram.errors import BadInput, require
from bertram.files import write_json, write_text
from bertram.formats.engine_file import is_engine, read_engine
from bertram.formats.marian_config import read_search
from bertram.formats.sentence_transformers import has_pooling, read_max_length
from bertram.formats.transformer_config import is_marian, is_transformer, read_transformer_config
from bertram.inference.engine_runner import EngineRunner
from bertram.inference.generator import Generator
from bertram.inference.predictor import Predictor
from bertram.memory import peak_memory_mb
from bertram.run_directory import MANIFEST, read_manifest
from bertram.tasks.classification import Classification
from bertram.tasks.registry import any_task_from_dict
from bertram.tasks.regression import Regression
from bertram.tasks.sequence_to_sequence import Generation, Translation
from bertram.tasks.similarity import Similarity
from bertram.tasks.task import Task
from bertram.text import marian
from bertram.text.records import read_inputs
from bertram.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bertram.models.heads import Model
    from bertram.models.transformer import Transformer

TARGET = "target"
"""Where in a model directory the tokenizer of what is written stands, if it is another than that of what is read."""


OWN = Path(__file__).parent / "own"
ENGLISH, SENTIMENT = "bertram-english", "bertram-sentiment"
"""Models that come with Bertram: vectors of English texts, and how people feel who wrote them; docs/own-models.md."""


def resolve(model: str | Path, *, allow_pickle: bool = False) -> Path | EncoderConfig | TransformerConfig:
    """A model argument as the directory it names, or as a preset's sizes. Only a name with a slash reaches the hub.

    Pickled weights are fetched from there if they are allowed.

    Raises:
        BadInput: nothing goes by that name.
    """
    if model == ENGLISH:
        return OWN / ENGLISH
    if model == SENTIMENT:
        raise BadInput(f"{model}: answers, but is there as an engine alone; train on {ENGLISH}, which it was made of")
    presets: dict[str, EncoderConfig | TransformerConfig] = {**PRESETS, **TRANSFORMERS}
    if isinstance(model, str) and model in presets:
        return presets[model]
    path = Path(model)
    if _exists(path):
        if path.is_dir():
            return path
        raise BadInput(f"{path}: is a file; here a model is a directory with config.json, or a preset")
    name = str(model)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith("/"):
        return _from_hub(name, allow_pickle)
    near = difflib.get_close_matches(name, presets, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"presets are {', '.join(presets)}"
    raise BadInput(f"{name}: no such directory or preset; {hint}")


def resolve_encoder(model: str | Path, *, allow_pickle: bool = False) -> Path | EncoderConfig:
    """`resolve` where an encoder alone is wanted.

    Raises:
        BadInput: nothing goes by that name, or it is an encoder–decoder model.
    """
    found = resolve(model, allow_pickle=allow_pickle)
    if isinstance(found, TransformerConfig) or (isinstance(found, Path) and is_transformer(found)):
        raise BadInput(f"{model}: is an encoder–decoder model, for translation or summarization; this needs an encoder")
    return found


def load(model: str | Path, *, allow_pickle: bool = False) -> Predictor | Generator:
    """Load a trained model, an engine file or one of Bertram's own, ready to `predict`.

    Raises:
        BadInput: there is none, it is damaged, or it is a bare preset, which has learned nothing.
    """
    path = OWN / f"{model}.engine" if model in (ENGLISH, SENTIMENT) else Path(model)
    if _exists(path) and path.is_file() and is_engine(path):
        return _load_engine(path)
    source = resolve(model, allow_pickle=allow_pickle)
    if not isinstance(source, Path):
        raise BadInput(
            f"{model} is a preset, sizes with random weights; train it first: bertram train … --model {model}"
        )
    manifest = read_manifest(source)
    task = task_of(source, manifest)
    if isinstance(task, Generation):
        return _load_generator(source, manifest, task, allow_pickle)
    network = read_model(source, allow_pickle=allow_pickle)
    if network.labels().get(task.head) != (0 if task.apart else task.outputs):
        raise BadInput(f"{source}: is for {task.name} with {task.outputs} outputs, the weights are not")
    from bertram.training.torch_runner import TorchRunner

    max_length = max_length_of(source, network.config)
    return Predictor(task, read_tokenizer(source, network.config), TorchRunner(network), max_length)


def asked(
    model: str | None, source: str | None, text: str | None, own: str
) -> tuple[str, Iterable[Sequence[str | Mapping[str, str]]]]:
    """Which model is to answer, and what it is asked: MODEL and SOURCE, each of which may be missing.

    Without a model `own` answers. One argument alone is a source if it is "-" or a file and no engine, and a text if it
    has white space in it and names nothing; else it is a model. Without a source standard input is read.

    Raises:
        BadInput: both a source and a text are given.
    """
    if model is not None and source is None and text is None:
        path = Path(model)
        if model == "-" or (_exists(path) and path.is_file() and not is_engine(path)):
            model, source = None, model
        elif len(model.split()) > 1 and not _exists(path):
            model, text = None, model
    if source is not None and text is not None:
        raise BadInput(f"{source}: give a source or --text, not both")
    return own if model is None else model, read_inputs(source or "-") if text is None else [[text]]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a text, too long for a name
        return False


def load_predictor(model: str | Path, *, allow_pickle: bool = False) -> Predictor:
    """`load` where labels or numbers are wanted, not texts.

    Raises:
        BadInput: as `load`, or the model writes texts.
    """
    found = load(model, allow_pickle=allow_pickle)
    if isinstance(found, Generator):
        raise BadInput(f"{model}: is for {found.task.name}, which gives texts; use bertram {_VERBS[found.task.name]}")
    return found


def load_generator(model: str | Path, task: str | None = None, *, allow_pickle: bool = False) -> Generator:
    """`load` where texts are wanted, by a model of any kind of generation or of `task`.

    Raises:
        BadInput: as `load`, or the model does something else.
    """
    found = load(model, allow_pickle=allow_pickle)
    if not isinstance(found, Generator) or task not in (None, found.task.name):
        raise BadInput(f"{model}: is for {found.task.name}, not for {task or 'writing texts'}")
    return found


def _load_engine(path: Path) -> Predictor:
    engine = read_engine(path)
    manifest, heads = engine.manifest, engine.heads
    if "task" not in manifest:
        raise BadInput(f"{path}: its model was trained for no task")
    task = any_task_from_dict(manifest["task"])
    if isinstance(task, Generation) or heads.get(task.head) != (0 if task.apart else task.outputs):
        raise BadInput(f"{path}: holds no head for {task.name}")
    max_length = manifest.get("max_length")
    if type(max_length) is not int or not 3 <= max_length <= engine.config.max_position_embeddings:
        raise BadInput(f"{path}: max_length must be a whole number from 3 to its positions")
    return Predictor(task, engine.tokenizer, EngineRunner(engine), max_length)


_VERBS = {"translation": "translate", "summarization": "summarize"}


def _load_generator(source: Path, manifest: dict[str, Any], task: Generation, allow_pickle: bool) -> Generator:
    search = search_of(source, manifest)
    if (source / "model.bin").is_file():
        from bertram.inference.ctranslate2_runner import CTranslate2Runner

        runner = CTranslate2Runner(source)
        positions = manifest.get("max_length")
        if type(positions) is not int or positions < 3:
            raise BadInput(f"{source / MANIFEST}: max_length must be a whole number from 3 on")
        known = runner.description
        tokenizers = read_tokenizers(source, len(known.source_tokens), len(known.target_tokens))
        return Generator(task, *tokenizers, runner, positions, search)
    network = read_transformer(source, allow_pickle=allow_pickle)
    from bertram.training.torch_runner import TorchGenerator

    max_length = max_length_of(source, network.config.encoder)
    tokenizers = tokenizers_of(source, network.config)
    return Generator(task, *tokenizers, TorchGenerator(network), max_length, search)


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


def save_transformer(
    network: "Transformer",
    source: Tokenizer,
    target: Tokenizer,
    out: Path,
    manifest: dict[str, Any],
    card: Callable[[dict[str, Any]], str],
) -> None:
    """`save` for an encoder–decoder model and the tokenizers of what it reads and writes, which may be one."""
    from bertram.formats.transformer import write_transformer

    write_transformer(network, out)
    save_tokenizers(source, target, out, network.config)
    manifest["config"] = asdict(network.config)
    write_text(out / "README.md", card(manifest))
    manifest["peak_memory_mb"] = round(peak_memory_mb(), 1)
    write_json(out / MANIFEST, manifest)


def save_tokenizers(source: Tokenizer, target: Tokenizer, out: Path, config: TransformerConfig) -> None:
    """Write the tokenizers of what is read and written; where they are one, once."""
    if target is not source:
        place = out if isinstance(target, marian.MarianTokenizer) else out / TARGET
        target.save(place, max_length=config.decoder.max_position_embeddings)
    source.save(out, max_length=config.encoder.max_position_embeddings)


def read_transformer(directory: Path, *, allow_pickle: bool = False) -> "Transformer":
    """The encoder–decoder model in a directory.

    Raises:
        BadInput: the directory holds none, or a damaged one.
    """
    require("torch", "train")
    require("safetensors", "train")
    from bertram.formats import transformer

    return transformer.read_transformer(directory, allow_pickle=allow_pickle)


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
    return found


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
    """Tokens of a text that a model reads: as many as it was trained on or its files say, or all it has positions for.

    Raises:
        BadInput: bertram.json says what cannot be.
    """
    positions = config.max_position_embeddings
    if isinstance(source, EncoderConfig):
        return positions
    longest = min(read_max_length(source) or positions, positions)
    max_length = read_manifest(source).get("max_length", longest)
    if type(max_length) is not int or not 3 <= max_length <= positions:
        raise BadInput(f"{source / MANIFEST}: max_length must be a whole number from 3 to {positions}")
    return max_length


def search_of(directory: Path, manifest: dict[str, Any]) -> Search:
    """How a model directory says that its outputs are searched for; bertram.json first, else generation_config.json.

    Raises:
        BadInput: it says what cannot be.
    """
    if "search" not in manifest:
        return read_search(directory) if is_marian(directory) else Search()
    try:
        return Search(**manifest["search"])
    except (TypeError, BadInput):
        raise BadInput(f"{directory / MANIFEST}: search must hold the settings of one") from None


def task_of(directory: Path, manifest: dict[str, Any]) -> Task | Generation:
    """The task that a model directory was trained for.

    Raises:
        BadInput: no file in it says.
    """
    if (task := find_task(directory, manifest)) is None:
        raise BadInput(
            f"{directory}: no {MANIFEST} with a task, and no classifier; "
            f"train it first: bertram train TASK DATA --model {directory}"
        )
    return task


def find_task(directory: Path, manifest: dict[str, Any]) -> Task | Generation | None:
    """The task that bertram.json names, or that other libraries' files imply; None where there is none.

    Raises:
        BadInput: bertram.json names none that is known.
    """
    if "task" in manifest:
        try:
            return any_task_from_dict(manifest["task"])
        except BadInput as error:
            raise BadInput(f"{directory / MANIFEST}: {error}") from None
    if is_marian(directory):
        return Translation()
    return Similarity() if has_pooling(directory) else _task_of_class(directory)


def _task_of_class(directory: Path) -> Task | None:
    """What a published classifier is for, by the class that config.json names; its numbers are in the labels' unit."""
    from bertram.formats.huggingface_config import read_description

    if not (directory / "config.json").exists() or is_transformer(directory):
        return None
    said = read_description(directory, _overrides(directory))
    if "regression" in said.heads:
        return Regression(0.0, 1.0)
    if "classification" not in said.heads:
        return None
    return Classification(tuple(said.labels or (f"LABEL_{number}" for number in range(said.num_labels))))


def config_of(model: str | Path) -> EncoderConfig:
    """The sizes of an encoder's preset or directory.

    Raises:
        BadInput: nothing goes by that name, or its config.json or bertram.json cannot be used.
    """
    source = resolve_encoder(model)
    if isinstance(source, EncoderConfig):
        return source
    from bertram.formats.huggingface_config import read_config

    return read_config(source, _overrides(source))


def any_config_of(model: str | Path) -> EncoderConfig | TransformerConfig:
    """The sizes of a preset or directory of either kind.

    Raises:
        BadInput: as `config_of`.
    """
    found = resolve(model)
    if isinstance(found, Path) and is_transformer(found):
        return read_transformer_config(found)
    return config_of(found) if isinstance(found, Path) else found


def _from_hub(name: str, allow_pickle: bool) -> Path:
    try:
        hub = require("huggingface_hub", "hub")
    except BadInput as error:
        raise BadInput(f"{name}: no such directory here, and for the Hugging Face hub {error}") from None
    wanted = ["*.json", "*.safetensors", "*.spm", "vocab.txt", "spiece.model", *(["*.bin"] if allow_pickle else [])]
    try:
        return Path(hub.snapshot_download(name, allow_patterns=wanted))
    except Exception as error:  # the hub's client raises errors of many libraries
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadInput(f"{name}: neither a directory here nor to be had from the Hugging Face hub: {reason}") from None
