"""Cells that the table on the terminal and the one of the page have in common."""

from bertram.comparison.results import ShippedEngine, Trained
from bertram.pages.figures import MISSING, quantity, score


def training_memory(row: Trained) -> str:
    """A candidate's peak in megabytes and, if it was trained on a GPU, the peak there: 1,753+16,150."""
    gpu = row.get("training_gpu_memory_mb")
    return quantity(row["training_memory_mb"]) + (f"+{quantity(gpu)}" if gpu else "")


def engine(found: ShippedEngine | None) -> str:
    """What an engine's weights are in, and its own score: int8, 0.891."""
    return MISSING if found is None else f"{found['precision']}, {score(found['score'])}"
