"""Words: what taggers say something of, where they stand in a text, and how a batch holds them.

Letters: W words, T tokens of all of them with the special ones.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bertram.batch import Batch, laid_out, ranges
from bertram.errors import BadInput
from bertram.text.tokenizer import Tokenizer

_MARK, _JOINER = "\u0640", "\u02b9"
"""Letters that stand for a combining mark, and for what joins characters without being seen."""
_JOINERS = "\u00ad\u200c\u200d"  # soft hyphens, and what Persian, Hindi and emoji put between parts of one
_PICTURES, _SKINS, _FLAGS = "\U0001f000-\U0001faff\u2600-\u27bf", "\U0001f3fb-\U0001f3ff", "\U0001f1e6-\U0001f1ff"
CHINESE_AND_JAPANESE = r"\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Their characters, for a pattern."""
_LETTER = rf"[^\W{CHINESE_AND_JAPANESE}]"
_END = r"(?:['’](?:s|d|m|ll|re|ve)|n['’]t)\b"  # of Obama's and don't, as treebanks part them
_LETTERS_OF_A_WORD = rf"(?:(?!{_END}){_LETTER})+"
_WORD = re.compile(
    rf"(?:(?!\d){_LETTER}\.){{2,}}(?!\w)"  # U.S.
    r"|\b(?-i:[A-Z])\.(?=\s+(?-i:[A-Z]))"  # George W. Bush
    rf"|{_END}"
    rf"|\b[cdjlmnst](?!{_END})['’](?=\w)"  # the beginning of l'Europe
    rf"|{_LETTERS_OF_A_WORD}(?:(?:(?!{_END})[-'’./&@+]|(?<=\d)[,:\u066b\u066c](?=\d)){_LETTERS_OF_A_WORD})*"
    rf"|[{_FLAGS}]{{2}}"
    rf"|\S[{_MARK}{_JOINER}]*(?:(?:[{_SKINS}]|(?<={_JOINER})[{_PICTURES}])[{_MARK}{_JOINER}]*)*",
    re.IGNORECASE,
)


class _Letters(dict[int, int]):
    """Replaces every combining mark and joiner by a letter, so that the pattern keeps it within its word."""

    def __missing__(self, code: int) -> int:
        character = chr(code)
        mark = _MARK if unicodedata.category(character)[0] == "M" else character
        found = self[code] = ord(_JOINER if character in _JOINERS else mark)
        return found


_LETTERS = _Letters()

Span = tuple[int, int]
"""Where a word begins, and where it ends, in code points."""


def words_of(text: str) -> list[str]:
    """The words of a labelled text, between which spaces stand."""
    return text.split()


def find_words(text: str) -> Iterator[Span]:
    """Where the words of a text as people write it stand.

    Words are parted as in treebanks: punctuation at their edges stands alone, as do an English 's and each
    Chinese or Japanese character; hyphens, and points within abbreviations and numbers, stay.
    """
    return (found.span() for found in _WORD.finditer(text.translate(_LETTERS)))


def begins_word(tokenizer: Tokenizer) -> NDArray[np.bool_]:
    """Which ids a tagger is asked about, [vocab_size]: those that begin a word, the unknown token among them.

    Raises:
        BadInput: as `Tokenizer.starts_word`.
    """
    flags = tokenizer.starts_word & ~tokenizer.special
    flags[tokenizer.unk_id] = True
    return flags


class WordBatch(NamedTuple):
    """Words laid out for a model: every one of them stands in one sequence."""

    batch: Batch
    places: NDArray[np.int64]
    """Of each word's first token among the T, [W], ascending."""


def lay_out(tokenizer: Tokenizer, texts: Sequence[Sequence[str]], max_length: int) -> WordBatch:
    """Texts of words as sequences of [CLS] words [SEP] of at most `max_length` tokens.

    A text that is longer makes several, none of which parts a word. A word of which nothing is left, such as a control
    character, is an unknown token, and one that is longer than a sequence loses its end.

    Raises:
        BadInput: as `Tokenizer.pieces`, or the tokenizer has no [CLS] or [SEP].
    """
    budget = max_length - tokenizer.added
    numbers: dict[str, int] = {}  # of different words, which are few
    words = np.array([numbers.setdefault(word, len(numbers)) for text in texts for word in text], np.int64)
    pieces, counts = tokenizer.pieces(list(numbers), budget)
    counts = np.minimum(counts, budget)
    pieces, counts = pieces[ranges((np.cumsum(counts) - counts)[words], counts[words])], counts[words]
    if (empty := counts == 0).any():
        pieces = np.insert(pieces, np.cumsum(counts)[empty], np.int32(tokenizer.unk_id))
        counts = np.maximum(counts, 1)
    sequences = _sequences([len(text) for text in texts], counts, budget)  # that each word stands in, [W]
    rows = np.bincount(sequences, counts).astype(np.int64) + 2
    if (tokens := int(rows.sum())) >= 2**31:
        raise BadInput(f"{tokens} tokens are more than one batch holds; use fewer texts")
    offsets, positions = laid_out(rows)
    token_ids = np.empty(offsets[-1], np.int32)
    ordinary = np.ones(len(token_ids), np.bool_)
    for place, special in ((offsets[:-1], tokenizer.cls_id), (offsets[1:] - 1, tokenizer.sep_id)):
        token_ids[place], ordinary[place] = special, False
    token_ids[ordinary] = pieces
    places = np.cumsum(counts) - counts + 2 * sequences + 1
    return WordBatch(Batch(token_ids, np.zeros_like(token_ids), positions, offsets), places)


def _sequences(sizes: Sequence[int], counts: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
    """The number of the sequence that each word stands in, [W], of texts of so many words each."""
    found, number, start = np.empty(len(counts), np.int64), -1, 0
    for size in sizes:
        left = 0
        for word, count in enumerate(counts[start : start + size].tolist(), start):
            if count > left:
                number, left = number + 1, budget
            found[word] = number
            left -= count
        start += size
    return found
