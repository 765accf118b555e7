"""Token stores: a tokenized corpus on the disk, mapped into memory when it is read.

A store is a directory of plain arrays; store.json, written last, says how long they are. While it is being built,
progress.json says up to where it is whole, so that building goes on after a stop with the part where it stood.

Letters: N tokens, S sentences, P parts.
"""

import json
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from bertram.corpus.parts import Part, Start
from bertram.errors import BadInput
from bertram.files import discard_unfinished, write_json
from bertram.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

MANIFEST, _PROGRESS = "store.json", "progress.json"
_CHUNK = 2**21  # characters tokenized at a time
_AHEAD = 3  # chunks
_SAVED_EVERY = 4  # chunks
HELD_OUT_OF = 10
HELD_OUT_TOKENS = 2**20
MANY_UNKNOWN = 0.01
"""Of all tokens. A stretch that becomes one unknown token can be as long as a hundred others."""

_Purpose = Literal["held out", "order", "block"]


@dataclass(frozen=True)
class TokenStore:
    """A corpus as tokens, without special ones."""

    tokens: NDArray[Any]  # [N]
    sentences: NDArray[np.int64]  # [S + 1], where each sentence begins among the tokens, and N
    parts: NDArray[np.int64]  # [P + 1], where each part begins among the sentences, and S
    documents: NDArray[np.int64]  # [P], the number of the document that a part is of; never falling

    @classmethod
    def open(cls, directory: Path) -> "TokenStore":
        """Map a finished store into memory.

        Raises:
            BadInput: it is not there, not finished or damaged.
        """
        try:
            sizes = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
            kept = cls(**{name: _column(directory, name, sizes) for name in _DTYPES})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{directory}: not a whole token store ({error}); delete it to have it built anew") from None
        ends = (kept.parts[-1] + 1, kept.sentences[-1], len(kept.parts))
        if ends != (len(kept.sentences), len(kept.tokens), len(kept.documents) + 1):
            raise BadInput(f"{directory}: its arrays do not fit each other; delete it to have it built anew")
        return kept

    def __len__(self) -> int:
        return len(self.documents)

    @property
    def document_count(self) -> int:
        """How many documents the parts are of."""
        return int(np.count_nonzero(np.diff(self.documents))) + 1 if len(self) else 0


_DTYPES: dict[str, str] = {"tokens": "", "sentences": "<i8", "parts": "<i8", "documents": "<i8"}
"""The arrays and their types."""
_TOKEN_DTYPES = ("<u2", "<i4")
"""Tokens take two bytes where the vocabulary allows."""


def _column(directory: Path, name: str, sizes: dict[str, Any]) -> NDArray[Any]:
    if sizes["dtype"] not in _TOKEN_DTYPES:
        raise ValueError(f"tokens of type {sizes['dtype']!r:.20}")
    path, dtype, count = directory / f"{name}.bin", np.dtype(_DTYPES[name] or sizes["dtype"]), int(sizes[name])
    if path.stat().st_size != count * dtype.itemsize:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes, not {count * dtype.itemsize}")
    if not count:
        return np.zeros(0, dtype)
    return np.asarray(np.memmap(path, dtype, "r", shape=(count,)))  # every slice of a memmap would take as long as two


class _Writer:
    """One store while it is being built."""

    def __init__(self, directory: Path, vocab_size: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.dtype = directory, _TOKEN_DTYPES[vocab_size > 2**16]
        self.tokens = self.sentences = 0
        self.files: dict[str, BinaryIO] = {}

    def holds(self, sizes: dict[str, int]) -> bool:
        """Whether the files have so many bytes or more."""
        files = {name: self.directory / f"{name}.bin" for name in sizes}
        return all(file.exists() and file.stat().st_size >= sizes[name] for name, file in files.items())

    def open(self, sizes: dict[str, int]) -> None:
        """Begin with the first so many bytes of each file."""
        for name in _DTYPES:
            path = self.directory / f"{name}.bin"
            path.touch()
            file = path.open("rb+")
            file.truncate(sizes.get(name, 0))
            file.seek(0, 2)
            self.files[name] = file
        if not sizes:
            self._append("sentences", [0])
            self._append("parts", [0])
        else:
            self.tokens = self.files["tokens"].tell() // np.dtype(self.dtype).itemsize
            self.sentences = self.files["sentences"].tell() // 8 - 1

    def add(self, document: int, pieces: NDArray[np.int32], lengths: NDArray[np.int64]) -> None:
        """Append a part: the pieces of its sentences, end to end, and how many each has."""
        lengths = lengths[lengths > 0]
        if not len(lengths):
            return
        self.files["tokens"].write(pieces.astype(self.dtype).tobytes())
        self._append("sentences", self.tokens + np.cumsum(lengths))
        self.tokens += len(pieces)
        self.sentences += len(lengths)
        self._append("parts", [self.sentences])
        self._append("documents", [document])

    def flush(self) -> dict[str, int]:
        """Have the disk take what was added; returns the files' bytes."""
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
        return {name: file.tell() for name, file in self.files.items()}

    def finish(self) -> None:
        sizes = self.flush()
        counts = {name: sizes[name] // 8 for name in sizes if name != "tokens"}
        write_json(self.directory / MANIFEST, {"format": 1, "dtype": self.dtype, "tokens": self.tokens, **counts})

    def close(self) -> None:
        for file in self.files.values():
            file.close()

    def _append(self, name: str, values: Any) -> None:
        self.files[name].write(np.asarray(values, _DTYPES[name]).tobytes())


def build(
    parts: Callable[[Start], Iterable[Part]],
    tokenizer: Tokenizer,
    train: Path,
    validation: Path | None,
    *,
    seed: int = 0,
    held_out_of: int = HELD_OUT_OF,
    report: Callable[[int], None] = lambda characters: None,
) -> None:
    """Tokenize a corpus into a store at `train`, and one part in ten, drawn with `seed`, into one at `validation`.

    No more than about a million tokens are held out: of a large corpus, one part in `held_out_of`. What an earlier call
    that was stopped left whole is kept. Memory does not grow with the corpus. A warning tells of a corpus with many
    tokens that are unknown to the tokenizer.

    Args:
        parts: the corpus from a part on.
        validation: None holds nothing out.
        report: hears how many characters are done, now and then.

    Raises:
        BadInput: there is no text, or too little to hold some out.
        OSError: the disk did not take them.
    """
    writers = [_Writer(directory, tokenizer.vocab_size) for directory in (train, validation) if directory is not None]
    progress = _Progress.read(train)
    for writer in writers:
        (writer.directory / MANIFEST).unlink(missing_ok=True)  # of one that is built anew for the other's sake
    if len(progress.bytes) != len(writers) or not all(map(_Writer.holds, writers, progress.bytes)):
        progress = _Progress(bytes=[{} for _ in writers])
    discard_unfinished(train / _PROGRESS)
    try:
        for writer, sizes in zip(writers, progress.bytes, strict=True):
            writer.open(sizes)
        remaining = islice(parts(progress.start), 1 if progress.parts else 0, None)  # without the last one saved
        for number, chunk in enumerate(_tokenized(tokenizer, _chunks(remaining)), 1):
            for part, pieces, lengths in chunk:
                room = len(writers) > 1 and writers[1].tokens < HELD_OUT_TOKENS
                held_out = room and _is_held_out(seed, progress.parts, held_out_of)
                writers[held_out].add(part.document, pieces, lengths)
                progress.count(part, int(np.count_nonzero(pieces == tokenizer.unk_id)))
            report(progress.characters)
            if number % _SAVED_EVERY == 0:
                progress.bytes = [writer.flush() for writer in writers]
                write_json(train / _PROGRESS, asdict(progress))
        _check_text(writers)
        _warn_of_unknown(progress.unknown, sum(writer.tokens for writer in writers))
        for writer in reversed(writers):  # the one at `train` last: it says that both are whole
            writer.finish()
    finally:
        for writer in writers:
            writer.close()
    (train / _PROGRESS).unlink(missing_ok=True)


@dataclass
class _Progress:
    """How far a build has come."""

    parts: int = 0
    characters: int = 0
    unknown: int = 0  # tokens
    start: Start = field(default_factory=Start)  # of the last of these parts
    bytes: list[dict[str, int]] = field(default_factory=list)  # of each writer's files when it was saved

    @classmethod
    def read(cls, directory: Path) -> "_Progress":
        """What was saved at `directory`; nothing where that is missing or cannot be read."""
        try:
            saved: dict[str, Any] = json.loads((directory / _PROGRESS).read_text(encoding="utf-8"))
            return cls(**{**saved, "start": Start(*saved["start"])})
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

    def count(self, part: Part, unknown: int) -> None:
        """One more part is done, with so many tokens that are unknown."""
        self.parts += 1
        self.characters += part.characters
        self.unknown += unknown
        self.start = part.begins


def _check_text(writers: Sequence[_Writer]) -> None:
    """Check that every store has some text.

    Raises:
        BadInput: there is no text, or too little to hold some out.
    """
    if not any(writer.tokens for writer in writers):
        raise BadInput("there is no text in the files")
    if not all(writer.tokens for writer in writers):
        raise BadInput(
            "the text is too short to hold some of it out: give a --validation file, or, if it is read as fewer "
            "documents than it has, separate them by blank lines (--documents blank-line)"
        )


def _warn_of_unknown(unknown: int, tokens: int) -> None:
    if unknown > MANY_UNKNOWN * tokens:
        logger.warning(
            "bertram: %.0f%% of the tokens are unknown to the tokenizer; a larger --vocab-size, another "
            "--tokenizer or, where no spaces stand between words, an albert-* preset may know them",
            100 * unknown / tokens,
        )


def _is_held_out(seed: int, part: int, of: int) -> bool:
    """One part drawn from each group of `of`; in the first group always the second, so that two parts are enough."""
    group, place = divmod(part, of)
    if group == 0:
        return place == 1
    return int(random_of("held out", seed, group).integers(of)) == place


def random_of(purpose: _Purpose, *numbers: int) -> np.random.Generator:
    """Random numbers that depend on `numbers` alone, for each purpose others.

    To numpy numbers that are missing at the end are zeros: without the purpose, an epoch's order would be drawn by the
    same numbers as its first block.
    """
    return np.random.default_rng([get_args(_Purpose).index(purpose), *numbers])


def _chunks(parts: Iterable[Part]) -> Iterator[list[Part]]:
    chunk, characters = [], 0
    for part in parts:
        chunk.append(part)
        characters += part.characters
        if characters >= _CHUNK:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


_Tokenized = tuple[Part, NDArray[np.int32], NDArray[np.int64]]
"""A part, the pieces of its sentences end to end, and how many each sentence has."""


def _tokenized(tokenizer: Tokenizer, chunks: Iterator[list[Part]]) -> Iterator[list[_Tokenized]]:
    """Tokenize chunks in their order, the next few in threads meanwhile (the tokenizer itself uses all cores)."""

    def tokenize(chunk: list[Part]) -> list[_Tokenized]:
        pieces, lengths = tokenizer.pieces([sentence for part in chunk for sentence in part.sentences])
        of_parts = np.split(lengths, np.cumsum([len(part.sentences) for part in chunk])[:-1])
        edges = np.cumsum([own.sum() for own in of_parts])[:-1]
        return list(zip(chunk, np.split(pieces, edges), of_parts, strict=True))

    with ThreadPoolExecutor(_AHEAD) as pool:
        waiting: deque[Future[list[_Tokenized]]] = deque()
        for chunk in chunks:
            waiting.append(pool.submit(tokenize, chunk))
            if len(waiting) > _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
