"""What `bertram check` finds in texts whose words are labelled one by one."""

import json
from pathlib import Path

import pytest
from rich.cells import cell_len

from bertram.checking import tagged
from bertram.checking.check import check
from bertram.errors import BadInput
from bertram.supervised.train import train as train_model
from bertram.text.splits import files_of
from tiny import model_directory, run

DATA = Path(__file__).parents[1].parent / "shared" / "data" / "conll2003"


def conll(path, *texts):
    """A CoNLL file of texts such as "Ada/B-PER writes/O"."""
    path.write_text("\n".join("".join(f"{word.replace('/', ' ')}\n" for word in text.split()) for text in texts))
    return path


def clean(path, *more):
    """Ten texts of two entities, of a kind each, which nothing is wrong with, and `more`."""
    return conll(path, *(f"Ada/B-PER {i}/I-PER saw/O Rome/B-LOC" for i in range(10)), *more)


def check_tagged(data, validation=None, test=None, **options):
    """As `tagged.check_tagged`, of the files of each split."""
    return tagged.check_tagged(files_of(data, validation, test, most=1), **options)


def test_nothing_to_warn_of(tmp_path):
    train, dev = clean(tmp_path / "train.conll"), conll(tmp_path / "dev.txt", "Rome/B-LOC fell/O", "Ada/B-PER")
    found, page = check(train, dev, task="tagging")
    assert (found["task"], found["model"], found["warnings"]) == ("tagging", None, [])
    counts = ("rows", "words", "entities", "words_in_entities")
    assert [found["tables"]["train"][name] for name in counts] == [10, 40, 20, 30]
    assert [found["tables"]["validation"][name] for name in counts] == [2, 3, 2, 2]
    assert found["tables"]["train"]["labels"] == {"B-PER": 10, "I-PER": 10, "O": 10, "B-LOC": 10}
    assert found["tables"]["train"]["kinds"] == {"PER": 10, "LOC": 10}
    assert found["tables"]["train"]["lengths"] == {
        "characters": {"p50": 14, "p90": 14, "p99": 14, "max": 14},
        "words": {"p50": 4, "p90": 4, "p99": 4, "max": 4},
    }
    assert "train       train.conll, 10 rows" in page.splitlines()
    assert "Nothing here needs a warning." in page
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_any_file_that_training_takes(tmp_path):
    rows = [{"tokens": ["Ada", str(i)], "tags": ["B-PER", "O"]} for i in range(10)]
    (tmp_path / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (tmp_path / "dev.tsv").write_text("tokens\ttags\nAda saw  Ada\tB-PER O B-PER\n")
    found = check_tagged(tmp_path / "train.jsonl", tmp_path / "dev.tsv", columns={"text": "tokens", "label": "tags"})
    assert [table["words"] for table in found["tables"].values()] == [20, 3]
    assert found["warnings"] == []


def test_texts_that_come_again(tmp_path):
    train = clean(tmp_path / "train.conll", "Rome/B-LOC", "Rome/B-LOC", "Rome/O")
    dev = conll(tmp_path / "dev.conll", "Rome/B-PER", "Ada/B-PER 3/I-PER saw/O Rome/B-LOC", "rome/O")
    assert check_tagged(train, dev)["warnings"] == [
        "2 of 13 rows of train.conll repeat the text of an earlier one",
        "3 of 13 rows of train.conll share a text with a row that is labelled otherwise",
        "2 of 3 rows of dev.conll also stand in train.conll, 1 of them labelled otherwise; scores on dev.conll will "
        "flatter",
    ]


def test_labels_that_training_refuses(tmp_path):
    train, dev = clean(tmp_path / "train.conll"), conll(tmp_path / "dev.conll", "Rome/B-LOC of/I-LOC Ada/B-ORG")
    found = check_tagged(train, dev)
    assert found["tables"]["validation"]["unusable_labels"] == {"I-LOC": 1, "B-ORG": 1}
    assert found["warnings"] == [
        "2 of 3 words of dev.conll hold a label that train.conll lacks, which training refuses: 'I-LOC', 'B-ORG'"
    ]
    with pytest.raises(BadInput, match="not seen in training"):
        train_model("tagging", train, model="bert-tiny", out=tmp_path / "out", validation=dev)


def test_entities_that_begin_with_another_label(tmp_path):
    """I-LOC behind B-PER and I-PER behind O begin entities; the I-PER behind B-PER does not."""
    train = clean(tmp_path / "train.conll", "Ada/B-PER Lovelace/I-PER Rome/I-LOC saw/O Bob/I-PER")
    found = check_tagged(train)
    assert found["tables"]["train"]["odd_beginnings"] == {"I-LOC": 1, "I-PER": 1}
    assert found["warnings"] == [
        "2 of 23 entities of train.conll begin with 'I-LOC', 'I-PER' though other labels are for beginnings: IOB1 if "
        "most do, else words or labels are missing"
    ]


def test_without_labels_for_beginnings_none_is_odd(tmp_path):
    inside = conll(tmp_path / "io.conll", *(f"Ada/I-PER {i}/O" for i in range(10)))
    bare = conll(tmp_path / "bare.conll", *(f"Ada/PER {i}/O" for i in range(10)))
    for file in (inside, bare):
        found = check_tagged(file)
        assert found["tables"]["train"]["kinds"] == {"PER": 10}
        assert found["warnings"] == []


def test_few_entities(tmp_path):
    train = clean(tmp_path / "train.conll", "IBM/B-ORG")
    empty = conll(tmp_path / "dev.conll", " ".join(f"{i}/O" for i in range(200)), "Ada/B-PER")
    found = check_tagged(train, empty)
    assert found["warnings"] == [
        "1 of 201 words of dev.conll stands in an entity: is all of it labelled?",
        "fewer than 10 entities of train.conll each for 1 of 3 kinds: 'ORG'",
    ]
    nothing = check_tagged(conll(tmp_path / "o.conll", "a/O b/O"))
    assert "every label of o.conll is 'O'; there is nothing to learn" in nothing["warnings"]
    assert "entities" in tagged.render(nothing)


def test_every_word_stands_alone_without_o_and_prefixes(tmp_path):
    train = conll(tmp_path / "train.conll", *(f"a/DET dog{i}/NOUN" for i in range(10)), "the/DET a/X")
    found = check_tagged(train)
    (table,) = found["tables"].values()
    assert table["labels"] == {"DET": 11, "NOUN": 10, "X": 1}
    assert [table[name] for name in ("entities", "words_in_entities", "kinds", "odd_beginnings")] == [None] * 4
    assert found["warnings"] == ["fewer than 10 words of train.conll each for 1 of 3 labels: 'X'"]
    lines = tagged.render(found).splitlines()
    assert "label 'DET'               11  50.0%" in lines
    assert not [line for line in lines if line.startswith(("entities", "words in entities", "kind"))]


def test_labels_and_kinds_that_are_one_to_a_reader(tmp_path):
    more = [f"Bob/B-Per {i}/I-PER" for i in range(10)]
    warning = check_tagged(clean(tmp_path / "train.conll", *more))["warnings"][-1]
    assert warning.startswith("labels that differ only in case, in white space")
    assert warning.endswith("count as different ones: 'B-PER', 'B-Per', 'PER', 'Per'")


@pytest.mark.parametrize(
    ("labels", "warning"),
    [
        (
            ("0", "3", "4"),
            "all labels of train.conll are numbers, which say of no word that it begins an entity: is it",
        ),
        ([f"word{i}" for i in range(301)], "301 labels of train.conll differ: is it their column? --columns label="),
        (("_", "SpaceAfter=No"), "2 of 4 words of train.conll hold the label '_', which is none in CoNLL-U: of that,"),
    ],
)
def test_a_column_that_seems_to_be_another(tmp_path, labels, warning):
    words = [f"w{i}/{label}" for i, label in enumerate(labels)] * 2
    (first, *_) = check_tagged(conll(tmp_path / "train.conll", " ".join(words)))["warnings"]
    assert first.startswith(warning)


def test_tokens_of_texts_that_are_read_in_several_parts(tmp_path):
    """A word of each text is unknown; the model reads 32 tokens, [CLS] and [SEP] included."""
    model = model_directory(tmp_path / "model")
    texts = [" ".join(f"{word}/O" for word in ["film"] * size + ["水"]) for size in (29, 30)]
    found = check_tagged(conll(tmp_path / "train.conll", *texts), model=model)
    (table,) = found["tables"].values()
    assert found["model"]["max_length"] == 32
    assert table["lengths"]["tokens"] == {"p50": 32, "p90": 33, "p99": 33, "max": 33}
    assert (table["too_long"], table["unknown_tokens"]) == (1, pytest.approx(2 / 65))
    assert (
        "1 of 2 rows of train.conll runs past the 32 tokens that model reads, and would be read in several parts"
    ) in found["warnings"]


def test_a_preset_learns_its_vocabulary_from_the_texts(tmp_path, capsys):
    train = clean(tmp_path / "train.conll")
    assert run("check", train, "--task", "tagging", "--model", "bert-tiny", "--cased", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"]["learned_here"]
    assert found["tables"]["train"]["unknown_tokens"] == 0
    assert found["tables"]["train"]["lengths"]["tokens"]["max"] >= 4 + 2


def test_a_file_that_is_no_table_is_told_of_the_task(tmp_path, capsys):
    assert run("check", clean(tmp_path / "train.conll")) == 2
    said = capsys.readouterr().err
    assert "what kind of table is it? Names end with .csv, .tsv, .jsonl, .parquet" in said
    assert "the task is tagging" in said
    assert said.count("\n") == 1


def test_the_page_fits_a_terminal(tmp_path):
    texts = [f"东京/B-{'很长' * 12}{i % 7} {i}/O" for i in range(70)]
    files = [conll(tmp_path / f"{part}.conll", *texts) for part in ("train", "validation", "test")]
    lines = tagged.render(check_tagged(*files, model="albert-tiny")).splitlines()
    assert max(map(cell_len, lines)) <= 80
    assert sum(line.startswith("kind") for line in lines) == 7


@pytest.mark.data
def test_conll_2003_has_the_published_counts():
    """Sentences, tokens and entities as Tjong Kim Sang & De Meulder (2003) count them, tables 1 and 2.

    Their sentences include a line for each document, 946 and 216, which is no text.
    """
    if not DATA.exists():
        pytest.skip("needs shared/data/conll2003")
    found = check_tagged(DATA / "train.txt.gz", DATA / "valid.txt.gz")
    train, validation = found["tables"].values()
    assert (train["rows"], validation["rows"]) == (14987 - 946, 3466 - 216)
    assert (train["words"], validation["words"]) == (203621, 51362)
    assert train["kinds"] == {"LOC": 7140, "PER": 6600, "ORG": 6321, "MISC": 3438}
    assert validation["kinds"] == {"PER": 1842, "LOC": 1837, "ORG": 1341, "MISC": 922}
    assert validation["also_in"]["train"]["rows"] == 193
    assert train["odd_beginnings"] == {}
