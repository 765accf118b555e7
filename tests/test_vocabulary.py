"""Learning a vocabulary: the same every time, bounded, Chinese by character."""

import os
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertram.errors import BadInput
from bertram.text.tokenizer import Tokenizer
from bertram.text.vocabulary import LEAST, learn_pieces, learn_wordpieces

FAMILIES = {"bert": learn_wordpieces, "albert": lambda texts, size: [piece for piece, _ in learn_pieces(texts, size)]}
FIRST = {
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "albert": ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
}
MIXED = ["the lowest tower glows", "slower, lower, low", "酒店的房间很大", "房间不错 ok 房间", "naïve Zoë 3,000!"] * 3
TEXTS = st.lists(st.text("abcdeABC é中文房间.,!? 123", min_size=1, max_size=30), min_size=1, max_size=20)


def is_han(character):
    return unicodedata.name(character, "").startswith("CJK UNIFIED")


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def test_two_processes_learn_the_same(family):
    # Many pieces as frequent as one another, whose order hash tables would decide
    program = f"""
from bertram.text.tokenizer import Tokenizer
import itertools
texts = [" ".join(map("".join, itertools.permutations(word))) for word in ("abcd", "efgh", "中文房间")] + {MIXED}
tokenizer = Tokenizer.train(texts, {family!r}, 150)
print(tokenizer.vocab_size, ascii(tokenizer._backend.to_str()))
"""
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]
    assert int(runs[0].split()[0]) > 60


@settings(deadline=None, max_examples=40)
@given(texts=TEXTS, size=st.integers(LEAST, 120))
def test_special_tokens_first_and_no_more_than_asked_for(texts, size):
    for family, learn in FAMILIES.items():
        if not "".join(texts).strip():
            with pytest.raises(BadInput, match="no text"):
                learn(texts, size)
            continue
        vocabulary = list(learn(texts, size))
        assert vocabulary[:5] == FIRST[family]
        assert len(set(vocabulary)) == len(vocabulary) <= size


@settings(deadline=None, max_examples=40)
@given(texts=TEXTS.filter(lambda texts: "".join(texts).strip()))
def test_with_room_for_every_character_none_is_unknown(texts):
    for family in FAMILIES:
        tokenizer = Tokenizer.train(texts, family, 200)
        batch, _ = tokenizer.encode(texts, max_length=512)
        assert tokenizer.unk_id not in batch.token_ids


def test_ids_of_special_tokens(family):
    tokenizer = Tokenizer.train(MIXED, family, 100)
    special = [getattr(tokenizer, f"{role}_id") for role in ("pad", "unk", "cls", "sep", "mask")]
    assert special == [0, 1, 2, 3, 4]


def test_chinese_characters_stand_singly(family):
    pieces = [piece.removeprefix("##") for piece in FAMILIES[family](["房间房间房间 房间"] * 50 + MIXED, 300)]
    assert {piece for piece in pieces if any(map(is_han, piece))} >= {"房", "间", "酒"}
    assert not [piece for piece in pieces if any(map(is_han, piece)) and len(piece) > 1]
    tokenizer = Tokenizer.train(["房间房间"] * 50 + MIXED, family, 300)
    lengths = tokenizer.encode(["房间房间", "房间"], max_length=20)[0].lengths
    assert lengths[0] - lengths[1] == 2


@pytest.mark.parametrize(("family", "stem"), [("bert", "low"), ("albert", "▁low")])
def test_what_words_share_becomes_a_piece(family, stem):
    words = "low lower lowest lowly lowing lowers lowness lowland"
    assert stem in FAMILIES[family]([words] * 9, 60)
    assert Tokenizer.train([words] * 9, family, 60).encode(["low"], max_length=9)[0].lengths.tolist() == [3]


def test_the_rarest_characters_are_left_out(family):
    common = "abcdefgh"
    texts = [common * 10] * 5 + [chr(0x4E00 + n) for n in range(200)]
    tokenizer = Tokenizer.train(texts, family, 40)
    assert tokenizer.vocab_size <= 40
    assert tokenizer.unk_id not in tokenizer.encode([common], max_length=20)[0].token_ids
    assert tokenizer.unk_id in tokenizer.encode(["".join(texts[-200:])], max_length=300)[0].token_ids


@pytest.mark.parametrize(
    ("texts", "size", "message"),
    [
        ([], 100, "there is no text to learn a vocabulary from"),
        (["", " \n\t"], 100, "there is no text to learn a vocabulary from"),
        (["a b"], LEAST - 1, "a vocabulary of 15 tokens is too small; 16 is the least"),
        (["a b", "a\ud800"], 100, "half of a surrogate pair"),
    ],
)
def test_nothing_to_learn_from(family, texts, size, message):
    with pytest.raises(BadInput, match=message):
        Tokenizer.train(texts, family, size)
