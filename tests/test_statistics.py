import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bertram.comparison import statistics
from bertram.comparison.statistics import (
    NO_SEEDS,
    RESAMPLES,
    Resamples,
    SeedNoise,
    comparisons_of,
    holm,
    interval,
    paired_difference,
    seed_noise,
)
from bertram.tasks.classification import Classification
from bertram.tasks.regression import Regression

BINARY = Classification(("wrong", "right"))


def answering(right):
    """Logits that are right where `right` says so, against targets of ones."""
    return np.stack([1.0 - right, right], axis=-1)


def ones(logits):
    return np.ones(len(logits), np.int64)


def run(rng, accuracy, items=200):
    return answering((rng.random(items) < accuracy).astype(float))


def difference(a, b, targets):
    pair = [Resamples.of(BINARY, runs, targets) for runs in (a, b)]
    return paired_difference(*pair, *[SeedNoise.of([one.scores for one in pair])] * 2)


def over_seeds(runs):
    """The interval of one candidate's runs, which are all that is known about seeds."""
    scores = Resamples.of(BINARY, runs, ones(runs[0])).scores
    return interval(BINARY, runs, ones(runs[0]), split="test", seeds=SeedNoise.of([scores]))


def exactly(scores, number=50_000):
    """Of runs whose scores are the same on any items."""
    return Resamples(scores, np.tile(scores, (number, 1)), np.repeat(scores.mean(), 100)[:, None])


@pytest.fixture
def few_resamples(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 300)


class TestInterval:
    def test_is_the_mean_over_seeds_between_its_bounds(self):
        runs = [answering(np.arange(100) < right) for right in (60, 70, 80)]
        found = over_seeds(runs)
        assert found["metric"] == "accuracy"
        assert found["mean"] == pytest.approx(0.7)
        assert found["low"] < 0.65 < 0.75 < found["high"]
        assert found["signature"].startswith("accuracy|sklearn:")
        assert found["signature"].endswith(
            f"|n:100|split:test|seeds:3|interval:bootstrap-95%-items-seeds-t2|resamples:{RESAMPLES}"
        )
        assert over_seeds(runs) == found

    def test_of_one_run_is_that_of_a_share(self):
        """The bootstrap of a share has the width of its normal approximation, 1.96 √(p q / n)."""
        logits = answering(np.arange(1000) < 700)
        found = interval(BINARY, [logits], ones(logits), split="test")
        half = 1.96 * np.sqrt(0.7 * 0.3 / 1000)
        assert found["low"] == pytest.approx(0.7 - half, abs=0.004)
        assert found["high"] == pytest.approx(0.7 + half, abs=0.004)

    def test_seeds_that_disagree_widen_it(self):
        agreeing = [answering(np.arange(1000) < 700)] * 3
        disagreeing = [answering(np.arange(1000) < right) for right in (600, 700, 800)]
        narrow, wide = map(over_seeds, (agreeing, disagreeing))
        assert narrow["mean"] == pytest.approx(wide["mean"])
        assert wide["high"] - wide["low"] > 2 * (narrow["high"] - narrow["low"])

    @pytest.mark.parametrize("runs", [2, 3, 5])
    def test_runs_vary_as_new_ones_would(self, runs):
        """By Student's t: of runs without another error the interval is that of the t-test."""
        scores = np.linspace(0.6, 0.8, runs)
        means = exactly(scores).means(SeedNoise.of([scores]))
        expected = stats.t.interval(0.9, runs - 1, loc=scores.mean(), scale=stats.sem(scores))
        assert np.quantile(means, [0.05, 0.95]) == pytest.approx(expected, abs=0.02 * np.ptp(expected))

    @pytest.mark.parametrize("runs", [2, 3, 5])
    def test_p_of_seeds_alone_is_that_of_the_t_test(self, runs):
        a, b = np.linspace(0.70, 0.80, runs), np.linspace(0.75, 0.88, runs)
        noise = SeedNoise.of([a, b])
        found = paired_difference(exactly(a), exactly(b), noise, noise)["p"]
        assert found == pytest.approx(stats.ttest_ind(a, b).pvalue, rel=0.05)
        fixed = paired_difference(exactly(a), exactly(a[:1]), SeedNoise.of([a]))["p"]  # of what has no seeds
        assert fixed == pytest.approx(stats.ttest_1samp(a, a[0]).pvalue, rel=0.05)

    def test_what_seeds_do_is_pooled(self):
        found = seed_noise({"a": np.array([0.7, 0.8]), "survivor": np.array([0.9]), "b": np.array([0.5, 0.6, 0.7])})
        assert found["a"] == found["survivor"] == found["b"]
        assert found["a"].freedom == 3
        assert found["a"].deviation == pytest.approx(math.sqrt((0.005 + 0.02) / 3))
        assert seed_noise({"a": np.array([0.7]), "b": np.array([0.8])})["a"] == NO_SEEDS

    def test_a_candidate_with_a_seed_that_failed_is_judged_by_itself(self):
        scores = {"a": [0.9, 0.901, 0.899], "b": [0.7, 0.701, 0.699], "wild": [0.9, 0.6, 0.9]}
        scores = {name: np.array(own) for name, own in scores.items()}
        found = seed_noise(scores)
        assert found["a"] == found["b"] == SeedNoise.of([scores["a"], scores["b"]])
        assert found["wild"] == SeedNoise.of([scores["wild"]], 1)
        a, b = (
            paired_difference(exactly(scores["a"]), exactly(scores[n]), found["a"], found[n]) for n in ("b", "wild")
        )
        assert a["p"] < 1e-3 < 0.05 < b["p"]

    def test_beside_runs_that_tie_nobody_is_judged_by_itself(self):
        scores = {"a": np.array([0.9, 0.905, 0.91]), "b": np.full(3, 0.8)}  # whose deviation is no 0 in floats
        assert set(seed_noise(scores).values()) == {SeedNoise.of(list(scores.values()))}

    @pytest.mark.parametrize("runs", [2, 3, 5])
    def test_seeds_alone_seldom_make_a_difference(self, runs):
        """Of two equal models, whose seeds differ and whose items are many, 5% are told apart at 0.05."""
        rng = np.random.default_rng(runs)
        false = 0
        for a, b in rng.normal(0.8, 0.01, (600, 2, runs)):
            noise = SeedNoise.of([a, b])
            false += paired_difference(exactly(a, 1000), exactly(b, 1000), noise, noise)["p"] < 0.05
        assert false / 600 == pytest.approx(0.05, abs=3.5 * math.sqrt(0.05 * 0.95 / 600))

    @pytest.mark.usefixtures("few_resamples")
    def test_covers_the_true_score(self):
        """Items and seeds both random: the truth lies in 95% of intervals, a little less with five seeds."""
        rng = np.random.default_rng(0)
        inside = 0
        for _ in range(100):
            difficulty = rng.normal(0, 0.1, 200)
            runs = [
                answering((rng.random(200) < 0.75 + difficulty + rng.normal(0, 0.03)).astype(float)) for _ in range(5)
            ]
            found = over_seeds(runs)
            inside += found["low"] <= 0.75 <= found["high"]
        assert inside >= 88

    def test_of_a_correlation(self):
        """Against Fisher's transformation, whose standard error is 1 / √(n − 3)."""
        rng = np.random.default_rng(0)
        targets = rng.normal(size=400)
        logits = (targets + rng.normal(size=400))[:, None]
        found = interval(Regression(0.0, 1.0), [logits], targets, split="test")
        low, high = np.tanh(np.arctanh(found["mean"]) + np.array([-1.96, 1.96]) / np.sqrt(397))
        assert found["low"] == pytest.approx(low, abs=0.02)
        assert found["high"] == pytest.approx(high, abs=0.02)

    @pytest.mark.parametrize("seeds", [2, 6, 7])
    def test_lies_where_scores_can(self, seeds):
        """Weights of runs are scaled, and add up to 1 but for rounding."""
        right = [np.arange(50) < (50 if seed % 2 == 0 else 48) for seed in range(seeds)]
        assert over_seeds([answering(row.astype(float)) for row in right])["high"] <= 1
        found = over_seeds([answering(np.ones(50))] * seeds)
        assert found["low"] == found["high"] == 1


class TestPairedDifference:
    def test_of_a_model_and_itself_is_none(self):
        logits = run(np.random.default_rng(0), 0.7)
        assert difference([logits], [logits], ones(logits)) == {
            "difference": 0.0,
            "low": 0.0,
            "high": 0.0,
            "p": 1.0,
        }

    def test_turns_with_its_sides(self):
        rng = np.random.default_rng(1)
        a, b = [[run(rng, accuracy) for _ in range(5)] for accuracy in (0.7, 0.8)]
        there, back = difference(a, b, ones(a[0])), difference(b, a, ones(a[0]))
        assert there["difference"] == -back["difference"] < 0
        assert there["low"] == pytest.approx(-back["high"], abs=0.01)
        assert there["p"] == pytest.approx(back["p"], abs=0.01)

    @pytest.mark.parametrize(("items", "wrong"), [(6, 3), (10, 4), (20, 4), (15, 0)])
    def test_is_not_below_a_sign_test_of_the_items_in_which_two_models_differ(self, items, wrong):
        a, b = [answering(np.ones(items))], [answering((np.arange(items) >= wrong).astype(float))]
        assert difference(a, b, ones(a[0]))["p"] == pytest.approx(min(1.0, 2.0 ** (1 - wrong)))

    def test_more_resamples_leave_room_for_many_comparisons(self):
        a, b = ([answering(np.full(50, value))] for value in (1, 0))
        pair = [Resamples.of(BINARY, runs, ones(a[0]), 10_500) for runs in (a, b)]
        assert holm([paired_difference(*pair)["p"]] + [1.0] * 104)[0] < 0.05

    def test_of_one_run_each_turns_exactly(self):
        rng = np.random.default_rng(1)
        a, b = [run(rng, 0.7)], [run(rng, 0.75)]
        there, back = difference(a, b, ones(a[0])), difference(b, a, ones(a[0]))
        assert there == {
            "difference": -back["difference"],
            "low": pytest.approx(-back["high"]),
            "high": pytest.approx(-back["low"]),
            "p": back["p"],
        }

    def test_sees_on_the_same_items_what_intervals_apart_do_not(self):
        """a is right wherever b is and on 12 items more: the intervals overlap, the difference is clear."""
        a, b = answering(np.arange(200) < 132), answering(np.arange(200) < 120)
        found = difference([a], [b], ones(a))
        assert interval(BINARY, [a], ones(a), split="t")["low"] < interval(BINARY, [b], ones(b), split="t")["high"]
        assert found["difference"] == pytest.approx(0.06)
        assert found["low"] > 0.02
        assert found["p"] < 0.005

    @pytest.mark.parametrize(("items", "least"), [(1, 1.0), (3, 0.25), (5, 0.0625)])
    def test_p_of_few_items_is_no_less_than_a_sign_test_gives(self, items, least):
        a, b = answering(np.ones(items)), answering(np.zeros(items))
        assert difference([a], [b], ones(a))["p"] == least

    def test_p_is_never_zero(self):
        a, b = answering(np.ones(500)), answering(np.zeros(500))
        assert difference([a], [b], ones(a))["p"] == 1 / (1 + RESAMPLES)

    def test_candidates_may_have_unequal_numbers_of_runs(self):
        rng = np.random.default_rng(2)
        found = difference([run(rng, 0.9) for _ in range(3)], [run(rng, 0.6)], np.ones(200, np.int64))
        assert found["low"] > 0.1
        assert found["p"] < 0.01

    @pytest.mark.usefixtures("few_resamples")
    def test_p_is_uniform_where_there_is_no_difference(self):
        rng = np.random.default_rng(3)
        p = [difference([run(rng, 0.8)], [run(rng, 0.8)], np.ones(200, np.int64))["p"] for _ in range(200)]
        for level in (0.05, 0.25, 0.5, 0.75):
            assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=3.5 * np.sqrt(level * (1 - level) / 200))


def test_a_difference_lies_where_scores_can():
    logits = {name: [answering(np.arange(50) < right) for right in (0, 50)] for name in "ab"}
    noise = SeedNoise.of([np.array([0.0, 1.0])])
    (row,) = comparisons_of(BINARY, logits, np.ones(50, np.int64), {"a": noise, "b": noise})
    assert (row["low"], row["high"]) == (-1, 1)


class TestHolm:
    def test_by_hand(self):
        """Smallest × 4, next × 3, … and never below the one before: 0.03·2 = 0.06, then 0.04·1 lifts to 0.06."""
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_of_one_and_of_none(self):
        assert holm([0.2]) == [0.2]
        assert holm([]) == []

    @given(st.lists(st.floats(0, 1), max_size=12))
    def test_keeps_the_order_and_raises_every_value_at_most_times_their_number(self, p_values):
        adjusted = holm(p_values)
        for p, q in zip(p_values, adjusted, strict=True):
            assert p <= q <= min(1.0, p * len(p_values))
        by_p = [q for _, q in sorted(zip(p_values, adjusted, strict=True))]
        assert by_p == sorted(by_p)
