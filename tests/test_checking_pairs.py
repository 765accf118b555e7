"""What `bertram check` finds in pairs of texts to write one from the other."""

import json

import pytest

from bertram.checking.check import check
from bertram.checking.pairs import check_pairs
from bertram.errors import BadInput
from bertram.tasks.registry import GENERATIONS
from tiny import model_directory, run

SENTENCES = [(f"sentence number {i} is here", f"Satz Nummer {i} ist hier") for i in range(40)]


def lines(path, pairs):
    """Two files of aligned lines."""
    files = [path.with_suffix(suffix) for suffix in (".en", ".de")]
    for file, texts in zip(files, zip(*pairs, strict=True), strict=True):
        file.write_text("".join(f"{text}\n" for text in texts))
    return files


def test_nothing_to_warn_of(tmp_path):
    found, page = check(lines(tmp_path / "train", SENTENCES))
    assert found["task"] == "translation"
    assert found["warnings"] == []
    assert found["tables"]["train"]["rows"] == 40
    assert found["tables"]["train"]["lengths"]["target"]["words"] == {"p50": 5, "p90": 5, "p99": 5, "max": 5}
    assert "train       train.en and train.de, 40 rows" in page.splitlines()
    assert "Nothing here needs a warning." in page
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize("task", ["translation", "summarization"])
def test_a_table_tells_its_task_by_its_columns(tmp_path, task):
    rows = [GENERATIONS[task].columns, *SENTENCES]
    (tmp_path / "t.tsv").write_text("".join(f"{first}\t{second}\n" for first, second in rows))
    found, _ = check([tmp_path / "t.tsv"])
    assert found["task"] == task
    (tmp_path / "named.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in [("en", "de"), *SENTENCES]))
    first, second = GENERATIONS[task].columns
    named, _ = check([tmp_path / "named.tsv"], columns={first: "en", second: "de"})
    assert (named["task"], named["tables"]["train"]["rows"]) == (task, 40)
    with pytest.raises(BadInput, match="no role 'sorce'; roles are text, text_b, label"):
        check([tmp_path / "named.tsv"], columns={"sorce": "en"})


def test_what_is_wrong_is_counted(tmp_path):
    more = [("", " "), SENTENCES[0], ("https://example.org", "https://example.org"), SENTENCES[1]]
    more += [("short", "ein Satz, der viel länger ist als das, was er übersetzen soll, so wie dieser")]
    train = lines(tmp_path / "train", [*SENTENCES, *more])
    test = lines(tmp_path / "test", [(SENTENCES[3][0], "anders gesagt, aber gleich"), ("a new sentence", "ein neuer")])
    found, page = check(train, test=test)
    counts = ("rows", "empty", "repeated", "copied", "odd_lengths")
    assert [found["tables"]["train"][name] for name in counts] == [44, 1, 2, 1, 1]
    assert found["tables"]["test"]["also_in"] == {"train": 1}
    assert found["warnings"] == [
        "2 of 44 rows of train.en and train.de repeat an earlier one",
        "1 of 44 rows of train.en and train.de says the same on both sides",
        "1 of 44 rows of train.en and train.de holds a target of an unusual length: do the two belong together?",
        "1 of 2 rows of test.en and test.de shares the source with one of train.en and train.de; scores on test.en and "
        "test.de will flatter",
    ]
    assert max(map(len, page.splitlines())) <= 80


def test_a_summary_longer_than_its_document(tmp_path):
    rows = [("a long document of many words", ["short", "brief"]), ("hm", "a summary that tells more than there is")]
    table = tmp_path / "mails.jsonl"
    table.write_text("".join(f"{json.dumps({'body': a, 'summary': b})}\n" for a, b in rows))
    found, page = check([table], task="summarization", columns={"document": "body"})
    assert found["tables"]["train"]["rows"] == 3
    assert found["warnings"] == ["1 of 3 rows of mails.jsonl holds a summary longer than the document"]
    assert "train       document, characters" in page


def test_lengths_in_tokens(tmp_path):
    long = ("word " * 600, "Wort " * 700)
    found, _ = check(lines(tmp_path / "train", [*SENTENCES, long]), model="transformer-tiny")
    train = found["tables"]["train"]
    assert found["model"]["learned_here"]
    assert (train["lengths"]["source"]["tokens"]["max"], train["lengths"]["target"]["tokens"]["max"]) == (601, 701)
    assert train["too_long"] == 1
    assert any("past the 512 tokens that transformer-tiny reads" in warning for warning in found["warnings"])


def test_an_encoder_that_gets_a_decoder(tmp_path):
    encoder = model_directory(tmp_path / "encoder")
    found = check_pairs("translation", {"train": lines(tmp_path / "train", SENTENCES)}, model=encoder)
    assert found["model"]["max_length"] == 32
    assert found["tables"]["train"]["unknown_tokens"] > 0.01


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["train.en", "train.de", "--task", "classification"],
            "train.de: one file too many; labelled texts stand in one",
        ),
        (["train.en", "train.de", "--test", "a", "b", "c"], "c: one file too many; pairs stand in one table or in two"),
        (["train.en", "train.de", "--model", "bert-tiny"], "bert-tiny: is an encoder's preset"),
        (["train.en", "--task", "translation"], "needs a second file"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    lines(tmp_path / "train", SENTENCES)
    monkeypatch.chdir(tmp_path)
    assert run("check", *arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
