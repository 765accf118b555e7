"""Making an engine int8, as far as its answers stay what they are: measured, not supposed.

Letters: T tokens, B texts, H hidden width.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bertram.batch import Batch, budgeted
from bertram.formats.engine_file import Engine
from bertram.formats.engine_layout import EMBEDDING, MASKED, TOKENS, layer_names
from bertram.formats.quantization import Matrix, pack, unpack
from bertram.inference.engine_runner import EngineRunner
from bertram.inference.predictor import cosines
from bertram.text.words import begins_word

_HIDDEN = "hidden"
Outputs = dict[str, NDArray[np.float32]]

_MAX_TOKENS = 1024  # at a time
_LAYERS_TOKENS = 2048  # that errors by layer are measured on: each layer's takes the layers before it again
_MOST_FLOATS = 0.5  # of the weights: with more in float32 an engine is in int8 by name only
_MOST_SCORES = 2**26  # of a vocabulary for every [MASK], that are held to be compared


@dataclass(frozen=True)
class Agreement:
    """How far an int8 engine answers as the float32 one that it was made of.

    Attributes:
        share: of the same answers: labels, or tokens that a masked language model puts in the place of [MASK]; for a
            regression 1 less the mean error in deviations of the answers; of texts' vectors, or without a head of
            hidden states, the mean cosine. The least of heads; 0 instead of less, and where either answers NaN or
            infinity.
        layers: after each layer in run order, the error of the hidden states: its norm by theirs, in the first 2,000
            tokens or so.
        floats: the weights left in float32, and the error that each in int8 alone had made.
        texts: that it was measured on.
        drawn: whether those are random tokens, as no texts were given.
    """

    share: float
    layers: list[float]
    floats: dict[str, float]
    texts: int
    drawn: bool = False

    @property
    def measured(self) -> str:
        """The share and what it was measured on, in words."""
        return f"{self.share:.2%} on {self.texts:,} texts" + (" of random tokens" if self.drawn else "")

    def render(self) -> str:
        """A plain table."""
        lines = ["after layer   error of the hidden states, relative to their size"]
        lines += [f"{layer:11}   {error:.4f}" for layer, error in enumerate(self.layers, 1)]
        lines += [
            f"{name}: kept in float32; quantized alone it shifts the outputs by {error:.1e}"
            for name, error in self.floats.items()
        ]
        lines.append(f"agreement with float32: {self.measured}")
        if self.drawn:
            lines.append("on real texts it may differ; --texts measures it on yours")
        return "\n".join(lines)


def quantized(engine: Engine, batch: Batch, least: float) -> tuple[Engine, Agreement]:
    """The engine in int8, with as many of its weights in float32 as it takes to agree on `batch` by `least`.

    They are half of all at most, and those whose int8 form does most harm by itself come first. The last attempt is
    returned where none agrees so far. A masked language model is compared where `batch` holds [MASK], a bare encoder at
    every token; as each of these has many numbers, of many texts the first are looked at.
    """
    if MASKED in engine.heads:
        masks = np.cumsum(batch.token_ids == engine.tokenizer.mask_id)[batch.offsets[1:] - 1]
        batch = _first(batch, masks, _MOST_SCORES // engine.config.vocab_size)
    elif not engine.heads:
        batch = _first(batch, batch.offsets[1:], _MOST_SCORES // engine.config.hidden_size)
    runs = [batch.select(rows) for rows in budgeted(batch.lengths, _MAX_TOKENS)]
    exact = EngineRunner(engine)
    expected = _outputs(exact, runs)
    packed = {name: pack(unpack(matrix), "int8") for name, matrix in engine.matrices.items()}
    best = replace(engine, matrices=packed)
    share, floats = agreement(expected, _outputs(EngineRunner(best), runs)), dict[str, float]()
    if share < least:
        errors = {
            name: 1 - agreement(expected, _outputs(EngineRunner(_with(engine, {name: matrix})), runs), soft=True)
            for name, matrix in packed.items()
        }
        sizes = {name: matrix.outputs * matrix.inputs for name, matrix in packed.items()}
        for name in sorted(errors, key=lambda name: -errors[name]):
            if sum(sizes[other] for other in (*floats, name)) > _MOST_FLOATS * sum(sizes.values()):
                continue
            floats[name] = errors[name]
            best = _with(best, {name: engine.matrices[name]})
            share = agreement(expected, _outputs(EngineRunner(best), runs))
            if share >= least:
                break
    few = _first(batch, batch.offsets[1:], _LAYERS_TOKENS)
    return best, Agreement(share, _layer_errors(exact, EngineRunner(best), few), floats, len(batch))


def _first(batch: Batch, counts: NDArray[np.integer], most: int) -> Batch:
    """The first texts, as long as what they count together, [B] ascending, is at most so much; one at least."""
    return batch.select(range(max(1, int(np.searchsorted(counts, most, side="right")))))


def agreement(expected: Outputs, found: Outputs, *, soft: bool = False) -> float:
    """`Agreement.share` of what two engines say; `soft` is the mean cosine of it all, which also tells small errors."""
    shares = []
    for name, a in expected.items():
        b = found[name]
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            shares.append(0.0)
        elif a.shape[1] == 1:  # of which a cosine would be the sign
            spread = a.std() or np.abs(a).mean() or 1.0  # of one text the value itself
            shares.append(float(1 - np.abs(a - b).mean() / spread))
        elif soft or name in (EMBEDDING, _HIDDEN):
            shares.append(float(cosines(a, b).mean()))
        else:
            shares.append(float((a.argmax(1) == b.argmax(1)).mean()))
    return max(0.0, min(shares))


def _with(engine: Engine, matrices: Mapping[str, Matrix]) -> Engine:
    return replace(engine, matrices={**engine.matrices, **matrices})


def _outputs(runner: EngineRunner, runs: Iterable[Batch]) -> Outputs:
    """What the heads say of what is `_asked`, or without heads the hidden states."""
    engine = runner.engine
    names = list(engine.heads) or [_HIDDEN]
    said = (runner.run(batch, _asked(engine, batch)) for batch in runs)
    found = [{name: outputs[name] for name in names} for outputs in said]
    return {name: np.concatenate([outputs[name] for outputs in found]) for name in names}


def _asked(engine: Engine, batch: Batch) -> NDArray[np.int64] | None:
    """The tokens that are asked about where a head could say something of each: [MASK], or what begins a word."""
    if MASKED in engine.heads:
        return np.flatnonzero(batch.token_ids == engine.tokenizer.mask_id)
    return np.flatnonzero(begins_word(engine.tokenizer)[batch.token_ids]) if TOKENS in engine.heads else None


def _layer_errors(exact: EngineRunner, other: EngineRunner, batch: Batch) -> list[float]:
    errors = []
    for steps in range(1, len(layer_names(exact.engine.config)) + 1):
        a, b = exact.encoder.hidden(batch, steps), other.encoder.hidden(batch, steps)
        errors.append(float(np.linalg.norm(a - b) / np.linalg.norm(a)))
    return errors
