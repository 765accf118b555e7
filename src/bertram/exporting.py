"""A trained model in another format: what `bertram export` does."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np

from bertram.batch import IGNORED, Batch
from bertram.config import ExportFormat, Precision, check_published
from bertram.corpus.masking import Masker
from bertram.errors import BadInput, require, require_all
from bertram.formats.engine_file import Engine, write_engine
from bertram.formats.engine_layout import MASKED
from bertram.formats.quantization import pack
from bertram.inference.predictor import Reading
from bertram.model_directory import ModelDirectory, check_head
from bertram.model_names import require_trained, resolve
from bertram.quantizing import Agreement, quantized
from bertram.run_directory import make_directory, new_directory, write_manifest
from bertram.saving import save_files, save_tokenizers
from bertram.tasks.fill_mask import FillMask
from bertram.tasks.registry import AnyTask, labels_of
from bertram.tasks.regression import Regression
from bertram.tasks.task import Task
from bertram.text.inputs import Input, first_inputs
from bertram.text.rows import Columns
from bertram.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bertram.models.heads import Model, RegressionHead

logger = logging.getLogger(__name__)

_OF_ENCODERS: tuple[ExportFormat, ...] = ("engine", "onnx", "huggingface")
_OF_TRANSFORMERS: tuple[ExportFormat, ...] = ("ctranslate2", "huggingface")
MIN_AGREEMENT = 0.98
_MOST_TEXTS = 512  # that agreement is measured on
_DRAWN_TEXTS, _DRAWN_TOKENS = 64, 32


class Disagreement(BadInput):
    """An int8 engine answers too differently."""


def export(
    model: str | Path,
    *,
    format: ExportFormat,
    out: str | Path,
    precision: Precision | None = None,
    texts: str | Path | Iterable[Input] | None = None,
    columns: Columns = None,
    min_agreement: float | None = None,
    vocabulary_map: str | Path | None = None,
    allow_pickle: bool = False,
) -> Agreement | None:
    """Write `model` at `out`.

    Args:
        format: "engine": one file of an encoder with its heads, which answers without torch. "onnx": an encoder for
            other runtimes. "ctranslate2": a directory that CTranslate2 runs, of an encoder–decoder model.
            "huggingface": one that transformers loads, with its Bert… or Albert… classes or its MarianMTModel.
        precision: of an engine's or CTranslate2's weights; "int8", the default, has a scale for each row.
        texts: inputs, or a file of them, that an int8 engine's answers are measured on, some hundreds; without them
            drawn tokens are taken.
        columns: what the columns of a table of texts are called, as for `text.table.read_table`.
        min_agreement: share of the answers in which an int8 engine must agree with the model, 0.98 if not given. Up to
            half of the weights are kept in float32 as needed; an engine that still falls short is not written. 0 always
            writes.
        vocabulary_map: CTranslate2's vmap.txt, which says for source tokens what they may become.

    Returns how far an int8 engine agrees.

    Raises:
        BadInput: there is no such model, the format cannot represent it, weights of an engine or for ONNX are not
            finite, `out` holds something, or the engine agrees too little.
        OSError: a file cannot be written.
    """
    out = Path(out)
    _check_options(format, precision, texts, min_agreement, vocabulary_map)
    inputs = first_inputs(texts, _MOST_TEXTS, columns)
    source = require_trained(resolve(model, allow_pickle=allow_pickle))
    if format not in (formats := _OF_TRANSFORMERS if source.is_transformer else _OF_ENCODERS):
        kind = "an encoder–decoder model" if source.is_transformer else "an encoder"
        raise BadInput(f"{model}: is {kind}, for which --format is one of {', '.join(formats)}")
    if format in ("engine", "onnx"):
        if out.exists():
            raise BadInput(f"{out}: already exists; name another --out")
        if out.parent.exists():
            make_directory(out.parent)  # tries whether it can be written, before the work
    require_all(("torch", "safetensors"), "train")
    if format == "engine":
        if source.task_if_known is None:
            logger.warning("bertram: %s: no file says what task it is for; its engine answers nothing", source)
        least = MIN_AGREEMENT if min_agreement is None else min_agreement
        return _export_engine(source, out, precision or "int8", inputs, least)
    if format == "onnx":
        _export_onnx(source, out)
    elif source.is_transformer:
        _export_transformer(source, out, format, precision, vocabulary_map)
    else:
        _export_encoder(source, out)
    return None


def _check_options(
    format: ExportFormat,
    precision: Precision | None,
    texts: str | Path | Iterable[Input] | None,
    min_agreement: float | None,
    vocabulary_map: str | Path | None,
) -> None:
    """Refuse what `export` does not know, and options that are for another format than the one asked for.

    Raises:
        BadInput: there is such an option.
    """
    if format not in get_args(ExportFormat):
        raise BadInput(f"--format {format!s:.40}: must be one of {', '.join(get_args(ExportFormat))}")
    if precision not in (None, *get_args(Precision)):
        raise BadInput(f"--precision {precision!s:.40}: must be one of {', '.join(get_args(Precision))}")
    if precision == "int8" and format in ("onnx", "huggingface"):
        raise BadInput(f"--format {format}: has no other --precision than fp32; others quantize such files themselves")
    for option, value in (("--texts", texts), ("--min-agreement", min_agreement)):
        if value is not None and (format != "engine" or precision == "fp32"):
            raise BadInput(f"{option}: is for an int8 engine, whose agreement is measured, and this is none")
    if min_agreement is not None and not 0 <= min_agreement <= 1:
        raise BadInput(f"--min-agreement {min_agreement:g}: write a share from 0 to 1")
    if vocabulary_map and format != "ctranslate2":
        raise BadInput(f"--format {format}: has no --vocabulary-map")


def export_alike(source: ModelDirectory, out: Path, texts: Sequence[Input]) -> Agreement | None:
    """Write an engine in int8 if that answers `texts` alike, else in float32, and return how far an int8 one agrees.

    One that is there already is replaced.

    Raises:
        BadInput: as `export`.
        OSError: as `export`.
    """
    try:
        return _export_engine(source, out, "int8", texts, MIN_AGREEMENT)
    except Disagreement:
        return _export_engine(source, out, "fp32", None, MIN_AGREEMENT)


def _read(source: ModelDirectory) -> "Model":
    network = source.read_to_answer()
    source.check_numbers(network)
    return network


def _export_engine(
    source: ModelDirectory, out: Path, precision: Precision, texts: Sequence[Input] | None, min_agreement: float
) -> Agreement | None:
    network, tokenizer, kept = _read(source), source.read_tokenizer(), _kept(source)
    from bertram.formats.engine import tensors_of

    weights, vectors = tensors_of(network)
    matrices = {name: pack(weight, "fp32") for name, weight in weights.items()}
    pooler = network.pooler is not None
    engine = Engine(network.config, network.labels(), pooler, kept, tokenizer, matrices, vectors)
    found = None
    if precision == "int8":
        engine, found = quantized(engine, _sample(engine, texts), min_agreement)
        found = replace(found, drawn=texts is None)
        if found.share < min_agreement:
            raise Disagreement(
                f"{source}: the int8 engine agrees with the model to {found.measured}, below --min-agreement "
                f"{min_agreement:g}, with half of its weights in float32; lower it, or take --precision fp32"
            )
        engine = replace(engine, manifest={**kept, "agreement": found.share})
    write_engine(out, engine)
    return found


def _export_onnx(source: ModelDirectory, out: Path) -> None:
    require("onnx", "onnx")
    from bertram.formats.engine import tensors_of
    from bertram.formats.onnx import write_onnx
    from bertram.formats.residuals import untied

    network = untied(_read(source))
    _answer_in_unit_of_labels(network, source.task_if_known)
    write_onnx(out, network.config, list(network.heads), *tensors_of(network))


def _sample(engine: Engine, texts: Sequence[Input] | None) -> Batch:
    """What agreement is measured on: texts as the model reads them, for a masked language model with tokens to guess.

    Raises:
        BadInput: they cannot be used.
    """
    reading = Reading.of_engine(engine)
    batch = _drawn(reading) if texts is None else reading.batch(texts)
    return _masked(batch, reading.tokenizer) if MASKED in engine.heads else batch


def _drawn(reading: Reading) -> Batch:
    """Random tokens with the special ones around them that the model knows from texts; the same ones every time."""
    tokenizer = reading.tokenizer
    tokens = min(_DRAWN_TOKENS, reading.max_length) - tokenizer.added
    ids = np.random.default_rng(0).integers(tokenizer.vocab_size, size=(_DRAWN_TEXTS, tokens)).tolist()
    start = [tokenizer.cls_id] if tokenizer.added > 1 else []
    return Batch.pack([[*start, *row, tokenizer.end_id] for row in ids])


def _masked(batch: Batch, tokenizer: Tokenizer) -> Batch:
    """15% of the ordinary tokens as [MASK], the same ones every time.

    Raises:
        BadInput: there is no token to mask, or no [MASK].
    """
    _, targets = Masker.of_tokens(tokenizer).mask(batch, np.random.default_rng(0))
    if (targets == IGNORED).all():
        raise BadInput("texts: hold no token to mask")
    return replace(batch, token_ids=np.where(targets == IGNORED, batch.token_ids, np.int32(tokenizer.mask_id)))


def _kept(source: ModelDirectory) -> dict[str, Any]:
    """What bertram.json says that holds in any format."""
    kept: dict[str, Any] = {name: source.manifest[name] for name in ("base_model", "pairs") if name in source.manifest}
    if (task := source.task_if_known) is not None:
        kept["task"] = task.to_dict()
    return kept | {"max_length": source.max_length}


def _export_encoder(source: ModelDirectory, out: Path) -> None:
    network = source.read_model()  # with all its heads
    source.check_numbers(network)
    if isinstance(source.task_if_known, Task | FillMask):
        check_head(source.path, source.task_if_known, network.labels())
    check_published(network.config)
    tokenizer, task, kept = source.read_tokenizer(), source.task_if_known, _kept(source)
    _answer_in_unit_of_labels(network, task)
    if isinstance(task, Regression):
        kept["task"] = Regression(0.0, 1.0).to_dict()
    with new_directory(out) as folder:
        write_manifest(folder, kept | save_files(network, tokenizer, folder, kept["max_length"], labels_of(task)))


def _answer_in_unit_of_labels(network: "Model", task: AnyTask | None) -> None:
    """Make a regression head say values; ours counts standard deviations, which only `Regression.answers` undoes."""
    if isinstance(task, Regression):
        cast("RegressionHead", network.heads[task.head]).rescale(task.std, task.mean)


def _export_transformer(
    source: ModelDirectory,
    out: Path,
    format: ExportFormat,
    precision: Precision | None,
    vocabulary_map: str | Path | None,
) -> None:
    network, (reader, writer), search = source.read_transformer(), source.read_tokenizers(), source.search
    kept = _kept(source) | {"task": source.task.to_dict(), "search": asdict(search)}
    with new_directory(out) as folder:
        if format == "huggingface":
            from bertram.formats import marian_config
            from bertram.formats.transformer import write_marian

            write_marian(network, folder, search)
            kept |= {"config_overrides": marian_config.config_overrides(network.config)}
        else:
            from bertram.formats.ctranslate2 import write_ctranslate2

            kept |= {"precision": precision or "int8"}
            write_ctranslate2(
                network,
                reader.tokens,
                writer.tokens,
                folder,
                kept["precision"],
                vocabulary_map=None if vocabulary_map is None else Path(vocabulary_map),
            )
        kept |= save_tokenizers(reader, writer, folder, kept["max_length"])
        write_manifest(folder, kept)
