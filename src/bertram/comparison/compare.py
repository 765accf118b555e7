"""`bertram compare`: candidates × seeds on the same data and budget, measured, judged and reported."""

import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bertram.comparison.candidates import Comparison, engine_path, fitted, measured, trained
from bertram.comparison.differences import run_scores
from bertram.comparison.report import write_report
from bertram.comparison.results import Candidate, Difference, Results, ScoreInterval, Trained
from bertram.comparison.selection import BASELINE, Limits, choose
from bertram.comparison.statistics import NO_SEEDS, comparisons_of, interval, seed_noise
from bertram.errors import BadInput
from bertram.files import replacing, write_json
from bertram.inference.kernels import machine
from bertram.model_directory import ModelDirectory
from bertram.model_names import Preset, require_encoder, resolve
from bertram.run_directory import alone_in, is_occupied, keep, read_settings
from bertram.supervised.finetuning import DEFAULTS, EncoderTraining, LabelledSplits
from bertram.tasks.classification import Classification
from bertram.tasks.registry import is_per_word
from bertram.tasks.task import Task
from bertram.text.rows import Columns
from bertram.text.splits import files_of
from bertram.training.metrics_file import read_metrics
from bertram.training.recipe import Recipe

logger = logging.getLogger(__name__)

BEST = "best.engine"
_SETTINGS = "comparison.json"


def compare(
    data: str | Path,
    models: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    task: str | None = None,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    columns: Columns = None,
    recipe: Recipe | None = None,
    seeds: int = 1,
    vocab_size: int | None = None,
    cased: bool = False,
    max_length: int | None = None,
    max_memory: str | None = None,
    max_latency: str | None = None,
    min_score: float | None = None,
    allow_pickle: bool = False,
) -> Results:
    """Train every model with every seed, beside tf-idf with a linear model, and say which to ship.

    Every training and measurement runs in a process of its own. A training that is finished at `out` already is not
    repeated. Of a model's runs the one with the best validation score is measured and can be shipped. Leaves
    results.json, report.html, runs/MODEL-seed-N and the winner as best.engine there, and returns what results.json
    says. What answering costs is measured on engines: in int8 where that answers validation texts alike, else in
    float32. Scores are those of the models; beside them stands that of the engine which can be shipped.

    Args:
        data, validation, test: tables. Without `validation` a tenth of `data` is held out, without `test` that judges.
        models: directories, names on the hub, bertram-english or presets; one or several.
        task: classification, regression or similarity; None guesses one of the first two from the labels.
        columns: which columns of the tables to read: {"text": "sentence", "label": "2"}.
        recipe: of every training; `bertram compare --help` explains it. None: three epochs.
        seeds: trainings of each model, whose seeds count up from the recipe's.
        max_memory, max_latency, min_score: limits such as "64MB", "20ms" and 0.9.

    Raises:
        BadInput: the data, a model or a limit cannot be used, or `out` holds something else.
        Interrupted: a signal came; the same call goes on from there.
    """
    out, recipe = Path(out), (recipe or Recipe()).resolved(**DEFAULTS)
    limits = Limits.parse(max_memory, max_latency, min_score)
    if type(seeds) is not int or seeds < 1:
        raise BadInput(f"--seeds {seeds!r:.40}: must be a whole number, at least 1")
    replace(recipe, seed=recipe.seed + seeds - 1)  # refuses what is no seed
    sources = _sources([models] if isinstance(models, str | Path) else models, out, allow_pickle)
    if (vocab_size is not None or cased) and not any(isinstance(source, Preset) for source in sources.values()):
        raise BadInput("--vocab-size and --cased are for presets, and none is among the models")
    files = files_of(data, validation, test, most=1)
    splits = LabelledSplits.read(files, columns=columns, seed=recipe.seed, per_word=is_per_word(task))
    found = splits.task(task)
    splits.targets(found)  # a label that cannot be scored is heard of before anything is trained
    comparison = Comparison(out, found, splits, files, recipe.seed)
    trainings = {
        name: EncoderTraining(
            task=found,
            splits=splits,
            source=source,
            recipe=recipe,
            vocab_size=vocab_size if isinstance(source, Preset) else None,
            cased=cased and isinstance(source, Preset),
            max_length=max_length,
        )
        for name, source in sources.items()
    }
    with alone_in(out):
        _begin(out, {"task": found.to_dict(), "data": splits.description, "recipe": asdict(recipe)})
        rows = [fitted(comparison)]
        rows += [trained(comparison, name, training, seeds) for name, training in trainings.items()]
        scores, comparisons = _judge(comparison, rows)
        candidates = [measured(comparison, row, scores[row["model"]]) for row in rows]
        results: Results = {
            "task": found.to_dict(),
            "data": splits.description | {"split": comparison.splits.final[0], "labels": _label_counts(splits, found)},
            "recipe": asdict(recipe),
            "machine": machine(),
            "seeds": seeds,
            "candidates": candidates,
            "constant_score": found.constant_score(found.targets(comparison.splits.final[1].labels)),
            "comparisons": comparisons,
            "choice": choose(candidates, comparisons, limits),
        }
        _ship(out, candidates, results["choice"]["model"])
        write_json(out / "results.json", results)
        write_report(results, _curves(out, candidates), out / "report.html")
        return results


def _sources(models: Sequence[str | Path], out: Path, allow_pickle: bool) -> dict[str, ModelDirectory | Preset]:
    """Every model by a short name of its own, which is the one that it has at `out` already; each once.

    Raises:
        BadInput: there is no such model, or what can be seen of it without reading its weights is damaged or refused.
    """
    runs = [(run.name.rpartition("-seed-")[0], read_settings(run)) for run in (out / "runs").glob("*-seed-*")]
    known = {settings["model"]: name for name, settings in runs if "model" in settings}
    sources: dict[str, ModelDirectory | Preset] = {}
    for model in models:
        source = require_encoder(resolve(model, allow_pickle=allow_pickle))
        if isinstance(source, ModelDirectory):
            source.read_tokenizer()
            source.find_weights()
        if same := next((name for name, taken in sources.items() if source.identity == taken.identity), None):
            if str(source) != str(sources[same]):
                logger.warning("bertram: %s: the same model as %s; compared once", source, same)
            continue
        name, number = known.get(source.identity, source.name), 2
        while name in sources or (source.identity not in known and name in (BASELINE, *known.values())):
            name, number = f"{source.name}-{number}", number + 1
        sources[name] = source
    if not sources:
        raise BadInput("--models: none are given")
    return sources


def _begin(out: Path, settings: dict[str, Any]) -> None:
    """Begin a comparison at `out`, or go on with the one that is there.

    Raises:
        BadInput: `out` holds something else, such as a comparison of other data that has got beyond its first job.
    """
    if not (out / _SETTINGS).exists() and is_occupied(out, _SETTINGS):
        raise BadInput(f"{out}: is not empty and holds no comparison; name another --out")
    if {path.name for path in out.iterdir()} == {_SETTINGS, "jobs"}:
        (out / _SETTINGS).unlink()
    keep(out / _SETTINGS, settings)


def _judge(comparison: Comparison, rows: Sequence[Trained]) -> tuple[dict[str, ScoreInterval | None], list[Difference]]:
    """Every candidate's score, None where all its runs diverged, and how each two compare."""
    task, (split, judged) = comparison.task, comparison.splits.final
    targets = task.targets(judged.labels)
    logits = {row["model"]: comparison.logits(row) for row in rows}
    seeds = seed_noise(run_scores(rows)) | {BASELINE: NO_SEEDS}  # it is fitted once, without a seed
    scores = {
        name: interval(task, runs, targets, split=split, seeds=seeds[name]) if runs else None
        for name, runs in logits.items()
    }
    return scores, comparisons_of(task, logits, targets, seeds)


def _curves(out: Path, candidates: Sequence[Candidate]) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """The lines of metrics.jsonl of every run of a model, by its name and their seeds."""
    return {
        row["model"]: {run["seed"]: read_metrics(out / run["directory"] / "metrics.jsonl") for run in row["runs"]}
        for row in candidates
        if row["model"] != BASELINE
    }


def _ship(out: Path, candidates: Sequence[Candidate], model: str | None) -> None:
    """Leave the engine of the candidate that was chosen as best.engine; none where there is none to it."""
    chosen = next((row for row in candidates if row["model"] == model and row["engine"] is not None), None)
    if chosen is None:
        (out / BEST).unlink(missing_ok=True)
    else:
        with replacing(out / BEST) as temporary:
            shutil.copyfile(engine_path(out, chosen["model"]), temporary)


def _label_counts(splits: LabelledSplits, task: Task) -> dict[str, int] | None:
    if not isinstance(task, Classification):
        return None
    counts = Counter(splits.train.labels)
    return {label: counts[label] for label in task.labels}
