"""The end of `bertram shrink`, as people read it: teacher and student side by side, and how nearly they agree."""

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Group
from rich.text import Text

from bertram.pages.figures import count, megabytes, quantity, score
from bertram.terminal import plain_table

Row = Mapping[str, Any]

_LENGTH = 16  # tokens of the one text whose latency is told


def figures(results: Row) -> list[tuple[str, str, str]]:
    """What is told of both, as people read it: its name, the teacher's and the student's."""
    teacher, student = results["teacher"], results["student"]
    rows = [(name, tell(teacher), tell(student)) for name, tell in _FIGURES.items()]
    for kind, found in teacher["scores"].items():
        for place, (one, other) in enumerate(zip(found, student["scores"][kind], strict=True)):
            # Of the primary score alone, since of an error less is more.
            share = f" ({other['value'] / one['value']:.1%})" if place == 0 and one["value"] > 0 else ""
            name = f"{one['metric']}, {'fp32' if kind == 'model' else 'engine'}"
            rows.append((name, score(one["value"]), score(other["value"]) + share))
    return rows


def _latency(row: Row) -> float:
    latency = {int(length): ms for length, ms in row["latency_ms"].items()}  # numbers in JSON's names are text
    return float(latency.get(_LENGTH, min(latency.values())))


_FIGURES: dict[str, Callable[[Row], str]] = {
    "parameters": lambda row: count(row["unique_parameters"]),
    "reads tokens": lambda row: count(row["max_length"]),
    "engine": lambda row: f"{megabytes(row['engine_bytes'])} {row['precision']}",
    f"ms, {_LENGTH} tokens": lambda row: quantity(_latency(row)),
    "tokens a second": lambda row: count(row["tokens_per_second"]),
    "MB at the peak": lambda row: quantity(next(iter(row["peak_mb"].values()))),
}


def agreements(results: Row) -> list[str]:
    """How nearly the student says what its teacher does, a line each."""
    return [
        f"{_NAMES.get(name, name)}: {found['value']:.4f} ({found['low']:.4f} to {found['high']:.4f}, "
        f"{found['n']:,} held out)"
        for name, found in results["agreement"].items()
    ]


_NAMES = {
    "vectors": "mean cosine of both vectors of a text",
    "similarities": "Spearman's correlation of the cosines of pairs of texts",
    "masked_language_model": "the same token at masked places",
    "sentence_pair": "the same label of a pair",
    "classification": "the same label",
    "token_classification": "the same label of a word",
    "regression": "Spearman's correlation of the values",
}


AGREEMENT_NOTE = "Of the models in float32, on texts that chose the best checkpoint too, which flatters."
"""What to know before one believes `agreements`."""


def render_table(results: Row) -> Group:
    """What `rich` prints of results.json."""
    shown = plain_table("", results["teacher"]["model"], results["student"]["model"])
    for row in figures(results):
        shown.add_row(*map(Text, row))
    agreement = "\n".join(f"  {line}" for line in agreements(results))
    return Group(Text(), shown, Text(), Text(f"Agreement\n{agreement}"), Text(AGREEMENT_NOTE, style="dim"))
