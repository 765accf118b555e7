"""A trained model in another format: what `bertram export` does."""

from pathlib import Path
from typing import Any, Literal

from bertram import artifacts
from bertram.config import Search
from bertram.errors import BadInput, require
from bertram.files import write_json
from bertram.formats.transformer_config import is_transformer
from bertram.run_directory import MANIFEST, is_occupied, make_directory, read_manifest


def export(
    model: str | Path,
    *,
    format: Literal["ctranslate2", "huggingface"],
    out: str | Path,
    precision: Literal["fp32", "int8"] | None = None,
    vocabulary_map: str | Path | None = None,
    allow_pickle: bool = False,
) -> None:
    """Write `model` at `out`, which `bertram.load` then takes too.

    Args:
        format: "ctranslate2": a directory that CTranslate2 runs, of an encoder–decoder model. "huggingface": one that
            transformers' MarianMTModel loads.
        precision: of CTranslate2's matrices; "int8", the default, has a scale for each row.
        vocabulary_map: CTranslate2's vmap.txt, which says for source tokens what they may become.

    Raises:
        BadInput: there is no such model, the format cannot say it, or `out` holds something.
        OSError: a file cannot be written.
    """
    source = artifacts.resolve(model)
    if not isinstance(source, Path):
        raise BadInput(f"{model} is a preset, sizes with random weights; train it first")
    if not is_transformer(source):
        raise BadInput(f"{model}: --format {format} holds encoder–decoder models, and this is an encoder")
    if format == "huggingface" and (precision or vocabulary_map):
        raise BadInput(f"--format {format}: has neither another --precision than fp32 nor a --vocabulary-map")
    require("torch", "train")
    require("safetensors", "train")
    out = Path(out)
    manifest, network = read_manifest(source), artifacts.read_transformer(source, allow_pickle=allow_pickle)
    reader, writer = artifacts.read_tokenizers(source, network.config)
    kept: dict[str, Any] = {key: manifest[key] for key in ("format", "search", "base_model") if key in manifest}
    kept |= {"task": artifacts.task_of(source, manifest).to_dict()}
    kept |= {"max_length": artifacts.max_length_of(source, network.config.encoder)}
    if format == "huggingface":
        from bertram.formats.marian_config import config_overrides
        from bertram.formats.transformer import write_marian

        if is_occupied(out):
            raise BadInput(f"{out}: is not empty; name another --out")
        make_directory(out)
        write_marian(network, out, Search(**manifest.get("search", {})))
        kept |= {"config_overrides": config_overrides(network.config)}
    else:
        from bertram.formats.ctranslate2 import write_ctranslate2

        kept |= {"precision": precision or "int8"}
        write_ctranslate2(
            *(network, reader.tokens, writer.tokens, out, kept["precision"]),
            vocabulary_map=None if vocabulary_map is None else Path(vocabulary_map),
        )
    artifacts.save_tokenizers(reader, writer, out, network.config)
    write_json(out / MANIFEST, kept)
