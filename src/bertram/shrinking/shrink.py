"""From a BERT and texts to an ALBERT that says nearly the same: what `bertram shrink` does."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from bertram.config import Lesson
from bertram.errors import BadInput, require_all
from bertram.files import read_if_there, write_json
from bertram.processes import share_cores
from bertram.progress import Report, silent
from bertram.run_directory import alone_in, check_converged, prepare_directory, read_manifest
from bertram.shrinking.dial import Dial
from bertram.shrinking.outcome import ENGINE, RESULTS, outcome
from bertram.shrinking.report import write_report
from bertram.shrinking.settings import Evaluated, Shrinking
from bertram.text.rows import Columns
from bertram.text.splits import Files, listed
from bertram.training.recipe import Recipe

_LIBRARIES = ("torch", "safetensors", "scipy", "sklearn", "tensorboard")


def shrink(
    model: str | Path,
    texts: Files,
    out: str | Path,
    *,
    dial: Dial = Dial(),
    recipe: Recipe,
    lessons: Collection[Lesson] | None = None,
    max_length: int | None = None,
    evaluate: str | Path | None = None,
    columns: Columns = None,
    resume: bool = False,
    allow_pickle: bool = False,
    report: Report = silent,
) -> dict[str, Any]:
    """Tie the layers of `model` in groups, narrow its embeddings, and teach the result by the original on `texts`.

    Args:
        texts: files as `text.inputs.read_inputs` takes them: a text a line, or tables with a text or pair in each row.
        out: where an ALBERT directory is left, with the model's heads, pooling and tokenizer. A pooler comes with it
            if a head reads it.
        lessons: what is taught; by default all that the model has.
        max_length: tokens that texts are cut to; by default as many as the model reads, at most 128.
        dial: groups, embedding size, rank and depth of the student, as a `bertram.Dial`; `bertram shrink --help` says
            what each means.
        evaluate, columns: a labelled table on which teacher and student are scored at the end, by the model's own task,
            and what its columns are called. A sentence encoder is scored on pairs with a number.

    Leaves the student's engine, results.json and report.html there too, and returns what results.json says.

    Raises:
        BadInput: the texts, the model or a setting cannot be used, or `out` is not empty and `resume` is not given.
        BertramError: the training diverged.
        Interrupted: a signal came; `resume` goes on from there.
    """
    share_cores()
    require_all(_LIBRARIES, "train")
    out = Path(out)
    if columns is not None and evaluate is None:
        raise BadInput("--columns: says what columns of --evaluate to read, which is not given")
    if not texts:
        raise BadInput("shrink teaches on texts: give --texts FILE")
    shrinking = Shrinking.of(
        model,
        listed(texts),
        dial=dial,
        recipe=recipe,
        lessons=lessons,
        max_length=max_length,
        allow_pickle=allow_pickle,
    )
    evaluated = None if evaluate is None else Evaluated.read(shrinking.source, Path(evaluate), columns)
    if not resume or "status" not in read_manifest(out):
        _ = shrinking.examples  # what is wrong with them is heard of before anything is written
    with alone_in(out):
        manifest = prepare_directory(out, shrinking.source.path, shrinking.settings, resume=resume)
        if manifest is None:
            from bertram.shrinking.teaching import teach

            manifest = teach(shrinking, out, report)
        check_converged(out, manifest)
        results = read_if_there(out / RESULTS)
        scored = evaluated is None or results.get("evaluated") == evaluated.description
        if "held_out" not in results or not scored or not (out / ENGINE).exists():
            if evaluated is None and results.get("evaluated"):
                raise BadInput(f"{out / ENGINE}: is missing; to write and measure it again, give --evaluate as before")
            write_json(out / RESULTS, outcome(shrinking, out, evaluated))
            results = read_if_there(out / RESULTS)
        write_report(out, results)
        return results
