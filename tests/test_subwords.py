"""The Transformer's tokenizer: byte-pair encoding learnt from texts, from which texts can be written again."""

import json
import unicodedata

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, trainers
from transformers import AutoTokenizer

from bertram.errors import BadInput
from bertram.text import vocabulary as module
from bertram.text.backends import transformer
from bertram.text.tokenizer import Tokenizer
from bertram.text.vocabulary import learn_merges

SPECIAL = ["<pad>", "</s>", "<unk>"]
PAIRS = [
    'The café\'s naïve regulars — Zoë, José & co. — paid £12.50 (or ¥1,900) for "coffee".',
    "Ein kleiner Hund läuft über die niedrigsten Türme; es ist nicht weit, nur 3.000 km.",
    "酒店的房间很大，早餐也不错。The hotel 房间 was fine。 Ｆｕｌｌ ｗｉｄｔｈ ﬁne ① ™",
] * 3
WORDS = "low lower lowest lowly lowing lowers lowness lowland"
WHITE = " \t\n\r\x0b\u0085\u00a0\u3000\u2028▁"
LETTERS = f"abcABC éÉñß e\u0301 中文房 .,;!?'\"()—-„“@€§ 0123½① {WHITE}"
TEXTS = st.lists(st.text(LETTERS, max_size=30), min_size=1, max_size=12)


def folded(text):
    """What of a text can be written again: all but which white space there was, and how an accent was encoded."""
    return " ".join(unicodedata.normalize("NFC", text).replace("▁", " ").split())


def pieces(tokenizer, text):
    names = {place: token for token, place in tokenizer._backend.get_vocab().items()}
    return [names[place] for place in tokenizer.pieces([text])[0]]


def rows(tokenizer, *arguments, max_length=512):
    batch, _ = tokenizer.encode(*arguments, max_length=max_length)
    return [batch.token_ids[a:b].tolist() for a, b in zip(batch.offsets, batch.offsets[1:], strict=False)]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(PAIRS, "transformer", 200)


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved")
    tokenizer.save(directory, max_length=64)
    (directory / "config.json").write_text(json.dumps({"model_type": "bart"}))
    return directory


@pytest.fixture(scope="module")
def again(saved):
    """Bertram's reading of it and transformers'."""
    return Tokenizer.load(saved), AutoTokenizer.from_pretrained(saved)


class TestWritingWhatWasRead:
    @settings(deadline=None, max_examples=150)
    @given(texts=TEXTS)
    def test_texts_of_known_characters(self, texts):
        tokenizer = Tokenizer.train([*texts, "a"], "transformer", 300)
        for text, row in zip(texts, rows(tokenizer, texts), strict=True):
            assert tokenizer.unk_id not in row
            assert row[-1] == tokenizer.end_id
            assert tokenizer.decode(row) == folded(text)

    def test_other_words_of_known_characters(self, tokenizer):
        for text in ("paid .", "paid.", "( 12,3 )", "über—", '"The " co', "HoTEZ 1 9"):
            assert tokenizer.decode(rows(tokenizer, [text])[0]) == text

    def test_spaces_before_punctuation_count(self, tokenizer):
        assert rows(tokenizer, ["weit ."]) != rows(tokenizer, ["weit."])

    def test_unknown_characters_are_left_out(self, tokenizer):
        row = rows(tokenizer, ["weit ☃☃ km"])[0]
        assert row.count(tokenizer.unk_id) == 1
        assert tokenizer.decode(row).split() == ["weit", "km"]

    def test_pad_and_end_are_left_out(self, tokenizer):
        assert tokenizer.decode([0, *rows(tokenizer, ["Zoë"])[0], 0, 0]) == "Zoë"
        assert tokenizer.decode([]) == ""


class TestPieces:
    def test_punctuation_and_digits_stand_singly(self, tokenizer):
        assert pieces(tokenizer, "km. 12.") == [*pieces(tokenizer, "km"), ".", "▁", "1", "2", "."]
        mixed = [token for token in tokenizer._backend.get_vocab() if set(token) & set(".,;—(&£¥0123456789")]
        assert all(len(token) == 1 or token in SPECIAL for token in mixed if "£" not in token and "¥" not in token)

    def test_case_and_accents_stay(self):
        tokenizer = Tokenizer.train(["Über über Uber UBER"] * 5, "transformer", 100)
        assert [pieces(tokenizer, word) for word in ("Über", "u\u0308ber")] == [["▁Über"], ["▁über"]]

    def test_what_words_share_becomes_a_piece(self):
        tokenizer = Tokenizer.train([WORDS] * 9, "transformer", 60)
        assert pieces(tokenizer, "low lows") == ["▁low", "▁low", "s"]
        assert tokenizer.starts_word[tokenizer.pieces([WORDS])[0]].sum() == len(WORDS.split())

    def test_merges_by_hand(self):
        """▁ab 3 times, ▁b twice: first a b, then ▁ ab; and ▁ b, as often as what is merged must be."""
        vocabulary, merges = learn_merges(["ab ab b", "ab b c"], 16)
        assert list(vocabulary) == [*SPECIAL, "a", "b", "c", "▁", "ab", "▁ab", "▁b"]
        assert list(vocabulary.values()) == list(range(10))
        assert merges == [("a", "b"), ("▁", "ab"), ("▁", "b")]


class TestRoles:
    def test_ids(self, tokenizer):
        assert [tokenizer.pad_id, tokenizer.end_id, tokenizer.unk_id] == [0, 1, 2]
        assert tokenizer.special.nonzero()[0].tolist() == [0, 1, 2]

    @pytest.mark.parametrize("role", ["cls", "sep", "mask"])
    def test_absent(self, tokenizer, role):
        with pytest.raises(BadInput, match=rf"^this tokenizer has no {role} token, only pad, eos, unk$"):
            getattr(tokenizer, f"{role}_id")

    @pytest.mark.parametrize("family", ["bert", "albert"])
    def test_the_end_of_encoders(self, family):
        tokenizer = Tokenizer.train(PAIRS, family, 100)
        assert tokenizer.end_id == tokenizer.sep_id == rows(tokenizer, ["a"])[0][-1]


class TestEncoding:
    def test_nothing_before_and_an_end_after(self, tokenizer):
        one, two = (list(tokenizer.pieces([text])[0]) for text in ("Zoë", "km"))
        assert rows(tokenizer, ["Zoë", "", "km"]) == [[*one, 1], [1], [*two, 1]]
        assert rows(tokenizer, ["Zoë"], ["km"]) == [[*one, 1, *two, 1]]
        batch, _ = tokenizer.encode(["Zoë", ""], max_length=9)
        assert batch.positions.tolist() == [*range(len(one) + 1), 0]

    def test_the_end_stays_when_texts_are_cut(self, tokenizer):
        batch, cut = tokenizer.encode(["1 2 3 4", "1"], max_length=3)
        assert [tokenizer.decode(row) for row in rows(tokenizer, ["1 2 3 4", "1"], max_length=3)] == ["1", "1"]
        assert (batch.lengths.tolist(), cut) == ([3, 3], 1)

    def test_no_room(self, tokenizer):
        assert len(rows(tokenizer, ["Zoë"], max_length=2)[0]) == 2
        with pytest.raises(BadInput, match="1 tokens leaves no room for text; it must be at least 2"):
            tokenizer.encode(["a"], max_length=1)


class TestFiles:
    @settings(deadline=None, max_examples=100)
    @given(texts=st.lists(st.one_of(st.text(LETTERS + "☃</s>", max_size=30), st.sampled_from(PAIRS)), min_size=1))
    def test_ids_equal_transformers(self, again, texts):
        ours, theirs = again
        assert rows(ours, texts) == theirs(texts)["input_ids"]
        assert rows(ours, texts, texts[::-1]) == theirs(texts, texts[::-1])["input_ids"]

    def test_special_tokens_in_transformers(self, again):
        theirs = again[1]
        assert [theirs.pad_token_id, theirs.eos_token_id, theirs.unk_token_id] == [0, 1, 2]
        assert (theirs.cls_token, theirs.mask_token, theirs.model_max_length) == (None, None, 64)

    def test_read_again(self, tokenizer, saved, tmp_path):
        again = Tokenizer.load(saved)
        assert rows(again, PAIRS) == rows(tokenizer, PAIRS)
        assert (again.end_id, again._special) == (tokenizer.end_id, tokenizer._special)
        Tokenizer.load(saved / "tokenizer.json").save(tmp_path, max_length=64)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            assert (tmp_path / name).read_text() == (saved / name).read_text()

    def test_without_settings(self, saved, tmp_path):
        (tmp_path / "tokenizer.json").write_text((saved / "tokenizer.json").read_text())
        assert Tokenizer.load(tmp_path).end_id == 1

    def test_another_end(self, saved, tmp_path):
        (tmp_path / "tokenizer.json").write_text((saved / "tokenizer.json").read_text())
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>"}))
        with pytest.raises(BadInput, match="the vocabulary lacks the eos token '<end>'"):
            Tokenizer.load(tmp_path)

    def test_a_word_list_without_cls_is_no_encoders(self, tmp_path):
        (tmp_path / "vocab.txt").write_text("<pad>\n</s>\n<unk>\na\n")
        with pytest.raises(BadInput, match=r"the vocabulary lacks the cls token '\[CLS\]'"):
            Tokenizer.load(tmp_path)


class TestLearning:
    @settings(deadline=None, max_examples=60)
    @given(texts=TEXTS, held=st.integers(1, 100))
    def test_words_counted_first_give_what_the_library_learns_from_the_texts(self, texts, held):
        texts = [*texts, "a"]
        direct = transformer({name: place for place, name in enumerate(SPECIAL)}, [])
        options = {"min_frequency": 2, "special_tokens": SPECIAL, "show_progress": False}
        direct.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=150, **options))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "_HELD", held)
            patch.setattr(module, "_REPEATS", 3)
            vocabulary, merges = learn_merges(texts, 150)
        assert vocabulary == direct.get_vocab()
        assert [list(pair) for pair in merges] == json.loads(direct.to_str())["model"]["merges"]

    def test_both_sides_of_pairs(self):
        """A joint vocabulary is learnt from the texts of both."""
        joint = Tokenizer.train(
            (text for side in zip(["house"] * 9, ["Haus"] * 9, strict=True) for text in side), "transformer", 40
        )
        assert [pieces(joint, word) for word in ("house", "Haus")] == [["▁house"], ["▁Haus"]]

    def test_the_boundary_alone_is_no_text(self):
        with pytest.raises(BadInput, match="there is no text to learn a vocabulary from"):
            learn_merges(["", " \n\t▁"], 100)


def test_a_tokenizer_of_another_end_only_model(tmp_path):
    """As T5's: no [CLS], names of its own in the settings."""
    backend = tokenizers.Tokenizer(models.WordLevel({"PAD": 0, "END": 1, "<unk>": 2, "a": 3}, unk_token="<unk>"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"pad_token": "PAD", "eos_token": "END"}))
    assert rows(Tokenizer.load(tmp_path), ["a b"]) == [[3, 2, 1]]
