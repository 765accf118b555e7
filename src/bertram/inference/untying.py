"""An engine whose layers share weights and add residuals to them, as one whose layers have weights of their own.

The file holds few weights for the disk's sake; what computes takes them summed, so that an answer costs no more.
"""

from dataclasses import replace

import numpy as np

from bertram.formats.engine_file import Engine
from bertram.formats.engine_layout import layout_of
from bertram.formats.quantization import pack, unpack


def untied(engine: Engine) -> Engine:
    """The same engine without residuals; a weight is in int8 where the one that it was made of is."""
    residuals = layout_of(engine.config, engine.heads, pooler=engine.pooler).residuals
    if not residuals:
        return engine
    config = engine.config.untied
    shared = {residual.shared for residual in residuals.values()}
    wide = {name: unpack(engine.matrices[name]) for name in shared}
    matrices = {}
    for name in layout_of(config, engine.heads, pooler=engine.pooler).matrices:
        if name in engine.matrices:
            matrices[name] = engine.matrices[name]
            continue
        residual = residuals[name]
        factors = [[unpack(engine.matrices[f"{part}.{which}"]) for which in "UV"] for part in residual.parts]
        weight = wide[residual.shared] + np.concatenate([u @ v.T for u, v in factors])
        matrices[name] = pack(weight, engine.matrices[residual.shared].precision)
    return replace(engine, config=config, matrices=matrices)
