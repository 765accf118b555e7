"""The training loop; there is one, and every task goes through it.

All that is random is drawn from (seed, epoch) or (seed, step): a step number is all that resuming needs to know.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from bertram.batch import Batch, budgeted
from bertram.errors import BadInput
from bertram.formats.weights import read_tensors, write_tensors
from bertram.models.heads import Head, Model
from bertram.models.tensors import to_tensors
from bertram.training import checkpoint
from bertram.training.interruption import Interrupted, StopRequests, check_stop
from bertram.training.memory import keep_freed_memory
from bertram.training.metrics_file import MetricsFile
from bertram.training.optimizers import AdamW
from bertram.training.recipe import Recipe

_TRIAL_STEPS = 8
_LOSS_BUCKETS = 20


@dataclass(frozen=True)
class Examples:
    """A data set as the loop takes it: all sequences in one Batch, and one target each."""

    inputs: Batch  # of N sequences
    targets: NDArray[Any]  # [N]


@dataclass(frozen=True)
class Outcome:
    """What a training came to. The model then holds the best evaluation's weights, in float32."""

    status: str  # "finished" or "diverged"
    reason: str
    steps: int
    tokens: int
    seconds: float
    best_step: int


@dataclass
class State:
    """Where a training stands; with weights and moments, all that a checkpoint holds."""

    total: int
    step: int = 0
    evaluated: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_score: float | None = None
    best_step: int = 0
    stale: int = 0
    loss_sums: list[float] = field(default_factory=lambda: [0.0] * _LOSS_BUCKETS)
    loss_counts: list[int] = field(default_factory=lambda: [0] * _LOSS_BUCKETS)


class Loop:
    """One training: `run` carries it from the newest checkpoint in OUT/checkpoints, or from the start, to its end."""

    def __init__(
        self,
        model: Model,
        head: str,
        examples: Examples,
        recipe: Recipe,
        out: Path,
        *,
        evaluate: Callable[[], float],
        report: Callable[[dict[str, Any]], None],
        device: torch.device,
    ) -> None:
        """`head` names the model's head whose loss is trained; `evaluate` reads the score to raise from the model as it
        stands; `report` hears of every step and evaluation, in the words of metrics.jsonl."""
        keep_freed_memory()
        self.model, self.head, self.examples, self.recipe, self.out = model.to(device), head, examples, recipe, out
        self.evaluate, self.report, self.device = evaluate, report, device
        self.checkpoints = out / "checkpoints"
        self.steps_per_epoch = math.ceil(len(examples.inputs) / recipe.batch_size)
        self._epoch, self._order = -1, np.empty(0, np.int64)
        model.encoder.gradient_checkpointing = recipe.gradient_checkpointing
        self.optimizer = AdamW(model, precision(recipe, device), weight_decay=recipe.weight_decay)

    def run(self) -> Outcome:
        """Train to the end of the budget.

        Raises:
            Interrupted: SIGINT or SIGTERM came; a checkpoint was written.
            OSError: a checkpoint could not be written; earlier ones stand.
            BadInput: the checkpoints there are damaged, or of another run.
        """
        state = self._resume() or State(total=self._budget())
        due = {math.ceil(state.total * (i + 1) / self.recipe.evaluations) for i in range(self.recipe.evaluations)}
        reason = ""
        started = time.monotonic() - state.seconds
        with StopRequests() as stop, MetricsFile(self.out, state.step) as metrics:

            def tell(line: dict[str, Any]) -> None:
                line = {"step": state.step, "tokens": state.tokens, "seconds": time.monotonic() - started, **line}
                if "validation" in line or state.step % self.recipe.log_every == 0:
                    metrics.write(line)
                self.report({"total": state.total, **line})

            try:
                while True:
                    if state.step in due and state.evaluated < state.step:
                        tell({"validation": self._evaluate(state)})
                    if state.step >= state.total or state.stale >= (self.recipe.patience or math.inf):
                        break
                    line = self._train_step(state)
                    tell(line)
                    if not math.isfinite(line["loss"]) or not math.isfinite(line["gradient_norm"]):
                        reason = f"the loss was {line['loss']} at step {state.step}"
                        break
                    if state.step % self.recipe.save_every == 0 and state.step < state.total:
                        self._save(state, started)
                    stop.check()
            except Interrupted:
                self._save(state, started)
                raise
        seconds = time.monotonic() - started
        targets = torch.from_numpy(self.examples.targets)
        reason = reason or _not_falling(state, cast(Head, self.model.heads[self.head]).blind_loss(targets))
        self.optimizer.release()
        if not reason and state.best_step:
            self.optimizer.load_weights(read_tensors(self.checkpoints / "best.safetensors"))
        status = "diverged" if reason else "finished"
        return Outcome(status, reason, state.step, state.tokens, seconds, state.best_step)

    def _train_step(self, state: State) -> dict[str, float]:
        """One optimizer step over one batch of examples, in passes of at most `max_tokens` tokens."""
        line = self._pass(state.step, self._rate(state))
        state.tokens += int(line.pop("batch_tokens"))
        bucket = state.step * _LOSS_BUCKETS // state.total
        state.loss_sums[bucket] += line["loss"]
        state.loss_counts[bucket] += 1
        state.step += 1
        return line

    def _pass(self, step: int, learning_rate: float) -> dict[str, float]:
        recipe, head = self.recipe, cast(Head, self.model.heads[self.head])
        chosen = self._batch(step)
        torch.manual_seed(recipe.seed * 2**32 + step)
        self.model.train()
        loss, began = torch.zeros(()), time.monotonic()
        for run in budgeted(self.examples.inputs.lengths[chosen], recipe.max_tokens):
            check_stop()  # a step of many passes takes longer than a signal should wait
            rows = chosen[run]
            batch = to_tensors(self.examples.inputs.select(rows), self.device)
            targets = torch.from_numpy(self.examples.targets[rows]).to(self.device)
            part = head.loss(self.model(batch)[self.head], targets) * (len(rows) / len(chosen))
            part.backward()  # type: ignore[no-untyped-call]
            loss += part.detach().cpu()
        norm = self.optimizer.step(learning_rate, recipe.max_grad_norm)
        tokens = int(self.examples.inputs.lengths[chosen].sum())
        return {
            "loss": float(loss),
            "gradient_norm": float(norm),
            "learning_rate": learning_rate,
            "batch_tokens": tokens,
            "tokens_per_second": tokens / (time.monotonic() - began),
        }

    def _batch(self, step: int) -> NDArray[np.int64]:
        """Rows of the batch at `step`: every epoch is a new order of all rows."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.recipe.seed, epoch]).permutation(len(self.examples.inputs))
            self._epoch = epoch
        return self._order[place * self.recipe.batch_size : (place + 1) * self.recipe.batch_size]

    def _rate(self, state: State) -> float:
        """Linear warm-up, then linear decay to 0 (Devlin et al. 2018, A.2)."""
        warmup = self.recipe.warmup * state.total
        if state.step < warmup:
            return self.recipe.learning_rate * (state.step + 1) / (warmup + 1)
        return self.recipe.learning_rate * (state.total - state.step) / (state.total - warmup)

    def _evaluate(self, state: State) -> float:
        self.model.eval()
        score = self.evaluate()
        state.evaluated = state.step
        if state.best_score is None or score > state.best_score:
            state.best_score, state.best_step, state.stale = score, state.step, 0
            write_tensors(self.checkpoints / "best.safetensors", self.optimizer.weights())
        else:
            state.stale += 1
        return score

    def _budget(self) -> int:
        """Steps that the recipe's budget stands for."""
        recipe, examples = self.recipe, self.examples.inputs
        if recipe.steps is not None:
            return recipe.steps
        if recipe.tokens is not None:
            return math.ceil(recipe.tokens / (len(examples.token_ids) / self.steps_per_epoch))
        if recipe.hours is None:
            return math.ceil((3 if recipe.epochs is None else recipe.epochs) * self.steps_per_epoch)
        # At a learning rate of 0 a step changes nothing but the moments, which are then forgotten.
        self._pass(0, 0.0)
        began = time.monotonic()
        for step in range(_TRIAL_STEPS):
            self._pass(step, 0.0)
        step_seconds = (time.monotonic() - began) / _TRIAL_STEPS
        self.optimizer.forget()
        self.model.eval()
        began = time.monotonic()
        self.evaluate()
        evaluation_seconds = (time.monotonic() - began) * recipe.evaluations
        return max(1, int((recipe.hours * 3600 - evaluation_seconds) / step_seconds))

    def _save(self, state: State, started: float) -> None:
        state.seconds = time.monotonic() - started
        facts = {"state": asdict(state), "recipe": asdict(self.recipe), "machine": checkpoint.machine_state()}
        checkpoint.save(self.checkpoints, state.step, self.optimizer.state(), facts)

    def _resume(self) -> State | None:
        found = checkpoint.load_latest(self.checkpoints)
        if found is None:
            return None
        tensors, facts = found
        try:
            state = State(**facts["state"])
            self.optimizer.load(tensors, state.step)
        except (KeyError, TypeError, RuntimeError):
            raise BadInput(f"{self.checkpoints}: these checkpoints are of another model; use another --out") from None
        if facts["recipe"] != asdict(self.recipe):
            raise BadInput(
                f"{self.checkpoints}: this training began with other settings; repeat them, or use another --out"
            )
        return state


def precision(recipe: Recipe, device: torch.device) -> torch.dtype:
    """The type that products are computed in: bfloat16 where asked for, or where the hardware multiplies it."""
    if recipe.precision == "auto":
        native = torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if recipe.precision == "bf16" else torch.float32


def _not_falling(state: State, blind_loss: float) -> str:
    """Why a training that came to its end still counts as diverged: it ends no better than it began, or than a model
    that does not read."""
    means = [s / n for s, n in zip(state.loss_sums, state.loss_counts, strict=True) if n]
    fifth = len(means) // 5
    if state.step < 100 or fifth == 0:
        return ""  # too few steps to tell noise from no progress
    first, last = sum(means[:fifth]) / fifth, sum(means[-fifth:]) / fifth
    if last < min(first, blind_loss):
        return ""
    return (
        f"the training loss did not fall: {first:.4f} in the first fifth and {last:.4f} in the last, "
        f"where one answer for all texts gives {blind_loss:.4f}"
    )
