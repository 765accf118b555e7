"""One optimizer step: a batch of a feed, in passes, by one process or by several together."""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from bertram.batch import Examples, Position, budgeted
from bertram.errors import BertramError
from bertram.interruption import check_stop
from bertram.models.tensors import Targets, inputs_of, targets_of
from bertram.training.distributed import Processes
from bertram.training.optimizers import Optimizer
from bertram.training.recipe import Recipe
from bertram.training.setup import TrainingSetup

_PASSES = 16  # whose gradients are summed in the precision they were computed in


class Trainable(Protocol):
    """What can be trained; an nn.Module too."""

    def losses(self, inputs: Any, targets: Mapping[str, Targets]) -> dict[str, Tensor]:
        """Each named head's mean loss over its targets, a scalar in float32, for what `inputs_of` gives."""
        ...


class Step(NamedTuple):
    """What an optimizer step came to."""

    figures: dict[str, float]  # for metrics.jsonl
    tokens: int
    constant_loss: float
    following: Position  # where the next batch begins


class Stepper:
    """Takes a model's steps."""

    def __init__(self, setup: TrainingSetup, optimizer: Optimizer, recipe: Recipe, processes: Processes) -> None:
        """As `Loop` takes them; `optimizer` is the network's."""
        self.setup, self.optimizer, self.recipe, self.processes = setup, optimizer, recipe, processes
        self._ahead: tuple[Position, tuple[Examples, Position]] | None = None

    def take(self, step: int, position: Position, learning_rate: float) -> Step:
        """One optimizer step over one batch of examples, in passes of at most `max_tokens` tokens.

        Several processes each take their share of the batch, and together make the same step as one would.
        """
        recipe, processes = self.recipe, self.processes
        began = time.monotonic()
        batch, following = self._batch(position)
        counts = batch.counts()
        share = processes.share(batch)
        feeding = time.monotonic() - began
        # Of a larger number than 2³² torch's generator on a CPU takes the lowest bits alone.
        mixed = np.random.SeedSequence([recipe.seed, step, processes.rank])
        torch.manual_seed(int(mixed.generate_state(1)[0]))
        self.setup.network.train()
        found: list[tuple[str, Tensor]] = []
        for number, run in enumerate(budgeted(share.lengths, recipe.max_tokens), 1):
            if processes.size == 1:
                check_stop()  # a step of many passes takes longer than a signal should wait
            taking = time.monotonic()
            try:
                part = share.select(run)
                inputs, targets = inputs_of(part, processes.device), targets_of(part, processes.device)
                feeding += time.monotonic() - taking
                found += self._pass(inputs, targets, counts)
            except torch.OutOfMemoryError:
                hint = "lower --max-tokens, or give --gradient-checkpointing, and another --out"
                raise BertramError(f"the GPU's memory is too small for a pass; {hint}") from None
            if number % _PASSES == 0:
                self.optimizer.gather()
        norm = self.optimizer.step(learning_rate, recipe.max_grad_norm)
        if processes.device.type == "cuda":  # which goes on computing until it is asked for a figure
            taking = time.monotonic()
            self._ahead = following, self.setup.feed.take(following)
            feeding += time.monotonic() - taking
        losses = dict.fromkeys(counts, 0.0)
        for head, loss in found:
            losses[head] += float(loss)
        losses = dict(zip(losses, processes.sums(list(losses.values())), strict=True))
        seconds = time.monotonic() - began
        figures = {
            "loss": sum(losses.values()),
            **({f"{head}_loss": loss for head, loss in losses.items()} if len(losses) > 1 else {}),
            "gradient_norm": float(norm),
            "learning_rate": learning_rate,
            "tokens_per_second": batch.tokens / seconds,
            "data_share": feeding / seconds,
        }
        constant_loss = self.setup.constant_loss(batch) if self.setup.constant_loss else 0.0
        return Step(figures, batch.tokens, constant_loss, following)

    def _pass(self, inputs: Any, targets: Mapping[str, Targets], counts: Mapping[str, int]) -> list[tuple[str, Tensor]]:
        """Add the gradients of a part of a batch to those there are; each head's share of the batch's mean loss."""
        means = cast(Trainable, self.setup.network).losses(inputs, targets)
        weighted = {head: loss * (len(targets[head].values) / counts[head]) for head, loss in means.items()}
        if weighted:
            torch.stack(list(weighted.values())).sum().backward()  # type: ignore[no-untyped-call]
        return [(head, loss.detach()) for head, loss in weighted.items()]

    def _batch(self, position: Position) -> tuple[Examples, Position]:
        """A batch and where the next begins, which the step before may have looked up."""
        ahead, self._ahead = self._ahead, None
        return ahead[1] if ahead is not None and ahead[0] == position else self.setup.feed.take(position)
