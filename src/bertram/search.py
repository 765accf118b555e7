"""How the output of a decoder is searched for: what a model says itself, and what a user asks for otherwise."""

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from bertram.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
        for name, least in {"beam_size": 1, "n_best": 1, "no_repeat_ngram_size": 0, "min_length": 0}.items():
            value = getattr(self, name)
            if not _is_whole(value) or not least <= value <= 1024:
                raise BadInput(f"--{name.replace('_', '-')} {value!r:.40}: must be a whole number in {least} to 1,024")
        if not isinstance(self.length_penalty, int | float) or not -10 <= self.length_penalty <= 10:
            raise BadInput(f"--length-penalty {self.length_penalty!r:.40}: must lie in -10 to 10")
        if self.n_best > self.beam_size:
            raise BadInput(f"--n-best {self.n_best}: a beam of {self.beam_size} finds no more than {self.beam_size}")
        least, longest = max(1, self.min_length), self.max_length
        if longest is not None and (not _is_whole(longest) or not least <= longest <= 2**20):
            raise BadInput(f"--max-length {longest!r:.40}: must be a whole number in {least} to {2**20:,}")


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


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
