"""The feed of a pre-training: whole corpora in every epoch, pure labels, full batches, any position by itself."""

from itertools import chain, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertram.batch import IGNORED, Examples
from bertram.corpus import blocks as room
from bertram.corpus.blocks import Blocks
from bertram.corpus.parts import Part
from bertram.corpus.sentence_pairs import IN_ORDER, IS_NEXT, SWAPPED
from bertram.corpus.store import TokenStore, build, random_of
from bertram.errors import BadInput
from bertram.text.tokenizer import Tokenizer
from tiny import made

WORDS = [f"w{number}" for number in range(3000)]
DOCUMENTS = 30


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Every word is one token, so that a token says where in the corpus it stands."""
    return Tokenizer.train([" ".join(WORDS)] * 3, "bert", 20_000)


@pytest.fixture(scope="module")
def corpus(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    """Documents of 100 words in 1 to 10 sentences each, w0 w1 w2 … through the whole corpus."""
    random = np.random.default_rng(0)
    parts = []
    for document in range(DOCUMENTS):
        words = WORDS[document * 100 : document * 100 + 100]
        cuts = sorted(random.choice(np.arange(1, 100), document % 10, replace=False).tolist())
        parts.append(Part(document, [" ".join(words[a:b]) for a, b in zip([0, *cuts], [*cuts, 100], strict=True)]))
    directory = tmp_path_factory.mktemp("store")
    build(made(parts), tokenizer, directory, None)
    kept = TokenStore.open(directory)
    assert len(kept.tokens) == 100 * DOCUMENTS
    return kept


def feed(corpus: TokenStore, tokenizer: Tokenizer, objective: Any, **options: Any) -> Blocks:
    chosen = {"max_length": 40, "batch_tokens": 400, "seed": 0, "masking": "token"} | options
    return Blocks(corpus, tokenizer, objective, chosen.pop("masking"), **chosen)


def epoch(source: Blocks, number: int = 0) -> list[Examples]:
    position, found = (number, 0, 0), []
    while position[0] == number:
        batch, position = source.take(position)
        found.append(batch)
    return found


def spans(batch: Examples, corpus: TokenStore, tokenizer: Tokenizer) -> list[tuple[list[int], list[int], int]]:
    """The corpus places of A and B of every sequence, unmasked again, and its label."""
    targets = batch.token_labels["masked_language_model"]
    ids = np.where(targets == IGNORED, batch.inputs.token_ids, targets)
    places = {int(token): place for place, token in enumerate(corpus.tokens)}
    found = []
    for number, (start, end) in enumerate(pairwise(batch.inputs.offsets)):
        row, segments = ids[start:end], batch.inputs.segment_ids[start:end]
        assert [row[0], row[-1]] == [tokenizer.cls_id, tokenizer.sep_id]
        assert batch.inputs.positions[start:end].tolist() == list(range(end - start))
        texts = [[places[int(t)] for t in row[segments == s] if int(t) in places] for s in (0, 1)]
        assert end - start == sum(map(len, texts)) + (3 if texts[1] else 2)
        found.append((*texts, int(batch.labels["sentence_pair"][number])))
    return found


@pytest.mark.parametrize("masking", ["token", "word", "ngram"])
@pytest.mark.parametrize("objective", ["nsp", "sop", "none"])
def test_an_epoch_is_the_whole_corpus_with_pure_labels(
    corpus: TokenStore, tokenizer: Tokenizer, objective: str, masking: str
) -> None:
    seen = np.zeros(len(corpus.tokens), int)
    labels = []
    for batch in epoch(feed(corpus, tokenizer, objective, masking=masking)):
        for a, b, label in spans(batch, corpus, tokenizer):
            labels.append(label)
            seen[a] += 1
            document = a[0] // 100
            assert {place // 100 for place in a} == {document}
            if objective == "sop" and b:
                assert label in (IN_ORDER, SWAPPED)
                joined = a + b if label == IN_ORDER else b + a
                assert joined == list(range(joined[0], joined[-1] + 1))
                assert joined[-1] // 100 == document
            if objective == "nsp" and label == IS_NEXT:
                assert b == list(range(a[-1] + 1, b[-1] + 1))
                assert b[-1] // 100 == document
            elif objective == "nsp" and b:
                assert document not in {place // 100 for place in b}
            if objective == "sop" or label == IS_NEXT:
                seen[b] += 1
            assert b or label == IGNORED
    assert (seen == 1).all()
    assert set(labels) - {IGNORED} == (set() if objective == "none" else {0, 1})


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=8), st.integers(0, 2**16))
def test_a_negative_comes_from_no_part_of_the_same_document(
    tokenizer: Tokenizer, numbers: list[int], seed: int
) -> None:
    """Documents of several parts of 40 words each, as a novel has hundreds."""
    parts = [
        Part(document, [" ".join(WORDS[start : start + 8]) for start in range(40 * place, 40 * place + 40, 8)])
        for place, document in enumerate(np.repeat(np.arange(len(numbers)), numbers).tolist())
    ]
    with TemporaryDirectory() as directory:
        build(made(parts), tokenizer, Path(directory), None)
        corpus = TokenStore.open(Path(directory))
        negatives = 0
        for batch in epoch(feed(corpus, tokenizer, "nsp", seed=seed, max_length=24)):
            for a, b, label in spans(batch, corpus, tokenizer):
                documents = [{parts[place // 40].document for place in span} for span in (a, b)]
                assert len(documents[0]) == 1
                if b:
                    assert (documents[0] == documents[1]) == (label == IS_NEXT)
                    negatives += label != IS_NEXT
        assert negatives


def test_every_position_stands_by_itself(corpus: TokenStore, tokenizer: Tokenizer) -> None:
    """A feed that is asked for a position first gives what one gives that came there by reading."""
    source, position, followed = feed(corpus, tokenizer, "sop"), (0, 0, 0), []
    for _ in range(40):
        batch, following = source.take(position)
        followed.append((position, batch))
        position = following
    for place, batch in followed[::7]:
        again, _ = feed(corpus, tokenizer, "sop").take(place)
        assert np.array_equal(again.inputs.token_ids, batch.inputs.token_ids)
        assert np.array_equal(again.token_labels["masked_language_model"], batch.token_labels["masked_language_model"])


def test_every_epoch_has_new_masks_pairs_and_order(corpus: TokenStore, tokenizer: Tokenizer) -> None:
    source = feed(corpus, tokenizer, "sop")
    first, second = ([spans(batch, corpus, tokenizer) for batch in epoch(source, number)] for number in (0, 1))
    assert first != second
    assert sorted(chain.from_iterable(first)) != sorted(chain.from_iterable(second))
    masks = [np.concatenate([b.token_labels["masked_language_model"] for b in epoch(source, n)]) for n in (0, 1)]
    assert not np.array_equal(np.sort(masks[0]), np.sort(masks[1]))


def test_no_two_purposes_have_the_same_random_numbers() -> None:
    drawn = {random_of(purpose, 3, 0, *more).random() for purpose in ("held out", "order") for more in ((), (1,))}
    assert len(drawn | {random_of("block", 3, 0, 0).random()}) == 5


def test_batches_fill_their_room(corpus: TokenStore, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch has more than its room, and all are as full as some two or three sequences each can make them."""
    monkeypatch.setattr(room, "_BLOCK_TOKENS", 2000)
    sizes = [len(batch.inputs.token_ids) for batch in epoch(feed(corpus, tokenizer, "none", batch_tokens=100))]
    assert max(sizes) <= 100
    assert np.mean(sizes) > 80


@pytest.mark.parametrize(("sequences", "least"), [(2, 0.85), (8, 0.93), (32, 0.96)])
def test_batches_are_as_few_as_can_be_and_even(sequences: int, least: float) -> None:
    lengths = np.random.default_rng(0).integers(95, 129, 2400)
    offsets, most = np.concatenate([[0], np.cumsum(lengths)]), 128 * sequences
    sizes = np.diff(offsets[room._even_cuts(offsets, most)])
    assert sizes.sum() == offsets[-1]
    assert max(sizes) <= most
    assert np.mean(sizes) > least * most
    assert min(sizes[:-1]) > 0.6 * most


def test_no_batch_is_empty_where_there_is_room_for_less_than_a_sequence(
    corpus: TokenStore, tokenizer: Tokenizer
) -> None:
    batches = epoch(feed(corpus, tokenizer, "none", batch_tokens=10))
    assert min(map(len, batches)) == 1


def test_several_blocks_share_out_the_parts(
    corpus: TokenStore, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_BLOCK_TOKENS", 500)
    source = feed(corpus, tokenizer, "none", batch_tokens=30)
    assert source.blocks == 6
    parts = np.concatenate([source._parts(0, block) for block in range(6)])
    assert sorted(parts.tolist()) == list(range(DOCUMENTS))


def test_pairs_with_another_document_need_one(tokenizer: Tokenizer, tmp_path: Path) -> None:
    build(made([Part(0, ["w1 w2", "w3"]), Part(0, ["w4"])]), tokenizer, tmp_path, None)
    with pytest.raises(BadInput, match="two documents"):
        feed(TokenStore.open(tmp_path), tokenizer, "nsp")
    assert epoch(feed(TokenStore.open(tmp_path), tokenizer, "sop"))
