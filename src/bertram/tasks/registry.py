"""The tasks there are, by the names that users type."""

from collections.abc import Iterable, Sequence
from typing import Any

from bertram.errors import BadInput
from bertram.tasks.classification import Classification
from bertram.tasks.fill_mask import FillMask
from bertram.tasks.regression import Regression
from bertram.tasks.sequence_to_sequence import Generation, Summarization, Translation
from bertram.tasks.similarity import Similarity
from bertram.tasks.tagging import Tagging
from bertram.tasks.task import Task, parse_number

TASKS: dict[str, type[Task]] = {kind.name: kind for kind in (Classification, Regression, Similarity, Tagging)}
"""Tasks of an encoder with a head."""

GENERATIONS: dict[str, type[Generation]] = {kind.name: kind for kind in (Translation, Summarization)}
"""Tasks of an encoder and a decoder."""

AnyTask = Task | Generation | FillMask
"""The last is what a model was pre-trained on; nobody trains for it on labels."""

_MOST_CLASSES = 20


def kind_of_task(name: str | None, labels: Sequence[str]) -> type[Task]:
    """The encoder's task of that name; without one what the labels look like.

    They look like regression if all are numbers and one has a fraction or more than 20 differ; else classification.

    Raises:
        BadInput: there is no such task.
    """
    if name is not None:
        if name not in TASKS:
            raise BadInput(f"no task named {name}; tasks are {', '.join(TASKS)}")
        return TASKS[name]
    values = {parse_number(label) for label in set(labels)}
    numbers = {value for value in values if value is not None}
    if numbers != values:
        return Classification
    fractions = any(not value.is_integer() for value in numbers)
    return Regression if fractions or len(numbers) > _MOST_CLASSES else Classification


def is_per_word(task: str | None) -> bool:
    """Whether a task of that name labels every word of a text."""
    return task in TASKS and TASKS[task].per_word


def labels_of(task: AnyTask | None) -> tuple[str, ...] | None:
    """The names that the outputs of a task's head have, if they have any."""
    return task.labels if isinstance(task, Classification | Tagging) else None


def task_from_dict(value: Any) -> Task:
    """The encoder's task that `Task.to_dict` described.

    Raises:
        BadInput: there is no such task, or its values make no sense.
    """
    return TASKS[_name(value, TASKS)].from_dict(value)


def any_task_from_dict(value: Any) -> AnyTask:
    """The task of any kind that its `to_dict` described.

    Raises:
        BadInput: there is no such task, or its values make no sense.
    """
    kinds: dict[str, type[Task] | type[Generation] | type[FillMask]] = {
        **TASKS,
        **GENERATIONS,
        FillMask.name: FillMask,
    }
    return kinds[_name(value, kinds)].from_dict(value)


def _name(value: Any, kinds: Iterable[str]) -> str:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise BadInput("task: must be an object with a name")
    name: str = value["name"]
    if name not in kinds:
        raise BadInput(f"task: unknown name {name!r:.80}; tasks are {', '.join(kinds)}")
    return name
