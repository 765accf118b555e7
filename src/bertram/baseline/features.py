"""What the baseline sees of texts, or of words that are labelled one by one: features, weighed by tf-idf."""

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np

from bertram.errors import require
from bertram.tasks.task import Task
from bertram.text.words import CHINESE_AND_JAPANESE, words_of

_UNSPACED = CHINESE_AND_JAPANESE + r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # and Thai and Lao, Burmese, Khmer
_AFFIXES = (2, 3, 4)  # characters of a word's beginning and of its end


class Features(ABC):
    """What is looked at of a table's texts."""

    run_lengths: ClassVar[tuple[int, ...]]
    """Of tokens or words that are looked at together, among which fitting chooses."""
    most_iterations: ClassVar[int]
    """Of a fit."""

    @abstractmethod
    def documents(self, texts: Sequence[str], run_length: int) -> Iterable[Any]:
        """What a vectorizer takes, one for each row of logits."""

    @abstractmethod
    def vectorizer(self, run_length: int, **settings: Any) -> Any:
        """A TfidfVectorizer of such documents."""

    @abstractmethod
    def knows(self, feature: str) -> bool:
        """Whether this version can make such a feature of some text."""


class OfTexts(Features):
    """A text, in Unicode's form NFC, is its words, punctuation marks and the characters of scripts that put no space
    between words, alone and in runs of so many.
    """

    run_lengths = (1, 3)
    most_iterations = 1000

    def documents(self, texts: Sequence[str], run_length: int) -> Sequence[str]:
        return texts

    def vectorizer(self, run_length: int, **settings: Any) -> Any:
        text = require("sklearn.feature_extraction.text", "train")
        return text.TfidfVectorizer(
            preprocessor=_normalised,
            token_pattern=_token_pattern(),
            ngram_range=(1, run_length),
            sublinear_tf=True,
            dtype=np.float32,
            **settings,
        )

    def knows(self, feature: str) -> bool:
        return " ".join(re.findall(_token_pattern(), feature)) == feature


class OfWords(Features):
    """A word is itself, its beginning and end, its shape, and the words and shapes of its neighbours: of so many words,
    of which it is the middle one.
    """

    run_lengths = (5,)
    most_iterations = 200  # there are many more words than texts, and more iterations hardly score better

    def documents(self, texts: Sequence[str], run_length: int) -> Iterator[list[str]]:
        for text in texts:
            yield from _of_words(words_of(text), run_length // 2)

    def vectorizer(self, run_length: int, **settings: Any) -> Any:
        text = require("sklearn.feature_extraction.text", "train")
        return text.TfidfVectorizer(analyzer=list, dtype=np.float32, **settings)

    def knows(self, feature: str) -> bool:
        return True


def features_of(task: Task) -> Features:
    """What is looked at for a task."""
    return OfWords() if task.per_word else OfTexts()


@cache
def _token_pattern() -> str:
    """What a token looks like: marks and joiners belong to what they follow, as in Unicode's annex 29, rule WB4."""
    characters = map(chr, range(0x300, 0x10000))  # of those beyond, re's search is several times as slow
    marks = "\u200c\u200d" + "".join(one for one in characters if unicodedata.category(one)[0] == "M")
    word = rf"[^\W{_UNSPACED}]"
    return rf"[{_UNSPACED}][{marks}]*|{word}+(?:[{marks}]+{word}*)*|[^\w\s{marks}][{marks}]*"


def _normalised(text: str) -> str:
    return unicodedata.normalize("NFC", text.lower())


def _of_words(words: Sequence[str], reach: int) -> Iterator[list[str]]:
    outside = [""] * reach
    plain = [*outside, *map(_normalised, words), *outside]
    shapes = [*outside, *map(_shape, words), *outside]
    for place in range(reach, reach + len(words)):
        around = [(near, place + near) for near in range(-reach, reach + 1)]
        word = plain[place]
        yield [
            *(f"{near}={plain[at]}" for near, at in around),
            *(f"{near}~{shapes[at]}" for near, at in around),
            *(f"^{word[:size]}" for size in _AFFIXES),
            *(f"{word[-size:]}$" for size in _AFFIXES),
        ]


def _shape(word: str) -> str:
    """Upper and lower case, digits and other characters of a word; of more than two alike, two."""
    kinds = ("X" if one.isupper() else "x" if one.isalpha() else "0" if one.isdigit() else one for one in word)
    return re.sub(r"(.)\1+", r"\1\1", "".join(kinds))
