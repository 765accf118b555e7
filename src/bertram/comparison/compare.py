"""`bertram compare`: candidates × seeds on the same data and budget, measured, judged and reported."""

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from bertram import artifacts
from bertram.comparison.baseline import Baseline
from bertram.comparison.report import write_report
from bertram.comparison.selection import Limits, choose
from bertram.comparison.statistics import holm, interval, paired_difference
from bertram.config import EncoderConfig
from bertram.environment import environment
from bertram.errors import BadInput, BertramError
from bertram.files import write_json
from bertram.finetuning import Splits, task_class
from bertram.inspection import describe
from bertram.tasks.task import Task
from bertram.text.records import Table
from bertram.training.metrics_file import read_metrics
from bertram.training.recipe import Recipe

BASELINE = "tf-idf"
_SAMPLE = 256  # texts that inference is measured on


def compare(
    data: str | Path,
    models: Sequence[str],
    out: str | Path,
    *,
    task: str | None = None,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    recipe: Recipe | None = None,
    seeds: int = 1,
    vocab_size: int | None = None,
    max_length: int | None = None,
    max_memory: str | None = None,
    max_latency: str | None = None,
    min_score: float | None = None,
) -> dict[str, Any]:
    """Train every model with every seed, beside tf-idf with a linear model, and say which to ship.

    Every training and measurement runs in a process of its own. What is finished at `out` already is not repeated.
    Leaves results.json, report.html and runs/MODEL-seed-N there, and returns what results.json says.

    Raises:
        BadInput: the data, a model or a limit cannot be used, or `out` holds a comparison of something else.
        Interrupted: a signal came; the same call goes on from there.
    """
    out, recipe = Path(out), recipe or Recipe()
    limits = Limits.parse(max_memory, max_latency, min_score)
    sources = {model: artifacts.resolve(model) for model in dict.fromkeys(models)}
    splits = Splits.read(data, validation, test, columns=columns, seed=0)
    learned = task_class(task, splits.train.labels).from_labels(splits.train.labels or [])
    split, judged = splits.judged
    targets = learned.targets(judged.labels or [])
    learned.targets(splits.validation.labels or [])
    files = {"data": data, "validation": validation, "test": test}
    shared_job = {
        "data": {name: None if file is None else str(Path(file).resolve()) for name, file in files.items()}
        | {"columns": dict(columns or {}), "seed": 0},
        "fingerprints": {name: None if file is None else _fingerprint(Path(file)) for name, file in files.items()},
        "task": learned.to_dict(),
        "vocab_size": vocab_size,
        "max_length": max_length,
    }
    sample = judged.select(range(min(_SAMPLE, len(judged))))
    names = _names(list(sources))
    candidates, logits, curves = [], {}, {}
    row, values = _baseline(splits, learned, out / "baseline", sample)
    candidates.append(row)
    logits[BASELINE] = [values]
    for model, name in names.items():
        runs, curves[name], logits[name] = [], {}, []
        for seed in range(seeds):
            place = out / "runs" / f"{name}-seed-{seed}"
            settings = asdict(recipe) | {"seed": seed}
            job = shared_job | {"kind": "train", "model": model, "recipe": settings, "out": str(place.resolve())}
            manifest = _work(job | {"label": f"{name}, seed {seed}"}, out / "jobs" / f"{name}-seed-{seed}.json")
            curves[name][seed] = read_metrics(place / "metrics.jsonl")
            runs.append(_run(manifest, split, seed))
            if manifest["status"] == "finished":
                logits[name].append(np.load(place / f"logits-{split}.npy", allow_pickle=False))
        best = max(runs, key=lambda run: (run["status"] == "finished", run["score"] or 0.0))
        place = out / "runs" / f"{name}-seed-{best['seed']}"
        candidates.append(_candidate(name, place, runs, sample, out / "jobs" / f"{name}-measure.json"))
    for row in candidates:
        row["score"] = None
        if logits[row["model"]]:
            row["score"] = interval(learned, logits[row["model"]], targets, split=split)
    results = {
        "task": learned.to_dict(),
        "data": splits.description | {"split": split, "labels": _label_counts(splits.train, learned)},
        "machine": environment(),
        "recipe": asdict(recipe),
        "seeds": seeds,
        "candidates": candidates,
        "comparisons": _comparisons(learned, logits, targets),
    }
    results["choice"] = choose(candidates, results["comparisons"], limits)
    write_json(out / "results.json", results)
    write_report(results, curves, out / "report.html")
    return results


def _baseline(splits: Splits, task: Task, place: Path, sample: Table) -> tuple[dict[str, Any], Any]:
    """Fit, keep and measure tf-idf with a linear model; its row of the results, and its logits [N, L]."""
    baseline = Baseline.fit(splits.train, splits.validation, task)
    baseline.save(place)
    row = {
        "model": BASELINE,
        "parameters": baseline.parameters,
        "unique_parameters": baseline.parameters,
        "bytes_on_disk": _bytes(place),
        "flops_per_token": None,
        "training_memory_mb": None,
        **_work({"kind": "measure", "model": str(place), **_texts(sample)}, place.parent / "jobs" / "baseline.json"),
        "runs": [],
    }
    values = baseline.logits(splits.judged[1])
    score = task.scores(values, task.targets(splits.judged[1].labels or []))[0].value
    row["runs"] = [{"seed": 0, "status": "finished", "score": score}]
    return row, values


def _candidate(name: str, place: Path, runs: list[dict[str, Any]], sample: Table, job_file: Path) -> dict[str, Any]:
    """Measure the model at `place`; its row of the results."""
    config = EncoderConfig(**artifacts.read_manifest(place)["config"])
    measured = _work({"kind": "measure", "model": str(place), **_texts(sample)}, job_file)
    costs = describe(config, max(1, round(measured["mean_tokens"])))
    return {
        "model": name,
        "parameters": costs["parameters"],
        "unique_parameters": costs["unique_parameters"],
        "bytes_on_disk": _bytes(place, "config.json", "model.safetensors", "tokenizer.json"),
        "flops_per_token": costs["flops_per_token"],
        "training_memory_mb": max(run["training_memory_mb"] for run in runs),
        **measured,
        "runs": runs,
        "directory": str(place),
    }


def _run(manifest: dict[str, Any], split: str, seed: int) -> dict[str, Any]:
    finished = manifest["status"] == "finished"
    return {
        "seed": seed,
        "status": manifest["status"],
        "reason": manifest["reason"],
        "score": manifest["scores"][split][0]["value"] if finished else None,
        "steps": manifest["steps"],
        "seconds": manifest["seconds"],
        "training_tokens_per_second": manifest["tokens_per_second"],
        "training_memory_mb": manifest["peak_memory_mb"],
    }


def _comparisons(task: Task, logits: dict[str, list[Any]], targets: Any) -> list[dict[str, Any]]:
    """Every pair of candidates: the difference of their scores with interval and p, Holm-corrected over all pairs."""
    names = [name for name, values in logits.items() if values]
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    found = [{"a": a, "b": b} | paired_difference(task, logits[a], logits[b], targets) for a, b in pairs]
    for row, p_holm in zip(found, holm([row["p"] for row in found]), strict=True):
        row["p_holm"] = p_holm
    return found


def _work(job: dict[str, Any], job_file: Path) -> dict[str, Any]:
    """Do a job in a process of its own and return its answer. Signals that come meanwhile reach that process.

    Raises:
        BadInput: `job_file` holds another job, so this comparison began with other data or settings.
        BertramError: the job failed; its line is on standard error already.
    """
    if job_file.exists() and json.loads(job_file.read_text(encoding="utf-8")) != json.loads(json.dumps(job)):
        raise BadInput(f"{job_file.parent.parent}: holds a comparison of other data or settings; name another --out")
    write_json(job_file, job)
    with subprocess.Popen(
        [sys.executable, "-m", "bertram.comparison.worker", str(job_file)], stdout=subprocess.PIPE, text=True
    ) as process:
        numbers = (signal.SIGINT, signal.SIGTERM)

        def forward(number: int, frame: FrameType | None) -> None:
            if number == signal.SIGTERM:  # a terminal sends SIGINT to the whole group by itself
                process.send_signal(number)

        before = {number: signal.signal(number, forward) for number in numbers}
        try:
            answer = process.communicate()[0]
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
    if process.returncode:
        raise _failure(process.returncode, job)
    result: dict[str, Any] = json.loads(answer.splitlines()[-1])
    return result


def _failure(code: int, job: dict[str, Any]) -> BertramError:
    error = BertramError(
        f"{job['model']}: this {'training' if job['kind'] == 'train' else 'measurement'} ended with exit code {code}"
    )
    error.exit_code = code if code > 0 else 1
    return error


def _names(models: list[str]) -> dict[str, str]:
    """A short unique name for every model argument."""
    names: dict[str, str] = {}
    for model in models:
        base = Path(model).name or "model"
        taken = [name for name in names.values() if name == base or name.startswith(f"{base}-")]
        names[model] = f"{base}-{len(taken) + 1}" if base in names.values() or base == BASELINE else base
    return names


def _texts(table: Table) -> dict[str, Any]:
    return {"texts": table.texts, "texts_b": table.texts_b}


def _label_counts(table: Table, task: Task) -> dict[str, int] | None:
    labels = getattr(task, "labels", None)
    return None if labels is None else {label: (table.labels or []).count(label) for label in labels}


def _bytes(place: Path, *names: str) -> int:
    files = [place / name for name in names] if names else list(place.iterdir())
    return sum(file.stat().st_size for file in files)


def _fingerprint(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
