"""Learning a vocabulary: the same every time, bounded, Chinese by character."""

import os
import subprocess
import sys
import unicodedata
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from bertram.errors import BadInput
from bertram.text import vocabulary as module
from bertram.text.backends import albert, bert
from bertram.text.tokenizer import Tokenizer
from bertram.text.vocabulary import LEAST, learn_merges, learn_pieces, learn_wordpieces

FAMILIES = {
    "bert": learn_wordpieces,
    "albert": lambda texts, size: [piece for piece, _ in learn_pieces(texts, size)],
    "transformer": lambda texts, size: learn_merges(texts, size)[0],
}
ENCODERS = pytest.mark.parametrize("family", ["bert", "albert"])
FIRST = {
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "albert": ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
    "transformer": ["<pad>", "</s>", "<unk>"],
}
MIXED = ["the lowest tower glows", "slower, lower, low", "酒店的房间很大", "房间不错 ok 房间", "naïve Zoë 3,000!"] * 3
TEXTS = st.lists(st.text("abcdeABC é½①中文房间.,!? 123", min_size=1, max_size=30), min_size=1, max_size=20)


def is_han(character):
    return unicodedata.name(character, "").startswith("CJK UNIFIED")


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def test_two_processes_learn_the_same():
    # Many pieces as frequent as one another, whose order hash tables would decide
    program = f"""
from bertram.text.tokenizer import Tokenizer
import itertools
texts = [" ".join(map("".join, itertools.permutations(word))) for word in ("abcd", "efgh", "中文房间")] + {MIXED}
for family in {list(FAMILIES)}:
    tokenizer = Tokenizer.train(texts, family, 100)
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
    sizes = dict(zip(FAMILIES, (int(line.split()[0]) for line in runs[0].splitlines()), strict=True))
    assert sizes["bert"] == sizes["transformer"] == 100
    assert 60 < sizes["albert"] <= 100


@settings(deadline=None, max_examples=40)
@given(texts=TEXTS, size=st.integers(LEAST, 120))
def test_special_tokens_first_and_no_more_than_asked_for(texts, size):
    for family, learn in FAMILIES.items():
        if not "".join(texts).strip():
            with pytest.raises(BadInput, match="no text"):
                learn(texts, size)
            continue
        vocabulary = list(learn(texts, size))
        assert vocabulary[: len(FIRST[family])] == FIRST[family]
        assert len(set(vocabulary)) == len(vocabulary) <= size


@settings(deadline=None, max_examples=40)
@given(texts=TEXTS.filter(lambda texts: "".join(texts).strip()))
def test_with_room_for_every_character_none_is_unknown(texts):
    for family in FAMILIES:
        tokenizer = Tokenizer.train(texts, family, 200)
        batch, _ = tokenizer.encode(texts, max_length=512)
        assert tokenizer.unk_id not in batch.token_ids


def library_wordpieces(texts, size):
    """The library's trainer on the texts themselves; twice, as characters that are given in order keep it."""
    first = FIRST["bert"]
    for limit in (1, size):
        backend = bert({name: place for place, name in enumerate(FIRST["bert"])})
        backend.model = models.WordPiece({"[UNK]": 0}, unk_token="[UNK]")
        options = {"min_frequency": 2, "special_tokens": first, "show_progress": False}
        backend.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=limit, **options))
        first = FIRST["bert"] + sorted(backend.get_vocab().keys() - FIRST["bert"])
    return backend.get_vocab()


def library_pieces(texts, size):
    backend = albert([(name, 0.0) for name in FIRST["albert"]], unknown=1)
    split = pre_tokenizers.Split(module._ALONE, "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence([backend.pre_tokenizer, split])
    options = {"special_tokens": FIRST["albert"], "unk_token": "<unk>", "show_progress": False}
    backend.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=size, **options))
    return {piece: place for place, piece in enumerate(backend.get_vocab())}


SEPARATED = st.text("ab c\n\t\r\x0b\x1c\x85\u00a0\u3000\u200bdÉé中文`'\"._-!☃▁ 12", min_size=1, max_size=40)


@settings(deadline=None, max_examples=60)
@given(texts=st.lists(SEPARATED, min_size=1, max_size=12), held=st.integers(1, 100))
def test_words_counted_first_give_what_the_library_learns_from_the_texts(texts, held):
    """Whatever separates words, and however often stretches are split into words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_HELD", held)
        patch.setattr(module, "_REPEATS", 3)
        assert learn_wordpieces([*texts, "a"], 150) == library_wordpieces([*texts, "a"], 150)
        found = {piece for piece, _ in learn_pieces([*texts, "a"], 150)}
        assert found == library_pieces([*texts, "a"], 150).keys()


def test_no_more_stretches_are_held_than_so_many_characters_make(monkeypatch):
    monkeypatch.setattr(module, "_HELD", 50)
    texts = [f"no-spaces-{n:03}\nat {n}" for n in range(90)]
    parts = list(module._count_stretches(texts))
    assert max(sum(len(stretch) * count for stretch, count in part.items()) for part in parts) < 50 + len(texts[-1])
    assert sum(map(Counter, parts), Counter()) == Counter(" ".join(texts).split())


@pytest.mark.parametrize(("family", "size"), [("bert", 5 + 2 * 9), ("albert", 5 + 2 + 9)])
def test_room_for_just_the_characters_there_are(family, size):
    """Nine, each more frequent than words are."""
    texts = ["aabbccddeeffgghhii"] * 5
    tokenizer = Tokenizer.train(texts, family, size)
    assert tokenizer.unk_id not in tokenizer.encode(texts, max_length=99)[0].token_ids
    # One more is one too many
    tokenizer = Tokenizer.train([*texts, "a j"], family, size)
    assert tokenizer.unk_id not in tokenizer.encode(texts, max_length=99)[0].token_ids
    assert tokenizer.unk_id in tokenizer.encode(["j"], max_length=99)[0].token_ids


def test_texts_are_read_once(family):
    assert FAMILIES[family](iter(MIXED), 100) == FAMILIES[family](MIXED, 100)


@ENCODERS
def test_memory_does_not_grow_with_the_texts(family):
    """40 MB of text of some 1,000 words, in a process of its own, take less than half of that."""
    program = f"""
import random
from bertram.memory import peak_memory_mb
from bertram.text import vocabulary
draw, vocabulary._HELD = random.Random(0), 2**21
words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(1000)]
texts = [" ".join(draw.choices(words, k=700)) for _ in range(200)]
learn = {{"bert": vocabulary.learn_wordpieces, "albert": vocabulary.learn_pieces}}[{family!r}]
learn(texts, 300)
before = peak_memory_mb()
learn((text + "!" for _ in range(45) for text in texts), 300)
print(45 * sum(map(len, texts)) / 1e6, peak_memory_mb() - before)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    read, grown = map(float, run.stdout.split())
    assert read > 40
    assert grown < read / 2


@ENCODERS
def test_ids_of_special_tokens(family):
    tokenizer = Tokenizer.train(MIXED, family, 100)
    special = [getattr(tokenizer, f"{role}_id") for role in ("pad", "unk", "cls", "sep", "mask")]
    assert special == [0, 1, 2, 3, 4]


@ENCODERS
def test_chinese_characters_stand_singly(family):
    pieces = [piece.removeprefix("##") for piece in FAMILIES[family](["房间房间房间 房间"] * 50 + MIXED, 300)]
    assert {piece for piece in pieces if any(map(is_han, piece))} >= {"房", "间", "酒"}
    assert not [piece for piece in pieces if any(map(is_han, piece)) and len(piece) > 1]
    tokenizer = Tokenizer.train(["房间房间"] * 50 + MIXED, family, 300)
    lengths = tokenizer.encode(["房间房间", "房间"], max_length=20)[0].lengths
    assert lengths[0] - lengths[1] == 2


@ENCODERS
def test_case_and_accents_stay_if_cased(family, tmp_path):
    """Vowels and voicing marks are accents to Unicode, also apart from their letters. transformers reads it so too."""
    texts = ["für Über UBER", "がっこう", "हिन्दी", "ดื่ม"]
    folded, tokenizer = (Tokenizer.train(texts * 3, family, 200, cased=cased) for cased in (False, True))
    assert folded.decode(folded.pieces(texts)[0]) != " ".join(texts)
    tokenizer.save(tmp_path)
    ids = Tokenizer.load(tmp_path).pieces(texts)[0].tolist()
    assert tokenizer.decode(ids) == " ".join(texts)
    assert tokenizer.pieces([unicodedata.normalize("NFD", text) for text in texts])[0].tolist() == ids
    assert AutoTokenizer.from_pretrained(tmp_path)(" ".join(texts), add_special_tokens=False)["input_ids"] == ids


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
        (["a b"], LEAST - 1, "a vocabulary of 15 tokens is too small; it must have at least 16"),
        (["a b"], 2**24 + 1, "a vocabulary of 16777217 tokens is too large; it must have at most 16777216"),
        (["a b", "a\ud800"], 100, "an unpaired surrogate"),
    ],
)
def test_nothing_to_learn_from(family, texts, size, message):
    with pytest.raises(BadInput, match=message):
        Tokenizer.train(texts, family, size)
