"""What became of a shrinking: teacher and student measured side by side, as they would be shipped."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bertram.artifacts import load_predictor
from bertram.benchmark.bench import bench
from bertram.comparison.statistics import interval
from bertram.exporting import export_alike
from bertram.files import fingerprint
from bertram.formats.engine_file import read_engine
from bertram.inference.kernels import machine
from bertram.inference.predictor import Predictor
from bertram.inference.tagger import Tagger
from bertram.model_directory import ModelDirectory
from bertram.run_directory import read_manifest, read_settings
from bertram.shrinking.settings import Evaluated, Shrinking
from bertram.text.inputs import Input

ENGINE = "model.engine"
RESULTS = "results.json"

TEXTS = 512
"""Held-out ones that engines are judged and measured on."""


def outcome(shrinking: Shrinking, out: Path, evaluated: Evaluated | None) -> dict[str, Any]:
    """Measure both as engines, each in a process of its own, and score them where labelled data is given.

    Leaves the student's engine at OUT. Scores are of the models in float32 and of the engines, the primary ones with
    95% intervals by the bootstrap over rows.
    """
    manifest, settings = read_manifest(out), read_settings(out)
    _, held_out = shrinking.examples
    with tempfile.TemporaryDirectory() as scratch:
        sides = {
            "teacher": (manifest["base_model"], shrinking.source, Path(scratch) / ENGINE),
            "student": (out.resolve().name, ModelDirectory(out), out / ENGINE),
        }
        rows = {
            side: {"model": name, "unique_parameters": manifest["parameters"][side]}
            | _row(model, engine, held_out.asked[:TEXTS], manifest["max_length"], evaluated)
            for side, (name, model, engine) in sides.items()
        }
    return {
        "shrinking": manifest["shrinking"],
        "agreement": manifest["agreement"],
        "held_out": {  # what the texts that agreement is measured on follow from
            "texts": [sha256 for _, sha256 in settings["texts"]],
            "seed": settings["recipe"]["seed"],
            "max_length": settings["max_length"],
        },
        "data": manifest["data"],
        "evaluated": evaluated and evaluated.description,
        "machine": machine(),
        **rows,
    }


def _row(
    model: ModelDirectory, engine: Path, texts: Sequence[Input], max_length: int, evaluated: Evaluated | None
) -> dict[str, Any]:
    """What is measured of one of the two; its engine is written."""
    agreed = export_alike(model, engine, texts)
    (measured,) = bench(engine, texts=texts, max_length=max_length, with_ceiling=False)["rows"]
    scores: dict[str, Any] = {}
    if evaluated is not None:
        scores["model"] = _scores(load_predictor(model.path, allow_pickle=model.allow_pickle), evaluated)
        scores["engine"] = _scores(load_predictor(engine), evaluated)
    return {
        "sha256": fingerprint(model.find_weights()),
        "max_length": read_engine(engine).manifest["max_length"],
        "precision": "int8" if agreed else "fp32",
        "engine_bytes": engine.stat().st_size,
        "engine_agreement": agreed.share if agreed else 1.0,
        **{key: measured[key] for key in ("tokens_per_second", "latency_ms", "load_seconds", "peak_mb")},
        "scores": scores,
    }


def _scores(predictor: Predictor | Tagger, evaluated: Evaluated) -> list[dict[str, Any]]:
    """The scores of a model, the primary one first, which has its interval."""
    task, table, file = predictor.task, evaluated.table, evaluated.description["file"]
    targets, logits = task.targets(table.labels, file), predictor.logits(*table.inputs)
    primary, *others = (asdict(score) for score in task.scores(logits, targets))
    found = interval(task, [logits], targets, split=file)
    return [primary | {"low": found["low"], "high": found["high"]}, *others]
