"""The encoder: sizes, sharing, packing, dropout, checkpointing."""

import math
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from bertram.batch import Batch
from bertram.config import PRESETS, EncoderConfig
from bertram.errors import BadInput
from bertram.inspection import flops_per_token
from bertram.models import attention as attention_module
from bertram.models import heads as heads_module
from bertram.models import layers as layers_module
from bertram.models import layout as layout_module
from bertram.models import stack as stack_module
from bertram.models.attention import attention
from bertram.models.dropout import dropout
from bertram.models.encoder import Encoder
from bertram.models.heads import Model
from bertram.models.layers import ACTIVATIONS, Layer
from bertram.models.layout import Block, Layout, layout
from bertram.models.tensors import Targets, to_tensors
from tiny import random_batch

SMALL = EncoderConfig(
    vocab_size=50,
    hidden_size=12,
    num_hidden_layers=4,
    num_attention_heads=3,
    intermediate_size=20,
    max_position_embeddings=16,
)
ALBERT = replace(SMALL, embedding_size=7, num_hidden_groups=1, sentence_objective="sop")
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0}


def make_model(config: EncoderConfig, heads: dict[str, int] | None = None) -> Model:
    torch.manual_seed(0)
    model = Model(config, heads)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


# Sizes


@pytest.mark.parametrize(
    ("name", "bare", "pretrained", "published"),
    [
        # bare: with the pooler, as transformers counts BertModel; pretrained: with masked-LM and sentence heads too
        ("bert-tiny", 4_385_920, 4_433_468, "4.4M"),
        ("bert-mini", 11_170_560, 11_267_900, "11.3M"),
        ("bert-small", 28_763_648, 29_058_876, "29.1M"),
        ("bert-medium", 41_373_184, 41_668_412, "41.7M"),
        ("bert-base", 109_482_240, 110_106_428, "110M"),
        ("bert-large", 335_141_888, 336_226_108, "340M"),
        ("albert-base", 11_683_584, 11_813_810, "12M"),
        ("albert-large", 17_683_968, 17_847_474, "18M"),
        ("albert-xlarge", 58_724_864, 59_021_490, "60M"),
        # Lan et al. 2019 say 235M in table 1; the checkpoint they published holds 223M, as here.
        ("albert-xxlarge", 222_595_584, 223_158_450, "235M"),
    ],
)
def test_parameters_number_as_published(name: str, bare: int, pretrained: int, published: str) -> None:
    def count(heads: dict[str, int]) -> int:
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in Model(PRESETS[name], heads).parameters())

    assert count({}) == bare
    assert count({"masked_language_model": 0, "sentence_pair": 2}) == pretrained
    tolerance = 0.06 if name == "albert-xxlarge" else 0.02
    assert pretrained == pytest.approx(float(published[:-1]) * 1e6, rel=tolerance)


# Sharing


@pytest.mark.parametrize("inner", [1, 2])
@pytest.mark.parametrize("groups", [1, 2, 3, 4])
@pytest.mark.parametrize("shared", ["all", "attention", "ffn", "none"])
def test_shared_layers_are_one_storage(shared: Any, groups: int, inner: int) -> None:
    config = replace(ALBERT, shared=shared, num_hidden_groups=groups, inner_group_num=inner)
    model = Model(config)
    places = [(config.group_of(step), place) for step in range(4) for place in range(inner)]

    def assert_equal_where_shared(part: str, is_shared: bool) -> None:
        storages = [getattr(layer, part).output.weight.data_ptr() for layer in model.encoder.layers]
        assert len(storages) == 4 * inner
        assert len(set(storages)) == (groups * inner if is_shared else 4 * inner)
        if is_shared:  # then every place of a group has one storage
            assert len(set(zip(places, storages, strict=True))) == groups * inner

    assert_equal_where_shared("attention", shared in ("all", "attention"))
    assert_equal_where_shared("feed_forward", shared in ("all", "ffn"))


def test_output_weights_are_the_token_embeddings() -> None:
    model = Model(ALBERT, {"masked_language_model": 0})
    assert model.get_parameter("heads.masked_language_model.decoder.weight") is model.encoder.embeddings.tokens.weight


# Packing


def outputs(model: Model, batch: Batch) -> dict[str, Tensor]:
    with torch.inference_mode():
        return model.eval()(to_tensors(batch))


@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 16), min_size=1, max_size=12),
    seed=st.integers(0, 2**32 - 1),
    config=st.sampled_from([SMALL, ALBERT]),
    precision=st.sampled_from([(torch.float32, 1e-5), (torch.float64, 1e-12)]),
)
def test_a_sequence_does_not_see_its_neighbours(
    lengths: list[int], seed: int, config: EncoderConfig, precision: tuple[torch.dtype, float]
) -> None:
    dtype, rounding = precision
    model = make_model(config, {"masked_language_model": 0, "classification": 3}).to(dtype)
    batch, order = random_batch(SMALL, lengths, seed=seed), np.random.default_rng(seed).permutation(len(lengths))
    alone = [outputs(model, batch.select([place])) for place in range(len(lengths))]
    for company, places in ((batch, range(len(lengths))), (batch.select(order), order)):
        together = outputs(model, company)
        for name in together:
            expected = torch.cat([alone[place][name] for place in places])
            torch.testing.assert_close(together[name], expected, rtol=0, atol=rounding)


@pytest.mark.parametrize("dropout_prob", [0.0, 1e-9])
def test_attention_without_preferences_is_the_mean_of_each_sequence(dropout_prob: float) -> None:
    values = torch.tensor([1.0, 2.0, 6.0, 5.0, 10.0, 20.0])
    keys_values = torch.stack([torch.zeros(6), values], 1)  # width 1, one head
    batch = to_tensors(Batch.pack([[0, 0, 0], [0], [0, 0]]))
    queries = torch.zeros(6, 1)
    own = layout(batch.lengths, batch.lengths, 1, queries)
    mixed = attention(queries, keys_values, own, 1, dropout_prob)
    torch.testing.assert_close(mixed[:, 0], torch.tensor([3.0, 3.0, 3.0, 5.0, 15.0, 15.0]))
    of_first = layout(np.ones(3, np.int32), batch.lengths, 1, queries)
    first = attention(queries[:3], keys_values, of_first, 1, dropout_prob)
    torch.testing.assert_close(first[:, 0], torch.tensor([3.0, 5.0, 15.0]))


def test_long_and_short_together_need_no_more_memory_than_apart() -> None:
    """One sequence of 512 tokens among 2,000 of 4: a mask over all pairs of tokens would have 72 million elements."""
    config = replace(SMALL, max_position_embeddings=512, num_hidden_layers=1)
    model = make_model(config).train()
    batch = random_batch(config, [4] * 1000 + [512] + [4] * 1000)
    with LargestTensor() as largest:
        model(to_tensors(batch))["hidden"].sum().backward()
    assert largest.elements <= max(512 * 512 * 3, len(batch.token_ids) // 4 * 16 * 2 * 12)


class LargestTensor(TorchDispatchMode):
    """Watches the operations inside for the largest tensor that any of them makes."""

    elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_more_tokens_than_positions_are_refused() -> None:
    model = make_model(SMALL)
    assert len(outputs(model, random_batch(SMALL, [16, 3]))["hidden"]) == 19
    with pytest.raises(BadInput, match=r"17 tokens .* 16"):
        outputs(model, random_batch(SMALL, [17, 3]))


@pytest.mark.filterwarnings("ignore")  # of what the compiler does inside
def test_layers_are_compiled_once_for_all_and_all_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU, whose attention stands in for itself here: a graph in training, and one in answering."""
    monkeypatch.setattr(layout_module, "_is_read_packed", lambda like, width: True)
    monkeypatch.setattr(
        attention_module, "_ragged", lambda query, key_value, *_: query + key_value[:, : query.shape[1]]
    )
    monkeypatch.setattr(stack_module, "_has_compiler", lambda: True)
    eager = torch.compile(Layer.forward, dynamic=True, backend="eager")
    monkeypatch.setattr(stack_module, "_compiled", lambda: eager)
    for config in (SMALL, ALBERT):
        torch._dynamo.reset()
        graphs = torch._dynamo.utils.counters["stats"]
        graphs.clear()
        model = make_model(replace(config, **NO_DROPOUT)).train()  # a CPU's own draws break graphs
        for lengths in ([3, 5], [16, 2, 9], [7] * 8):
            results = []
            for model.encoder.compiled in (False, True):
                torch.manual_seed(0)
                results.append(model(to_tensors(random_batch(SMALL, lengths)))["hidden"])
            torch.testing.assert_close(*results)
        assert graphs["unique_graphs"] == 1
        outputs(model, random_batch(SMALL, [4, 6]))
        assert graphs["unique_graphs"] == 2


@pytest.mark.parametrize("name", ["bert-tiny", "albert-mini"])
def test_arithmetic_is_what_torch_counts(name: str) -> None:
    """A text of 128 tokens, with gradients on: attention is then products that the counter knows."""
    config = replace(PRESETS[name], vocab_size=50)
    batch = to_tensors(random_batch(config, [128] * 2))
    with FlopCounterMode(display=False) as counter:
        Encoder(config).eval()(batch)
    assert counter.get_total_flops() == 256 * flops_per_token(config, 128)


# Activations


def test_activations_are_the_papers() -> None:
    """GELU by erf (Hendrycks and Gimpel 2016, equation 1) and by tanh (google-research/albert `modeling.py`)."""
    for value in (-3.0, -0.5, 0.0, 0.7, 2.0):
        by_erf = value * 0.5 * (1 + math.erf(value / math.sqrt(2)))
        by_tanh = value * 0.5 * (1 + math.tanh(math.sqrt(2 / math.pi) * (value + 0.044715 * value**3)))
        expected = {"gelu": by_erf, "gelu_new": by_tanh, "relu": max(value, 0.0)}
        expected["silu"] = value / (1 + math.exp(-value))  # Elfwing et al. 2018; "swish" in Marian
        for name, activation in ACTIVATIONS.items():
            assert activation(torch.tensor(value)).item() == pytest.approx(expected[name], abs=1e-6)


# Dropout


@pytest.mark.parametrize("probability", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_has_the_stated_probability_and_keeps_the_mean(probability: float, dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    count = 200_003  # no multiple of four
    x = torch.full((count,), 3.0, dtype=dtype)
    out = dropout(x, probability)
    kept = out != 0
    deviation = math.sqrt(probability * (1 - probability) / count)
    assert out.dtype == dtype
    assert kept.double().mean().item() == pytest.approx(1 - probability, abs=5 * deviation)
    rounding = max(1 / 65536, torch.finfo(dtype).eps)  # of the probability or of the number
    torch.testing.assert_close(out[kept], torch.full_like(out[kept], 3 / (1 - probability)), rtol=rounding, atol=0)
    neighbours = kept[:-1].double() * kept[1:].double()
    assert neighbours.mean().item() == pytest.approx((1 - probability) ** 2, abs=8 * deviation)


def test_dropout_of_nothing_is_the_input() -> None:
    x = torch.ones(5)
    assert dropout(x, 0.0) is x


def test_dropout_passes_gradients_where_it_passed_values() -> None:
    x = torch.ones(1000, requires_grad=True)
    out = dropout(x, 0.3)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())


def test_dropout_stands_where_the_papers_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the embeddings, on attention's probabilities, before each residual sum, and before a classifier."""
    sites = []

    def record(x: Tensor, probability: float) -> Tensor:
        if probability:
            sites.append((tuple(x.shape), probability))
        return x

    def record_weights(shape: torch.Size, probability: float, device: torch.device) -> Tensor:
        sites.append((tuple(shape), probability))
        return torch.ones(shape, dtype=torch.bool)

    monkeypatch.setattr(attention_module, "keep_mask", record_weights)
    for module in (layers_module, heads_module):
        monkeypatch.setattr(module, "dropout", record)
    config = replace(ALBERT, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.2, classifier_dropout=0.3)
    heads = {"masked_language_model": 0, "sentence_pair": 2, "classification": 3}
    model, batch = make_model(config, heads).train(), to_tensors(random_batch(SMALL, [5, 5]))
    model(batch)
    layer = [((2 * 3, 16, 16), 0.2), ((32, 12), 0.1), ((32, 12), 0.1)]
    assert sites == [((10, 7), 0.1), *layer * 4, ((2, 12), 0.3)]

    sites.clear()
    model.eval()(batch)
    assert sites == []


@pytest.mark.parametrize("config", [SMALL, replace(ALBERT, attention_probs_dropout_prob=0.1)])
def test_the_same_seed_gives_the_same_result(config: EncoderConfig) -> None:
    def step(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        model = Model(config, {"classification": 3}).train()
        logits = model(to_tensors(random_batch(SMALL, [3, 9, 9, 1])))["classification"]
        loss = model.heads["classification"].loss(logits, torch.tensor([0, 1, 2, 0]))
        return [loss, *torch.autograd.grad(loss, list(model.parameters()))]

    first, again, other = step(1), step(1), step(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


# Gradient checkpointing


@pytest.mark.parametrize("config", [SMALL, ALBERT])
def test_checkpointing_gives_the_same_gradients(config: EncoderConfig) -> None:
    model = make_model(config, {"masked_language_model": 0, "classification": 3}).train()

    def gradients(checkpointing: bool) -> list[Tensor]:
        model.encoder.gradient_checkpointing = checkpointing
        torch.manual_seed(5)
        out = model(to_tensors(random_batch(SMALL, [3, 9, 9, 1])))
        return list(torch.autograd.grad(out["masked_language_model"].sum() + out["classification"].sum(), parameters))

    parameters = list(model.parameters())
    for plain, checkpointed in zip(gradients(False), gradients(True), strict=True):
        assert torch.equal(plain, checkpointed)


@pytest.mark.parametrize("config", [SMALL, ALBERT])
def test_checkpointing_keeps_fewer_activations(config: EncoderConfig) -> None:
    def kept(checkpointing: bool) -> int:
        sizes = []
        model = make_model(config).train()
        model.encoder.gradient_checkpointing = checkpointing
        with torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()) or x, lambda x: x):
            model(to_tensors(random_batch(SMALL, [16] * 4)))
        return sum(sizes)

    assert kept(True) < 0.5 * kept(False)


# Losses


def test_losses_are_what_they_are_called() -> None:
    model = make_model(SMALL, {"masked_language_model": 0, "classification": 2, "regression": 1})
    losses = {name: head.loss for name, head in model.heads.items()}
    even = torch.zeros(3, 2)
    assert losses["classification"](even, torch.tensor([0, 1, 1])).item() == pytest.approx(math.log(2))
    assert losses["masked_language_model"](even, torch.tensor([0, -100, 1])).item() == pytest.approx(math.log(2))
    assert losses["regression"](torch.tensor([[1.0], [3.0]]), torch.tensor([0.0, 0.0])).item() == pytest.approx(5)


def test_the_masked_language_model_computes_masked_positions_alone() -> None:
    model, seen = make_model(SMALL, {"masked_language_model": 0}), []
    head = model.heads["masked_language_model"]
    head.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    rows = torch.tensor([2, 5, 11])
    targets = Targets(rows, torch.tensor([3, 4, 5]))
    model.losses(to_tensors(random_batch(SMALL, [6, 8])), {"masked_language_model": targets})
    assert seen == [3]


def test_gradients_reach_every_parameter() -> None:
    config = replace(ALBERT, **NO_DROPOUT)
    model = make_model(config, {"masked_language_model": 0, "sentence_pair": 2, "classification": 3}).train()
    out = model(to_tensors(random_batch(SMALL, [3, 9, 9, 1])))
    sum(out[name].square().sum() for name in model.heads).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("dropout_prob", [0.0, 1e-9, 0.5])
def test_gradients_are_those_of_finite_differences(dropout_prob: float) -> None:
    """Attention has its gradient written by hand, so it is checked against the definition of one, in some direction."""
    lengths = np.array([2] * 18 + [33], np.int32)
    generator = torch.Generator().manual_seed(0)
    queries, keys_values = (
        torch.randn(69, width, dtype=torch.float64, generator=generator, requires_grad=True) for width in (6, 12)
    )

    own = layout(lengths, lengths, 2, queries)
    assert len(own) > 1
    assert any(block.mask is not None for block in cast(list[Block], own))

    def attend(queries: Tensor, keys_values: Tensor, where: Layout) -> Tensor:
        torch.manual_seed(1)  # the same weights are dropped every time
        return attention(queries, keys_values, where, 2, dropout_prob)

    first = queries.detach()[:19].requires_grad_()
    for inputs in (
        (queries, keys_values, own),
        (queries, keys_values, layout(lengths, lengths, 2, queries, causal=True)),
        (first, keys_values, layout(np.ones_like(lengths), lengths, 2, queries)),
    ):
        assert torch.autograd.gradcheck(attend, inputs, fast_mode=True)


def test_first_tokens_alone_are_as_among_all() -> None:
    """The last layer's short cut changes neither what a pooled head says nor any gradient."""
    for config in (SMALL, replace(ALBERT, inner_group_num=2)):
        model = make_model(replace(config, **NO_DROPOUT), {"classification": 3}).double().train()
        batch, parameters = to_tensors(random_batch(SMALL, [3, 9, 9, 1])), list(model.encoder.parameters())
        short = model.encoder(batch, first_only=True)
        whole = model.encoder(batch)[batch.first]
        torch.testing.assert_close(short, whole, rtol=0, atol=1e-12)
        for a, b in zip(*(torch.autograd.grad(x.square().sum(), parameters) for x in (short, whole)), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
