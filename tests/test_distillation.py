"""What a student learns from its teacher: losses worked out by hand, and how agreement is told."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

import tiny
from bertram.batch import Batch
from bertram.comparison.statistics import interval
from bertram.config import LESSONS
from bertram.corpus.masking import Masker
from bertram.formats.huggingface import read
from bertram.models.heads import Model
from bertram.models.tensors import PackedTensors, Targets
from bertram.shrinking.agreement import Predictions, agreement, side_by_side
from bertram.shrinking.distillation import (
    MASKED,
    Distillation,
    DistillationFeed,
    Teacher,
    loss_names,
)
from bertram.tasks.classification import Classification
from bertram.text.tokenizer import Tokenizer
from teachers import batch, teacher

CPU = torch.device("cpu")
HEADS = {"classification": 3, "regression": 1, "sentence_pair": 2, MASKED: 0, "embedding": 0}


def texts(directory: Path, number: int) -> Batch:
    return Tokenizer.load(directory).encode([text for text, _ in tiny.rows(number)], max_length=32)[0]


def pair(directory: Path, heads: dict[str, int], measured: int = 8) -> Distillation:
    """A student of four layers that is another model than its teacher, in two groups."""
    original, student = (read(directory, heads=heads) for _ in range(2))
    tiny.unsettle(student, seed=3)
    return Distillation(student, Teacher(original, 2, texts(directory, measured), CPU))


def everywhere(names: list[str], inputs: PackedTensors) -> dict[str, Targets]:
    """A target for every text."""
    return {name: Targets(None, torch.arange(len(inputs.first))) for name in names}


def test_losses_are_what_a_hand_makes_of_two_texts(tmp_path: Path) -> None:
    """Four layers in two groups: what goes into the first and comes out of the second and fourth."""
    directory = teacher(tmp_path / "teacher")
    distillation, inputs = pair(directory, {}), batch(directory, 2)
    measured = batch(directory, 8)
    student, original = distillation.student.eval(), read(directory, heads={}).eval()
    with torch.inference_mode():
        found = distillation.losses(inputs, everywhere(["states", "vectors", "similarities"], inputs))
        own, taught, spread = student.encoder.states(inputs), *map(original.encoder.states, (inputs, measured))
    states = [float((own[k] - taught[k]).square().mean() / spread[k].var(0).mean()) for k in (0, 2, 4)]
    assert float(found["states"]) == pytest.approx(sum(states) / 3, rel=1e-5)
    length = int(inputs.lengths[0])
    vectors = [torch.stack([states[-1][:length].mean(0), states[-1][length:].mean(0)]) for states in (own, taught)]
    cosines = cosine_similarity(*vectors)
    assert float(found["vectors"]) == pytest.approx(1 - float(cosines.sum()) / 2, rel=1e-4)
    between = [float(cosine_similarity(side[0], side[1], dim=0)) for side in vectors]
    assert float(found["similarities"]) == pytest.approx(10 * (between[0] - between[1]) ** 2, rel=1e-3)


def test_heads_are_taught_their_probabilities_and_a_regression_its_values(tmp_path: Path) -> None:
    directory = teacher(tmp_path / "teacher")
    inputs = batch(directory, 2)
    torch.manual_seed(0)  # for the heads, which the directory lacks
    distillation = pair(directory, HEADS)
    targets = everywhere(["classification", "regression", "sentence_pair"], inputs)
    targets[MASKED] = Targets(torch.tensor([1, 4, 5]), torch.tensor([7, 8, 9]))
    with torch.inference_mode():
        found = distillation.losses(inputs, targets)
        own = distillation.student.targeted(inputs, targets)
    original = distillation.teacher.answers(inputs, targets, torch.float32).logits

    def divergence(a: Tensor, b: Tensor) -> float:
        p, q = (logits.double().exp() / logits.double().exp().sum(1, keepdim=True) for logits in (a, b))
        return float((q * (q / p).log()).sum() / len(p))

    for name in ("classification", "sentence_pair", MASKED):
        assert len(own[name]) == len(targets[name].values)
        assert float(found[name]) == pytest.approx(divergence(own[name], original[name]), rel=1e-3)
    errors = (own["regression"] - original["regression"]).square()
    assert float(found["regression"]) == pytest.approx(float(errors.mean()), rel=1e-5)


def test_what_is_taught_is_what_lessons_name_and_heads_there_are(tmp_path: Path) -> None:
    model = read(teacher(tmp_path / "teacher"), heads=HEADS)
    heads = ["classification", "regression", "sentence_pair", MASKED]
    assert loss_names(model, LESSONS) == ["states", "vectors", "similarities", *heads]
    assert loss_names(model, ["logits"]) == heads
    assert loss_names(model, ["vectors"]) == ["vectors"]


def test_a_target_is_the_number_of_its_text(tmp_path: Path) -> None:
    directory = teacher(tmp_path / "teacher")
    tokenizer, some = Tokenizer.load(directory), texts(tmp_path / "teacher", 10)
    masker = Masker(tokenizer.starts_word, tokenizer.special, tokenizer.mask_id, "token")
    feed = DistillationFeed(some, ["states", "vectors", MASKED], masker, 4, seed=1)
    examples, following = feed.take((0, 1))
    assert following == (0, 2)
    numbers = examples.labels["vectors"]
    assert len(set(numbers.tolist())) == 4
    np.testing.assert_array_equal(examples.token_labels["states"], np.repeat(numbers, examples.lengths))
    masked, original = examples.token_labels[MASKED] >= 0, some.select(numbers).token_ids
    np.testing.assert_array_equal(examples.token_labels[MASKED][masked], original[masked])
    np.testing.assert_array_equal(examples.inputs.token_ids[~masked], original[~masked])
    assert 4 <= masked.sum() < len(masked) / 2


def test_a_comparison_is_over_all_texts_whatever_the_batches(tmp_path: Path) -> None:
    directory = teacher(tmp_path / "teacher")
    first = pair(directory, {"classification": 3})
    second = Distillation(read(directory, heads={"classification": 3}), first.teacher)
    names, some = ["states", "vectors", "classification"], texts(directory, 10)
    found = [side_by_side(first, DistillationFeed(some, names, None, size, seed=0), CPU) for size in (4, 10)]
    assert found[0].losses == pytest.approx(found[1].losses, rel=1e-5)
    assert found[0].student.heads["classification"].dtype == np.int64
    assert found[0].teacher.vectors.shape == (10, 32)
    itself = side_by_side(second, DistillationFeed(some, names, None, 4, seed=0), CPU)
    assert found[0].losses["vectors"] > 100 * itself.losses["vectors"]


def test_a_batch_with_no_token_to_mask_has_no_part_in_what_is_said_of_masked_ones() -> None:
    vectors = np.ones((1, 2), np.float32)
    found = Predictions.joined([Predictions(vectors, {}), Predictions(vectors, {MASKED: np.array([3, 4])})])
    assert found.vectors.shape == (2, 2)
    assert found.heads[MASKED].tolist() == [3, 4]


def test_a_teacher_that_taught_in_bfloat16_answers_as_before(tmp_path: Path) -> None:
    """It computes as its student does, which is trained in bfloat16 and judged in float32."""
    directory = teacher(tmp_path / "teacher")
    inputs = batch(directory)
    distillation = pair(directory, {})
    before = distillation.teacher.answers(inputs, {}, torch.float32)
    for layer in distillation.student.encoder.layers:
        layer.to(torch.bfloat16)
    assert distillation.precision == torch.bfloat16
    rounded = distillation.teacher.answers(inputs, {}, distillation.precision)
    assert 0 < float((rounded.vectors - before.vectors).abs().max()) < 0.1
    torch.testing.assert_close(distillation.teacher.answers(inputs, {}, torch.float32), before, rtol=0, atol=0)


def test_only_the_student_is_trained(tmp_path: Path) -> None:
    distillation = pair(teacher(tmp_path / "teacher"), {})
    assert isinstance(distillation.student, Model)
    assert {name.partition(".")[0] for name, _ in distillation.named_parameters()} == {"student"}


def test_agreement_of_a_model_with_itself_is_whole() -> None:
    random = np.random.default_rng(0)
    labels, values = random.integers(0, 3, 40), random.normal(size=40).astype(np.float32)
    expected = Predictions(
        random.normal(size=(40, 8)).astype(np.float32), {"classification": labels, "regression": values}
    )
    other = Predictions(expected.vectors, {"classification": labels.copy(), "regression": values**3})
    other.heads["classification"][:10] += 1
    found = agreement(other, expected)
    assert found["vectors"]["low"] == pytest.approx(1)
    assert found["similarities"]["value"] == pytest.approx(1)
    assert found["classification"]["value"] == 0.75
    assert 0.5 < found["classification"]["low"] < 0.75 < found["classification"]["high"] < 0.95
    assert found["regression"]["value"] == pytest.approx(1)  # by ranks


def test_an_agreement_has_the_interval_of_a_score_on_the_same_texts() -> None:
    right = np.arange(40) % 4 > 0
    vectors, ones = np.ones((40, 2), np.float32), np.ones(40, np.int64)
    student, taught = (Predictions(vectors, {"classification": labels}) for labels in (right.astype(np.int64), ones))
    found = agreement(student, taught)["classification"]
    logits = np.stack([1.0 - right, right], axis=-1)
    expected = interval(Classification(("wrong", "right")), [logits], ones, split="test")
    assert [found[name] for name in ("value", "low", "high")] == [expected[name] for name in ("mean", "low", "high")]
