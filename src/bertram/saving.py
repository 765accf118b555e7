"""A trained model's directory, written: weights, tokenizers, the card, and bertram.json last."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertram.environment import environment
from bertram.files import write_text
from bertram.formats.huggingface_config import config_overrides
from bertram.formats.sentence_transformers import has_pooling, write_max_length
from bertram.memory import gpu_peak_memory_mb, peak_memory_mb
from bertram.model_directory import TARGET, vocabularies
from bertram.run_directory import discard_checkpoints, write_manifest
from bertram.text import marian
from bertram.text.tokenizer import Family, Tokenizer

if TYPE_CHECKING:
    from bertram.models.heads import Model
    from bertram.models.transformer import Transformer


def learned_tokenizer(
    folder: Path, texts: Iterable[str], family: Family, usual: int, vocab_size: int | None, *, cased: bool = False
) -> Tokenizer:
    """The tokenizer that stands at `folder`, learned from `texts` where there is none yet.

    A training that goes on finds its own there. It has at most `vocab_size` entries, or the `usual` number.
    """
    if not (folder / "tokenizer.json").exists():
        folder.mkdir(exist_ok=True)
        size = usual if vocab_size is None else vocab_size
        Tokenizer.train(texts, family, size, cased=cased).save(folder)
    return Tokenizer.load(folder)


def save(
    network: "Model",
    tokenizer: Tokenizer,
    out: Path,
    manifest: Mapping[str, Any],
    card: str,
) -> None:
    """Write a trained model's directory; bertram.json comes last and makes the training count as finished.

    Only then the checkpoints go.

    Args:
        manifest: what came of the training; the configuration and the peak memory are added.
        card: README.md.
    """
    files = save_files(network, tokenizer, out, manifest["max_length"], manifest.get("task", {}).get("labels"))
    _finish(out, {**manifest, "config": asdict(network.config), **files}, card)


def save_files(
    network: "Model", tokenizer: Tokenizer, out: Path, max_length: int, labels: Sequence[str] | None
) -> dict[str, Any]:
    """Write an encoder's weights, configuration and tokenizer, which transformers loads.

    `labels` are the names of a classification head's. Returns what bertram.json is to say of them.
    """
    from bertram.formats.huggingface import write

    write(network, out, labels=labels)
    tokenizer.save(out, max_length=max_length, segments=network.config.type_vocab_size > 1)
    if has_pooling(out):
        write_max_length(out, max_length)
    return {"config_overrides": config_overrides(network.config), **vocabularies(tokenizer)}


def save_transformer(
    network: "Transformer",
    source: Tokenizer,
    target: Tokenizer,
    out: Path,
    manifest: Mapping[str, Any],
    card: str,
) -> None:
    """`save` for an encoder–decoder model and the tokenizers of what it reads and writes, which may be one."""
    from bertram.formats.transformer import write_transformer

    write_transformer(network, out)
    files = save_tokenizers(source, target, out, manifest["max_length"])
    _finish(out, {**manifest, "config": asdict(network.config), **files}, card)


def _finish(out: Path, manifest: dict[str, Any], card: str) -> None:
    write_text(out / "README.md", card)
    now = {"peak_memory_mb": peak_memory_mb(), "gpu_peak_memory_mb": gpu_peak_memory_mb()}
    peaks = {name: max(peak or 0.0, manifest.pop(name, 0.0)) for name, peak in now.items()}
    rounded = {name: round(peak, 1) for name, peak in peaks.items() if peak}
    write_manifest(out, {**manifest, **rounded, "machine": environment()})
    discard_checkpoints(out, manifest)


def save_tokenizers(source: Tokenizer, target: Tokenizer, out: Path, max_length: int) -> dict[str, Any]:
    """Write the tokenizers of what is read and written, where they are one, once; texts are cut to `max_length` tokens.

    Returns what bertram.json is to say of them.
    """
    if target is not source:
        folder = out if isinstance(target, marian.MarianTokenizer) else out / TARGET
        target.save(folder, max_length=max_length)
    source.save(out, max_length=max_length)
    return vocabularies(source, target)
