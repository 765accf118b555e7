"""The class that docs/article.md repairs runs as it stands there, and computes what torch.nn.Transformer computes."""

import math
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from encoder_decoders import as_torch
from tiny import unsettle

ARTICLE = Path(__file__).parents[1] / "docs" / "article.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
WIDTH, VOCABULARY, POSITIONS = 16, 30, 20
SIZES = {"d_model": WIDTH, "nhead": 2, "num_encoder_layers": 2, "num_decoder_layers": 3, "dim_feedforward": 24}
SOURCES, TARGETS = [7, 1, 13, 4], [3, 12, 1, 8]


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    (block,) = [code for code in BLOCK.findall(ARTICLE.read_text(encoding="utf-8")) if "class Transformer" in code]
    path = tmp_path_factory.mktemp("article") / "transformer.py"
    path.write_text(block, encoding="utf-8")
    return runpy.run_path(str(path))


def make(namespace: dict[str, Any], emb_dim: int) -> Any:
    torch.manual_seed(0)
    model = namespace["Transformer"](
        **SIZES, num_positions=POSITIONS, dropout=0.1, emb_dim=emb_dim, vocab_size=VOCABULARY
    ).eval()
    unsettle(model)
    return model


def texts(lengths: list[int], seed: int) -> tuple[Tensor, Tensor]:
    """Ids, padded with some id or other, and where padding stands."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    return ids, torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]


def embedded(part: nn.Module, ids: Tensor) -> Tensor:
    """√E times the ids' embeddings, and sines and cosines of their places: [B, S] → [B, S, E], then to the width."""
    table = part.tokens.weight
    emb_dim = table.shape[1]
    angles = torch.arange(ids.shape[1])[:, None] / 10000 ** (torch.arange(0, emb_dim, 2) / emb_dim)
    x = math.sqrt(emb_dim) * table[ids] + torch.cat([angles.sin(), angles.cos()], 1)
    return x if part.projection is None else part.projection(x)


def expected(model: nn.Module, src: Tensor, tgt: Tensor, tgt_mask: Tensor, *padding: Tensor) -> Tensor:
    """Logits [B, T, vocabulary] by torch's layers."""
    packed = model.packed
    hidden = as_torch(packed)(
        embedded(packed.encoder.embeddings, src),
        embedded(packed.decoder.embeddings, tgt),
        tgt_mask=tgt_mask,
        src_key_padding_mask=padding[0],
        tgt_key_padding_mask=padding[1],
        memory_key_padding_mask=padding[0],
    )
    projection = packed.head.projection
    hidden = hidden if projection is None else projection(hidden)
    return hidden @ packed.encoder.embeddings.tokens.weight.T + packed.head.decoder.bias


@pytest.mark.parametrize("emb_dim", [WIDTH, 6, 40])
def test_it_computes_what_torchs_transformer_computes(namespace: dict[str, Any], emb_dim: int) -> None:
    model = make(namespace, emb_dim)
    assert model.packed.encoder.embeddings.tokens.weight.shape == (VOCABULARY, emb_dim)
    (src, src_padding), (tgt, tgt_padding) = texts(SOURCES, 1), texts(TARGETS, 2)
    causal = torch.ones(max(TARGETS), max(TARGETS), dtype=torch.bool).triu(1)
    with torch.no_grad():
        found = model(src, tgt, causal, None, src_padding, tgt_padding)
        wanted = expected(model, src, tgt, causal, src_padding, tgt_padding)
        additive = torch.zeros(causal.shape).masked_fill(causal, -math.inf)
        again = model(src, tgt, additive, None, src_padding, tgt_padding)
    assert found.shape == (len(TARGETS), max(TARGETS), VOCABULARY)
    torch.testing.assert_close(found[~tgt_padding], wanted[~tgt_padding], rtol=0, atol=1e-5)
    assert not found[tgt_padding].any()
    assert torch.equal(again, found)


def test_what_stands_in_the_padding_changes_nothing(namespace: dict[str, Any]) -> None:
    model = make(namespace, WIDTH)
    (src, src_padding), (tgt, tgt_padding) = texts(SOURCES, 1), texts(TARGETS, 2)
    causal = nn.Transformer.generate_square_subsequent_mask(max(TARGETS))
    with torch.no_grad():
        found = model(src, tgt, causal, None, src_padding, tgt_padding)
        src, tgt = src.where(~src_padding, 0), tgt.where(~tgt_padding, 0)
        assert torch.equal(model(src, tgt, causal, None, src_padding, tgt_padding), found)


def test_it_learns_by_the_padded_logits(namespace: dict[str, Any]) -> None:
    model = make(namespace, 6)
    (src, src_padding), (tgt, tgt_padding) = texts(SOURCES, 1), texts(TARGETS, 2)
    causal = nn.Transformer.generate_square_subsequent_mask(max(TARGETS))
    parameters = list(model.parameters())
    grads = []
    for logits in (
        model(src, tgt, causal, None, src_padding, tgt_padding),
        expected(model, src, tgt, causal.bool(), src_padding, tgt_padding),
    ):
        loss = nn.functional.cross_entropy(logits[~tgt_padding], tgt[~tgt_padding])
        grads.append(torch.autograd.grad(loss, parameters, allow_unused=True))
    for parameter, (ours, theirs) in zip(parameters, zip(*grads, strict=True), strict=True):
        assert ours is not None, parameter.shape
        if theirs is not None:  # torch's layers hold copies
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mask", [torch.zeros(12, 12), torch.ones(12, 12, dtype=torch.bool).triu(2)])
def test_masks_that_it_cannot_have_are_refused(namespace: dict[str, Any], mask: Tensor) -> None:
    model = make(namespace, WIDTH)
    (src, src_padding), (tgt, tgt_padding) = texts(SOURCES, 1), texts(TARGETS, 2)
    with pytest.raises(ValueError, match="tgt_mask must hide what comes later"):
        model(src, tgt, mask, None, src_padding, tgt_padding)
    causal = nn.Transformer.generate_square_subsequent_mask(12)
    with pytest.raises(ValueError, match="memory_mask be None"):
        model(src, tgt, causal, torch.zeros(12, 13), src_padding, tgt_padding)
