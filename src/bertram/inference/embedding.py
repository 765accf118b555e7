"""Vectors of any number of texts: by chunks, and as one array in a file.

Letters: N texts, H hidden width.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format
from numpy.typing import NDArray

from bertram.errors import BadInput
from bertram.files import replacing
from bertram.inference.predictor import Predictor
from bertram.text.inputs import Input, singles_of


def embed(predictor: Predictor, chunks: Iterable[Sequence[Input]]) -> Iterator[NDArray[np.float32]]:
    """The vectors of every chunk of inputs, [N, H] each.

    Raises:
        BadInput: an input is a pair, or the model makes no vectors.
    """
    for chunk in chunks:
        yield predictor.embed(singles_of(chunk, "embed"))


def write_vectors(path: Path, chunks: Iterable[NDArray[np.float32]]) -> None:
    """Write all vectors as one .npy file, float32 [N, H], holding one chunk in memory.

    Raises:
        BadInput: there are none, or `path` does not end with .npy.
        OSError: the disk did not take them.
    """
    if path.suffix != ".npy":
        raise BadInput(f"{path}: vectors are written to a file named .npy")
    with replacing(path) as temporary:
        shape = (0, 0)
        with temporary.open("wb") as file:
            for vectors in chunks:
                shape = (shape[0] + len(vectors), vectors.shape[1])
                if file.tell() == 0:
                    _header(file, shape)
                file.write(np.ascontiguousarray(vectors, "<f4").data)
            if not shape[0]:
                raise BadInput("there are no texts to make vectors of")
            file.seek(0)
            _header(file, shape)


def _header(file: BinaryIO, shape: tuple[int, int]) -> None:
    """As long for every number of rows: numpy leaves room for it to grow."""
    format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
