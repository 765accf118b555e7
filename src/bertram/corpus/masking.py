"""Masked language modelling: which tokens a model must predict, and what it sees in their place.

BERT masks 15% of the tokens: 80% of these become [MASK], 10% a random token, 10% stay as they are (Devlin et al. 2018,
section 3.1). What is masked together is a token, a whole word (google-research/bert, May 2019), or an n-gram of one to
three whole words, n drawn with p(n) ∝ 1/n (Lan et al. 2019, section 4.1). All else is the same for the three.

Letters: B sequences, T tokens of all of them, W words, U units (what is masked together), V the size of the vocabulary.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bertram.batch import IGNORED, Batch, Ints, budgeted, ranges
from bertram.config import Masking
from bertram.text.tokenizer import Tokenizer

SHARE = 0.15
"""Tokens to mask, as a share of all tokens of a sequence; google-research/bert counts the special ones too."""

_NGRAM_LENGTHS = np.repeat(np.array([1, 2, 3], np.int32), [6, 3, 2])  # any of these with equal chances: p(n) ∝ 1/n
_UNITS_AT_ONCE = 2**15  # what stays in the processor's cache

Bools = NDArray[np.bool_]
Places = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Masker:
    """Masks batches of one vocabulary's tokens."""

    starts_word: Bools  # [V], True where a token begins a word
    special: Bools  # [V], True where a token is neither masked nor put in another's place
    mask_id: int
    masking: Masking

    @classmethod
    def of_tokens(cls, tokenizer: Tokenizer) -> "Masker":
        """One that masks single tokens, for which it does not matter where words begin.

        Raises:
            BadInput: the tokenizer has no [MASK].
        """
        return cls(~tokenizer.special, tokenizer.special, tokenizer.mask_id, "token")

    def mask(self, batch: Batch, rng: np.random.Generator) -> tuple[Ints, Ints]:
        """Mask a batch; every draw comes from `rng`.

        A sequence has a budget of max(1, round(15% of its tokens)) tokens. Its units are taken in random order, those
        longer than what is left of it passed over, so that words and n-grams may not spend it in full. Where all are
        longer than the whole budget, the first is cut to it, so that no sequence goes without a target.

        Passing over favours short n-grams a little: instead of 55%, 27% and 18%, those of 1, 2 and 3 words are 58%, 26%
        and 16% of what is masked in 125 words of a token each, and 71%, 21% and 8% in 20 such words.

        Returns:
            The token ids that the model sees, [T], and the targets, [T]: the id of a masked token, -100 elsewhere.
        """
        masked = self._masked(batch, rng)
        targets = np.full_like(batch.token_ids, IGNORED)
        targets[masked] = batch.token_ids[masked]
        token_ids = batch.token_ids.copy()
        token_ids[masked] = self._seen(targets[masked], rng)
        return token_ids, targets

    def _masked(self, batch: Batch, rng: np.random.Generator) -> Places:
        """The places of masked tokens, ascending."""
        special = self.special.take(batch.token_ids)
        ordinary = np.flatnonzero(~special)
        firsts = self._unit_firsts(batch, special, ordinary, rng)
        lengths = np.diff(firsts, append=len(ordinary))
        bounds = np.searchsorted(ordinary.take(firsts), batch.offsets)
        budgets = np.maximum(1, np.rint(SHARE * batch.lengths)).astype(np.int32)
        spent = _spent(lengths.astype(np.int32), bounds, budgets, rng)
        units = np.flatnonzero(spent)
        return ordinary.take(ranges(firsts.take(units), spent.take(units)))

    def _unit_firsts(self, batch: Batch, special: Bools, ordinary: Places, rng: np.random.Generator) -> Places:
        """Which of the ordinary tokens begin units, [U]; a unit reaches to the next one's first token."""
        if self.masking == "token":
            return np.arange(len(ordinary))
        cut = np.zeros(len(special) + 1, np.bool_)  # True where no word goes on, whatever token stands there
        cut[1:] = special
        cut[batch.offsets] = True
        cut = cut.take(ordinary)
        words = np.flatnonzero(cut | self.starts_word.take(batch.token_ids.take(ordinary)))
        return words if self.masking == "word" else words.take(_ngram_firsts(cut.take(words), rng))

    def _seen(self, ids: Ints, rng: np.random.Generator) -> Ints:
        """What stands in place of masked tokens: [MASK] for 80%, any ordinary token for 10%, themselves for 10%."""
        draws = rng.random(len(ids))
        seen = np.where(draws < 0.8, np.int32(self.mask_id), ids)
        random = np.flatnonzero(draws >= 0.9)
        seen[random] = rng.choice(np.flatnonzero(~self.special), len(random))
        return seen


def _ngram_firsts(cut: Bools, rng: np.random.Generator) -> Places:
    """Which of W words begin n-grams, where each run of words is tiled with n-grams of drawn lengths.

    `cut` [W] is True where a run begins. The end of a run may cut its last n-gram short.
    """
    draws = rng.integers(len(_NGRAM_LENGTHS), size=len(cut), dtype=np.uint8)  # one a word: enough for n-grams of 1
    lengths = _NGRAM_LENGTHS.take(draws)
    before = lengths.cumsum(dtype=np.int64) - lengths
    runs = np.flatnonzero(cut)
    words = np.diff(runs, append=len(cut))
    firsts = before + (runs - before.take(runs)).repeat(words)
    return firsts.take(np.flatnonzero(firsts < (runs + words).repeat(words)))


def _spent(lengths: Ints, bounds: Places, budgets: Ints, rng: np.random.Generator) -> Ints:
    """How many tokens of each unit are masked, [U]: all or none, but for a unit that is cut to the budget.

    Sequence i has the units bounds[i]:bounds[i + 1] of the lengths [U], and a budget of budgets[i] tokens. In rounds
    over many sequences, each takes its units in order for as long as they fit, then keeps only those that are no longer
    than what is left: the same as going through the units one by one. Where none fits, the first is cut before.
    """
    counts = np.diff(bounds)
    spent = np.zeros(len(lengths), np.int32)
    lengths = np.pad(lengths, (0, counts.max(initial=1)))
    for rows in budgeted(counts, _UNITS_AT_ONCE):
        order = rng.random((len(rows), counts[rows].max(initial=1)), np.float32).argsort(1)
        units = order + bounds[rows, None]
        length = np.where(order < counts[rows, None], lengths[units], 0)  # no unit: length 0
        left = budgets[rows, None]
        unsure = np.flatnonzero((length[:, 0] == 0) | (length[:, 0] > left[:, 0]))  # else the first unit fits
        none_fits = unsure[~((length[unsure] > 0) & (length[unsure] <= left[unsure])).any(1)]
        first = none_fits, (length[none_fits] > 0).argmax(1)
        length[first] = np.minimum(length[first], budgets[rows[none_fits]])
        while len(length):
            taken = (length > 0) & (length.cumsum(1, np.int32) <= left)
            spent[units[taken]] = length[taken]
            left = left - (length * taken).sum(1, np.int32, keepdims=True)
            length[taken | (length > left)] = 0
            unfinished = length.any(1)
            units, length, left = units[unfinished], length[unfinished], left[unfinished]
    return spent
