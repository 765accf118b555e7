import gzip
import itertools
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bertram.baseline.features import OfTexts
from bertram.baseline.linear import FILES, Baseline
from bertram.errors import BadInput
from bertram.tasks.classification import Classification
from bertram.tasks.regression import Regression
from bertram.tasks.tagging import Tagging
from bertram.text.table import Table

DATA = Path(__file__).parents[1].parent / "shared" / "data"

VERDICTS = {"good": ["fine", "lovely", "warm"], "bad": ["dull", "cold", "awful"], "odd": ["blue", "square", "loud"]}
SUBJECTS = ["film", "room", "book", "meal", "song", "trip"]


def verdicts(names, subjects):
    rows = [(f"a {word} {subject}", name) for name in names for word in VERDICTS[name] for subject in subjects]
    return Table([text for text, _ in rows], None, [name for _, name in rows])


def pairs(words):
    """Pairs of texts with the number of words that they share."""
    rows = [(f"{a} {b}", f"{c} {d}", len({a, b} & {c, d})) for a, b, c, d in itertools.permutations(words, 4)]
    rows += [(f"{a} {b}", f"{b} {c}", 1) for a, b, c in itertools.permutations(words, 3)]
    rows += [(f"{a} {b}", f"{b} {a}", 2) for a, b in itertools.permutations(words, 2)]
    return Table([a for a, _, _ in rows], [b for _, b, _ in rows], [str(n) for _, _, n in rows])


def fit(train, validation, task):
    learned = task.from_labels(train.labels)
    return Baseline.fit(train, validation, learned)


def score(baseline, table):
    logits = baseline.logits(table.texts, table.texts_b)
    return baseline.task.scores(logits, baseline.task.targets(table.labels))[0].value


@pytest.mark.parametrize("names", [["good", "bad"], ["good", "bad", "odd"]])
def test_learns_which_words_go_with_which_label(names):
    baseline = fit(verdicts(names, SUBJECTS[:4]), verdicts(names, SUBJECTS[4:5]), Classification)
    unseen = verdicts(names, SUBJECTS[5:])
    assert baseline.logits(unseen.texts).shape == (len(unseen), len(names))
    assert score(baseline, unseen) == 1.0


def test_words_are_learned_by_what_they_look_like_and_stand_beside(tmp_path):
    """Of words that were never seen: names are written large, and numbers with digits."""
    rows = [
        (f"{name} {verb}s no {number}", "B-PER O O B-NUM")
        for name, verb, number in itertools.product(["Ann", "Bob", "Eva"], ["see", "find"], [3, 77, 15, 8])
    ]
    train = Table([text for text, _ in rows], None, [labels for _, labels in rows])
    baseline = fit(train, train, Tagging)
    baseline.save(tmp_path)
    kept = Baseline.load(tmp_path)
    (answer,) = kept.predict(["Kim takes no 42"])
    assert [(found["text"], found["label"]) for found in answer["entities"]] == [("Kim", "PER"), ("42", "NUM")]
    assert kept.predict([]) == []
    assert kept.predict(["", " "]) == [{"entities": []}] * 2
    assert kept.logits([""]).shape == (0, 3)
    assert score(kept, train) == 1.0


def test_damaged_files_and_pairs_for_single_texts_are_refused(tmp_path):
    baseline = fit(verdicts(["good", "bad"], SUBJECTS[:4]), verdicts(["good", "bad"], SUBJECTS[4:5]), Classification)
    with pytest.raises(BadInput, match="fitted on single texts, not on pairs"):
        baseline.predict([{"text": "a", "text_b": "b"}])
    baseline.save(tmp_path)
    settings, weights = (tmp_path / name for name in FILES)
    for file, damaged in (
        (settings, b"{}"),
        (settings, settings.read_bytes().replace(b"classification", b"regression")),
        (settings, settings.read_bytes().replace(b'"vocabulary": [', b'"vocabulary": ["x",')),
        (weights, weights.read_bytes()[:-4]),
    ):
        before = file.read_bytes()
        assert damaged != before
        file.write_bytes(damaged)
        with pytest.raises(BadInput, match="damaged or do not belong together"):
            Baseline.load(tmp_path)
        file.write_bytes(before)


@pytest.mark.parametrize("seen", [["good", "bad"], ["bad", "odd"], ["odd"], ["good"]])
@pytest.mark.parametrize("known", [["bad", "good", "odd"], ["bad", "good", "odd", "strange"]])
def test_a_label_that_no_training_row_has_moves_no_other(seen, known, tmp_path):
    """A rare one may stand in the held-out tenth alone."""
    task = Classification(tuple(known))
    baseline = Baseline.fit(verdicts(seen, SUBJECTS[:4]), verdicts(seen, SUBJECTS[4:5]), task)
    unseen = verdicts(seen, SUBJECTS[5:])
    assert baseline.logits(unseen.texts).shape == (len(unseen), len(known))
    assert score(baseline, unseen) == 1.0
    baseline.save(tmp_path)
    assert score(Baseline.load(tmp_path), unseen) == 1.0


def test_two_labels_are_as_probable_as_scikit_learn_says():
    from sklearn.linear_model import LogisticRegression

    from bertram.baseline import linear as module

    table = verdicts(["good", "bad"], SUBJECTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OfTexts, "run_lengths", (2,))
        patch.setattr(module, "_STRENGTHS", (1.0,))
        baseline = fit(table, table, Classification)
    features = baseline._vectorizer.transform(table.texts)
    expected = LogisticRegression(C=1.0).fit(features, table.labels).predict_proba(features)
    answers = baseline.task.answers(baseline.logits(table.texts))
    assert [[a["scores"]["bad"], a["scores"]["good"]] for a in answers] == pytest.approx(expected, abs=1e-3)


def test_regression_of_pairs_counts_what_two_texts_share():
    table = pairs(["sun", "moon", "star", "rain", "snow"])
    seen, unseen = ([i for i in range(len(table)) if (i % 5 == 0) == held] for held in (False, True))
    baseline = fit(table.select(seen), table.select(unseen), Regression)
    assert score(baseline, table.select(unseen)) > 0.95
    assert baseline.logits(table.texts, table.texts_b).shape == (len(table), 1)
    assert baseline.coefficients.shape == (1, 3 * len(baseline.vocabulary) + 1)


def test_chinese_characters_are_words():
    train = Table(["很好", "真好看", "很坏", "真坏啊"] * 3, None, ["1", "1", "0", "0"] * 3)
    baseline = fit(train, train, Classification)
    assert {"好", "坏"} <= set(baseline.vocabulary)
    assert score(baseline, Table(["好书", "坏书"], None, ["1", "0"])) == 1.0


def words_of(text):
    """Of which a baseline that learned from this text alone knows."""
    table = Table([text] * 2, None, ["0", "1"])
    return {run for run in fit(table, table, Classification).vocabulary if " " not in run}


def test_marks_belong_to_the_word_that_they_stand_in():
    """Vowel signs, points, accents that are characters of their own, joiners: Hindi, Bengali, Hebrew, Persian."""
    for text in ("यह फिल्म बहुत अच्छी थी", "এই ছবিটি", "שָׁלוֹם רב", "می\u200cخواهم", "q\u0301 r"):
        assert words_of(text) == set(text.split())
    assert words_of("क्\u200dष, (❤\ufe0f)") == {"क्\u200dष", ",", "(", "❤\ufe0f", ")"}


def test_words_without_spaces_between_them_are_read_by_characters():
    assert words_of("ดีมาก") == {"ดี", "ม", "า", "ก"}
    assert words_of("か\u3099 好") == {"が", "好"}


def test_composed_and_decomposed_texts_are_the_same():
    table = Table(["un café déçu", "ein schönes Kind"] * 2, None, ["0", "1"] * 2)
    baseline = fit(table, table, Classification)
    decomposed = [unicodedata.normalize("NFD", text) for text in table.texts]
    assert decomposed != table.texts
    assert np.array_equal(baseline.logits(decomposed), baseline.logits(table.texts))


@pytest.mark.parametrize("run", ["cafe \u0301", "ि ल", "ภาพยนตร", "❤ \ufe0f"])
def test_a_baseline_of_a_version_that_took_words_apart_is_refused(tmp_path, run):
    table = Table(["good", "bad"] * 2, None, ["0", "1"] * 2)
    replace(fit(table, table, Classification), vocabulary=["bad", run]).save(tmp_path)
    with pytest.raises(BadInput, match="knew other words in a text; fit it again"):
        Baseline.load(tmp_path)


def test_validation_chooses_the_length_of_runs():
    """Only the order of words tells the labels apart, so single words cannot."""
    train = Table(["not good but bad", "not bad but good"] * 5, None, ["0", "1"] * 5)
    assert len(max(fit(train, train, Classification).vocabulary, key=len).split()) == 3


def test_many_labels_leave_room_for_fewer_words(monkeypatch):
    """What a fit takes grows with the labels times the words."""
    table = verdicts(["good", "bad", "odd"], SUBJECTS)
    monkeypatch.setattr("bertram.baseline.linear._MOST_WEIGHTS", 3 * 10)
    assert len(fit(table, table, Classification).vocabulary) == 10
    pairs = Table(table.texts, table.texts, table.labels)
    assert len(fit(pairs, pairs, Classification).vocabulary) == 3


def test_same_data_same_baseline():
    table = verdicts(["good", "bad"], SUBJECTS)
    first, second = (fit(table, table, Classification) for _ in range(2))
    assert np.array_equal(first.coefficients, second.coefficients)
    assert first.vocabulary == second.vocabulary


@pytest.mark.parametrize("task", [Classification, Regression])
def test_comes_back_from_its_files(tmp_path, task):
    table = pairs(["sun", "moon", "star", "rain"])
    baseline = fit(table, table, task)
    baseline.save(tmp_path)
    again = Baseline.load(tmp_path)
    assert again.task == baseline.task
    assert again.parameters == baseline.parameters
    assert np.array_equal(again.logits(table.texts, table.texts_b), baseline.logits(table.texts, table.texts_b))
    assert 4 * baseline.parameters < (tmp_path / "baseline.safetensors").stat().st_size < 4 * baseline.parameters + 1000


def test_parameters_are_the_numbers_kept():
    table = Table(["a b", "c"], None, ["0", "1"])
    baseline = fit(table, table, Classification)
    assert baseline.vocabulary == ["a", "b", "c"]
    assert baseline.parameters == 3 + 3 + 1


def test_texts_unlike_any_seen_and_empty_ones_are_answered():
    table = verdicts(["good", "bad"], SUBJECTS)
    logits = fit(table, table, Classification).logits(["", "xyz \x00", "😀"])
    assert logits.shape == (3, 2)
    assert np.isfinite(logits).all()


def test_blank_texts_are_refused():
    table = Table([" ", "\t"], None, ["0", "1"])
    with pytest.raises(BadInput, match="blank"):
        fit(table, table, Classification)


def head(path, text, label, rows):
    if not DATA.exists():
        pytest.skip(f"{DATA} is not there")
    with gzip.open(DATA / path, "rt", encoding="utf-8", newline="\n") as file:
        names, *lines = [line.rstrip("\n").split("\t") for line in itertools.islice(file, rows + 1)]
    i, j = names.index(text), names.index(label)
    return Table([line[i] for line in lines], None, [line[j] for line in lines])


@pytest.mark.data
@pytest.mark.parametrize(("folder", "text", "least"), [("sst2", "sentence", 0.76), ("chnsenticorp", "text_a", 0.87)])
def test_is_strong_on_real_reviews(folder, text, least):
    """Of 5,000 rows alone, for the sake of time."""
    train = head(f"{folder}/train.tsv.gz", text, "label", 5000)
    dev = head(f"{folder}/dev.tsv.gz", text, "label", 2000)
    assert score(fit(train, dev, Classification), dev) >= least
