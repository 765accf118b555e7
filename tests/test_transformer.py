"""The encoder–decoder Transformer: as torch.nn.Transformer, step by step as all at once, and what it shares."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bertram.batch import Batch
from bertram.config import TRANSFORMERS, EncoderConfig, TransformerConfig
from bertram.errors import BadInput
from bertram.formats.transformer_config import read_transformer_config, write_transformer_config
from bertram.inspection import describe
from bertram.models import cross_entropy
from bertram.models.cross_entropy import linear_cross_entropy
from bertram.models.decoding import Decoding
from bertram.models.tensors import Targets, pairs_to_tensors, to_tensors
from bertram.models.transformer import HEAD, Transformer
from bertram.search import Hypothesis, Search
from bertram.training.torch_runner import TorchGenerator
from encoder_decoders import CONFIGS, STACK, as_torch, batches, make


@pytest.fixture(params=CONFIGS.values(), ids=CONFIGS.keys())
def model(request: pytest.FixtureRequest) -> Transformer:
    return make(request.param)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_it_computes_what_torchs_transformer_computes(pre_norm: bool) -> None:
    stack = replace(STACK, normalize_before=pre_norm)
    model = make(TransformerConfig(encoder=stack, decoder=stack))
    peer = as_torch(model)
    source, target = batches()
    with torch.no_grad():
        found = model(pairs_to_tensors(source, target))
        embedded = [
            padded(side.embeddings, batch) for side, batch in ((model.encoder, source), (model.decoder, target))
        ]
        lengths = [torch.tensor(batch.lengths)[:, None] for batch in (source, target)]
        masks = [torch.arange(x.shape[1]) >= length for x, length in zip(embedded, lengths, strict=True)]
        causal = nn.Transformer.generate_square_subsequent_mask(embedded[1].shape[1])
        hidden = peer(
            *embedded,
            tgt_mask=causal,
            src_key_padding_mask=masks[0],
            tgt_key_padding_mask=torch.zeros_like(masks[1], dtype=torch.float32).masked_fill(masks[1], -torch.inf),
            memory_key_padding_mask=masks[0],
        )
    torch.testing.assert_close(found, model.head(hidden[~masks[1]]), rtol=0, atol=1e-5)


def padded(embeddings: nn.Module, batch: Batch) -> Tensor:
    """Embeddings as [B, S, H], zero where there is no token."""
    tensors = to_tensors(batch)
    x = embeddings(tensors.token_ids, tensors.positions, None, torch.float32)
    return nn.utils.rnn.pad_sequence(x.split(batch.lengths.tolist()), batch_first=True)


def test_step_by_step_gives_what_all_at_once_gives(model: Transformer) -> None:
    source, target = batches()
    with torch.inference_mode():
        expected = model(pairs_to_tensors(source, target)).split(target.lengths.tolist())
        decoding = Decoding(model, to_tensors(source))
        beams = torch.zeros(len(source), 2, dtype=torch.long)
        for step in range(int(target.lengths.max())):
            tokens = [target.token_ids[min(start + step, end - 1)] for start, end in zip(*ends(target), strict=True)]
            found = decoding.step(torch.tensor(tokens).view(-1, 1).expand(-1, 1 if step == 0 else 2))
            for row, logits in enumerate(expected):
                if step < len(logits):
                    for hypothesis in found[row]:
                        torch.testing.assert_close(hypothesis, logits[step], rtol=0, atol=2e-5)
            decoding.keep(torch.arange(len(source)), beams)


def ends(batch: Batch) -> tuple[list[int], list[int]]:
    return batch.offsets[:-1].tolist(), batch.offsets[1:].tolist()


def test_hypotheses_go_on_from_the_ones_they_are_told_to(model: Transformer) -> None:
    source, _ = batches(lengths=[(4, 1), (7, 1), (2, 1)])
    paths = torch.tensor([[[0, 5, 9], [0, 6, 8]], [[0, 7, 7], [0, 8, 5]], [[0, 9, 6], [0, 4, 4]]])
    with torch.inference_mode():
        decoding = Decoding(model, to_tensors(source))
        decoding.step(paths[:, :1, 0])
        decoding.keep(torch.arange(3), torch.zeros(3, 2, dtype=torch.long))
        decoding.step(paths[:, :, 1])
        decoding.keep(torch.tensor([0, 2]), torch.tensor([[1, 0], [1, 1]]))  # the second source is done
        found = decoding.step(torch.tensor([[8, 9], [4, 6]]))
        written = [[0, 6, 8], [0, 5, 9], [0, 4, 4], [0, 4, 6]]
        again = model(pairs_to_tensors(source.select([0, 0, 2, 2]), Batch.pack(written)))
    torch.testing.assert_close(found.flatten(0, 1), again[2::3], rtol=0, atol=2e-5)


def test_a_token_sees_neither_what_comes_later_nor_another_text(model: Transformer) -> None:
    source, target = batches()
    with torch.inference_mode():
        before = model(pairs_to_tensors(source, target))
        changed = target.token_ids.copy()
        changed[target.offsets[1:] - 1] = 29  # the last token of every target
        after = model(pairs_to_tensors(source, replace(target, token_ids=changed)))
        alone = torch.cat([model(pairs_to_tensors(source.select([i]), target.select([i]))) for i in range(len(source))])
    last = torch.zeros(len(before), dtype=torch.bool)
    last[target.offsets[1:] - 1] = True
    torch.testing.assert_close(after[~last], before[~last], rtol=0, atol=1e-5)
    assert (after[last] - before[last]).abs().amax(1).min() > 1e-3
    torch.testing.assert_close(alone, before, rtol=0, atol=1e-5)


def test_losses_are_the_mean_over_targets_and_reach_every_parameter(model: Transformer) -> None:
    source, target = batches()
    pairs, values = pairs_to_tensors(source, target), torch.arange(len(target.token_ids)) % 30
    rows = torch.arange(0, len(values), 2)
    model.head.label_smoothing = 0.1
    logits = model(pairs)
    for smoothing in (0.1, 0.0):
        model.train(smoothing > 0)
        expected = F.cross_entropy(logits[rows], values[rows], label_smoothing=smoothing)
        loss = model.losses(pairs, {HEAD: Targets(rows, values[rows])})[HEAD]
        torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    model.train().losses(pairs, {HEAD: Targets(None, values)})[HEAD].backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert "segments" in name or parameter.grad.abs().max() > 0, name


def test_gradient_checkpointing_changes_nothing() -> None:
    """But what is kept: less in the encoder, and less in the decoder; what was dropped is dropped again."""
    stack = replace(STACK, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    model = make(TransformerConfig(encoder=stack, decoder=stack)).train()
    source, target = batches()
    pairs, targets = pairs_to_tensors(source, target), {HEAD: Targets(None, torch.ones(len(target.token_ids)).long())}
    grads, kept = [], []
    for parts in ((), (model.encoder,), (model.encoder, model.decoder)):
        sizes: list[int] = []
        for part in parts:
            part.gradient_checkpointing = True
        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(lambda x, to=sizes: to.append(x.numel()) or x, lambda x: x):
            loss = model.losses(pairs, targets)[HEAD]
        grads.append(torch.autograd.grad(loss, list(model.parameters())))
        kept.append(sum(sizes))
    assert kept[0] > kept[1] > kept[2]
    for others in grads[1:]:
        for a, b in zip(grads[0], others, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-7)


@pytest.mark.parametrize("count", [1, 31, 33, 70])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_the_loss_without_logits_is_that_of_the_logits(
    count: int, smoothing: float, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the target's probability is 0 in float32."""
    monkeypatch.setattr(cross_entropy, "_ELEMENTS", 32 * 50)  # several parts
    torch.manual_seed(count)
    arguments = [(scale * torch.randn(shape)).requires_grad_() for shape in ((count, 8), (50, 8), (50,))]
    targets = torch.randint(0, 50, (count,))
    expected = F.cross_entropy(F.linear(*arguments), targets, label_smoothing=smoothing)
    found = linear_cross_entropy(*arguments, targets, smoothing)
    torch.testing.assert_close(found, expected)
    for a, b in zip(
        torch.autograd.grad(3 * found, arguments), torch.autograd.grad(3 * expected, arguments), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6 * scale)


def test_the_loss_without_logits_in_bfloat16() -> None:
    torch.manual_seed(0)
    arguments = [torch.randn(shape).bfloat16().requires_grad_() for shape in ((70, 8), (50, 8), (50,))]
    exact = [argument.detach().double().requires_grad_() for argument in arguments]
    targets = torch.randint(0, 50, (70,))
    expected = F.cross_entropy(F.linear(*exact), targets, label_smoothing=0.1)
    found = linear_cross_entropy(*arguments, targets, 0.1)
    assert found.item() == pytest.approx(expected.item(), rel=1e-3)
    for a, b in zip(torch.autograd.grad(found, arguments), torch.autograd.grad(expected, exact), strict=True):
        assert (a - b).norm() < 2**-7 * b.norm()  # as bfloat16 rounds


def test_what_is_shared_is_stored_once() -> None:
    model = make(CONFIGS["groups, factorised"])
    assert model.decoder.embeddings.tokens.weight is model.encoder.embeddings.tokens.weight
    assert model.head.decoder.weight is model.encoder.embeddings.tokens.weight
    for layers, firsts in ((model.encoder.layers, [0, 0]), (model.decoder.layers, [0, 0, 2, 2])):
        for layer, first in zip(layers, firsts, strict=True):
            assert layer.attention is layers[first].attention
            assert layer.feed_forward is layers[first].feed_forward
    assert model.decoder.layers[3].cross_attention is model.decoder.layers[2].cross_attention
    stored = {name.partition(".layers.")[::2] for name, _ in model.named_parameters() if ".layers." in name}
    assert {(stack, rest.partition(".")[0]) for stack, rest in stored} == {
        ("encoder", "0"),
        ("decoder", "0"),
        ("decoder", "2"),
    }


@pytest.mark.parametrize(
    ("name", "millions"), [("transformer-tiny", 2.6), ("transformer-base", 63.1), ("transformer-big", 214.3)]
)
def test_presets_have_the_published_sizes(name: str, millions: float) -> None:
    """Vaswani et al. 2017 give 65 and 213 million, of a vocabulary that they call "about 37000"."""
    with torch.device("meta"):
        model = Transformer(TRANSFORMERS[name])
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize("name", CONFIGS)
def test_what_is_told_of_a_model_before_it_is_made(name: str) -> None:
    """Counted by part, and without sharing as a model counts that shares nothing."""
    config = CONFIGS[name]
    found = describe(config)
    assert found["unique_parameters"] == sum(weight.numel() for weight in make(config).parameters())
    stacks = {side: replace(getattr(config, side), shared="none") for side in ("encoder", "decoder")}
    unshared = make(replace(config, **stacks))
    assert found["parameters"] == sum(weight.numel() for weight in unshared.parameters())
    assert found["flops_per_token"] == describe(replace(config, **stacks))["flops_per_token"]


def test_texts_beyond_the_positions_are_refused() -> None:
    model = make(CONFIGS["as published"])
    source, target = batches(lengths=[(3, 65)])
    with pytest.raises(BadInput, match="longer than the model's 64 positions"):
        model(pairs_to_tensors(source, target))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder": replace(STACK, vocab_size=41)}, "cannot be one"),
        ({"decoder": replace(STACK, type_vocab_size=2)}, "a decoder has no segments"),
        ({"eos_token_id": 40}, "must be a token"),
    ],
)
def test_halves_that_do_not_fit_are_refused(changes: dict[str, int | EncoderConfig], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        replace(CONFIGS["as published"], **changes)


def test_a_directory_may_have_an_activation_by_the_name_of_before(tmp_path: Path) -> None:
    config = CONFIGS["as published"]
    write_transformer_config(tmp_path, config)
    file = tmp_path / "config.json"
    file.write_text(file.read_text().replace('"hidden_act": "relu"', '"hidden_act": "gelu_pytorch_tanh"'))
    stacks = {side: replace(getattr(config, side), hidden_act="gelu_new") for side in ("encoder", "decoder")}
    assert read_transformer_config(tmp_path) == replace(config, **stacks)


def test_threads_that_each_search_for_some_sources_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ids that are far apart in probability, so that no rounding decides between them."""
    model = make(CONFIGS["groups, factorised"])
    with torch.no_grad():
        model.head.decoder.weight.mul_(4)
    source, _ = batches()
    number = len(source)
    many = source.select(np.arange(97) % number)
    sizes, search = [], TorchGenerator._search

    def watched(self: TorchGenerator, batch: Batch, settings: Search) -> list[list[Hypothesis]]:
        sizes.append((len(batch), torch.get_num_threads()))
        return search(self, batch, settings)

    monkeypatch.setattr(TorchGenerator, "_search", watched)
    settings = Search(beam_size=3, n_best=2, max_length=8)
    alone = TorchGenerator(model).generate(source, settings)
    torch.set_num_threads(3)
    try:
        found = TorchGenerator(model).generate(many, settings)
        assert sorted(sizes) == [(5, 1), (32, 1), (32, 1), (33, 1)]
        with pytest.raises(BadInput, match="positions"):
            TorchGenerator(model).generate(Batch.pack([[4] * 1000] * 64), settings)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)
    for place, ranked in enumerate(found):
        assert [hypothesis.ids for hypothesis in ranked] == [hypothesis.ids for hypothesis in alone[place % number]]
