"""Corpora: which files, which documents, which sentences; and that none of it needs much memory or time."""

import gzip
import json
import os
import random
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertram.corpus.parts import (
    PART_CHARACTERS,
    Part,
    Start,
    corpus_files,
    guess_documents,
    read_parts,
    split_sentences,
)
from bertram.errors import BadInput

DATA = Path(__file__).parents[1].parent / "shared" / "data"


def write(path, content):
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize(
    ("paragraph", "sentences"),
    [
        ("One. Two! Three? Four… Five", ["One.", "Two!", "Three?", "Four…", "Five"]),
        ('"Well?" he said. (Yes.) He went.', ['"Well?"', "he said.", "(Yes.)", "He went."]),
        ("“Stop!” ‘So.’ And... yes?! No.", ["“Stop!”", "‘So.’", "And...", "yes?!", "No."]),
        ("Mr. J. R. Smith met Dr. Who, Mrs. Lee and Prof. Ho, etc. at St. Ives.", None),
        ("Some, e.g. two, i.e. a pair, came at 5 p.m. to the U.S. embassy.", None),
        ("It costs $3.50 at example.org, v1.2.", None),
        ("It was I. I can't. You won't.", ["It was I.", "I can't.", "You won't."]),
        ("Plums. Drum. Vest. Adrs.", ["Plums.", "Drum.", "Vest.", "Adrs."]),
        (
            "他说：“你好！”然后走了。真的？！是（对。）完 了",
            ["他说：“你好！”", "然后走了。", "真的？！", "是（对。）", "完 了"],
        ),
        ("等等……还有……。走", ["等等……还有……。", "走"]),
        ("  Go.\n\tOn.  ", ["Go.", "On."]),
        (". . !", [".", ".", "!"]),
        (" \n", []),
    ],
)
def test_sentences(paragraph, sentences):
    assert split_sentences(paragraph) == (sentences or ([paragraph] if paragraph.strip() else []))


@given(
    st.lists(st.sampled_from([*".!?…。！？\"')” \n\t\u3000aI1你'", "Mr.", "etc.", " e.g. "]), max_size=60).map("".join)
)
def test_nothing_is_lost_but_white_space(paragraph):
    sentences = split_sentences(paragraph)
    assert "".join("".join(sentences).split()) == "".join(paragraph.split())
    assert all(sentence and sentence == sentence.strip() for sentence in sentences)
    position = 0
    for sentence in sentences:
        assert paragraph[position:].lstrip().startswith(sentence)
        position = paragraph.index(sentence, position) + len(sentence)


@pytest.mark.parametrize("unit", [".", '."', '"', ". ", "。", "......a", ".\u201d ", "\u2019", " ", "a", "Mr. "])
def test_splitting_takes_linear_time(unit):
    """A million characters take a fraction of a second; in quadratic time they would take hours."""
    began = time.process_time()
    split_sentences(unit * (10**6 // len(unit)) + "a")
    assert time.process_time() - began < 10


def test_files_of_a_corpus(tmp_path):
    for name in ("b.txt", "a.jsonl.gz", "c.txt.gz", "README.md", "d.gz", "e.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "inner.txt").mkdir()
    (tmp_path / "inner.txt" / "x.txt").touch()
    found = ["a.jsonl.gz", "b.txt", "c.txt.gz", "e.jsonl"]
    assert corpus_files([tmp_path]) == [tmp_path / name for name in found]
    assert corpus_files([tmp_path, tmp_path / "e.jsonl"]) == [tmp_path / name for name in found]
    assert corpus_files([str(tmp_path / "c.txt.gz"), tmp_path / "inner.txt"]) == [
        tmp_path / "c.txt.gz",
        tmp_path / "inner.txt" / "x.txt",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.txt", "no such file or directory"),
        ("table.csv", "what kind of text is it? Names end with .txt, .jsonl; .gz may follow"),
        ("empty", "no file in it is named .txt or .jsonl; .gz may follow"),
        ("linked", "is a link to ../gone.txt, which does not exist"),
    ],
)
def test_sources_that_are_no_corpus(tmp_path, name, message):
    (tmp_path / "table.csv").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.md").touch()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "a.txt").symlink_to("../gone.txt")
    (tmp_path / "linked" / "b.txt").touch()
    at = "linked/a.txt" if name == "linked" else name
    with pytest.raises(BadInput) as caught:
        corpus_files([tmp_path / name])
    assert str(caught.value) == f"{tmp_path / at}: {message}"


def test_a_name_that_is_not_utf8(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).touch()
    with pytest.raises(BadInput, match="is not in UTF-8, as names of files"):
        corpus_files(tmp_path)


WRAPPED = "\ufeffA TITLE\n\n\n It was\r\na day. And\nnight.\n \nEnd.\n"


def test_a_file_is_a_document(tmp_path):
    files = [write(tmp_path / "a.txt", WRAPPED), write(tmp_path / "b.txt", "\n \n"), write(tmp_path / "c.txt.gz", "C.")]
    assert list(read_parts(files, "file")) == [
        Part(0, ["A TITLE", "It was a day.", "And night.", "End."]),
        Part(1, ["C."]),
    ]


def test_a_blank_line_ends_a_document(tmp_path):
    files = [write(tmp_path / "a.txt", WRAPPED), write(tmp_path / "b.txt", "\n\nTitle\nSo. Then.\n\n")]
    assert list(read_parts(files, "blank-line")) == [
        Part(0, ["A TITLE"]),
        Part(1, ["It was", "a day.", "And", "night."]),
        Part(2, ["End."]),
        Part(3, ["Title", "So.", "Then."]),
    ]


def test_an_object_is_a_document(tmp_path):
    texts = ["One.\n\nTwo. Three", " ", "Drei\nvier", ""]
    lines = "".join(json.dumps({"text": text, "more": 1}) + "\n\n" for text in texts)
    files = [write(tmp_path / "a.jsonl.gz", lines), write(tmp_path / "b.txt", "Four.")]
    for documents in ("file", "blank-line"):
        assert list(read_parts(files, documents)) == [
            Part(0, ["One.", "Two.", "Three"]),
            Part(1, ["Drei", "vier"]),
            Part(2, ["Four."]),
        ]


def test_guessing_what_parts_documents(tmp_path):
    one, two = write(tmp_path / "a.txt", "A.\n\nB."), write(tmp_path / "b.txt.gz", "C.\n\nD.")
    objects = write(tmp_path / "c.jsonl", "")
    assert guess_documents([one]) == guess_documents([one, objects]) == guess_documents([objects] * 2) == "blank-line"
    assert guess_documents([one, two]) == "file"
    assert [part.document for part in read_parts([one])] == [0, 1]
    assert [part.document for part in read_parts([one, two])] == [0, 1]


def prose(characters, seed=0):
    """Words, some of which end sentences and some of which are abbreviations."""
    rng = random.Random(seed)
    words = ["word", "Mr.", "longer", "end.", "a", "no!", '"so?"', "etc.", "J."]
    return " ".join(rng.choice(words) for _ in range(characters // 4))


@pytest.mark.parametrize("documents", ["file", "blank-line"])
@pytest.mark.parametrize("end", ["", ".gz"])
def test_reading_begins_at_any_part(tmp_path, documents, end):
    """What stands before its paragraph, in the same file or in others, is not looked at; a gzipped file is unpacked."""
    text = "\ufeffOne. Two.\r\nThree\r\n\r\n \n" + f"{prose(20_000)}\n{prose(20_000, 1)}\n\n\nFour: ä.\n\nFive"
    lines = "".join(f"{json.dumps({'text': text})}\n" for text in ("", "Six.\nSeven.", prose(20_000), "Eight", " "))
    contents = {"a.txt": text, "b.jsonl": f"{lines}\n{lines}", "c.txt": "\n\nNine.\n\nTen."}
    files = [write(tmp_path / f"{name}{end}", content) for name, content in contents.items()]
    parts = list(read_parts(files, documents))
    begins = [part.begins for part in parts]
    assert len(set(begins)) == len(parts)
    assert len({part.document for part in parts}) == (8 if documents == "file" else 12)
    for place, start in enumerate(begins):
        for number, file in enumerate(files[: start.file + 1]):
            if number < start.file:
                file.write_bytes(b"")
            elif not end:
                file.write_bytes(b"\xff" * start.offset + file.read_bytes()[start.offset :])
        found = list(read_parts(files, documents, start))
        assert found == parts[place:]
        assert [part.begins for part in found] == begins[place:]
    with pytest.raises(BadInput, match="line 8: not JSON"):
        list(read_parts([write(tmp_path / "bad.jsonl", f"{lines}\n\n!")], documents, Start(0, len(lines), 5)))


@pytest.mark.parametrize("name", ["t.txt", "t.jsonl"])
def test_long_documents_are_parts_of_whole_sentences(tmp_path, name):
    text = prose(100_000)
    write(tmp_path / name, text if name == "t.txt" else json.dumps({"text": text}))
    parts = list(read_parts([tmp_path / name], "blank-line"))
    assert [sentence for part in parts for sentence in part.sentences] == split_sentences(text)
    assert {part.document for part in parts} == {0}
    sizes = [sum(map(len, part.sentences)) for part in parts]
    assert max(sizes) <= PART_CHARACTERS
    for size, after in zip(sizes, parts[1:], strict=False):
        assert size + len(after.sentences[0]) > PART_CHARACTERS


@pytest.mark.parametrize("text", [prose(500_000), "word " * 50_000, "x" * 100_000 + " end. " + "y" * 100_000])
def test_wrapping_a_long_paragraph_changes_nothing(tmp_path, text):
    """A paragraph in lines is joined piece by piece; its sentences are those of the whole."""
    one_line, wrapped = write(tmp_path / "a.txt", text), write(tmp_path / "b.txt", text.replace(" ", "\n"))
    assert list(read_parts([one_line], "file")) == list(read_parts([wrapped], "file"))


def test_a_sentence_longer_than_a_part_is_cut_before_words(tmp_path):
    word = "seven77"
    parts = list(read_parts([write(tmp_path / "t.txt", f"Start. {word} " + f"{word}  " * 3000 + "end.")], "blank-line"))
    pieces = [sentence for part in parts[1:] for sentence in part.sentences]
    assert parts[0].sentences == ["Start."]
    assert "  ".join(pieces).split() == [word] * 3001 + ["end."]
    assert all(PART_CHARACTERS - len(word) - 2 < len(piece) <= PART_CHARACTERS for piece in pieces[:-1])


def test_a_word_longer_than_a_part_is_cut_inside(tmp_path):
    text = "short " + "x" * (2 * PART_CHARACTERS + 5) + " end"
    pieces = [part.sentences for part in read_parts([write(tmp_path / "t.txt", text)])]
    assert pieces == [["short"], ["x" * PART_CHARACTERS], ["x" * PART_CHARACTERS], ["xxxxx end"]]


@pytest.mark.parametrize("documents", ["file", "blank-line"])
@pytest.mark.parametrize("line", ["word after word and no end\n", "Many sentences. In a line.\n"])
def test_memory_is_bounded(tmp_path, documents, line):
    """2 MB without a blank line: one document, and in "file" one paragraph, even one sentence."""
    path = write(tmp_path / "t.txt", line * (2**21 // len(line)))
    tracemalloc.start()
    try:
        characters = sum(len(sentence) for part in read_parts([path], documents) for sentence in part.sentences)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert characters > 0.9 * 2**21
    assert peak < 1.5 * 2**20


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", b"fine\n\xff\n", "line 2: not UTF-8 at byte 1"),
        ("t.txt", "fine\n\na\0b\n", "line 3: a NUL byte in the text"),
        ("t.txt.gz", b"fine\n" + b"a" * (16 * 2**20 + 1), "line 2: longer than 16 MB"),
        ("t.jsonl", '{"text": "a"}\n\n{"text": "b"\n', "line 3: not JSON"),
        ("t.jsonl", '["text"]\n', "line 1: not an object"),
        ("t.jsonl", '{"body": "a"}\n', "line 1: text is missing"),
        ("t.jsonl", '{"text": ["a"]}\n', "line 1: text is no string: ['a']"),
        ("t.jsonl", '{"text": "a\\u0000b"}\n', "line 1: a NUL byte in the text"),
        ("t.jsonl", '{"text": "a\\ud800"}\n', "line 1: an unpaired surrogate in the text"),
    ],
)
def test_bad_files_are_one_line(tmp_path, name, content, message):
    with pytest.raises(BadInput) as caught:
        list(read_parts([write(tmp_path / name, content)]))
    assert str(caught.value).startswith(f"{tmp_path / name}: {message}")
    assert "\n" not in str(caught.value)


def test_torn_and_missing_files(tmp_path):
    torn = tmp_path / "t.txt.gz"
    torn.write_bytes(gzip.compress(prose(10_000).encode())[:-20])
    with pytest.raises(BadInput, match="not a whole gzip file"):
        list(read_parts([torn]))
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        list(read_parts([tmp_path / "no.txt"]))


def test_one_file_need_not_stand_in_a_list(tmp_path):
    path = write(tmp_path / "t.txt", "A text.")
    assert corpus_files(path) == corpus_files(str(path)) == corpus_files([path]) == [path]


@pytest.mark.data
@pytest.mark.parametrize(
    ("folder", "documents"), [("corpus_en_novels", 31), ("corpus_en_imdb", 12_000), ("corpus_zh_wiki", 1_914)]
)
def test_documents_of_real_corpora(folder, documents):
    if not (DATA / folder).is_dir():
        pytest.skip(f"needs shared/data/{folder}")
    numbers = [part.document for part in read_parts(corpus_files([DATA / folder]))]
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == numbers[-1] + 1 == documents
