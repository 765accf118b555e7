"""ROUGE and the stems below it are those of Google's rouge-score and NLTK, to the last digit."""

import gzip
import json
import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from nltk.stem.porter import PorterStemmer
from rouge_score.rouge_scorer import RougeScorer

from bertram.tasks import porter
from bertram.tasks.rouge import KINDS, longest_common, rouge, unknown_to_rouge_score

DATA = Path(__file__).parents[1].parent / "shared" / "data"
NAMES = [kind.replace("-", "").replace("l", "L") for kind in KINDS]
NLTK = PorterStemmer()

PREFIXES = ["", "a", "y", "sky", "tr", "hop", "theo", "rat", "feed", "gener", "oper", "syzyg", "control", "condition"]
SUFFIXES = ["", "s", "es", "ies", "ied", "ed", "ing", "eed", "y", "alli", "ational", "tional", "izer", "bli", "logi"]
SUFFIXES += ["fulli", "ness", "icate", "ement", "ment", "sion", "tion", "ll", "e", "ate", "iviti", "ous", "3", "yy"]
WORDS = st.lists(st.sampled_from([*PREFIXES, *SUFFIXES]), min_size=1, max_size=4).map("".join)
TEXTS = st.lists(
    st.one_of(WORDS, st.sampled_from(["The", "cats,", "cat-like", "Ünder", "İ", "été", "-", "_"])), max_size=12
)


def lines(name):
    path = DATA / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"needs shared/data/{name}.jsonl.gz")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def published(hypotheses, references):
    scorer = RougeScorer(NAMES, use_stemmer=True)
    multiple = [scorer.score_multi(texts, text) for text, texts in zip(hypotheses, references, strict=True)]
    return np.array([[scores[name].fmeasure for name in NAMES] for scores in multiple])


def same(hypotheses, references):
    ours = rouge(hypotheses, references)
    np.testing.assert_allclose(ours, published(hypotheses, references), rtol=0, atol=1e-12)
    return ours


def test_by_hand():
    """4 of 5 and of 6 words are shared, 2 of 4 and of 5 pairs, and the cat sat mat stand in order."""
    (found,) = rouge(["The cat sat: mat the!"], [["the cat sat on the mat"]])
    expected = [2 * 5 / 11, 2 * 2 / 9, 2 * 4 / 11]
    assert found == pytest.approx(expected)


def test_the_best_reference_may_differ_by_kind():
    hypothesis, in_order, words = "a b c d", "a b x y", "d c b a"
    (found,) = same([hypothesis], [[words, in_order]])
    (alone,) = rouge([hypothesis], [[words]])
    assert found[0] == alone[0] == 1
    assert found[1:] == pytest.approx([1 / 3, 1 / 2])


def test_stems_find_what_words_do_not():
    hypothesis, reference = ["Summaries were generated"], [["summary, generating"]]
    assert rouge(hypothesis, reference)[0, 0] == pytest.approx(4 / 5)


@pytest.mark.parametrize("texts", [("", "a"), ("a", ""), ("", ""), ("—", "—"), ("é", "é"), ("a", "a"), ("a", "b c")])
def test_short_and_empty_texts(texts):
    same([texts[0]], [[texts[1]]])


@pytest.mark.parametrize(
    ("hypothesis", "reference", "expected"),
    [
        # 5 of 6 characters are shared, 3 of 5 pairs (在垫, 垫子, 子上), and 猫在垫子上 stand in order.
        ("猫坐在垫子上。", "猫在，垫子上睡", [5 / 6, 3 / 5, 5 / 6]),
        # All 7 of the one are among the 8 of the other, of 6 and 7 pairs all but those with 台 and 3を.
        ("カメラ3を見る", "カメラ3台を見る", [14 / 15, 10 / 13, 14 / 15]),
        # 한국 and 서울 are shared of 5 syllables, as pairs of 4; either one stands in order.
        ("한국의 서울", "서울 한국어", [4 / 5, 1 / 2, 2 / 5]),
        ("电影", "film", [0, 0, 0]),
        ("NLP 论文", "nlp论文", [1, 1, 1]),
    ],
)
def test_chinese_japanese_and_korean_by_character(hypothesis, reference, expected):
    assert rouge([hypothesis], [[reference]])[0] == pytest.approx(expected)
    assert rouge([reference], [[hypothesis]])[0] == pytest.approx(expected)


@pytest.mark.parametrize(
    "text", ["Президент подписал закон", "Ο πρόεδρος υπέγραψε", "राष्ट्रपति ने हस्ताक्षर किए", "وقع الرئيس"]
)
def test_words_of_scripts_that_rouge_score_drops(text):
    first, *others = text.split()
    assert rouge([text, text], [[text], [first]])[:, 0] == pytest.approx([1, 2 / (2 + len(others))])
    assert rouge([text], [[text.replace(" ", ", ")]]).tolist() == [[1, 1, 1]]
    assert unknown_to_rouge_score([text]) == ["other-scripts:words"]


@pytest.mark.parametrize(
    "text", ["войны\u0306 идут", "за\u0301мок", "ինչո՞ւ", "می\u200cخواهم", "ශ්\u200dරී", "ᏣᎳᎩ", "ꯃꯩꯇꯩ", "ⲕⲏⲙⲉ"]
)
def test_what_stands_inside_a_word_does_not_end_it(text):
    words = len(text.split())
    assert rouge([text], [[f"{text} x"]])[0, 0] == pytest.approx(2 * words / (2 * words + 1))
    silent = str.maketrans("", "", "\u200c\u200d՞")
    assert rouge([text], [[text.translate(silent)]])[0, 0] == 1


def test_a_mark_after_a_latin_letter_is_no_word():
    same(["e\u0301t", "a\u1ab0"], [["e\u0301t"], ["a"]])


def test_a_script_without_spaces_is_scored_by_character():
    assert rouge(["แมวดำ"], [["แมว"]])[0] == pytest.approx([0.75, 2 / 3, 0.75])
    assert unknown_to_rouge_score(["a cat", "แมว"]) == ["asian:characters"]


def test_no_texts():
    assert rouge([], []).shape == (0, 3)


@given(TEXTS.map(" ".join), st.lists(TEXTS.map(" ".join), min_size=1, max_size=3))
def test_equals_rouge_score(hypothesis, references):
    same([hypothesis], [references])


@given(st.text(max_size=40), st.text(max_size=40))
def test_equals_rouge_score_on_any_characters(hypothesis, reference):
    assume(not unknown_to_rouge_score([hypothesis, reference]))
    same([hypothesis], [[reference]])


@pytest.mark.data
def test_equals_rouge_score_on_real_summaries():
    """Subjects of mails against three references, summaries against a neighbour's, whole dialogues against theirs."""
    mails, dialogues = lines("aeslc/dev")[:150], lines("dialogsum/dev")[:60]
    subjects = [mail["subject"] for mail in mails]
    assert same(subjects, [mail["annotations"] for mail in mails]).mean() > 0.1
    summaries = [dialogue["summary"] for dialogue in dialogues]
    assert same(summaries[1:], [[text] for text in summaries[:-1]]).mean() > 0.05
    same([dialogue["dialogue"] for dialogue in dialogues[:6]], [[text] for text in summaries[:6]])


@given(st.lists(st.sampled_from("abc"), max_size=7), st.lists(st.sampled_from("abcd"), max_size=9))
def test_longest_common_sequence(a, b):
    def subsequences(words, length):
        return set(combinations(words, length))

    lengths = [n for n in range(len(a) + 1) if subsequences(a, n) & subsequences(b, n)]
    assert longest_common(a, b) == longest_common(b, a) == max(lengths)


def test_long_texts_take_no_table():
    """Some 20,000 words a side: a table of 400 million cells would take minutes."""
    words = [str(i % 1000) for i in range(20_000)]
    assert longest_common(words, words[7:]) == len(words) - 7


@given(st.one_of(WORDS, st.text("aeysitlnz", max_size=8)))
def test_stems_equal_those_of_nltk(word):
    assert porter.stem(word) == NLTK.stem(word)


@pytest.mark.data
@pytest.mark.parametrize("name", ["aeslc/dev", "dialogsum/dev"])
def test_stems_of_real_words_equal_those_of_nltk(name):
    words = {word for line in lines(name) for word in re.findall("[a-z0-9]+", json.dumps(line).lower())}
    assert len(words) > 4000
    assert [word for word in words if porter.stem(word) != NLTK.stem(word)] == []
