"""The engine's compiled kernels, by ctypes: a whole encoder on packed texts (native/ holds their source).

Letters: T tokens of B texts, H hidden width, R rows, K inputs and N outputs of a weight.
"""

import ctypes
import logging
from collections.abc import Mapping
from ctypes import POINTER, Structure, c_char_p, c_float, c_int, c_int32, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bertram.batch import Batch
from bertram.config import EncoderConfig
from bertram.environment import default_threads, environment
from bertram.formats.engine_layout import layer_names
from bertram.formats.quantization import Floats, Matrix

logger = logging.getLogger(__name__)

LIBRARY = Path(__file__).parent / "native" / "libbertram.so"

ACTIVATIONS = {"none": 0, "gelu": 1, "gelu_new": 2, "relu": 3, "silu": 4, "tanh": 5}


class _Weight(Structure):
    _fields_: ClassVar = [
        ("values", c_void_p),
        ("scale", c_void_p),
        ("bias", c_void_p),
        ("outputs", c_int32),
        ("inputs", c_int32),
        ("int8", c_int32),
    ]


class _Norm(Structure):
    _fields_: ClassVar = [("weight", c_void_p), ("bias", c_void_p)]


class _Layer(Structure):
    _fields_: ClassVar = [
        *((name, c_int32) for name in ("attention", "output", "up", "down")),
        ("attention_norm", _Norm),
        ("feed_forward_norm", _Norm),
    ]


class _Model(Structure):
    _fields_: ClassVar = [
        *((name, c_int32) for name in ("hidden", "embedding", "heads", "layers")),
        *((name, c_int32) for name in ("tokens", "positions", "segments", "projection")),
        *((name, c_int32) for name in ("activation", "normalize_before", "normalize_embedding")),
        *((name, c_float) for name in ("embedding_scale", "epsilon")),
        ("embedding_norm", _Norm),
        ("final_norm", _Norm),
    ]


@cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(LIBRARY))
    except OSError as error:
        logger.warning("no compiled kernels, so engines are computed in numpy, many times slower: %s", error)
        return None
    library.bertram_encoder_new.restype = c_void_p
    library.bertram_encoder_new.argtypes = [POINTER(_Model), POINTER(_Weight), c_int, POINTER(_Layer), c_int, c_char_p]
    library.bertram_encoder_free.argtypes = [c_void_p]
    library.bertram_encoder_variant.restype = c_char_p
    library.bertram_encoder_variant.argtypes = [c_void_p]
    library.bertram_variant.restype = c_char_p
    library.bertram_encode.argtypes = [c_void_p, *[c_void_p] * 4, c_int, c_int, c_int, c_void_p]
    library.bertram_linear.argtypes = [c_void_p, c_int, c_void_p, c_int, c_int, c_void_p]
    return library


VARIANTS = ("avx512", "avxvnni", "avx2", "portable")
"""The kinds of processor that kernels are written for, the fastest first; every machine can run the last."""


def fastest() -> str | None:
    """The first of `VARIANTS` that this machine can run; None where no kernels were built with the package."""
    library = _library()
    return None if library is None else str(library.bertram_variant().decode())


def machine() -> dict[str, Any]:
    """`environment()`, and which "kernels" engines run in here: `fastest()`."""
    return environment() | {"kernels": fastest()}


class NativeEncoder:
    """An encoder in the compiled kernels. Weights stay where they are; only their small vectors are copied.

    Attributes:
        variant: the kind of processor whose instructions are used.
    """

    def __init__(
        self,
        config: EncoderConfig,
        matrices: Mapping[str, Matrix],
        vectors: Mapping[str, Floats],
        threads: int = 0,
        variant: str | None = None,
    ) -> None:
        """Args:
            matrices, vectors: of the names and sizes that `engine_layout.layout_of` tells.
            threads: that compute; 0 is `default_threads()`.
            variant: another than the fastest.

        Raises:
            RuntimeError: there are no kernels, or none of that variant for this machine.
            MemoryError: there is no room.
        """
        library = _library()
        if library is None:
            raise RuntimeError("the kernels are not built")
        self.config, self._library, self._handle = config, library, None
        steps = layer_names(config)
        self._steps = len(steps)
        self._arguments = config, matrices, vectors, threads, variant
        self._kept: list[np.ndarray] = []  # which the kernels read
        self._places = {name: place for place, name in enumerate(matrices)}
        self._shapes = {name: (matrix.outputs, matrix.inputs) for name, matrix in matrices.items()}
        weights = (_Weight * len(matrices))(
            *(self._weight(matrix, vectors.get(f"{name}.bias")) for name, matrix in matrices.items())
        )
        layers = (_Layer * len(steps))(
            *(
                _Layer(
                    *(self._places[name] for name in (f"{a}.query_key_value", f"{a}.output", f"{f}.up", f"{f}.down")),
                    self._norm(vectors, a),
                    self._norm(vectors, f),
                )
                for a, f in steps
            )
        )
        model = _Model(
            *(config.hidden_size, config.embedding_width, config.num_attention_heads, len(steps)),
            *(self._places.get(name, -1) for name in ("tokens", "positions", "segments", "projection")),
            *(ACTIVATIONS[config.hidden_act], config.normalize_before, config.normalize_embedding),
            *(config.embedding_width**0.5 if config.scale_embedding else 1.0, config.layer_norm_eps),
            self._norm(vectors, "embedding"),
            self._norm(vectors, "final"),
        )
        count = threads or default_threads()
        name = None if variant is None else variant.encode()
        self._handle = library.bertram_encoder_new(model, weights, len(matrices), layers, count, name)
        if not self._handle:
            raise RuntimeError(f"no kernels of the kind {variant} here") if variant else MemoryError()
        self.variant: str = library.bertram_encoder_variant(self._handle).decode()

    def hidden(self, batch: Batch, steps: int | None = None) -> Floats:
        """Hidden states of all tokens, [T, H], after so many of the layers.

        Raises:
            BadInput: as `Batch.check`.
        """
        return self._encode(batch, len(batch.token_ids), steps)

    def first(self, batch: Batch) -> Floats:
        """Hidden states of every text's first token, [B, H]; what only the others need is left out.

        Raises:
            BadInput: as `hidden`.
        """
        return self._encode(batch, len(batch), None, first_only=True)

    def linear(self, name: str, x: Floats, activation: str = "none") -> Floats:
        """activation(x weightᵀ + bias) of the weight `name` and rows [R, K]: [R, N]."""
        outputs, inputs = self._shapes[name]
        if x.shape[1:] != (inputs,):
            raise ValueError(f"{name} takes rows of {inputs}, not {x.shape}")
        x = np.ascontiguousarray(x, np.float32)
        out = np.empty((len(x), outputs), np.float32)
        place, how = self._places[name], ACTIVATIONS[activation]
        if self._library.bertram_linear(self._handle, place, x.ctypes.data, len(x), how, out.ctypes.data):
            raise MemoryError
        return out

    def _encode(self, batch: Batch, rows: int, steps: int | None, *, first_only: bool = False) -> Floats:
        config = self.config
        batch.check(config.vocab_size, config.max_position_embeddings, config.type_vocab_size)
        arrays = [
            np.ascontiguousarray(a, np.int32)
            for a in (batch.token_ids, batch.segment_ids, batch.positions, batch.offsets)
        ]
        out = np.empty((rows, config.hidden_size), np.float32)
        pointers, count = (
            [array.ctypes.data for array in arrays],
            self._steps if steps is None else min(steps, self._steps),
        )
        if self._library.bertram_encode(self._handle, *pointers, len(batch), first_only, count, out.ctypes.data):
            raise MemoryError
        return out

    def _weight(self, matrix: Matrix, bias: Floats | None) -> _Weight:
        scale = matrix.scale
        return _Weight(
            self._pointer(matrix.values),
            None if scale is None else self._pointer(scale),
            None if bias is None else self._pointer(bias),
            *(matrix.outputs, matrix.inputs, scale is not None),
        )

    def _norm(self, vectors: Mapping[str, Floats], name: str) -> _Norm:
        found = [vectors.get(f"{name}.norm.{part}") for part in ("weight", "bias")]
        return _Norm(*(None if vector is None else self._pointer(vector) for vector in found))

    def _pointer(self, array: np.ndarray) -> int:
        whole = np.ascontiguousarray(array)
        self._kept.append(whole)
        return int(whole.ctypes.data)

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy, here or in another process, is made anew: no other may free this one's memory."""
        return NativeEncoder, self._arguments

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.bertram_encoder_free(self._handle)
