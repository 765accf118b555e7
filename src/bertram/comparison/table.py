"""The end of `bertram compare` on a terminal: candidates, differences, the choice. Fits 80 columns."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from bertram.comparison.cells import figures, metric
from bertram.comparison.differences import caveats
from bertram.comparison.results import Candidate, Difference, Results, Scored, diverged, scored
from bertram.comparison.selection import difference_of
from bertram.pages.figures import interval, p_value, score
from bertram.terminal import plain_table

_COLUMNS = [  # headings and figures, one above the other
    (("score", "95% interval"), ("score", "95% interval")),
    (("params", "MB on disk"), ("parameters", "MB on disk")),
    (("MFLOP", "a token"), ("MFLOP a token",)),
    (("MB train", "answer"), ("training MB", "answering MB")),
    (("ms p50", "p95"), ("p50 ms", "p95 ms")),
    (("tokens", "a second"), ("tokens a second",)),
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
    table, score_name = plain_table(), metric(candidates)
    table.add_column(_stacked("model", "engine"), overflow="fold", min_width=10)
    for (upper, lower), _ in _COLUMNS:
        table.add_column(_stacked(score_name if upper == "score" else upper, lower), justify="right", overflow="fold")
    for row in candidates:
        told = figures(row)
        cells = (_stacked(*(told[name] for name in names)) for _, names in _COLUMNS)
        table.add_row(_name(row, chosen), *cells, style="bold" if row["model"] == chosen else "")
    return table


def _stacked(upper: str, lower: str = "") -> Text:
    return Text(upper).append(f"\n{lower}", style="dim")


def _name(row: Candidate, chosen: str | None) -> Text:
    name = Text(f"{'→ ' if row['model'] == chosen else ''}{row['model']}")
    if row["engine"]:
        name.append(f"\n{figures(row)['engine']}", style="dim")
    if lost := len(diverged(row)):
        name.append(f"\n{lost} of {len(row['runs'])} diverged", style="red")
    return name


def _differences(model: str, rows: Sequence[Scored], comparisons: Sequence[Difference]) -> Table:
    table = plain_table()
    table.add_column(Text(f"{model} minus"), overflow="fold", min_width=10)
    for heading in ("difference", "95% interval", "p", "p by Holm"):
        table.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        if row["model"] != model:
            found = difference_of(model, row["model"], comparisons)
            told = [score(found["difference"]), interval(found["low"], found["high"]), p_value(found["p"])]
            table.add_row(Text(row["model"]), *map(Text, told), Text(p_value(found["p_holm"])))
    return table
