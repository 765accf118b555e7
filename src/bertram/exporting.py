"""A trained model in another format: what `bertram export` does."""

from pathlib import Path
from typing import Any, Literal

from bertram import artifacts
from bertram.errors import BadInput
from bertram.files import write_json
from bertram.formats.transformer_config import is_transformer
from bertram.run_directory import MANIFEST, read_manifest


def export(
    model: str | Path,
    *,
    format: Literal["ctranslate2"],
    out: str | Path,
    precision: Literal["fp32", "int8"] = "int8",
    vocabulary_map: str | Path | None = None,
    allow_pickle: bool = False,
) -> None:
    """Write `model` at `out`, which `bertram.load` then takes too.

    Args:
        format: "ctranslate2": a directory that CTranslate2 runs, of an encoder–decoder model.
        precision: of matrices; "int8" has a scale for each row.
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
    from bertram.formats.ctranslate2 import write_ctranslate2

    out = Path(out)
    manifest = read_manifest(source)
    network = artifacts.read_transformer(source, allow_pickle=allow_pickle)
    reader, writer = artifacts.read_tokenizers(source, network.config)
    write_ctranslate2(
        network,
        reader.tokens,
        writer.tokens,
        out,
        precision,
        vocabulary_map=None if vocabulary_map is None else Path(vocabulary_map),
    )
    artifacts.save_tokenizers(reader, writer, out, network.config)
    kept: dict[str, Any] = {key: manifest[key] for key in ("format", "task", "search", "base_model") if key in manifest}
    length = artifacts.max_length_of(source, network.config.encoder)
    write_json(out / MANIFEST, kept | {"max_length": length, "precision": precision})
