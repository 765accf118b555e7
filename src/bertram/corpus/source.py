"""Where a pre-training's text comes from: files, and how much of them is held out."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bertram.config import Documents
from bertram.corpus import store
from bertram.corpus.parts import Part, Start, read_parts
from bertram.progress import Report

_BYTES_A_TOKEN = 2.5  # of Chinese 3, of English more; with too few held out, they still come from all of it
_PACKED = 3  # a .gz file unpacks to about so many times its size


@dataclass(frozen=True)
class Corpus:
    """Files of raw text."""

    files: list[Path]
    documents: Documents

    def parts(self, start: Start) -> Iterator[Part]:
        """As `read_parts`."""
        return read_parts(self.files, self.documents, start)

    def sentences(self, report: Report) -> Iterator[str]:
        """Every sentence, to learn a tokenizer from; `report` hears how many characters are done, now and then."""
        characters = 0
        for number, part in enumerate(self.parts(Start())):
            yield from part.sentences
            characters += part.characters
            if number % 64 == 0:
                report({"preparing": "tokenizer", "characters": characters})

    @property
    def held_out_of(self) -> int:
        """Of how many parts one is held out, so that they come from all of the corpus: ten, of a large one more."""
        sizes = (file.stat().st_size * (_PACKED if file.suffix == ".gz" else 1) for file in self.files)
        return max(store.HELD_OUT_OF, math.ceil(sum(sizes) / _BYTES_A_TOKEN / store.HELD_OUT_TOKENS))

    def description(self) -> list[tuple[str, int]]:
        """Each file's name and size, by which a resumed run knows its corpus again without reading it."""
        return [(file.name, file.stat().st_size) for file in self.files]
