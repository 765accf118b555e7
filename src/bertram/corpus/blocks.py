"""From a token store to pre-training examples: an endless stream of batches that any position can be read from.

Every epoch goes through all parts of the store in a new order. The next parts that together hold some hundred thousand
tokens are a block; its sequences are cut, paired, shuffled and masked at once, with random numbers that depend on
(seed, epoch, block) alone. So every epoch has new pairs and masks, and a position says all that resuming needs to know.

Letters: B sequences, T tokens of all of them.
"""

from bisect import bisect_right
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bertram.batch import Batch, Examples, Ints, Position, laid_out, ranges
from bertram.config import Masking, SentenceObjective
from bertram.corpus.masking import Masker
from bertram.corpus.sentence_pairs import OBJECTIVES, Draws, Pair, Passage
from bertram.corpus.store import TokenStore, random_of
from bertram.errors import BadInput
from bertram.text.tokenizer import Tokenizer

_BLOCK_TOKENS = 2**18
_TRIES = 4  # to find another document's sentence that is short enough
_BATCHES_A_BLOCK = 16  # at least, since the last one's room is shared out among all


class Blocks:
    """The feed of a pre-training (training/feed.py): position (epoch, block, batch)."""

    start: Position = (0, 0, 0)

    def __init__(
        self,
        store: TokenStore,
        tokenizer: Tokenizer,
        objective: SentenceObjective,
        masking: Masking,
        *,
        max_length: int,
        batch_tokens: int,
        seed: int,
    ) -> None:
        """A batch fills `batch_tokens` as far as whole sequences can.

        Raises:
            BadInput: the store holds one document where pairs of two are asked for, or words cannot be told apart.
        """
        if objective == "nsp" and store.documents[0] == store.documents[-1]:
            raise BadInput(
                "next-sentence pairs need two documents or more, and what is left to train on is one: "
                "give more documents, or --validation, or take --sentence-objective sop or none"
            )
        self.store, self.tokenizer, self.objective = store, tokenizer, objective
        self.max_length, self.batch_tokens, self.seed = max_length, batch_tokens, seed
        self._starts_word = tokenizer.starts_word
        self._masker = Masker(tokenizer.starts_word, tokenizer.special, tokenizer.mask_id, masking)
        tokens = max(_BLOCK_TOKENS, _BATCHES_A_BLOCK * batch_tokens)
        self.blocks = max(1, round(len(store.tokens) / tokens))
        self._epoch, self._order = -1, np.empty(0, np.int64)
        self._planned: tuple[int, int] = (-1, -1)
        self._examples, self._cuts = self._block(0, 0)
        self.steps_per_epoch = float(self.blocks * (len(self._cuts) - 1))  # as far as blocks are like the first
        self.tokens_per_step = len(self._examples.inputs.token_ids) / (len(self._cuts) - 1)

    def take(self, position: Position) -> tuple[Examples, Position]:
        """The batch at (epoch, block, number of the batch in it)."""
        epoch, block, place = position
        examples, cuts = self._block(epoch, block)
        batch = examples.select(np.arange(cuts[place], cuts[place + 1]))
        if place + 2 < len(cuts):
            return batch, (epoch, block, place + 1)
        return batch, (epoch, block + 1, 0) if block + 1 < self.blocks else (epoch + 1, 0, 0)

    def _block(self, epoch: int, block: int) -> tuple[Examples, NDArray[np.int64]]:
        """All sequences of a block, and where each batch of them begins and ends."""
        if self._planned != (epoch, block):
            random = random_of("block", self.seed, epoch, block)
            pairs = self._pairs(self._parts(epoch, block), Draws(random))
            batch, labels = assemble(self.store, random.permutation(pairs), self.tokenizer)
            masked, targets = self._masker.mask(batch, random)
            inputs = Batch(masked, batch.segment_ids, batch.positions, batch.offsets)
            self._examples = Examples(inputs, {"sentence_pair": labels}, {"masked_language_model": targets})
            self._cuts = _even_cuts(batch.offsets, self.batch_tokens)
            self._planned = epoch, block
        return self._examples, self._cuts

    def _parts(self, epoch: int, block: int) -> NDArray[np.int64]:
        """Numbers of the parts that a block is made of."""
        if epoch != self._epoch:
            self._order = random_of("order", self.seed, epoch).permutation(len(self.store))
            self._epoch = epoch
        begin, end = (number * len(self.store) // self.blocks for number in (block, block + 1))
        return self._order[begin:end]

    def _pairs(self, parts: NDArray[np.int64], draws: Draws) -> NDArray[np.int64]:
        """The sequences that these parts are cut into, [B, 5]."""
        documents, make = self.store.documents, OBJECTIVES[self.objective]
        same = np.searchsorted(documents, documents[parts]), np.searchsorted(documents, documents[parts], "right")
        found: list[Pair] = []
        for part, first, last in zip(parts.tolist(), *(places.tolist() for places in same), strict=True):
            foreign = partial(self._foreign, draws, first, last)
            found += make(Passage(self._edges(part), self._words), self.max_length, draws, foreign)
        return np.array(found, np.int64).reshape(-1, len(Pair._fields))

    def _foreign(
        self, draws: Draws, first: int, last: int, about: int, most: int, longest: int, sentence: bool
    ) -> tuple[int, int]:
        """As `Foreign`: a span of any document but that of the parts from `first` to before `last`."""
        for _ in range(_TRIES):
            other = draws.below(len(self.store) - (last - first))
            edges = self._edges(other if other < first else other + last - first)
            # From a sentence that leaves room for so much, any as likely as any other.
            place = draws.below(bisect_right(edges, edges[-1] - about, 1, len(edges) - 1))
            start, end = edges[place], edges[place + 1]
            if end - start <= most:  # the sentence that follows A has its room too
                break
        if not sentence and (words := self._words(start + 1, end)):
            start = words[draws.below(len(words))]
        return start, Passage(edges, self._words).span_near(start, about, most, longest)

    def _edges(self, part: int) -> list[int]:
        """Where the sentences of a part begin, and where the last one ends."""
        first, last = self.store.parts[part : part + 2].tolist()
        edges: list[int] = self.store.sentences[first : last + 1].tolist()
        return edges

    def _words(self, start: int, end: int) -> list[int]:
        places: list[int] = (self._starts_word[self.store.tokens[start:end]].nonzero()[0] + start).tolist()
        return places


def assemble(store: TokenStore, pairs: NDArray[np.int64], tokenizer: Tokenizer) -> tuple[Batch, Ints]:
    """Sequences [CLS] A [SEP], or [CLS] A [SEP] B [SEP] with segment 1 after A, of [B, 5] pairs; and labels [B]."""
    a, a_end, b, b_end, label = pairs.T
    counts = np.stack([a_end - a, b_end - b], 1)  # [B, 2]
    lengths = counts.sum(1) + 2 + (counts[:, 1] > 0)
    offsets, positions = laid_out(lengths)
    token_ids = np.full(offsets[-1], tokenizer.sep_id, np.int32)
    token_ids[offsets[:-1]] = tokenizer.cls_id
    a_places = offsets[:-1] + 1
    b_places = a_places + counts[:, 0] + 1
    sources, targets = np.stack([a, b], 1).ravel(), np.stack([a_places, b_places], 1).ravel()
    token_ids[ranges(targets, counts.ravel())] = store.tokens[ranges(sources, counts.ravel())]
    segment_ids = (positions >= np.repeat(counts[:, 0] + 2, lengths)).astype(np.int32)
    return Batch(token_ids, segment_ids, positions, offsets), label.astype(np.int32)


def _even_cuts(offsets: Ints, batch_tokens: int) -> NDArray[np.int64]:
    """Where to cut sequences into as few batches of at most `batch_tokens` tokens as can be.

    All but the last are about as large. A longer sequence is a batch of its own.
    """
    places = offsets.tolist()
    cuts = _greedy_cuts(places, batch_tokens)
    too_small, room = 0, batch_tokens
    while room - too_small > 1:  # the least room that needs no more batches
        middle = (too_small + room) // 2
        found = _greedy_cuts(places, middle)
        if len(found) == len(cuts):
            cuts, room = found, middle
        else:
            too_small = middle
    return np.array(cuts)


def _greedy_cuts(offsets: list[int], room: int) -> list[int]:
    cuts = [0]
    while cuts[-1] + 1 < len(offsets):
        fitting = bisect_right(offsets, offsets[cuts[-1]] + room) - 1
        cuts.append(max(fitting, cuts[-1] + 1))
    return cuts
