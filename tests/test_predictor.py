import numpy as np
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertram.batch import Batch
from bertram.errors import BadInput
from bertram.inference.predictor import Predictor
from bertram.tasks.regression import Regression
from bertram.tasks.similarity import Similarity


class Characters:
    """A tokenizer whose tokens are characters, with 7 between the texts of a pair."""

    def __init__(self):
        self.calls = []

    def encode(self, texts, texts_b=None, *, max_length):
        self.calls.append(len(texts))
        rows = [[ord(c) for c in text] for text in texts]
        if texts_b is not None:
            rows = [[*row, 7, *map(ord, text)] for row, text in zip(rows, texts_b, strict=True)]
        return Batch.pack([row[:max_length] for row in rows]), 0


class Sums:
    """A runner whose one logit is the sum of a sequence's token ids."""

    def __init__(self):
        self.sizes = []

    def run(self, batch):
        self.sizes.append((len(batch), len(batch.token_ids)))
        sums = np.add.reduceat(np.append(batch.token_ids, 0), batch.offsets[:-1])
        return {"regression": np.where(batch.lengths > 0, sums, 0)[:, None].astype(np.float32)}


def make(max_length=50, max_tokens=64):
    return Predictor(Regression(0.0, 1.0), Characters(), Sums(), max_length, max_tokens=max_tokens)


def total(text, max_length=50):
    return float(sum(map(ord, text[:max_length])))


TEXTS = st.lists(st.text(st.characters(max_codepoint=0x10000, exclude_categories=["Cs"]), max_size=60), max_size=40)


@settings(deadline=None)
@given(texts=TEXTS, chunk=st.integers(1, 50))
def test_answers_come_in_order_and_within_the_budget(texts, chunk):
    predictor = make()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bertram.batch._CHUNK", chunk)
        answers = predictor.predict(texts)
    assert [answer["score"] for answer in answers] == [total(text) for text in texts]
    assert all(tokens <= 64 or sequences == 1 for sequences, tokens in predictor.runner.sizes)


def test_tokens_of_few_texts_are_held_at_a_time():
    predictor = make(max_tokens=2048)
    assert predictor.logits(["ab"] * 10_000).shape == (10_000, 1)
    assert predictor.tokenizer.calls == [4096, 4096, 1808]


def test_like_lengths_run_together():
    predictor = make(max_tokens=8)
    predictor.logits(["aaaaaa", "b", "cccccc", "d", "e", "f"])
    assert predictor.runner.sizes == [(4, 4), (1, 6), (1, 6)]


def test_strings_objects_and_pairs():
    assert make().predict(["ab", {"text": "c"}]) == [{"score": total("ab")}, {"score": total("c")}]
    pairs = [{"text": "ab", "text_b": "c"}, {"text": "", "text_b": ""}]
    assert make().predict(pairs) == [{"score": total("ab\x07c")}, {"score": 7.0}]


def test_nothing_and_texts_without_tokens():
    assert make().predict([]) == []
    assert make().predict(["", "a", ""]) == [{"score": 0.0}, {"score": 97.0}, {"score": 0.0}]


@pytest.mark.parametrize("task", [Regression(0.0, 1.0), Similarity()])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a text",), "inputs: must be a list of texts"),
        (("a text", "a text"), "inputs: must be a list of texts"),
        (("a", ["b"]), "inputs: must be a list of texts"),
        ((["a"], ["b", "c"]), "inputs: 1 texts and 2 second ones; each needs one"),
        ((["a", "b"], []), "inputs: 2 texts and 0 second ones; each needs one"),
    ],
)
def test_one_text_is_not_taken_for_a_list(task, arguments, message):
    predictor = make()
    predictor.task = task
    ask = predictor.embed if task.apart and len(arguments) == 1 else predictor.logits
    with pytest.raises(BadInput, match=message):
        ask(*arguments)


@pytest.mark.parametrize("made", [iter, np.array, polars.Series, tuple])
def test_whatever_gives_texts_is_a_list_of_them(made):
    texts, (one, two) = ["ab", "c"], (make(), make())
    two.task = Similarity()
    two.runner.run = lambda batch: {"embedding": np.stack([batch.token_ids[batch.offsets[:-1]], batch.lengths], 1)}
    assert one.predict(made(texts)) == one.predict(texts)
    assert one.logits(made(texts)).tolist() == [[total(text)] for text in texts]
    assert two.embed(made(texts)).tolist() == [[97, 2], [99, 1]]
    assert two.logits(made(texts), made(texts))[:, 0] == pytest.approx([1, 1])


@pytest.mark.parametrize("text", [float("nan"), None, b"a", 3])
def test_what_is_no_text_is_named_by_its_place(text):
    found = make()
    said = rf"^inputs\[1\]: must be a string, not {type(text).__name__}$"
    for arguments in ((["a", text],), (["a", "b"], ["a", text])):
        with pytest.raises(BadInput, match=said):
            found.logits(*arguments)
    found.task = Similarity()
    with pytest.raises(BadInput, match=said):
        found.embed(["a", text])
    with pytest.raises(BadInput, match="inputs: must be a list of texts"):
        found.embed(3)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("a text", "inputs: must be a list of texts"),
        (None, "inputs: must be a list of texts"),
        ({"text": "a"}, "inputs: must be a list of texts"),
        (["a", 3], "inputs[1]: must be a string or an object with text, not int"),
        (["a", None], "inputs[1]: must be a string or an object with text, not NoneType"),
        (["a", "b", {}], "inputs[2]: has no text"),
        ([{"text_b": "b"}], "inputs[0]: has no text"),
        ([{"text": None}], "inputs[0]: text must be a string, not NoneType"),
        ([{"text": "a", "text_b": ["b"]}], "inputs[0]: text_b must be a string, not list"),
        ([{"text": "a", "text\nB": "b"}], r"inputs[0]: 'text\nB' is unknown"),
        (["a", {"text": "a", "text_b": "b"}], "inputs[1]: all inputs must have a text_b, or none"),
        ([{"text": "a", "text_b": "b"}] * 2 + ["c"], "inputs[2]: all inputs must have a text_b, or none"),
        (["a"] * 5000 + ["\ud800"], "inputs[5000]: an unpaired surrogate"),
        ([{"text": "a", "text_b": "\udfff"}], "inputs[0]: an unpaired surrogate"),
    ],
)
def test_bad_inputs_are_named_by_their_index(inputs, message):
    predictor = make()
    with pytest.raises(BadInput) as caught:
        predictor.predict(inputs)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert predictor.tokenizer.calls == []
