"""How the output of a decoder is searched for: what a model says itself, and what a user asks for otherwise."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from bertram.errors import BadInput, bad_option
from bertram.fields import Interval, check_fields

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_BOUNDS = {
    **dict.fromkeys(("beam_size", "n_best"), Interval(1, 1024)),
    **dict.fromkeys(("no_repeat_ngram_size", "min_length"), Interval(0, 1024)),
    "length_penalty": Interval(-10, 10),
    "max_length": Interval(1, 2**20),
}


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a decoder's output is searched for; `SearchOptions` explains the fields.

    Raises:
        BadInput: a value is out of range.
    """

    beam_size: int = 5
    length_penalty: float = 1.0
    n_best: int = 1
    no_repeat_ngram_size: int = 0
    min_length: int = 0
    max_length: int | None = None

    def limits(self, lengths: "NDArray[np.int32]", positions: int) -> "NDArray[np.int32]":
        """Tokens of the outputs for sources of the given lengths at most, the end token counted, both [B].

        By default twice the source's and 16 more, or what `min_length` asks for: translations are seldom half as long
        again as their sources, and what goes on for longer repeats itself. A decoder of so many positions writes one
        more token, the end, at no cost.
        """
        if self.max_length is None:
            limits = (2 * lengths + 16).clip(min=self.min_length + 1)
        else:
            limits = 0 * lengths + self.max_length
        return limits.clip(max=positions + 1)

    def __post_init__(self) -> None:
        check_fields(self, _BOUNDS, bad_option)
        if self.n_best > self.beam_size:
            raise BadInput(f"--n-best {self.n_best}: a beam of {self.beam_size} finds no more than {self.beam_size}")
        if self.max_length is not None and self.max_length < self.min_length:
            raise BadInput(f"--max-length {self.max_length}: is less than --min-length {self.min_length}")


class Hypothesis(NamedTuple):
    """What a search found for a source."""

    ids: list[int]
    """Without the start and the end token."""
    score: float
    """Log-probability divided by (the number of ids + 1) ** length_penalty."""


class SearchOptions(TypedDict, total=False):
    """What to search otherwise than a model's own `Search` says, whose defaults are 5 hypotheses and a penalty of 1."""

    beam_size: int
    """Number of beams; 1 is greedy search. Default: as the model says, otherwise 5."""
    length_penalty: float
    """A hypothesis is scored by its log-probability divided by its length, end token included, to this power. Default:
    as the model says, otherwise 1."""
    n_best: int
    """Number of outputs for each input, best first; above 1 only with --json."""
    no_repeat_ngram_size: int
    """Forbid n-grams of this many tokens from occurring twice in an output; 0: allow them."""
    min_length: int
    """Minimum length of an output in tokens."""
    max_length: int
    """Maximum length of an output in tokens, end token included. Default: twice the input's tokens and 16 more."""
