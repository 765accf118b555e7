import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from bertram.errors import BadInput
from bertram.tasks.classification import Classification
from bertram.tasks.registry import TASKS, kind_of_task, task_from_dict
from bertram.tasks.regression import Regression
from bertram.tasks.similarity import Similarity
from bertram.tasks.task import Score

LABELS = {
    "classification": ["10", "9", "b", "9", "2"],
    "regression": ["1", "2.5", "4", "2.5", "-3e1"],
    "similarity": ["1", "2.5", "4", "2.5", "-3e1"],
    "tagging": ["B-PER", "O", "I-PER O", "B-LOC"],
}


@pytest.fixture(params=sorted(TASKS))
def task(request):
    return TASKS[request.param].from_labels(LABELS[request.param])


def perfect(task, targets):
    targets = targets[:, 1] if task.per_word else targets
    return np.eye(task.outputs)[targets] if task.outputs > 1 else targets[:, None]


class TestEveryTask:
    def test_says_what_it_is_and_comes_back(self, task):
        written = json.loads(json.dumps(task.to_dict()))
        assert written["name"] == task.name
        assert task_from_dict(written) == task
        assert TASKS[task.name] is type(task)

    def test_one_target_and_one_answer_a_row(self, task):
        targets = task.targets(LABELS[task.name])
        answers = task.answers(perfect(task, targets).astype(np.float32))
        assert len(targets) == len(answers) == 5
        json.dumps(answers, allow_nan=False)

    def test_no_rows(self, task):
        assert task.answers(np.zeros((0, task.outputs), np.float32)) == []

    def test_right_logits_score_one_and_name_the_primary_metric_first(self, task):
        targets = task.targets(LABELS[task.name])
        first = task.scores(perfect(task, targets), targets)[0]
        assert (first.metric, first.value) == (task.metric, pytest.approx(1))
        assert first.signature.startswith(f"{task.metric}|{'entities' if task.per_word else 's'}")
        assert first.signature.endswith(f"|n:{3 if task.per_word else 5}")

    @settings(deadline=None, max_examples=50)
    @given(data=st.data())
    def test_mean_terms_give_the_primary_score(self, data):
        """What the bootstrap resamples is the metric that scikit-learn and scipy compute."""
        task = data.draw(st.sampled_from([Classification(("a", "b", "c")), Regression(2.0, 3.0), Similarity(0.0, 2.0)]))
        rows = data.draw(st.integers(1, 20))
        logits = data.draw(arrays(np.float32, (rows, task.outputs), elements=st.floats(-8, 8, width=16)))
        targets = data.draw(arrays(np.float32, rows, elements=st.integers(0, 2)))
        ours = task.score_of(task.terms(logits, targets).mean(0))
        assert ours == pytest.approx(task.scores(logits, targets)[0].value, abs=1e-6)

    def test_scores_of_resamples_come_in_their_shape(self, task):
        targets = task.targets(LABELS[task.name])
        means = task.terms(perfect(task, targets), targets).mean(0)
        assert task.score_of(np.broadcast_to(means, (2, 3, len(means)))) == pytest.approx(np.ones((2, 3)))

    def test_a_diverged_model_scores_badly_and_in_numbers(self, task):
        targets = task.targets(LABELS[task.name])
        logits = np.full((5, task.outputs), np.nan, np.float32)
        values = [score.value for score in task.scores(logits, targets)]
        assert values[0] == 0.0
        assert all(math.isfinite(value) for value in values)
        assert task.score_of(task.terms(logits, targets).mean(0)) == 0.0

    @pytest.mark.parametrize("labels", [["3", "3"], ["3"]])
    def test_labels_all_alike_are_refused(self, task, labels):
        with pytest.raises(BadInput, match=r"reviews\.csv: every label is .*3.* needs two or more"):
            type(task).from_labels(labels, "reviews.csv")

    def test_library_that_is_missing_is_named_and_answers_do_without(self, task):
        program = f"""
import sys
sys.modules.update(dict.fromkeys(["torch", "sklearn", "scipy", "polars"]))
import numpy as np
from bertram.errors import BadInput
from bertram.tasks.registry import task_from_dict
task = task_from_dict({task.to_dict()!r})
logits = np.zeros((1, task.outputs), np.float32)
print(len(task.answers(logits)))
try:
    task.scores(logits, np.zeros((1, 2) if task.per_word else 1))
except BadInput as error:
    print(error)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("1\n")
        assert "bertram[train]" in done.stdout


class TestScore:
    def test_facts_go_to_the_end_of_the_signature(self):
        score = Score("accuracy", 0.5, "accuracy|sklearn:1|n:2")
        assert score.signed(split="test", seed=3).signature == "accuracy|sklearn:1|n:2|split:test|seed:3"
        assert score.signature == "accuracy|sklearn:1|n:2"


class TestClassification:
    def test_labels_stand_in_the_order_a_person_expects(self):
        labels = ["b", "10", "9", "-1", "a", "0.5", "nan", "1_0", "９"]
        assert Classification.from_labels(labels).labels == ("-1", "0.5", "9", "９", "10", "1_0", "a", "b", "nan")

    @given(st.lists(st.text(max_size=4), min_size=2, max_size=9, unique=True))
    def test_order_of_rows_is_no_matter(self, labels):
        assert Classification.from_labels(labels) == Classification.from_labels(labels[::-1])

    def test_texts_in_the_place_of_labels_are_refused(self):
        with pytest.raises(BadInput, match=r"a\.csv: 1,200 labels take 1,2..,... bytes, more than 1,0"):
            Classification.from_labels([f"{number} {'a' * 1000}" for number in range(1200)], "a.csv")

    def test_targets_number_the_labels(self):
        targets = Classification(("no", "yes")).targets(["yes", "no", "yes"])
        assert (targets.tolist(), targets.dtype) == ([1, 0, 1], np.int64)

    def test_numbers_stand_for_labels_without_names(self):
        task = Classification(("LABEL_0", "LABEL_1"))
        assert task.targets(["1", "0", "LABEL_1"]).tolist() == [1, 0, 1]
        with pytest.raises(BadInput, match="'2', not seen"):
            task.targets(["2"])
        with pytest.raises(BadInput, match="'1', not seen"):
            Classification(("LABEL_1", "yes")).targets(["1"])

    def test_answer_by_hand(self):
        (answer,) = Classification(("no", "yes")).answers(np.array([[0.0, math.log(3)]], np.float32))
        assert answer == {
            "label": "yes",
            "score": pytest.approx(0.75),
            "scores": {"no": pytest.approx(0.25), "yes": pytest.approx(0.75)},
        }

    def test_large_logits_do_not_overflow(self):
        (answer,) = Classification(("no", "yes")).answers(np.array([[-3e38, 3e38]], np.float32))
        assert answer["scores"] == {"no": 0.0, "yes": 1.0}

    def test_scores_by_hand(self):
        """Right: 2 of 4. F1 of a: 2/3, of b: 0, of c: 2/3. Matthews by Gorodkin 2004, counts of true and predicted."""
        task = Classification(("a", "b", "c"))
        logits = np.eye(3)[[0, 0, 2, 1]]
        accuracy, macro_f1, matthews = task.scores(logits, np.array([0, 1, 2, 2]))
        assert accuracy.value == 0.5
        assert macro_f1.value == pytest.approx(4 / 9)
        assert matthews.value == pytest.approx((2 * 4 - (1 * 2 + 1 * 1 + 2 * 1)) / math.sqrt((16 - 6) * (16 - 6)))
        assert [score.metric for score in (accuracy, macro_f1, matthews)] == ["accuracy", "macro-f1", "matthews"]

    @given(st.lists(st.integers(0, 2), min_size=1))
    @settings(deadline=None)
    def test_constant_score_is_the_best_of_one_answer_to_all(self, targets):
        task, targets = Classification(("a", "b", "c")), np.array(targets)
        answers = [np.tile(row, (len(targets), 1)) for row in np.eye(3, dtype=np.float32)]
        assert task.constant_score(targets) == max(task.scores(logits, targets)[0].value for logits in answers)

    @pytest.mark.parametrize("targets", [[0, 0], [0, 1]])
    def test_always_the_same_label_has_no_correlation(self, targets):
        scores = Classification(("a", "b")).scores(np.array([[1.0, 0.0]] * 2), np.array(targets))
        assert scores[2].value == 0.0

    def test_labels_unseen_in_training_are_named_and_counted(self):
        with pytest.raises(BadInput) as caught:
            Classification(("no", "yes")).targets(["no", "maybe", "maybe\n", "maybe"], "test.csv")
        assert str(caught.value) == (
            r"test.csv: 3 rows with 'maybe', 'maybe\n', not seen in training; its labels are 'no', 'yes'"
        )

    def test_many_unseen_labels_take_one_short_line(self):
        with pytest.raises(BadInput) as caught:
            Classification(("no", "yes")).targets([str(i) * 500 for i in range(1000)])
        assert len(str(caught.value)) < 500
        assert "1000 rows with '000" in str(caught.value)
        assert ", 995 more, not seen" in str(caught.value)


class TestRegression:
    def test_targets_are_standardised_and_answers_are_not(self):
        task = Regression.from_labels(["1", "3"])
        assert task == Regression(2.0, 1.0)
        targets = task.targets(["1", "3", "2"])
        assert (targets.tolist(), targets.dtype) == ([-1, 1, 0], np.float32)
        assert task.answers(targets[:, None]) == [{"score": 1.0}, {"score": 3.0}, {"score": 2.0}]

    def test_scores_by_hand(self):
        """Values 0 1 2 against 0 1 5: r = 5 / √(2 · 14), the ranks are the same, errors are 0, 0 and 3 units of 10."""
        pearson, spearman, rmse = Regression(0.0, 10.0).scores(
            np.array([[0.0], [1.0], [5.0]]), np.array([0.0, 1.0, 2.0])
        )
        assert pearson.value == pytest.approx(5 / math.sqrt(28))
        assert spearman.value == pytest.approx(1)
        assert rmse.value == pytest.approx(10 * math.sqrt(3))
        assert [score.metric for score in (pearson, spearman, rmse)] == ["pearson", "spearman", "rmse"]

    @pytest.mark.parametrize("predicted", [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0 + 1e-14]])
    def test_predictions_all_alike_have_no_correlation_and_no_warning(self, predicted):
        scores = Regression(0.0, 1.0).scores(np.array(predicted)[:, None], np.array([0.0, 1.0, 2.0]))
        assert all(math.isfinite(score.value) for score in scores)
        assert scores[0].value == 0.0 or predicted[2] > 1

    def test_one_row_has_no_correlation(self):
        pearson, spearman, _ = Regression(0.0, 1.0).scores(np.array([[1.0]]), np.array([1.0]))
        assert pearson.value == spearman.value == 0.0

    @pytest.mark.parametrize("kind", [Regression, Similarity])
    def test_what_no_float_holds_is_refused(self, kind):
        task = kind.from_labels(["0.1", "0.9"])
        with pytest.raises(BadInput, match=r"test\.csv: the label -3\.4.*e\+38 is too far from those of the training"):
            task.targets(["0.5", "-3.4028234663852886e+38"], "test.csv")

    @pytest.mark.parametrize("label", ["good", "", "nan", "inf", "1_0", "3,5", "a\nb"])
    def test_what_is_no_number_is_named_with_its_row(self, label):
        with pytest.raises(BadInput, match=r"^train\.tsv: the label .* is not a number") as caught:
            Regression.from_labels(["1", label, "x"], "train.tsv")
        assert repr(label) in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("label", ["1e999", "-1e39"])
    def test_a_number_that_float32_does_not_hold_is_called_too_large(self, label):
        with pytest.raises(BadInput, match=rf"^train\.tsv: the label '{label}' is too large a number$"):
            Regression.from_labels(["1", label, "x"], "train.tsv")

    def test_the_same_for_targets(self):
        with pytest.raises(BadInput, match="the label 'x'"):
            Regression(0.0, 1.0).targets(["1", "2", "x"])


class TestRegistry:
    @pytest.mark.parametrize(
        ("labels", "task"),
        [
            (["0", "1"], Classification),
            (["good", "bad"], Classification),
            ([str(i) for i in range(20)] * 2, Classification),
            ([str(i) for i in range(21)], Regression),
            (["0.5", "1"], Regression),
            (["1.0", "2.0", "01"], Classification),
            (["0.5", "1", "n/a"], Classification),
            ([str(i) for i in range(30)] + ["x"], Classification),
            ([], Classification),
        ],
    )
    def test_guess(self, labels, task):
        assert kind_of_task(None, labels) is task

    @pytest.mark.parametrize(
        "value",
        [
            None,
            [],
            {},
            {"name": 3},
            {"name": "__class__"},
            {"name": "classification"},
            {"name": "classification", "labels": "ab"},
            {"name": "classification", "labels": ["a"]},
            {"name": "classification", "labels": ["a", "a"]},
            {"name": "classification", "labels": ["a", "\ud800"]},
            {"name": "classification", "labels": ["a", 1]},
            {"name": "regression"},
            {"name": "regression", "mean": "0", "std": 1.0},
            {"name": "regression", "mean": 0.0, "std": 0.0},
            {"name": "regression", "mean": 0.0, "std": float("nan")},
            {"name": "regression", "mean": float("inf"), "std": 1.0},
            {"name": "regression", "mean": True, "std": True},
        ],
    )
    def test_nonsense_is_refused(self, value):
        with pytest.raises(BadInput, match=r"^task: "):
            task_from_dict(value)
