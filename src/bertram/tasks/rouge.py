"""ROUGE (Lin 2004): how many words, pairs of words, and words in order a summary shares with a reference.

The figures are those of Google's rouge-score 0.1.2, which papers report; tests hold them to it. Its words are runs of
the letters a–z and digits in any case. What it drops of Chinese, Japanese and Korean is scored by character here, as is
usual for them: every Han character, kana and Hangul syllable is a word. Texts in other scripts have no words, and score
0 as they do there.
"""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise

import numpy as np

from bertram.tasks.porter import stem
from bertram.tasks.task import Floats

KINDS = ("rouge-1", "rouge-2", "rouge-l")

HAN = "[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
SYLLABLES = "[\u3041-\u3096\u309d\u309e\u30a1-\u30fa\u30fc-\u30fe\uac00-\ud7a3]"  # Hiragana, Katakana, Hangul
_WORD = re.compile(f"[a-z0-9]+|{HAN}|{SYLLABLES}")


def rouge(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> Floats:
    """F1 of each hypothesis by each of KINDS, 0 to 1, [N, 3]: with several references the best, each kind for itself.

    Words of more than three letters are compared by their stems, as papers do.
    """
    rows = np.zeros((len(hypotheses), len(KINDS)))
    for row, hypothesis, texts in zip(rows, hypotheses, references, strict=True):
        found = _words(hypothesis)
        row[:] = np.max([_figures(found, _words(text)) for text in texts], axis=0)
    return rows


def has_cjk(texts: Iterable[str]) -> bool:
    """Whether any text holds a word that rouge-score does not know: a character of Chinese, Japanese or Korean."""
    return any(re.search(f"{HAN}|{SYLLABLES}", text) for text in texts)


def _words(text: str) -> list[str]:
    return [stem(word) if len(word) > 3 else word for word in _WORD.findall(text.lower())]


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
