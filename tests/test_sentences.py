"""Texts cut to pieces that a model can take. Where sentences end is tested with the corpora that are read by them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertram.text.sentences import split_long, split_sentences

TEXT = " It was late.  We left!\nNobody at the station knew the way. "


def words(texts):
    return [len(text.split()) for text in texts]


def characters(texts):
    return list(map(len, texts))


@pytest.mark.parametrize(
    ("measure", "limit", "pieces"),
    [
        (words, 12, [TEXT]),
        (words, 11, [" It was late.  ", "We left!\n", "Nobody at the station knew the way. "]),
        (words, 5, [" It was late.  ", "We left!\n", "Nobody at the station knew ", "the way. "]),
        (words, 4, [" It was late.  ", "We left!\n", "Nobody at the station ", "knew the way. "]),
        (
            characters,
            7,
            [" It was ", "late.  ", "We ", "left!\n", "Nobody ", "at the ", "station ", "knew ", "the ", "way. "],
        ),
    ],
)
def test_pieces_by_hand(measure, limit, pieces):
    assert split_long(TEXT, measure, limit) == pieces


def test_a_word_beyond_the_limit_is_cut_inside():
    assert split_long(" ab abcdefgh\ta", characters, 3) == [" ab ", "abc", "def", "gh\t", "a"]


def test_chinese_sentences_stand_without_space():
    text = "他走了。我们也走了！站上没有人知道路。"
    assert split_long(text, characters, 10) == ["他走了。", "我们也走了！", "站上没有人知道路。"]
    assert split_long(text, characters, 4) == ["他走了。", "我们也走", "了！", "站上没有", "人知道路", "。"]


@pytest.mark.parametrize("text", ["", " \n", "a", " a "])
@pytest.mark.parametrize("limit", [0, 1])
def test_what_cannot_be_cut_stays_whole(text, limit):
    assert split_long(text, lambda texts: [2] * len(texts), limit) == [text]


PIECES = [*".!?…。”) \n\t\u3000aI1你é", "Mr.", "word", "longer-word ", "  ", "The end. ", "走了。"]


@given(
    st.lists(st.sampled_from(PIECES), max_size=40).map("".join),
    st.integers(1, 30),
    st.sampled_from([words, characters]),
)
def test_nothing_is_lost_and_every_piece_fits(text, limit, measure):
    pieces = split_long(text, measure, limit)
    assert "".join(pieces) == text
    assert all(measure([piece.strip()])[0] <= limit for piece in pieces)
    assert len(pieces) == 1 or all(piece.strip() for piece in pieces)
    assert len(pieces) == 1 or measure([text.strip()])[0] > limit


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join), st.integers(10, 30))
def test_sentences_within_the_limit_stay_whole(text, limit):
    """Every sentence that fits lies inside one piece."""
    pieces = split_long(text, characters, limit)
    ends, place = {0}, 0
    for piece in pieces:
        ends.add(place := place + len(piece))
    place = 0
    for sentence in split_sentences(text):
        start = text.index(sentence, place)
        place = start + len(sentence)
        assert len(sentence) > limit or not any(start < end < place for end in ends)


@given(st.integers(0, 40), st.integers(1, 60))
def test_pieces_are_as_long_as_they_can_be(count, limit):
    """One long sentence: as many words to a piece as fit."""
    pieces = split_long("word " * count, words, limit)
    expected = [min(limit, count - start) for start in range(0, count, limit)]
    assert words(pieces) == (expected or [0])


def test_stops_of_other_languages():
    sentences = ["यह पहला वाक्य है।", "यह दूसरा है॥", "هل هذا سؤال؟", "ہاں۔", "彼は行った｡", "I see."]
    assert split_sentences(" ".join(sentences)) == sentences


@pytest.mark.parametrize("text", ["A sentence of five words. " * 4000, "word " * 20_000, "x" * 100_000])
def test_much_text_is_measured_only_some_times(text):
    """The text as a whole, and then, whatever its length: up to four times a piece to find some that do not fit, and
    up to two times a piece in each of log2(64) tries between."""
    measured = 0

    def count(texts):
        nonlocal measured
        measured += sum(map(len, texts))
        return characters(texts)

    assert "".join(split_long(text, count, 64)) == text
    assert measured < (1 + 4 + 2 * 6) * len(text)
