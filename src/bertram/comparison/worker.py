"""Work that a comparison gives to a process of its own, so that its memory is its own: `python -m … FILE PARENT`.

FILE is a job in JSON, written by `compare`: {"kind": "train" | "baseline" | "export" | "measure", …}. The answer is
JSON on standard output, {"error"} if it failed.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertram.errors import BadInput, BertramError, line_of
from bertram.files import write_array, write_json
from bertram.interruption import Interrupted, stoppable
from bertram.memory import peak_memory_mb
from bertram.processes import die_with

if TYPE_CHECKING:
    from bertram.supervised.finetuning import LabelledSplits

FIT = "fit.json"
"""The last file that fitting a baseline leaves."""


def main(job_file: str, parent: int) -> int:
    """Do the job; return the exit code."""
    die_with(parent)
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    code = 0
    try:
        with stoppable():
            answer = _KINDS[job["kind"]](job)
    except (BertramError, Interrupted) as error:
        answer, code = {"error": str(error)}, error.exit_code
    except OSError as error:
        answer, code = {"error": line_of(error)}, 1
    sys.stdout.write(json.dumps(answer) + "\n")
    return code


def _splits(job: dict[str, Any]) -> "LabelledSplits":
    """The data of the comparison.

    Raises:
        BadInput: a file holds something else than when the comparison read it.
    """
    from bertram.supervised.finetuning import LabelledSplits
    from bertram.text.splits import listed

    files = {name: listed(paths) for name, paths in job["files"].items()}
    splits = LabelledSplits.read(files, columns=job["data"]["columns"], seed=job["seed"], per_word=job["per_word"])
    if splits.description != job["data"]:
        raise BadInput("the data changed since the comparison began; compare it with another --out")
    return splits


def _train(job: dict[str, Any]) -> dict[str, Any]:
    from bertram.model_names import require_encoder, resolve
    from bertram.progress import training_progress
    from bertram.supervised import finetuning
    from bertram.tasks.registry import task_from_dict
    from bertram.training.recipe import Recipe

    training = finetuning.EncoderTraining(
        task=task_from_dict(job["task"]),
        splits=_splits(job),
        source=require_encoder(resolve(job["model"], allow_pickle=job["allow_pickle"])),
        recipe=Recipe(**job["recipe"]),
        vocab_size=job["vocab_size"],
        cased=job["cased"],
        max_length=job["max_length"],
    )
    with training_progress(job["label"]) as report:
        return training.run(Path(job["out"]), report)


def _baseline(job: dict[str, Any]) -> dict[str, Any]:
    from bertram.baseline.linear import Baseline
    from bertram.tasks.registry import task_from_dict

    splits, out, began = _splits(job), Path(job["out"]), time.monotonic()
    baseline = Baseline.fit(splits.train, splits.validation, task_from_dict(job["task"]))
    baseline.save(out)
    split, table = splits.final
    write_array(out / f"logits-{split}.npy", baseline.logits(*table.inputs))
    fit = {
        "parameters": baseline.parameters,
        "seconds": round(time.monotonic() - began, 1),
        "peak_memory_mb": round(peak_memory_mb(), 1),
    }
    write_json(out / FIT, fit)
    return fit


def _measure(job: dict[str, Any]) -> dict[str, Any]:
    from bertram.comparison.measure import measure
    from bertram.text.table import Table

    return {**measure(Path(job["model"]), Table(**job["sample"]), job["seconds"])}


def _export(job: dict[str, Any]) -> dict[str, Any]:
    """Write a model as an engine, in int8 if that answers the sample alike, and score it: it is what can be shipped."""
    from bertram.artifacts import load_predictor
    from bertram.evaluation import evaluate
    from bertram.exporting import export_alike
    from bertram.model_directory import ModelDirectory
    from bertram.text.table import Table

    found = export_alike(ModelDirectory(Path(job["model"])), Path(job["out"]), Table(**job["sample"]).asked)
    _, judged = _splits(job).final
    score = evaluate(load_predictor(job["out"]), judged)[0].value
    precision, agreement = ("int8", found.share) if found else ("fp32", 1.0)
    return {"precision": precision, "agreement": agreement, "score": score}


_KINDS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "train": _train,
    "baseline": _baseline,
    "measure": _measure,
    "export": _export,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
