"""What became of a shrinking: teacher and student side by side, as they would be shipped."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from bertram import artifacts
from bertram.benchmark.bench import bench
from bertram.comparison.figures import count, megabytes, quantity, score
from bertram.environment import environment
from bertram.errors import BadInput
from bertram.evaluation import evaluate_files
from bertram.exporting import export_alike
from bertram.files import fingerprint, write_text
from bertram.run_directory import read_if_there, read_manifest
from bertram.terminal import plain_table
from bertram.text.records import Table

ENGINE = "model.engine"
RESULTS = "results.json"

_TEXTS = 512  # held-out ones that engines are judged and measured on
_LENGTH = 16  # tokens of the one text whose latency is told


def outcome(
    source: Path, out: Path, held_out: Table, evaluate: Path | None, columns: str | None, allow_pickle: bool
) -> dict[str, Any]:
    """Measure both as engines, each in a process of its own, and score them where labelled data is given.

    Leaves the student's engine at OUT. Scores are of the models in float32 and of the engines.

    Raises:
        BadInput: the labelled data cannot be used.
    """
    texts = held_out.texts[:_TEXTS]
    manifest = read_manifest(out)
    with tempfile.TemporaryDirectory() as scratch:
        lines = Path(scratch) / "texts.txt"
        write_text(lines, "".join(f"{' '.join(text.split())}\n" for text in texts))
        engines = {"teacher": Path(scratch) / ENGINE, "student": out / ENGINE}
        rows = {}
        for name, model in (("teacher", source), ("student", out)):
            agreed = export_alike(model, engines[name], texts, allow_pickle=allow_pickle)
            (measured,) = bench(engines[name], texts=lines, with_ceiling=False)["rows"]
            rows[name] = {
                "model": manifest["base_model"] if name == "teacher" else out.name,
                "parameters": manifest["parameters"][name],
                "precision": "int8" if agreed else "fp32",
                "engine_bytes": engines[name].stat().st_size,
                "engine_agreement": agreed.share if agreed else 1.0,
                **{key: measured[key] for key in ("tokens_per_second", "latency_ms", "load_seconds", "peak_mb")},
                "scores": {},
            }
            if evaluate is not None:
                rows[name]["scores"] = {
                    kind: _scores(which, evaluate, columns, allow_pickle)
                    for kind, which in (("model", model), ("engine", engines[name]))
                }
    return {
        "dial": manifest["shrinking"],
        "agreement": manifest["agreement"],
        "data": manifest["data"],
        "evaluated": None if evaluate is None else evaluated(evaluate, columns),
        "machine": environment(),
        **rows,
    }


def _scores(model: Path, data: Path, columns: str | None, allow_pickle: bool) -> list[dict[str, Any]]:
    found = evaluate_files(artifacts.load(model, allow_pickle=allow_pickle), [data], columns, None)
    return [asdict(score) for score in found]


def evaluated(data: Path, columns: str | None) -> dict[str, str | None]:
    """What scores were computed on."""
    return {"file": data.name, "sha256": fingerprint(data), "columns": columns}


def figures(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What is told of both, as people read it: its name, the teacher's and the student's."""
    teacher, student = results["teacher"], results["student"]
    rows = [(name, tell(teacher), tell(student)) for name, tell in _FIGURES.items()]
    for kind, found in teacher["scores"].items():
        for one, other in zip(found, student["scores"][kind], strict=True):
            share = f" ({other['value'] / one['value']:.1%})" if one["value"] > 0 else ""
            name = f"{one['metric']}, {'fp32' if kind == 'model' else 'engine'}"
            rows.append((name, score(one["value"]), score(other["value"]) + share))
    return rows


def _latency(row: Mapping[str, Any]) -> float:
    latency = {int(length): ms for length, ms in row["latency_ms"].items()}  # numbers in JSON's names are text
    return float(latency.get(_LENGTH, min(latency.values())))


_FIGURES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "parameters": lambda row: count(row["parameters"]),
    "engine": lambda row: f"{megabytes(row['engine_bytes'])} {row['precision']}",
    f"ms, {_LENGTH} tokens": lambda row: quantity(_latency(row)),
    "tokens a second": lambda row: count(row["tokens_per_second"]),
    "MB at the peak": lambda row: quantity(next(iter(row["peak_mb"].values()))),
}


def agreed(results: Mapping[str, Any]) -> list[str]:
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
    "classification": "the same label",
    "regression": "Spearman's correlation of the values",
}


def render(results: Mapping[str, Any]) -> Group:
    """What `rich` prints of results.json."""
    shown = plain_table("", results["teacher"]["model"], results["student"]["model"])
    for row in figures(results):
        shown.add_row(*map(Text, row))
    return Group(Text(), shown, Text(), Text("Agreement\n" + "\n".join(f"  {line}" for line in agreed(results))))


def siblings(out: Path, results: Mapping[str, Any]) -> Sequence[Path]:
    """Directories beside OUT, itself among them, where the same teacher was shrunken."""
    found = []
    for path in sorted(out.resolve().parent.glob(f"*/{RESULTS}")):
        with suppress(BadInput, KeyError, TypeError):  # what other commands left there is not looked at
            said = read_if_there(path.parent / RESULTS)
            if "dial" in said and said["teacher"]["model"] == results["teacher"]["model"]:
                found.append(path.parent)
    return found
