"""A trained model in another format: what `bertram export` does."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bertram import model_directory, model_names
from bertram.batch import Batch
from bertram.errors import BadInput, require
from bertram.files import write_json
from bertram.formats.ctranslate2_file import is_ctranslate2
from bertram.formats.engine_layout import EMBEDDING
from bertram.formats.quantization import Precision
from bertram.formats.transformer_config import is_transformer
from bertram.inference.predictor import columns_of
from bertram.quantizing import Agreement, quantized
from bertram.run_directory import MANIFEST, is_occupied, make_directory, read_manifest
from bertram.text.inputs import read_inputs
from bertram.text.tokenizer import Tokenizer

Format = Literal["engine", "onnx", "ctranslate2", "huggingface"]
Texts = str | Path | Sequence[str | Mapping[str, str]]
"""A file of inputs, or inputs as `Predictor.predict` takes them."""

_ENCODERS = ("engine", "onnx")
_MOST_TEXTS = 512  # that agreement is measured on
_DRAWN_TEXTS, _DRAWN_TOKENS = 64, 32


class Disagreement(BadInput):
    """An int8 engine answers too differently."""


def export(
    model: str | Path,
    *,
    format: Format,
    out: str | Path,
    precision: Precision | None = None,
    texts: Texts | None = None,
    min_agreement: float = 0.98,
    vocabulary_map: str | Path | None = None,
    allow_pickle: bool = False,
) -> Agreement | None:
    """Write `model` at `out`, which `bertram.load` then takes too.

    Args:
        format: "engine": one file of an encoder with its heads, which answers without torch. "onnx": an encoder for
            other runtimes. "ctranslate2": a directory that CTranslate2 runs, of an encoder–decoder model.
            "huggingface": one that transformers' MarianMTModel loads.
        precision: of an engine's or CTranslate2's weights; "int8", the default, has a scale for each row.
        texts: inputs that an int8 engine's answers are measured on, some hundreds; without them drawn tokens are taken.
        min_agreement: share of the answers in which an int8 engine must agree with the model. Weights stay in float32
            as it takes; what then agrees less is not written.
        vocabulary_map: CTranslate2's vmap.txt, which says for source tokens what they may become.

    Returns how far an int8 engine agrees.

    Raises:
        BadInput: there is no such model, the format cannot represent it, `out` holds something, or the engine agrees
            too little.
        OSError: a file cannot be written.
    """
    source, out = model_names.resolve(model, allow_pickle=allow_pickle), Path(out)
    if not isinstance(source, Path):
        raise BadInput(f"{model} is a preset, sizes with random weights; train it first")
    if is_ctranslate2(source):
        raise BadInput(f"{model}: is exported for CTranslate2 already; name the model that it was made of")
    if is_transformer(source) == (format in _ENCODERS):
        kinds = ["an encoder", "an encoder–decoder model"][:: 1 if format in _ENCODERS else -1]
        raise BadInput(f"{model}: is {kinds[1]}, and --format {format} holds {kinds[0]}")
    if vocabulary_map and format != "ctranslate2":
        raise BadInput(f"--format {format}: has no --vocabulary-map")
    if not 0 <= min_agreement <= 1:
        raise BadInput(f"--min-agreement {min_agreement:g}: write a share from 0 to 1")
    require("torch", "train")
    require("safetensors", "train")
    if format == "engine":
        return _export_engine(source, out, precision or "int8", texts, min_agreement, allow_pickle)
    if format == "onnx":
        _export_onnx(source, out, precision, allow_pickle)
    else:
        _export_transformer(source, out, format, precision, vocabulary_map, allow_pickle)
    return None


def export_alike(model: str | Path, out: Path, texts: Texts, *, allow_pickle: bool = False) -> Agreement | None:
    """Write an engine in int8 if that answers `texts` alike, else in float32, and return how far an int8 one agrees.

    Raises:
        BadInput: as `export`.
        OSError: as `export`.
    """
    out.unlink(missing_ok=True)
    try:
        return export(model, format="engine", out=out, texts=texts, allow_pickle=allow_pickle)
    except Disagreement:
        return export(model, format="engine", out=out, precision="fp32", allow_pickle=allow_pickle)


def _export_engine(
    source: Path, out: Path, precision: Precision, texts: Texts | None, min_agreement: float, allow_pickle: bool
) -> Agreement | None:
    from bertram.formats.engine import tensors_of
    from bertram.formats.engine_file import Engine, write_engine
    from bertram.formats.quantization import pack

    if out.exists():
        raise BadInput(f"{out}: is there already; name another --out")
    manifest, network = read_manifest(source), model_directory.read_model(source, allow_pickle=allow_pickle)
    tokenizer = model_directory.read_tokenizer(source, network.config)
    weights, vectors = tensors_of(network)
    kept: dict[str, Any] = {key: manifest[key] for key in ("base_model",) if key in manifest}
    if (task := model_directory.find_task(source, manifest)) is not None:
        kept["task"] = task.to_dict()
    kept |= {"max_length": model_directory.max_length_of(source, network.config), "precision": precision}
    pooler = network.pooler is not None
    matrices = {name: pack(weight, "fp32") for name, weight in weights.items()}
    engine, found = Engine(network.config, network.labels(), pooler, kept, tokenizer, matrices, vectors), None
    if precision == "int8":
        batch = _sample(
            texts, tokenizer, kept["max_length"], network.config.vocab_size, apart=EMBEDDING in network.heads
        )
        engine, found = quantized(engine, batch, min_agreement)
        if found.share < min_agreement:
            raise Disagreement(
                f"{source}: in int8 {found.share:.2%} of {found.texts:,} texts are answered alike, less than "
                f"--min-agreement {min_agreement:g}; lower it, or take --precision fp32"
            )
        kept |= {"agreement": found.share}
    write_engine(out, engine)
    return found


def _export_onnx(source: Path, out: Path, precision: Precision | None, allow_pickle: bool) -> None:
    require("onnx", "onnx")
    from bertram.formats.engine import tensors_of
    from bertram.formats.onnx import write_onnx
    from bertram.formats.residuals import untied

    if precision == "int8":
        raise BadInput("--format onnx: has no other --precision than fp32; runtimes quantize such files themselves")
    if out.exists():
        raise BadInput(f"{out}: is there already; name another --out")
    network = untied(model_directory.read_model(source, allow_pickle=allow_pickle))
    write_onnx(out, network.config, list(network.heads), *tensors_of(network))


def _sample(texts: Texts | None, tokenizer: Tokenizer, max_length: int, vocabulary: int, *, apart: bool) -> Batch:
    """What agreement is measured on; texts of a pair may be read `apart`.

    Raises:
        BadInput: the file of texts cannot be used.
    """
    if texts is None:
        drawn = np.random.default_rng(0).integers(0, vocabulary, (_DRAWN_TEXTS, min(_DRAWN_TOKENS, max_length)))
        return Batch.pack(drawn.tolist())
    if isinstance(texts, str | Path):
        inputs: list[str | Mapping[str, str]] = list(
            islice((given for chunk in read_inputs(str(texts)) for given in chunk), _MOST_TEXTS)
        )
        if not inputs:
            raise BadInput(f"{texts}: holds no texts")
    else:
        inputs = list(texts[:_MOST_TEXTS])
        if not inputs:
            raise BadInput("texts: none are given to measure agreement on")
    firsts, more = columns_of(inputs)
    if apart and more:
        firsts, more = [*firsts, *more], None
    return tokenizer.encode(firsts, more, max_length=max_length)[0]


def _export_transformer(
    source: Path,
    out: Path,
    format: Format,
    precision: Precision | None,
    vocabulary_map: str | Path | None,
    allow_pickle: bool,
) -> None:
    if format == "huggingface" and precision == "int8":
        raise BadInput(f"--format {format}: has no other --precision than fp32")
    manifest, network = read_manifest(source), model_directory.read_transformer(source, allow_pickle=allow_pickle)
    reader, writer = model_directory.tokenizers_of(source, network.config)
    kept: dict[str, Any] = {key: manifest[key] for key in ("format", "base_model") if key in manifest}
    kept |= {"search": asdict(model_directory.search_of(source, manifest))}
    kept |= {"task": model_directory.task_of(source, manifest).to_dict()}
    kept |= {"max_length": model_directory.max_length_of(source, network.config.encoder)}
    if format == "huggingface":
        from bertram.formats.marian_config import config_overrides
        from bertram.formats.transformer import write_marian

        if is_occupied(out):
            raise BadInput(f"{out}: is not empty; name another --out")
        make_directory(out)
        write_marian(network, out, model_directory.search_of(source, manifest))
        kept |= {"config_overrides": config_overrides(network.config)}
    else:
        from bertram.formats.ctranslate2 import write_ctranslate2

        kept |= {"precision": precision or "int8"}
        write_ctranslate2(
            *(network, reader.tokens, writer.tokens, out, kept["precision"]),
            vocabulary_map=None if vocabulary_map is None else Path(vocabulary_map),
        )
    kept |= model_directory.save_tokenizers(reader, writer, out, network.config)
    write_json(out / MANIFEST, kept)
