"""The computations behind docs/article.md, on inputs that are tiny."""

import math
import runpy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bertram.batch import Batch
from bertram.config import EncoderConfig
from bertram.models.encoder import Encoder
from bertram.models.layers import Attention
from tiny import SIZES, model_directory, rows

article = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "article.py"))


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_the_literal_formula_by_hand() -> None:
    v = torch.tensor([[3.0, 4.0], [0.0, 2.0]])  # the cosine between them is 4/5
    expected = torch.tensor([[1.0, 0.8], [0.8, 1.0]]) / math.sqrt(2)
    torch.testing.assert_close(article["literal_weights"](v), expected)


def test_the_literal_output_grows_with_the_text_and_the_softmax_keeps_it() -> None:
    v = 1 + normal(256, 16)  # embeddings have a direction in common
    norms = {"literal": [], "softmax": []}
    for n in (16, 64, 256):
        told = article["literal_weights"](v[:n])
        normalised = torch.softmax(told, -1)
        torch.testing.assert_close(normalised.sum(-1), torch.ones(n))
        norms["literal"].append(float((told @ v[:n]).norm(dim=-1).mean()))
        norms["softmax"].append(float((normalised @ v[:n]).norm(dim=-1).mean()))
    short, middle, long = norms["literal"]
    assert middle > 3 * short
    assert long > 3 * middle
    assert max(norms["softmax"]) < 1.5 * min(norms["softmax"])


def test_entropies_by_hand() -> None:
    weights = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
    torch.testing.assert_close(article["entropies"](weights), torch.tensor([0.0, math.log(2), math.log(4)]))


def test_scaling_keeps_the_entropy_of_wide_vectors() -> None:
    entropy = {}
    for width in (4, 256):
        q, k = normal(2, 8, 32, width)
        for scaled in (True, False):
            weights = article["attention_weights"](q, k, scaled=scaled)
            assert weights.shape == (8, 32, 32)
            torch.testing.assert_close(weights.sum(-1), torch.ones(8, 32))
            entropy[width, scaled] = float(article["entropies"](weights).mean())
    assert entropy[256, True] == pytest.approx(entropy[4, True], rel=0.1)
    assert entropy[256, False] < entropy[4, False] / 3


@pytest.mark.parametrize("groups", [None, 1])
def test_queries_and_keys_are_those_that_attention_uses(groups: int | None) -> None:
    """The weights made of them mix the values to what attention itself passes on."""
    encoder = Encoder(EncoderConfig(vocab_size=20, num_hidden_groups=groups, initializer_range=0.2, **SIZES)).eval()
    values, mixed = [], []
    for module in encoder.modules():
        if isinstance(module, Attention):
            module.key_value.register_forward_hook(lambda _module, _inputs, out: values.append(out.chunk(2, -1)[1]))
            module.output.register_forward_hook(lambda _module, inputs, _out: mixed.append(inputs[0]))
    with torch.inference_mode():
        found = article["queries_and_keys"](encoder, Batch.pack([[3, 1, 4, 1, 5]]))
    assert len(found) == len(mixed) == 2
    for (q, k), value, expected in zip(found, values, mixed, strict=True):
        v = value[:5].view(5, 2, 16).transpose(0, 1)
        ours = (article["attention_weights"](q, k) @ v).transpose(0, 1).reshape(5, 32)
        torch.testing.assert_close(ours, expected[:5], rtol=0, atol=1e-6)


def test_what_the_commands_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = model_directory(tmp_path / "model")
    settings = {"SENTENCES": [text for text, _ in rows(8)], "LENGTHS": [4, 8], "WIDTHS": [4], "ROUNDS": 3}
    for name, value in settings.items():
        monkeypatch.setitem(article["entropies"].__globals__, name, value)

    article["literal"](directory)
    lines = capsys.readouterr().out.splitlines()
    (short, short_sum, short_norm, *short_softmax), (long, long_sum, long_norm, *long_softmax) = (
        map(float, line.split()) for line in lines[2:4]
    )
    assert (short, long, short_softmax[0], long_softmax[0]) == (4, 8, 1, 1)
    assert long_sum > short_sum
    assert long_norm > short_norm

    article["scaling"](directory)
    assert "8 sentences" in capsys.readouterr().out

    article["forward"]("bert-tiny", "albert-tiny")
    assert "albert-tiny takes" in capsys.readouterr().out

    article["disk"]("bert-tiny", "albert-tiny")
    bert, albert = (int(line.split()[1].replace(",", "")) for line in capsys.readouterr().out.splitlines())
    assert bert > albert > 0
