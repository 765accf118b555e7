"""report.html: how a shrinking went, and where its student stands among those of the same teacher."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertram.comparison import charts
from bertram.comparison.figures import interval, megabytes, quantity, score
from bertram.comparison.markup import Element, element, page_of, table
from bertram.files import write_text
from bertram.run_directory import read_if_there
from bertram.shrinking.outcome import RESULTS, agreed, figures, siblings
from bertram.training.metrics_file import read_metrics

REPORT = "report.html"

Row = Mapping[str, Any]


def write_report(out: Path, results: Row) -> None:
    """Write the page of OUT/results.json, with the curve in metrics.jsonl and the dial of the directories beside.

    Raises:
        OSError: the disk did not take it.
    """
    title = f"{results['teacher']['model']} shrunken"
    models = [results[side]["model"] for side in ("teacher", "student")]
    rows = [
        element("tr", element("th", name, scope="row"), *(element("td", cell) for cell in cells))
        for name, *cells in figures(results)
    ]
    found = {path.name: read_if_there(path / RESULTS) for path in siblings(out, results)}
    page = page_of(
        f"{title} – Bertram",
        element("p", "Bertram shrink", class_="over"),
        element("h1", title),
        element("p", _dial(results["dial"]), class_="lede"),
        element("p", f"Taught on {results['data']['rows']['train']:,} texts.", class_="soft"),
        element("h2", "Teacher and student"),
        table("Teacher and student", ["", *models], rows),
        element("p", "Measured as engines, each in a process of its own.", class_="note"),
        element("h2", "Agreement"),
        element("ul", *(element("li", line) for line in agreed(results))),
        element("div", *_pareto(found, out.resolve().name), *_curve(out), class_="pair"),
        element("footer", f"Every figure on this page stands unrounded in {RESULTS} beside it."),
    )
    write_text(out / REPORT, page)


def _dial(dial: Row) -> str:
    groups = f"{dial['groups']} group{'s' if dial['groups'] > 1 else ''} for {dial['depth']} layers"
    rank = f", residuals of rank {dial['rank']}" if dial["rank"] else ""
    return f"{groups}, embeddings {dial['embedding_size']} wide{rank}."


def _pareto(found: Mapping[str, Row], own: str) -> list[Element]:
    """Agreement or, where all were scored on the same data, the score against the size of the engine."""
    on = [row.get("evaluated") for row in found.values()]
    if on[0] is not None and all(data == on[0] for data in on):
        points = [(name, row["student"]["scores"]["engine"][0]) for name, row in found.items()]
        values = {name: (one["value"], one["value"], one["value"]) for name, one in points}
        label = points[0][1]["metric"]
    else:
        kind = "similarities"
        values = {
            name: tuple(row["agreement"][kind][key] for key in ("value", "low", "high")) for name, row in found.items()
        }
        label = "agreement of similarities"
    marks = [
        charts.Mark(
            name,
            row["student"]["engine_bytes"] / 1e6,
            *values[name],
            place,
            name == own,
            f"{name}: {label} {score(values[name][0])} ({interval(*values[name][1:])}), "
            f"{megabytes(row['student']['engine_bytes'])}; {_dial(row['dial'])}",
        )
        for place, (name, row) in enumerate(found.items())
    ]
    chart = charts.scatter(marks, key="dial", title="The dial", x_label="MB of the engine, logarithmic", y_label=label)
    words = (
        "Students of this teacher in the directories beside; the stepped line is the Pareto front, the ring this one."
    )
    return [element("figure", element("h3", "The dial"), chart, element("figcaption", words))]


def _curve(out: Path) -> list[Element]:
    lines = read_metrics(out / "metrics.jsonl")
    points = [(line["step"], cosine) for line in lines if (cosine := line.get("validation_cosine")) is not None]
    if not points:
        return []
    curve = charts.Curve("held out", 0, points, False)
    chart = charts.curves([curve], key="curve", title="Mean cosine with the teacher")
    words = f"On the texts held out; the last is {quantity(points[-1][1])}."
    return [element("figure", element("h3", "Mean cosine with the teacher"), chart, element("figcaption", words))]
