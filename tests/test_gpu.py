"""What a GPU computes is what a CPU computes: `pytest tests/test_gpu.py`, by itself, where there is one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bertram.batch import Batch
from bertram.config import PRESETS, TRANSFORMERS, EncoderConfig, TransformerConfig
from bertram.files import read_json
from bertram.models.attention import attention
from bertram.models.heads import Model
from bertram.models.layout import Ragged, layout
from bertram.models.tensors import pairs_to_tensors, to_tensors
from bertram.models.transformer import Transformer
from bertram.training.metrics_file import read_metrics
from bertram.training.optimizers import Optimizer
from tiny import model_directory, rows, run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU, or not asked for by name")

LENGTHS = np.array([1, 7, 7, 16, 40], np.int32)
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "activation_dropout": 0.0}
SMALL = {"vocab_size": 50, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48}
BERT = replace(PRESETS["bert-tiny"], **SMALL, **NO_DROPOUT)
ALBERT = replace(PRESETS["albert-tiny"], **SMALL, **NO_DROPOUT, embedding_size=16)
STACK = replace(TRANSFORMERS["transformer-tiny"].encoder, **SMALL, **NO_DROPOUT)


def random_batch(lengths: np.ndarray, seed: int = 0) -> Batch:
    random = np.random.default_rng(seed)
    return Batch.pack([random.integers(50, size=length).tolist() for length in lengths])


@pytest.mark.parametrize("config", [BERT, ALBERT])
@pytest.mark.parametrize(("precision", "rounding"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_an_encoder_agrees(config: EncoderConfig, precision: torch.dtype, rounding: float) -> None:
    model, batch = Model(config, {"classification": 2, "masked_language_model": 0}).eval(), random_batch(LENGTHS)
    with torch.inference_mode():
        expected = model(to_tensors(batch))
        found = model.to("cuda", precision)(to_tensors(batch, "cuda"))
    for name, values in expected.items():
        torch.testing.assert_close(found[name].float().cpu(), values, rtol=0, atol=rounding * float(values.abs().max()))


@pytest.mark.parametrize(("precision", "rounding"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_an_encoder_and_its_decoder_agree(precision: torch.dtype, rounding: float) -> None:
    model = Transformer(TransformerConfig(encoder=STACK, decoder=STACK)).eval()
    source, target = random_batch(LENGTHS), random_batch(LENGTHS[::-1], seed=1)
    with torch.inference_mode():
        expected = model(pairs_to_tensors(source, target))
        found = model.to("cuda", precision)(pairs_to_tensors(source, target, "cuda"))
    torch.testing.assert_close(found.float().cpu(), expected, rtol=0, atol=rounding * float(expected.abs().max()))


@pytest.mark.parametrize("asked", ["itself", "what came before", "another text", "by its first token"])
def test_packed_rows_are_attended_to_as_padded_blocks(asked: str) -> None:
    """Results and gradients of the kernel for packed rows, in bfloat16, against those of the blocks in float32."""
    generator = torch.Generator().manual_seed(0)
    queries = {"another text": LENGTHS[::-1].copy(), "by its first token": np.ones_like(LENGTHS)}.get(asked, LENGTHS)
    shapes = [(int(queries.sum()), 32), (int(LENGTHS.sum()), 64), (int(queries.sum()), 32)]
    query, pair, direction = (torch.randn(shape, generator=generator).bfloat16() for shape in shapes)

    def attend(query: Tensor, pair: Tensor, kind: type) -> list[Tensor]:
        where = layout(queries, LENGTHS, 2, query, causal=asked == "what came before")
        assert isinstance(where, kind)
        query, pair = query.requires_grad_(), pair.requires_grad_()
        mixed = attention(query, pair, where, 2, 0.0)
        return [mixed, *torch.autograd.grad(mixed, [query, pair], direction.to(mixed))]

    expected = attend(query.float(), pair.float(), list)
    for ours, theirs in zip(attend(query.cuda(), pair.cuda(), Ragged), expected, strict=True):
        torch.testing.assert_close(ours.float().cpu(), theirs, rtol=0.02, atol=0.03)


def test_packed_attention_drops_weights_and_keeps_their_mean() -> None:
    """Of a text's equal weights a quarter is dropped: the mean stays, and varies as kept shares of 512 would."""
    lengths, width = np.array([512], np.int32), 64
    query, pair = (
        torch.zeros(512, width, device="cuda").bfloat16(),
        torch.ones(512, 2 * width, device="cuda").bfloat16(),
    )
    torch.manual_seed(0)
    mixed = attention(query, pair, layout(lengths, lengths, 1, query), 1, 0.25)[:, 0].float()
    assert float(mixed.mean()) == pytest.approx(1.0, abs=0.01)
    assert float(mixed.std()) == pytest.approx((0.25 / 0.75 / 512) ** 0.5, rel=0.2)


@pytest.mark.parametrize("rule", ["adamw", "lamb"])
def test_a_step_of_the_optimizer_agrees(rule: Any) -> None:
    moved = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = Model(BERT, {"classification": 2}).to(device)
        optimizer = Optimizer(model, rule=rule)
        for _ in range(3):
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape).to(device)
            optimizer.step(0.01, 1.0)
        moved.append({name: weight.cpu() for name, weight in optimizer.weights().items()})
    for name, weight in moved[0].items():
        torch.testing.assert_close(moved[1][name], weight, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # of what the compiler does inside
@pytest.mark.parametrize("model", ["bert-tiny", "albert-tiny"])
def test_pretraining_learns_compiled_and_not(model: str, tmp_path: Path) -> None:
    """Compiled layers, in bfloat16, learn as those that are not; dropout differs, and so they are not equal."""
    texts = [f"{text.capitalize()}." for text, _ in rows(800)]
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n\n".join(" ".join(texts[i : i + 4]) for i in range(0, 800, 4)), encoding="utf-8")
    sizes = "hidden_size=32,num_attention_heads=2,intermediate_size=48,num_hidden_layers=2"
    command = ["pretrain", corpus, "--model", model, "--config", sizes, "--vocab-size", "150", "--steps", "120"]
    command += ["--max-length", "24", "--batch-size", "8", "--evaluations", "2", "--log-every", "1"]
    ends = []
    for choice in ("--compile", "--no-compile"):
        assert run(*command, choice, "--out", tmp_path / choice) in (None, 0)
        losses = [line["loss"] for line in read_metrics(tmp_path / choice / "metrics.jsonl") if "loss" in line]
        assert losses[-1] < losses[0] - 1
        assert read_json(tmp_path / choice / "bertram.json")["gpu_peak_memory_mb"] > 1
        ends.append(sum(losses[-20:]) / 20)
    assert ends[0] == pytest.approx(ends[1], abs=0.2)


def test_a_regression_model_is_trained_further(tmp_path: Path) -> None:
    """It is asked before its first step what it answers so far."""
    data = tmp_path / "data.csv"
    data.write_text("text,label\n" + "".join(f"{text},{len(text)}.5\n" for text, _ in rows(40)))
    model, further = model_directory(tmp_path / "bare"), tmp_path / "further"
    for source, out in ((model, tmp_path / "first"), (tmp_path / "first", further)):
        assert run("train", "regression", data, "--model", source, "--steps", "4", "--out", out) in (None, 0)
