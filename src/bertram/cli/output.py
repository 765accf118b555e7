"""What commands print: JSON, a table, or lines as they come."""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType


def print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def print_result(value: Any, text: str, *, as_json: bool) -> None:
    sys.stdout.write(f"{dumps(value, indent=2) if as_json else text}\n")


def print_table(
    results: Any, render: Callable[[Any], "RenderableType"], page: Path | None = None, *, as_json: bool
) -> None:
    if as_json:
        print_result(results, "", as_json=True)
        return
    from rich.console import Console

    Console().print(render(results))
    if page is not None:
        sys.stdout.write(f"report: {page.resolve()}\n")


def dumps(value: Any, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **options)
