"""report.html: what a comparison found, on one page that opens anywhere, runs no script and loads nothing."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertram.comparison.cells import figures, metric
from bertram.comparison.differences import caveats, paragraphs, run_scores
from bertram.comparison.results import Candidate, Results, Run, Scored, diverged, scored
from bertram.comparison.selection import BASELINE
from bertram.comparison.statistics import seed_noise
from bertram.files import write_text
from bertram.pages import charts
from bertram.pages.figures import MISSING, interval, p_value, quantity, score, several
from bertram.pages.markup import Element, element, figure, page_of, table

_LABELS = 30  # labels whose counts are listed one by one

Curves = Mapping[str, Mapping[int, Sequence[Mapping[str, Any]]]]
"""Model → seed → lines of metrics.jsonl."""


def write_report(results: Results, curves: Curves, path: Path) -> None:
    """Write the page of a comparison's results.json and its training curves.

    Raises:
        OSError: the disk did not take it.
    """
    write_text(path, page(results, curves))


def page(results: Results, curves: Curves) -> str:
    """The page as HTML."""
    chosen = results["choice"]["model"]
    title = "Ship none of these" if chosen is None else f"Ship {chosen}"
    looks = _looks(results["candidates"])
    return page_of(
        f"{title} – Bertram comparison",
        *_opening(results, title),
        *_differences(results),
        *_scatters(results, looks),
        *_candidates(results, looks),
        *_curves(curves, results["candidates"], looks),
        *_comparisons(results),
        *_diverged(results["candidates"]),
        *_provenance(results),
    )


def _looks(candidates: Sequence[Candidate]) -> dict[str, int | None]:
    """The number of every candidate's colour and shape; None for the baseline."""
    encoders = [row["model"] for row in candidates if row["model"] != BASELINE]
    return {BASELINE: None} | {model: place for place, model in enumerate(encoders)}


def _opening(results: Results, title: str) -> list[Element]:
    data, choice = results["data"], results["choice"]
    rows = several(data["rows"][data["split"]], f"{data['split']} row")
    models = several(len(results["candidates"]), "candidate")
    asked = f"{models}, {several(results['seeds'], 'seed')} each, judged on {rows}. Training data: {data['train']}."
    missed = [
        element("li", element("b", model), f" misses: {'; '.join(words)}.") for model, words in choice["missed"].items()
    ]
    return [
        element("p", "Bertram comparison", class_="over"),
        element("h1", title),
        element("p", choice["reason"], class_="lede"),
        *([element("ul", *missed)] if missed else []),
        element("p", asked, class_="soft"),
    ]


def _differences(results: Results) -> list[Element]:
    found = paragraphs(results)
    if not found:
        return []
    told = [element("p", element("b", head), " ", text) for head, text in found]
    return [element("h2", "What differed"), element("div", *told, class_="pair prose")]


def _scatters(results: Results, looks: Mapping[str, int | None]) -> list[Element]:
    rows = scored(results["candidates"])
    if not rows:
        return []
    limits, chosen, y_label = results["choice"]["limits"], results["choice"]["model"], metric(results["candidates"])
    sizes = [row["bytes_on_disk"] / 1e6 for row in rows]
    latencies = [row["latency_ms"]["p95"] for row in rows]
    drawn = {}
    for key, title, unit, costs, limit in (
        ("size", "Size", "MB on disk", sizes, None),
        ("latency", "Latency", "ms for one text (p95)", latencies, limits["max_latency_ms"]),
    ):
        marks = [
            charts.Mark(
                name=row["model"],
                x=cost,
                y=row["score"]["mean"],
                low=row["score"]["low"],
                high=row["score"]["high"],
                look=looks[row["model"]],
                chosen=row["model"] == chosen,
                note=f"{row['model']}: {y_label} {_scored(row)}, {quantity(cost)} {unit}",
            )
            for row, cost in zip(rows, costs, strict=True)
        ]
        drawn[title] = charts.scatter(
            marks,
            key=key,
            title=f"Score against {key}",
            x_label=f"{unit}, logarithmic",
            y_label=y_label,
            x_limit=limit,
            y_limit=limits["min_score"],
        )
    over = "items and seeds" if _over_seeds(results["candidates"]) else "items"
    note = (
        f"Whiskers are 95% intervals over {over}. The stepped line is the Pareto front: nothing lies above it and to "
        "its left."
    )
    note += "" if chosen is None else " The ring marks the choice."
    if any(part.get("class") == "limit" for chart in drawn.values() for part in chart):
        note += " A dotted line is a limit that was stated."
    unscored = [row["model"] for row in results["candidates"] if row["score"] is None]
    note += f" Without a score, so not shown: {', '.join(unscored)}." if unscored else ""
    return [
        element("h2", "Score against cost"),
        element("div", *(figure(title, chart) for title, chart in drawn.items()), class_="pair"),
        element("p", note, class_="note"),
    ]


def _candidates(results: Results, looks: Mapping[str, int | None]) -> list[Element]:
    candidates = results["candidates"]
    cells, rows = [figures(row) for row in candidates], []
    for row, told in zip(candidates, cells, strict=True):
        lost = len(diverged(row))
        aside = [element("span", f"{lost} of {len(row['runs'])} diverged", class_="aside")] if lost else []
        name = element("th", charts.swatch(looks[row["model"]]), row["model"], *aside, scope="row")
        classes = {"class_": "chosen"} if row["model"] == results["choice"]["model"] else {}
        rows.append(element("tr", name, *(element("td", cell) for cell in told.values()), **classes))
    headings = ["model", *(metric(candidates) if name == "score" else name for name in cells[0])]
    note = (
        "Latency is for one text at a time, the middle of several rounds. Answering memory is what the engine adds to "
        "an idle process; training memory is the peak of the whole process, + that of a GPU if there was one. Engine: "
        "the precision of the shipped weights, and its own score; agreement: the share of its answers on validation "
        "texts that agree with the model's. Unshared: the parameters that the same network would need without sharing."
    )
    notes = [element("p", words, class_="note") for words in (note, *caveats(results))]
    return [element("h2", "The candidates"), table("The candidates", headings, rows), *notes]


def _curves(curves: Curves, candidates: Sequence[Candidate], looks: Mapping[str, int | None]) -> list[Element]:
    lost = {(row["model"], run["seed"]) for row in candidates for run in diverged(row)}

    def lines(measure: str) -> list[charts.Curve]:
        found = []
        for model, seeds in curves.items():
            for seed, measured in seeds.items():
                points = [(line["step"], line[measure]) for line in measured if line.get(measure) is not None]
                if points:
                    shown = charts.smoothed(points) if measure == "loss" else points
                    found.append(charts.Curve(model, looks[model], shown, (model, seed) in lost))
        return found

    drawn = []
    for measure, title, words in (
        ("loss", "Training loss", "A running mean; each line is one seed."),
        ("validation", "Validation score", "The best evaluation of a run is the one that is kept."),
    ):
        if runs := lines(measure):
            ends = " A cross ends a run that diverged." if any(run.diverged for run in runs) else ""
            drawn.append(figure(title, charts.curves(runs, key=measure, title=title), words + ends))
    return [element("h2", "Learning"), element("div", *drawn, class_="pair")] if drawn else []


def _comparisons(results: Results) -> list[Element]:
    found = results["comparisons"]
    if not found:
        return []
    reach = max(max(abs(row["low"]), abs(row["high"])) for row in found) or 1.0
    rows = [
        element(
            "tr",
            element("th", f"{row['a']} − {row['b']}", scope="row"),
            element("td", score(row["difference"])),
            element("td", interval(row["low"], row["high"])),
            element("td", charts.difference(row["difference"], row["low"], row["high"], reach)),
            element("td", p_value(row["p"])),
            element("td", p_value(row["p_holm"])),
        )
        for row in found
    ]
    headings = ["first minus second", "difference", "95% interval", "", "p", "p by Holm"]
    seeds = "; what other seeds would change is drawn by Student's t, from how seeds vary"
    note = (
        "Both are scored on the same resampled items (paired bootstrap)"
        f"{seeds if _over_seeds(results['candidates']) else ''}. Holm's correction is for all {len(found)} "
        "comparisons; small p says that the two differ, large p does not say that they are equal."
    )
    return [element("h2", "Pair by pair"), table("Pair by pair", headings, rows), element("p", note, class_="note")]


def _over_seeds(candidates: Sequence[Candidate]) -> bool:
    """Whether it is known how scores vary from seed to seed, so that intervals count it."""
    return any(noise.freedom for noise in seed_noise(run_scores(candidates)).values())


def _diverged(candidates: Sequence[Candidate]) -> list[Element]:
    rows = [
        element(
            "tr",
            element("th", row["model"], scope="row"),
            element("td", str(run["seed"])),
            element("td", f"{run['steps']:,}"),
            element("td", run["reason"] or MISSING, class_="words"),
        )
        for row in candidates
        for run in diverged(row)
    ]
    if not rows:
        return []
    return [element("h2", "Runs that diverged"), table("Runs that diverged", ["model", "seed", "steps", ""], rows)]


def _provenance(results: Results) -> list[Element]:
    data = results["data"]
    facts: dict[str, Any] = {"task": results["task"]["name"]}
    for name in ("train", "validation", "test"):
        if data[name]:
            facts[name] = f"{several(data['rows'][name], 'row')}; {data[name]}"
    facts["judged on"] = data["split"]
    labels = data.get("labels") or {}
    counts = {label: f"{number:,}" for label, number in list(labels.items())[:_LABELS]}
    if len(labels) > _LABELS:
        counts["further labels"] = f"{len(labels) - _LABELS:,}"
    parts = {
        "Data": facts,
        "Training rows by label": counts,
        "Recipe": {name.replace("_", " "): value for name, value in results["recipe"].items() if name != "seed"},
        "Machine": {name.replace("_", " "): value for name, value in results["machine"].items()},
    }
    judged = scored(results["candidates"])
    signatures = []
    for signature in dict.fromkeys(row["score"]["signature"] for row in judged):
        models = ", ".join(row["model"] for row in judged if row["score"]["signature"] == signature)
        signatures.append(element("li", models, element("br"), element("code", signature)))
    runs = [
        element("li", f"{row['model']}: {', '.join(map(_run, row['runs']))}")
        for row in results["candidates"]
        if row["model"] != BASELINE
    ]
    listed = [
        element("section", element("h3", title), _definitions(values)) for title, values in parts.items() if values
    ]
    return [
        element("h2", "How this was measured"),
        element("div", *listed, class_="facts"),
        element("h3", "Scores by seed"),
        element("ul", *runs),
        element("h3", "Signatures"),
        element("ul", *signatures),
        element("footer", "All figures are in results.json beside this page, the curves' in each run's metrics.jsonl."),
    ]


def _run(run: Run) -> str:
    outcome = score(run["score"]) if run["status"] == "finished" else run["status"]
    return f"{outcome} (seed {run['seed']}, trained in {run['seconds']:,.0f} s)"


def _definitions(values: Mapping[str, Any]) -> Element:
    """A list of names and values, without those that were not given."""
    pairs = [(element("dt", name), element("dd", value)) for name, value in _worded(values)]
    return element("dl", *(part for pair in pairs for part in pair))


def _worded(values: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            value = [f"{inner} {one}" for inner, one in value.items() if one is not None]
        if isinstance(value, bool):
            yield name, "yes" if value else "no"
        elif value is not None and value != []:
            yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _scored(row: Scored) -> str:
    return f"{score(row['score']['mean'])} ({interval(row['score']['low'], row['score']['high'])})"
