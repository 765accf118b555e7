"""Files of examples, as they should be and as they should not."""

import errno
import gzip
import io
import json
import os
import sys
from decimal import Decimal
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertram.errors import BadInput
from bertram.text.inputs import first_inputs, read_documents, read_inputs, read_lines
from bertram.text.rows import read_rows
from bertram.text.splits import files_of, split
from bertram.text.table import Table, read_table

TABLE = Table(["a, b", 'say "hi"', "two\nlines", "评论"], None, ["x", "y", "x", "<b>"])


def write(path, content):
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


CSV = 'label,text\nx,"a, b"\r\ny,"say ""hi"""\n\nx,"two\nlines"\n<b>,评论\n'
OBJECTS = [{"label": label, "text": text, "more": 1} for text, label in zip(TABLE.texts, TABLE.labels, strict=True)]
JSONL = "".join(json.dumps(value) + "\n" for value in OBJECTS)


@pytest.mark.parametrize(
    ("name", "content"),
    [("t.csv", CSV), ("t.csv.gz", CSV), ("t.csv", "\ufeff" + CSV), ("t.jsonl", JSONL), ("t.jsonl.gz", JSONL + "\n")],
)
def test_same_rows_from_every_kind(tmp_path, name, content):
    assert read_table(write(tmp_path / name, content)) == TABLE


@pytest.mark.parametrize("name", ["t.parquet", "T[1].PARQUET"])
def test_parquet(tmp_path, name):
    columns = {"image": [b"\x00"] * len(TABLE), "label": TABLE.labels, "text": TABLE.texts}
    polars.DataFrame(columns).write_parquet(tmp_path / name)
    assert read_table(tmp_path / name) == TABLE
    found = read_rows(tmp_path / name, {})
    assert {role: found.columns[place] for role, place in found.places.items()} == {"text": "text", "label": "label"}
    assert sorted(found.columns) == ["image", "label", "text"]


def test_parquet_of_decimals_and_of_one_column_for_two_roles(tmp_path):
    polars.DataFrame({"a": ["x", "y"], "label": [Decimal("1.50"), Decimal(2)]}).write_parquet(tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet", {"text": "a", "text_b": "a"})
    assert found == Table(["x", "y"], ["x", "y"], ["1.50", "2.00"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["^t.*$", "*"])
def test_a_parquet_column_is_called_what_it_is_called(tmp_path, name):
    """polars takes some names for patterns of names."""
    polars.DataFrame({"two": ["no", "no"], name: ["a", "b"], "label": ["x", "y"]}).write_parquet(tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet", {"text": name}).texts == ["a", "b"]


def test_what_is_said_of_a_damaged_parquet_file_is_one_line(tmp_path):
    """Also where the native reader panics, which it says in lines of its own."""
    polars.DataFrame({"text": ["one", "two"] * 20, "label": ["x", "y"] * 20}).write_parquet(tmp_path / "whole.parquet")
    whole, random, said = (tmp_path / "whole.parquet").read_bytes(), Random(0), []
    for _ in range(300):
        damaged = bytearray(whole)
        for place in random.sample(range(len(whole)), random.randint(1, 3)):
            damaged[place] = random.randrange(256)
        try:
            read_table(write(tmp_path / "t.parquet", bytes(damaged)))
        except BadInput as error:
            said.append(str(error))
    assert len(said) > 100
    assert not any("\n" in line for line in said)


def test_tsv_knows_no_quotes(tmp_path):
    path = write(tmp_path / "t.tsv", 'text\tlabel\n"open\tx\na "b"\ty\n')
    assert read_table(path) == Table(['"open', 'a "b"'], None, ["x", "y"])


def test_columns_by_name_and_by_number(tmp_path):
    named = write(tmp_path / "n.tsv", "s1\ts2\tscore\na\tb\t1.5\n")
    assert read_table(named, {"text": "s1", "text_b": "s2", "label": "score"}) == Table(["a"], ["b"], ["1.5"])
    plain = write(tmp_path / "p.tsv", "0\ta\tb\t1.5\n1\tc\td\t2\n")
    assert read_table(plain, {"text": "2", "text_b": "3", "label": "4"}) == Table(["a", "c"], ["b", "d"], ["1.5", "2"])


@pytest.mark.parametrize(("name", "separator"), [("t.csv", ","), ("t.tsv", "\t")])
def test_a_number_beside_a_name_counts_columns_below_a_header(tmp_path, name, separator):
    lines = [("id", "sentence", "id"), ("7", "a", "x"), ("8", "b", "y")]
    path = write(tmp_path / name, "".join(separator.join(line) + "\n" for line in lines))
    assert read_table(path, {"text": "sentence", "label": "3"}) == Table(["a", "b"], None, ["x", "y"])
    for number in ("0", "4"):
        with pytest.raises(BadInput, match=f"no column '{number}'"):
            read_table(path, {"text": "sentence", "label": number})


def test_a_column_that_is_called_by_a_number_comes_before_the_one_of_that_number(tmp_path):
    path = write(tmp_path / "t.csv", "text,more,2\na,b,c\n")
    assert read_table(path, {"text": "text", "label": "2"}) == Table(["a"], None, ["c"])


@pytest.mark.parametrize("columns", [{"text": "1", "label": "2"}, {"text": "text", "label": "2"}])
def test_fields_of_objects_have_names_alone(tmp_path, columns):
    with pytest.raises(BadInput, match=r"no column '\d' \(it has 'text', 'label'\)"):
        read_table(write(tmp_path / "t.jsonl", '{"text": "a", "label": "b"}\n'), columns)
    path = write(tmp_path / "n.jsonl", '{"1": "a", "2": "b"}\n')
    assert read_table(path, {"text": "1", "label": "2"}) == Table(["a"], None, ["b"])


def test_labels_of_json_are_strings(tmp_path):
    path = write(tmp_path / "t.jsonl", '{"text": "a", "label": 1}\n{"text": "b", "label": true}\n')
    assert read_table(path).labels == ["1", "true"]


def test_a_megabyte_in_a_line_is_taken(tmp_path):
    text = "word " * 210_000
    assert read_table(write(tmp_path / "t.csv", f"text,label\n{text},x\n")).texts == [text]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "", "is empty"),
        ("t.csv", "text,label\n", "holds no rows"),
        ("t.csv", "text,mark\na,b\n", "no column 'label' (it has 'text', 'mark'); --columns label=NAME"),
        ("t.csv", "text,label,label\na,b,c\n", "has 2 columns named 'label'"),
        ("t.csv", "text,label\na,b\nc\n", "line 3: has 1 columns; 2 are expected"),
        ("t.csv", "text,label\na,b,c\n", "line 2: has 3 columns; 2 are expected"),
        ("t.csv", 'text,label\n"a,b\n', "unexpected end of data"),
        ("t.csv", 'text,label\n"a"b,c\n', "line 2: "),
        ("t.csv", "text,label\na\rb,c\n", "line 2: a carriage return outside quotes"),
        ("t.csv", b"text,label\na,b\n\xff,c\n", "line 3: not UTF-8 at byte 1; convert it first: iconv"),
        ("t.csv", "text,label\na,b\n".encode("utf-16"), "line 1: not UTF-8 at byte 1"),
        ("t.csv", b"text;label\na;b\n", "separated by semicolons; CSV takes commas"),
        ("t.csv", b"text\tlabel\na\tb\n", "separated by tabs; name the file .tsv"),
        ("t.tsv", b"text,label\na,b\n", "separated by commas; name it .csv"),
        ("t.csv", "text,label\na\0,b\n", "line 2: a NUL byte in the text"),
        ("t.csv", "text,label\na, \n", "line 2: the label is empty"),
        ("t.tsv", "text\tlabel\na\tb\tc\n", "line 2: has 3 columns"),
        ("t.jsonl", "", "is empty"),
        ("t.jsonl", "{}\n", "no column 'text'"),
        ("t.jsonl", '{"text": "a", "label": "b"}\n{"text": "a"\n', "line 2: not JSON"),
        ("t.jsonl", '{"text": "a", "label": "b"}\n[1]\n', "line 2: not an object"),
        ("t.jsonl", '{"text": "a", "label": "b"}\n{"text": "a"}\n', "line 2: label is missing"),
        ("t.jsonl", '{"text": 3, "label": "b"}\n', "line 1: text is no string: 3"),
        ("t.jsonl", '{"text": "\\ud800", "label": "b"}\n', "line 1: an unpaired surrogate in the text"),
        ("t.jsonl", '{"text": "a", "label": "\\udfff"}\n', "line 1: an unpaired surrogate in the label"),
        ("t.jsonl", '{"text": "a", "label": 1e400}\n', "line 1: the label is no finite number: inf"),
        ("t.jsonl", '{"text": "a", "label": -Infinity}\n', "line 1: the label is no finite number: -inf"),
        ("t.jsonl", '{"text": "a", "label": NaN}\n', "line 1: the label is no finite number: nan"),
        ("t.jsonl", '{"text": "a", "label": ' + "9" * 5000 + "}\n", "line 1: not JSON"),
        ("t.jsonl", "[" * 100_000 + "\n", "line 1: not JSON"),
        ("t.parquet", "PAR1 not really", "not a readable Parquet file"),
        ("t.xlsx", "", "what kind of table is it? Names end with .csv, .tsv, .jsonl, .parquet"),
    ],
)
def test_bad_files_are_one_line(tmp_path, name, content, message):
    with pytest.raises(BadInput) as caught:
        read_table(write(tmp_path / name, content))
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_torn_gzip_files(tmp_path):
    content = gzip.compress(CSV.encode() * 100)
    for part in (content[: len(content) // 2], content[:20] + b"\xff" * 20 + content[40:], b"text,label\na,b\n"):
        (tmp_path / "t.csv.gz").write_bytes(part)
        with pytest.raises(BadInput, match="not a whole gzip file"):
            read_table(tmp_path / "t.csv.gz")


def test_missing_files_and_directories(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        read_table(tmp_path / "no.csv")
    (tmp_path / "d.csv").mkdir()
    with pytest.raises(BadInput, match="cannot be read: Is a directory"):
        read_table(tmp_path / "d.csv")
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        list(read_inputs(str(tmp_path / "no.txt")))


def test_lines_have_a_limit(tmp_path):
    path = write(tmp_path / "t.csv", b"text,label\n" + b"a" * (16 * 2**20 + 1) + b",x\n")
    with pytest.raises(BadInput, match="line 2: longer than 16 MB"):
        read_table(path)


@pytest.mark.parametrize("columns", [{"lable": "nothing"}, {"text": "text", "lable": "label"}])
def test_a_mistyped_role_is_not_passed_over(tmp_path, columns):
    path = write(tmp_path / "t.csv", "text,label\na,b\n")
    for read in (read_table, lambda *given: first_inputs(given[0], 1, given[1])):
        with pytest.raises(BadInput, match=r"^--columns: no role 'lable'; roles are text, text_b, label$"):
            read(path, columns)


@pytest.mark.parametrize("columns", [{"text": "1"}, {"label": "2"}, {"text": "0", "label": "1"}])
def test_bad_column_numbers(tmp_path, columns):
    with pytest.raises(BadInput, match="by numbers from 1"):
        read_table(write(tmp_path / "t.tsv", "a\tb\n"), columns)


@given(st.integers(2, 200), st.integers(0, 5))
def test_split_parts_every_row_once(number, seed):
    table = Table([str(i) for i in range(number)], None, ["x"] * number)
    kept, held = split(table, 0.1, seed)
    assert sorted(kept.texts + held.texts, key=int) == table.texts
    assert len(held) == max(1, round(number * 0.1))
    assert kept.texts == sorted(kept.texts, key=int)
    assert split(table, 0.1, seed) == (kept, held)


def test_a_split_without_files_is_not_there():
    assert files_of("a.csv", None, [], most=1) == {"train": [Path("a.csv")]}
    assert files_of(["a.en", "a.de"], test="b.csv", most=2) == {
        "train": [Path("a.en"), Path("a.de")],
        "test": [Path("b.csv")],
    }


def test_one_row_is_not_split():
    with pytest.raises(BadInput, match="one row is too few"):
        split(Table(["a"], None, ["x"]), 0.1, 0)


def test_inputs_are_lines_or_objects(tmp_path, monkeypatch):
    assert list(read_inputs(str(write(tmp_path / "t.txt", "a\r\n\nb")))) == [["a", "", "b"]]
    objects = write(tmp_path / "t.jsonl", '{"text": "a", "text_b": "b"}\n{"text": "c", "text_b": "d"}\n')
    assert list(read_inputs(str(objects))) == [[{"text": "a", "text_b": "b"}, {"text": "c", "text_b": "d"}]]
    assert list(read_inputs(str(write(tmp_path / "empty.txt", "")))) == []
    assert list(read_inputs(str(write(tmp_path / "t.txt", '\n{"text": "a"}\n')))) == [[{"text": "a"}]]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b'{"no text": 1}\n' * 1500)))
    assert [len(chunk) for chunk in read_inputs("-")] == [1024, 476]
    for read, role in ((read_inputs, "text"), (read_documents, "document"), (read_lines, "source")):
        found = read(str(write(tmp_path / "nul.txt", "a\nb\0\n")))
        assert next(found) == ["a"]
        with pytest.raises(BadInput, match=rf"nul\.txt: line 2: a NUL byte in the {role}$"):
            next(found)


def test_what_has_arrived_is_not_kept_waiting(monkeypatch):
    """Whoever writes a line to a pipe, and reads the answer before the next, is answered."""
    source, sink = os.pipe()
    with os.fdopen(source, "rb") as pipe:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=pipe))
        found = read_lines("-")
        os.write(sink, b"one\n")
        assert next(found) == ["one"]
        os.write(sink, b"two\nthree\nfo")
        assert next(found) == ["two", "three"]
        os.write(sink, b"ur\n" + b"five\n" * 2000)
        assert next(found) == ["four", *["five"] * 1023]
        assert next(found) == ["five"] * 977
        os.write(sink, b"six")
        os.close(sink)
        assert list(found) == [["six"]]


def test_blank_lines_behind_an_object_keep_nothing_waiting(monkeypatch):
    source, sink = os.pipe()
    with os.fdopen(source, "rb") as pipe:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=pipe))
        found = read_inputs("-")
        os.write(sink, b'{"text": "one"}\n\n')
        assert next(found) == [{"text": "one"}]
        os.write(sink, b'\n{"text": "two"}\n')
        os.close(sink)
        assert list(found) == [[{"text": "two"}]]


def test_what_stands_before_a_fault_of_the_disk_is_answered(monkeypatch):
    def broken(*arguments):
        yield 1, "one"
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("bertram.text.inputs.numbered_lines", broken)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO()))
    found = read_lines("-")
    assert next(found) == ["one"]
    with pytest.raises(OSError, match="Input/output error"):
        next(found)


def test_inputs_of_a_table_are_its_texts(tmp_path):
    """Not its lines, which a header and labels stand in."""
    table = write(tmp_path / "t.csv", 'label,text\nx,"a, b"\ny,c\n')
    assert list(read_inputs(str(table))) == [[{"text": "a, b"}, {"text": "c"}]]
    pairs = write(tmp_path / "t.TSV", "text\ttext_b\na\tb\n")
    assert list(read_inputs(str(pairs))) == [[{"text": "a", "text_b": "b"}]]
    assert list(read_lines(str(write(tmp_path / "s.tsv", "source\ttarget\na\tb\n")))) == [["a"]]
    with pytest.raises(BadInput, match=r"no column 'text' \(it has 'source', 'target'\)$"):
        list(read_inputs(str(tmp_path / "s.tsv")))


@pytest.mark.parametrize("name", ["t.csv", "t.tsv"])
def test_a_blank_line_of_one_column_is_an_empty_text(tmp_path, name):
    """As in a text file: answers stand beside the lines. Of several columns it is no row."""
    path = write(tmp_path / name, "\ntext\na\n\nb\n")
    assert list(read_inputs(str(path))) == [[{"text": "a"}, {"text": ""}, {"text": "b"}]]
    path = write(tmp_path / name, "\na\n\nb\n")
    assert [cells["text"] for cells in next(read_inputs(str(path), {"text": "1"}))] == ["", "a", "", "b"]
    path = write(tmp_path / name, "\na,x\n\nb,y\n".replace(",", "\t" if name == "t.tsv" else ","))
    assert next(read_inputs(str(path), {"text": "1"})) == [{"text": "a"}, {"text": "b"}]


def test_inputs_of_columns_that_are_called_otherwise(tmp_path):
    """Labels are none of theirs, but whoever repeats what training was told may name them."""
    table = write(tmp_path / "t.csv", "stars,review\n1,a\n2,b\n")
    for columns in ({"text": "review"}, {"text": "review", "label": "stars"}):
        assert list(read_inputs(str(table), columns)) == [[{"text": "a"}, {"text": "b"}]]
    assert list(read_inputs(str(table), {"text": "2"})) == [[{"text": "review"}, {"text": "a"}, {"text": "b"}]]
    assert next(read_inputs(str(write(tmp_path / "one.tsv", "a\n")), {"text": "1", "label": "2"})) == [{"text": "a"}]
    objects = write(tmp_path / "t.jsonl", '{"a": "1", "b": "2", "text_b": "3"}\n')
    with pytest.raises(BadInput, match="line 1: not an object with a c; --columns text_b=NAME names another key"):
        list(read_inputs(str(objects), {"text": "a", "text_b": "c"}))
    assert list(read_inputs(str(objects), {"text": "a", "text_b": "b"})) == [[{"text": "1", "text_b": "2"}]]
    assert list(read_documents(str(objects), {"document": "b"})) == [[{"text": "2"}]]
    lines = write(tmp_path / "s.tsv", "en\tde\na\tb\n")
    assert list(read_lines(str(lines), {"source": "en"})) == [["a"]]
    for read in (read_inputs, read_lines):
        with pytest.raises(BadInput, match=r"--columns: .*t\.txt is no table"):
            list(read(str(write(tmp_path / "t.txt", "a\n")), {"text": "review"}))


def test_the_first_inputs_are_given_or_read(tmp_path):
    assert first_inputs(None, 2) is None
    assert first_inputs(["a", "b", "c"], 2) == ["a", "b"]
    assert first_inputs(write(tmp_path / "t.txt", "a\nb\nc\n"), 2) == ["a", "b"]
    assert first_inputs(write(tmp_path / "t.csv", "said\na\nb\n"), 1, {"text": "said"}) == [{"text": "a"}]
    for texts in (None, ["a"]):
        with pytest.raises(BadInput, match="--columns: says what columns of --texts to read, which is not given"):
            first_inputs(texts, 2, {"text": "said"})
    for texts in (["a", "b", "c"], [{"text": "a"}, {"text": "b"}, {"text": "c"}]):
        for made in (tuple, iter, np.array, polars.Series):
            assert list(first_inputs(made(texts), 2)) == texts[:2]
    for nothing in ([], np.array([]), iter([])):
        with pytest.raises(BadInput, match="texts: none are given"):
            first_inputs(nothing, 2)
    for no_list in ({"text": "a"}, 3):
        with pytest.raises(BadInput, match="must be a list of texts"):
            first_inputs(no_list, 2)


def test_a_line_unlike_the_first_is_refused(tmp_path):
    path = write(tmp_path / "t.jsonl", '{"text": "a"}\nplain\n')
    with pytest.raises(BadInput, match="line 2: not an object with a text"):
        list(read_inputs(str(path)))


def test_of_objects_text_and_text_b_are_taken(tmp_path):
    path = write(tmp_path / "t.jsonl", '\n{"text": "a", "label": "x"}\n{"text": "b"}\n')
    assert list(read_inputs(str(path))) == [[{"text": "a"}, {"text": "b"}]]
    for content, message in (
        ('{"review": "a film"}\n', "line 1: not an object with a text"),
        ('{"text": "a"}\n{"text": "b", "text_b": "c"}\n', "line 2: all must have a text_b, or none"),
    ):
        with pytest.raises(BadInput, match=message):
            list(read_inputs(str(write(tmp_path / "odd.jsonl", content))))


def test_a_second_text_that_comes_late_is_not_dropped(tmp_path):
    path = write(tmp_path / "t.jsonl", '{"text": "a", "label": "x"}\n{"text": "b", "text_b": "c", "label": "y"}\n')
    with pytest.raises(BadInput, match="line 2: has a text_b, which the first object lacks"):
        read_table(path)


@pytest.mark.parametrize("line", ['{"text": null}', '{"text": true}', '{"text": ["a"]}', '{"text": "a", "text_b": 5}'])
def test_a_text_that_is_no_string_is_refused(tmp_path, line):
    path = write(tmp_path / "t.jsonl", f'{{"text": "a"}}\n{line}\n')
    with pytest.raises(BadInput, match="line 2: text"):
        list(read_inputs(str(path)))
