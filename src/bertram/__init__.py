"""Bertram trains, compares and ships BERT, ALBERT and encoder–decoder models on your own hardware."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertram.artifacts import load as load
    from bertram.comparison.compare import compare as compare
    from bertram.errors import BadInput as BadInput
    from bertram.exporting import export as export
    from bertram.pretraining.pretrain import pretrain as pretrain
    from bertram.search import Search as Search
    from bertram.shrinking.dial import Dial as Dial
    from bertram.shrinking.shrink import shrink as shrink
    from bertram.supervised.train import train as train
    from bertram.training.recipe import Recipe as Recipe

__version__ = "0.1.0"

# What a user reaches as `bertram.…`, and the room it lives in; looked up on first use so that importing stays light.
_PUBLIC = {
    "load": "bertram.artifacts",
    "train": "bertram.supervised.train",
    "pretrain": "bertram.pretraining.pretrain",
    "compare": "bertram.comparison.compare",
    "shrink": "bertram.shrinking.shrink",
    "export": "bertram.exporting",
    "Dial": "bertram.shrinking.dial",
    "Recipe": "bertram.training.recipe",
    "Search": "bertram.search",
    "BadInput": "bertram.errors",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'bertram' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
