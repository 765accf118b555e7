"""The end of `bertram compare` on a terminal: candidates, differences, the choice. Fits 80 columns."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bertram.comparison.cells import engine, training_memory
from bertram.comparison.differences import caveats
from bertram.comparison.results import Candidate, Difference, Results, Scored, diverged, scored
from bertram.comparison.selection import difference_of
from bertram.pages.figures import MISSING, count, interval, p_value, quantity, score
from bertram.terminal import plain_table

_COLUMNS = [  # two figures a column, one above the other
    ("score", "95% interval"),
    ("params", "MB on disk"),
    ("MFLOP", "a token"),
    ("MB train", "answer"),
    ("ms p50", "p95"),
    ("tokens", "a second"),
]


def render_table(results: Results) -> Group:
    """What `rich` prints of results.json. Names are text: nothing in them is taken for markup."""
    choice, rows = results["choice"], scored(results["candidates"])
    parts: list[RenderableType] = [_candidates(results["candidates"], choice["model"])]
    if any(row.get("training_gpu_memory_mb") for row in results["candidates"]):
        parts.append(Text("MB train: of the process + of the GPU", style="dim"))
    parts += [Text(note, style="dim") for note in caveats(results)]
    if len(rows) > 1:
        best = max(rows, key=lambda row: row["score"]["mean"])["model"]
        parts.append(_differences(choice["model"] or best, rows, results["comparisons"]))
    if choice["missed"]:
        parts.append(Text("\n".join(f"{model}: {'; '.join(words)}" for model, words in choice["missed"].items())))
    parts.append(Text(choice["reason"], style="bold"))
    return Group(*(part for one in parts for part in (Text(), one)))


def _candidates(candidates: Sequence[Candidate], chosen: str | None) -> Table:
    table = plain_table()
    metric = next((row["score"]["metric"] for row in candidates if row["score"] is not None), "score")
    table.add_column(_stacked("model", "engine"), overflow="fold", min_width=10)
    for upper, lower in _COLUMNS:
        table.add_column(_stacked(metric if upper == "score" else upper, lower), justify="right", overflow="fold")
    for row in candidates:
        cells = (_stacked(upper, lower) for upper, lower in _figures(row))
        table.add_row(_name(row, chosen), *cells, style="bold" if row["model"] == chosen else "")
    return table


def _stacked(upper: str, lower: str) -> Text:
    return Text(upper).append(f"\n{lower}", style="dim")


def _name(row: Candidate, chosen: str | None) -> Text:
    name = Text(f"{'→ ' if row['model'] == chosen else ''}{row['model']}")
    if found := row["engine"]:
        name.append(f"\n{engine(found)}", style="dim")
    if lost := len(diverged(row)):
        name.append(f"\n{lost} of {len(row['runs'])} diverged", style="red")
    return name


def _figures(row: Candidate) -> list[tuple[str, str]]:
    found, flops = row["score"], row["flops_per_token"]
    return [
        (score(found["mean"]), interval(found["low"], found["high"])) if found else (MISSING, ""),
        (count(row["unique_parameters"]), quantity(row["bytes_on_disk"] / 1e6)),
        (quantity(flops and flops / 1e6), ""),
        (training_memory(row), quantity(row["inference_memory_mb"])),
        (quantity(row["latency_ms"]["p50"]), quantity(row["latency_ms"]["p95"])),
        (count(row["tokens_per_second"]), ""),
    ]


def _differences(model: str, rows: Sequence[Scored], comparisons: Sequence[Difference]) -> Table:
    table = plain_table()
    table.add_column(Text(f"{model} minus"), overflow="fold", min_width=10)
    for heading in ("difference", "95% interval", "p", "p by Holm"):
        table.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        if row["model"] != model:
            found = difference_of(model, row["model"], comparisons)
            figures = [score(found["difference"]), interval(found["low"], found["high"]), p_value(found["p"])]
            table.add_row(Text(row["model"]), *map(Text, figures), Text(p_value(found["p_holm"])))
    return table
