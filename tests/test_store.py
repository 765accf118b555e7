"""Token stores: what went in comes out, held out once, also when building was stopped on the way."""

import json
import os
import tracemalloc
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest

from bertram.corpus import store
from bertram.corpus.parts import PART_CHARACTERS, Part, Start, read_parts
from bertram.corpus.store import TokenStore, build
from bertram.errors import BadInput
from bertram.text.tokenizer import Tokenizer
from tiny import made, rows

TEXTS = [text for text, _ in rows(240)]
PARTS = [
    Part(place // 2, TEXTS[3 * place : 3 * place + 3], Start(offset=100 * place, document=place // 2))
    for place in range(80)
]
"""Two a document."""
TOKENIZER = Tokenizer.train(TEXTS, "bert", 200)


def read_from(parts: Sequence[Part], start: Start, stop: int | None = None) -> Iterator[Part]:
    """The parts from the one that begins at `start`, until so many of all are read and something interrupts it."""
    for number, part in enumerate(parts):
        if number == stop:
            raise KeyboardInterrupt
        if part.begins >= start:
            yield part


def part_ids(part: Part) -> list[list[int]]:
    batch, _ = TOKENIZER.encode(part.sentences, max_length=128)
    return [batch.token_ids[a + 1 : b - 1].tolist() for a, b in pairwise(batch.offsets)]


def content(directory: Path) -> list[tuple[int, list[list[int]]]]:
    """Every part's document and its sentences' ids."""
    kept = TokenStore.open(directory)
    found = []
    for number, document in enumerate(kept.documents.tolist()):
        edges = kept.sentences[kept.parts[number] : kept.parts[number + 1] + 1]
        found.append((document, [kept.tokens[a:b].tolist() for a, b in pairwise(edges)]))
    return found


EXPECTED = [(part.document, part_ids(part)) for part in PARTS]


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    build(made(PARTS), TOKENIZER, tmp_path, None)
    assert content(tmp_path) == EXPECTED
    assert TokenStore.open(tmp_path).document_count == 40


def test_a_tenth_is_held_out(tmp_path: Path) -> None:
    """Every part stands in one of the two stores, in order, one of every ten in the second; another seed, others."""
    for seed in (0, 1):
        build(made(PARTS), TOKENIZER, tmp_path / f"train{seed}", tmp_path / f"held{seed}", seed=seed)
    train, held_out = content(tmp_path / "train0"), content(tmp_path / "held0")
    assert len(held_out) == 8
    assert sorted(train + held_out) == sorted(EXPECTED)
    assert held_out != content(tmp_path / "held1")


@pytest.mark.parametrize("last", [1, 37, 79])
def test_building_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    """Stopped after `last` parts, with bytes written beyond what progress.json says: nothing twice, nothing lost."""
    monkeypatch.setattr(store, "_CHUNK", 1)
    monkeypatch.setattr(store, "_SAVED_EVERY", 2)
    monkeypatch.setattr(store, "_AHEAD", 1)
    with pytest.raises(KeyboardInterrupt):
        build(partial(read_from, PARTS, stop=last), TOKENIZER, tmp_path / "train", tmp_path / "held")
    with (tmp_path / "train" / "tokens.bin").open("ab") as file:
        file.write(b"torn")
    with pytest.raises(BadInput, match="not a whole token store"):
        TokenStore.open(tmp_path / "train")
    build(partial(read_from, PARTS), TOKENIZER, tmp_path / "train", tmp_path / "held")
    build(made(PARTS), TOKENIZER, tmp_path / "train-whole", tmp_path / "held-whole")
    for name in ("train", "held"):
        assert content(tmp_path / name) == content(tmp_path / f"{name}-whole")


def test_building_goes_on_with_the_part_where_it_stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing before the last part that was saved is read again, not even of the same document."""
    for name, number in {"_CHUNK": 1, "_SAVED_EVERY": 3, "_AHEAD": 1}.items():
        monkeypatch.setattr(store, name, number)
    asked = []

    def corpus(start: Start, stop: int | None = None) -> Iterator[Part]:
        asked.append(start)
        return read_from(PARTS, start, stop)

    with pytest.raises(KeyboardInterrupt):
        build(partial(corpus, stop=57), TOKENIZER, tmp_path / "train", tmp_path / "held")
    build(corpus, TOKENIZER, tmp_path / "train", tmp_path / "held")
    build(made(PARTS), TOKENIZER, tmp_path / "train-whole", tmp_path / "held-whole")
    assert asked == [Start(), PARTS[53].begins]  # 54 parts were saved, the last the second of its document
    for name in ("train", "held"):
        assert content(tmp_path / name) == content(tmp_path / f"{name}-whole")


def test_what_is_done_of_a_document_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done is overwritten with bytes that are no text."""
    for name, number in {"_CHUNK": 1, "_SAVED_EVERY": 1, "_AHEAD": 1}.items():
        monkeypatch.setattr(store, name, number)
    book = tmp_path / "book.txt"
    book.write_text("\n\n".join(TEXTS * 10))
    build(partial(read_parts, [book], "file"), TOKENIZER, tmp_path / "whole", None)

    def stopped(start: Start) -> Iterator[Part]:
        yield from islice(read_parts([book], "file", start), 5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(stopped, TOKENIZER, tmp_path / "killed", None)
    offset = Start(*json.loads((tmp_path / "killed" / "progress.json").read_text())["start"]).offset
    assert offset > 2 * PART_CHARACTERS
    book.write_bytes(b"\xff" * offset + book.read_bytes()[offset:])
    build(partial(read_parts, [book], "file"), TOKENIZER, tmp_path / "killed", None)
    assert content(tmp_path / "killed") == content(tmp_path / "whole")


def test_many_unknown_tokens_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also of those that were counted before building was stopped."""
    build(made(PARTS), TOKENIZER, tmp_path / "known", None)
    assert not caplog.text
    for name, number in {"_CHUNK": 1, "_SAVED_EVERY": 1, "_AHEAD": 1}.items():
        monkeypatch.setattr(store, name, number)
    parts = [Part(0, ["☃ " * 200]), *PARTS[1:]]
    with pytest.raises(KeyboardInterrupt):
        build(partial(read_from, parts, stop=10), TOKENIZER, tmp_path / "strange", None)
    build(partial(read_from, parts), TOKENIZER, tmp_path / "strange", None)
    share = 200 / len(TokenStore.open(tmp_path / "strange").tokens)
    assert f"{share:.0%} of the tokens are unknown to the tokenizer" in caplog.text


def test_of_a_large_corpus_fewer_parts_are_held_out_from_all_of_it(tmp_path: Path) -> None:
    build(made(PARTS), TOKENIZER, tmp_path / "train", tmp_path / "held", held_out_of=20)
    held_out = content(tmp_path / "held")
    assert len(held_out) == 4
    assert held_out[-1] in EXPECTED[-20:]


def test_a_store_is_built_anew_where_files_are_shorter_than_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(made(PARTS), TOKENIZER, tmp_path / "whole", None)
    monkeypatch.setattr(store, "_CHUNK", 1)
    monkeypatch.setattr(store, "_SAVED_EVERY", 1)

    with pytest.raises(KeyboardInterrupt):
        build(partial(read_from, PARTS, stop=40), TOKENIZER, tmp_path / "torn", None)
    assert (tmp_path / "torn" / "progress.json").exists()
    os.truncate(tmp_path / "torn" / "tokens.bin", 3)
    build(made(PARTS), TOKENIZER, tmp_path / "torn", None)
    assert content(tmp_path / "torn") == content(tmp_path / "whole")


def test_no_more_than_a_limit_is_held_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "HELD_OUT_TOKENS", 50)
    build(made(PARTS), TOKENIZER, tmp_path / "train", tmp_path / "held")
    held_out = content(tmp_path / "held")
    assert sum(len(ids) for _, sentences in held_out[:-1] for ids in sentences) < 50
    assert len(held_out) < 8


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_CHUNK", 10_000)

    def peak(times: int) -> int:
        """Python's and numpy's own memory at its most, in bytes, for so many times the parts."""
        tracemalloc.start()
        try:
            build(made(part for _ in range(times) for part in PARTS), TOKENIZER, tmp_path / str(times), None)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # Which chunks are there at once is chance and makes a factor of 2; a corpus held in memory would make one of 10.
    assert peak(200) < 4 * peak(20)


@pytest.mark.parametrize(("parts", "message"), [([], "no text"), (PARTS[:1], "too short")])
def test_too_little_text(tmp_path: Path, parts: list[Part], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        build(made(parts), TOKENIZER, tmp_path / "train", tmp_path / "held", seed=3)


@pytest.mark.parametrize("name", ["tokens", "sentences", "parts", "documents"])
def test_a_store_of_another_size_than_it_says_is_refused(tmp_path: Path, name: str) -> None:
    build(made(PARTS), TOKENIZER, tmp_path, None)
    path = tmp_path / f"{name}.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BadInput, match="not a whole token store"):
        TokenStore.open(tmp_path)


def test_tokens_take_two_bytes_where_they_can(tmp_path: Path) -> None:
    build(made(PARTS), TOKENIZER, tmp_path, None)
    assert json.loads((tmp_path / store.MANIFEST).read_text())["dtype"] == "<u2"
    assert TokenStore.open(tmp_path).tokens.dtype == np.uint16
