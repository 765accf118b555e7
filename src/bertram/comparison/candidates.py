"""One candidate of a comparison: trained with every seed, measured, and scored."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from bertram.baseline import linear
from bertram.comparison.jobs import done
from bertram.comparison.results import Answering, Candidate, Run, ScoreInterval, ShippedEngine, Size, Trained, finished
from bertram.comparison.selection import BASELINE
from bertram.comparison.worker import FIT
from bertram.errors import BadInput
from bertram.formats.config_json import encoder_config
from bertram.formats.huggingface_config import RESIDUALS
from bertram.inspection import describe
from bertram.run_directory import prepare_directory
from bertram.supervised.finetuning import EncoderTraining, LabelledSplits
from bertram.tasks.task import Logits, Task
from bertram.text.table import Table

_SAMPLE = 256  # texts that inference is measured on, and the engines' agreement
_SECONDS = 2.0  # to answer all of them again and again, for their speed


@dataclass(frozen=True)
class Comparison:
    """What all steps of a comparison look at."""

    out: Path
    task: Task
    splits: LabelledSplits
    files: Mapping[str, Sequence[Path]]
    """Of each split, as `LabelledSplits.read` takes them."""
    seed: int
    """By which validation rows are drawn, if there is no file of them."""

    @property
    def source(self) -> dict[str, Any]:
        """The part of a job that says what data it is about."""
        files = {name: [str(path.absolute()) for path in paths] for name, paths in self.files.items()}
        return {"files": files, "seed": self.seed, "data": self.splits.description, "per_word": self.task.per_word}

    def done(self, job: dict[str, Any], what: str, name: str) -> dict[str, Any]:
        """As `jobs.done`, by a name for the job's file."""
        return done(job, what, self.out / "jobs" / f"{name}.json")

    def logits(self, row: Trained) -> list[Logits]:
        """What every finished run of a candidate said to the judged split, [N, L] each.

        Raises:
            BadInput: it is not there or damaged.
        """
        return [_logits(self.out / run["directory"], self.splits.final[0]) for run in finished(row)]


def fitted(comparison: Comparison) -> Trained:
    """Fit tf-idf with a linear model, unless that was done."""
    task, (split, judged) = comparison.task, comparison.splits.final
    directory = f"runs/{BASELINE}"
    folder = comparison.out / directory
    if (folder / FIT).exists():
        fit = json.loads((folder / FIT).read_text(encoding="utf-8"))
    else:
        job = {"kind": "baseline", "task": task.to_dict(), "out": str(folder), **comparison.source}
        fit = comparison.done(job, "fitting the baseline", BASELINE)
    score = task.scores(_logits(folder, split), task.targets(judged.labels))[0].value
    return {
        "model": BASELINE,
        "directory": directory,
        "training_memory_mb": fit["peak_memory_mb"],
        "runs": [{"seed": 0, "status": "finished", "score": score, "directory": directory, "seconds": fit["seconds"]}],
    }


def trained(comparison: Comparison, name: str, training: EncoderTraining, seeds: int) -> Trained:
    """Train a model with every seed, unless that was done."""
    manifests = {}
    for seed in range(training.recipe.seed, training.recipe.seed + seeds):
        seeded = replace(training, recipe=replace(training.recipe, seed=seed))
        manifests[f"runs/{name}-seed-{seed}"] = _train(comparison, f"{name}-seed-{seed}", seeded)
    return _of_runs(name, manifests, comparison.splits.final[0])


def measured(comparison: Comparison, row: Trained, score: ScoreInterval | None) -> Candidate:
    """Measure what a candidate's shipped run costs: to answer with as an engine, to store and to compute."""
    name, folder = row["model"], comparison.out / row["directory"]
    engine = _exported(comparison, name, folder) if name != BASELINE and finished(row) else None
    model = folder if engine is None else engine_path(comparison.out, name)
    answering = _answering(comparison, name, model)
    size = _size_of_baseline(folder) if name == BASELINE else _size(row, model, answering["mean_tokens"])
    return {**row, **answering, **size, "engine": engine, "score": score}


def engine_path(out: Path, name: str) -> Path:
    """Where the engine of a candidate stands."""
    return out / "engines" / f"{name}.engine"


def _size(row: Trained, model: Path, tokens: float | None) -> Size:
    """Of a model's directory or engine, which computes texts of so many tokens."""
    costs = describe(encoder_config(row["config"]), max(1, round(tokens or 0)))
    files = [model / file for file in ("config.json", "model.safetensors", RESIDUALS, "tokenizer.json")]
    return {
        "parameters": costs["parameters"],
        "unique_parameters": costs["unique_parameters"],
        "bytes_on_disk": _bytes(*([model] if model.is_file() else files)),
        "flops_per_token": costs["flops_per_token"],
    }


def _size_of_baseline(folder: Path) -> Size:
    parameters = json.loads((folder / FIT).read_text(encoding="utf-8"))["parameters"]
    return {
        "parameters": parameters,
        "unique_parameters": parameters,
        "bytes_on_disk": _bytes(*(folder / file for file in linear.FILES)),
        "flops_per_token": None,
    }


def _of_runs(name: str, manifests: Mapping[str, dict[str, Any]], split: str) -> Trained:
    """The candidate whose runs left these manifests, by directory."""
    # Chosen without a look at the test part.
    shipped = max(
        manifests, key=lambda d: (manifests[d]["status"] == "finished", _score(manifests[d], "validation") or 0.0)
    )
    return {
        "model": name,
        "directory": shipped,
        "config": manifests[shipped]["config"],
        "max_length": manifests[shipped]["max_length"],
        "truncated_texts": manifests[shipped]["truncated_texts"],
        "training_memory_mb": max(manifest["peak_memory_mb"] for manifest in manifests.values()),
        "training_gpu_memory_mb": max(manifest.get("gpu_peak_memory_mb", 0) for manifest in manifests.values()) or None,
        "runs": [_run(directory, manifest, split) for directory, manifest in manifests.items()],
    }


def _train(comparison: Comparison, name: str, training: EncoderTraining) -> dict[str, Any]:
    """Train one model with one seed, unless that was done; what its bertram.json says."""
    folder, source = comparison.out / "runs" / name, training.source
    manifest = prepare_directory(folder, source.path, training.settings, resume=True)
    if manifest is not None:
        return manifest
    job = training.settings | comparison.source
    job |= {"kind": "train", "label": name, "out": str(folder)}
    job |= {"model": source.argument, "allow_pickle": source.allow_pickle}
    return comparison.done(job, f"training {name}", name)


def _run(directory: str, manifest: Mapping[str, Any], split: str) -> Run:
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


def _score(manifest: Mapping[str, Any], split: str) -> float | None:
    """The primary score of a run on a split; a diverged run has none."""
    return float(manifest["scores"][split][0]["value"]) if manifest["status"] == "finished" else None


def _exported(comparison: Comparison, name: str, model: Path) -> ShippedEngine:
    job = {"kind": "export", "model": str(model), "out": str(engine_path(comparison.out, name)), **comparison.source}
    job |= {"sample": _sample(comparison.splits.validation)}  # the engine is scored on the judged rows
    return cast("ShippedEngine", comparison.done(job, f"exporting {name}", f"{name}-export"))


def _answering(comparison: Comparison, name: str, model: Path) -> Answering:
    job = {"kind": "measure", "model": str(model), "sample": _sample(comparison.splits.final[1]), "seconds": _SECONDS}
    return cast("Answering", comparison.done(job, f"measuring {name}", f"{name}-measure"))


def _sample(table: Table) -> dict[str, Any]:
    """Some rows for a job, from all of a file, which has some order."""
    rows = np.linspace(0, len(table) - 1, min(_SAMPLE, len(table)))
    return asdict(table.select(rows.astype(int)))


def _logits(folder: Path, split: str) -> Logits:
    """A run's logits of a split, [N, L].

    Raises:
        BadInput: they are not there or damaged.
    """
    path = folder / f"logits-{split}.npy"
    try:
        return np.asarray(np.load(path, allow_pickle=False), np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise BadInput(f"{path}: {error}; delete {folder} to repeat this run") from None


def _bytes(*files: Path) -> int:
    return sum(file.stat().st_size for file in files if file.exists())
