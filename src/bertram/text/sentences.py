"""Where sentences end, and texts cut to pieces that a model can take."""

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

_SPACED, _CHINESE = "[.!?…।॥؟۔]", "[。！？｡]"  # English, Hindi, Arabic, Urdu; Chinese, with no space behind
_STOPS = f"(?:{_SPACED}|{_CHINESE})"
_CLOSING = r"""[\])}"'’”»›」』）》】]*+"""
_END = re.compile(
    rf"""
    {_STOPS} (?<!{_STOPS}.)  # the first of a run, so that no run is tried twice and time stays linear
    (?:
        (?: (?<={_CHINESE}) | {_SPACED}*+ {_CHINESE} ) {_STOPS}*+ {_CLOSING}
    |
        {_STOPS}*+ {_CLOSING} (?=\s)
        (?: (?<!\b[^\W\d_I]\.) | (?<=['’].\.) )  # a single letter is an initial, but for I and the t of "don't."
        (?<!\b(?:Mr|Ms|Dr|Sr|Jr|St|Lt|Vs|vs|Cf|cf)\.)  # all of one length, as looking back asks for
        (?<!\b(?:Mrs|Rev|Hon|Gen|Col|Sgt|Gov|Viz|viz|etc)\.)
        (?<!\b(?:Prof|Capt)\.)
        (?<!\bMessrs\.)
    )
    """,
    re.VERBOSE | re.DOTALL,
)
_FILLED = re.compile(r"\S")
_GAP = re.compile(r"(?<=\S)\s+(?=\S)")


def split_sentences(paragraph: str) -> list[str]:
    """Cut after each . ! ? … । ॥ ؟ ۔ before white space and after each 。！？｡, closing quotes and brackets included.

    Not after titles and other common abbreviations (Mr., Dr., St., etc.), nor after a single letter, which is an
    initial or the end of e.g., i.e. or p.m.; I alone may end a sentence. Some sentences that do end there are not
    parted, which harms less than cutting a name in two. Nothing is lost but white space around sentences; none is
    empty. Time is linear.
    """
    ends = [0, *_sentence_cuts(paragraph), len(paragraph)]
    return [sentence for start, end in pairwise(ends) if (sentence := paragraph[start:end].strip())]


def split_long(text: str, measure: Callable[[list[str]], Sequence[int]], limit: int) -> list[str]:
    """Cut a text into pieces that measure `limit` or less; joined again, with nothing between, they are the text.

    A text within the limit stays whole. A longer one is cut after every sentence, a sentence beyond the limit between
    words, a word beyond it between characters, into pieces as long as they can be. A piece keeps the white space behind
    it, the first also what stands before it, but is measured without. One character is a piece whatever it measures.

    Args:
        text: any text.
        measure: the lengths of some texts, such as their numbers of tokens; more text must not measure less.
        limit: the most that a piece may measure.
    """

    def fits(piece: str) -> bool:
        return measure([piece.strip()])[0] <= limit

    if fits(text):
        return [text]
    ends = [0, *_sentence_cuts(text), len(text)]
    return [piece for start, end in pairwise(ends) for piece in _pieces(text[start:end], fits)]


def _pieces(text: str, fits: Callable[[str], bool]) -> Iterator[str]:
    cuts = () if fits(text) else _word_cuts(text) or _character_cuts(text)
    units, done = len(cuts) + 1, 0

    def joined(count: int) -> str:
        """The next units that are not done, as they stand in the text."""
        start = cuts[done - 1] if done else 0
        return text[start : cuts[done + count - 1]] if done + count < units else text[start:]

    if units == 1:
        yield text
        return
    while done < units:
        count = _most(lambda count: fits(joined(count)), units - done)
        if count:
            yield joined(count)
        else:
            count = 1
            yield from _pieces(joined(count), fits)
        done += count


def _most(fits: Callable[[int], bool], bound: int) -> int:
    """The most that fit, up to `bound`, where more never fit if fewer do not; hardly more than fit are ever tried."""
    high = 1
    while high <= bound and fits(high):
        high *= 2
    low = high // 2
    return low + bisect_left(range(low + 1, min(high, bound + 1)), True, key=lambda count: not fits(count))


def _sentence_cuts(text: str) -> Sequence[int]:
    """Where sentences begin, but for the first."""
    following = (_FILLED.search(text, match.end()) for match in _END.finditer(text))
    return [match.start() for match in following if match]


def _word_cuts(text: str) -> Sequence[int]:
    return [match.end() for match in _GAP.finditer(text)]


def _character_cuts(word: str) -> Sequence[int]:
    """Between the characters of a word that may have white space around it."""
    before = len(word) - len(word.lstrip())
    return range(before + 1, len(word.rstrip()))
