"""Files of texts and what is to be written from them, as they should be and as they should not."""

import gzip
import json
from pathlib import Path

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertram.errors import BadInput
from bertram.text.pairs import Pairs, read_pairs
from bertram.text.splits import split

DATA = Path(__file__).parents[1].parent / "shared" / "data"
NAMES = ("document", "summary")

PAIRS = Pairs([' A "dog" runs. ', "Two\u2028birds", "你好"], [["Ein Hund läuft."], ["Zwei Vögel"], ["Hallo\tdu"]])


def write(path, content):
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def lines(texts, end="\n"):
    return "".join(text + end for text in texts)


@pytest.mark.parametrize(("suffix", "end"), [("en", "\n"), ("txt", "\r\n"), ("en.gz", "\n")])
def test_two_files_of_lines(tmp_path, suffix, end):
    first = write(tmp_path / f"a.{suffix}", "\ufeff" + lines(PAIRS.sources, end))
    second = write(tmp_path / "a.de", lines(target for (target,) in PAIRS.targets).rstrip("\n"))
    assert read_pairs(first, second) == PAIRS
    assert read_pairs(str(first), str(second), names=NAMES) == PAIRS


def test_no_line_is_a_header(tmp_path):
    first, second = write(tmp_path / "a", "source\nb\n"), write(tmp_path / "b", "target\nb\n")
    assert read_pairs(first, second) == Pairs(["source", "b"], [["target"], ["b"]])


def test_tables(tmp_path):
    rows = [(source, target.replace("\t", " ")) for source, (target,) in zip(PAIRS.sources, PAIRS.targets, strict=True)]
    expected = Pairs([source for source, _ in rows], [[target] for _, target in rows])
    tsv = write(tmp_path / "t.tsv", lines("\t".join(row) for row in [("source", "target"), *rows]))
    bare = write(tmp_path / "bare.tsv.gz", lines(f"1\t{target}\t{source}" for source, target in rows))
    objects = [{"summary": target, "more": None, "document": source} for source, target in rows]
    jsonl = write(tmp_path / "t.jsonl.gz", lines(map(json.dumps, objects)))
    polars.DataFrame(objects).write_parquet(tmp_path / "t.parquet")
    assert read_pairs(tsv) == expected
    assert read_pairs(bare, columns={"source": "3", "target": "2"}) == expected
    assert read_pairs(jsonl, names=NAMES) == expected
    assert read_pairs(jsonl, columns={"source": "document", "target": "summary"}) == expected
    assert read_pairs(tmp_path / "t.parquet", names=NAMES) == expected


def test_csv_keeps_quoted_line_feeds(tmp_path):
    path = write(tmp_path / "t.csv", 'document,summary\n"Dear all,\nthe ""draw"" file",file\n')
    assert read_pairs(path, names=NAMES) == Pairs(['Dear all,\nthe "draw" file'], [["file"]])


def test_several_targets(tmp_path):
    rows = [{"document": "a", "summary": ["b", "c"]}, {"document": "d", "summary": ["e"]}]
    path = write(tmp_path / "t.jsonl", lines(map(json.dumps, rows)))
    expected = Pairs(["a", "d"], [["b", "c"], ["e"]])
    assert read_pairs(path, names=NAMES) == expected
    polars.DataFrame(rows).write_parquet(tmp_path / "t.parquet")
    assert read_pairs(tmp_path / "t.parquet", names=NAMES) == expected


def test_pairs_of_nothing_are_dropped_and_counted(tmp_path):
    first, second = write(tmp_path / "a", "a\n\n \nd\n\n"), write(tmp_path / "b", "b\n \n\ne\n\n")
    assert read_pairs(first, second) == Pairs(["a", "d"], [["b"], ["e"]], dropped=3)
    rows = [{"source": "", "target": []}, {"source": "a", "target": "b"}, {"source": " ", "target": [""]}]
    path = write(tmp_path / "t.jsonl", lines(map(json.dumps, rows)))
    assert read_pairs(path) == Pairs(["a"], [["b"]], dropped=2)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("a\nb\nc\n", "d\ne\n", "{b}: has 2 lines, but {a} has 3; each line must stand beside its counterpart"),
        ("a\n" * 1200, "", "{b}: has 0 lines, but {a} has 1,200; "),
        ("a\n\nc\n", "d\ne\nf\n", "{a}: line 2: is empty, but line 2 of {b} is not"),
        ("a\nb\n", "d\n \t\n", "{b}: line 2: is empty, but line 2 of {a} is not"),
        ("a\n\nb\n\n", "\nc\nd\ne\n", "{b}: line 1: is empty, but line 1 of {a} is not, and 2 more like it"),
        ("a\n", b"\xff\n", "{b}: line 1: not UTF-8 at byte 1"),
        ("a\nb\0\n", "d\ne\n", "{a}: line 2: a NUL byte in the source"),
        ("a\n", "\0\n", "{b}: line 1: a NUL byte in the target"),
        ("", "", "{a}: holds no text"),
        ("\n \n", "\n\n", "{a}: holds no text"),
    ],
)
def test_lines_that_do_not_fit_are_one_line(tmp_path, first, second, message):
    a, b = write(tmp_path / "a {}%d.en.gz", first), write(tmp_path / "b.de", second)
    with pytest.raises(BadInput) as caught:
        read_pairs(a, b)
    assert str(caught.value).startswith(message.format(a=a, b=b))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.tsv", "", "is empty"),
        ("t.tsv", "source\ttarget\n", "holds no text"),
        ("t.tsv", "source\ttext\na\tb\n", "no column 'target' (it has 'source', 'text'); --columns target=NAME names"),
        ("t.tsv", "source\ttarget\na\n", "line 2: has 1 columns; 2 are expected"),
        ("t.csv", "source,target\na,b\na, \n", "line 3: the target is empty, but not the source"),
        ("t.csv", "source,target\n,b\n", "line 2: the source is empty, but not the target"),
        ("t.jsonl", '{"source": "a", "target": []}\n', "line 1: the target is empty, but not the source"),
        ("t.jsonl", '{"source": "a", "target": ["b", ""]}\n', "line 1: one target of 2 is empty"),
        ("t.jsonl", '{"source": "a", "target": ["b", 1]}\n', "line 1: target is no string: 1"),
        ("t.jsonl", '{"source": ["a"], "target": "b"}\n', "line 1: source is no string: ['a']"),
        ("t.jsonl", '{"source": "a", "target": "b"}\n\n{"source": "a"}\n', "line 3: target is missing"),
        ("t.jsonl", '{"source": "a", "target": ["\\ud800"]}\n', "line 1: an unpaired surrogate in the target"),
        ("t.en", "a\n", "needs a second file that has the target of each line; a table of both is named .csv, .tsv"),
        ("no.tsv", None, "no such file"),
    ],
)
def test_bad_tables_are_one_line(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        write(path, content)
    with pytest.raises(BadInput) as caught:
        read_pairs(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


def test_tables_and_lines_do_not_mix(tmp_path):
    table, text = write(tmp_path / "t.tsv", "source\ttarget\na\tb\n"), write(tmp_path / "t.en", "a\n")
    for pair in [(table, text), (text, table)]:
        with pytest.raises(BadInput, match=r"t\.tsv: is named like a table; give one table alone, or two files"):
            read_pairs(*pair)
    with pytest.raises(BadInput, match=r"--columns: .*t\.en and .*t\.en are files of lines and have no columns"):
        read_pairs(text, text, columns={"source": "a"})
    with pytest.raises(BadInput, match=r"t\.de: cannot be read: No such file"):
        read_pairs(text, tmp_path / "t.de")


def test_columns_are_named_by_the_roles_of_pairs(tmp_path):
    table = write(tmp_path / "mails.tsv", "document\tbody\tsubject\na\tb\tc\n")
    named = {"summary": "subject", "document": "body"}
    assert read_pairs(table, columns=named, names=NAMES) == Pairs(["b"], [["c"]])
    for mistyped in ({"text": "body"}, named | {"text": "body"}):
        with pytest.raises(BadInput, match=r"^--columns: no role 'text'; roles are document, summary$"):
            read_pairs(table, columns=mistyped, names=NAMES)
    with pytest.raises(BadInput, match="name the source's and the target's column by numbers from 1"):
        read_pairs(write(tmp_path / "t.tsv", "a\tb\n"), columns={"source": "1"})


@given(st.integers(2, 100), st.integers(0, 5))
def test_split_parts_every_pair_once(number, seed):
    pairs = Pairs([str(i) for i in range(number)], [[f"-{i}", f"+{i}"] for i in range(number)], dropped=1)
    kept, held = split(pairs, 0.1, seed)
    assert sorted(kept.sources + held.sources, key=int) == pairs.sources
    for part in (kept, held):
        assert part.targets == [[f"-{source}", f"+{source}"] for source in part.sources]
    assert len(held) == max(1, round(number * 0.1))


def test_selected_pairs_stand_in_the_order_asked_for():
    assert PAIRS.select(np.array([2, 0])) == Pairs(["你好", ' A "dog" runs. '], [["Hallo\tdu"], ["Ein Hund läuft."]])
    assert len(PAIRS.select([])) == 0


@pytest.mark.data
@pytest.mark.parametrize(
    ("files", "options", "number"),
    [
        (("multi30k_en_de/val.en.gz", "multi30k_en_de/val.de.gz"), {}, 1014),
        (("aeslc/dev.jsonl.gz",), {"names": NAMES, "columns": {"document": "body", "summary": "annotations"}}, 1960),
        (("dialogsum/dev.jsonl.gz",), {"names": NAMES, "columns": {"document": "dialogue"}}, 500),
    ],
)
def test_real_pairs(files, options, number):
    paths = [DATA / file for file in files]
    if missing := [path for path in paths if not path.is_file()]:
        pytest.skip(f"needs {missing[0]}")
    pairs = read_pairs(*paths, **options)
    assert (len(pairs), pairs.dropped) == (number, 0)
    assert {len(texts) for texts in pairs.targets} == ({3} if "aeslc" in files[0] else {1})
