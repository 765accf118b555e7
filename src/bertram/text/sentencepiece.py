"""Reading SentencePiece unigram models: ALBERT's (`spiece.model`), and Marian's two (`source.spm`, `target.spm`).

The file is one protocol buffer, `ModelProto` of google/sentencepiece `sentencepiece_model.proto`. Only what a tokenizer
needs is read: field 1, the pieces (text 1, score 2, type 3), field 2, the trainer's model type (3) and which end of a
word is marked (24), field 3, the normaliser's table of characters (2) and what it does with spaces (3, 4, 5), and
field 5, a second such table for decoded text (2).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from math import isfinite
from pathlib import Path

import numpy as np

from bertram.errors import BadInput

MAX_BYTES = 64 * 2**20
UNIGRAM = 1
_REACH = 64
"""Characters looked at for a replacement; tables know sequences of a few."""


class Kind(IntEnum):
    """The type of a piece (`ModelProto.SentencePiece.Type`)."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    score: float  # natural logarithm of its probability; 0 for all but normal pieces
    kind: Kind


@dataclass(frozen=True, slots=True)
class UnigramModel:
    pieces: list[Piece]  # in the order of their ids
    charsmap: bytes  # compiled table of character replacements; empty if there is none
    marks_first_word: bool  # whether the first word begins with the mark for a space, as others do
    folds_spaces: bool  # whether spaces at the ends go and several count as one


def read_unigram(path: Path) -> UnigramModel:
    """Read a SentencePiece model file.

    Raises:
        BadInput: the file is no SentencePiece unigram model, or a part of it does not hold together.
    """
    if path.stat().st_size > MAX_BYTES:
        raise BadInput(f"{path}: larger than {MAX_BYTES >> 20} MB, too large for a SentencePiece model")
    try:
        return _parse(path.read_bytes())
    except (ValueError, struct.error) as error:
        raise BadInput(f"{path}: not a SentencePiece unigram model ({error})") from None


def check_charsmap(charsmap: bytes) -> None:
    """Raise ValueError unless every step that a lookup in the table can take stays inside it.

    The table is the length of a trie in bytes, the trie, and the replacements as null-terminated UTF-8. The trie is a
    double array of 32-bit units (darts-clone): a unit holds a label, the way to its children and whether one of them is
    a leaf; a leaf (bit 31) holds the place of a replacement. Native code follows these numbers unchecked.
    """
    size = int.from_bytes(charsmap[:4], "little")
    if size == 0 or size % 1024 or 4 + size > len(charsmap):
        raise ValueError("its table of characters has a wrong length")
    units = np.frombuffer(charsmap, "<u4", size // 4, 4).astype(np.int64)
    replacements = np.frombuffer(charsmap, np.uint8, offset=4 + size)
    replacements.tobytes().decode()
    leaf = units >> 31 == 1
    children = np.arange(len(units)) ^ ((units >> 10) << ((units & 0x200) >> 6))
    # The array comes in blocks of 256 units, so that from a child's base inside it all 256 labels lead inside it.
    if leaf[0] or (children[~leaf] >= len(units)).any():
        raise ValueError("its table of characters points outside itself")
    places = units[children[~leaf & (units & 0x100 != 0)]] & 0x7FFFFFFF
    if (places >= len(replacements)).any() or (replacements[places] & 0xC0 == 0x80).any():
        raise ValueError("its table of characters points outside its replacements")


class Charsmap:
    """Replacement of characters by a model's table: at each place, of the longest sequence that the table knows.

    The library's `normalizers.Precompiled` takes whole graphemes instead, and the shortest sequence in them.
    """

    def __init__(self, table: bytes) -> None:
        """Take a table that `check_charsmap` found sound, or b"" for one that replaces nothing."""
        size = int.from_bytes(table[:4], "little")
        self._units = np.frombuffer(table[4 : 4 + size], "<u4").tolist()
        self._replacements = table[4 + size :]
        self._look = lru_cache(2**14)(self._walk)

    def __call__(self, text: str) -> str:
        """The text with everything replaced."""
        if not self._units:
            return text
        parts = []
        place = 0
        while place < len(text):
            replaced, length, goes_on = self._look(text[place : place + 2])
            if goes_on:
                replaced, length, _ = self._walk(text[place : place + _REACH])
            parts.append(replaced)
            place += length
        return "".join(parts)

    def _walk(self, text: str) -> tuple[str, int, bool]:
        """What the longest known beginning of `text` becomes, its length, and whether more text could make it longer.

        Where no beginning is known, the first character stays.
        """
        units = self._units
        unit = units[0]
        node, replaced, known = 0, text[0], 1
        for length, character in enumerate(text, 1):
            for byte in character.encode(errors="surrogatepass"):
                node ^= (unit >> 10) << ((unit & 0x200) >> 6) ^ byte
                unit = units[node]
                if unit & 0x800000FF != byte:
                    return replaced, known, False
            if unit & 0x100:
                place = units[node ^ (unit >> 10) << ((unit & 0x200) >> 6)] & 0x7FFFFFFF
                replaced = self._replacements[place:].partition(b"\0")[0].decode()
                known = length
        return replaced, known, True


def _parse(data: bytes) -> UnigramModel:
    pieces: list[Piece] = []
    messages: dict[int, dict[int, int | bytes]] = {2: {}, 3: {}, 5: {}}
    for field, value in _fields(data):
        if field == 1:
            pieces.append(_piece(_bytes(value)))
        elif field in messages:
            messages[field].update(_fields(_bytes(value)))
    trainer, normalizer, denormalizer = messages.values()
    model_type = _int(trainer.get(3, UNIGRAM))
    if model_type != UNIGRAM:
        raise ValueError(f"its model type is {model_type}, not {UNIGRAM}")
    if _int(trainer.get(24, 0)) or not _int(normalizer.get(5, 1)):
        raise ValueError("it does not mark the beginnings of words")
    if _bytes(denormalizer.get(2, b"")):
        raise ValueError("it changes decoded text by a table of its own")
    charsmap = _bytes(normalizer.get(2, b""))
    if len({piece.text for piece in pieces}) < len(pieces):
        raise ValueError("a piece stands twice in it")
    if [piece.kind for piece in pieces].count(Kind.UNKNOWN) != 1:
        raise ValueError("it must have exactly one unknown piece")
    if charsmap:
        check_charsmap(charsmap)
    return UnigramModel(
        pieces,
        charsmap,
        marks_first_word=bool(_int(normalizer.get(3, 1))),
        folds_spaces=bool(_int(normalizer.get(4, 1))),
    )


def _piece(data: bytes) -> Piece:
    fields = dict(_fields(data))
    text = _bytes(fields.get(1, b"")).decode()
    (score,) = struct.unpack("<f", _bytes(fields.get(2, bytes(4))))
    if not text or not isfinite(score):
        raise ValueError(f"piece {text!r} with score {score}")
    return Piece(text, score, Kind(_int(fields.get(3, Kind.NORMAL))))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of one message: number and value, an int or the bytes of a string, a message or a fixed-size one."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        match key & 7:
            case 0:
                value, place = _varint(data, place)
                yield key >> 3, value
                continue
            case 1:
                length = 8
            case 2:
                length, place = _varint(data, place)
            case 5:
                length = 4
            case kind:
                raise ValueError(f"unknown wire type {kind} at byte {place}")
        if length > len(data) - place:
            raise ValueError(f"{length} bytes announced where {len(data) - place} are left")
        yield key >> 3, data[place : place + length]
        place += length


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first, and the place behind it."""
    value = 0
    for index in range(10):
        if place + index >= len(data):
            break
        byte = data[place + index]
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, place + index + 1
    raise ValueError("a number in it does not end")


def _int(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise ValueError("bytes in it where a number belongs")  # noqa: TRY004 - the file is wrong, not the program
    return value


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise ValueError("a number in it where bytes belong")  # noqa: TRY004 - the file is wrong, not the program
    return value
