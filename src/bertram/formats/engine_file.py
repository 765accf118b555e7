"""The engine file: one model, ready to answer, in one file that is checked once and then mapped.

    magic, 8 bytes | version, uint32 | bytes of the header, uint32 | SHA-256 of all that follows, 32 bytes |
    header, JSON | weights and vectors, each from a multiple of 64 bytes on | tokenizer, compressed

Numbers are little-endian. Where a tensor stands is not in the file: the header's sizes tell, and a file that is not
as long as they make it is refused before anything in it is looked at.
"""

import hashlib
import json
import math
import mmap
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from bertram.batch import checked_length
from bertram.config import EncoderConfig, Precision
from bertram.errors import BadInput, failing_as
from bertram.files import replacing
from bertram.formats.config_json import encoder_config
from bertram.formats.engine_layout import EMBEDDING, LINEAR, MASKED, POOLED, Layout, layout_of
from bertram.formats.quantization import Floats, Matrix, shape_of
from bertram.run_directory import trained_on_pairs
from bertram.text.tokenizer import Tokenizer

MAGIC, VERSION = b"BERTRAM\x00", 1
_START = struct.Struct("<8sII32s")
_ALIGNMENT = 64
_MOST_SUMMED = 32  # bytes of layers with residuals, summed, a byte of the file: as deep as networks are
_MOST_HEADER = 2**21  # bytes; at worst, parsed, they take some thirty times as many
_MOST_RULES, _MOST_ENTRY = 2**19, 128  # bytes of a tokenizer, unpacked: without its entries, and of each of them
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Engine:
    """What an engine file holds.

    Attributes:
        heads: number of labels of each head.
        pooler: whether there is one.
        manifest: what bertram.json says of the model: its task, max_length, and how it was exported.
        matrices, vectors: by the names of `engine_layout.Layout`.
    """

    config: EncoderConfig
    heads: Mapping[str, int]
    pooler: bool
    manifest: Mapping[str, Any]
    tokenizer: Tokenizer
    matrices: Mapping[str, Matrix]
    vectors: Mapping[str, Floats]

    @property
    def precision(self) -> Precision:
        """int8 if any weight is; such an engine may keep others in float32."""
        return "int8" if any(matrix.precision == "int8" for matrix in self.matrices.values()) else "fp32"

    @property
    def max_length(self) -> int:
        """Tokens that a text is cut to: as the manifest says, else as many as there are positions."""
        return int(self.manifest.get("max_length", self.config.max_position_embeddings))

    @property
    def pairs(self) -> bool | None:
        """Whether the model was trained on pairs of texts; None where the manifest does not say."""
        return trained_on_pairs(self.manifest)


def is_engine(path: Path) -> bool:
    """Whether a file says that it is an engine."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def write_engine(path: Path, engine: Engine) -> None:
    """Write an engine file, whole or not at all.

    Raises:
        BadInput: its labels or its tokenizer are larger than `read_engine` takes.
        OSError: the disk did not take it.
    """
    packed = [(len(content), zlib.compress(content, 9)) for content in _saved(engine.tokenizer)]
    header = {
        "config": asdict(engine.config),
        "heads": dict(engine.heads),
        "pooler": engine.pooler,
        "manifest": dict(engine.manifest),
        "precisions": {name: matrix.precision for name, matrix in engine.matrices.items()},
        "tokenizer": [[length, len(content)] for length, content in packed],
    }
    described = json.dumps(header, ensure_ascii=False, allow_nan=False).encode()
    layout = layout_of(engine.config, engine.heads, pooler=engine.pooler)
    tensors: list[np.ndarray] = []
    for name in layout.matrices:
        matrix = engine.matrices[name]
        tensors += [matrix.values] if matrix.scale is None else [matrix.values, matrix.scale]
    tensors += [engine.vectors[name] for name in layout.vectors]
    if len(described) > _MOST_HEADER:
        raise BadInput(f"{path}: its labels and settings would take {len(described):,} bytes, over {_MOST_HEADER:,}")
    if (size := sum(length for length, _ in packed)) > (most := _most_tokenizer(engine.config)):
        raise BadInput(
            f"{path}: the tokenizer would take {size:,} bytes, over {most:,} for {engine.config.vocab_size:,} entries"
        )
    with replacing(path) as temporary, temporary.open("wb") as file:
        digest = hashlib.sha256()

        def write(content: Any) -> None:
            digest.update(content)
            file.write(content)

        file.write(bytes(_START.size))
        write(described)
        for tensor in tensors:
            write(bytes(-file.tell() % _ALIGNMENT))
            little = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<"))
            write(little.data.cast("B"))
        for _, content in packed:
            write(content)
        file.seek(0)
        file.write(_START.pack(MAGIC, VERSION, len(described), digest.digest()))


def read_engine(path: Path) -> Engine:
    """Map an engine file. Its weights stay on the disk and in the system's cache, which other processes share.

    To replace a file that is in use, rename another over it: what is written into it changes under whoever answers.

    Raises:
        BadInput: it is no engine file, of a newer version, or damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        start = file.read(_START.size)
        if len(start) < _START.size or not start.startswith(MAGIC):
            raise BadInput(f"{path}: no engine file of Bertram's")
        _, version, length, digest = _START.unpack(start)
        if not 1 <= version <= VERSION:
            raise BadInput(f"{path}: an engine file of version {version}; this Bertram reads up to version {VERSION}")
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    if hashlib.sha256(content[_START.size :]).digest() != digest:
        raise BadInput(f"{path}: damaged: its checksum does not match its content")
    if length > min(_MOST_HEADER, len(content) - _START.size):
        raise BadInput(f"{path}: damaged: its header is too long")
    try:
        return _parsed(content, length)
    except BadInput as error:
        raise BadInput(f"{path}: damaged: {error}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, zlib.error) as error:
        raise BadInput(f"{path}: damaged: {type(error).__name__} in its header") from None


class _Header(NamedTuple):
    """What the header says, checked."""

    config: EncoderConfig
    heads: dict[str, int]
    pooler: bool
    manifest: dict[str, Any]
    layout: Layout
    precisions: dict[str, Precision]
    tokenizer_sizes: list[list[int]]
    """Of each of the tokenizer's files, its bytes unpacked and compressed."""


def _parsed(content: memoryview, length: int) -> Engine:
    header = _header(content, length)
    matrices, vectors, end = _arrays(content, _START.size + length, header)
    tokenizer = _tokenizer(content[end:], header)
    return Engine(header.config, header.heads, header.pooler, header.manifest, tokenizer, matrices, vectors)


def _header(content: memoryview, length: int) -> _Header:
    """The header, of so many bytes, if all that it says can be; nothing behind it is read yet."""
    header = json.loads(bytes(content[_START.size : _START.size + length]))
    config, heads, pooler = encoder_config(header["config"]), header["heads"], header["pooler"]
    if not all(name in (*LINEAR, MASKED, EMBEDDING) for name in heads) or not isinstance(pooler, bool):
        raise BadInput("it names heads that do not exist")
    if not all(type(labels) is int and 0 <= labels <= 2**20 for labels in heads.values()):
        raise BadInput("a head's number of labels is invalid")
    if not pooler and any(name in POOLED for name in heads):
        raise BadInput("it has a head that needs a pooler, but no pooler")
    manifest, positions = header["manifest"], config.max_position_embeddings
    if not isinstance(manifest, dict):
        raise BadInput("its manifest is no object")
    checked_length(manifest.get("max_length", positions), "max_length", positions)
    layout, precisions = layout_of(config, heads, pooler=pooler), header["precisions"]
    if precisions.keys() != layout.matrices.keys() or not set(precisions.values()) <= set(get_args(Precision)):
        raise BadInput("its weights are not those of its configuration")
    found = _Header(config, heads, pooler, manifest, layout, precisions, header["tokenizer"])
    if config.residual_rank and _untied_size(found) > _MOST_SUMMED * len(content):
        raise BadInput(f"its layers would expand to more than {_MOST_SUMMED} times the file's size")
    sizes = found.tokenizer_sizes
    if len(sizes) != len(_TOKENIZER) or not all(type(n) is int and n >= 0 for pair in sizes for n in pair):
        raise BadInput("its tokenizer's sizes are invalid")
    if sum(whole for whole, _ in sizes) > _most_tokenizer(config):
        raise BadInput("its tokenizer would expand to more than its entries take")
    return found


def _untied_size(header: _Header) -> int:
    """Bytes of the weights once residuals are summed."""
    summed = layout_of(header.config.untied, header.heads, pooler=header.pooler).matrices
    residuals = header.layout.residuals
    origins = {name: residuals[name].shared if name in residuals else name for name in summed}
    kinds = {name: header.precisions[origin] for name, origin in origins.items()}
    return sum(_size(*tensor) for tensor in _tensors(summed, {}, kinds))


def _arrays(content: memoryview, start: int, header: _Header) -> tuple[dict[str, Matrix], dict[str, Floats], int]:
    """The weights and vectors from `start` on, as they lie there, and where they end."""
    layout, precisions = header.layout, header.precisions
    end, places = start, list[tuple[int, tuple[int, ...], Any]]()
    for shape, kind in _tensors(layout.matrices, layout.vectors, precisions):
        end += -end % _ALIGNMENT
        places.append((end, shape, kind))
        end += _size(shape, kind)
    if end + sum(packed for _, packed in header.tokenizer_sizes) != len(content):
        raise BadInput("it is not as long as its header makes it")
    arrays = (np.frombuffer(content, kind, math.prod(shape), place).reshape(shape) for place, shape, kind in places)
    matrices = {
        name: Matrix(next(arrays), next(arrays) if precisions[name] == "int8" else None, *size)
        for name, size in layout.matrices.items()
    }
    return matrices, {name: next(arrays) for name in layout.vectors}, end


def _tokenizer(packed: memoryview, header: _Header) -> Tokenizer:
    """What is left of the file, unpacked."""
    files = []
    for whole, size in header.tokenizer_sizes:
        files.append(zlib.decompressobj().decompress(packed[:size], whole + 1))
        if len(files[-1]) != whole:
            raise BadInput("its tokenizer is not as long as its header says")
        packed = packed[size:]
    tokenizer, entries = _loaded(files), header.config.vocab_size
    if tokenizer.vocab_size > entries:
        raise BadInput(f"the tokenizer has {tokenizer.vocab_size:,} entries, the model only {entries:,}")
    return tokenizer


def _most_tokenizer(config: EncoderConfig) -> int:
    """Bytes of the tokenizer's files, unpacked; once read they take some thirty times as many."""
    return _MOST_RULES + _MOST_ENTRY * config.vocab_size


def _size(shape: tuple[int, ...], kind: Any) -> int:
    """Bytes of a tensor."""
    return math.prod(shape) * int(np.dtype(kind).itemsize)


def _tensors(
    matrices: Mapping[str, tuple[int, int]], vectors: Mapping[str, int], precisions: Mapping[str, Precision]
) -> Iterator[tuple[tuple[int, ...], Any]]:
    """Shape and type of every tensor, in the order of the file."""
    for name, (outputs, inputs) in matrices.items():
        yield shape_of(outputs, inputs, precisions[name]), "<f4" if precisions[name] == "fp32" else "i1"
        if precisions[name] == "int8":
            yield (outputs,), "<f4"
    for size in vectors.values():
        yield (size,), "<f4"


def _saved(tokenizer: Tokenizer) -> list[bytes]:
    files = tokenizer.files()
    return [files[name] for name in _TOKENIZER]


def _loaded(files: list[bytes]) -> Tokenizer:
    with failing_as("its tokenizer cannot be read"):
        return Tokenizer.of_json(*map(json.loads, files))
