"""Entities: runs of words, read from the labels that words are given.

Labels such as B-PER and I-PER begin an entity and go on with it; E- and S-, or L- and U-, may mark its end and an
entity of one word. Whatever they are, entities are read as conlleval (Tjong Kim Sang & Buchholz 2000) and seqeval do:
an I- that follows another kind begins one too.

Letters: W words, L labels, E entities.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]
_PREFIXED = re.compile(r"([BIESLU])-(.+)", re.DOTALL)
OUTSIDE = "O"


class Entities(NamedTuple):
    """E runs of words, in the order of the text."""

    starts: Numbers  # [E], the first word
    ends: Numbers  # [E], the word behind the last
    kinds: Numbers  # [E], by their place in `Scheme.names`


@dataclass(frozen=True)
class Scheme:
    """What each of L labels says of a word; the last row stands for no label, which is as outside.

    Attributes:
        names: of the kinds of entities.
        kinds: the kind of each label's entity, -1 outside of any, [L + 1].
        begins, ends: whether no entity goes on into its word or beyond it, [L + 1].
    """

    names: tuple[str, ...]
    kinds: Numbers
    begins: NDArray[np.bool_]
    ends: NDArray[np.bool_]

    @classmethod
    def of(cls, labels: Sequence[str]) -> "Scheme":
        """What labels are called says it. Without O or prefixes, as for parts of speech, every word stands alone.

        Where labels are B, I and O, which say no kind, there is one kind, called "_" as in seqeval.
        """
        if {"B", OUTSIDE} <= set(labels) <= set("BIESLUO"):
            labels = [label if label == OUTSIDE else f"{label}-_" for label in labels]
        parts = [match.groups() if (match := _PREFIXED.fullmatch(label)) else ("", label) for label in labels]
        alone = OUTSIDE not in labels and not any(prefix for prefix, _ in parts)
        inside = [label != OUTSIDE for label in labels]
        names = tuple(dict.fromkeys(name for (_, name), kept in zip(parts, inside, strict=True) if kept))
        kinds = [names.index(name) if kept else -1 for (_, name), kept in zip(parts, inside, strict=True)]
        return cls(
            names,
            np.array([*kinds, -1]),
            np.array([*(alone or prefix in ("B", "S", "U") for prefix, _ in parts), False]),
            np.array([*(alone or prefix in ("E", "L", "S", "U") for prefix, _ in parts), False]),
        )

    def read(self, labels: Numbers, texts: Numbers) -> Entities:
        """The entities of words with these labels, [W], -1 for none, in texts of these numbers, [W]."""
        kinds = self.kinds[labels]
        inside = kinds >= 0
        first = np.concatenate([[True], texts[1:] != texts[:-1]])[: len(texts)]
        goes_on = np.zeros(len(labels), np.bool_)
        goes_on[1:] = inside[1:] & (kinds[1:] == kinds[:-1]) & ~self.begins[labels[1:]] & ~self.ends[labels[:-1]]
        goes_on &= ~first
        starts = np.flatnonzero(inside & ~goes_on)
        last = np.ones(len(labels), np.bool_)
        last[:-1] = ~goes_on[1:]
        return Entities(starts, np.flatnonzero(inside & last) + 1, kinds[starts])
