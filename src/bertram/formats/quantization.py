"""Weights as the engine's kernels read them: in panels, of float32 or of int8 with a scale for each output.

Letters: N outputs and K inputs of a weight, P panels of 32 outputs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertram.config import Precision

Floats = NDArray[np.float32]

PANEL, GROUP = 32, 4
"""Outputs whose weights stand together; of int8, inputs of one output that do, as processors' dot products want."""


@dataclass(frozen=True)
class Matrix:
    """A weight [N, K].

    Attributes:
        values: float32 [P, K, 32], or int8 [P, K / 4, 32, 4]; what is rounded up is filled with 0.
        scale: float32 [N], what an int8 stands for is it times its output's scale; None for float32.
        outputs, inputs: N and K.
    """

    values: NDArray[np.float32] | NDArray[np.int8]
    scale: Floats | None
    outputs: int
    inputs: int

    @property
    def precision(self) -> Precision:
        return "fp32" if self.scale is None else "int8"


def shape_of(outputs: int, inputs: int, precision: Precision) -> tuple[int, ...]:
    """The shape of the values of a Matrix."""
    panels = -(-outputs // PANEL)
    return (panels, inputs, PANEL) if precision == "fp32" else (panels, -(-inputs // GROUP), PANEL, GROUP)


def pack(weight: Floats, precision: Precision) -> Matrix:
    """[N, K] as a Matrix. Of int8, the highest of an output's weights becomes 127 or -127; its error is half a step."""
    outputs, inputs = weight.shape
    scale = None
    values: NDArray[np.float32] | NDArray[np.int8] = np.ascontiguousarray(weight, np.float32)
    if precision == "int8":
        highest = np.abs(weight).max(1, initial=0.0)
        scale = np.where(highest > 0, highest / 127, 1).astype(np.float32)
        values = np.rint(weight / scale[:, None]).astype(np.int8)
    panels, *rest = shape_of(outputs, inputs, precision)
    width = inputs if precision == "fp32" else rest[0] * GROUP
    padded = np.zeros((panels * PANEL, width), values.dtype)
    padded[:outputs, :inputs] = values
    packed: NDArray[Any]
    if precision == "fp32":
        packed = padded.reshape(panels, PANEL, width).transpose(0, 2, 1)
    else:
        packed = padded.reshape(panels, PANEL, width // GROUP, GROUP).transpose(0, 2, 1, 3)
    return Matrix(np.ascontiguousarray(packed), scale, outputs, inputs)


def unpack(matrix: Matrix) -> Floats:
    """The float32 [N, K] that a Matrix stands for."""
    values = matrix.values
    rows: NDArray[Any] = values.transpose(0, 2, 1) if matrix.scale is None else values.transpose(0, 2, 1, 3)
    weight = rows.reshape(len(values) * PANEL, -1)[: matrix.outputs, : matrix.inputs].astype(np.float32)
    return weight if matrix.scale is None else weight * matrix.scale[:, None]
