"""The update rules: numbers to check by hand, torch's AdamW, and LAMB as its paper writes it down."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bertram.batch import Batch
from bertram.config import bert
from bertram.models.heads import Model
from bertram.models.layers import Embeddings, LayerNorm
from bertram.models.tensors import to_tensors
from bertram.training import optimizers
from bertram.training.optimizers import Optimizer
from bertram.training.recipe import Rule

FREE = 1e9
"""A norm that no gradient here is clipped to."""


class Words(nn.Module):
    """A table of 12 words 4 wide, a norm and a product: every kind of parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm, self.product = nn.Embedding(12, 4), nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, words: Tensor) -> Tensor:
        hidden: Tensor = self.norm(self.table(words))
        return self.product(hidden.to(self.product.weight.dtype)).float()


def words(seed: int = 0) -> Words:
    torch.manual_seed(seed)
    return Words()


def backward(model: nn.Module, seed: int) -> None:
    """Gradients of some loss over 5 random words, in which some rows of the table have none."""
    random = np.random.default_rng(seed)
    rows, goal = torch.from_numpy(random.integers(0, 12, 5)), torch.from_numpy(random.normal(size=(5, 3)))
    ((model(rows) - goal) ** 2).sum().backward()


def row(values: list[float]) -> nn.Linear:
    """A matrix of one row, and a bias of 10."""
    layer = nn.Linear(len(values), 1)
    layer.weight.data, layer.bias.data = torch.tensor([values]), torch.tensor([10.0])
    return layer


@pytest.fixture(params=["adamw", "lamb"])
def rule(request: Any) -> Rule:
    found: Rule = request.param
    return found


# Numbers to check by hand. In a first step the corrected moments are the gradient and its square, m / √v is its sign.


def test_lamb_by_hand() -> None:
    layer = row([1.0, 2.0, 2.0, 4.0])  # of norm √(1 + 4 + 4 + 16) = 5
    optimizer = Optimizer(layer, rule="lamb", weight_decay=0.0, eps=0.0)
    layer.weight.grad = torch.tensor([[3.0, 0.1, -7.0, -0.2]])  # r = (1, 1, -1, -1) of norm 2
    optimizer.step(0.1, FREE)
    # A step of 0.1 · 5/2 = 0.25 times r
    torch.testing.assert_close(layer.weight, torch.tensor([[0.75, 1.75, 2.25, 4.25]]))


def test_lamb_with_weight_decay_by_hand() -> None:
    layer = row([6.0, 8.0])  # of norm 10
    optimizer = Optimizer(layer, rule="lamb", weight_decay=0.5, eps=0.0)
    layer.weight.grad = torch.tensor([[0.3, -0.3]])  # r = (1 + 0.5 · 6, -1 + 0.5 · 8) = (4, 3) of norm 5
    optimizer.step(0.1, FREE)
    # A step of 0.1 · 10/5 = 0.2 times r
    torch.testing.assert_close(layer.weight, torch.tensor([[5.2, 7.4]]))


def test_adamw_by_hand() -> None:
    layer = row([6.0, 8.0])
    optimizer = Optimizer(layer, weight_decay=0.5, eps=0.0)
    layer.weight.grad = torch.tensor([[0.3, -0.3]])
    optimizer.step(0.1, FREE)
    # A step of 0.1 times the same r
    torch.testing.assert_close(layer.weight, torch.tensor([[5.6, 7.7]]))


def test_biases_and_norms_take_adams_step(rule: Rule) -> None:
    """Neither decay nor ratio: a step of 0.1 times the sign, whatever the parameter's norm."""
    model = nn.Sequential(row([1.0]), nn.LayerNorm(2))
    optimizer = Optimizer(model, rule=rule, weight_decay=0.5, eps=0.0)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    optimizer.step(0.1, FREE)
    layer, norm = model
    torch.testing.assert_close(layer.bias, torch.tensor([9.9]))
    torch.testing.assert_close(norm.weight, torch.tensor([0.9, 0.9]))
    torch.testing.assert_close(norm.bias, torch.tensor([-0.1, -0.1]))


def test_lamb_without_a_norm_has_a_ratio_of_1() -> None:
    model = nn.Sequential(row([0.0, 0.0]), row([3.0, 4.0]))
    optimizer = Optimizer(model, rule="lamb", weight_decay=0.0)
    model[0].weight.grad, model[1].weight.grad = torch.tensor([[2.0, -2.0]]), torch.zeros(1, 2)
    optimizer.step(0.1, FREE)
    torch.testing.assert_close(model[0].weight, torch.tensor([[-0.1, 0.1]]))
    assert model[1].weight.tolist() == [[3.0, 4.0]]


def test_a_matrix_that_layers_share_is_one(rule: Rule) -> None:
    shared, alone = (nn.Linear(4, 4) for _ in range(2))
    alone.load_state_dict(shared.state_dict())
    both, one = Optimizer(nn.Sequential(shared, shared), rule=rule), Optimizer(alone, rule=rule)
    assert len(both.weights()) == 2
    for layer in (shared, alone):
        layer.weight.grad = torch.arange(16.0).view(4, 4)
    both.step(0.1, FREE)
    one.step(0.1, FREE)
    assert torch.equal(shared.weight, alone.weight)


def test_eps_is_the_rules_own() -> None:
    assert [Optimizer(row([1.0]), rule=rule).eps for rule in ("adamw", "lamb")] == [1e-8, 1e-6]
    assert Optimizer(row([1.0]), rule="lamb", eps=1e-3).eps == 1e-3


# Many steps


def test_adamw_is_torchs() -> None:
    """In float32 our step equals torch's AdamW with clipping and the papers' two groups."""
    torch.manual_seed(0)
    config = replace(bert(2, 64), vocab_size=40, num_attention_heads=2, intermediate_size=96)
    ours, theirs = (Model(config, {"classification": 2}).eval() for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    # eps above rounding noise: the gradient of a key's bias is nothing else, since softmax ignores a shift
    optimizer = Optimizer(ours, torch.float32, weight_decay=0.1, eps=1e-4)
    groups = [
        {"params": [p for p in theirs.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in theirs.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=1e-2, eps=1e-4)
    random = np.random.default_rng(0)
    batch = to_tensors(Batch.pack([random.integers(0, 40, length).tolist() for length in range(2, 14)]))
    targets = torch.from_numpy(random.integers(0, 2, 12))
    for _ in range(5):
        for model in (ours, theirs):
            model.heads["classification"].loss(model(batch)["classification"], targets).backward()
        expected = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        assert optimizer.step(1e-2, 0.5).item() == pytest.approx(expected.item(), rel=1e-5)
        reference.step()
        reference.zero_grad()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-6, msg=name)


Arrays = dict[str, NDArray[np.float64]]


def lamb(x: Arrays, gradients: list[Arrays], rate: float, decay: float, eps: float) -> Arrays:
    """You et al. 2020, Algorithm 2, line by line; x are the layers' weights."""
    beta1, beta2 = 0.9, 0.999
    x, m, v = dict(x), {i: np.zeros_like(layer) for i, layer in x.items()}, {i: 0 * layer for i, layer in x.items()}
    for t, g in enumerate(gradients, 1):
        for i in x:
            m[i] = beta1 * m[i] + (1 - beta1) * g[i]
            v[i] = beta2 * v[i] + (1 - beta2) * g[i] ** 2
            m_hat, v_hat = m[i] / (1 - beta1**t), v[i] / (1 - beta2**t)
            r = m_hat / (np.sqrt(v_hat) + eps)
            if x[i].ndim == 1:
                x[i] = x[i] - rate * r
                continue
            update = r + decay * x[i]
            x[i] = x[i] - rate * np.linalg.norm(x[i]) / np.linalg.norm(update) * update
    return x


@pytest.mark.parametrize("run", [2**18, 7])
def test_lamb_is_the_papers(run: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the norms are of matrices that are updated in many pieces."""
    monkeypatch.setattr(optimizers, "_RUN", run)
    model = words()
    optimizer = Optimizer(model, rule="lamb", weight_decay=0.1)
    random = np.random.default_rng(0)
    start = {name: p.detach().double().numpy().copy() for name, p in model.named_parameters()}
    gradients = [{name: random.normal(size=value.shape) for name, value in start.items()} for _ in range(30)]
    for step in gradients:
        for name, parameter in model.named_parameters():
            parameter.grad = torch.from_numpy(step[name]).float()
        optimizer.step(0.02, FREE)
    expected = lamb(start, gradients, 0.02, 0.1, 1e-6)
    for name, parameter in model.named_parameters():
        assert np.abs(expected[name] - start[name]).max() > 0.05
        np.testing.assert_allclose(parameter.detach().numpy(), expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_clipping_is_of_all_gradients_together() -> None:
    """Adam forgets the scale of a first gradient, but not of a second one beside it."""
    clipped, scaled = words(), words()
    mine, other = Optimizer(clipped, rule="lamb"), Optimizer(scaled, rule="lamb")
    for seed in range(3):
        for model in (clipped, scaled):
            backward(model, seed)
        squares = [
            p.grad.coalesce().values().norm() ** 2 if p.grad.is_sparse else p.grad.norm() ** 2
            for p in scaled.parameters()
            if p.grad is not None
        ]
        norm = torch.stack(squares).sum().sqrt()
        for parameter in scaled.parameters():
            assert parameter.grad is not None
            parameter.grad = parameter.grad / norm * (seed + 1)
        torch.testing.assert_close(mine.step(0.1, seed + 1), norm)
        other.step(0.1, FREE)
    for mine_parameter, other_parameter in zip(clipped.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(mine_parameter, other_parameter)


def test_rows_of_a_table_are_as_good_as_the_table(rule: Rule) -> None:
    """A gradient that lists some rows, one of them twice, does what the whole table's does; others have momentum."""
    sparse, dense = words(), words()
    listing, whole = Optimizer(sparse, rule=rule), Optimizer(dense, rule=rule)
    dense.table.sparse = False
    for seed in range(4):
        for model in (sparse, dense):
            backward(model, seed)
        assert sparse.table.weight.grad is not None
        assert sparse.table.weight.grad.is_sparse
        for optimizer in (listing, whole):
            optimizer.step(0.05, 1.0)
    assert not torch.equal(sparse.table.weight, words().table.weight)
    for ours, theirs in zip(sparse.parameters(), dense.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_gradients_go_on_growing_within_a_pass() -> None:
    """torch's own sums of thousands of ones are 256 or 512 there."""
    tokens = torch.arange(4096) % 2
    x, found = torch.randn(len(tokens), 4, generator=torch.Generator().manual_seed(0)).bfloat16(), []
    for inner in (x, x.float()):
        norm, inner = LayerNorm(4), inner.requires_grad_()
        found.append(torch.autograd.grad(norm(inner).float().exp().sum(), [inner, *norm.parameters()]))
    for near, exact in zip(*found, strict=True):
        assert (near.float() - exact).norm() < 0.01 * exact.norm()
    embeddings = Embeddings(replace(bert(2, 64), hidden_dropout_prob=0.0, normalize_embedding=False))
    embeddings.tokens.to(torch.bfloat16)
    embeddings(tokens, tokens, tokens, torch.bfloat16).float().sum().backward()
    assert embeddings.tokens.weight.grad is not None
    assert (embeddings.tokens.weight.grad[:2] == 2048).all()
    assert not embeddings.tokens.weight.grad[2:].any()


def test_gathered_gradients_go_on_growing() -> None:
    """In bfloat16 256 + 1 is 256."""
    layer, ones = row([1.0]), torch.ones(1, 1, dtype=torch.bfloat16)
    optimizer = Optimizer(layer, torch.bfloat16)
    for passes in (1024, 1):
        for number in range(1, passes + 1):
            layer(ones).sum().backward()
            if number % 16 == 0:
                optimizer.gather()
        assert float(optimizer.step(0.1, FREE)) == pytest.approx(passes * 2**0.5)


def test_steps_too_small_for_bfloat16_add_up(rule: Rule) -> None:
    """Weights of 1 fall by 0.0001 a step, where bfloat16 knows nothing between 1 and 0.996."""
    layer = row([1.0] * 4)
    optimizer = Optimizer(layer, torch.bfloat16, rule=rule, weight_decay=0.0)
    for step in range(1, 41):
        layer.weight.grad = torch.ones_like(layer.weight)
        optimizer.step(1e-4, FREE)
        master = optimizer.weights()["weight"]
        assert layer.weight.dtype == torch.bfloat16
        assert torch.equal(layer.weight, master.bfloat16())
        torch.testing.assert_close(master, torch.full((1, 4), 1 - step * 1e-4), rtol=1e-4, atol=0)
        assert (layer.weight[0, 0].item() == 1.0) == (step < 20)
    optimizer.release()
    assert torch.equal(layer.weight, master)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_saved_and_loaded_goes_on_bit_by_bit(rule: Rule, precision: torch.dtype) -> None:
    def go(model: nn.Module, optimizer: Optimizer, seeds: range) -> None:
        for seed in seeds:
            backward(model, seed)
            optimizer.step(0.05, 1.0)

    model, other = words(), words(1)
    first, second = (Optimizer(m, precision, rule=rule) for m in (model, other))
    go(model, first, range(3))
    saved, steps = deepcopy(first.state()), first.steps
    go(model, first, range(3, 6))
    go(other, second, range(7, 9))
    second.load(saved, steps)
    go(other, second, range(3, 6))
    assert first.steps == second.steps == 6
    assert first.state().keys() == second.state().keys()
    for name, tensor in first.state().items():
        assert torch.equal(tensor, second.state()[name]), name
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_forgotten_steps_leave_nothing(rule: Rule) -> None:
    tried, fresh = words(), words()
    first, second = Optimizer(tried, rule=rule), Optimizer(fresh, rule=rule)
    backward(tried, 9)
    first.step(0.0, 1.0)
    first.forget()
    for model, optimizer in ((tried, first), (fresh, second)):
        backward(model, 0)
        optimizer.step(0.05, 1.0)
    for mine, theirs in zip(tried.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_without_any_gradient_nothing_moves_but_the_count(rule: Rule) -> None:
    model, others = words(), [words(), words()]
    alone = Optimizer(model, rule=rule)
    shared = [Optimizer(m, rule=rule, reduce=add) for m, add in zip(others, adder(2), strict=True)]
    norms = [alone.step(0.1, 1.0).item()]
    threads = [Thread(target=lambda one=one: norms.append(one.step(0.1, 1.0).item())) for one in shared]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert norms == [0.0] * 3
    for optimizer, moved in zip([alone, *shared], [model, *others], strict=True):
        assert optimizer.steps == 1
        for parameter, before in zip(moved.parameters(), words().parameters(), strict=True):
            assert torch.equal(parameter, before)
    backward(model, 0)
    assert alone.step(0.1, 1.0) > 0
    assert not torch.equal(model.product.weight, words().product.weight)


# Several processes, here threads that wait for one another


def adder(size: int) -> list[Callable[[Tensor], None]]:
    """What sums a vector in place over `size` threads; one function each."""
    vectors: dict[int, Tensor] = {}
    barrier = Barrier(size, timeout=30)

    def add(rank: int, vector: Tensor) -> None:
        vectors[rank] = vector
        barrier.wait()
        total = torch.stack([vectors[other] for other in range(size)]).sum(0)
        barrier.wait()
        vector.copy_(total)

    return [lambda vector, rank=rank: add(rank, vector) for rank in range(size)]  # type: ignore[misc]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_processes_make_the_step_of_their_summed_gradients(rule: Rule, precision: torch.dtype) -> None:
    """Tables list other rows in each, one process has no gradient at all, and one parameter has none in any."""
    models = [words() for _ in range(4)]
    for model in models:
        model.product.weight.requires_grad_(False)
    one, many = models[0], models[1:]
    alone = Optimizer(one, precision, rule=rule)
    shared = [Optimizer(m, precision, rule=rule, reduce=add) for m, add in zip(many, adder(3), strict=True)]
    found = [[0.0] * 5 for _ in many]

    def work(rank: int) -> None:
        for step in range(5):
            if rank < 2:
                backward(many[rank], 2 * step + rank)
            found[rank][step] = shared[rank].step(0.05, 1.0).item()

    threads = [Thread(target=work, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for step in range(5):
        backward(one, 2 * step)
        backward(one, 2 * step + 1)
        # bfloat16 rounds the sum of two gradients here, and not in the processes
        assert found[0][step] == pytest.approx(
            alone.step(0.05, 1.0).item(), rel=1e-5 if precision.itemsize == 4 else 0.02
        )
    assert found[0] == found[1] == found[2]
    for name, tensor in shared[0].state().items():
        for other in shared[1:]:
            assert torch.equal(tensor, other.state()[name])
        if precision == torch.float32:
            torch.testing.assert_close(tensor, alone.state()[name], msg=name)
    assert torch.equal(shared[2].weights()["product.weight"], words().product.weight)
    assert not torch.equal(many[2].table.weight, words().table.weight)
