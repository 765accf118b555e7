"""The runner of engine files: no torch, no other library than numpy.

Letters: T tokens, B texts, H hidden width, E embedding width, L labels, V vocabulary.
"""

import numpy as np
from numpy.typing import NDArray

from bertram.batch import Batch
from bertram.formats.engine_file import Engine
from bertram.formats.engine_layout import EMBEDDING, MASKED, POOLED, TOKENS
from bertram.formats.quantization import Floats
from bertram.inference.kernels import NativeEncoder, fastest
from bertram.inference.numpy_encoder import NumpyEncoder, normalize
from bertram.inference.untying import untied

_LEAST_NORM = 1e-12  # as in torch's normalize


class EngineRunner:
    """Answers with an engine; in the compiled kernels where they were built, else in numpy."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine = untied(engine)
        parts = engine.config, engine.matrices, engine.vectors
        self.encoder = NativeEncoder(*parts) if fastest() else NumpyEncoder(*parts)

    def run(self, batch: Batch, asked: NDArray[np.integer] | None = None) -> dict[str, NDArray[np.float32]]:
        """Every head's logits by its name; "hidden" [T, H] and "pooled" [B, H] if a head reads them.

        Without a head both are there, the second where there is a pooler. A masked-language-model head scores the
        vocabulary, and a head of token classification its labels, at the tokens that are `asked` for [M], by default at
        all: [M, V] or [T, V], [M, L] or [T, L].

        Raises:
            BadInput: as `Batch.check`.
        """
        engine, encoder, out = self.engine, self.encoder, dict[str, Floats]()
        pooled = [name for name in engine.heads if name in POOLED]
        averages = EMBEDDING in engine.heads and engine.config.pooling == "mean"
        every = not engine.heads or MASKED in engine.heads or TOKENS in engine.heads
        if every or averages:
            hidden = encoder.hidden(batch)
            first = hidden[batch.offsets[:-1]]
            if every:
                out["hidden"] = hidden
        else:
            first = encoder.first(batch)
        if engine.pooler and (pooled or not engine.heads):
            out["pooled"] = encoder.linear("pooler", first, "tanh")
        for name in pooled:
            out[name] = encoder.linear(f"heads.{name}", out["pooled"])
        if MASKED in engine.heads:
            out[MASKED] = self._masked(hidden if asked is None else hidden[asked])
        if TOKENS in engine.heads:
            out[TOKENS] = encoder.linear(f"heads.{TOKENS}", hidden if asked is None else hidden[asked])
        if EMBEDDING in engine.heads:
            out[EMBEDDING] = self._vectors(means(hidden, batch) if averages else first)
        return out

    def _vectors(self, x: Floats) -> Floats:
        """Texts' vectors, [B, H], of length 1 where the configuration says so."""
        if not self.engine.config.normalize_pooling:
            return x
        lengths = np.linalg.norm(x, axis=1, keepdims=True)
        return np.asarray(x / np.maximum(lengths, _LEAST_NORM), np.float32)

    def _masked(self, hidden: Floats) -> Floats:
        """Scores of every vocabulary entry at tokens of the states [M, H]: [M, V]."""
        engine, name = self.engine, f"heads.{MASKED}"
        x = self.encoder.linear(name, hidden, engine.config.hidden_act)
        x = normalize(x, engine.vectors[f"{name}.norm.weight"], engine.vectors[f"{name}.norm.bias"], engine.config)
        return self.encoder.linear("tokens", x)


def means(hidden: Floats, batch: Batch) -> Floats:
    """The mean of each text's rows of `hidden` [T, H]: [B, H]."""
    return np.asarray(np.add.reduceat(hidden, batch.offsets[:-1]) / batch.lengths[:, None], np.float32)
