"""What is trained: a model before its first step, with all that its training asks of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import nn

from bertram.batch import Examples
from bertram.training.feed import Feed


class Evaluation(NamedTuple):
    """How a model stands on what it does not learn from."""

    score: float  # to be raised; the weights with the highest are kept
    figures: dict[str, float]  # for metrics.jsonl, named "validation…"


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """A model about to be trained, what it learns from, and how it is judged and kept."""

    network: nn.Module
    """A Trainable with every head that the feed's examples have targets for."""
    feed: Feed
    evaluate: Callable[[], Evaluation]
    """Called now and then with the network as it stands. All processes ask."""
    constant_loss: Callable[[Examples], float] | None = None
    """The loss of the best constant prediction on a batch; a training that ends above it counts as diverged. None where
    such a loss is no failure."""
    compile_unasked: bool = False
    """Whether layers are compiled where the recipe does not say."""
    fewer_evaluations: bool = True
    """Whether a budget in hours may lower the number of evaluations; not where the first one takes much longer than
    later ones."""
    results: Callable[[], Mapping[str, Any]] = dict
    """What the trained model reaches, for bertram.json; not asked where the training diverged. All processes ask."""
    save: Callable[[dict[str, Any]], None] = lambda manifest: None
    """Leave the model, with what came of its training for bertram.json. Process 0 alone does."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What bertram.json says of it besides, however the training ends."""
