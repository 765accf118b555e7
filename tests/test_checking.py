import json
from pathlib import Path

import pytest
from rich.cells import cell_len

from bertram.checking import tables
from bertram.checking.tables import render
from bertram.config import PRESETS
from bertram.errors import BadInput
from bertram.text.splits import files_of
from bertram.text.tokenizer import Tokenizer
from tiny import run

DATA = Path(__file__).parents[1].parent / "shared" / "data"


def table(path, *rows):
    """A TSV of text [, text_b] and label."""
    header = ("text", "label") if len(rows[0]) == 2 else ("text", "text_b", "label")
    path.write_text("".join("\t".join(row) + "\n" for row in (header, *rows)), encoding="utf-8")
    return path


def clean(path, *more):
    """Ten rows of each of two labels, which nothing is wrong with, and `more`."""
    return table(path, *((f"text number {i}", "ab"[i % 2]) for i in range(20)), *more)


def check_tables(data, validation=None, test=None, **options):
    """As `tables.check_tables`, of the files of each split."""
    return tables.check_tables(files_of(data, validation, test, most=1), **options)


def found_about(found, word):
    return [warning for warning in found["warnings"] if word in warning]


def test_nothing_to_warn_of(tmp_path):
    found = check_tables(clean(tmp_path / "train.tsv"), table(tmp_path / "dev.tsv", ("one more", "a")))
    assert found["task"] == "classification"
    assert found["model"] is None
    assert found["warnings"] == []
    assert found["tables"]["train"]["labels"] == {"a": 10, "b": 10}
    assert found["tables"]["validation"]["rows"] == 1
    assert "test" not in found["tables"]
    assert "Nothing here needs a warning." in render(found)


def test_rows_that_also_stand_in_an_earlier_table(tmp_path):
    train = clean(tmp_path / "train.tsv")
    dev = table(tmp_path / "dev.tsv", ("text number 0", "a"), ("text number 1", "a"), ("new", "b"))
    test = table(tmp_path / "test.tsv", ("new", "b"), ("Text number 0", "a"))
    found = check_tables(train, dev, test)
    assert found["tables"]["validation"]["also_in"] == {"train": {"rows": 2, "otherwise_labelled": 1}}
    assert found["tables"]["test"]["also_in"] == {
        "train": {"rows": 0, "otherwise_labelled": 0},
        "validation": {"rows": 1, "otherwise_labelled": 0},
    }
    assert found["warnings"] == [
        "2 of 3 rows of dev.tsv also stand in train.tsv, 1 of them labelled otherwise; scores on dev.tsv will flatter",
        "1 of 2 rows of test.tsv also stands in dev.tsv",
    ]


def test_repeated_contradictory_and_blank_rows(tmp_path):
    more = [("text number 3", "b"), ("text number 4", "b"), ("text number 4", "b"), (" ", "a")]
    found = check_tables(clean(tmp_path / "train.tsv", *more))
    train = found["tables"]["train"]
    # Row 3 comes twice with label b; row 4 once with a and twice with b.
    assert (train["repeated"], train["contradictory"], train["blank"]) == (3, 3, 1)
    assert found["warnings"] == [
        "1 of 24 rows of train.tsv holds a blank text",
        "3 of 24 rows of train.tsv repeat the text of an earlier one",
        "3 of 24 rows of train.tsv share a text with a row that is labelled otherwise",
    ]


def test_a_pair_is_one_text(tmp_path):
    rows = [("a", "b", "x"), ("a", "c", "y"), ("b", "a", "x"), ("a", "b", "x"), ("", "a", "y")]
    train = check_tables(table(tmp_path / "train.tsv", *rows))["tables"]["train"]
    assert (train["pairs"], train["repeated"], train["contradictory"], train["blank"]) == (True, 1, 0, 1)
    assert train["lengths"]["characters"] == {"p50": 2, "p90": 2, "p99": 2, "max": 2}


def test_pairs_beside_single_texts(tmp_path):
    found = check_tables(clean(tmp_path / "train.tsv"), table(tmp_path / "dev.tsv", ("a", "b", "a")))
    assert found_about(found, "pairs") == [
        "of train.tsv and dev.tsv one holds pairs of texts and the other single texts"
    ]


def test_labels_that_training_lacks(tmp_path):
    dev = table(tmp_path / "dev.tsv", ("one", "c"), ("two", "c"), ("three", "a"), ("four", "\x1b[31m"))
    found = check_tables(clean(tmp_path / "train.tsv"), dev)
    assert found["tables"]["validation"]["unusable_labels"] == {"c": 2, "\x1b[31m": 1}
    assert found["warnings"] == [r"3 of 4 rows of dev.tsv hold a label that train.tsv lacks: 'c', '\x1b[31m'"]
    assert "\x1b" not in render(found)


def test_labels_that_are_one_to_a_reader(tmp_path):
    """Names that are several only by case and white space, or as numbers, wherever they stand."""
    more = [(f"more text {i}", label) for i, label in enumerate([" A"] * 10 + ["1"] * 10)]
    found = check_tables(clean(tmp_path / "train.tsv", *more), table(tmp_path / "dev.tsv", ("one", "1.0")))
    assert found["warnings"][1:] == [
        "labels that differ only in case, in white space, in how accents are composed or in how a number is written "
        "count as different ones: 'a', ' A', '1', '1.0'"
    ]


def test_labels_that_are_one_on_paper(tmp_path):
    more = [(f"{label} {i}", label) for label in ("caf\xe9", "cafe\u0301") for i in range(10)]
    (warning,) = found_about(check_tables(clean(tmp_path / "train.tsv", *more)), "differ")
    assert warning.endswith("count as different ones: 'caf\xe9', 'cafe\u0301'")


def test_texts_of_a_tsv_that_are_quoted_as_in_csv(tmp_path):
    texts = ['"he said ""no"""', '"a" and ""', '"not doubled"']
    train = clean(tmp_path / "train.tsv", *((text, "a") for text in texts))
    assert check_tables(train)["warnings"] == [
        "1 of 23 rows of train.tsv holds a text quoted as in CSV; TSV has no quoting here, so the quotation marks are "
        "part of the text"
    ]
    objects = [{"text": f'"number ""{i}"""', "label": "ab"[i % 2]} for i in range(20)]
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in objects))
    assert check_tables(tmp_path / "train.jsonl")["warnings"] == []


def test_lopsided_rare_and_single_labels(tmp_path):
    lopsided = table(tmp_path / "train.tsv", *((f"text {i}", "good") for i in range(90)), ("bad", "bad"))
    assert check_tables(lopsided)["warnings"] == [
        "90 of 91 rows of train.tsv hold the label 'good'; a model that always answers so is as accurate",
        "fewer than 10 rows of train.tsv each for 1 of 2 labels: 'bad'",
    ]
    single = table(tmp_path / "single.tsv", *((f"text {i}", "good") for i in range(10)))
    assert check_tables(single)["warnings"] == ["every label of single.tsv is 'good'; there is nothing to learn"]


def test_many_labels_make_no_long_page(tmp_path):
    found = check_tables(table(tmp_path / "train.tsv", *((f"text {i}", f"label {i}") for i in range(500))))
    assert len(found["tables"]["train"]["labels"]) == 500
    page = render(found)
    assert "480 more labels" in page
    assert len(page.splitlines()) < 50


def test_numbers(tmp_path):
    train = table(tmp_path / "train.tsv", ("a", "1"), ("b", "2.5"), ("b", "2.50"), ("c", "-1"))
    dev = table(tmp_path / "dev.tsv", ("d", "7"), ("e", "high"), ("a", "1.0"))
    found = check_tables(train, dev)
    assert found["task"] == "regression"
    assert found["tables"]["train"]["labels"] is None
    assert found["tables"]["train"]["numbers"] == {"min": -1.0, "mean": 1.25, "max": 2.5}
    assert found["tables"]["train"]["contradictory"] == 0
    assert found["tables"]["validation"]["also_in"]["train"] == {"rows": 1, "otherwise_labelled": 0}
    assert found_about(found, "number") == ["1 of 3 rows of dev.tsv holds a label that is no number: 'high'"]
    words = table(tmp_path / "words.tsv", ("d", "low"))
    assert "–" in render(check_tables(train, words))
    equal = table(tmp_path / "equal.tsv", ("a", "1.5"), ("b", "1.5"))
    assert check_tables(equal)["warnings"] == ["every label of equal.tsv is 1.5; there is nothing to learn"]


def test_lengths_are_those_of_rows_that_occur(tmp_path):
    rows = [("x" * length + " y" * (length % 2), str(length % 2)) for length in range(1, 101)]
    lengths = check_tables(table(tmp_path / "train.tsv", *rows))["tables"]["train"]["lengths"]
    assert lengths["words"] == {"p50": 1, "p90": 2, "p99": 2, "max": 2}
    assert lengths["characters"] == {"p50": 51, "p90": 91, "p99": 100, "max": 101}


def test_tokens_of_a_preset_are_those_that_training_would_learn(tmp_path):
    texts = [f"the film was {word} and then {word} again" for word in ("good", "bad", "dull", "fine")] * 5
    texts.append("good " * 600)
    train = table(tmp_path / "train.tsv", *((text, "ab"[place % 2]) for place, text in enumerate(texts)))
    found = check_tables(train, model="bert-tiny")
    tokenizer = Tokenizer.train(texts, "bert", PRESETS["bert-tiny"].vocab_size)
    batch, _ = tokenizer.encode(texts, max_length=1000)
    assert found["model"] == {
        "name": "bert-tiny",
        "vocab_size": tokenizer.vocab_size,
        "learned_here": True,
        "max_length": 512,
    }
    assert found["tables"]["train"]["lengths"]["tokens"]["max"] == batch.lengths.max() == 602
    assert found["tables"]["train"]["too_long"] == 1
    assert found_about(found, "512") == [
        "1 of 21 rows of train.tsv runs past the 512 tokens that bert-tiny reads, and would be cut"
    ]


def test_tokens_of_a_preset_that_keeps_case(tmp_path, capsys):
    texts = ["The film was Good", "the FILM was bad"] * 10
    train = table(tmp_path / "train.tsv", *((text, "ab"[place % 2]) for place, text in enumerate(texts)))
    assert run("check", train, "--model", "bert-tiny", "--cased", "--vocab-size", "50", "--json") == 0
    tokenizer = Tokenizer.train(texts, "bert", 50, cased=True)
    assert json.loads(capsys.readouterr().out)["model"]["vocab_size"] == tokenizer.vocab_size
    folded = Tokenizer.train(texts, "bert", 50)
    assert folded.fingerprint != tokenizer.fingerprint
    for model in ([], ["--model", "bertram-english"]):
        assert run("check", train, *model, "--cased") == 2
        assert "for the tokenizer that a preset learns" in capsys.readouterr().err


def test_a_labelled_table_is_no_translation_whatever_else_it_has(tmp_path, capsys):
    rows = "".join(f"word {number},{'ab'[number % 2]},web,me\n" for number in range(20))
    (tmp_path / "posts.csv").write_text("text,label,source,target\n" + rows)
    (tmp_path / "pairs.csv").write_text("source,target\n" + "one,eins\n" * 20)
    for name, task in (("posts.csv", "classification"), ("pairs.csv", "translation")):
        assert run("check", tmp_path / name, "--json") == 0
        assert json.loads(capsys.readouterr().out)["task"] == task


def test_tokens_of_a_directory_are_its_own(tmp_path):
    """An English vocabulary on Chinese text: nearly all is unknown, and the user hears of it."""
    model = tmp_path / "english"
    tokenizer = Tokenizer.train(["some english words, and no others"] * 3, "bert", 60)
    tokenizer.save(model)
    sizes = {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 8, "model_type": "bert"}
    sizes |= {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
    (model / "config.json").write_text(json.dumps(sizes))
    found = check_tables(clean(tmp_path / "train.tsv", ("房间空间太小，不宜容纳太大件行李", "a")), model=model)
    assert found["model"] == {
        "name": "english",
        "vocab_size": tokenizer.vocab_size,
        "learned_here": False,
        "max_length": 8,
    }
    train = found["tables"]["train"]
    assert train["lengths"]["tokens"]["max"] == 18
    assert train["unknown_tokens"] > 0.1
    assert len(found_about(found, "does it know the language?")) == 1


def test_what_a_preset_did_not_learn_is_no_language_that_it_does_not_know(tmp_path):
    dev = table(tmp_path / "dev.tsv", ("房间空间太小，不宜容纳太大件行李", "a"))
    (warning,) = check_tables(clean(tmp_path / "train.tsv"), dev, model="bert-tiny")["warnings"]
    assert "% of the tokens of dev.tsv are not in the vocabulary learned from train.tsv: learn from more" in warning


def test_words_are_counted_where_spaces_stand_between_them(tmp_path):
    chinese = [(f"房间空间太小，不宜容纳太大件行李 {i}", "ab"[i % 2]) for i in range(20)]
    found = check_tables(clean(tmp_path / "english.tsv"), table(tmp_path / "chinese.tsv", *chinese))
    units = [list(part["lengths"]) for part in found["tables"].values()]
    assert units == [["characters", "words"], ["characters"]]
    assert sum("words" in line for line in render(found).splitlines()) == 1


def test_columns_are_those_of_the_file(tmp_path):
    header = ("id", "sentence", "label", "by\x1b")
    for part, lines in (("train", [header]), ("test", [header[1:]]), ("bare", [])):
        rows = [(str(i), f"text {i}", "ab"[i % 2], "me")[-len(lines[0]) if lines else 0 :] for i in range(20)]
        (tmp_path / f"{part}.tsv").write_text("".join("\t".join(line) + "\n" for line in [*lines, *rows]))
    train, test, bare = (tmp_path / f"{part}.tsv" for part in ("train", "test", "bare"))
    named = {"text": "sentence"}
    alone = check_tables(train, columns=named)
    assert alone["tables"]["train"]["columns"] == {"text": "sentence", "label": "label"}
    assert alone["tables"]["train"]["other_columns"] == ["id", "by\x1b"]
    assert r"columns     'sentence' as text, label; not read: 'id', 'by\x1b'" in render(alone).splitlines()
    both = render(check_tables(train, test=test, columns=named)).splitlines()
    assert r"columns     of test: 'sentence' as text, label; not read: 'by\x1b'" in both
    same = render(check_tables(train, test=train, columns=named)).splitlines()
    assert sum(line.startswith("columns") for line in same) == 1
    counted = check_tables(bare, columns={"text": "2", "label": "3"})["tables"]["train"]
    assert counted["rows"] == 20
    assert (counted["columns"], counted["other_columns"]) == ({"text": "2", "label": "3"}, ["1", "4"])
    assert "columns     text, label" in render(check_tables(clean(tmp_path / "clean.tsv"))).splitlines()
    with pytest.raises(BadInput, match="no role 'lable'; roles are text, text_b, label"):
        check_tables(train, columns={**named, "lable": "id"})


def test_a_task_that_is_named_is_not_guessed(tmp_path):
    numbers = table(tmp_path / "train.tsv", *((f"text {i}", str(i % 2)) for i in range(20)))
    guessed, named = check_tables(numbers), check_tables(numbers, task="regression")
    assert (guessed["task"], guessed["guessed"]) == ("classification", True)
    assert (named["task"], named["guessed"]) == ("regression", False)
    assert named["tables"]["train"]["numbers"] == {"min": 0.0, "mean": 0.5, "max": 1.0}
    assert "task        regression" in render(named).splitlines()
    words = check_tables(clean(tmp_path / "words.tsv"), task="regression")
    assert words["warnings"] == ["20 of 20 rows of words.tsv hold a label that is no number: 'a', 'b'"]
    with pytest.raises(BadInput, match="no task named parsing"):
        check_tables(numbers, task="parsing")


def test_similarity_reads_its_two_texts_apart(tmp_path):
    rows = [(f"text {i}", "word " * i, str(i)) for i in range(20)]
    train = table(tmp_path / "train.tsv", *rows)
    found = {task: check_tables(train, task=task, model="bert-tiny") for task in ("regression", "similarity")}
    lengths = {task: one["tables"]["train"]["lengths"] for task, one in found.items()}
    assert lengths["similarity"]["tokens"]["max"] == 19 + 2  # [CLS] and [SEP]
    first = lengths["regression"]["tokens"]["max"] - lengths["similarity"]["tokens"]["max"]
    assert first >= 2 + 1  # "text", a number and [SEP]
    single = check_tables(clean(tmp_path / "single.tsv"), task="similarity")
    assert "similarity compares two texts: single.tsv needs a column text_b" in single["warnings"]


def test_files_of_one_name_are_told_apart(tmp_path):
    for part in ("old", "new"):
        (tmp_path / part).mkdir()
        clean(tmp_path / part / "data.tsv")
    found = check_tables(tmp_path / "old" / "data.tsv", tmp_path / "new" / "data.tsv")
    assert found_about(found, "stand") == [
        "20 of 20 rows of validation also stand in train; scores on validation will flatter"
    ]


def test_the_page_fits_a_terminal(tmp_path):
    rows = [(f"text number {i}", f"很长很长很长很长很长的标签 {i % 7}") for i in range(70)]
    files = [table(tmp_path / f"{part}.tsv", *rows) for part in ("train", "validation", "test")]
    page = render(check_tables(*files, model="albert-tiny")).splitlines()
    assert max(map(cell_len, page)) <= 80
    labels = [line for line in page if line.startswith("label")]
    assert len(labels) == 7
    assert len({cell_len(line) for line in labels}) == 1


def test_found_is_json(tmp_path):
    found = check_tables(clean(tmp_path / "train.tsv"), model="bert-tiny")
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_what_cannot_be_used(tmp_path):
    train = clean(tmp_path / "train.tsv")
    with pytest.raises(BadInput, match=r"absent\.tsv"):
        check_tables(train, tmp_path / "absent.tsv")
    with pytest.raises(BadInput, match="bert-tiny"):
        check_tables(train, model="bert-tinny")


@pytest.mark.data
def test_over_a_quarter_of_chnsenticorps_dev_rows_stand_in_train():
    folder = DATA / "chnsenticorp"
    if not folder.exists():
        pytest.skip("needs shared/data/chnsenticorp")
    found = check_tables(folder / "train.tsv.gz", folder / "dev.tsv.gz", columns={"text": "text_a"})
    assert found["tables"]["validation"]["rows"] == 1200
    assert found["tables"]["validation"]["also_in"]["train"] == {"rows": 338, "otherwise_labelled": 8}
    assert len(found_about(found, "338 of 1,200 rows of dev.tsv.gz also stand in train.tsv.gz")) == 1


@pytest.mark.data
def test_sts_b_is_regression_on_pairs():
    file = DATA / "glue" / "STS-B" / "train.tsv.gz"
    if not file.exists():
        pytest.skip("needs shared/data/glue/STS-B")
    found = check_tables(file, columns={"text": "8", "text_b": "9", "label": "10"})
    assert found["task"] == "regression"
    assert found["tables"]["train"]["rows"] == 4249
    assert found["tables"]["train"]["pairs"]
    assert found["tables"]["train"]["numbers"]["max"] == 5.0
