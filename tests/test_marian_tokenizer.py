"""Marian's tokenizers: ids and texts equal to transformers' MarianTokenizer, on models that SentencePiece trains."""

import json

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bertram.errors import BadInput
from bertram.text import marian as module
from bertram.text.marian import read_marian
from bertram.text.sentencepiece import read_unigram
from bertram.text.tokenizer import Tokenizer
from spm import CODES, SOURCE, TARGET, their_tokenizer, train, write

ALPHABET = (
    "abcdefghirst ABT éßüöÉ ﬁ①ｆ＜＞≫ e\u0301u\u0308 \u0344\u1112\u1161\u11ab "
    "\t\n\u00a0\u3000\u200b\u00ad\x00\x07\u2581 "
    ".,;!?'\"()—<>/ 0123 ☃中😀👩‍🚀 "
)
PARTS = [*SOURCE, *TARGET, *CODES, ">>xx<<", ">>", "<<", "</s>", "<unk>", "<pad>", "<s>", "fröh", " ", "　", "▁"]
TEXT = st.lists(st.one_of(st.sampled_from(PARTS), st.text(ALPHABET, max_size=12)), max_size=5).map("".join)

KINDS = {
    "one vocabulary": {},
    "two vocabularies": {"separate": True},
    "no table": {"normalization_rule_name": "identity"},
    "spaces kept": {"remove_extra_whitespaces": False},
    "first word unmarked": {"add_dummy_prefix": False},
    "pieces over words": {"split_by_whitespace": False},
}


@pytest.fixture(scope="module", params=KINDS)
def both(request, tmp_path_factory):
    """Ours, source and target, and transformers'."""
    directory = write(tmp_path_factory.mktemp("marian"), **KINDS[request.param])
    return read_marian(directory), their_tokenizer(directory)


def ids(tokenizer, texts, max_length=400):
    batch, _ = tokenizer.encode(texts, max_length=max_length)
    return [batch.token_ids[start:end].tolist() for start, end in zip(batch.offsets, batch.offsets[1:], strict=False)]


class TestEqualToTransformers:
    @settings(deadline=None, max_examples=150)
    @given(texts=st.lists(TEXT, min_size=1, max_size=5), max_length=st.integers(2, 60))
    def test_ids(self, both, texts, max_length):
        (source, target), theirs = both
        options = {"truncation": True, "max_length": max_length}
        assert ids(source, texts, max_length) == theirs(texts, **options)["input_ids"]
        assert ids(target, texts, max_length) == theirs(text_target=texts, **options)["input_ids"]

    @settings(deadline=None, max_examples=60)
    @given(data=st.data())
    def test_decoding(self, both, data):
        (_, target), theirs = both
        known = sorted(target._backend.get_vocab().values())
        written = data.draw(st.lists(st.sampled_from(known), max_size=20))
        assert target.decode(written) == theirs.decode(written, skip_special_tokens=True)

    def test_special_tokens(self, both):
        (source, target), theirs = both
        for role in ("pad", "unk", "eos"):
            expected = getattr(theirs, f"{role}_token_id")
            assert source._ids[role] == target._ids[role] == expected
        assert source.end_id == theirs.eos_token_id
        assert source.vocab_size == 1 + max(theirs.encoder.values())


@settings(deadline=None, max_examples=200)
@given(text=st.text(ALPHABET + "η\u0314\u0342\u0345 か\u3099 ﾊﾟ ﷺ", max_size=20), kind=st.sampled_from([*KINDS]))
@example(text="\u1112\u1161\u11ab η\u0314\u0342\u0345", kind="one vocabulary")  # three characters are one, and four
def test_texts_are_prepared_as_by_sentencepiece(tmp_path_factory, text, kind):
    options = {name: value for name, value in KINDS[kind].items() if name != "separate"}
    file = tmp_path_factory.getbasetemp() / "prepared.spm"
    file.write_bytes(train(tuple(SOURCE), 120, **options))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(file))
    assert module._preparation(read_unigram(file))(text) == processor.Normalize(text)


def test_by_hand(tmp_path):
    """Numbers are the vocabulary's; a code counts at the beginning alone; what has no number is unknown."""
    write(tmp_path)
    vocabulary = {"</s>": 0, "<unk>": 4, "▁": 7, "B": 5, "1": 6, ">>fr<<": 9, "▁nur": 3, "<pad>": 2}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    source, target = read_marian(tmp_path)
    assert ids(source, ["B 1☃", ">>fr<< B", ">>xx<<B", ""]) == [[7, 5, 7, 6, 4, 0], [9, 7, 5, 0], [4, 7, 5, 0], [0]]
    assert 9 not in ids(source, ["B >>fr<<"])[0]
    assert [source.split_code(text) for text in (">>fr<< B", "B >>fr<<")] == [(">>fr<<", " B"), ("", "B >>fr<<")]
    assert (source.vocab_size, source.pad_id, source.unk_id, source.end_id) == (10, 2, 4, 0)
    assert target.decode([2, 7, 6, 5, 3, 4, 3, 0, 8]) == "1B nur nur"


def test_a_tokenizer_like_others(tmp_path):
    source, _ = read_marian(write(tmp_path))
    vocabulary = source._backend.get_vocab()
    starts = {token: bool(source.starts_word[place]) for token, place in vocabulary.items()}
    assert (starts["▁tower"], starts["e"], starts[">>fr<<"], starts["</s>"]) == (True, False, True, True)
    assert source.special.sum() == 3
    with pytest.raises(BadInput, match=r"^this tokenizer has no mask token, only pad, eos, unk$"):
        _ = source.mask_id
    with pytest.raises(BadInput, match="text 2: an unpaired surrogate"):
        source.encode(["a", "e\ud800"], max_length=9)
    assert isinstance(source, Tokenizer)


@pytest.mark.parametrize("separate", [False, True])
def test_saved_as_it_was_read(tmp_path, separate):
    names = {file.name for file in write(tmp_path, separate=separate).iterdir()}
    for tokenizer in read_marian(tmp_path):
        tokenizer.save(tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").iterdir()} == names - {"out"}
    assert all((tmp_path / "out" / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


class TestRefused:
    def refused(self, directory, message):
        with pytest.raises(BadInput, match=message) as caught:
            read_marian(directory)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(str(directory))

    @pytest.mark.parametrize("name", ["source.spm", "target.spm", "vocab.json"])
    def test_missing(self, tmp_path, name):
        (write(tmp_path) / name).unlink()
        self.refused(tmp_path, rf"{name}: cannot be read \(No such file")

    def test_missing_second_vocabulary(self, tmp_path):
        (write(tmp_path, separate=True) / "target_vocab.json").unlink()
        self.refused(tmp_path, r"target_vocab.json: cannot be read")

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"model_type": "bpe"}, r"its model type is 2, not 1"),
            ({"model_type": "char"}, r"its model type is 4, not 1"),
            ({"byte_fallback": True, "vocab_size": 400}, "byte pieces"),
            ({"user_defined_symbols": "km"}, "user-defined"),
            ({"treat_whitespace_as_suffix": True}, "does not mark the beginnings of words"),
        ],
    )
    def test_other_models(self, tmp_path, options, message):
        write(tmp_path)
        (tmp_path / "target.spm").write_bytes(train(tuple(TARGET), **({"vocab_size": 80} | options)))
        self.refused(tmp_path, message)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("[1]", "must hold one JSON object"),
            ("{", "not readable as JSON"),
            ('{"</s>": 0, "<unk>": 1}', "lacks the pad token '<pad>'"),
            ('{"</s>": 0, "<unk>": "1", "<pad>": 2}', "the id of '<unk>' must be a number from 0 on, not '1'"),
            ('{"</s>": 0, "<unk>": -1, "<pad>": 2}', "must be a number from 0 on, not -1"),
            ('{"</s>": true, "<unk>": 1, "<pad>": 2}', "must be a number from 0 on, not True"),
            ('{"</s>": 0, "<unk>": 1, "<pad>": 123456789012}', "beyond any model's"),
            ("{}", "lacks the pad token"),
        ],
    )
    def test_vocabularies(self, tmp_path, content, message):
        write(tmp_path)
        (tmp_path / "vocab.json").write_text(content)
        self.refused(tmp_path, message)

    def test_settings(self, tmp_path):
        write(tmp_path, config={"separate_vocabs": "no"})
        self.refused(tmp_path, "separate_vocabs must be true or false, not 'no'")


@settings(deadline=None, max_examples=80)
@given(places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4))
def test_damaged_models_are_refused_or_do_no_harm(tmp_path_factory, places):
    directory = tmp_path_factory.getbasetemp() / "damaged"
    directory.mkdir(exist_ok=True)
    write(directory)
    data = bytearray((directory / "source.spm").read_bytes())
    for share, change in places:
        end = 4000 if share < 0.5 else len(data)  # the pieces are a small part of the file beside its table
        data[int(share * end)] ^= change
    (directory / "source.spm").write_bytes(data)
    try:
        source, _ = read_marian(directory)
    except BadInput:
        return
    source.encode([*SOURCE, ALPHABET], max_length=50)
