"""Sentence pairs: labels are pure, no text is lost, no word is cut, whatever the documents look like."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertram.batch import IGNORED
from bertram.corpus.sentence_pairs import (
    IN_ORDER,
    IS_NEXT,
    IS_RANDOM,
    OBJECTIVES,
    SWAPPED,
    Draws,
    Pair,
    Passage,
    sentence_order_pairs,
)

ELSEWHERE = 10**6
"""Where another document's text stands in these tests."""
FIRST_WORD = 6
"""Tokens of its first word, which cannot be cut."""


def passage(sentences: list[list[int]], first: int = 0) -> Passage:
    """A passage of sentences, each given as the numbers of tokens of its words."""
    words = np.cumsum([first, *(word for sentence in sentences for word in sentence)])[:-1]
    edges = np.cumsum([first, *(sum(sentence) for sentence in sentences)])
    return Passage(edges.tolist(), lambda start, end: words[(words >= start) & (words < end)].tolist())


def pairs(objective: str, text: Passage, room: int, seed: int = 0) -> list[Pair]:
    def foreign(about: int, most: int, longest: int, sentence: bool) -> tuple[int, int]:
        assert 0 < about <= most
        assert longest > 0
        return ELSEWHERE, ELSEWHERE + min(max(about, FIRST_WORD), longest)

    draws = Draws(np.random.default_rng(seed))
    return list(OBJECTIVES[objective](text, room, draws, foreign))  # type: ignore[index]


texts = st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=12), min_size=1, max_size=8)
rooms, seeds = st.integers(8, 40), st.integers(0, 2**16)


@given(texts, rooms, seeds)
def test_sentence_order_pairs_are_consecutive_spans_of_one_document(
    sentences: list[list[int]], room: int, seed: int
) -> None:
    """Also in documents of one paragraph or one sentence; the spans tile the text, each once."""
    text = passage(sentences, first=100)
    place = 100
    for a, a_end, b, b_end, label in pairs("sop", text, room, seed):
        if label == IGNORED:
            assert (a, b, b_end) == (place, 0, 0)
            place = a_end
        else:
            first, second = ((a, a_end), (b, b_end)) if label == IN_ORDER else ((b, b_end), (a, a_end))
            assert label in (IN_ORDER, SWAPPED)
            assert first[0] == place < first[1] == second[0] < second[1]
            place = second[1]
    assert place == text.edges[-1]


@given(texts, rooms, seeds)
def test_next_sentence_pairs_tile_their_document_and_label_what_is_foreign(
    sentences: list[list[int]], room: int, seed: int
) -> None:
    text = passage(sentences)
    place = 0
    for a, a_end, b, b_end, label in pairs("nsp", text, room, seed):
        assert a == place < a_end
        place = a_end
        if label == IS_NEXT:
            assert b == a_end < b_end
            place = b_end
        elif label == IS_RANDOM:
            assert ELSEWHERE <= b < b_end
        else:
            assert (label, b, b_end) == (IGNORED, 0, 0)
    assert place == text.edges[-1]


@given(texts, rooms, seeds)
def test_single_spans_tile_their_document(sentences: list[list[int]], room: int, seed: int) -> None:
    found = pairs("none", passage(sentences), room, seed)
    assert (found[0].a, found[-1].a_end) == (0, passage(sentences).edges[-1])
    assert all(one.a_end == other.a for one, other in pairwise(found))
    assert all(pair.label == IGNORED for pair in found)


@pytest.mark.parametrize("objective", OBJECTIVES)
@given(sentences=texts, room=rooms, seed=seeds)
def test_sequences_have_room_and_words_stay_whole(
    objective: str, sentences: list[list[int]], room: int, seed: int
) -> None:
    """Words here are of four tokens at most, so that one always has room."""
    text = passage(sentences)
    begins = {*text.words(0, text.edges[-1]), text.edges[-1]}
    for a, a_end, b, b_end, _ in pairs(objective, text, room, seed):
        assert a_end - a + b_end - b + (3 if b_end > b else 2) <= room
        assert {a, a_end} <= begins
        assert b < ELSEWHERE or b_end - b >= min(FIRST_WORD, room - 4)
        if b_end and b < ELSEWHERE:
            assert {b, b_end} <= begins


def test_a_word_longer_than_a_sequence_is_cut() -> None:
    found = pairs("none", passage([[50]]), 12)
    assert len(found) >= 5
    assert found[-1].a_end == 50


def test_a_single_word_makes_no_pair() -> None:
    assert pairs("sop", passage([[3]]), 20) == [Pair(0, 3, 0, 0, IGNORED)]
    assert pairs("nsp", passage([[3]]), 20) == [Pair(0, 3, 0, 0, IGNORED)]


def test_one_sentence_is_parted_between_words() -> None:
    """Tokens 0 1 | 2 3 | 4 5: B begins at 2 or 4, never inside a word."""
    begins = {min(p.a, p.b) for seed in range(50) for p in pairs("sop", passage([[2, 2, 2]]), 128, seed)}
    parted = {max(p.a, p.b) for seed in range(50) for p in pairs("sop", passage([[2, 2, 2]]), 128, seed)} - {0}
    assert begins == {0}
    assert parted == {2, 4}


def test_spans_end_with_sentences_where_they_can() -> None:
    """Sentences of 5, 4 and 6 tokens in sequences of at most 10 + 3: the first two, then the third."""
    text = passage([[1] * 5, [1] * 4, [1] * 6])
    found = {(min(p.a, p.b), max(p.a_end, p.b_end)) for seed in range(40) for p in pairs("sop", text, 13, seed)}
    assert {(0, 9), (9, 15)} <= found


@pytest.mark.parametrize(("objective", "label"), [("nsp", IS_RANDOM), ("sop", SWAPPED)])
def test_half_of_the_pairs_are_negative(objective: str, label: int) -> None:
    """Three standard deviations of a fair coin around one half."""
    text = passage([[1] * 4] * 4000)
    labels = np.array([pair.label for pair in pairs(objective, text, 20)])
    labels = labels[labels != IGNORED]
    assert abs((labels == label).mean() - 0.5) < 1.5 / np.sqrt(len(labels))


def test_lengths_do_not_tell_of_another_document() -> None:
    """Documents of 30 tokens in sequences of up to 128: both kinds of B are as long on average, within four errors."""
    found = [pair for seed in range(1500) for pair in pairs("nsp", passage([[1] * 10] * 3), 128, seed)]
    first = [pair for pair in found if pair.a == 0 and pair.label != IGNORED]
    lengths = {label: [p.b_end - p.b for p in first if p.label == label] for label in (IS_NEXT, IS_RANDOM)}
    errors = sum(np.var(values) / len(values) for values in lengths.values()) ** 0.5
    assert abs(np.mean(lengths[IS_NEXT]) - np.mean(lengths[IS_RANDOM])) < 4 * errors


def test_lengths_are_mostly_the_greatest() -> None:
    draws = Draws(np.random.default_rng(0))
    found = np.array([draws.length(100) for _ in range(20_000)])
    assert (found.min(), found.max()) == (2, 100)
    assert abs((found == 100).mean() - (0.9 + 0.1 / 99)) < 0.01


def test_sentence_order_never_asks_for_another_document() -> None:
    def none(about: int, most: int, longest: int, sentence: bool) -> tuple[int, int]:
        raise AssertionError("another document was asked for")

    assert list(sentence_order_pairs(passage([[1, 1]]), 16, Draws(np.random.default_rng(0)), none))
