"""An engine whose layers share weights and add residuals to them, as one whose layers have weights of their own.

The file holds few weights for the disk's sake; what computes takes them summed, so that an answer costs no more.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from bertram.formats.engine_file import Engine
from bertram.formats.engine_layout import Residual, layout_of
from bertram.formats.quantization import Matrix, pack, unpack


def untied(engine: Engine) -> Engine:
    """The same engine without residuals; a weight is in int8 where the one that it was made of is."""
    residuals = layout_of(engine.config, engine.heads, pooler=engine.pooler).residuals
    if not residuals:
        return engine
    config, matrices = engine.config.untied, dict(engine.matrices)
    for shared in {residual.shared for residual in residuals.values()}:  # in float32 only one at a time
        matrices |= _summed(engine.matrices, shared, residuals)
    names = layout_of(config, engine.heads, pooler=engine.pooler).matrices
    return replace(engine, config=config, matrices={name: matrices[name] for name in names})


def _summed(matrices: Mapping[str, Matrix], shared: str, residuals: Mapping[str, Residual]) -> dict[str, Matrix]:
    """The weights that are made of a shared one."""
    wide, found = unpack(matrices[shared]), {}
    for name, residual in residuals.items():
        if residual.shared == shared:
            factors = [[unpack(matrices[f"{part}.{which}"]) for which in "UV"] for part in residual.parts]
            weight = wide + np.concatenate([u @ v.T for u, v in factors])
            found[name] = pack(weight, matrices[shared].precision)
    return found
