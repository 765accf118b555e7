"""The training loop; there is one, and every task goes through it.

All that is random is drawn from the seed and a step number or a place in the data: with weights and moments, these are
all that resuming needs to know.
"""

import logging
import math
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch

from bertram.environment import processor
from bertram.errors import BadInput
from bertram.interruption import Interrupted, StopRequests
from bertram.models.stack import Stack
from bertram.progress import Report
from bertram.run_directory import CHECKPOINTS, read_manifest
from bertram.training import checkpoint
from bertram.training.allocator import keep_freed_memory
from bertram.training.budget import Pace, fitting, steps_of
from bertram.training.distributed import Processes
from bertram.training.evaluated import EvaluatedWeights
from bertram.training.metrics_file import MetricsFile
from bertram.training.optimizers import Optimizer
from bertram.training.precision import DTYPES, Chosen, chosen
from bertram.training.recipe import Recipe
from bertram.training.setup import TrainingSetup
from bertram.training.state import State
from bertram.training.step import Stepper

logger = logging.getLogger(__name__)

_TRIAL_STEPS = 8
_COMPILING_STEPS = 16
"""Steps before trial ones where layers are compiled: the first few meet new cases, for which it is done again."""
_LONGEST_UNSAVED = 300.0
"""Seconds after which a checkpoint is due, however many steps `save_every` is."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a training came to. The model then holds the best evaluation's weights, in float32."""

    reason: str
    """Why it diverged; empty where it finished."""
    steps: int
    tokens: int
    seconds: float
    best_step: int
    precision: str = "fp32"
    """What products were computed in, "fp32" or "bf16"."""
    averaged: int = 1
    """Evaluations whose weights' mean is kept, the one of best_step being the last of them."""
    peak_memory_mb: float = 0.0
    gpu_peak_memory_mb: float | None = None
    """Greatest peaks of this process and those that it goes on from."""

    @property
    def finished(self) -> bool:
        """Whether the model is worth a score."""
        return not self.reason

    @property
    def status(self) -> str:
        """ "finished" or "diverged"."""
        return "finished" if self.finished else "diverged"

    def to_dict(self) -> dict[str, Any]:
        """For bertram.json, with the speed."""
        told = asdict(self) | {"tokens_per_second": self.tokens / max(self.seconds, 1e-9)}
        rounded = {name: round(value, 1) if isinstance(value, float) else value for name, value in told.items()}
        return {"status": self.status} | {name: value for name, value in rounded.items() if value is not None}


def carry_out(setup: TrainingSetup, recipe: Recipe, out: Path, processes: Processes, report: Report) -> dict[str, Any]:
    """Train what was prepared, leave it at `out`, and return what bertram.json says of it.

    Raises:
        BadInput, OSError, Interrupted, Lost: as `Loop`; after Interrupted the same call goes on from there.
    """
    outcome = Loop(setup, recipe, out, processes, report).run()
    reached = setup.results() if outcome.finished else {}
    manifest = {**outcome.to_dict(), **setup.facts, "recipe": asdict(recipe), **reached}
    if processes.rank == 0:
        setup.save(manifest)
    processes.wait()  # torchrun ends all soon after one has ended, be it in the midst of writing
    return read_manifest(out)


class Loop:
    """One training: `run` carries it from the newest checkpoint in OUT/checkpoints, or from the start, to its end."""

    def __init__(self, setup: TrainingSetup, recipe: Recipe, out: Path, processes: Processes, report: Report) -> None:
        """Take up the newest checkpoint, if there is one, and bring the network to the device of `processes`.

        Raises:
            BadInput: all checkpoints there are damaged.
        """
        keep_freed_memory()
        self.setup, self.recipe, self.out, self.processes, self.report = setup, recipe, out, processes, report
        network = setup.network.to(processes.device)
        self.checkpoints = out / CHECKPOINTS
        self.kept = EvaluatedWeights(self.checkpoints, recipe.average)
        wanted = setup.compile_unasked if recipe.compile is None else recipe.compile
        self.compiled = wanted and processes.device.type == "cuda"
        for module in network.modules():
            if isinstance(module, Stack):
                module.gradient_checkpointing, module.compiled = recipe.gradient_checkpointing, self.compiled
        highest, encoders = cast(float, recipe.learning_rate), recipe.encoder_learning_rate
        self._saved: tuple[int, int] | None = None
        """The last checkpoint's steps of training and of evaluation."""
        self._started = self._saved_at = time.monotonic()
        self._found = checkpoint.load_latest(self.checkpoints)
        self.precision: Chosen = self._found[1].get("precision", "fp32") if self._found else chosen(recipe, processes)
        self.optimizer = Optimizer(
            network,
            DTYPES[self.precision],
            rule=recipe.optimizer,
            weight_decay=recipe.weight_decay,
            rates=None if encoders is None else {"encoder.": encoders / highest},
            reduce=processes.add if processes.size > 1 else None,
        )
        self.stepper = Stepper(setup, self.optimizer, recipe, processes)

    def run(self) -> Outcome:
        """Train to the end of the budget.

        Raises:
            Interrupted: a signal came; a checkpoint was written.
            OSError: a checkpoint could not be written; earlier ones stand.
            BadInput: the checkpoints there are of another run, or processes do not begin alike.
            Lost: another process ended.
        """
        state = self._resume() or self._begin()
        self.processes.require_same(self.optimizer.weights(), state.step)
        leads = self.processes.rank == 0
        if leads:
            checkpoint.discard_after(self.checkpoints, state.step)  # damaged ones, which would count among those kept
            self.kept.forget_after(state.step)
        self._saved_at = time.monotonic()
        self._started = self._saved_at - state.seconds
        with (
            StopRequests() as stop,
            MetricsFile(self.out, state.step, state.evaluated) if leads else nullcontext() as metrics,
        ):
            try:
                reason = self._learn(state, metrics, stop)
            except Interrupted:
                self._save(state)
                raise
        state.measure(self._started)
        reason = reason or self._not_finite() or state.learned_nothing()
        self.processes.wait()  # for process 0 to have written what now is read
        averaged, best_step = (1, state.best_step) if reason or not state.best_step else self._choose(state)
        self.optimizer.release()
        return Outcome(
            reason=reason,
            steps=state.step,
            tokens=state.tokens,
            seconds=state.seconds,
            best_step=best_step,
            precision=self.precision,
            averaged=averaged,
            peak_memory_mb=state.peak_memory_mb,
            gpu_peak_memory_mb=state.gpu_peak_memory_mb,
        )

    def _learn(self, state: State, metrics: MetricsFile | None, stop: StopRequests) -> str:
        """Steps, evaluations and checkpoints, to the end of the budget or of the patience.

        Returns why the training diverged; nothing where it did not.
        """
        self._save(state)  # what timing decided, the steps of --hours and the precision, is not measured again
        while True:
            if state.evaluation_due:
                self._tell(self._evaluate(state), state, metrics)
            if state.step >= state.total:
                return ""
            if state.stale >= (self.recipe.patience or math.inf):
                self._save(state)
                return ""
            figures = self._train_step(state)
            self._tell(figures, state, metrics)
            for name in ("loss", "gradient_norm"):
                if not math.isfinite(figures[name]):
                    return f"the {name.replace('_', ' ')} was {figures[name]} at step {state.step}"
            too_old = time.monotonic() - self._saved_at >= _LONGEST_UNSAVED
            stopping, late = (wishes > 0 for wishes in self.processes.sums([stop.requested, too_old]))
            # The last step's, because scoring may take long.
            if state.step % self.recipe.save_every == 0 or state.step == state.total or late:
                self._save(state)
            if stopping:
                stop.stop()

    def _tell(self, figures: dict[str, float], state: State, metrics: MetricsFile | None) -> None:
        """Write a step's or an evaluation's figures to metrics.jsonl and report them; process 0 alone does."""
        if metrics is None:
            return
        seconds = time.monotonic() - self._started
        line = {"step": state.step, "tokens": state.tokens, "seconds": seconds, **figures}
        last = state.step == state.total or not all(map(math.isfinite, figures.values()))
        if last or "loss" not in line or state.step % self.recipe.log_every == 0:
            metrics.write(line)
        self.report({"total": state.total, **line})

    def _train_step(self, state: State) -> dict[str, float]:
        done = self.stepper.take(state.step, state.position, self.recipe.rate(state.step, state.total))
        state.position = done.following
        state.tokens += done.tokens
        state.learned(done.figures["loss"], done.constant_loss)
        state.step += 1
        return done.figures

    def _evaluate(self, state: State) -> dict[str, float]:
        self.setup.network.eval()
        score, figures = self.setup.evaluate()
        state.evaluated = state.step
        better = math.isfinite(score) and (state.best_score is None or score > state.best_score)
        # Of equals the later, which has learned longer: of few validation rows the first evaluation gets many right.
        best = better or score == state.best_score
        if best:
            state.best_score, state.best_step = score, state.step
        state.stale = 0 if better else state.stale + 1
        if self.processes.rank == 0:
            self.kept.keep(state.step, self.optimizer.weights(), best=best)
        return figures

    def _choose(self, state: State) -> tuple[int, int]:
        """Give the model the mean of its last evaluations' weights if that scores better than the best, else the best.

        Returns of how many evaluations, and the step of the last.
        """
        if mean := self.kept.mean(self.processes.device):
            weights, count = mean
            self.optimizer.load_weights(weights)
            self.setup.network.eval()
            if self.setup.evaluate()[0] > cast(float, state.best_score):
                return count, state.evaluated
        if best := self.kept.best():
            weights, step = best
            self.optimizer.load_weights(weights)
            return 1, step
        logger.warning("bertram: %s: has lost the best evaluation's weights; others are kept", self.checkpoints)
        return 1, state.step

    def _begin(self) -> State:
        """A training before its first step, with the steps and evaluations that the recipe's budget stands for."""
        recipe, total, evaluations = self.recipe, steps_of(self.recipe, self.setup.feed), self.recipe.evaluations
        if total is None:
            pace = self._pace()
            seconds = cast(float, recipe.hours) * 3600
            total, evaluations = fitting(seconds, evaluations, pace, fewer=self.setup.fewer_evaluations)
            if evaluations < recipe.evaluations and self.processes.rank == 0:
                logger.warning(
                    "bertram: an evaluation takes %.0f s: --hours leaves time for %d, not %d",
                    pace.evaluation_seconds,
                    evaluations,
                    recipe.evaluations,
                )
        return State(total=total, evaluations=evaluations, position=self.setup.feed.start)

    def _pace(self) -> Pace:
        """What steps and evaluations take, the mean of all processes.

        At a learning rate of 0 a step changes nothing but the moments, which are then forgotten.
        """
        position, started = self.setup.feed.start, time.monotonic()
        for step in range(_COMPILING_STEPS if self.compiled else 1):
            position = self.stepper.take(step, position, 0.0).following
        began = time.monotonic()
        for step in range(_TRIAL_STEPS):
            position = self.stepper.take(step, position, 0.0).following
        step_seconds = (time.monotonic() - began) / _TRIAL_STEPS
        self.optimizer.forget()
        self.setup.network.eval()
        if self.compiled:
            self.setup.evaluate()
        began = time.monotonic()
        self.setup.evaluate()
        measured = [step_seconds, time.monotonic() - began, time.monotonic() - started]
        return Pace(*(total / self.processes.size for total in self.processes.sums(measured)))

    def _not_finite(self) -> str:
        """Why a training whose last step spoiled the weights counts as diverged."""
        broken = [name for name, weight in self.optimizer.weights().items() if not weight.isfinite().all()]
        return f"the last step left non-finite values in {broken[0]}" if broken else ""

    def _save(self, state: State) -> None:
        if self._saved == (state.step, state.evaluated):
            return
        state.measure(self._started)
        facts = {
            "state": asdict(state),
            "recipe": asdict(self.recipe),
            "precision": self.precision,
            "machine": self._machine(),
        }
        if self.processes.rank == 0:
            checkpoint.save(self.checkpoints, state.step, self.optimizer.state(), facts)
            self.kept.spare(state.best_step)
        self.processes.wait()  # torchrun ends all soon after one has ended, be it in the midst of writing
        self._saved, self._saved_at = (state.step, state.evaluated), time.monotonic()

    def _machine(self) -> dict[str, Any]:
        """What a resumed training must share with its beginning to give the same bits."""
        device, found = self.processes.device, processor()
        if device.type == "cuda":
            found = torch.cuda.get_device_name(device)
        threads, processes = torch.get_num_threads(), self.processes.size
        return {"processor": found, "torch": torch.__version__, "threads": threads, "processes": processes}

    def _resume(self) -> State | None:
        if self._found is None:
            return None
        tensors, facts = self._found
        self._found = None  # frees its tensors
        try:
            state, recipe, began = State(**facts["state"]), Recipe(**facts["recipe"]), facts["machine"]
            state.position = tuple(state.position)
            self.optimizer.load(tensors, state.step)
        except (KeyError, TypeError, RuntimeError):
            raise BadInput(
                f"{self.checkpoints}: these checkpoints are of another model or version; use another --out"
            ) from None
        if recipe != self.recipe:
            raise BadInput(
                f"{self.checkpoints}: this training began with other settings; repeat them, or use another --out"
            )
        self.kept.spare(state.best_step)
        self._saved = state.step, state.evaluated
        now = self._machine()
        others = " and ".join(f"{name} {value}" for name, value in began.items() if value != now.get(name))
        if others and self.processes.rank == 0:
            logger.warning("bertram: this training began with %s; losses may differ in their last digits", others)
        return state
