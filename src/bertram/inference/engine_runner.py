"""The runner of engine files: no torch, no other library than numpy.

Letters: T tokens, B texts, H hidden width, E embedding width, L labels, V vocabulary.
"""

import numpy as np
from numpy.typing import NDArray

from bertram.batch import Batch
from bertram.formats.engine_file import Engine
from bertram.formats.engine_layout import MASKED
from bertram.formats.quantization import Floats
from bertram.inference.kernels import NativeEncoder, available
from bertram.inference.numpy_encoder import NumpyEncoder, normalize


class EngineRunner:
    """Answers with an engine; in the compiled kernels where they were built, else in numpy."""

    def __init__(self, engine: Engine, threads: int = 0) -> None:
        """`threads` compute; 0 is one for each core that this process may use."""
        self.engine = engine
        parts = engine.config, engine.matrices, engine.vectors
        self.encoder = NativeEncoder(*parts, threads) if available() else NumpyEncoder(*parts)

    def run(self, batch: Batch) -> dict[str, NDArray[np.float32]]:
        """Every head's logits by its name, "pooled" [B, H] where there is a pooler.

        "hidden" [T, H] is there if a head reads it or there is no head.

        Raises:
            BadInput: a text is longer than the model's positions, or a pair where it knows one segment only.
        """
        heads, out = self.engine.heads, {}
        if not heads or MASKED in heads:
            out["hidden"] = self.encoder.hidden(batch)
        if self.engine.pooler:
            first = out["hidden"][batch.offsets[:-1]] if "hidden" in out else self.encoder.first(batch)
            out["pooled"] = self.encoder.linear("pooler", first, "tanh")
        for name in heads:
            out[name] = (
                self._masked(out["hidden"]) if name == MASKED else self.encoder.linear(f"heads.{name}", out["pooled"])
            )
        return out

    def _masked(self, hidden: Floats) -> Floats:
        """Scores of every vocabulary entry at every token, [T, V]."""
        engine, name = self.engine, f"heads.{MASKED}"
        x = self.encoder.linear(name, hidden, engine.config.hidden_act)
        x = normalize(x, engine.vectors[f"{name}.norm.weight"], engine.vectors[f"{name}.norm.bias"], engine.config)
        return self.encoder.linear("tokens", x)
