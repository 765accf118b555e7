"""What is measured: a model as each setting reads it, and the texts that all of them are given."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bertram.benchmark.contestants import INT8, SETTINGS, Ids
from bertram.benchmark.process import Worker, turn_of
from bertram.config import EncoderConfig, LengthDistribution
from bertram.errors import BadInput, require_all
from bertram.exporting import export
from bertram.formats.engine_file import read_engine
from bertram.inference.predictor import Reading
from bertram.model_directory import ModelDirectory
from bertram.model_names import ENGLISH, Preset, engine_of, require_encoder, resolve
from bertram.tasks.task import Task
from bertram.text.inputs import Input
from bertram.text.tokenizer import Tokenizer

LENGTHS: dict[LengthDistribution, tuple[float, float, int]] = {
    "mixed": (3.34, 0.6, 113),
    "sst2": (3.08, 0.55, 64),
    "imdb": (5.42, 0.55, 256),
}
"""Distributions of lengths to draw from where no texts are given: that of docs/benchmarks.md, and such as are fitted to
the lengths of two data sets, SST-2's dev sentences and IMDB's reviews. Each is the mean and the deviation of the
logarithms of the tokens of a text, and the most that one is cut to."""

_TEXTS = 192  # that are drawn


class Subject(NamedTuple):
    """The model that is measured."""

    prepared: dict[str, Path]
    """What each setting reads."""
    config: EncoderConfig
    reading: Reading
    agreement: float | None = None
    """How far the int8 engine agrees with it; None for a preset, whose random weights answer nothing."""


def prepare(
    model: str | Path, directory: Path, against: Sequence[str] = (), *, allow_pickle: bool = False
) -> tuple[Subject, dict[str, str]]:
    """Write what Bertram and the libraries of `against` read, into `directory`.

    Returns it, and the reasons of those settings that are left out.

    Raises:
        BadInput: the model cannot be used, or no setting can read it.
    """
    path = engine_of(model)
    if path is not None and not (against and model == ENGLISH):  # which is there as a directory too
        if against:
            raise BadInput(f"{model}: is an engine file; other libraries need the model directory it was exported from")
        engine = read_engine(path)
        return Subject({f"bertram {engine.precision}": path}, engine.config, Reading.of_engine(engine)), {}
    source = require_encoder(resolve(model, allow_pickle=allow_pickle))
    trained = isinstance(source, ModelDirectory)
    if isinstance(source, Preset):
        source = _random_model(source.config, directory / "model")
    elif allow_pickle:
        export(source.path, format="huggingface", out=directory / "model", allow_pickle=True)  # no contestant unpickles
        source = ModelDirectory(directory / "model")
    tokenizer, task = source.read_tokenizer(), source.task_if_known
    reading = Reading(tokenizer, source.max_length, isinstance(task, Task) and task.apart, source.pairs)
    prepared, left_out = _prepared(source, directory, ("bertram", *against))
    if not prepared:
        raise BadInput(": ".join(next(iter(left_out.items()))))
    agreement = read_engine(prepared[INT8]).manifest["agreement"] if trained and INT8 in prepared else None
    return Subject(prepared, source.config, reading, agreement), left_out


def _prepared(
    source: ModelDirectory, directory: Path, libraries: Sequence[str]
) -> tuple[dict[str, Path], dict[str, str]]:
    """What each setting of the libraries reads, and why some are left out."""
    prepared, left_out = dict[str, Path](), dict[str, str]()
    made = dict[Any, str]()  # by what made it: several settings read one file
    for name, setting in SETTINGS.items():
        if name.split()[0] not in libraries:
            continue
        sys.stderr.write(f"preparing: {name}\n")
        (folder := directory / name.replace(" ", "-")).mkdir()
        with turn_of(name, prepared, left_out), Worker(name) as worker:
            if setting.prepare not in made:
                made[setting.prepare] = worker.ask("prepare", model=str(source.path), folder=str(folder))
            prepared[name] = Path(made[setting.prepare])
            worker.ask("load", path=str(prepared[name]), text=[[7, 7, 7]])
    return prepared, left_out


def _random_model(config: EncoderConfig, directory: Path) -> ModelDirectory:
    """A directory with random weights, and a tokenizer that nobody will ask.

    Raises:
        BadInput: torch or safetensors is not installed.
    """
    require_all(("torch", "safetensors"), "train")
    from bertram.formats.huggingface import write
    from bertram.models.heads import Model

    directory.mkdir()
    write(Model(config, {}, pooler=False), directory)
    Tokenizer.train(["a tokenizer of few words"], "bert", 64).save(directory)
    return ModelDirectory(directory)


def drawn(config: EncoderConfig, lengths: LengthDistribution) -> Ids:
    """Random texts that a model of this configuration can read, always the same, their lengths from `LENGTHS`."""
    mean, deviation, most = LENGTHS[lengths]
    random = np.random.default_rng(0)
    sizes = np.exp(random.normal(mean, deviation, _TEXTS)).round().clip(3, min(most, config.max_position_embeddings))
    return [random.integers(0, config.vocab_size, int(size)).tolist() for size in sizes]


def encoded(inputs: Sequence[Input], reading: Reading) -> Ids:
    """Inputs as the model reads them; of pairs that are read apart all first texts and then the second.

    Raises:
        BadInput: as `Reading.batch`.
    """
    batch = reading.batch(inputs)
    return [batch.token_ids[a:b].tolist() for a, b in zip(batch.offsets, batch.offsets[1:], strict=False)]
