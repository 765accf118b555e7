"""What the kernels compute, in plain numpy: where they are not built, and what they are held to.

Products with int8 weights have their inputs rounded as the kernels round them, so that an engine's agreement measured
here holds there; they are then computed in float32, and so is attention, of which the kernels round queries, keys and
values to int16.

Letters: T tokens, B texts, S tokens of one text, H hidden width, h heads of d = H / h.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise

import numpy as np

from bertram.batch import Batch
from bertram.config import EncoderConfig
from bertram.formats.engine_layout import layer_names
from bertram.formats.quantization import Floats, Matrix, unpack

_erf = np.vectorize(math.erf, otypes=[np.float32])

ACTIVATIONS: dict[str, Callable[[Floats], Floats]] = {
    "none": lambda x: x,
    "gelu": lambda x: x * (1 + _erf(x / math.sqrt(2))) / 2,
    "gelu_new": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * (1 + np.tanh(x / 2)) / 2,
    "tanh": np.tanh,
}


class NumpyEncoder:
    """An encoder in numpy; as `kernels.NativeEncoder`."""

    def __init__(self, config: EncoderConfig, matrices: Mapping[str, Matrix], vectors: Mapping[str, Floats]) -> None:
        self.config, self.vectors = config, vectors
        self.weights = {name: unpack(matrix) for name, matrix in matrices.items()}
        self.rounding = {name for name, matrix in matrices.items() if matrix.precision == "int8"}

    def hidden(self, batch: Batch, steps: int | None = None) -> Floats:
        """Hidden states of all tokens, [T, H], after so many of the layers.

        Raises:
            BadInput: as `Batch.check`.
        """
        config = self.config
        batch.check(config.vocab_size, config.max_position_embeddings, config.type_vocab_size)
        x = self._embedded(batch)
        for attention, feed_forward in layer_names(config)[:steps]:
            x = self._residual(attention, x, partial(self._multi_head_attention, batch))
            x = self._residual(feed_forward, x, self._feed_forward)
        return self.normalize("final", x) if config.normalize_before else x

    def first(self, batch: Batch) -> Floats:
        """Hidden states of every text's first token, [B, H]."""
        return self.hidden(batch)[batch.offsets[:-1]]

    def linear(self, name: str, x: Floats, activation: str = "none") -> Floats:
        """activation(x weightᵀ + bias) of the weight `name`."""
        x = rounded(x) if name in self.rounding else x
        return ACTIVATIONS[activation](x @ self.weights[name].T + self.vectors[f"{name}.bias"]).astype(np.float32)

    def normalize(self, name: str, x: Floats) -> Floats:
        """The layer norm of the part `name`."""
        return normalize(x, self.vectors[f"{name}.norm.weight"], self.vectors[f"{name}.norm.bias"], self.config)

    def _embedded(self, batch: Batch) -> Floats:
        config = self.config
        scale = math.sqrt(config.embedding_width) if config.scale_embedding else 1.0
        x = self.weights["tokens"][batch.token_ids] * np.float32(scale)
        x = x + self.weights["positions"][batch.positions]
        if config.type_vocab_size:
            x = x + self.weights["segments"][batch.segment_ids]
        if config.normalize_embedding:
            x = self.normalize("embedding", x)
        return x if config.embedding_size is None else self.linear("projection", x)

    def _residual(self, name: str, x: Floats, part: Callable[[str, Floats], Floats]) -> Floats:
        """x + part(x), with the layer norm of `name` before the part or behind the sum."""
        if self.config.normalize_before:
            return x + part(name, self.normalize(name, x))
        return self.normalize(name, x + part(name, x))

    def _multi_head_attention(self, batch: Batch, name: str, x: Floats) -> Floats:
        """Of every text by itself, [T, H]."""
        q, k, v = np.split(self.linear(f"{name}.query_key_value", x), 3, axis=1)
        mixed = np.empty_like(q)
        for start, end in pairwise(batch.offsets):
            mixed[start:end] = _attention(q[start:end], k[start:end], v[start:end], self.config.num_attention_heads)
        return self.linear(f"{name}.output", mixed)

    def _feed_forward(self, name: str, x: Floats) -> Floats:
        return self.linear(f"{name}.down", self.linear(f"{name}.up", x, self.config.hidden_act))


def rounded(x: Floats) -> Floats:
    """Each row's values at the nearest of 256 steps from its lowest, or 0, to its highest, or 0; of which 0 is one."""
    low, high = x.min(1, initial=0.0, keepdims=True), x.max(1, initial=0.0, keepdims=True)
    step = np.where(high > low, (high - low) / 255, 1).astype(np.float32)
    origin = np.floor(-low / step + 0.5)
    return np.asarray((np.clip(np.floor(x / step + origin + 0.5), 0, 255) - origin) * step, np.float32)


def normalize(x: Floats, weight: Floats, bias: Floats, config: EncoderConfig) -> Floats:
    """Layer norm over the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + config.layer_norm_eps)
    return np.asarray(scaled * weight + bias, np.float32)


def _attention(q: Floats, k: Floats, v: Floats, heads: int) -> Floats:
    """softmax(QKᵀ / √d) V of one text, [S, H] each."""
    q, k, v = (x.reshape(len(x), heads, -1).transpose(1, 0, 2) for x in (q, k, v))  # [h, S, d]
    scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = weights @ v / weights.sum(-1, keepdims=True)
    return np.asarray(mixed.transpose(1, 0, 2).reshape(q.shape[1], -1))
