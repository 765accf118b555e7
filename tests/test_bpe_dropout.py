"""Words cut at random while a model learns: always the same text, other pieces, and the same ones again on request."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bertram
from bertram.batch import Examples
from bertram.errors import BadInput
from bertram.supervised.generation import EncoderDecoderTraining, read_splits
from bertram.tasks.sequence_to_sequence import Translation
from bertram.text.backends import TRANSFORMER_SPECIAL, transformer
from bertram.text.bpe_dropout import BPEDropout
from bertram.text.tokenizer import Tokenizer
from bertram.training.distributed import alone
from bertram.training.feed import ShuffledRows
from bertram.training.metrics_file import read_metrics
from test_generation import SHORT, SIZES, write_pairs
from test_subwords import PAIRS, TEXTS
from tiny import run


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(PAIRS, "transformer", 200)


def ragged(pieces: np.ndarray, lengths: np.ndarray) -> list[list[int]]:
    return [part.tolist() for part in np.split(pieces, np.cumsum(lengths)[:-1])]


@given(texts=TEXTS, probability=st.floats(0, 1), epoch=st.integers(0, 5), limit=st.integers(1, 20))
def test_any_cut_is_of_the_same_text(
    tokenizer: Tokenizer, texts: list[str], probability: float, epoch: int, limit: int
) -> None:
    dropping = BPEDropout(tokenizer, probability, 0)
    dropping.begin(epoch)
    pieces, lengths = dropping.pieces(texts)
    plain = ragged(*tokenizer.pieces(texts))
    for row, expected in zip(ragged(pieces, lengths), plain, strict=True):
        assert tokenizer.decode(row) == tokenizer.decode(expected)
    dropping.begin(epoch)
    first, same = dropping.pieces(texts, limit)
    assert same.tolist() == lengths.tolist()
    assert ragged(first, np.minimum(lengths, limit)) == [row[:limit] for row in ragged(pieces, lengths)]


@given(texts=TEXTS)
def test_without_dropout_pieces_are_the_tokenizers(tokenizer: Tokenizer, texts: list[str]) -> None:
    for found, expected in zip(BPEDropout(tokenizer, 0.0, 0).pieces(texts), tokenizer.pieces(texts), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_where_all_merges_are_left_out_characters_stay(tokenizer: Tokenizer) -> None:
    pieces, _ = BPEDropout(tokenizer, 1.0, 0).pieces(["The hotel regulars"])
    assert [tokenizer.tokens[piece] for piece in pieces] == list("▁The▁hotel▁regulars")


def test_special_tokens_in_a_text_stay_whole(tokenizer: Tokenizer) -> None:
    text = "The</s>hotel <unk> €€"
    pieces, _ = BPEDropout(tokenizer, 1.0, 0).pieces([text])
    plain, _ = tokenizer.pieces([text])
    for special in (tokenizer.end_id, tokenizer.unk_id):
        assert (pieces == special).sum() == (plain == special).sum() > 0
    assert len(pieces) > len(plain)


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_a_merge_is_left_out_as_often_as_asked_for(probability: float) -> None:
    """Of a word of three characters with two merges, by hand: the second, "▁" and "ab", can follow the first alone."""
    vocabulary = {name: place for place, name in enumerate([*TRANSFORMER_SPECIAL.values(), "▁", "a", "b", "ab", "▁ab"])}
    merges = [("a", "b"), ("▁", "ab")]
    tokenizer = Tokenizer(transformer(vocabulary, merges), TRANSFORMER_SPECIAL)
    kept = 1 - probability
    pieces = np.zeros(4)
    for seed in range(2_000):
        pieces[len(BPEDropout(tokenizer, probability, seed).pieces(["ab"])[0])] += 1
    expected = [0, kept * kept, kept * probability, probability]
    np.testing.assert_allclose(pieces / 2_000, expected, atol=4 * np.sqrt(0.25 / 2_000))


def test_epochs_and_seeds_differ_and_repeat(tokenizer: Tokenizer) -> None:
    def drawn(seed: int, epoch: int) -> list[int]:
        dropping = BPEDropout(tokenizer, 0.3, seed)
        dropping.begin(epoch)
        return list(dropping.pieces(PAIRS)[0])

    assert drawn(0, 0) == drawn(0, 0)
    assert len({tuple(drawn(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_tokenizers_of_other_kinds_are_refused(family: str) -> None:
    with pytest.raises(BadInput, match="BPE-dropout needs byte-pair encoding"):
        BPEDropout(Tokenizer.train(PAIRS, family, 120), 0.1, 0)


@pytest.mark.parametrize("separate", [False, True])
def test_a_batch_depends_on_its_position_alone(separate: bool, tmp_path: Path) -> None:
    """A training that goes on somewhere reads what one that was never stopped would have read there."""
    training = EncoderDecoderTraining(
        task=Translation(),
        splits=read_splits("translation", write_pairs(tmp_path, 40)),
        model="transformer-tiny",
        recipe=SHORT,
        separate_vocabularies=separate,
        bpe_dropout=0.3,
        config=SIZES,
    )
    out = tmp_path / "out"
    out.mkdir()

    def feed() -> ShuffledRows:
        setup = training.begin(out, alone())
        return ShuffledRows(setup.examples, None, 0, 64, setup.of_epoch)

    walked, position = [], (0, 0)
    one = feed()
    while position[0] < 3:
        examples, following = one.take(position)
        walked.append((position, examples))
        position = following
    other = feed()
    for place, examples in reversed(walked):
        assert_equal(other.take(place)[0], examples)
    epochs = [
        np.concatenate([e.inputs.token_ids for (epoch, _), e in walked if epoch == number]) for number in range(3)
    ]
    assert len({len(ids) for ids in epochs}) > 1


def assert_equal(found: Examples, expected: Examples) -> None:
    assert found.inputs_b is not None
    assert expected.inputs_b is not None
    for one, other in ((found.inputs, expected.inputs), (found.inputs_b, expected.inputs_b)):
        np.testing.assert_array_equal(one.token_ids, other.token_ids)
        np.testing.assert_array_equal(one.offsets, other.offsets)
    for head, labels in expected.token_labels.items():
        np.testing.assert_array_equal(found.token_labels[head], labels)


def test_it_changes_what_is_learned_and_is_no_part_of_the_model(tmp_path: Path) -> None:
    data = write_pairs(tmp_path, 60)
    losses = {}
    for probability in (0.0, 0.5):
        out = tmp_path / str(probability)
        manifest = bertram.train(
            "translation", data, model="transformer-tiny", config=SIZES, recipe=SHORT, bpe_dropout=probability, out=out
        )
        assert manifest["status"] == "finished"
        losses[probability] = [row["loss"] for row in read_metrics(out / "metrics.jsonl") if "loss" in row]
    assert losses[0.0] != losses[0.5]
    texts = data[0].read_text().splitlines()
    first, second = (Tokenizer.load(tmp_path / str(probability)).pieces(texts)[0] for probability in losses)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["translation", "{data}.en", "{data}.de", "--bpe-dropout", "1"],
            "--bpe-dropout 1.0: must be 0 or more and below 1",
        ),
        (["translation", "{data}.en", "{data}.de", "--bpe-dropout", "nan"], "--bpe-dropout nan: must be 0 or more"),
        (
            ["classification", "{data}.csv", "--bpe-dropout", "0.1"],
            "--bpe-dropout: is for translation and summarization",
        ),
    ],
)
def test_bad_settings_are_told(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(tmp_path, 10)
    given = [argument.replace("{data}", str(tmp_path / "train")) for argument in arguments]
    assert run("train", *given, "--model", "transformer-tiny", "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
