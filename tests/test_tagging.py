"""Labels of words and the entities that they make, as conlleval and seqeval read them."""

import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertram.errors import BadInput
from bertram.tasks.entities import Scheme
from bertram.tasks.registry import task_from_dict
from bertram.tasks.tagging import Tagging

Spans = set[tuple[int, int, str]]
KINDS = ("PER", "LOC", "a-b")
SCHEMES = {
    "IOB": [f"{prefix}-{kind}" for prefix in "BI" for kind in KINDS] + ["O"],
    "IOBES": [f"{prefix}-{kind}" for prefix in "BIES" for kind in KINDS] + ["O"],
    "BILOU": [f"{prefix}-{kind}" for prefix in "BILU" for kind in KINDS] + ["O"],
    "one kind without a name": ["B", "I", "O"],
    "inside alone": [f"I-{kind}" for kind in KINDS] + ["O"],
    "bare": [*KINDS, "O"],
    "prefixes without O": [f"{prefix}-{kind}" for prefix in "BI" for kind in KINDS],
    "parts of speech": ["NN", "VB", "-LRB-"],
}
ANY = st.sampled_from(sorted(SCHEMES))


def conlleval(labels: Sequence[str]) -> Spans:
    """The entities of one text by startOfChunk and endOfChunk of conlleval.pl (Tjong Kim Sang & Buchholz 2000).

    With E and S as its successors have them (L and U are other names of these), "PER" taken for "I-PER" as by its
    option -r, and "_" for the kind that is not named, as in seqeval.
    """

    def parts(label: str) -> tuple[str, str]:
        if label == "O":
            return "O", ""
        tag, dash, kind = ("I-_" if label == "I" else "B-_" if label == "B" else label).partition("-")
        prefixed = dash and tag in ("B", "I", "E", "S", "L", "U")
        return ({"L": "E", "U": "S"}.get(tag, tag), kind) if prefixed else ("I", label)

    def ends(before: str, tag: str, kind_before: str, kind: str) -> bool:
        end = before in ("E", "S")
        end |= before in ("B", "I", "E") and tag in ("B", "S", "O")
        return end or (before != "O" and kind_before != kind)

    def starts(before: str, tag: str, kind_before: str, kind: str) -> bool:
        start = tag in ("B", "S")
        start |= before in ("E", "S", "O") and tag in ("E", "I")
        return start or (tag != "O" and kind_before != kind)

    found, begun, before, kind_before = set(), 0, "O", ""
    for place, label in enumerate([*labels, "O"]):
        tag, kind = parts(label)
        if ends(before, tag, kind_before, kind):
            found.add((begun, place, kind_before))
        if starts(before, tag, kind_before, kind):
            begun = place
        before, kind_before = tag, kind
    return found


def expected(name: str, labels: Sequence[str]) -> Spans:
    alone = {(place, place + 1, label) for place, label in enumerate(labels)}
    return alone if name == "parts of speech" else conlleval(labels)


def read(scheme: Scheme, known: Sequence[str], texts: Sequence[Sequence[str]]) -> list[Spans]:
    numbers = np.array([known.index(label) for text in texts for label in text], np.int64)
    of_texts = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    found: list[Spans] = [set() for _ in texts]
    starts = np.cumsum([0, *(len(text) for text in texts)])
    for start, end, kind in zip(*scheme.read(numbers, of_texts), strict=True):
        row = int(of_texts[start])
        assert of_texts[end - 1] == row
        found[row].add((int(start - starts[row]), int(end - starts[row]), scheme.names[kind]))
    return found


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_entities_are_those_of_conlleval(data: st.DataObject) -> None:
    """Of every text by itself: none begins in one and ends in another."""
    name = data.draw(ANY)
    known = data.draw(st.permutations(SCHEMES[name]))
    texts = data.draw(st.lists(st.lists(st.sampled_from(known), max_size=9), max_size=4))
    assert read(Scheme.of(known), known, texts) == [expected(name, text) for text in texts]


@pytest.mark.parametrize(
    ("labels", "entities"),
    [
        ("I-PER I-PER B-PER O", {(0, 2, "PER"), (2, 3, "PER")}),
        ("O I-PER I-LOC", {(1, 2, "PER"), (2, 3, "LOC")}),
        ("B-PER B-PER I-PER", {(0, 1, "PER"), (1, 3, "PER")}),
        ("B-PER E-PER E-PER S-PER I-PER", {(0, 2, "PER"), (2, 3, "PER"), (3, 4, "PER"), (4, 5, "PER")}),
        ("U-PER U-PER B-LOC L-LOC I-LOC", {(0, 1, "PER"), (1, 2, "PER"), (2, 4, "LOC"), (4, 5, "LOC")}),
        ("PER PER LOC O PER", {(0, 2, "PER"), (2, 3, "LOC"), (4, 5, "PER")}),
    ],
)
def test_entities_by_hand(labels: str, entities: Spans) -> None:
    assert conlleval(labels.split()) == entities
    known = sorted({*labels.split(), "O"})
    assert read(Scheme.of(known), known, [labels.split()]) == [entities]


def task_of(*texts: str) -> Tagging:
    return Tagging.from_labels(texts)


def logits_of(task: Tagging, *texts: str) -> np.ndarray:
    return np.eye(task.outputs, dtype=np.float32)[task.targets(texts)[:, 1]]


SEQEVAL = {
    "IOB2": (
        "B-PER I-PER O B-LOC|O B-ORG I-ORG I-ORG",
        "B-PER I-PER O B-ORG|O B-ORG I-ORG O",
        1 / 3,
        1 / 3,
        1 / 3,
        0.75,
    ),
    "IOB1": ("I-PER I-PER O I-LOC B-LOC|I-ORG O", "I-PER I-PER O I-LOC I-LOC|I-ORG I-ORG", 1 / 3, 0.25, 2 / 7, 5 / 7),
    "IOBES": (
        "B-PER E-PER O S-LOC|S-ORG B-ORG I-ORG E-ORG",
        "B-PER E-PER O B-LOC|S-ORG S-ORG I-ORG E-ORG",
        0.6,
        0.75,
        2 / 3,
        0.75,
    ),
    "ill-formed": (
        "O I-PER I-LOC B-LOC|B-PER B-PER I-LOC O|O O",
        "I-PER I-PER I-LOC I-LOC|B-PER I-PER I-LOC O|I-LOC O",
        0.2,
        1 / 6,
        2 / 11,
        0.6,
    ),
    "at borders of texts": ("O B-PER|B-PER O|I-PER I-PER", "O B-PER|I-PER O|B-PER I-PER", 1.0, 1.0, 1.0, 2 / 3),
    "no kinds": ("B I O B|O B I I|I I O", "B I O B|O B I O|B I O", 0.75, 0.75, 0.75, 9 / 11),
    "none there": ("O O|O", "O B-PER|O", 0.0, 0.0, 0.0, 2 / 3),
}
"""Right and answered labels of texts; what seqeval 1.2.2 says of them: precision, recall, F1 and accuracy."""


@pytest.mark.parametrize("name", SEQEVAL)
def test_scores_are_those_of_seqeval(name: str) -> None:
    right, answered, precision, recall, f1, accuracy = SEQEVAL[name]
    task = task_of(*right.split("|"), *answered.split("|"))
    scores = task.scores(logits_of(task, *answered.split("|")), task.targets(right.split("|")))
    assert [score.metric for score in scores] == ["f1", "precision", "recall", "accuracy"]
    assert [score.value for score in scores] == pytest.approx([f1, precision, recall, accuracy], abs=1e-12)


def labelled(data: st.DataObject) -> tuple[str, Tagging, np.ndarray, np.ndarray, list[list[str]], list[list[str]]]:
    """A scheme, its task, logits and targets of several texts, and the labels that they say and should say."""
    name = data.draw(ANY)
    known = SCHEMES[name]
    task = task_of(" ".join(known))
    right = data.draw(st.lists(st.lists(st.sampled_from(known), min_size=1, max_size=6), min_size=1, max_size=4))
    said = [[data.draw(st.sampled_from([label, *known])) for label in text] for text in right]
    logits = logits_of(task, *map(" ".join, said))
    return name, task, logits, task.targets([*map(" ".join, right)]), said, right


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_f1_is_that_of_all_entities_and_of_the_mean_terms(data: st.DataObject) -> None:
    name, task, logits, targets, said, right = labelled(data)
    pairs = [(expected(name, a), expected(name, b)) for a, b in zip(said, right, strict=True)]
    counts = [[len(a & b), len(a), len(b)] for a, b in pairs]
    terms = task.terms(logits, targets)
    np.testing.assert_array_equal(terms, counts)
    matched, found, there = (sum(column) for column in zip(*counts, strict=True))
    f1 = float(Fraction(2 * matched, found + there)) if found + there else 0.0
    scores = task.scores(logits, targets)
    assert scores[0].value == pytest.approx(f1, abs=1e-12)
    assert float(task.score_of(terms.mean(0))) == pytest.approx(f1, abs=1e-12)
    assert scores[0].signature == f"f1|entities|n:{there}"


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_constant_score_is_the_best_of_one_answer_to_all(data: st.DataObject) -> None:
    _, task, _, targets, _, _ = labelled(data)
    answers = [np.tile(row, (len(targets), 1)) for row in np.eye(task.outputs, dtype=np.float32)]
    best = max(task.scores(logits, targets)[0].value for logits in answers)
    assert task.constant_score(targets) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_word_of_bad_logits_has_no_label(bad: float) -> None:
    """It ends the entity before it, and is wrong."""
    right = "B-PER I-PER I-PER"
    task = task_of(right, "O")
    logits, targets = logits_of(task, right), task.targets([right])
    logits[1, 0] = bad
    f1, *_, accuracy = task.scores(logits, targets)
    assert (f1.value, accuracy.value) == (0.0, pytest.approx(2 / 3))
    assert task.terms(logits, targets).tolist() == [[0, 2, 1]]
    logits[:] = bad
    assert task.terms(logits, targets).tolist() == [[0, 0, 1]]


def test_targets_number_texts_and_labels() -> None:
    task = task_of("B-PER O", "O I-PER")
    assert task.labels == ("B-PER", "I-PER", "O")
    targets = task.targets(["O", "I-PER O", "B-PER"])
    assert (targets.tolist(), targets.dtype) == ([[0, 2], [1, 1], [1, 2], [2, 0]], np.int64)
    assert task.targets([]).shape == (0, 2)
    with pytest.raises(
        BadInput, match=r"^t\.conll: 2 rows with 'B-LOC', not seen in training; its labels are 'B-PER', "
    ):
        task.targets(["O B-LOC", "B-LOC"], "t.conll")
    unnamed = task_from_dict({"name": "tagging", "labels": ["LABEL_0", "LABEL_1"]})
    assert unnamed.targets(["1 0"])[:, 1].tolist() == [1, 0]


def test_entities_have_places_labels_and_scores() -> None:
    """Of two labels with logits 0 and log 3 the probability is 3/4; an entity's is the mean of its words'."""
    texts, spans = ["Ann  Lee", "", "in Rome", "X", " "], [[(0, 3), (5, 8)], [], [(0, 2), (3, 7)], [(0, 1)], []]
    logits = np.log(np.array([[3, 1], [1, 1], [1, 3], [7, 1], [1, 1]], np.float32))

    def found(*labels: str) -> list[list[tuple[Any, ...]]]:
        answers = task_of(*labels).entities(texts, spans, logits)
        json.dumps(answers)
        return [[tuple(entity.values()) for entity in answer["entities"]] for answer in answers]

    rest = [[], [(3, 7, "PER", "Rome", pytest.approx(0.875))], [(0, 1, "PER", "X", pytest.approx(0.5))], []]
    two = [(0, 3, "PER", "Ann", pytest.approx(0.75)), (5, 8, "PER", "Lee", pytest.approx(0.5))]
    assert found("B-PER O") == [two, *rest]
    assert found("I-PER O") == [[(0, 8, "PER", "Ann  Lee", pytest.approx((0.75 + 0.5) / 2))], *rest]
    (answer,) = task_of("B-PER O").entities(["Ann"], [[(0, 3)]], logits[:1])
    assert list(answer["entities"][0]) == ["start", "end", "label", "text", "score"]
    assert task_of("B-PER O").entities([], [], logits[:0]) == []


@pytest.mark.parametrize("labels", [None, "ab", ["O"], ["O", "O"], ["O", 1], ["O", "\ud800"]])
def test_nonsense_is_refused(labels: object) -> None:
    with pytest.raises(BadInput, match=r"^task: "):
        task_from_dict({"name": "tagging", "labels": labels})
