"""BPE-dropout (Provilkov et al. 2020): words cut at random while a model learns, so that it sees their parts too.

Before each merge of two pieces, every merge that is possible in the word is left out with some probability, and where
all are left out the word stays as it is.
"""

import json
import random
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bertram.batch import ranges
from bertram.errors import BadInput
from bertram.text.backends import BOUNDARY
from bertram.text.tokenizer import Ints, Tokenizer

_CUTS = 16
"""Ways to cut that are drawn for each word, of which one is drawn wherever the word stands; merging takes Python some
20 µs a word, which one word then costs as often, not every time that it is read."""


class BPEDropout(Tokenizer):
    """A tokenizer that leaves out merges; its texts' pieces are other ones in every epoch of a training.

    The same seed and epoch give the same pieces for the same texts in the same order.
    """

    def __init__(self, tokenizer: Tokenizer, probability: float, seed: int) -> None:
        """Leave out a merge with `probability`, 0 to 1.

        Raises:
            BadInput: the tokenizer does not merge characters by byte-pair encoding, with "▁" where a word begins.
        """
        super().__init__(tokenizer._backend, tokenizer._special)
        model = json.loads(self._backend.to_str(pretty=False))["model"]
        plain = not any(model.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"))
        if model["type"] != "BPE" or not plain or not any(piece.startswith(BOUNDARY) for piece in self.tokens):
            raise BadInput(
                f"BPE-dropout needs byte-pair encoding with {BOUNDARY} before words, which this model has not"
            )
        self._probability, self._seed = probability, seed
        self._places = places = self._backend.get_vocab()
        self._merges = {
            (places[first], places[second]): (rank, places[first + second])
            for rank, (first, second) in enumerate(model["merges"])
        }
        merged = {character for first, second in model["merges"] for character in first + second}
        self._alone = np.array([not merged.intersection(piece) for piece in self.tokens])
        self._begins = self._alone | np.array([piece.startswith(BOUNDARY) for piece in self.tokens])
        self._known: dict[bytes, list[bytes | None]] = {}
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Draw as at the beginning of `epoch`."""
        self._choice = np.random.default_rng([self._seed, epoch])

    def pieces(self, texts: Sequence[str], limit: int | None = None) -> tuple[NDArray[np.int32], Ints]:
        """As `Tokenizer.pieces`, with other merges left out at every call."""
        whole, lengths = super().pieces(texts)
        begins = self._begins[whole]
        begins[1:] |= self._alone[whole[:-1]]
        begins[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
        starts = np.flatnonzero(begins)
        ends = np.append(starts[1:], len(whole))
        stored, size = whole.tobytes(), whole.itemsize
        choices = self._choice.integers(_CUTS, size=len(starts)).tolist()
        words = [
            self._cut(stored[size * start : size * end], choice)
            for start, end, choice in zip(starts.tolist(), ends.tolist(), choices, strict=True)
        ]
        pieces = np.frombuffer(b"".join(words), np.int32)
        counts = np.array([len(word) // size for word in words], np.int64)
        owners = np.repeat(np.arange(len(texts)), lengths)[starts]
        lengths = np.bincount(owners, counts, len(texts)).astype(np.int64)
        if limit is None:
            return pieces, lengths
        return pieces[ranges(np.cumsum(lengths) - lengths, np.minimum(lengths, limit))], lengths

    def _cut(self, word: bytes, choice: int) -> bytes:
        """One of the ways to cut a word, which is given by its pieces' ids."""
        known = self._known.setdefault(word, [None] * _CUTS)
        found = known[choice]
        if found is None:
            found = known[choice] = self._merge(word, random.Random(f"{self._seed} {choice} {word.hex()}"))
        return found

    def _merge(self, word: bytes, draws: random.Random) -> bytes:
        ids = np.frombuffer(word, np.int32).tolist()
        if self.unk_id in ids or len(characters := "".join(self.tokens[piece] for piece in ids)) == len(ids):
            return word
        pieces = [self._places[character] for character in characters]
        while True:
            possible = (
                (*merge, place)
                for place, pair in enumerate(pairwise(pieces))
                if (merge := self._merges.get(pair)) and draws.random() >= self._probability
            )
            first = min(possible, default=None)
            if first is None:
                return np.array(pieces, np.int32).tobytes()
            _, merged, place = first
            pieces[place : place + 2] = [merged]
