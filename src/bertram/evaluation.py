"""A trained model's scores on a table: what `bertram evaluate` does."""

from bertram.inference.predictor import Predictor
from bertram.tasks.task import Score
from bertram.text.records import Table


def evaluate(predictor: Predictor, table: Table) -> list[Score]:
    """Scores of the model's task on labelled texts, the primary one first.

    Raises:
        BadInput: a label is not one that the model knows.
    """
    targets = predictor.task.targets(table.labels or [])
    return predictor.task.scores(predictor.logits(table.texts, table.texts_b), targets)
