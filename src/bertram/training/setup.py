"""From a model that is prepared for its training to bertram.json: one way for all that trains."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from bertram.batch import Examples
from bertram.progress import Report
from bertram.run_directory import read_manifest
from bertram.training.distributed import Processes
from bertram.training.feed import Feed
from bertram.training.loop import Evaluation, Loop
from bertram.training.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class TrainingSetup:
    """A model about to be trained, what it learns from, and how it is judged and kept."""

    network: nn.Module
    feed: Feed
    evaluate: Callable[[], Evaluation]
    results: Callable[[], Mapping[str, Any]]
    """What the trained model reaches, for bertram.json; not asked where the training diverged. All processes ask."""
    save: Callable[[dict[str, Any]], None]
    """Leave the model, with what came of its training for bertram.json. Process 0 alone does."""
    facts: Mapping[str, Any]
    """What bertram.json says of it besides, however the training ends."""
    constant_loss: Callable[[Examples], float] | None = None
    """This and the following as `Loop` takes them."""
    compile_unasked: bool = False
    fewer_evaluations: bool = True


def carry_out(setup: TrainingSetup, recipe: Recipe, out: Path, processes: Processes, report: Report) -> dict[str, Any]:
    """Train what was prepared, leave it at `out`, and return what bertram.json says of it.

    Raises:
        BadInput, OSError: as `Loop`.
        Interrupted: a signal came; the same call goes on from there.
        Lost: another process ended.
    """
    outcome = Loop(
        setup.network,
        setup.feed,
        recipe,
        out,
        evaluate=setup.evaluate,
        report=report,
        processes=processes,
        constant_loss=setup.constant_loss,
        compile_unasked=setup.compile_unasked,
        fewer_evaluations=setup.fewer_evaluations,
    ).run()
    reached = setup.results() if outcome.finished else {}
    manifest = {**outcome.to_dict(), **setup.facts, "recipe": asdict(recipe), **reached}
    if processes.rank == 0:
        setup.save(manifest)
    processes.wait()  # torchrun ends all soon after one has ended, be it in the midst of writing
    return read_manifest(out)
