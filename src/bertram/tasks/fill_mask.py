"""What could stand at a [MASK]: the question that masked language models are pre-trained with (Devlin et al. 2018).

Letters: N texts, V vocabulary, K candidates.
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

    def candidates(
        self, logits: NDArray[np.float32], number: int, known: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The most probable of the first `known` ids, with their probabilities among all.

        Args:
            logits: of the vocabulary at each [MASK], [N, V].
            number: K, or the most there are.
            known: ids that have a token; a model may count further.

        Returns ids and probabilities, [N, K] each, the most probable first.
        """
        scores = logits.astype(np.float64)
        probabilities = np.exp(scores - scores.max(1, keepdims=True))
        probabilities /= probabilities.sum(1, keepdims=True)
        number = min(number, known)
        ids = np.argpartition(-probabilities[:, :known], number - 1, axis=1)[:, :number]
        found = np.take_along_axis(probabilities, ids, axis=1)
        order = np.lexsort((ids, -found))
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(found, order, axis=1)
