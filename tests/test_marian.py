"""Marian models: transformers' MarianMTModel in and out, and the same searches."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import MarianConfig, MarianMTModel

import bertram
from bertram import artifacts
from bertram.batch import Batch
from bertram.config import Search, TransformerConfig
from bertram.errors import BadInput
from bertram.formats import marian_config
from bertram.formats.transformer import read_transformer, write_marian
from bertram.models.tensors import pairs_to_tensors
from bertram.training.torch_runner import TorchGenerator
from test_generation import SHORT, SIZES, write_pairs
from test_transformer import CONFIGS, batches, make

PAD, END = 39, 0


def marian(seed: int, **changes: Any) -> MarianMTModel:
    random = np.random.default_rng(seed)
    settings: dict[str, Any] = {
        **{"vocab_size": 40, "d_model": 16, "encoder_layers": int(random.integers(1, 4))},
        **{"decoder_layers": int(random.integers(1, 4)), "encoder_ffn_dim": 24, "decoder_ffn_dim": 20},
        **{"encoder_attention_heads": 4, "decoder_attention_heads": 2, "max_position_embeddings": 64},
        **{"activation_function": ["swish", "gelu", "relu"][seed % 3], "scale_embedding": bool(seed % 2)},
        **{"pad_token_id": PAD, "eos_token_id": END, "decoder_start_token_id": PAD, "forced_eos_token_id": END},
    }
    torch.manual_seed(seed)
    model = MarianMTModel(MarianConfig(**settings | changes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" not in name:
                parameter.add_(0.15 * torch.randn_like(parameter))
        model.final_logits_bias.normal_()
    return model


VARIANTS: list[dict[str, Any]] = [
    {},
    {},
    {},
    {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 44, "vocab_size": 47},
    {"share_encoder_decoder_embeddings": False, "tie_word_embeddings": False},
]


@pytest.mark.parametrize(("seed", "changes"), [*enumerate(VARIANTS)])
def test_logits_are_those_of_transformers_both_ways(seed: int, changes: dict[str, Any], tmp_path: Path) -> None:
    theirs = marian(seed, **changes)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = read_transformer(tmp_path / "theirs").eval()
    write_marian(ours, tmp_path / "ours", Search())
    again = MarianMTModel.from_pretrained(tmp_path / "ours").eval()
    source, target = batches(seed)
    with torch.inference_mode():
        found = ours(pairs_to_tensors(source, target))
        for model in (theirs, again):
            torch.testing.assert_close(found, logits(model, source, target), rtol=0, atol=1e-5)


def logits(model: MarianMTModel, source: Batch, target: Batch) -> torch.Tensor:
    (ids, mask), (written, real) = (padded(batch) for batch in (source, target))
    found = model(input_ids=ids, attention_mask=mask, decoder_input_ids=written, decoder_attention_mask=real)
    return found.logits[real.bool()]


def padded(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.from_numpy(batch.token_ids.astype(np.int64)).split(batch.lengths.tolist())
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    return ids, mask


@pytest.mark.parametrize("search", [Search(beam_size=1), Search(), Search(beam_size=4, length_penalty=0.6, n_best=3)])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_best_hypotheses_are_those_of_generate(seed: int, search: Search, tmp_path: Path) -> None:
    theirs = marian(seed)
    theirs.save_pretrained(tmp_path)
    source, _ = batches(seed)
    ids, mask = padded(source)
    with torch.inference_mode():
        expected = theirs.generate(
            **{"input_ids": ids, "attention_mask": mask, "num_beams": search.beam_size, "max_new_tokens": 20},
            **{"length_penalty": search.length_penalty, "num_return_sequences": search.n_best},
            **{"early_stopping": False, "do_sample": False, "bad_words_ids": [[PAD]]},
        ).view(len(source), search.n_best, -1)
    settings = Search(
        beam_size=search.beam_size, length_penalty=search.length_penalty, n_best=search.n_best, max_length=20
    )
    found = TorchGenerator(read_transformer(tmp_path)).generate(source, settings)
    for ranked, rows in zip(found, expected.tolist(), strict=True):
        wanted = [[token for token in row[1:] if token not in (PAD, END)] for row in rows]
        assert [hypothesis.ids for hypothesis in ranked] == wanted


def test_what_is_shared_is_written_one_by_one_and_shared_again(tmp_path: Path) -> None:
    config = dict(SIZES, num_hidden_groups=1, num_hidden_layers=2)
    data = write_pairs(tmp_path, 60)
    bertram.train("translation", data, model="transformer-tiny", config=config, out=tmp_path / "own", recipe=SHORT)
    bertram.export(tmp_path / "own", format="huggingface", out=tmp_path / "marian")
    ours, again = (artifacts.load_generator(tmp_path / name) for name in ("own", "marian"))
    assert ours.write(["one two", "six"]) == again.write(["one two", "six"])
    network = artifacts.read_transformer(tmp_path / "marian")
    assert network.decoder.layers[0].cross_attention is network.decoder.layers[1].cross_attention
    theirs = MarianMTModel.from_pretrained(tmp_path / "marian")
    assert sum(p.numel() for p in theirs.parameters()) > sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pre-norm, learned positions", "normalize_before"),
        ("one group, factorised", "embedding_size"),
        ("a BERT encoder of another width", "type_vocab_size"),
    ],
)
def test_what_the_format_cannot_say_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=rf"cannot say this model: (its encoder has|encoder and decoder differ in) {reason}"
    ):
        write_marian(make(CONFIGS[name]), tmp_path, Search())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"normalize_before": True}, "normalize_before must be false"),
        ({"activation_function": "mish"}, "activation_function must be one of"),
        ({"d_model": -1}, "hidden_size"),
        ({"encoder_attention_heads": 3}, "heads do not divide"),
        ({"eos_token_id": [0, 1]}, "eos_token_id must be a token"),
    ],
)
def test_configurations_that_cannot_be_are_refused(changes: dict[str, Any], message: str) -> None:
    said = marian_config.describe(CONFIGS["as published"])
    assert isinstance(marian_config.parse(said, {}), TransformerConfig)
    with pytest.raises(BadInput, match=message):
        marian_config.parse(said | changes, {})


def test_a_file_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    write_marian(make(CONFIGS["as published"]), tmp_path, Search())
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"encoder_layers": 2', '"encoder_layers": 1'))
    with pytest.raises(BadInput, match=r"for which config.json has no place"):
        read_transformer(tmp_path)
