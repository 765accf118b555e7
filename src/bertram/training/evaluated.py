"""The weights at past evaluations, on the disk: the best one's, and the last few for their mean."""

from collections import deque
from pathlib import Path

import torch
from torch import Tensor

from bertram.training import checkpoint


class EvaluatedWeights:
    """What a training may end with instead of its last step's weights."""

    def __init__(self, checkpoints: Path, average: int) -> None:
        """`average` is the number of evaluations whose mean is wanted; 1: none."""
        self._best, self._latest, self._average = checkpoints / "best", checkpoints / "evaluated", average
        self._spared = deque[int](maxlen=checkpoint.KEPT)

    def forget_after(self, step: int) -> None:
        """Delete what an attempt left that got further than the checkpoint its successor goes on from."""
        for directory in (self._best, self._latest):
            checkpoint.discard_after(directory, step)

    def spare(self, best_step: int) -> None:
        """Keep the best weights of this step for as long as a training may go on from the checkpoint now written."""
        self._spared.append(best_step)

    def keep(self, step: int, weights: dict[str, Tensor], *, best: bool) -> None:
        """Write the weights of an evaluation, where they may be wanted.

        Raises:
            OSError: the disk did not take them.
        """
        if best:
            checkpoint.save(self._best, step, weights, {}, spared=self._spared)
        if self._average > 1:
            checkpoint.save(self._latest, step, weights, {}, kept=self._average)

    def best(self) -> tuple[dict[str, Tensor], int] | None:
        """The best evaluation's weights and its step; those of the best before where they are damaged."""
        found = checkpoint.load_latest(self._best)
        return None if found is None else (found[0], found[1]["step"])

    def mean(self, device: torch.device) -> tuple[dict[str, Tensor], int] | None:
        """The mean of the last evaluations' weights, and of how many; None of fewer than two."""
        sums, count = dict[str, Tensor](), 0
        for weights, _ in checkpoint.whole(self._latest):
            for name, weight in weights.items():
                weight = weight.to(device)
                sums[name] = sums[name] + weight if count else weight
            count += 1
        return None if count < 2 else ({name: total / count for name, total in sums.items()}, count)
