"""ROUGE (Lin 2004): how many words, pairs of words, and words in order a summary shares with a reference.

The figures are those of Google's rouge-score 0.1.2, which papers report; tests hold them to it. Its words are runs of
the letters a–z and digits in any case, and it drops all other scripts. Here they count too: characters of Han, kana,
Hangul, Thai, Lao, Burmese and Khmer one by one, as is usual for them, and of most other scripts every run of letters.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from functools import cache
from itertools import pairwise

import numpy as np

from bertram.tasks.porter import stem
from bertram.tasks.task import Floats

KINDS = ("rouge-1", "rouge-2", "rouge-l")

HAN = "[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
SYLLABLES = "[\u3041-\u3096\u309d\u309e\u30a1-\u30fa\u30fc-\u30fe\uff66-\uff9f\uac00-\ud7a3]"
"""Hiragana, Katakana, Hangul."""
SOUTHEAST_ASIAN = (
    "[\u0e01-\u0e3a\u0e40-\u0e4e\u0e50-\u0e59\u0e80-\u0ece\u0ed0-\u0ed9\u0edc-\u0edf"
    "\u1000-\u1049\u1050-\u109d\u1780-\u17d3\u17e0-\u17e9]"
)
"""Thai, Lao, Burmese, Khmer."""
_ONE_BY_ONE = f"{HAN}|{SYLLABLES}|{SOUTHEAST_ASIAN}"
_OTHERS = (
    *((0x0370, 0x0DFF), (0x0F00, 0x0FFF), (0x10A0, 0x177F), (0x1800, 0x1AAF), (0x1B00, 0x1CFF), (0x1F00, 0x1FFF)),
    *((0x2C00, 0x2C5F), (0x2C80, 0x2DFF), (0xA000, 0xA48C), (0xA4D0, 0xA6FF), (0xA800, 0xAB2F), (0xAB70, 0xABFF)),
    *((0xD7B0, 0xD7FF), (0xFB13, 0xFDFF), (0xFE70, 0xFEFC)),
)
"""First and last of blocks of other scripts than Latin, as far as they lie in Unicode's basic plane."""
_MARKS = "\u0300-\u036f"
_SILENT = "\u055b-\u055e\u200c\u200d"
"""Of Armenian's emphasis and questions, and what joins letters or does not: inside words, and no part of them."""


def rouge(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
    """F1 of each hypothesis by each of KINDS, 0 to 1, [N, 3]: with several references the best, each kind for itself.

    Words of more than three letters are compared by their stems, as papers do.
    """
    rows = np.zeros((len(hypotheses), len(KINDS)))
    for row, hypothesis, texts in zip(rows, hypotheses, references, strict=True):
        found = _words(hypothesis)
        row[:] = np.max([_figures(found, _words(text)) for text in texts], axis=0)
    return rows


def unknown_to_rouge_score(texts: Iterable[str]) -> list[str]:
    """How words that rouge-score would drop are counted, where the texts hold some: for a signature."""
    kinds = {"asian:characters": re.compile(_ONE_BY_ONE), "other-scripts:words": re.compile(_other())}
    together = "\n".join(texts).lower()
    return [kind for kind, pattern in kinds.items() if pattern.search(together)]


def _words(text: str) -> list[str]:
    words = [word if word.isascii() else re.sub(f"[{_SILENT}]", "", word) for word in _word().findall(text.lower())]
    return [stem(word) if len(word) > 3 else word for word in words]


@cache
def _word() -> re.Pattern[str]:
    return re.compile(f"[a-z0-9]+|{_ONE_BY_ONE}|{_other()}")


@cache
def _other() -> str:
    """A word of another script: letters, marks and digits. `\\w` would end one at every vowel sign of Hindi."""
    characters = [chr(code) for first, last in _OTHERS for code in range(first, last + 1)]
    letters = "".join(character for character in characters if unicodedata.category(character)[0] in "LMN")
    return f"[{letters}][{letters}{_MARKS}{_SILENT}]*"


def _figures(hypothesis: Sequence[str], reference: Sequence[str]) -> tuple[float, float, float]:
    """F1 by each of KINDS of the words of two texts."""
    return (
        _f1(_shared(hypothesis, reference), len(hypothesis), len(reference)),
        _f1(_shared(pairwise(hypothesis), pairwise(reference)), len(hypothesis) - 1, len(reference) - 1),
        _f1(longest_common(hypothesis, reference), len(hypothesis), len(reference)),
    )


def _shared(hypothesis: Iterable[Hashable], reference: Iterable[Hashable]) -> int:
    """How many things stand in both, as often as in the one that has them less often."""
    return (Counter(hypothesis) & Counter(reference)).total()


def longest_common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest sequence of words that stand in both in this order, other words between them or not.

    Hyyrö 2004, "Bit-parallel LCS-length computation revisited": a row of the usual table is one integer, whose bit i is
    0 where the length grows at a[i], so that a row costs one addition.
    """
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    whole = (1 << len(a)) - 1
    row = whole
    for word in b:
        same = row & places.get(word, 0)
        row = ((row + same) | (row - same)) & whole
    return len(a) - row.bit_count()


def _f1(shared: int, hypothesis: int, reference: int) -> float:
    """Harmonic mean of the shares of two counts that are shared."""
    if not shared:
        return 0.0
    precision, recall = shared / hypothesis, shared / reference
    return 2 * precision * recall / (precision + recall)
