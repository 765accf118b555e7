"""report.html: how a shrinking went, and where its student stands among those taught alike."""

from contextlib import suppress
from pathlib import Path

from bertram.errors import BadInput
from bertram.files import read_object, write_text
from bertram.pages import charts
from bertram.pages.figures import interval, megabytes, quantity, score, several
from bertram.pages.markup import Element, element, figure, page_of, table
from bertram.shrinking.outcome import RESULTS
from bertram.shrinking.table import AGREEMENT_NOTE, Row, agreements, figures
from bertram.training.metrics_file import read_metrics

REPORT = "report.html"


def write_report(out: Path, results: Row) -> None:
    """Write the page of OUT/results.json, with the curve in metrics.jsonl and the students in the directories beside.

    Raises:
        OSError: the disk did not take it.
    """
    title = f"{results['teacher']['model']} shrunken"
    models = [results[side]["model"] for side in ("teacher", "student")]
    rows = [
        element("tr", element("th", name, scope="row"), *(element("td", cell) for cell in cells))
        for name, *cells in figures(results)
    ]
    page = page_of(
        f"{title} – Bertram",
        element("p", "Bertram shrink", class_="over"),
        element("h1", title),
        element("p", f"{_sizes(results['shrinking'])}.", class_="lede"),
        element("p", f"Taught on {results['data']['rows']['train']:,} texts.", class_="soft"),
        element("h2", "Teacher and student"),
        table("Teacher and student", ["", *models], rows),
        element("p", "Measured as engines, each in a process of its own.", class_="note"),
        element("h2", "Agreement"),
        element("ul", *(element("li", line) for line in agreements(results))),
        element("p", AGREEMENT_NOTE, class_="note"),
        element("div", _pareto(results, out), *_curve(out), class_="pair"),
        element("footer", f"Every figure on this page stands unrounded in {RESULTS} beside it."),
    )
    write_text(out / REPORT, page)


def _sizes(dial: Row) -> str:
    groups = f"{several(dial['groups'], 'group')} for {several(dial['depth'], 'layer')}"
    rank = f", residuals of rank {dial['rank']}" if dial["rank"] else ""
    return f"{groups}, embeddings {dial['embedding_size']} wide{rank}"


def _pareto(results: Row, out: Path) -> Element:
    """The score, of those that were scored on the same data, or else the agreement, against the size of the engine."""
    found, own = _siblings(results, out), out.resolve().name
    teacher, data = results["teacher"], results["evaluated"]
    if data is None:
        label, original = "agreement of similarities", (1.0, 1.0, 1.0)  # of the teacher with itself
        alike = "learned from the same texts, cut and drawn alike"
        students = {name: _whiskers(row["agreement"]["similarities"]) for name, row in found.items()}
    else:
        label = teacher["scores"]["engine"][0]["metric"]
        original, alike = _whiskers(teacher["scores"]["engine"][0]), "were scored on the same table"
        students = {name: _whiskers(row["student"]["scores"]["engine"][0]) for name, row in found.items()}
    marks = [_mark(teacher, original, label, "the teacher", look=None, chosen=False)]
    for place, (name, row) in enumerate(found.items()):
        student = {**row["student"], "model": name}
        marks.append(_mark(student, students[name], label, _sizes(row["shrinking"]), look=place, chosen=name == own))
    title = "Size and score"
    chart = charts.scatter(marks, key="size", title=title, x_label="MB of the engine, logarithmic", y_label=label)
    words = (
        f"The teacher and those of its students in the directories beside that {alike}; the line is the Pareto front, "
        "the ring this one."
    )
    return figure(title, chart, words)


def _siblings(results: Row, out: Path) -> dict[str, Row]:
    """The results of OUT and of those directories beside it that can be compared, by their names.

    They have the same teacher, and were scored on the same table or, without one, agree with it on the same texts.
    """
    measured = "held_out" if results["evaluated"] is None else "evaluated"
    found, alike = {out.resolve().name: results}, (results[measured], results["teacher"]["sha256"])
    for path in out.resolve().parent.glob(f"*/{RESULTS}"):
        with suppress(BadInput, OSError, KeyError, TypeError):  # what other commands left there is not looked at
            said = read_object(path)
            if (said[measured], said["teacher"]["sha256"]) == alike:
                found[path.parent.name] = said
    return dict(sorted(found.items()))


def _whiskers(found: Row) -> tuple[float, float, float]:
    return found["value"], found["low"], found["high"]


def _mark(
    row: Row, values: tuple[float, float, float], label: str, words: str, *, look: int | None, chosen: bool
) -> charts.Mark:
    (value, low, high), size = values, row["engine_bytes"]
    note = f"{row['model']}: {label} {score(value)} ({interval(low, high)}), {megabytes(size)}; {words}"
    return charts.Mark(
        name=row["model"], x=size / 1e6, y=value, low=low, high=high, look=look, chosen=chosen, note=note
    )


def _curve(out: Path) -> list[Element]:
    lines = read_metrics(out / "metrics.jsonl")
    points = [(line["step"], cosine) for line in lines if (cosine := line.get("validation_cosine")) is not None]
    if not points:
        return []
    title = "Mean cosine with the teacher"
    chart = charts.curves([charts.Curve("held out", 0, points, False)], key="curve", title=title)
    return [figure(title, chart, f"On the texts held out; the last is {quantity(points[-1][1])}.")]
