"""Beam search against every hypothesis there is, against transformers' `generate`, and against itself one by one."""

import math
import random
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as running
from hypothesis import strategies as st

from bertram.models.beam_search import Hypothesis, _highest, search
from bertram.search import Search
from tiny import also_slowly

END, WORDS, START = 0, (1, 2, 3), 4
EVERY = 121
"""Hypotheses of at most four of three words."""


class Recomputing:
    """A StepwiseDecoder that remembers the ids alone, and the number of hypotheses at each step."""

    def __init__(self, logits, sentences):
        """`logits` makes [B, k, V] of the sentences' numbers [B] and their hypotheses' ids [B, k, t]."""
        self.logits, self.numbers, self.ids, self.rows = logits, torch.arange(sentences), None, []

    def step(self, tokens):
        assert tokens.shape == (len(self.numbers), 1 if self.ids is None else self.ids.shape[1])
        last = tokens[..., None]
        self.ids = last if self.ids is None else torch.cat([self.ids, last], 2)
        self.rows.append(tokens.numel())
        return self.logits(self.numbers, self.ids)

    def keep(self, sentences, beams):
        assert (sentences.diff() > 0).all()
        assert beams.shape[0] == len(sentences)
        self.numbers = self.numbers[sentences]
        if self.ids is not None:
            self.ids = self.ids[sentences[:, None], beams]


@cache
def toy_logits(seed, sentence, prefix):
    """Logits of what follows a prefix, [5]; each is drawn by itself."""
    rng = np.random.default_rng([seed, sentence, *prefix])
    return rng.normal(0, 2, 5).astype(np.float32)


def toy(seed, sentences, number=None, change=lambda logits: logits):
    """A model without any structure. `number` is the number of its one sentence elsewhere."""

    def logits(numbers, ids):
        found = [
            [toy_logits(seed, int(n) if number is None else number, tuple(row)) for row in rows]
            for n, rows in zip(numbers, ids.tolist(), strict=True)
        ]
        return change(torch.from_numpy(np.array(found)))

    return Recomputing(logits, sentences)


def found_by(decoding, max_lengths, never=(START,), **settings):
    options = {"start_id": START, "eos_id": END, "never": never}
    return search(decoding, len(max_lengths), max_lengths=max_lengths, settings=Search(**settings), **options)


def may_follow(word, prefix, size):
    ids = (START, *prefix, word)
    grams = [ids[i : i + size] for i in range(len(ids) - size + 1)]
    return size == 0 or not grams or grams[-1] not in grams[:-1]


def following(seed, sentence, prefix, search):
    """The log-probability of each token that may follow a prefix, by tokens: theirs add up to 1."""
    allowed = [word for word in WORDS if may_follow(word, prefix, search.no_repeat_ngram_size)]
    allowed += [END] * (len(prefix) >= search.min_length)
    logits = toy_logits(seed, sentence, (START, *prefix)).astype(np.float64)
    total = np.exp(logits[allowed]).sum()
    return {token: logits[token] - np.log(total) for token in allowed}


def every_hypothesis(seed, sentence, max_length, search, prefix=(), total=0.0):
    """All hypotheses with their scores, from the definition."""
    length = len(prefix) + 1
    if length == max_length:
        yield prefix, total / length**search.length_penalty
        return
    for token, score in following(seed, sentence, prefix, search).items():
        if token == END:
            yield prefix, (total + score) / length**search.length_penalty
        else:
            yield from every_hypothesis(seed, sentence, max_length, search, (*prefix, token), total + score)


def assert_same(ours, expected, rel=1e-5):
    assert [h.ids for h in ours] == [h.ids for h in expected]
    assert [h.score for h in ours] == pytest.approx([h.score for h in expected], rel=rel, abs=rel)


@running(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    max_lengths=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    length_penalty=st.sampled_from([-1.0, 0.0, 0.6, 1.0, 1.5, 3.0]),
    no_repeat_ngram_size=st.integers(0, 3),
    min_length=st.integers(0, 3),
)
def test_a_wide_beam_finds_every_hypothesis_in_order(seed, max_lengths, **settings):
    settings |= {"beam_size": EVERY, "n_best": EVERY}
    found = found_by(toy(seed, len(max_lengths)), max_lengths, **settings)
    for number, (hypotheses, max_length) in enumerate(zip(found, max_lengths, strict=True)):
        expected = dict(every_hypothesis(seed, number, max_length, Search(**settings)))
        assert {tuple(ids): score for ids, score in hypotheses} == pytest.approx(expected, rel=1e-5, abs=1e-5)
        scores = [score for _, score in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == len(expected)


@pytest.mark.parametrize("length_penalty", [0.6, 1.0, 1.5])
def test_a_wide_beam_finds_the_best_where_greedy_does_not(length_penalty):
    """The best of `beam_size` 121 is the true best; over many models greedy misses it often, a beam of 5 seldom."""
    misses = dict.fromkeys([1, 5, EVERY], 0)
    for seed in range(60):
        settings = Search(length_penalty=length_penalty)
        best, _ = max(every_hypothesis(seed, 0, 5, settings), key=lambda pair: pair[1])
        for beam_size in misses:
            found = found_by(toy(seed, 1), [5], beam_size=beam_size, length_penalty=length_penalty)
            misses[beam_size] += tuple(found[0][0].ids) != best
    assert misses[EVERY] == 0
    assert misses[1] > misses[5]


@running(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    max_lengths=st.lists(st.integers(1, 9), min_size=2, max_size=5),
    beam_size=st.integers(1, 4),
    length_penalty=st.sampled_from([0.0, 0.6, 1.0, 1.5]),
    no_repeat_ngram_size=st.sampled_from([0, 2]),
    max_length=st.sampled_from([None, 4]),
)
def test_a_batch_finds_what_each_sentence_finds_alone(seed, max_lengths, **settings):
    settings["n_best"] = settings["beam_size"]
    together = found_by(toy(seed, len(max_lengths)), max_lengths, **settings)
    alone = [found_by(toy(seed, 1, number), [length], **settings)[0] for number, length in enumerate(max_lengths)]
    assert together == alone


@pytest.mark.parametrize("settings", [{}, {"min_length": 3}, {"no_repeat_ngram_size": 1}, {"length_penalty": 2.0}])
@pytest.mark.parametrize("seed", range(10))
def test_greedy_takes_the_likeliest_token_until_the_first_end(seed, settings):
    rules = Search(beam_size=1, **settings)
    prefix, total = (), 0.0
    while len(prefix) < 7:
        scores = following(seed, 0, prefix, rules)
        if not scores:
            assert found_by(toy(seed, 1), [8], beam_size=1, **settings) == [[]]
            return
        token = max(scores, key=lambda word: scores[word])
        total += scores[token]
        if token == END:
            break
        prefix += (token,)
    expected = Hypothesis(list(prefix), total / (len(prefix) + 1) ** rules.length_penalty)
    decoding = toy(seed, 1)
    assert_same(found_by(decoding, [8], beam_size=1, **settings)[0], [expected])
    assert decoding.rows == [1] * min(len(prefix) + 1, 7)  # the end that the maximum forces takes no step


@pytest.mark.parametrize("beam_size", [1, 2])
def test_finished_sentences_leave_the_batch(beam_size):
    """Sentence i, of `words[i]` words that are all as likely, ends for certain then."""
    words = [3, 1, 5, 2, 3]

    def logits(numbers, ids):
        made = torch.zeros(*ids.shape[:2], 5)
        made[..., END] = torch.where(torch.tensor(words)[numbers] < ids.shape[2], 30.0, -30.0)[:, None]
        return made

    decoding = Recomputing(logits, len(words))
    found = found_by(decoding, [20] * len(words), beam_size=beam_size)
    assert [len(best.ids) for best, *_ in found] == words
    steps = range(max(words) + 1)
    assert decoding.rows == [sum(n >= step for n in words) * (beam_size if step else 1) for step in steps]


def test_arithmetic_is_of_float32_whatever_the_logits_are():
    bfloat16, float32 = torch.bfloat16, torch.float32
    low = found_by(toy(0, 3, change=lambda logits: logits.to(bfloat16)), [9] * 3, n_best=5)
    high = found_by(toy(0, 3, change=lambda logits: logits.to(bfloat16).to(float32)), [9] * 3, n_best=5)
    assert low == high


def test_an_output_of_one_token_is_its_end():
    decoding = toy(0, 2)
    assert found_by(decoding, [1, 7], max_length=1) == [[Hypothesis([], 0.0)]] * 2
    assert decoding.rows == []
    assert found_by(toy(0, 2), [1, 7])[0] == [Hypothesis([], 0.0)]
    assert found_by(toy(0, 2), [1, 7])[1] == found_by(toy(0, 1, number=1), [7])[0]


@running(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.integers(1, 700), st.integers(1, 20))
def test_the_highest_of_wide_rows_are_those_that_topk_finds(seed, vocabulary, count):
    logits = torch.randn(2, 3, vocabulary, generator=torch.Generator().manual_seed(seed))
    logits[0, 0, :: seed % 5 + 1] = -math.inf
    count = min(count, vocabulary)
    values, tokens = _highest(logits, count)
    assert torch.equal(values, logits.topk(count).values)
    assert torch.equal(values, logits.gather(2, tokens))


def test_no_sentences_take_no_step():
    decoding = toy(0, 0)
    assert found_by(decoding, []) == []
    assert decoding.rows == []


@pytest.mark.parametrize("beam_size", [1, 3])
def test_nothing_is_found_where_nothing_may_follow(beam_size):
    nothing = found_by(toy(0, 2), [9, 9], never=(START, END, *WORDS), beam_size=beam_size)
    not_numbers = found_by(toy(0, 2, change=lambda logits: logits * math.nan), [9, 9], beam_size=beam_size)
    assert nothing == not_numbers == [[], []]


# Against transformers

V, EOS, PAD = 40, 0, 39
transformers = pytest.importorskip("transformers")


def marian(seed, scale):
    """Random weights; the larger their scale, the surer the model is of what it says.

    In float64, so that what it remembers and what is computed anew give the same logits in float32.
    """
    config = transformers.MarianConfig(
        vocab_size=V,
        d_model=16,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=4,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        max_position_embeddings=64,
        pad_token_id=PAD,
        eos_token_id=EOS,
        decoder_start_token_id=PAD,
        forced_eos_token_id=EOS,
    )
    torch.manual_seed(seed)
    model = transformers.MarianMTModel(config).eval().double()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and "embed_positions" not in name:
            parameter.data.normal_(0, scale * parameter.shape[1] ** -0.5)
    model.final_logits_bias.normal_()
    model.final_logits_bias[0, EOS] += random.Random(seed).choice([-2, 0, 2]) * scale
    return model


def ragged(seed, sentences=4):
    rng = random.Random(seed)
    sources = [[rng.randrange(1, PAD) for _ in range(rng.randint(1, 9))] + [EOS] for _ in range(sentences)]
    width = max(map(len, sources))
    return torch.tensor([source + [PAD] * (width - len(source)) for source in sources])


def as_decoding(model, sources):
    """The model on the whole prefix of every hypothesis in every step."""
    mask = (sources != PAD).long()
    with torch.inference_mode():
        memory = model.get_encoder()(sources, attention_mask=mask).last_hidden_state

    def logits(numbers, ids):
        b, k, t = ids.shape
        rows = numbers.repeat_interleave(k)
        output = model(
            encoder_outputs=(memory[rows],),
            attention_mask=mask[rows],
            decoder_input_ids=ids.view(b * k, t),
            use_cache=False,
        )
        return output.logits[:, -1].view(b, k, V)

    return Recomputing(logits, len(sources))


def ours(model, sources, settings):
    decoding, lengths = as_decoding(model, sources), [settings.max_length] * len(sources)
    return search(decoding, len(sources), start_id=PAD, eos_id=EOS, never=[PAD], max_lengths=lengths, settings=settings)


def theirs(model, sources, settings):
    output = model.generate(
        input_ids=sources,
        attention_mask=(sources != PAD).long(),
        do_sample=False,
        early_stopping=False,
        num_beams=settings.beam_size,
        num_return_sequences=settings.n_best,
        length_penalty=settings.length_penalty if settings.beam_size > 1 else None,
        no_repeat_ngram_size=settings.no_repeat_ngram_size,
        min_new_tokens=settings.min_length,
        max_new_tokens=settings.max_length,
        forced_eos_token_id=EOS,
        bad_words_ids=[[PAD]],
        renormalize_logits=True,
        return_dict_in_generate=True,
        output_scores=True,
    )
    ids = [row[1 : row.index(EOS, 1)] for row in output.sequences.tolist()]
    if settings.beam_size > 1:
        scores = output.sequences_scores.tolist()
    else:  # greedy: the likelihood of what it took; a forced end counts for nothing
        steps = torch.stack(output.scores, 1)[:, : settings.max_length - 1]
        scores = [
            float(sum(step[token] for step, token in zip(row, [*found, EOS], strict=False)))
            / (len(found) + 1) ** settings.length_penalty
            for row, found in zip(steps, ids, strict=True)
        ]
    hypotheses = [Hypothesis(*pair) for pair in zip(ids, scores, strict=True)]
    n = settings.n_best
    return [hypotheses[i * n : (i + 1) * n] for i in range(len(sources))]


def random_settings(seed):
    rng = random.Random(seed)
    beam_size = 1 + seed % 5
    return Search(
        beam_size=beam_size,
        n_best=rng.choice([1, beam_size]),
        length_penalty=rng.choice([0.0, 0.6, 1.0, 1.5, -0.5]),
        no_repeat_ngram_size=rng.choice([0, 0, 2, 3]),
        min_length=rng.choice([0, 0, 4, 12]),
        max_length=rng.choice([12, 20, 30]),
    )


@pytest.mark.parametrize("scale", [1.0, 3.0, 8.0])
@pytest.mark.parametrize("seed", also_slowly(range(10), ((seed,) for seed in range(10, 20))))
def test_the_same_hypotheses_as_transformers(seed, scale):
    model, sources, settings = marian(seed, scale), ragged(seed), random_settings(seed)
    for found, expected in zip(ours(model, sources, settings), theirs(model, sources, settings), strict=True):
        assert_same(found, expected)


@pytest.mark.parametrize("beam_size", [1, 4])
def test_what_is_forbidden_takes_no_probability(beam_size):
    """Neither does a padding whose logit is the highest change a score, nor an end that may not come yet."""
    model, sources = marian(0, 3.0), ragged(0)
    settings = Search(beam_size=beam_size, n_best=beam_size, min_length=4, max_length=12)
    plain = ours(model, sources, settings)
    model.final_logits_bias[0, PAD] += 20
    found = ours(model, sources, settings)
    for hypotheses, expected, published in zip(found, plain, theirs(model, sources, settings), strict=True):
        assert_same(hypotheses, expected)
        assert_same(hypotheses, published)


@pytest.mark.parametrize("beam_size", [1, 2, 5])
def test_of_equal_hypotheses_either_is_found(beam_size):
    """Every word has a double with the same embedding and bias, so that half of all comparisons are ties."""
    model = marian(0, 2.0)
    weights, bias = model.get_output_embeddings().weight.data, model.final_logits_bias[0]
    weights[20:PAD], bias[20:PAD] = weights[1:20], bias[1:20]
    settings = Search(beam_size=beam_size, n_best=beam_size, max_length=12)

    def single(hypotheses):
        return [Hypothesis([i - 19 if i >= 20 else i for i in ids], score) for ids, score in hypotheses]

    sources = ragged(0)
    for found, expected in zip(ours(model, sources, settings), theirs(model, sources, settings), strict=True):
        assert_same(single(found), single(expected))
