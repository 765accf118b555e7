"""The estimators: learning, labels, pairs, pickling, scikit-learn's tools around them and its own checks on them."""

import copy
import pickle
import pickletools
import sys

import numpy as np
import polars
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import validate_data

import bertram
from bertram.config import EncoderConfig
from bertram.formats.huggingface import write
from bertram.models.heads import Model
from bertram.sklearn import TextClassifier, TextRegressor
from bertram.text.tokenizer import Tokenizer
from tiny import SIZES, model_directory, rows

TEXTS, LABELS = map(list, zip(*rows(96), strict=True))
UNSEEN, ANSWERS = map(list, zip(*rows(40, seed=1), strict=True))
FEW = TEXTS[:12]
KINDS = ["good", "bad"] * 6


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_directory(tmp_path_factory.mktemp("sklearn") / "model")


@pytest.fixture
def classifier(model):
    """One that has yet to learn, in a few steps."""
    return TextClassifier(model, epochs=1, batch_size=8, random_state=0)


@pytest.fixture
def regressor(model):
    return TextRegressor(model, epochs=1, batch_size=8, random_state=0)


@pytest.fixture(scope="module")
def learned(model):
    return TextClassifier(model, epochs=12, batch_size=8, learning_rate=5e-3, random_state=0).fit(TEXTS, LABELS)


def test_the_default_model_learns_from_a_few_texts():
    texts = ["I loved it", "what a joy", "so good", "a great film", "I hated it", "what a bore", "so bad", "awful"]
    unseen = ["a lovely story", "wonderful acting", "a terrible mess", "a waste of time"]
    classifier = TextClassifier(random_state=0).fit(texts * 16, (["good"] * 4 + ["bad"] * 4) * 16)
    assert classifier.score(unseen, ["good", "good", "bad", "bad"]) == 1


def test_a_classifier_learns(learned):
    assert learned.score(UNSEEN, ANSWERS) > 0.9
    assert set(learned.predict(UNSEEN)) == {"good", "bad"}


def test_a_regressor_learns_in_the_unit_of_its_values(model):
    values = np.where(np.array(LABELS) == "good", 300.0, 100.0)
    regressor = TextRegressor(model, epochs=20, batch_size=8, learning_rate=5e-3, random_state=0).fit(TEXTS, values)
    assert regressor.score(UNSEEN, np.where(np.array(ANSWERS) == "good", 300.0, 100.0)) > 0.8
    assert 50 < regressor.predict(UNSEEN).min() < 150 < 250 < regressor.predict(UNSEEN).max() < 350


def test_probabilities_stand_in_the_order_of_the_classes(classifier):
    # As strings 10 stands before 9, as a task sorts its labels behind it.
    classifier.fit(TEXTS, np.where(np.array(LABELS) == "good", "10", "9"))
    probabilities = classifier.predict_proba(UNSEEN)
    assert list(classifier.classes_) == ["10", "9"]
    assert probabilities.shape == (40, 2)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    answers = classifier.predictor_.predict(UNSEEN)
    assert [[answer["scores"][name] for name in ("10", "9")] for answer in answers] == probabilities.tolist()
    assert [answer["label"] for answer in answers] == classifier.predict(UNSEEN).tolist()


@pytest.mark.parametrize(
    "labels",
    [
        ["no", "yes"] * 6,
        [False, True] * 6,
        [10, 9, -1] * 4,
        [1.0, 2.0] * 6,
        np.array(["", "a\tb\n"] * 6, object),
        np.array([0, 1] * 6, np.int8),
        polars.Series(["差", "好"] * 6),
    ],
)
def test_labels_come_back_as_they_went_in(classifier, labels):
    classifier.fit(FEW, labels)
    expected = np.unique(np.asarray(labels))
    np.testing.assert_array_equal(classifier.classes_, expected)
    predicted = classifier.predict(FEW)
    assert predicted.dtype == classifier.classes_.dtype == expected.dtype
    assert set(predicted.tolist()) <= set(expected.tolist())


@pytest.mark.parametrize("given", [tuple, np.array, polars.Series, lambda texts: np.array(texts, object)[:, None]])
def test_texts_in_any_container(classifier, given):
    expected = clone(classifier).fit(FEW, KINDS).predict_proba(FEW)
    classifier.fit(given(FEW), KINDS)
    assert classifier.n_features_in_ == 1
    np.testing.assert_array_equal(classifier.predict_proba(given(FEW)), expected)


def test_pairs(classifier):
    pairs = list(zip(FEW, reversed(FEW), strict=True))
    classifier.fit(pairs, KINDS)
    assert classifier.n_features_in_ == 2
    answers = classifier.predictor_.predict([{"text": a, "text_b": b} for a, b in pairs])
    assert [answer["scores"]["bad"] for answer in answers] == classifier.predict_proba(np.array(pairs))[:, 0].tolist()
    assert not np.array_equal(classifier.predict_proba(pairs), classifier.predict_proba([(b, a) for a, b in pairs]))
    with pytest.raises(ValueError, match="X has 1 features, but TextClassifier is expecting 2"):
        classifier.predict(FEW)


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_columns_of_a_frame_keep_their_order(classifier, library):
    library = pytest.importorskip(library)
    frame, rows = library.DataFrame({"question": FEW, "context": FEW[::-1]}), list(zip(FEW, FEW[::-1], strict=True))
    classifier.fit(frame, library.Series(KINDS))
    assert list(classifier.feature_names_in_) == ["question", "context"]
    np.testing.assert_array_equal(
        classifier.predict_proba(frame), clone(classifier).fit(rows, KINDS).predict_proba(rows)
    )
    with pytest.raises(ValueError, match="same order"):
        classifier.predict(frame[["context", "question"]])


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (FEW, ["good"] * 12, "every label is 'good'; classification needs two or more"),
        (FEW, KINDS[1:], "inconsistent numbers of samples"),
        (FEW, None, "requires y to be passed"),
        (FEW, [0.5, 1.5] * 6, "Unknown label type: continuous"),
        (FEW, [[0, 1]] * 12, "y should be a 1d array"),
        (FEW, [np.nan, 1.0] * 6, "NaN"),
        ([], [], "0 samples"),
        (FEW[:1], ["good"], "1 sample is too few"),
        ("a text", ["good"], "X: must be a sequence of texts or of pairs of texts, not one str"),
        (iter(FEW), KINDS, "X: must be a sequence"),
        ([["a", "b", "c"]] * 12, KINDS, r"X: must be .*, not an array of shape \[12, 3\]"),
        ([*FEW[:11], None], KINDS, r"X\[11\]: must hold strings, not NoneType"),
        ([*FEW[:11], b"bytes"], KINDS, r"X\[11\]: must hold strings, not bytes"),
        (np.zeros((12, 2)), KINDS, r"X\[0\]: must hold strings, not float"),
        ([("a", "b")] * 11 + [("a", 1)], KINDS, r"X\[11\]: must hold strings, not int"),
        ([*FEW[:11], "\ud800"], KINDS, "an unpaired surrogate"),
        (FEW, ["good", "\udfff"] * 6, r"^y: an unpaired surrogate in the label '\\udfff', which is not valid Unicode$"),
    ],
)
def test_bad_examples(classifier, texts, labels, message):
    with pytest.raises(ValueError, match=message):
        classifier.fit(texts, labels)
    with pytest.raises(NotFittedError):
        classifier.predict(FEW)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "bert-tny"}, "did you mean bert-tiny"),
        ({"epochs": -1}, "must be a number, above 0"),
        ({"batch_size": 0}, "must be"),
        (
            {"model": "bertram-english", "max_length": 2},
            "^bertram-english: --max-length must be .* 3 to 512, not 2",
        ),
        ({"model": "bert-tiny", "vocab_size": 5}, "it must have at least 16"),
        ({"validation_fraction": 0.0}, "validation_fraction"),
        ({"validation_fraction": 0.6}, "validation_fraction"),
        ({"random_state": -1}, "must be"),
    ],
)
def test_bad_settings_are_refused_by_fit(classifier, settings, message):
    classifier.set_params(**settings)
    with pytest.raises(ValueError, match=message):
        classifier.fit(FEW, KINDS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0] * 12, "regression needs two or more"),
        (["a", "b"] * 6, "could not convert"),
        ([np.inf, 0] * 6, "infinity"),
    ],
)
def test_values_that_are_no_numbers(regressor, values, message):
    with pytest.raises(ValueError, match=message):
        regressor.fit(FEW, values)


def test_bad_texts_to_a_fitted_estimator(learned):
    for texts, message in (([], "0 samples"), ("fine", "not one str"), (["fine", 1], r"X\[1\]")):
        with pytest.raises(ValueError, match=message):
            learned.predict(texts)


def test_a_preset_learns_its_tokenizer_from_the_texts():
    classifier = TextClassifier("albert-tiny", epochs=1, vocab_size=60, max_length=9, random_state=0).fit(FEW, KINDS)
    assert 16 <= classifier.predictor_.tokenizer.vocab_size <= 60
    assert classifier.predictor_.max_length == 9
    assert classifier.predict(FEW).shape == (12,)


def test_a_preset_keeps_upper_case_if_cased():
    texts = [text.upper() for text in FEW]
    for cased in (False, True):
        tokenizer = (
            TextClassifier("bert-tiny", epochs=1, cased=cased, random_state=0).fit(texts, KINDS).predictor_.tokenizer
        )
        assert any(token.isupper() and not token.startswith("[") for token in tokenizer.tokens) is cased


def test_the_seed_decides(classifier):
    first, again, other = (clone(classifier).set_params(random_state=seed).fit(FEW, KINDS) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.predict_proba(FEW), again.predict_proba(FEW))
    assert not np.array_equal(first.predict_proba(FEW), other.predict_proba(FEW))
    classifier.set_params(random_state=np.random.RandomState(5))
    one, two = (classifier.fit(FEW, KINDS).predict_proba(FEW) for _ in range(2))
    assert not np.array_equal(one, two)


def test_a_training_that_diverges_warns(classifier):
    classifier.set_params(epochs=4, learning_rate=1e30)
    with pytest.warns(ConvergenceWarning, match="the training diverged: the loss was"):
        classifier.fit(FEW, KINDS)


def test_out_keeps_the_training(classifier, tmp_path):
    out = tmp_path / "out"
    # As grids of parameters hold them
    classifier.set_params(out=out, epochs=np.float64(2), batch_size=np.int64(4), max_length=np.int64(12))
    classifier.fit(FEW, KINDS)
    predictor = bertram.load(out)
    assert predictor.max_length == 12
    assert [answer["scores"]["good"] for answer in predictor.predict(FEW)] == classifier.predict_proba(FEW)[
        :, 1
    ].tolist()
    assert (out / "metrics.jsonl").exists()
    with pytest.raises(ValueError, match=r"is not empty; resume the training that began there, or .* directory$"):
        classifier.fit(FEW, KINDS)
    assert classifier.predict(FEW).shape == (12,)


@pytest.mark.parametrize("copied", [lambda estimator: pickle.loads(pickle.dumps(estimator)), copy.deepcopy])
def test_a_fitted_estimator_is_copied_whole(learned, copied):
    other = copied(learned)
    np.testing.assert_array_equal(other.predict_proba(UNSEEN), learned.predict_proba(UNSEEN))
    assert other.get_params() == learned.get_params()
    with pytest.raises(NotFittedError):
        clone(learned).predict(UNSEEN)


def test_pickles_hold_files_and_nothing_of_torch(learned):
    operations = list(pickletools.genops(pickle.dumps(learned, protocol=0, fix_imports=False)))
    modules = {argument.split()[0] for operation, argument, _ in operations if operation.name == "GLOBAL"}
    assert "bertram.sklearn" in modules
    assert {module.partition(".")[0] for module in modules} <= {*sys.stdlib_module_names, "bertram", "numpy"}


def test_a_pickle_with_damaged_weights_is_refused(learned):
    damaged = copy.copy(learned).__getstate__()
    damaged["model_files_"] = damaged["model_files_"] | {"model.safetensors": b"\x80\x04."}
    with pytest.raises(ValueError, match="safetensors"):
        TextClassifier().__setstate__(damaged)


def test_in_a_pipeline_and_cross_validation(classifier):
    upper = FunctionTransformer(lambda texts: [text.upper() for text in texts])
    pipeline = make_pipeline(upper, classifier)
    scores = cross_val_score(pipeline, TEXTS[:24], LABELS[:24], cv=3, error_score="raise")
    assert scores.shape == (3,)


def test_in_a_grid_search(classifier):
    grid = {"learning_rate": [0.0, 5e-3], "epochs": np.array([12])}
    search = GridSearchCV(classifier, grid, cv=2, error_score="raise").fit(TEXTS, LABELS)
    assert search.best_params_ == {"learning_rate": 5e-3, "epochs": 12}
    assert search.score(UNSEEN, ANSWERS) > 0.9
    untrained, trained = search.cv_results_["mean_test_score"]
    assert untrained < 0.75 < trained


def test_fitted_in_other_processes(regressor):
    found = cross_validate(
        regressor, FEW, np.arange(12.0), cv=2, n_jobs=2, return_estimator=True, error_score="raise", scoring="r2"
    )
    here = clone(regressor).fit(FEW[6:], np.arange(6.0, 12.0))
    np.testing.assert_allclose(found["estimator"][0].predict(FEW), here.predict(FEW), rtol=1e-5)


class NumbersAsWords:
    """Turns X as scikit-learn's checks have it, numbers [N, F], into a text a row: a0 b-3 c7 …"""

    def _columns(self, X, *, reset):
        numbers = validate_data(self, X, reset=reset)
        features = self.n_features_in_
        halves = np.clip(np.round(2 * numbers), -9, 9).astype(int)
        texts = [" ".join(f"{chr(97 + i % 26)}{value}" for i, value in enumerate(row)) for row in halves]
        columns = super()._columns(texts, reset=True)
        self.n_features_in_ = features  # F, not the one column of texts
        return columns

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        for part in (tags.classifier_tags, tags.regressor_tags):
            if part is not None:
                part.poor_score = True  # as few steps as here teach nothing
        return tags


class CheckedClassifier(NumbersAsWords, TextClassifier):
    pass


class CheckedRegressor(NumbersAsWords, TextRegressor):
    pass


ABOUT_NUMBERS = {
    "which numbers X may hold": [
        "check_complex_data",
        "check_dtype_object",
        "check_estimators_dtypes",
        "check_estimators_nan_inf",
        "check_f_contiguous_array_estimator",
    ],
    "sparse matrices": ["check_estimator_sparse_array", "check_estimator_sparse_matrix", "check_estimator_sparse_tag"],
    "that X of one dimension is refused, which with texts is the usual": ["check_fit1d", "check_fit2d_predict1d"],
    "how many features there are": [
        "check_estimators_empty_data_messages",
        "check_fit2d_1feature",
        "check_n_features_in",
        "check_n_features_in_after_fitting",
    ],
}
"""Checks whose subject is numbers in X: they would tell of the class above and nothing of the estimators."""


@pytest.fixture(scope="module")
def model_of_words(tmp_path_factory):
    directory = tmp_path_factory.mktemp("words")
    words = [f"{chr(97 + i)}{value}" for i in range(26) for value in range(-9, 10)]
    tokenizer = Tokenizer.train(words * 3, "bert", 600)
    tokenizer.save(directory)
    torch.manual_seed(0)
    write(Model(EncoderConfig(**SIZES, vocab_size=tokenizer.vocab_size, max_position_embeddings=64), {}), directory)
    return directory


@parametrize_with_checks([CheckedClassifier(epochs=1, random_state=0), CheckedRegressor(epochs=1, random_state=0)])
def test_scikit_learns_checks(estimator, check, model_of_words):
    for subject, names in ABOUT_NUMBERS.items():
        if check.func.__name__ in names:
            pytest.skip(f"checks {subject}")
    if check.keywords.get("readonly_memmap") and check.func.__name__ != "check_estimators_pickle":
        pytest.skip("checks in which memory and type X may be")  # which every fit reads and turns into texts
    check(estimator.set_params(model=model_of_words))
