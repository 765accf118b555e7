"""What became of a shrinking: teacher and student measured side by side, as they would be shipped."""

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bertram import artifacts
from bertram.batch import NO_PAIRS
from bertram.benchmark.bench import bench
from bertram.comparison.statistics import interval
from bertram.errors import BadInput, failing_in
from bertram.exporting import export_alike
from bertram.files import fingerprint, write_text
from bertram.formats.engine_file import read_engine
from bertram.inference.kernels import machine
from bertram.inference.predictor import check_inputs
from bertram.model_directory import ModelDirectory
from bertram.run_directory import read_manifest, read_settings
from bertram.shrinking.settings import Shrinking
from bertram.tasks.task import Task
from bertram.text.rows import parse_columns
from bertram.text.table import read_table

ENGINE = "model.engine"
RESULTS = "results.json"

_TEXTS = 512  # held-out ones that engines are judged and measured on


def outcome(shrinking: Shrinking, out: Path, evaluate: Path | None, columns: str | None) -> dict[str, Any]:
    """Measure both as engines, each in a process of its own, and score them where labelled data is given.

    Leaves the student's engine at OUT. Scores are of the models in float32 and of the engines, the primary ones with
    95% intervals by the bootstrap over rows.

    Raises:
        BadInput: the labelled data cannot be used.
    """
    source, (_, held_out) = shrinking.source, shrinking.examples
    manifest, settings, texts = read_manifest(out), read_settings(out), held_out.asked[:_TEXTS]
    names = {"teacher": manifest["base_model"], "student": out.resolve().name}
    with tempfile.TemporaryDirectory() as scratch:
        lines = Path(scratch) / "texts.jsonl"
        objects = ({"text": given} if isinstance(given, str) else given for given in texts)
        write_text(lines, "".join(f"{json.dumps(given)}\n" for given in objects))
        engines = {"teacher": Path(scratch) / ENGINE, "student": out / ENGINE}
        rows = {}
        for name, model in (("teacher", source), ("student", ModelDirectory(out))):
            agreed = export_alike(model, engines[name], texts)
            (measured,) = bench(engines[name], texts=lines, max_length=manifest["max_length"], with_ceiling=False)[
                "rows"
            ]
            rows[name] = {
                "model": names[name],
                "max_length": read_engine(engines[name]).manifest["max_length"],
                "unique_parameters": manifest["parameters"][name],
                "precision": "int8" if agreed else "fp32",
                "engine_bytes": engines[name].stat().st_size,
                "engine_agreement": agreed.share if agreed else 1.0,
                **{key: measured[key] for key in ("tokens_per_second", "latency_ms", "load_seconds", "peak_mb")},
                "scores": {},
            }
            if evaluate is not None:
                rows[name]["scores"] = {
                    "model": _scores(model, evaluate, columns),
                    "engine": _scores(engines[name], evaluate, columns),
                }
    rows["teacher"]["sha256"] = fingerprint(source.find_weights())
    return {
        "shrinking": manifest["shrinking"],
        "agreement": manifest["agreement"],
        "held_out": {  # what the texts that agreement is measured on follow from
            "texts": [sha256 for _, sha256 in settings["texts"]],
            "seed": settings["recipe"]["seed"],
            "max_length": settings["max_length"],
        },
        "data": manifest["data"],
        "evaluated": None if evaluate is None else evaluated(evaluate, columns),
        "machine": machine(),
        **rows,
    }


def _scores(model: Path | ModelDirectory, data: Path, columns: str | None) -> list[dict[str, Any]]:
    """The scores of a model, the primary one first, which has its interval."""
    predictor = artifacts.load_predictor(model)
    task, table = predictor.task, read_table(data, parse_columns(columns))
    targets, logits = task.targets(table.labels, str(data)), predictor.logits(*table.inputs)
    primary, *others = (asdict(score) for score in task.scores(logits, targets))
    found = interval(task, [logits], targets, split=data.name)
    return [primary | {"low": found["low"], "high": found["high"]}, *others]


def check_evaluated(source: ModelDirectory, data: Path, columns: str | None) -> None:
    """Check that a model can be scored on a table.

    Raises:
        BadInput: the model has no task with labels, or could not be scored on this table.
    """
    table = read_table(data, parse_columns(columns))
    task = source.task
    if not isinstance(task, Task):
        raise BadInput(f"{data}: a model for {task.name} is not scored on labels")
    task.targets(table.labels, str(data))
    with failing_in(data):
        check_inputs(task, table.texts_b is not None, trained_on=source.pairs)
    if not task.apart and table.texts_b is not None and source.config.type_vocab_size < 2:
        raise BadInput(f"{source}: {NO_PAIRS}")


def evaluated(data: Path, columns: str | None) -> dict[str, str | None]:
    """What scores were computed on."""
    return {"file": data.name, "sha256": fingerprint(data), "columns": columns}
