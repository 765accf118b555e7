"""What pairs of texts hold of which one is to be written from the other."""

from collections.abc import Iterator, Mapping, Sequence
from operator import eq
from pathlib import Path
from typing import Any

import numpy as np

from bertram.checking import page
from bertram.checking.reader import Reader
from bertram.model_names import Preset, require_writer, resolve
from bertram.tasks.registry import GENERATIONS
from bertram.text.pairs import Pairs, read_pairs
from bertram.text.rows import Columns
from bertram.text.tokenizer import Tokenizer

_UNLIKE = 3  # times the usual ratio of a translation's length to its source's, or a third of it
_SHORT = 10  # characters added to both, since in short texts a word more is no sign of anything


def check_pairs(
    task: str,
    files: Mapping[str, Sequence[Path]],
    *,
    model: str | Path | None = None,
    columns: Columns = None,
    vocab_size: int | None = None,
) -> dict[str, Any]:
    """Count what stands in the pairs and what is wrong with them.

    `files` are those of "train", perhaps "validation" and "test", as `read_pairs` takes them. A source with several
    targets counts once for each. Pairs are equal if every character of both sides is. Lengths are in characters and,
    unless most texts of a side are written without spaces, words, with `model` also in its tokens, special ones
    included; those of a preset are learned from all training pairs, a tokenizer of at most `vocab_size` entries. The
    length of a translation is odd if its ratio to the source's is three times the median or more, or a third or less;
    that of a summary, if it is more than its document's.

    Returns:
        "task"; "model": name, vocabulary and length, or None; "tables": for each part its counts; "warnings": what to
        look at, in plain words.

    Raises:
        BadInput: a file or the model cannot be used.
    """
    names = page.told_apart({part: " and ".join(path.name for path in paths) for part, paths in files.items()})
    roles = GENERATIONS[task].columns
    parts = {part: read_pairs(*paths, columns=columns, names=roles) for part, paths in files.items()}
    reader = None if model is None else _reader(model, parts["train"], vocab_size)
    found: dict[str, Any] = {"task": task, "model": reader and reader.described, "tables": {}}
    for part, pairs in parts.items():
        known = {other: set(parts[other].sources) for other in found["tables"]}
        sources, targets = pairs.flat
        found["tables"][part] = {
            "file": names[part],
            "rows": len(sources),
            "empty": pairs.dropped,
            "quoted": page.count_quoted(files[part][0], sources, targets),
            "repeated": len(sources) - len(set(zip(sources, targets, strict=True))),
            "copied": sum(map(eq, sources, targets)),
            "odd_lengths": _odd_lengths(task, sources, targets),
            "also_in": {other: sum(source in texts for source in sources) for other, texts in known.items()},
            **_lengths(sources, targets, reader),
        }
    found["warnings"] = list(_warnings(found))
    return found


def render(found: dict[str, Any]) -> str:
    """What `check_pairs` found, for a terminal 80 columns wide."""
    names = GENERATIONS[found["task"]].columns
    lengths = [
        (part, f"{names[side == 'target']}, {unit}", length)
        for part, table in found["tables"].items()
        for side, units in table["lengths"].items()
        for unit, length in units.items()
    ]
    return page.render(found, [f"{'task':12}{found['task']}"], _count_rows(found), lengths)


def _reader(model: str | Path, train: Pairs, vocab_size: int | None) -> Reader:
    found = require_writer(resolve(model))
    if isinstance(found, Preset):
        config, (sources, targets) = found.transformer_config, train.flat
        size = config.decoder.vocab_size if vocab_size is None else vocab_size
        shared = Tokenizer.train([*sources, *targets], "transformer", size)
        return Reader(found.name, shared, shared, config.max_position_embeddings, learned_here=True)
    if found.is_transformer:
        return Reader(found.name, *found.read_tokenizers(), found.max_length)
    return Reader.of_encoder(found)


def _odd_lengths(task: str, sources: Sequence[str], targets: Sequence[str]) -> int:
    read, written = (np.array([len(text) for text in texts]) for texts in (sources, targets))
    if task == "summarization":
        return int((written > read).sum())
    ratios = (written + _SHORT) / (read + _SHORT)
    usual = ratios / np.median(ratios)
    return int(((usual >= _UNLIKE) | (usual <= 1 / _UNLIKE)).sum())


def _lengths(sources: Sequence[str], targets: Sequence[str], reader: Reader | None) -> dict[str, Any]:
    sides = {"source": sources, "target": targets}
    lengths = {side: page.lengths_of([[text] for text in texts]) for side, texts in sides.items()}
    if reader is None:
        return {"lengths": lengths}
    batch, _ = reader.source.encode(sources, max_length=page.NO_LIMIT)
    pieces, written = reader.target.pieces(targets)
    written = written + 1  # the end
    lengths["source"]["tokens"] = page.percentiles(batch.lengths)
    lengths["target"]["tokens"] = page.percentiles(written)
    unknown = (batch.token_ids == reader.source.unk_id).sum() + (pieces == reader.target.unk_id).sum()
    return {
        "lengths": lengths,
        "too_long": int((np.maximum(batch.lengths, written) > reader.max_length).sum()),
        "unknown_tokens": float(unknown / (len(batch.token_ids) + len(pieces))),
    }


def _warnings(found: dict[str, Any]) -> Iterator[str]:
    source, target = GENERATIONS[found["task"]].columns
    for table in found["tables"].values():
        for other, count in table["also_in"].items():
            if count:
                flattered = f"; scores on {table['file']} will flatter" if other == "train" else ""
                stand = page.rows(count, table, "share")
                yield f"{stand} the {source} with one of {found['tables'][other]['file']}{flattered}"
        yield from page.warnings_of_quotes(table)
        if table["repeated"]:
            yield f"{page.rows(table['repeated'], table, 'repeat')} an earlier one"
        if table["copied"] >= page.NOTABLE * table["rows"]:
            yield f"{page.rows(table['copied'], table, 'say')} the same on both sides"
        if table["odd_lengths"]:
            unlike = f"a {target} of an unusual length: do the two belong together?"
            why = f"a {target} longer than the {source}" if found["task"] == "summarization" else unlike
            yield f"{page.rows(table['odd_lengths'], table, 'hold')} {why}"
    if found["model"] is not None:
        yield from page.warnings_of_tokens(found)


def _count_rows(found: dict[str, Any]) -> Iterator[list[str]]:
    counted = {
        "empty pairs, left out": "empty",
        "pairs of an earlier row": "repeated",
        "the same on both sides": "copied",
        "odd lengths": "odd_lengths",
    }
    return page.count_rows(found, counted, "source also in", int)
