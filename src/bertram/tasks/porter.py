"""The stems of English words by Porter's algorithm (1980, "An algorithm for suffix stripping"), as NLTK has it.

NLTK's `PorterStemmer` changes some rules in its default mode, and rouge-score compares words by what it gives: figures
that are to be equal to those in papers need the very same stems.

Letters: a word's shape has a c for each consonant and a v for each vowel; its measure m counts the places where a
consonant follows a vowel.
"""

from collections.abc import Mapping
from functools import lru_cache

_CACHED = 2**16  # words whose stems are kept: a language's, not all that a corpus spells wrongly

_IRREGULAR = {
    **{word: word for word in ("sky", "news", "inning", "outing", "canning", "howe", "proceed", "exceed", "succeed")},
    "skies": "sky",
    "dying": "die",
    "lying": "lie",
    "tying": "tie",
    "innings": "inning",
    "outings": "outing",
    "cannings": "canning",
}

# The first ending that a word has is the only one that may be replaced, so longer ones stand before those inside them.
_STEP_1 = {"sses": "ss", "ies": "i", "ss": "ss", "s": ""}
_STEP_2 = {
    "ational": "ate",
    "tional": "tion",
    "enci": "ence",
    "anci": "ance",
    "izer": "ize",
    "bli": "ble",
    "entli": "ent",
    "eli": "e",
    "ousli": "ous",
    "ization": "ize",
    "ation": "ate",
    "ator": "ate",
    "alism": "al",
    "iveness": "ive",
    "fulness": "ful",
    "ousness": "ous",
    "aliti": "al",
    "iviti": "ive",
    "biliti": "ble",
    "fulli": "ful",
}
_STEP_3 = {"icate": "ic", "ative": "", "alize": "al", "iciti": "ic", "ical": "ic", "ful": "", "ness": ""}
_STEP_4 = dict.fromkeys("al ance ence er ic able ible ant ement ment ent ou ism ate iti ous ive ize".split(), "")  # noqa: SIM905


@lru_cache(_CACHED)
def stem(word: str) -> str:
    """The stem of a word in small letters. All but a, e, i, o, u and some y are consonants, digits too."""
    if word in _IRREGULAR or len(word) <= 2:
        return _IRREGULAR.get(word, word)
    for step in (_plural, _past, _final_y, _double_suffix, _suffix, _last_suffix, _final_e, _final_ll):
        word = step(word)
    return word


def _plural(word: str) -> str:
    """Step 1a."""
    return word[:-1] if len(word) == 4 and word.endswith("ies") else _replaced(word, _STEP_1, 0)


def _past(word: str) -> str:
    """Step 1b: -ed and -ing, and what the word was before they came."""
    if word.endswith("ied"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    ending = next((ending for ending in ("ed", "ing") if word.endswith(ending)), None)
    if ending is None or "v" not in _shape(base := word.removesuffix(ending)):
        return word
    if base.endswith(("at", "bl", "iz")):
        return base + "e"
    if base[-2:-1] == base[-1] and _shape(base).endswith("c"):
        return base if base.endswith(("l", "s", "z")) else base[:-1]
    return base + "e" if _measure(base) == 1 and _is_short(base) else base


def _final_y(word: str) -> str:
    """Step 1c: to i after a consonant, but in words of two letters."""
    return word[:-1] + "i" if len(word) > 2 and word.endswith("y") and _shape(word)[-2] == "c" else word


def _double_suffix(word: str) -> str:
    """Step 2: one suffix for two."""
    if word.endswith("alli"):
        return _double_suffix(word[:-2]) if _measure(word[:-4]) > 0 else word
    if word.endswith("logi"):  # the l counts to the stem, so that theo- and geo- are long enough
        return word[:-1] if _measure(word[:-3]) > 0 else word
    return _replaced(word, _STEP_2, 1)


def _suffix(word: str) -> str:
    """Step 3: suffixes away, or shorter."""
    return _replaced(word, _STEP_3, 1)


def _last_suffix(word: str) -> str:
    """Step 4: suffixes of longer words away."""
    if word.endswith("ion"):
        return word[:-3] if word.endswith(("sion", "tion")) and _measure(word[:-3]) > 1 else word
    return _replaced(word, _STEP_4, 2)


def _final_e(word: str) -> str:
    """Step 5a."""
    base = word.removesuffix("e")
    return base if _measure(base) > 1 or (_measure(base) == 1 and not _is_short(base)) else word


def _final_ll(word: str) -> str:
    """Step 5b."""
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


def _replaced(word: str, endings: Mapping[str, str], least: int) -> str:
    """The word with its ending replaced, if what stands before it measures `least` or more."""
    for ending, replacement in endings.items():
        if word.endswith(ending):
            base = word.removesuffix(ending)
            return base + replacement if _measure(base) >= least else word
    return word


def _measure(base: str) -> int:
    return _shape(base).count("vc")


def _is_short(base: str) -> bool:
    """Whether an e that follows is heard in the vowel, as in hop(e) and ag(e)."""
    shape = _shape(base)
    return shape == "vc" or (shape.endswith("cvc") and not base.endswith(("w", "x", "y")))


def _shape(base: str) -> str:
    """A y is a vowel after a consonant, so that toy is cvc and syzygy cvcvcv."""
    shape = ""
    for letter in base:
        shape += "v" if letter in "aeiou" or (letter == "y" and shape.endswith("c")) else "c"
    return shape
