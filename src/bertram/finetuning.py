"""From a table and a model argument to a trained model directory: what `bertram train` does."""

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bertram import artifacts
from bertram.errors import BadInput, require
from bertram.files import replacing, write_json, write_text
from bertram.inference.predictor import Predictor
from bertram.memory import peak_memory_mb
from bertram.model_card import model_card
from bertram.progress import Report, silent
from bertram.tasks.registry import TASKS, guess_task
from bertram.tasks.task import Score, Task
from bertram.text.records import Table, read_table, split
from bertram.text.tokenizer import Tokenizer
from bertram.training.recipe import Recipe

if TYPE_CHECKING:
    from bertram.models.heads import Model

_HELD_OUT = 0.1


@dataclass(frozen=True)
class Splits:
    """The tables of one training, and where they came from."""

    train: Table
    validation: Table
    test: Table | None
    description: dict[str, Any]

    @classmethod
    def read(
        cls,
        data: str | Path,
        validation: str | Path | None = None,
        test: str | Path | None = None,
        *,
        columns: Mapping[str, str] | None = None,
        seed: int = 0,
    ) -> "Splits":
        """Read the tables; without a validation file a seeded tenth of the training data is held out.

        Raises:
            BadInput: a file cannot be used.
        """
        train = read_table(data, columns)
        held_out = "file"
        if validation is None:
            train, held = split(train, _HELD_OUT, seed)
            held_out = f"a tenth of the training data, drawn with seed {seed}"
        else:
            held = read_table(validation, columns)
        tested = None if test is None else read_table(test, columns)
        description = {
            "train": Path(data).name,
            "validation": held_out if validation is None else Path(validation).name,
            "test": None if test is None else Path(test).name,
            "rows": {"train": len(train), "validation": len(held), "test": 0 if tested is None else len(tested)},
        }
        return cls(train, held, tested, description)

    @property
    def judged(self) -> tuple[str, Table]:
        """The split that a model's score is reported on: the test part where there is one."""
        return ("validation", self.validation) if self.test is None else ("test", self.test)

    def texts(self) -> list[str]:
        """Every training text, for a tokenizer to learn from."""
        return self.train.texts + (self.train.texts_b or [])

    def head(self, rows: int) -> "Splits":
        """The first rows of each table."""
        tables = [
            None if t is None else t.select(range(min(rows, len(t)))) for t in (self.train, self.validation, self.test)
        ]
        return replace(self, train=tables[0], validation=tables[1], test=tables[2])


def train(
    task: str | None,
    data: str | Path,
    *,
    model: str | Path,
    out: str | Path,
    validation: str | Path | None = None,
    test: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    recipe: Recipe | None = None,
    vocab_size: int | None = None,
    max_length: int | None = None,
    resume: bool = False,
    dry_run: bool = False,
    allow_pickle: bool = False,
    report: Report = silent,
) -> dict[str, Any]:
    """Train `model` on a table of labelled texts and leave a model directory at `out`.

    `task` is "classification" or "regression"; None guesses from the labels. Longer texts are cut to `max_length`
    tokens, by default the model's positions. With `dry_run` one batch goes through training, validation and test, and
    nothing is left at `out`.

    Returns what OUT/bertram.json says.

    Raises:
        BadInput: the data, the model or the settings cannot be used, or `out` is not empty and `resume` is not given.
        Interrupted: a signal came; `resume` goes on from there.
    """
    recipe = recipe or Recipe()
    out = Path(out)
    finished = prepare_directory(out, resume=resume)
    if finished is not None:
        return finished
    splits = Splits.read(data, validation, test, columns=columns, seed=recipe.seed)
    learned = task_class(task, splits.train.labels).from_labels(splits.train.labels or [])
    if not dry_run:
        return run(learned, splits, model, out, recipe, vocab_size, max_length, allow_pickle, report)
    with tempfile.TemporaryDirectory() as scratch:
        short = replace(recipe, epochs=None, tokens=None, hours=None, steps=1, evaluations=1)
        splits = splits.head(recipe.batch_size)
        return run(learned, splits, model, Path(scratch), short, vocab_size, max_length, allow_pickle, report)


def run(
    task: Task,
    splits: Splits,
    model: str | Path,
    out: Path,
    recipe: Recipe,
    vocab_size: int | None = None,
    max_length: int | None = None,
    allow_pickle: bool = False,
    report: Report = silent,
) -> dict[str, Any]:
    """`train` after its arguments are read: one model, one seed, one directory."""
    require("torch", "train")
    import torch

    from bertram.training.loop import Examples, Loop
    from bertram.training.torch_runner import TorchRunner

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    network, tokenizer = start(task, splits, model, out, vocab_size, allow_pickle)
    positions = network.config.max_position_embeddings
    max_length = min(max_length or positions, positions)
    inputs, truncated = tokenizer.encode(splits.train.texts, splits.train.texts_b, max_length=max_length)
    examples = Examples(inputs, task.targets(splits.train.labels or []))
    predictor = Predictor(task, tokenizer, TorchRunner(network, device), max_length)
    targets = {"validation": task.targets(splits.validation.labels or [])}
    if splits.test is not None:
        targets["test"] = task.targets(splits.test.labels or [])

    def logits(table: Table) -> Any:
        return predictor.logits(table.texts, table.texts_b)

    def evaluate() -> float:
        return task.scores(logits(splits.validation), targets["validation"])[0].value

    loop = Loop(network, task.head, examples, recipe, out, evaluate=evaluate, report=report, device=device)
    outcome = loop.run()
    network.eval()
    scores: dict[str, list[Score]] = {}
    for name in targets:
        table = splits.validation if name == "validation" else splits.test
        assert table is not None
        values = logits(table)
        with replacing(out / f"logits-{name}.npy") as path, path.open("wb") as file:
            np.save(file, values)
        scores[name] = [s.signed(split=name, seed=recipe.seed) for s in task.scores(values, targets[name])]
    manifest = {
        "format": 1,
        "status": outcome.status,
        "reason": outcome.reason,
        "task": task.to_dict(),
        "base_model": Path(model).name,
        "max_length": max_length,
        "truncated_texts": truncated,
        "data": splits.description,
        "recipe": asdict(recipe),
        "steps": outcome.steps,
        "tokens": outcome.tokens,
        "seconds": round(outcome.seconds, 1),
        "tokens_per_second": round(outcome.tokens / max(outcome.seconds, 1e-9), 1),
        "best_step": outcome.best_step,
        "scores": {name: [asdict(s) for s in values] for name, values in scores.items()},
    }
    _save(network, tokenizer, task, out, manifest)
    return manifest


def start(
    task: Task, splits: Splits, model: str | Path, out: Path, vocab_size: int | None, allow_pickle: bool
) -> tuple["Model", Tokenizer]:
    """The model to train and its tokenizer. A preset's is learned from the training texts, once for every OUT."""
    from bertram.models.heads import Model

    source = artifacts.resolve(model)
    if isinstance(source, Path):
        return artifacts.read_model(source, {task.head: task.outputs}, allow_pickle=allow_pickle), Tokenizer.load(
            source
        )
    if (out / "tokenizer.json").exists():
        tokenizer = Tokenizer.load(out)
    else:
        limit = min(vocab_size or source.vocab_size, source.vocab_size)
        tokenizer = Tokenizer.train(splits.texts(), source.model_type, limit)
        tokenizer.save(out)
    return Model(replace(source, vocab_size=tokenizer.vocab_size), {task.head: task.outputs}), tokenizer


def prepare_directory(out: Path, *, resume: bool) -> dict[str, Any] | None:
    """Check that `out` can take a training; return the manifest of one that is finished there already.

    Raises:
        BadInput: it is a file, not writable, or holds something and `resume` is not given.
    """
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out}: is a file; --out wants a directory")
    if out.is_dir() and any(out.iterdir()):
        if not resume:
            raise BadInput(f"{out}: is not empty; add --resume to go on with the training there, or name another --out")
        manifest = artifacts.read_manifest(out)
        if "status" in manifest:
            return manifest
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise BadInput(f"{out}: cannot be written: {error.strerror}") from None
    return None


def _save(network: "Model", tokenizer: Tokenizer, task: Task, out: Path, manifest: dict[str, Any]) -> None:
    """Write the model directory; bertram.json comes last and makes the training count as finished."""
    from bertram.formats.huggingface import write

    write(network, out, labels=getattr(task, "labels", None))
    tokenizer.save(out)
    manifest["sharing"] = network.config.shared
    manifest["config"] = asdict(network.config)
    write_text(out / "README.md", model_card(manifest))
    manifest["peak_memory_mb"] = round(peak_memory_mb(), 1)
    write_json(out / artifacts.MANIFEST, manifest)


def task_class(name: str | None, labels: list[str] | None) -> type[Task]:
    """The task of that name, or the one that the labels look like.

    Raises:
        BadInput: there is no such task.
    """
    if name is None:
        return guess_task(labels or [])
    if name not in TASKS:
        raise BadInput(f"no task named {name}; there are {', '.join(TASKS)}")
    return TASKS[name]


def summary(manifest: dict[str, Any]) -> str:
    """What a person wants to know after a training, in a few lines."""
    lines = [
        f"{manifest['status']} after {manifest['steps']:,} steps, {manifest['tokens']:,} tokens in {manifest['seconds']:,.0f} s"
    ]
    if manifest["reason"]:
        lines.append(manifest["reason"])
    for name, scores in manifest["scores"].items():
        lines += [f"{name} {score['metric']} {score['value']:.4f}   {score['signature']}" for score in scores]
    return "\n".join(lines)
