"""What could stand at a [MASK]: the question that masked language models are pre-trained with (Devlin et al. 2018).

Letters: V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FillMask:
    """The most probable tokens at the one [MASK] of a text. There is nothing to be learned about it from labels."""

    name: ClassVar[str] = "fill-mask"
    head: ClassVar[str] = "masked_language_model"
    """As `Task.head`."""

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Self:
        """Take up what `to_dict` gave."""
        return cls()

    def to_dict(self) -> dict[str, Any]:
        """What bertram.json keeps of the task: its name."""
        return {"name": self.name}

    def candidates(self, logits: NDArray[np.float32], number: int, known: int) -> list[tuple[int, float]]:
        """The most probable of the first `known` ids, with their probabilities among all, the best first.

        Args:
            logits: of the vocabulary at a [MASK], [V].
            number: of candidates, or as many as there are.
            known: ids that have a token; a model may count further.
        """
        odds = np.exp(logits - logits.max(), dtype=np.float64)
        probabilities = odds[:known] / odds.sum()
        number = min(number, known)
        best = np.argpartition(-probabilities, number - 1)[:number]
        ranked = best[np.lexsort((best, -probabilities[best]))]
        return list(zip(ranked.tolist(), probabilities[ranked].tolist(), strict=True))
