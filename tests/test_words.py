"""Words: where they stand in texts as people write them, and how batches hold them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from bertram.batch import Batch
from bertram.errors import BadInput
from bertram.text.tokenizer import Tokenizer
from bertram.text.words import find_words, lay_out, words_of

TEXTS = [text for text, _ in tiny.rows(60)]
WRITTEN = [*TEXTS, "Obama's café, don't (we)?", "a - b ... 12 3,4", "我 爱 北 京", 'he said " no " .', "unbelievable"]
TOKENIZERS = {family: Tokenizer.train(WRITTEN, family, 300) for family in ("bert", "albert")}
LONGEST = 12


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return TOKENIZERS[request.param]


def words(text: str) -> list[str]:
    return [text[start:end] for start, end in find_words(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Obama's speech, the dogs' bowls", "Obama 's speech , the dogs ' bowls"),
        ("Obama’s and the M's, I'm, we'll", "Obama ’s and the M 's , I 'm , we 'll"),
        ("George W. Bush and J.K. Rowling met.", "George W. Bush and J.K. Rowling met ."),
        ("in the U.S. or U.S.-based, e.g. a U.S.A firm", "in the U.S. or U.S. - based , e.g. a U.S.A firm"),
        ("don't, CAN’T or isn't", "do n't , CA N’T or is n't"),
        ("It is 3.5.", "It is 3.5 ."),
        ("٣٫١٤ or ١٬٢٣٤", "٣٫١٤ or ١٬٢٣٤"),
        ("🇩🇪🇫🇷 👍🏽👍", "🇩🇪 🇫🇷 👍🏽 👍"),
        ("👨\u200d👩\u200d👧 ❤\ufe0f👍", "👨\u200d👩\u200d👧 ❤\ufe0f 👍"),
        ("1,234.50 at 10:30, then 1, 2", "1,234.50 at 10:30 , then 1 , 2"),
        ("ask a.b+c@mail.org, or AT&T", "ask a.b+c@mail.org , or AT&T"),
        ("a well-known and/or (odd) –dash", "a well-known and/or ( odd ) – dash"),
        ("we ran. Then $5", "we ran . Then $ 5"),
        ("我爱New York。", "我 爱 New York 。"),
        ("ひらカタ一二", "ひ ら カ タ 一 二"),
        ("한국어 문장", "한국어 문장"),
        ("हिन्दी में किताब।", "हिन्दी में किताब ।"),
        ("l'Europe et d’Angelo", "l' Europe et d’ Angelo"),
        ("Zoe\u0308s cafe\u0301", "Zoe\u0308s cafe\u0301"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("auf\u00adge\u00adben", "auf\u00adge\u00adben"),
        ("❤\ufe0flove か\u3099き", "❤\ufe0f love か\u3099 き"),
        ("", ""),
        (" \t\n\u3000 ", ""),
    ],
)
def test_words_as_treebanks_part_them(text: str, expected: str) -> None:
    assert words(text) == expected.split(" ") if expected else words(text) == []


LETTERS = st.sampled_from(["a", "B", "s", "l", "é", "1", "'", "’", ".", ",", "-", "@", " ", "\n", "\u3000", "中", "か"])
MARKS = st.sampled_from(
    ["\u0301", "\u200d", "\u3099", "\u093f", "\ufe0f", "😀", "\u0640", "\0", "\ud7ff", "\U0010ffff"]
)


@given(st.one_of(st.text(), st.text(LETTERS), st.text(LETTERS | MARKS)))
@settings(max_examples=300)
def test_words_ascend_and_hold_all_that_is_no_white_space(text: str) -> None:
    spans = list(find_words(text))
    borders = [border for span in spans for border in span]
    assert borders == sorted(borders)
    assert all(start < end for start, end in spans)
    covered = "".join(text[start:end] for start, end in spans)
    assert covered == "".join(text.split())


def test_labelled_words_are_found_again_in_their_text() -> None:
    assert words_of(" a  b\tc ") == ["a", "b", "c"]
    for text in TEXTS:
        assert words(text) == words_of(text)


def sequences(batch: Batch) -> list[list[int]]:
    return [part.tolist() for part in np.split(batch.token_ids, batch.offsets[1:-1])] if len(batch) else []


@pytest.mark.parametrize("text", WRITTEN)
def test_a_text_that_fits_has_the_tokens_of_its_words_joined(tokenizer: Tokenizer, text: str) -> None:
    """As pre-training has seen them."""
    found, places = lay_out(tokenizer, [words_of(text)], 512)
    expected, _ = tokenizer.encode([text], max_length=512)
    for name in ("token_ids", "segment_ids", "positions", "offsets"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype
    assert len(places) == len(words_of(text))


@given(
    st.lists(st.text(LETTERS | MARKS, min_size=1, max_size=5), min_size=1, max_size=5),
    st.sampled_from(sorted(TOKENIZERS)),
)
@settings(deadline=None, max_examples=200)
def test_words_have_the_tokens_that_they_have_in_their_text(texts: list[str], family: str) -> None:
    """But where nothing is left of them, which lets a text go on as if they were not there."""
    tokenizer = TOKENIZERS[family]
    kept = [word for text in texts for word in words(text) if len(tokenizer.pieces([word])[0])]
    if kept:
        found, expected = lay_out(tokenizer, [kept], 512).batch, tokenizer.encode([" ".join(kept)], max_length=512)[0]
        np.testing.assert_array_equal(found.token_ids, expected.token_ids)


WORDS = st.sampled_from(["film", "lovely", "unbelievable", "hotel's", "\x01", "\u200b", "字", "zq" * 9, "."])


@given(st.lists(st.lists(WORDS, max_size=12), max_size=4), st.integers(3, 20), st.sampled_from(sorted(TOKENIZERS)))
@settings(deadline=None, max_examples=200)
def test_every_word_stands_in_one_sequence(texts: list[list[str]], max_length: int, family: str) -> None:
    """Read back from the batch: the texts in their order, each word whole but where it is longer than a sequence."""
    tokenizer, budget = TOKENIZERS[family], max_length - 2
    batch, places = lay_out(tokenizer, texts, max_length)
    batch.check(tokenizer.vocab_size, max_length, 1)
    assert (np.diff(places) > 0).all()
    own = [tokenizer.pieces([word])[0].tolist()[:budget] or [tokenizer.unk_id] for text in texts for word in text]
    assert len(places) == len(own)
    for place, pieces in zip(places.tolist(), own, strict=True):
        assert batch.token_ids[place : place + len(pieces)].tolist() == pieces
    for sequence in sequences(batch):
        assert (sequence[0], sequence[-1]) == (tokenizer.cls_id, tokenizer.sep_id)
        assert 3 <= len(sequence) <= max_length
    found = np.searchsorted(batch.offsets, places, side="right") - 1  # sequences of words
    ends = places + [len(pieces) for pieces in own]
    assert (ends < batch.offsets[found + 1]).all()
    assert len(batch.token_ids) == sum(map(len, own)) + 2 * len(batch)
    numbers = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    assert all(len(set(numbers[found == row])) == 1 for row in range(len(batch)))
    for row in range(1, len(batch)):  # a new one begins where a text does, or where the word had no room
        before, first = np.flatnonzero(found == row - 1)[-1], np.flatnonzero(found == row)[0]
        full = len(own[first]) + batch.lengths[row - 1] > max_length
        assert numbers[before] != numbers[first] or full


def test_a_word_longer_than_a_sequence_loses_its_end(tokenizer: Tokenizer) -> None:
    long = "filmroom" * 11
    pieces, _ = tokenizer.pieces([long])
    assert len(pieces) > 2 * LONGEST
    batch, places = lay_out(tokenizer, [["a", long, "film"]], LONGEST)
    assert batch.lengths.max() == batch.lengths[1] == LONGEST
    assert batch.token_ids[places[1] : places[1] + LONGEST - 2].tolist() == pieces[: LONGEST - 2].tolist()
    assert len(places) == 3


def test_what_nothing_is_left_of_is_unknown() -> None:
    tokenizer = TOKENIZERS["bert"]
    batch, places = lay_out(tokenizer, [["\x01", "film", "\x01", "\u200b"]], LONGEST)
    assert batch.token_ids[places[[0, 2, 3]]].tolist() == [tokenizer.unk_id] * 3
    assert batch.token_ids[places[1]] == tokenizer.pieces(["film"])[0][0]


@pytest.mark.parametrize("texts", [[], [[]], [[], []]])
def test_no_words(tokenizer: Tokenizer, texts: list[list[str]]) -> None:
    batch, places = lay_out(tokenizer, texts, LONGEST)
    assert len(batch) == len(batch.token_ids) == len(places) == 0


def test_a_blank_text_between_others_takes_no_sequence(tokenizer: Tokenizer) -> None:
    some, found = (lay_out(tokenizer, texts, LONGEST) for texts in ([["a"], ["film"]], [[], ["a"], [], ["film"], []]))
    assert sequences(some.batch) == sequences(found.batch)
    assert some.places.tolist() == found.places.tolist()


def test_a_tokenizer_without_special_tokens_around_texts_is_refused() -> None:
    with pytest.raises(BadInput, match="no cls token"):
        lay_out(Tokenizer.train(TEXTS, "transformer", 300), [["a"]], LONGEST)
