"""How many steps and evaluations a recipe's budget stands for."""

import math
from typing import NamedTuple

from bertram.training.feed import Feed
from bertram.training.recipe import Recipe

_EPOCHS = 3


class Pace(NamedTuple):
    """What a trial took, in seconds."""

    step_seconds: float
    evaluation_seconds: float
    spent: float
    """The trial itself."""


def steps_of(recipe: Recipe, feed: Feed) -> int | None:
    """Steps of a budget that says what is to be learned from; None of one in hours."""
    if recipe.steps is not None:
        return recipe.steps
    if recipe.tokens is not None:
        return math.ceil(recipe.tokens / feed.tokens_per_step)
    if recipe.hours is not None:
        return None
    return math.ceil((_EPOCHS if recipe.epochs is None else recipe.epochs) * feed.steps_per_epoch)


def fitting(seconds: float, evaluations: int, pace: Pace, *, fewer: bool) -> tuple[int, int]:
    """Steps and evaluations that fit into so much time.

    Evaluations get half of it at most, the scoring of the best weights in the end included: with `fewer`, only as many
    are made, else what they take beyond that is not counted.
    """
    seconds -= min(pace.spent, seconds / 2)
    if fewer:
        evaluations = max(1, min(evaluations, int(seconds / 2 / pace.evaluation_seconds) - 1))
    evaluating = min(pace.evaluation_seconds * (evaluations + 1), seconds / 2)
    return max(1, int((seconds - evaluating) / pace.step_seconds)), evaluations
