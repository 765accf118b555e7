"""A trained model's scores on data that it has not seen: what `bertram evaluate` does."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from bertram.baseline.linear import Baseline
from bertram.errors import BadInput, require_all
from bertram.inference.generator import Generator
from bertram.inference.mask_filler import MaskFiller
from bertram.inference.predictor import Predictor
from bertram.inference.tagger import Tagger
from bertram.search import Search, SearchOptions
from bertram.tasks.sequence_to_sequence import Generation
from bertram.tasks.task import Score
from bertram.text.pairs import Pairs, read_pairs
from bertram.text.rows import Columns
from bertram.text.splits import listed
from bertram.text.table import Table, read_table


def evaluate(predictor: Predictor | Tagger | Baseline, table: Table, name: str = "the data") -> list[Score]:
    """Scores of the model's task on labelled texts, the primary one first; errors call the table by `name`.

    Raises:
        BadInput: a label is not one that the model knows.
    """
    targets = predictor.task.targets(table.labels, name)
    return predictor.task.scores(predictor.logits(table.texts, table.texts_b), targets)


def evaluate_writing(generator: Generator, pairs: Pairs, search: Search | None = None) -> list[Score]:
    """Scores of the texts that a model writes against the right ones, the primary one first."""
    how = search or generator.search
    return score_writing(generator.task, generator.write(pairs.sources, how), pairs, how)


def score_writing(task: Generation, written: Sequence[str], pairs: Pairs, search: Search) -> list[Score]:
    """Scores of texts that were written, so searched for, against the right ones, the primary one first."""
    unusual = {name: value for name, value in asdict(search).items() if value != getattr(Search(), name)}
    told = {"beam": search.beam_size} | {name: value for name, value in unusual.items() if name != "beam_size"}
    return [score.signed(**told) for score in task.scores(written, pairs.targets)]


def evaluate_files(
    model: Predictor | Tagger | Generator | MaskFiller | Baseline,
    files: Sequence[Path],
    columns: Columns,
    search: SearchOptions | None,
) -> list[Score]:
    """Scores on a table, or on two files of aligned lines; `search` changes how texts are searched for.

    Raises:
        BadInput: there is no file, or they cannot be used or do not suit the model.
    """
    if isinstance(model, Generator):
        if (wanted := (search or {}).get("n_best", 1)) > 1:
            raise BadInput(f"--n-best {wanted}: only one output per text is scored")
        require_all(("sacrebleu",) if model.task.name == "translation" else (), "train")
        pairs = read_pairs(*listed(files, most=2), columns=columns, names=model.task.columns)
        return evaluate_writing(model, pairs, replace(model.search, **(search or {})))
    if isinstance(model, MaskFiller):
        raise BadInput(f"{listed(files)[0]}: a model for {model.task.name} is not scored on labels")
    if search:
        raise BadInput(f"--{next(iter(search)).replace('_', '-')}: is for models that write texts")
    (table,) = listed(files, most=1)
    require_all(("sklearn", "scipy"), "train")
    return evaluate(model, read_table(table, columns, per_word=model.task.per_word), str(table))
