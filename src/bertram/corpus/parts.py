"""Raw text to pre-train on: files, the documents in them, and their sentences, read as a stream.

Text files say where a document ends in one of two ways:

- "file": a file is a document and a blank line ends a paragraph. Other line breaks stand for a space, as in books whose
  lines are wrapped.
- "blank-line": a blank line ends a document and every line is a paragraph, as in collections of many short documents.

JSONL files need neither: each object's `text` is a document, and line feeds in it end paragraphs. All may be gzipped.

A document is handed on in parts of whole sentences, so that memory is bounded by the longest line, 16 MB, whatever the
size of a file, a document or a paragraph. Reading can begin at any part: what stands before its paragraph, or
object, is not read, though a gzipped file is unpacked up to there.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
from pathlib import Path
from typing import NamedTuple

from bertram.config import Documents
from bertram.errors import BadInput, check_utf8
from bertram.text.lines import checked_cell, kind_of, numbered_lines, object_of, opened
from bertram.text.sentences import split_sentences

PART_CHARACTERS = 8192
"""The most characters in the sentences of one part."""

_SUFFIXES = (".txt", ".jsonl")
_WINDOW = 8 * PART_CHARACTERS  # characters of an unwrapped paragraph held at once

_PIECE = re.compile(
    rf"\S (?: .{{0,{PART_CHARACTERS - 2}}} \S )? (?!\S) | \S .{{{PART_CHARACTERS - 1}}}", re.VERBOSE | re.DOTALL
)


class Start(NamedTuple):
    """Where a part begins; by default the first."""

    file: int = 0  # its number among the files
    offset: int = 0  # bytes of the file before the paragraph that it begins in, unpacked
    lines: int = 0  # in these bytes
    sentences: int = 0  # of the paragraph, before it
    document: int = 0  # its number over all files


_FIRST = Start()


@dataclass(frozen=True, slots=True)
class Part:
    """Consecutive sentences of one document, at least one, with at most PART_CHARACTERS characters in all."""

    document: int  # counted from 0 over all files
    sentences: list[str]
    begins: Start = field(default=_FIRST, compare=False)

    @property
    def characters(self) -> int:
        return sum(map(len, self.sentences))


def corpus_files(sources: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files of a corpus, each once, a directory standing for those directly in it, by name.

    Files are named .txt or .jsonl; .gz may follow. What else lies in a directory is left alone.

    Raises:
        BadInput: a path does not exist or has another name, or a directory holds no such file or a link to nothing.
    """
    files: list[Path] = []
    for source in map(Path, [sources] if isinstance(sources, str | Path) else sources):
        if source.is_dir():
            named = sorted(path for path in source.iterdir() if kind_of(path) in _SUFFIXES)
            if gone := [path for path in named if not path.exists()]:
                raise BadInput(f"{gone[0]}: is a link to {gone[0].readlink()}, which does not exist")
            found = [path for path in named if path.is_file()]
            if not found:
                raise BadInput(f"{source}: no file in it is named {' or '.join(_SUFFIXES)}; .gz may follow")
            files += found
        elif not source.exists():
            raise BadInput(f"{source}: no such file or directory")
        elif kind_of(source) not in _SUFFIXES:
            raise BadInput(f"{source}: what kind of text is it? Names end with {', '.join(_SUFFIXES)}; .gz may follow")
        else:
            files.append(source)
    for file in files:
        check_utf8(str(file))
    return list({file.resolve(): file for file in files}.values())


def guess_documents(files: Sequence[Path]) -> Documents:
    """What most likely parts the documents: "file" if several text files are given, "blank-line" if one is.

    No file is opened. A single file that is one long document is thus taken wrongly, and so are several collections of
    short ones; whoever guesses should say what was guessed.
    """
    return "file" if sum(kind_of(path) == ".txt" for path in files) > 1 else "blank-line"


def read_parts(files: Sequence[Path], documents: Documents | None = None, start: Start = _FIRST) -> Iterator[Part]:
    """The parts of all documents, in the files' order; the parts of one document follow each other.

    Documents without any text are skipped and not counted.

    Args:
        files: as `corpus_files` gives them.
        documents: what parts the documents of text files; None guesses as `guess_documents` does.
        start: the part to begin with.

    Raises:
        BadInput: a file cannot be read, is no whole gzip file, or has a line that is longer than 16 MB, no UTF-8, holds
            a NUL byte or, in JSONL, is no object with a string `text`.
    """
    documents = documents or guess_documents(files)
    number, passed = start.document, start.sentences
    for file in range(start.file, len(files)):
        before = (start.offset, start.lines) if file == start.file else (0, 0)
        for paragraphs in _documents(files[file], documents, *before):
            part = None
            for part in _parts(file, number, paragraphs, passed):
                yield part
            number, passed = number + (part is not None), 0


_Line = tuple[tuple[int, int], str]
"""The bytes and lines before a line of a file, and what it says."""
_Paragraph = tuple[tuple[int, int], Iterable[str]]
"""The bytes and lines before a paragraph, or an object of JSONL, and its sentences."""


def _documents(path: Path, documents: Documents, offset: int, lines: int) -> Iterator[Iterable[_Paragraph]]:
    """The paragraphs of each document, from a paragraph on that has so many bytes and lines before it.

    Each paragraph must be read to its end before the next is asked for. An object of JSONL is a document of one.
    """
    found = _lines(path, offset, lines)
    if kind_of(path) == ".jsonl":
        for before, line in found:
            if line:
                number = before[1] + 1
                text = checked_cell(str(path), number, "text", object_of(str(path), number, line).get("text"))
                yield [(before, chain.from_iterable(map(_sentences, text.split("\n"))))]
        return
    blocks = (block for filled, block in groupby(found, key=_is_filled) if filled)
    if documents == "file":
        yield map(_unwrapped_block, blocks)
        return
    for block in blocks:
        yield ((before, _sentences(line)) for before, line in block)


def _lines(path: Path, offset: int, lines: int) -> Iterator[_Line]:
    """The lines of a file behind so many bytes and lines, without white space at their ends."""
    with opened(path) as stream:
        for number, line in numbered_lines(str(path), stream, offset, lines):
            if "\0" in line:
                raise BadInput(f"{path}: line {number}: a NUL byte in the text")
            yield (offset, number - 1), line.strip()
            offset = stream.tell()


def _is_filled(line: _Line) -> bool:
    return bool(line[1])


def _unwrapped_block(block: Iterator[_Line]) -> _Paragraph:
    before, first = next(block)
    return before, _unwrapped(chain([first], (line for _, line in block)))


def _unwrapped(lines: Iterable[str]) -> Iterator[str]:
    """The sentences of a paragraph that stands in several lines."""
    held: list[str] = []
    size = 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size > _WINDOW:
            *whole, unfinished = _sentences(" ".join(held))
            yield from whole
            held, size = [unfinished], len(unfinished)
    yield from _sentences(" ".join(held))


def _sentences(paragraph: str) -> Iterator[str]:
    """Sentences, those that no part could hold cut before a word, or inside one that is as long itself."""
    for sentence in split_sentences(paragraph):
        if len(sentence) <= PART_CHARACTERS:
            yield sentence
        else:
            yield from _PIECE.findall(sentence)


def _parts(file: int, document: int, paragraphs: Iterable[_Paragraph], passed: int) -> Iterator[Part]:
    """The parts of a document, without the `passed` sentences that its first paragraph begins with."""
    held: list[str] = []
    size, begins = 0, _FIRST
    for before, sentences in paragraphs:
        for number, sentence in islice(enumerate(sentences), passed, None):
            if size + len(sentence) > PART_CHARACTERS:
                yield Part(document, held, begins)
                held, size = [], 0
            if not held:
                begins = Start(file, *before, number, document)
            held.append(sentence)
            size += len(sentence)
        passed = 0
    if held:
        yield Part(document, held, begins)
