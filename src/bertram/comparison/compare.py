"""`bertram compare`: candidates × seeds on the same data and budget, measured, judged and reported."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertram import baseline, model_directory, model_names
from bertram.comparison.differences import run_scores
from bertram.comparison.report import write_report
from bertram.comparison.selection import BASELINE, Limits, choose
from bertram.comparison.statistics import NO_SEEDS, comparisons_of, interval, seed_noise
from bertram.comparison.worker import FIT
from bertram.config import PRESETS, EncoderConfig
from bertram.errors import BadInput, BertramError
from bertram.files import replacing, write_json
from bertram.formats.huggingface_config import RESIDUALS
from bertram.formats.weights_file import find_weights
from bertram.inference.kernels import machine
from bertram.inspection import describe
from bertram.run_directory import alone_in, is_occupied, keep, prepare_directory
from bertram.supervised.finetuning import DEFAULTS, EncoderTraining, LabelledSplits, learn
from bertram.tasks.task import Task
from bertram.text.records import Table, parse_columns
from bertram.training.interruption import StopRequests
from bertram.training.metrics_file import read_metrics
from bertram.training.recipe import Recipe

BEST = "best.engine"
_SETTINGS = "comparison.json"
_SAMPLE = 256  # texts that inference is measured on, and the engines' agreement
_SECONDS = 2.0  # that an engine answers all of them for, again and again


@dataclass(frozen=True)
class _Comparison:
    """What all steps of a comparison look at."""

    out: Path
    task: Task
    splits: LabelledSplits
    files: dict[str, Any]
    """What `LabelledSplits.read` takes, for another process."""

    @property
    def source(self) -> dict[str, Any]:
        """The part of a job that says what data it is about."""
        return {"files": self.files, "data": self.splits.description}

    @property
    def judged(self) -> tuple[str, Table]:
        """The split that candidates are judged on, after its name."""
        *_, last = self.splits.judged.items()
        return last


def compare(
    data: str | Path,
    models: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    task: str | None = None,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    columns: str | Mapping[str, str] | None = None,
    recipe: Recipe | None = None,
    seeds: int = 1,
    vocab_size: int | None = None,
    cased: bool = False,
    max_length: int | None = None,
    max_memory: str | None = None,
    max_latency: str | None = None,
    min_score: float | None = None,
    allow_pickle: bool = False,
) -> dict[str, Any]:
    """Train every model with every seed, beside tf-idf with a linear model, and say which to ship.

    Every training and measurement runs in a process of its own. A training that is finished at `out` already is not
    repeated. Of a model's runs the one with the best validation score is measured and can be shipped. Leaves
    results.json, report.html, runs/MODEL-seed-N and the winner as best.engine there, and returns what results.json
    says. What answering costs is measured on engines: in int8 where that answers validation texts alike, else in
    float32. Scores are those of the models; beside them stands that of the engine which can be shipped.

    Raises:
        BadInput: the data, a model or a limit cannot be used, or `out` holds something else.
        Interrupted: a signal came; the same call goes on from there.
    """
    out, recipe = Path(out), (recipe or Recipe()).resolved(**DEFAULTS)
    limits = Limits.parse(max_memory, max_latency, min_score)
    if seeds < 1:
        raise BadInput(f"--seeds {seeds}: one is the least")
    replace(recipe, seed=recipe.seed + seeds - 1)  # refuses what is no seed
    names = _names([models] if isinstance(models, str | Path) else models, allow_pickle)
    if (vocab_size is not None or cased) and not any(model in PRESETS for model in names.values()):
        raise BadInput("--vocab-size and --cased are for presets, and none is among the models")
    columns = parse_columns(columns) if isinstance(columns, str) else columns
    splits = LabelledSplits.read(data, validation, test, columns=columns, seed=recipe.seed)
    learned = learn(task, splits)
    splits.targets(learned)  # a label that cannot be scored is heard of before anything is trained
    comparison = _Comparison(out, learned, splits, _files(data, validation, test, columns, recipe.seed))
    shared = {"task": learned.to_dict(), "data": splits.description, "recipe": asdict(recipe)}
    trainings = {
        name: EncoderTraining(
            task=learned,
            splits=splits,
            model=model,
            recipe=recipe,
            vocab_size=vocab_size if model in PRESETS else None,
            cased=cased and model in PRESETS,
            max_length=max_length,
            allow_pickle=allow_pickle,
        )
        for name, model in names.items()
    }
    with alone_in(out):
        _begin(out, shared)
        candidates = [_baseline(comparison)]
        candidates += [_trained(comparison, name, training, seeds) for name, training in trainings.items()]
        for row in candidates:
            row |= _measured(comparison, row)
        comparisons = _judge(comparison, candidates)
        results: dict[str, Any] = shared | {
            "data": splits.description | {"split": comparison.judged[0], "labels": _label_counts(splits, learned)},
            "machine": machine(),
            "seeds": seeds,
            "candidates": candidates,
            "comparisons": comparisons,
            "choice": choose(candidates, comparisons, limits),
        }
        _ship(out, candidates, results["choice"]["model"])
        write_json(out / "results.json", results)
        write_report(results, _curves(out, candidates), out / "report.html")
        return results


def _names(models: Sequence[str | Path], allow_pickle: bool) -> dict[str, str]:
    """Every model argument by a short name of its own.

    Raises:
        BadInput: there is no such model, or what can be seen of it without reading its weights is damaged or refused.
    """
    names: dict[str, str] = {}
    for model in dict.fromkeys(map(str, models)):
        if isinstance(source := model_names.resolve_encoder(model, allow_pickle=allow_pickle), Path):
            model_directory.read_tokenizer(source, model_directory.read_config(source))
            find_weights(source, allow_pickle=allow_pickle)
        base = model_names.name_of(model)
        name, number = base, 2
        while name in names or name == BASELINE:
            name, number = f"{base}-{number}", number + 1
        names[name] = model
    return names


def _begin(out: Path, settings: dict[str, Any]) -> None:
    """Begin a comparison at `out`, or go on with the one that is there.

    Raises:
        BadInput: `out` holds something else, such as a comparison of other data.
    """
    if not (out / _SETTINGS).exists() and is_occupied(out, _SETTINGS):
        raise BadInput(f"{out}: is not empty and holds no comparison; name another --out")
    keep(out / _SETTINGS, settings)


def _files(
    data: str | Path,
    validation: str | Path | None,
    test: str | Path | None,
    columns: Mapping[str, str] | None,
    seed: int,
) -> dict[str, Any]:
    """What `LabelledSplits.read` takes, for another process."""
    files = {"data": data, "validation": validation, "test": test}
    absolute = {name: None if file is None else str(Path(file).absolute()) for name, file in files.items()}
    return absolute | {"columns": dict(columns or {}), "seed": seed}


def _baseline(comparison: _Comparison) -> dict[str, Any]:
    """Fit tf-idf with a linear model, unless that was done; its row of the results, not yet measured."""
    task, out, (split, judged) = comparison.task, comparison.out, comparison.judged
    directory = f"runs/{BASELINE}"
    place = out / directory
    if (place / FIT).exists():
        fit = json.loads((place / FIT).read_text(encoding="utf-8"))
    else:
        job = {"kind": "baseline", "task": task.to_dict(), "out": str(place), **comparison.source}
        fit = _work(job, "fitting the baseline", out / "jobs" / f"{BASELINE}.json")
    score = task.scores(_logits(place, split), task.targets(judged.labels))[0].value
    return {
        "model": BASELINE,
        "directory": directory,
        "parameters": fit["parameters"],
        "unique_parameters": fit["parameters"],
        "bytes_on_disk": _bytes(*(place / file for file in baseline.FILES)),
        "flops_per_token": None,
        "training_memory_mb": fit["peak_memory_mb"],
        "runs": [{"seed": 0, "status": "finished", "score": score, "directory": directory, "seconds": fit["seconds"]}],
    }


def _trained(comparison: _Comparison, name: str, training: EncoderTraining, seeds: int) -> dict[str, Any]:
    """Train a model with every seed, unless that was done; its row of the results, not yet measured."""
    runs = {}
    for seed in range(training.recipe.seed, training.recipe.seed + seeds):
        seeded = replace(training, recipe=replace(training.recipe, seed=seed))
        runs[f"runs/{name}-seed-{seed}"] = _train(comparison, f"{name}-seed-{seed}", seeded)
    return _candidate(name, runs, comparison.judged[0])


def _train(comparison: _Comparison, name: str, training: EncoderTraining) -> dict[str, Any]:
    """Train one model with one seed, unless that was done; what its bertram.json says."""
    out, place = comparison.out, comparison.out / "runs" / name
    finished = prepare_directory(place, model_names.local(training.model), training.settings, resume=True)
    if finished is not None:
        return finished
    job = {"kind": "train", "label": name, "out": str(place), "allow_pickle": training.allow_pickle}
    job |= training.settings | comparison.source
    return _work(job, f"training {name}", out / "jobs" / f"{name}.json")


def _candidate(name: str, manifests: dict[str, dict[str, Any]], split: str) -> dict[str, Any]:
    """The row of a model whose runs left these manifests, by directory; not yet measured."""
    # Chosen without a look at the test part.
    shipped = max(
        manifests, key=lambda d: (manifests[d]["status"] == "finished", _score(manifests[d], "validation") or 0.0)
    )
    return {
        "model": name,
        "directory": shipped,
        **{key: manifests[shipped][key] for key in ("config", "max_length", "truncated_texts")},
        "training_memory_mb": max(manifest["peak_memory_mb"] for manifest in manifests.values()),
        "training_gpu_memory_mb": max(manifest.get("gpu_peak_memory_mb", 0) for manifest in manifests.values()) or None,
        "runs": [_run(directory, manifest, split) for directory, manifest in manifests.items()],
    }


def _run(directory: str, manifest: dict[str, Any], split: str) -> dict[str, Any]:
    return {
        "seed": manifest["recipe"]["seed"],
        "status": manifest["status"],
        "reason": manifest["reason"],
        "score": _score(manifest, split),
        "validation_score": _score(manifest, "validation"),
        "directory": directory,
        "steps": manifest["steps"],
        "seconds": manifest["seconds"],
        "training_tokens_per_second": manifest["tokens_per_second"],
        "training_memory_mb": manifest["peak_memory_mb"],
        "training_gpu_memory_mb": manifest.get("gpu_peak_memory_mb"),
    }


def _score(manifest: dict[str, Any], split: str) -> float | None:
    """The primary score of a run on a split; a diverged run has none."""
    return float(manifest["scores"][split][0]["value"]) if manifest["status"] == "finished" else None


def _measured(comparison: _Comparison, row: Mapping[str, Any]) -> dict[str, Any]:
    """What answering costs with a candidate's shipped run, as an engine, and what storing and computing it does."""
    out, name, (_, judged) = comparison.out, row["model"], comparison.judged
    place = out / row["directory"]
    job: dict[str, Any] = {"kind": "measure", "model": str(place), "sample": _sample(judged)}
    found: dict[str, Any] = {}
    files = [place / file for file in ("config.json", "model.safetensors", RESIDUALS, "tokenizer.json")]
    if name != BASELINE and any(run["status"] == "finished" for run in row["runs"]):
        files = [_engine(out, name)]
        export = job | {"kind": "export", "out": str(files[0]), **comparison.source}
        export |= {"sample": _sample(comparison.splits.validation)}  # the engine is scored on the judged rows
        found = {"engine": _work(export, f"exporting {name}", out / "jobs" / f"{name}-export.json")}
        job |= {"model": str(files[0])}
    job |= {"seconds": _SECONDS}
    measured = found | _work(job, f"measuring {name}", out / "jobs" / f"{name}-measure.json")
    if name == BASELINE:
        return measured
    costs = describe(EncoderConfig(**row["config"]), max(1, round(measured["mean_tokens"])))
    return measured | {
        "parameters": costs["parameters"],
        "unique_parameters": costs["unique_parameters"],
        "flops_per_token": costs["flops_per_token"],
        "bytes_on_disk": _bytes(*files),
    }


def _sample(table: Table) -> dict[str, Any]:
    """Some rows for a job, from all of a file, which has some order."""
    rows = np.linspace(0, len(table) - 1, min(_SAMPLE, len(table)))
    return asdict(table.select(rows.astype(int)))


def _judge(comparison: _Comparison, candidates: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Give every candidate its score, None where all its runs diverged, and return how each two compare."""
    task, out, (split, judged) = comparison.task, comparison.out, comparison.judged
    targets = task.targets(judged.labels)
    logits: dict[str, list[NDArray[np.float32]]] = {}
    for row in candidates:
        found = [_logits(out / run["directory"], split) for run in row["runs"] if run["status"] == "finished"]
        logits[row["model"]] = found
    seeds = seed_noise(run_scores(candidates)) | {BASELINE: NO_SEEDS}  # which has none
    for row in candidates:
        name = row["model"]
        row["score"] = interval(task, logits[name], targets, split=split, seeds=seeds[name]) if logits[name] else None
    return comparisons_of(task, logits, targets, seeds)


def _curves(out: Path, candidates: Sequence[Mapping[str, Any]]) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """The lines of metrics.jsonl of every run of a model, by its name and their seeds."""
    return {
        row["model"]: {run["seed"]: read_metrics(out / run["directory"] / "metrics.jsonl") for run in row["runs"]}
        for row in candidates
        if row["model"] != BASELINE
    }


def _ship(out: Path, candidates: list[dict[str, Any]], model: str | None) -> None:
    """Leave the engine of the candidate that was chosen as best.engine; none where there is none to it."""
    (out / BEST).unlink(missing_ok=True)
    chosen = next((row for row in candidates if row["model"] == model and "engine" in row), None)
    if chosen is not None:
        with replacing(out / BEST) as temporary:
            shutil.copyfile(_engine(out, chosen["model"]), temporary)


def _engine(out: Path, name: str) -> Path:
    return out / "engines" / f"{name}.engine"


def _work(job: dict[str, Any], what: str, job_file: Path) -> dict[str, Any]:
    """Do a job in a process of its own, after a line that says what is done, and return its answer.

    Raises:
        Interrupted: a signal came; that process heard of it and has left.
        BertramError: the job failed.
    """
    write_json(job_file, job)
    if job["kind"] != "train":  # which has a bar
        sys.stderr.write(f"{what}\n")
    command = [sys.executable, "-P", "-m", "bertram.comparison.worker", str(job_file), str(os.getpid())]
    # A group of its own, so that a terminal's SIGINT comes by us alone.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        try:
            with StopRequests(lambda _: process.terminate(), "; the same command goes on from here") as stop:
                said = process.communicate()[0]
                stop.check()
        except BaseException:
            process.kill()
            raise
    if process.returncode < 0:
        raise BertramError(f"{what}: stopped by {signal.Signals(-process.returncode).name}; is there memory enough?")
    if not said.endswith("\n"):
        raise BertramError(f"{what}: failed, exit code {process.returncode}")
    answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    if process.returncode:
        error = BertramError(f"{what}: {answer['error']}")
        error.exit_code = process.returncode
        raise error
    return answer


def _logits(place: Path, split: str) -> NDArray[np.float32]:
    """A run's logits of a split, [N, L].

    Raises:
        BadInput: they are not there or damaged.
    """
    path = place / f"logits-{split}.npy"
    try:
        return np.asarray(np.load(path, allow_pickle=False), np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"{path}: {error}; delete {place} to repeat this run") from None


def _label_counts(splits: LabelledSplits, task: Task) -> dict[str, int] | None:
    labels = getattr(task, "labels", None)
    counts = Counter(splits.train.labels)
    return None if labels is None else {label: counts[label] for label in labels}


def _bytes(*files: Path) -> int:
    return sum(file.stat().st_size for file in files if file.exists())
