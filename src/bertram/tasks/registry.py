"""The tasks there are, by the names that users type."""

from collections.abc import Sequence
from typing import Any

from bertram.errors import BadInput
from bertram.tasks.classification import Classification
from bertram.tasks.regression import Regression
from bertram.tasks.task import Task, parse_number

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "regression": Regression,
}

_MOST_CLASSES = 20


def guess_task(labels: Sequence[str]) -> type[Task]:
    """Regression if all labels are numbers and one has a fraction or more than 20 differ; else classification."""
    values = {parse_number(label) for label in set(labels)}
    numbers = {value for value in values if value is not None}
    if numbers != values:
        return Classification
    fractions = any(not value.is_integer() for value in numbers)
    return Regression if fractions or len(numbers) > _MOST_CLASSES else Classification


def task_from_dict(value: Any) -> Task:
    """The task that `Task.to_dict` described.

    Raises:
        BadInput: there is no such task, or its values make no sense.
    """
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise BadInput("task: must be an object with a name")
    if value["name"] not in TASKS:
        raise BadInput(f"task: none is named {value['name']!r:.80}; there are {', '.join(TASKS)}")
    return TASKS[value["name"]].from_dict(value)
