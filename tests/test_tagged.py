"""Files of texts whose words are labelled one by one, as they should be and as they should not."""

import gzip
import json
from pathlib import Path

import polars
import pytest

from bertram.errors import BadInput
from bertram.text.splits import split
from bertram.text.table import Table, read_table
from bertram.text.tagged import read_tagged

TABLE = Table(["Angela Merkel spoke", "in # Hamburg ."], None, ["B-PER I-PER O", "O O B-LOC O"])
BARE = "Angela B-PER\nMerkel I-PER\nspoke O\n\nin O\n# O\nHamburg B-LOC\n. O\n"


def write(path: Path, content: str | bytes) -> Path:
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


CONLL_2003 = "-DOCSTART- -X- O O\n\n" + BARE.replace(" ", " NN I-NP ") + "\n-DOCSTART- -X- O O\n\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.conll", BARE),
        ("t", BARE),
        ("t.tsv", BARE.replace(" ", "\t")),
        ("t.txt.gz", BARE),
        ("t.conll", BARE.replace("\n", "\r\n")),
        ("t.conll", "\ufeff" + BARE),
        ("t.conll", BARE.rstrip("\n")),
        ("t.conll", "\n\n" + BARE.replace("\n\n", "\n\n \n\t\n") + "\n\n"),
        ("t.conll", BARE.replace(" ", "   ")),
        ("t.conll", BARE.replace(" ", " \t ")),
        ("t.conll", CONLL_2003),
        ("t.conll", CONLL_2003.replace("-X- O O", "-X-")),
        ("t.conll", BARE.replace("\n\n", "\n-DOCSTART- O\n")),
        ("t.conll", "# a comment of its own\n" + BARE.replace("\n\n", "\n\n# another comment\n")),
        ("t.conll", "# id=7\n" + BARE.replace("\n\n", "\n\n# domain=en\n")),
        ("t.conll", "# id 7\tdomain=en\n" + BARE),
    ],
)
def test_conll(tmp_path: Path, name: str, content: str) -> None:
    assert read_table(write(tmp_path / name, content), per_word=True) == TABLE


def test_rows_are_called_by_the_first_lines_of_their_texts(tmp_path: Path) -> None:
    rows = read_tagged(write(tmp_path / "t.conll", "\n# a comment\n" + BARE), None).rows
    assert [number for number, _ in rows] == [3, 7]


def conll_u(*texts: str) -> str:
    """Texts in the columns of CoNLL-U, whose words are parted by spaces and have the label X, behind comments."""
    blocks = []
    for text in texts:
        words = [f"{i}\t{word}\t{word.lower()}\tX\t_\t_\t0\troot\t_\t_\n" for i, word in enumerate(text.split(), 1)]
        blocks.append(f"# sent_id = 1\n# text = {text}\n{''.join(words)}\n")
    return "".join(blocks)


def test_conll_u_by_the_numbers_of_its_columns(tmp_path: Path) -> None:
    """A comment may have as many words as there are columns, and words be written as one or not at all."""
    texts = ["I do n't see why not .", "Yes ."]  # "# text = " and seven words
    file = write(tmp_path / "t.conllu", conll_u(*texts))
    columns = {"text": "2", "label": "4"}
    assert read_table(file, columns, per_word=True) == Table(texts, None, ["X X X X X X X", "X X"])
    merged, empty = "2-3\tdon't" + "\t_" * 8 + "\n", "3.1\tjust\tjust\tX" + "\t_" * 6 + "\n"
    content = conll_u(*texts).replace("2\tdo", f"{merged}2\tdo").replace("4\tsee", f"{empty}4\tsee")
    assert merged in content
    assert empty in content
    assert read_table(write(file, content), columns, per_word=True).texts == texts


def test_a_score_is_a_word(tmp_path: Path) -> None:
    ten = "\t".join(["2-1", *"_" * 8, "O"])
    assert read_table(write(tmp_path / "t.tsv", f"{ten}\n"), per_word=True) == Table(["2-1"], None, ["O"])
    other = write(tmp_path / "t.conll", "NN 2-1 O\n")
    assert read_table(other, {"text": "2"}, per_word=True) == Table(["2-1"], None, ["O"])


def test_a_hash_is_a_word(tmp_path: Path) -> None:
    """Where a comment could not stand, or not in so many columns."""
    for content in ("#\tO\nnice\tO\n", "nice O\n\n# O\n#nice O\n", "nice O\n# O\n", "# O\nnice O\n"):
        table = read_table(write(tmp_path / "t.conll", content), per_word=True)
        assert " ".join(table.texts).split().count("#") == 1
        assert all(len(a.split()) == len(b.split()) for a, b in zip(table.texts, table.labels, strict=True))
    with pytest.raises(BadInput, match="line 2: has 3 columns; 2 are expected"):
        read_table(write(tmp_path / "t.conll", "nice O\n#a b O\n"), per_word=True)


ROWS = list(zip(TABLE.texts, TABLE.labels, strict=True))
TSV = "".join(f"{text}\t{label}\n" for text, label in ROWS)
LISTS = [{"label": label.split(), "text": text.split()} for text, label in ROWS]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.tsv", "text\tlabel\n" + TSV),
        ("t.tsv.gz", "id\ttext\tlabel\n" + "".join(f"1\t{line}\n" for line in TSV.splitlines())),
        ("t.csv", "label,text\n" + "".join(f"{label},{text}\n" for text, label in ROWS)),
        ("t.jsonl", "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in ROWS)),
        ("t.jsonl", "".join(json.dumps(row) + "\n" for row in LISTS)),
        ("t.jsonl", "".join(json.dumps(row | {"text_b": 1}) + "\n" for row in LISTS)),
    ],
)
def test_tables(tmp_path: Path, name: str, content: str) -> None:
    assert read_table(write(tmp_path / name, content), per_word=True) == TABLE


def test_columns_of_tables_have_names_and_numbers(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "tags,words\n" + "".join(f"{label},{text}\n" for text, label in ROWS))
    assert read_table(file, {"text": "words", "label": "tags"}, per_word=True) == TABLE
    file = write(tmp_path / "h.csv", "".join(f"{text},{label}\n" for text, label in ROWS))
    assert read_table(file, {"text": "1", "label": "2"}, per_word=True) == TABLE
    file = write(tmp_path / "t.tsv", "tags\twords\n" + "".join(f"{label}\t{text}\n" for text, label in ROWS))
    assert read_table(file, {"text": "words", "label": "tags"}, per_word=True) == TABLE


def test_parquet(tmp_path: Path) -> None:
    file, columns = tmp_path / "t.parquet", {"text": "tokens", "label": "ner_tags"}
    polars.DataFrame(
        {"tokens": [row["text"] for row in LISTS], "ner_tags": [row["label"] for row in LISTS]}
    ).write_parquet(file)
    assert read_table(file, columns, per_word=True) == TABLE
    polars.DataFrame({"tokens": [["a", "b"], ["c"]], "ner_tags": [[3, 0], [12]]}).write_parquet(file)
    assert read_table(file, columns, per_word=True) == Table(["a b", "c"], None, ["3 0", "12"])


def test_columns_of_conll_are_counted(tmp_path: Path) -> None:
    file = write(tmp_path / "t.conll", "1 a X O\n2 b Y B-Z\n")
    assert read_table(file, {"text": "2"}, per_word=True) == Table(["a b"], None, ["O B-Z"])
    assert read_table(file, {"text": "2", "label": "3"}, per_word=True) == Table(["a b"], None, ["X Y"])
    assert read_table(file, {"label": "3"}, per_word=True) == Table(["1 2"], None, ["X Y"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.conll", "", ": holds no words"),
        ("t.conll", "\n \n# nothing\n", ": holds no words"),
        ("t.conll", "-DOCSTART- -X- O O\n\n", ": holds no words"),
        ("t.conll", "a\n", ": line 1: has 1 columns; a word and its label are expected"),
        ("t.conll", "\na O\nb\n", ": line 3: has 1 columns; 2 are expected"),
        ("t.conll", "a O\nb X O\n", ": line 2: has 3 columns; 2 are expected"),
        ("t.conll", "a\tO\n# b O\n", ": line 2: has 3 columns; 2 are expected"),
        ("t.conll", "a\tO\nb\t\n", ": line 2: the label is empty"),
        ("t.conll", "a\tO\n\tO\n", ": line 2: the text '' is not one word"),
        ("t.conll", "10 000\tO\n", ": line 1: the text '10 000' is not one word"),
        ("t.conll", "a\tB PER\n", ": line 1: the label 'B PER' is not one word"),
        ("t.conll", "a O\nb\0c O\n", ": line 2: a NUL byte in the text"),
        ("t.conll", b"a O\n\xff O\n", ": line 2: not UTF-8 at byte 1; convert it first: iconv"),
        ("t.conll.gz", "a\n", ": line 1: has 1 columns"),
        ("t.tsv", "words\ttags\na b\tO O\n", ": line 2: the text 'a b' is not one word"),
        ("t.tsv", "", ": holds no words"),
        ("t.tsv", "text\tlabel\na b\tO\n", ": line 2: words: 2, labels: 1; each word needs one"),
        ("t.tsv", "text\tlabel\n", ": holds no rows"),
        ("t.csv", "", ": is empty"),
        ("t.csv", "text,label\na,O\nb c,O O O\n", ": line 3: words: 2, labels: 3; each word needs one"),
        ("t.csv", "text,tags\na,O\n", ": no column 'label'"),
        ("t.csv", "text,label\na, \n", ": line 2: the label is empty"),
        ("t.jsonl", '{"text": ["a", "b"], "label": ["O"]}\n', ": line 1: words: 2, labels: 1; each word needs one"),
        ("t.jsonl", '{"text": ["a b"], "label": ["O"]}\n', ": line 1: the text 'a b' is not one word"),
        ("t.jsonl", '{"text": ["a"], "label": ["O O"]}\n', ": line 1: the label 'O O' is not one word"),
        ("t.jsonl", '{"text": [""], "label": ["O"]}\n', ": line 1: the text '' is not one word"),
        ("t.jsonl", '{"text": [3], "label": ["O"]}\n', ": line 1: text is no string: 3"),
        ("t.jsonl", '{"text": ["a"], "label": [null]}\n', ": line 1: label is missing"),
        ("t.jsonl", '{"text": [], "label": []}\n', ": line 1: the label is empty"),
        ("t.jsonl", '{"text": null, "label": "O"}\n', ": line 1: text is missing"),
        ("t.parquet", "PAR1 not really", ": not a readable Parquet file"),
    ],
)
def test_bad_files_are_one_line(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_table(write(tmp_path / name, content), per_word=True)
    assert str(caught.value).startswith(f"{tmp_path / name}{message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": "word"}, "is read as CoNLL, which has no header: count columns from 1"),
        ({"label": "0"}, "is read as CoNLL, which has no header: count columns from 1"),
        ({"label": "3"}, "line 1: has 2 columns, and none has the number 3"),
        ({"text_b": "1"}, "no role 'text_b'; roles are text, label"),
    ],
)
def test_columns_that_are_not_there(tmp_path: Path, columns: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read_table(write(tmp_path / "t.conll", BARE), columns, per_word=True)


def test_a_missing_file(tmp_path: Path) -> None:
    for name in ("t.conll", "t.tsv", "t.csv"):
        with pytest.raises(BadInput, match=f"{name}: no such file"):
            read_table(tmp_path / name, per_word=True)


def test_texts_are_held_out_whole(tmp_path: Path) -> None:
    content = "".join(f"w{text} O\nw{text} B-X\n\n" for text in range(40))
    kept, held = split(read_table(write(tmp_path / "t.conll", content), per_word=True), 0.1, 0)
    assert (len(kept), len(held)) == (36, 4)
    assert all(len(set(text.split())) == 1 for text in kept.texts + held.texts)
