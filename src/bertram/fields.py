"""A record's fields checked by their annotations: choices, switches, whole numbers, numbers."""

import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from numbers import Integral, Real
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

_NUMBERS: dict[type, tuple[Any, str]] = {int: (Integral, "a whole number"), float: (Real, "a number")}


@dataclass(frozen=True)
class Interval:
    """Numbers between two, a round bracket where the bound is none of them; as printed "at least 0 and below 1"."""

    low: float
    high: float = sys.float_info.max
    brackets: Literal["[]", "[)", "(]", "()"] = "[]"

    def __contains__(self, value: float) -> bool:
        above, below = (operator.le if bracket in "[]" else operator.lt for bracket in self.brackets)
        return bool(above(self.low, value) and below(value, self.high))

    def __str__(self) -> str:
        low, high = self.brackets
        least = f"{'at least' if low == '[' else 'above'} {self.low:,}"
        most = f"{'at most' if high == ']' else 'below'} {self.high:,}" if self.high < sys.float_info.max else "finite"
        return f"{least} and {most}"


def check_fields(record: Any, bounds: Mapping[str, Interval], refusal: Callable[[str, object, str], Exception]) -> None:
    """Check that the fields of a dataclass are what their annotations and bounds make them.

    A Literal is one of its choices, a bool true or false, an int a whole number within its bounds, and a float a number
    within its bounds; None stands only where the annotation has it. Other annotations are not looked at. Numbers of
    numpy become Python's, which JSON can hold.

    Args:
        bounds: of every int and float, by the field's name.
        refusal: makes the error that is raised of a field's name, its value and the rule that this breaks.
    """
    for name, (kind, optional) in _kinds(record.__class__).items():
        value = getattr(record, name)
        if optional and value is None:
            continue
        if get_origin(kind) is Literal:
            kept, rule = value in get_args(kind), f"one of {', '.join(get_args(kind))}"
        elif kind is bool:
            kept, rule = isinstance(value, bool), "true or false"
        elif kind in _NUMBERS:
            numbers, noun = _NUMBERS[kind]
            if isinstance(value, numbers) and not isinstance(value, int | float):
                object.__setattr__(record, name, value := kind(value))
            kept = isinstance(value, numbers) and not isinstance(value, bool) and value in bounds[name]
            rule = f"{noun}, {bounds[name]}"
        else:
            continue
        if not kept:
            raise refusal(name, value, f"must be {rule}")


@cache
def _kinds(record: type) -> dict[str, tuple[Any, bool]]:
    """Of each field its annotation without None, and whether None is allowed."""
    hints = {name: (hint, get_args(hint)) for name, hint in get_type_hints(record).items()}
    return {name: (parts[0], True) if NoneType in parts else (hint, False) for name, (hint, parts) in hints.items()}
