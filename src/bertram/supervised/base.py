"""What every training on examples does around the loop, whatever is learned from them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

from bertram.batch import Examples, checked_length
from bertram.errors import failing_in, require_all
from bertram.model_directory import ModelDirectory
from bertram.model_names import Preset
from bertram.processes import share_cores
from bertram.progress import Report, silent
from bertram.run_directory import begun
from bertram.tasks.sequence_to_sequence import Generation
from bertram.tasks.task import Score, Task
from bertram.text.splits import Splits
from bertram.text.vocabulary import check_size
from bertram.training.feed import ShuffledRows
from bertram.training.recipe import BATCH_SIZE, Recipe

if TYPE_CHECKING:
    from bertram.training.distributed import Processes
    from bertram.training.setup import TrainingSetup


T = TypeVar("T", bound=Task | Generation)
S = TypeVar("S", bound=Splits[Any])


@dataclass(frozen=True, kw_only=True)
class Training(ABC, Generic[T, S]):
    """What is to be trained, on what and how; the recipe has the task's defaults where it said nothing."""

    task: T
    splits: S
    source: ModelDirectory | Preset
    recipe: Recipe
    vocab_size: int | None = None
    max_length: int | None = None
    trial: bool = False
    """Whether it is there to see if it would run, not to learn."""

    libraries: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "recipe", self.recipe.resolved(**self.defaults))
        longest, positions = self.longest, self.positions
        with failing_in(self.source):
            checked_length(longest, "--max-length", positions)
        if self.vocab_size is not None:
            check_size(self.vocab_size)

    @property
    @abstractmethod
    def positions(self) -> int:
        """Tokens of the longest text that the model to be trained can read."""

    @property
    def longest(self) -> int:
        """Tokens that texts are cut to: those asked for, or all that the model reads."""
        if self.max_length is not None:
            return self.max_length
        source = self.source
        return min(source.max_length, self.positions) if isinstance(source, ModelDirectory) else self.positions

    @property
    @abstractmethod
    def defaults(self) -> Mapping[str, float]:
        """What the recipe is where it says nothing."""

    @property
    def settings(self) -> dict[str, Any]:
        """All that the training depends on, for training.json."""
        return {
            "task": self.task.to_dict(),
            "data": self.splits.description,
            "recipe": asdict(self.recipe),
            "model": self.source.identity,
            "vocab_size": self.vocab_size,
            "max_length": self.max_length,
        }

    @property
    def facts(self) -> dict[str, Any]:
        """What bertram.json says of every training on examples; there are no scores where it diverged."""
        return {
            "task": self.task.to_dict(),
            "base_model": self.source.name,
            "data": self.splits.description,
            "scores": {},
        }

    def feed(self, examples: Examples) -> ShuffledRows:
        """All examples in a new order every epoch, in the recipe's batches."""
        return ShuffledRows(examples, self.recipe.batch_size, self.recipe.seed, self.recipe.batch_tokens)

    def results(self, scores: Callable[[str], list[Score]]) -> dict[str, Any]:
        """What bertram.json says of a trained model, whose scores on a split are asked for by its name."""
        signed = {
            name: [asdict(score.signed(split=name, seed=self.recipe.seed)) for score in scores(name)]
            for name in self.splits.judged
        }
        return {"scores": signed}

    @property
    def of_one_step(self) -> Self:
        """A trial of this training: one step on the longest rows, which take most memory."""
        splits = self.splits.longest(self.recipe.trial_rows, BATCH_SIZE)
        return replace(self, trial=True, recipe=self.recipe.of_one_step, splits=splits)

    @abstractmethod
    def begin(self, out: Path, processes: "Processes") -> "TrainingSetup":
        """The model as it is before its first step, on the device of `processes`.

        Raises:
            BadInput: a label, the model or a setting cannot be used.
        """

    def run(self, out: Path, report: Report = silent) -> dict[str, Any]:
        """Train one model with one seed and leave a model directory at `out`.

        Returns what OUT/bertram.json says; there are no scores where the training diverged.

        Raises:
            BadInput: as `begin`, or another training began at `out`.
            Interrupted: a signal came; the same call goes on from there.
        """
        share_cores()
        require_all(self.libraries, "train")
        import torch

        from bertram.training.distributed import alone
        from bertram.training.loop import carry_out

        processes = alone()
        torch.manual_seed(self.recipe.seed)
        with begun(out, self.settings):
            setup = self.begin(out, processes)
        return carry_out(setup, self.recipe, out, processes, report)
