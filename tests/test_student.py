"""What a student begins with: how its sizes follow from its teacher's, its weights, and what a plan says of both."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import tiny
from bertram.config import EncoderConfig
from bertram.errors import BadInput
from bertram.formats.engine import tensors_of
from bertram.formats.engine_file import Engine, write_engine
from bertram.formats.huggingface import read, write
from bertram.formats.quantization import pack
from bertram.inspection import describe
from bertram.model_directory import ModelDirectory
from bertram.models.heads import Model
from bertram.models.layers import Layer
from bertram.shrinking.dial import Dial
from bertram.shrinking.initial import student_of
from bertram.shrinking.plan import plan, sizes
from bertram.text.tokenizer import Tokenizer
from teachers import batch, pooled, teacher


def student(original: Model, dial: Dial, counts: Tensor | None = None) -> Model:
    """Every token counts alike, unless `counts` says otherwise."""
    config = dial.of(original.config)
    return student_of(original, config, torch.ones(config.vocab_size).double() if counts is None else counts)


def without_places(model: Model) -> None:
    """Tokens alone make what the first layer takes."""
    with torch.no_grad():
        model.encoder.embeddings.positions.weight.zero_()
        model.encoder.embeddings.segments.weight.zero_()


def matrices(layer: Layer) -> list[Tensor]:
    """As they multiply, residuals summed."""
    attention, feed_forward = layer.attention, layer.feed_forward
    products = attention.query, attention.key_value, attention.output, feed_forward.intermediate, feed_forward.output
    return [product.weight.detach() for product in products]


def test_embeddings_of_few_directions_survive_being_narrow(tmp_path: Path) -> None:
    """Six directions and two for the layer norm are all that there is, so that the first layer takes the same."""
    original = read(teacher(tmp_path / "teacher"), heads={})
    without_places(original)
    ids = torch.arange(original.config.vocab_size)
    places = torch.zeros_like(ids)

    def taken(model: Model) -> Tensor:
        return model.eval().encoder.embeddings(ids, places, places, torch.float32).detach()

    expected = taken(original)
    error = (expected - taken(student(original, Dial(embedding_size=9)))).pow(2).mean()
    assert float(error / expected.var(0).mean()) < 0.02
    worse = (expected - taken(student(original, Dial(embedding_size=4)))).pow(2).mean()
    assert float(worse) > 10 * float(error)


def test_frequent_tokens_are_kept_best(tmp_path: Path) -> None:
    original = read(tiny.model_directory(tmp_path / "teacher"), heads={})
    without_places(original)
    counts = torch.ones(original.config.vocab_size).double()
    counts[50:60] = 1000
    ids = torch.arange(50, 60)
    expected = original.eval().encoder.embeddings(ids, ids * 0, ids * 0, torch.float32)
    errors = []
    for seen in (counts, torch.ones_like(counts)):
        narrow = student(original, Dial(embedding_size=16), counts=seen).eval()
        found = narrow.encoder.embeddings(ids, ids * 0, ids * 0, torch.float32)
        errors.append(float((found - expected).detach().pow(2).mean()))
    assert errors[0] < 0.5 * errors[1]


def test_layers_are_the_mean_of_their_group(tmp_path: Path) -> None:
    original = read(teacher(tmp_path / "teacher"), heads={})
    weights = [layer.feed_forward.output.weight for layer in original.encoder.layers]
    layers = student(original, Dial(groups=2, embedding_size=16)).encoder.layers
    found = [layer.feed_forward.output.weight for layer in layers]
    assert [weight.data_ptr() for weight in found[:2]] == [found[0].data_ptr()] * 2
    torch.testing.assert_close(found[0], (weights[0] + weights[1]) / 2)
    torch.testing.assert_close(found[3], (weights[2] + weights[3]) / 2)


@pytest.mark.parametrize("shared", ["none", "attention", "ffn"])
def test_layers_are_tied_whatever_a_teacher_says_that_shares_nothing(shared: str, tmp_path: Path) -> None:
    original = ModelDirectory(teacher(tmp_path / "teacher", shared=shared)).read_model()
    assert original.config.shared == shared
    layers = student(original, Dial(embedding_size=16)).encoder.layers
    for product in ("attention.query", "feed_forward.output"):
        assert len({layer.get_parameter(f"{product}.weight").data_ptr() for layer in layers}) == 1
    assert student(original, Dial(embedding_size=16, rank=2)).config.residual_rank == 2


def test_a_dial_that_only_keeps_gives_the_teacher_itself(tmp_path: Path) -> None:
    """As many groups as layers and two layers tied where they are equal: nothing is lost."""
    original = read(teacher(tmp_path / "teacher"), heads={})
    for place in (1, 3):
        original.encoder.layers[place].load_state_dict(original.encoder.layers[place - 1].state_dict())
    same = student(original, Dial(groups=2, embedding_size=original.config.hidden_size))
    texts = batch(tmp_path / "teacher")
    torch.testing.assert_close(same.eval().encoder(texts), original.eval().encoder(texts))


def test_a_configuration_can_lose_depth_alone() -> None:
    bert = EncoderConfig(**tiny.SIZES | {"num_hidden_layers": 4}, vocab_size=20)
    shorter = Dial(groups=2, embedding_size=32, depth=2).of(bert)
    assert (shorter.model_type, shorter.num_hidden_layers) == ("bert", 2)


def test_residuals_of_full_rank_give_the_teacher_itself(tmp_path: Path) -> None:
    """Each layer's difference from the mean has at most as many singular values as the layer is wide."""
    original, texts = read(teacher(tmp_path / "teacher"), heads={}).eval(), batch(tmp_path / "teacher")
    errors = []
    for rank in (1, 8, 16, 32):
        residual = student(original, Dial(embedding_size=original.config.hidden_size, rank=rank)).eval()
        errors.append(float((residual.encoder(texts) - original.encoder(texts)).detach().abs().max()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-4


def test_a_pooler_is_kept_for_a_head_that_reads_it(tmp_path: Path) -> None:
    assert student(read(pooled(tmp_path / "sentences")), Dial(embedding_size=16)).pooler is None
    original = read(teacher(tmp_path / "classifier", {"classification": 3}))
    kept = student(original, Dial(embedding_size=16)).pooler
    assert torch.equal(kept.dense.weight, original.pooler.dense.weight)


def test_the_plan_counts_what_would_be_there(tmp_path: Path) -> None:
    directory = teacher(tmp_path / "teacher")
    original = read(directory, heads={})
    without_places(original)
    write(original, directory)
    rows = [
        row
        for groups in (1, 2)
        for size in (8, 32)
        for rank in (0, 4, 32)
        for row in plan(directory, Dial(groups=groups, embedding_size=size, rank=rank))
    ]
    assert len(rows) == 12
    for row in rows:
        config = Dial(groups=row.groups, embedding_size=row.embedding_size, rank=row.rank).of(original.config)
        assert row.parameters == sum(weight.numel() for weight in Model(config, {}, pooler=False).parameters())
        assert row.parameters == sum(size for part, size in describe(config)["parts"].items() if part != "pooler")
    energy = {(row.groups, row.embedding_size, row.rank): (row.embedding_energy, row.layer_energy) for row in rows}
    assert energy[1, 8, 0][0] == pytest.approx(1, abs=1e-6)  # six directions in all
    assert energy[1, 8, 0][1] < energy[2, 8, 0][1] < 1
    assert energy[1, 8, 0][1] < energy[1, 8, 4][1] < energy[1, 8, 32][1] == pytest.approx(1, abs=1e-6)


def test_a_plan_tries_what_is_not_fixed_the_smallest_first(tmp_path: Path) -> None:
    directory = teacher(tmp_path / "teacher")
    rows = plan(directory)
    assert [row.int8_bytes for row in rows] == sorted(row.int8_bytes for row in rows)
    # 32 wide, with no narrower size worth a look; four groups would be the model itself.
    assert {(row.groups, row.rank) for row in rows} == {(g, r) for g in (1, 2) for r in (0, 8, 16)}
    fixed = plan(directory, Dial(embedding_size=16, rank=4))
    assert {(row.groups, row.rank) for row in fixed} == {(1, 4), (2, 4), (4, 0)}
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr("torch.linalg.eigvalsh")  # without ranks nothing is decomposed, which takes long
        assert {row.rank for row in plan(directory, Dial(embedding_size=16, rank=0))} == {0}
        assert {row.layer_energy for row in plan(directory, Dial(groups=4, embedding_size=16))} == {1.0}
    with pytest.raises(BadInput, match="--rank 4: is for layers that share"):
        plan(directory, Dial(groups=4, embedding_size=16, rank=4))
    with pytest.raises(BadInput, match="--rank 33"):
        plan(directory, Dial(groups=1, embedding_size=16, rank=33))


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize(("groups", "rank"), [(1, 0), (1, 4), (2, 0)])
def test_the_energy_of_a_plan_is_that_of_the_student_made(groups: int, rank: int, depth: int, tmp_path: Path) -> None:
    """A student of fewer layers stands for some of the teacher's by one of its own, with one residual."""
    original = read(teacher(tmp_path / "teacher"), heads={})
    dial = Dial(groups=groups, embedding_size=16, rank=rank, depth=depth)
    layers = student(original, dial).encoder.layers
    lost = whole = 0.0
    for place, layer in enumerate(original.encoder.layers):
        for a, b in zip(matrices(layer), matrices(layers[place * depth // 4]), strict=True):
            lost += float((a - b).square().sum())
            whole += float(a.square().sum())
    (row,) = plan(tmp_path / "teacher", Dial(groups=groups, embedding_size=16, rank=rank, depth=depth))
    assert row.layer_energy == pytest.approx(1 - lost / whole, abs=1e-5)
    assert row.layer_energy < 1


@pytest.mark.parametrize("rank", [0, 4])
def test_bytes_of_a_plan_are_those_of_an_engine_less_its_tokenizer(rank: int, tmp_path: Path) -> None:
    """But for some rows and bytes that round tensors up; scales are some 2.5% of the file, other vectors 4%."""
    original = read(tiny.model_directory(tmp_path / "teacher", hidden_size=128, intermediate_size=256), heads={})
    made = student(original, Dial(embedding_size=32, rank=rank))
    weights, vectors = tensors_of(made)
    packed = {name: pack(weight, "int8") for name, weight in weights.items()}
    tokenizer = Tokenizer.load(tmp_path / "teacher")
    write_engine(tmp_path / "a.engine", Engine(made.config, {}, False, {}, tokenizer, packed, vectors))
    content = (tmp_path / "a.engine").read_bytes()
    header = int.from_bytes(content[12:16], "little")
    told = sum(length for _, length in json.loads(content[48 : 48 + header])["tokenizer"])
    assert len(content) - 48 - header - told == pytest.approx(sizes(made.config)[1], rel=0.015)
