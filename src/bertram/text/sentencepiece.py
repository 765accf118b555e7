"""Reading the SentencePiece unigram models that ALBERT is published with (`spiece.model`).

The file is one protocol buffer, `ModelProto` of google/sentencepiece `sentencepiece_model.proto`. Only what a tokenizer
needs is read: field 1, the pieces (text 1, score 2, type 3), field 2, the trainer's model type (3), and field 3, the
normaliser's table of characters (2).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from math import isfinite
from pathlib import Path

import numpy as np

from bertram.errors import BadInput

MAX_BYTES = 64 * 2**20
UNIGRAM = 1


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


def read_unigram(path: Path) -> UnigramModel:
    """Read a SentencePiece model file.

    Raises:
        BadInput: the file is no SentencePiece unigram model, or a part of it does not hold together.
    """
    if path.stat().st_size > MAX_BYTES:
        raise BadInput(f"{path}: larger than {MAX_BYTES >> 20} MB, which no SentencePiece model is")
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


def _parse(data: bytes) -> UnigramModel:
    pieces, charsmap, model_type = [], b"", UNIGRAM
    for field, value in _fields(data):
        if field == 1:
            pieces.append(_piece(_bytes(value)))
        elif field == 2:
            model_type = _int(dict(_fields(_bytes(value))).get(3, model_type))
        elif field == 3:
            charsmap = _bytes(dict(_fields(_bytes(value))).get(2, charsmap))
    if model_type != UNIGRAM:
        raise ValueError(f"its model type is {model_type}, not {UNIGRAM}")
    if len({piece.text for piece in pieces}) < len(pieces):
        raise ValueError("a piece stands twice in it")
    if [piece.kind for piece in pieces].count(Kind.UNKNOWN) != 1:
        raise ValueError("it has not exactly one unknown piece")
    if charsmap:
        check_charsmap(charsmap)
    return UnigramModel(pieces, charsmap)


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
