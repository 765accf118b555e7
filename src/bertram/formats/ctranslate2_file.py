"""CTranslate2 directories, looked through before native code opens them, which believes the sizes that it reads.

model.bin lists variables, each with its name, shape, type and values, and then aliases, names that stand for variables
(CTranslate2 `python/ctranslate2/specs/model_spec.py`). What others wrote may hold more than a Transformer of ours has,
and is refused.

Letters: S source vocabulary, V target vocabulary, H hidden width, M the encoder's, E embedding width, I intermediate
width, P positions.
"""

import struct
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from bertram.errors import BadInput
from bertram.files import read_if_there, read_json

WEIGHTS, CONFIG, VOCABULARY_MAP = "model.bin", "config.json", "vmap.txt"

_VERSIONS = (6, "TransformerSpec", 7)  # of the file, and the specification's name and revision
_MOST_VOCABULARY = 2**27  # bytes
_TYPES = ("<f", "<b", "<h", "<i")
_FLOAT, _INT8 = 0, 1
_NUMBERS: dict[str, Collection[float] | None] = {
    "activation": range(4),
    "alibi": (0,),
    "alibi_use_positive_positions": (0, 1),
    "alignment_heads": (1,),
    "alignment_layer": (-1,),
    "embeddings_merge": (0,),
    "multi_query_attention": (0,),
    "num_heads": range(1, 2**15),
    "pre_norm": (0, 1),
    "scale_alibi": (0,),
    "scale_embeddings": None,
    "start_from_zero_embedding": (0,),
}
"""The single numbers that describe a stack, and what each may be; None: anything."""
_TOKENS = ("unk_token", "bos_token", "eos_token", "decoder_start_token", "pad_token")
_KEYS = {*_TOKENS, "add_source_bos", "add_source_eos", "layer_norm_epsilon", "multi_query_attention"}

_EMBEDDINGS = {"encoder": "embeddings_0", "decoder": "embeddings"}

Shape = tuple[int, ...]


def is_ctranslate2(directory: Path) -> bool:
    """Whether a directory holds a model that was exported for CTranslate2."""
    return (directory / WEIGHTS).is_file()


@dataclass(frozen=True)
class Description:
    """What is to be known of a directory to run it. No token stands twice in a list."""

    source_tokens: list[str]  # [S], by their ids
    target_tokens: list[str]  # [V], by their ids
    source_positions: int
    target_positions: int
    pad_token: str
    has_vocabulary_map: bool


def describe(directory: Path) -> Description:
    """Check a directory and say what it holds.

    Raises:
        BadInput: a file is missing or damaged, two of them disagree, or Bertram would not have written them.
    """
    vocabularies = [directory / f"{side}_vocabulary.json" for side in ("source", "target")]
    if (shared := directory / "shared_vocabulary.json").exists():
        vocabularies = [shared, shared]
    arrays, numbers = _read_variables(directory / WEIGHTS)
    _check_variables(directory / WEIGHTS, arrays, numbers)
    source, target = (
        _read_tokens(path, arrays[f"{side}/{name}/weight"][0])
        for path, (side, name) in zip(vocabularies, _EMBEDDINGS.items(), strict=True)
    )
    vocabulary_map = directory / VOCABULARY_MAP
    if vocabulary_map.exists() and not vocabulary_map.stat().st_size:
        raise BadInput(f"{vocabulary_map}: is empty")
    return Description(
        source_tokens=source,
        target_tokens=target,
        source_positions=arrays["encoder/position_encodings/encodings"][0],
        target_positions=arrays["decoder/position_encodings/encodings"][0],
        pad_token=_read_settings(directory, target)["pad_token"],
        has_vocabulary_map=vocabulary_map.exists(),
    )


def vocabulary(side: str, tokens: Sequence[str], size: int) -> list[str]:
    """What a tokenizer's tokens are called there, as many different ones as the embeddings have rows.

    Raises:
        BadInput: the embeddings have fewer rows than the tokenizer has tokens.
    """
    if len(tokens) > size:
        raise BadInput(f"the {side} tokenizer has {len(tokens):,} entries, the model only {size:,}")
    taken, found = set(tokens), dict[str, None]()
    for token_id in range(size):
        token = tokens[token_id] if token_id < len(tokens) else ""
        if not token or token in found:
            token = next(name for name in _names(token_id) if name not in taken)
        found[token] = None
    return list(found)


def _names(token_id: int) -> Iterator[str]:
    name = f"<id {token_id}>"
    while True:
        yield name
        name = f"<{name}>"


def _read_variables(path: Path) -> tuple[dict[str, Shape], dict[str, float]]:
    """The shapes of all arrays in model.bin and the values of all numbers, by their names."""
    try:
        with path.open("rb") as file:
            return _variables(path, file)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    except (EOFError, UnicodeDecodeError):
        raise BadInput(f"{path}: is damaged or cut off") from None


def _variables(path: Path, file: BinaryIO) -> tuple[dict[str, Shape], dict[str, float]]:
    versions = (_take(file, "<I"), _take_name(file), _take(file, "<I"))
    if versions != _VERSIONS:
        raise BadInput(f"{path}: {' '.join(map(str, versions)):.80} where {' '.join(map(str, _VERSIONS))} can be read")
    arrays: dict[str, Shape] = {}
    numbers: dict[str, float] = {}
    for _ in range(_take(file, "<I")):
        name, rank = _take_name(file), _take(file, "<B")
        shape = tuple(_take(file, "<I") for _ in range(rank))
        kind, length = _take(file, "<B"), _take(file, "<I")
        if name in arrays or name in numbers or kind >= len(_TYPES):
            raise BadInput(f"{path}: {name!r:.120} stands there twice, or is of no known type")
        if length != prod(shape) * struct.calcsize(_TYPES[kind]) or 0 in shape:
            raise BadInput(f"{path}: {name!r:.120} has a shape and a length that disagree")
        if not shape:
            numbers[name] = _take(file, _TYPES[kind])
            continue
        if kind != _FLOAT and not (kind == _INT8 and name.endswith("/weight")):
            raise BadInput(f"{path}: {name!r:.120} must be float32, or int8 if it is a matrix")
        arrays[name] = shape
        file.seek(length, 1)  # where the file ends before that, the next thing that is read is missing
    for _ in range(_take(file, "<I")):
        alias, name = _take_name(file), _take_name(file)
        if name not in arrays or alias in arrays:
            raise BadInput(f"{path}: {alias!r:.120} stands for {name!r:.120}, which is not there, or for two")
        arrays[alias] = arrays[name]
    return arrays, numbers


def _take(file: BinaryIO, kind: str) -> Any:
    content = file.read(struct.calcsize(kind))
    if len(content) < struct.calcsize(kind):
        raise EOFError
    return struct.unpack(kind, content)[0]


def _take_name(file: BinaryIO) -> str:
    length = _take(file, "<H")
    content = file.read(length)
    if not length or len(content) < length:
        raise EOFError
    return content[:-1].decode()  # without the zero byte of C


def _check_variables(path: Path, arrays: dict[str, Shape], numbers: dict[str, float]) -> None:
    """All shapes fit together and no number selects what Bertram does not write."""
    for name, value in numbers.items():
        allowed = _NUMBERS.get(name.removeprefix("encoder/").removeprefix("decoder/"), ())
        if allowed is not None and value not in allowed:
            raise BadInput(f"{path}: {name!r:.120} is {value}, which Bertram does not run")
    layout = dict(_layout(path, arrays, numbers))
    for name, shape in arrays.items():
        if layout.get(name) != shape:
            raise BadInput(f"{path}: {name!r:.120} is {list(shape)} and has no place among the others")
    required = {name for name in layout if name.endswith(("/weight", "/gamma", "/beta", "/encodings"))}
    if missing := sorted(required - arrays.keys()):
        raise BadInput(f"{path}: lacks {missing[0]!r}")


def _layout(path: Path, arrays: dict[str, Shape], numbers: dict[str, float]) -> Iterator[tuple[str, Shape]]:
    """Every array that may be there, by its name, and the shape that it must have."""

    def size(name: str, axis: int) -> int:
        if len(arrays.get(name, ())) != 2:
            raise BadInput(f"{path}: lacks {name!r}, or it is no matrix")
        return arrays[name][axis]

    def product(name: str, rows: int, columns: int) -> Iterator[tuple[str, Shape]]:
        yield f"{name}/weight", (rows, columns)
        yield f"{name}/weight_scale", (rows,)
        yield f"{name}/bias", (rows,)

    def norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
        yield f"{name}/gamma", (width,)
        yield f"{name}/beta", (width,)

    memory = size("encoder/embeddings_0/weight", 1)
    for side, embeddings in _EMBEDDINGS.items():
        width = size(f"{side}/position_encodings/encodings", 1)
        inner = size(f"{side}/layer_0/ffn/linear_0/weight", 0)
        narrow = size(f"{side}/{embeddings}/weight", 1)
        tokens = size(f"{side}/{embeddings}/weight", 0)
        if f"{side}/num_heads" not in numbers or width % numbers[f"{side}/num_heads"]:
            raise BadInput(f"{path}: the {side}'s heads do not divide its width of {width}")
        yield f"{side}/position_encodings/encodings", (size(f"{side}/position_encodings/encodings", 0), width)
        yield from product(f"{side}/{embeddings}", tokens, width if side == "encoder" else narrow)
        for name in (f"{side}/layernorm_embedding", f"{side}/layer_norm"):
            if f"{name}/gamma" in arrays:
                yield from norm(name, width)
        for layer in _layers(arrays, side):
            yield from product(f"{layer}/self_attention/linear_0", 3 * width, width)
            yield from product(f"{layer}/self_attention/linear_1", width, width)
            yield from norm(f"{layer}/self_attention/layer_norm", width)
            if side == "decoder":
                yield from product(f"{layer}/attention/linear_0", width, width)
                yield from product(f"{layer}/attention/linear_1", 2 * width, memory)
                yield from product(f"{layer}/attention/linear_2", width, width)
                yield from norm(f"{layer}/attention/layer_norm", width)
            yield from product(f"{layer}/ffn/linear_0", inner, width)
            yield from product(f"{layer}/ffn/linear_1", width, inner)
            yield from norm(f"{layer}/ffn/layer_norm", width)
    # Here these are the decoder's.
    if narrow != width or "decoder/project_in/weight" in arrays:
        yield from product("decoder/project_in", width, narrow)
        yield from product("decoder/project_out", narrow, width)
    yield from product("decoder/projection", tokens, narrow)


def _layers(arrays: dict[str, Shape], side: str) -> Iterator[str]:
    number = 0
    while f"{side}/layer_{number}/ffn/linear_0/weight" in arrays:
        yield f"{side}/layer_{number}"
        number += 1


def _read_settings(directory: Path, target: list[str]) -> dict[str, Any]:
    path = directory / CONFIG
    settings, known = read_if_there(path), set(target)
    if unknown := sorted(settings.keys() ^ _KEYS):
        raise BadInput(f"{path}: {unknown[0]!r:.80} is missing, or stands where Bertram writes nothing")
    for name in _TOKENS:
        if not isinstance(settings[name], str) or settings[name] not in known:
            raise BadInput(f"{path}: {name} {settings[name]!r:.80} is not in the target vocabulary")
    if any(settings[name] is not False for name in ("add_source_bos", "add_source_eos", "multi_query_attention")):
        raise BadInput(f"{path}: add_source_bos, add_source_eos and multi_query_attention must be false")
    epsilon = settings["layer_norm_epsilon"]
    if not isinstance(epsilon, float) or not 0 < epsilon < 1:
        raise BadInput(f"{path}: layer_norm_epsilon must lie between 0 and 1, not {epsilon!r:.80}")
    return settings


def _read_tokens(path: Path, number: int) -> list[str]:
    """The tokens of so many embeddings."""
    try:
        tokens = read_json(path, _MOST_VOCABULARY)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from None
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        raise BadInput(f"{path}: must be a list of tokens")
    if len(tokens) != number:
        raise BadInput(f"{path}: {len(tokens):,} tokens, for which {WEIGHTS} has {number:,} embeddings")
    if len(set(tokens)) < number:
        raise BadInput(f"{path}: a token stands there twice")
    return tokens
