"""Masked language modelling: what is masked, how much of it, and by what."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertram.batch import IGNORED, Batch
from bertram.corpus.masking import Masker, _ngram_firsts, _spent

PAD, UNK, CLS, SEP, MASK = range(5)
THE, CAT, SAT, ON = 5, 7, 9, 11  # odd ids from 5 begin words, even ones go on with them
LY, NESS, ING = 6, 8, 10
VOCABULARY = 45
SPECIAL = np.arange(VOCABULARY) <= MASK
STARTS = (np.arange(VOCABULARY) % 2 == 1) & ~SPECIAL
MODES = ["token", "word", "ngram"]


def masker(masking):
    return Masker(STARTS, SPECIAL, MASK, masking)


def masked_places(sequence, masking, draws=200):
    """Every set of places that `draws` maskings of one sequence masked."""
    rng, batch = np.random.default_rng(0), Batch.pack([sequence])
    return {tuple(np.flatnonzero(masker(masking).mask(batch, rng)[1] != IGNORED).tolist()) for _ in range(draws)}


def random_batch(seed, sequences=64, longest=120):
    rng = np.random.default_rng(seed)
    rows = [rng.integers(5, VOCABULARY, length).tolist() for length in rng.integers(1, longest, sequences)]
    return Batch.pack([[CLS, *row[: len(row) // 2], SEP, *row[len(row) // 2 :], SEP] for row in rows])


def close(count, trials, chance):
    """Whether a count is within five standard deviations of a binomial distribution: false once in two million."""
    return abs(count - trials * chance) <= 5 * np.sqrt(trials * chance * (1 - chance))


class TestByHand:
    """A sequence of at most 9 tokens has one token to mask; of 10 to 16 it has two."""

    def test_any_ordinary_token(self):
        assert masked_places([CLS, THE, CAT, LY, UNK, SAT, SEP], "token") == {(1,), (2,), (3,), (5,)}

    def test_a_word_that_is_too_long_is_passed_over(self):
        assert masked_places([CLS, THE, CAT, LY, SEP], "word") == {(1,)}

    def test_where_all_are_too_long_the_first_drawn_is_cut(self):
        assert masked_places([CLS, CAT, LY, SEP], "word") == {(1,)}
        assert masked_places([CLS, CAT, LY, SEP, SAT, LY, NESS, SEP], "word") == {(1,), (4,)}
        words = [THE, *[ING] * 5]
        assert masked_places([CLS, *words, *words, SEP], "word") == {(1, 2), (7, 8)}

    def test_two_tokens_are_a_long_word_or_two_short_ones(self):
        sequence = [CLS, THE, CAT, LY, SAT, *[SEP] * 6]
        assert masked_places(sequence, "word") == {(1, 4), (2, 3)}

    def test_a_unit_begins_where_a_span_begins_inside_a_word(self):
        too_long = [THE, *[ING] * 9]
        assert masked_places([CLS, LY, NESS, *too_long, SEP], "word") == {(1, 2)}
        assert masked_places([CLS, LY, NESS, *too_long, SEP], "ngram", 2000) == {(1, 2)}  # also one with THE… is cut

    def test_no_unit_goes_on_after_a_special_token(self):
        assert masked_places([CLS, CAT, UNK, LY, SEP], "word") == {(1,), (3,)}
        assert masked_places([CLS, CAT, SEP, LY, SEP], "ngram") == {(1,), (3,)}

    def test_an_ngram_is_of_neighbours(self):
        rest = [SEP, *[ON, *[ING] * 3] * 2, SEP]  # 16 tokens in all, words of four never fit
        assert masked_places([CLS, THE, CAT, SAT, SAT, SEP, *rest], "word") == {
            (1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4),
        }  # fmt: skip
        # The first two words as one n-gram leave one token over where SAT is taken first.
        found = masked_places([CLS, THE, CAT, SEP, SAT, SEP, *rest], "ngram", 2000)
        assert found == {(1, 2), (1, 4), (2, 4), (4,)}

    def test_tiling(self):
        """Runs of 5 and 2 words; drawn are 2, 3, 1, 1, 1 and 3, 1: 2 + 3 fill the first, 3 is cut to the second."""
        rng = SimpleNamespace(integers=lambda n, size, dtype: np.array([6, 9, 0, 5, 0, 10, 0], dtype))
        assert _ngram_firsts(np.array([1, 0, 0, 0, 0, 1, 0], bool), rng).tolist() == [0, 2, 5]

    def test_nothing_to_mask(self):
        batch = Batch.pack([[CLS, SEP], [CLS, UNK, SEP]])
        for masking in MODES:
            token_ids, targets = masker(masking).mask(batch, np.random.default_rng(0))
            assert (token_ids == batch.token_ids).all()
            assert (targets == IGNORED).all()


sequences = st.lists(st.sampled_from([UNK, SEP, *range(5, 13)]), max_size=60).map(lambda row: [CLS, *row])


@given(st.lists(sequences, min_size=1, max_size=8), st.sampled_from(MODES), st.integers(0, 2**32))
def test_what_always_holds(rows, masking, seed):
    batch = Batch.pack(rows)
    before = batch.token_ids.copy()
    token_ids, targets = masker(masking).mask(batch, np.random.default_rng(seed))
    masked = targets != IGNORED
    assert token_ids.dtype == targets.dtype == np.int32
    assert (batch.token_ids == before).all()
    assert (token_ids[~masked] == before[~masked]).all()
    assert (targets[masked] == before[masked]).all()
    assert not SPECIAL[before[masked]].any()
    assert not SPECIAL[token_ids[masked & (token_ids != MASK)]].any()
    for start, end in zip(batch.offsets, batch.offsets[1:], strict=False):
        ids, chosen, budget = before[start:end], masked[start:end], max(1, round(0.15 * (end - start)))
        ordinary = int((~SPECIAL[ids]).sum())
        assert chosen.sum() <= budget
        assert chosen.any() == (ordinary > 0)
        if masking == "token":
            assert chosen.sum() == min(budget, ordinary)
            continue
        same_word = np.concatenate([[False], ~SPECIAL[ids[1:]] & ~SPECIAL[ids[:-1]] & ~STARTS[ids[1:]]])
        words = np.cumsum(~same_word)
        lengths = [int((words == word).sum()) for word in set(words[~SPECIAL[ids]])]
        if not (chosen[1:] == chosen[:-1])[same_word[1:]].all():  # one unit alone, cut to the budget
            first = int(chosen.argmax())
            assert chosen[first : first + budget].sum() == chosen.sum() == budget
            assert not same_word[first]
            assert masking == "ngram" or min(lengths) > budget
        elif masking == "word":  # no word is left out that would still have fitted
            left = [int((words == word).sum()) for word in set(words[~chosen & ~SPECIAL[ids]])]
            assert all(length > budget - chosen.sum() for length in left)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.integers(1, 12), st.integers(0, 2**32))
def test_rounds_are_the_same_as_one_by_one(lengths, budget, seed):
    """Three sequences of the same units, each gone through in its own order."""
    expected = []
    for order in np.random.default_rng(seed).random((3, len(lengths)), np.float32).argsort(1):
        spent, left = [0] * len(lengths), budget
        for unit in order:
            if lengths[unit] <= left:
                spent[unit], left = lengths[unit], left - lengths[unit]
        if left == budget:
            spent[order[0]] = budget
        expected += spent
    units = np.array(lengths * 3, np.int32)
    bounds, budgets = np.arange(4) * len(lengths), np.full(3, budget, np.int32)
    assert _spent(units, bounds, budgets, np.random.default_rng(seed)).tolist() == expected


@pytest.mark.parametrize("masking", MODES)
def test_a_seed_gives_the_masks_and_another_gives_others(masking):
    batch = random_batch(0)
    first, again, other = (masker(masking).mask(batch, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (first[0] == again[0]).all()
    assert (first[1] == again[1]).all()
    assert (first[1] != other[1]).any()
    rng = np.random.default_rng(1)
    epochs = [masker(masking).mask(batch, rng)[1] for _ in range(2)]
    assert (epochs[0] == first[1]).all()
    assert (epochs[1] != first[1]).any()


@pytest.mark.parametrize("masking", MODES)
def test_eighty_ten_ten(masking):
    batch, rng = random_batch(0, 500), np.random.default_rng(3)
    runs = [masker(masking).mask(batch, rng) for _ in range(20)]
    seen, targets = (np.concatenate(part) for part in zip(*runs, strict=True))
    masked = targets != IGNORED
    seen, targets = seen[masked], targets[masked]
    other = 1 - 1 / (~SPECIAL).sum()  # the chance that a random token is not the one that stood there
    assert close((seen == MASK).sum(), len(seen), 0.8)
    assert close(((seen != MASK) & (seen != targets)).sum(), len(seen), 0.1 * other)
    assert close((seen == targets).sum(), len(seen), 0.2 - 0.1 * other)


def test_random_tokens_are_any_ordinary_ones():
    batch, rng = Batch.pack([[CLS, *[THE] * 98, SEP]] * 500), np.random.default_rng(4)
    seen = np.concatenate([masker("token").mask(batch, rng)[0] for _ in range(20)])
    counts = np.bincount(seen, minlength=VOCABULARY)
    assert counts[[PAD, UNK]].sum() == 0
    others = counts[THE + 1 :]
    expected = others.mean()
    freedom = len(others) - 1
    assert others.sum() > 10_000
    assert ((others - expected) ** 2 / expected).sum() < freedom + 5 * np.sqrt(2 * freedom)


def test_every_ordinary_token_is_as_likely():
    """42 tokens, so 6 of the 39 ordinary ones are masked."""
    sequence = [CLS, *range(5, 25), SEP, *range(25, 44), SEP]
    batch, rng = Batch.pack([sequence] * 500), np.random.default_rng(5)
    counts = sum((masker("token").mask(batch, rng)[1].reshape(500, -1) != IGNORED).sum(0) for _ in range(20))
    ordinary = ~SPECIAL[sequence]
    assert (counts[~ordinary] == 0).all()
    assert all(close(count, 10_000, 6 / 39) for count in counts[ordinary])


@pytest.mark.parametrize("masking", MODES)
def test_the_share_is_fifteen_percent(masking):
    """Sequences of 100 tokens; the greedy pass finds short words enough to spend the budget of 15."""
    rng = np.random.default_rng(6)
    batch = Batch.pack([[CLS, *rng.integers(5, VOCABULARY, 98).tolist(), SEP] for _ in range(200)])
    counts = (masker(masking).mask(batch, rng)[1].reshape(200, 100) != IGNORED).sum(1)
    assert counts.max() == 15
    assert counts.mean() == 15 if masking == "token" else counts.mean() > 14.9


def test_lengths_of_ngrams():
    """p(n) ∝ 1/n, so 6/11, 3/11 and 2/11; only the last n-gram of the run may be shorter than drawn."""
    cut = np.zeros(200_000, bool)
    cut[0] = True
    firsts = _ngram_firsts(cut, np.random.default_rng(7))
    lengths = np.diff(firsts)
    assert set(lengths.tolist()) == {1, 2, 3}
    assert all(close((lengths == n).sum(), len(lengths), chance / 11) for n, chance in ((1, 6), (2, 3), (3, 2)))


@pytest.mark.parametrize(("words", "bias"), [(125, 0.05), (20, 0.2)])
def test_lengths_of_masked_ngrams_are_near_those_drawn(words, bias):
    """What is too long for the rest of the budget is passed over: single words gain, in short sequences the most."""
    rng, sequences = np.random.default_rng(8), 4000
    bounds = np.arange(sequences + 1) * words
    cut = np.zeros(bounds[-1], bool)
    cut[bounds[:-1]] = True
    firsts = _ngram_firsts(cut, rng)
    lengths = np.diff(firsts, append=bounds[-1]).astype(np.int32)
    budgets = np.full(sequences, round(0.15 * (words + 3)), np.int32)
    masked = lengths[_spent(lengths, np.searchsorted(firsts, bounds), budgets, rng) > 0]
    gained = np.bincount(masked)[1:] / len(masked) - np.array([6, 3, 2]) / 11
    assert 0 < gained[0] < bias
    assert np.abs(gained).max() < bias


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(0, 2**32))
def test_ngrams_tile_every_run(runs, seed):
    begins = np.cumsum([0, *runs])
    cut = np.zeros(begins[-1], bool)
    cut[begins[:-1]] = True
    firsts = _ngram_firsts(cut, np.random.default_rng(seed))
    assert set(begins[:-1].tolist()) <= set(firsts.tolist())
    assert set(np.diff(firsts, append=begins[-1]).tolist()) <= {1, 2, 3}
