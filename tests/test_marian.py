"""Marian models: transformers' MarianMTModel in and out, and the same searches."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import MarianConfig, MarianMTModel

import bertram
import spm
import tiny
from bertram import artifacts
from bertram.batch import Batch
from bertram.config import TransformerConfig
from bertram.errors import BadInput
from bertram.files import write_json
from bertram.formats import marian_config
from bertram.formats.transformer import read_transformer, write_marian
from bertram.inference.generator import Generator
from bertram.model_directory import ModelDirectory
from bertram.models.tensors import pairs_to_tensors
from bertram.run_directory import MANIFEST
from bertram.search import Search
from bertram.training.torch_runner import TorchGenerator
from encoder_decoders import CONFIGS, batches, make
from translating import SHORT, SIZES, write_pairs

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
    tiny.unsettle(model, seed, 0.15)  # but not the sinusoids
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
    again, report = MarianMTModel.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values()), report
    source, target = batches(seed)
    with torch.inference_mode():
        found = ours(pairs_to_tensors(source, target))
        for model in (theirs, again.eval()):
            torch.testing.assert_close(found, logits(model, source, target), rtol=0, atol=1e-5)


def test_an_embedding_shared_under_an_output_of_its_own(tmp_path: Path) -> None:
    """transformers 5 ties nothing here, and would fill what the file lacks with random numbers."""
    ours = make(CONFIGS["untied"])
    write_marian(ours, tmp_path, Search())
    theirs, report = MarianMTModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    source, target = batches()
    again = read_transformer(tmp_path).eval()
    assert again.decoder.embeddings.tokens is again.encoder.embeddings.tokens
    with torch.inference_mode():
        found = ours(pairs_to_tensors(source, target))
        assert torch.equal(again(pairs_to_tensors(source, target)), found)
        torch.testing.assert_close(logits(theirs.eval(), source, target), found, rtol=0, atol=1e-5)


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
    """By the settings of published models, whose logit of the padding was never learned."""
    theirs = marian(seed)
    theirs.final_logits_bias[0, PAD] = 10
    theirs.save_pretrained(tmp_path)
    source, _ = batches(seed)
    ids, mask = padded(source)
    with torch.inference_mode():
        expected = theirs.generate(
            **{"input_ids": ids, "attention_mask": mask, "num_beams": search.beam_size, "max_new_tokens": 20},
            **{"length_penalty": search.length_penalty, "num_return_sequences": search.n_best},
            **{"early_stopping": False, "do_sample": False, "bad_words_ids": [[PAD]], "renormalize_logits": True},
            **{"return_dict_in_generate": True, "output_scores": True},
        )
    settings = Search(
        beam_size=search.beam_size, length_penalty=search.length_penalty, n_best=search.n_best, max_length=20
    )
    found = TorchGenerator(read_transformer(tmp_path)).generate(source, settings)
    written = [[token for token in row[1:] if token not in (PAD, END)] for row in expected.sequences.tolist()]
    best = [hypothesis for ranked in found for hypothesis in ranked]
    assert [hypothesis.ids for hypothesis in best] == written
    if search.beam_size > 1:  # a greedy search of theirs keeps no scores
        scores = expected.sequences_scores.tolist()
        assert [hypothesis.score for hypothesis in best] == pytest.approx(scores, abs=1e-5)


def test_generate_searches_as_the_directory_says(tmp_path: Path) -> None:
    theirs, source = marian(1), batches(1)[0]
    theirs.save_pretrained(tmp_path / "theirs")
    ours = read_transformer(tmp_path / "theirs")
    search = Search(beam_size=3, length_penalty=0.6, no_repeat_ngram_size=2, min_length=5, max_length=30)
    write_marian(ours, tmp_path / "ours", search)
    ids, mask = padded(source)
    with torch.inference_mode():
        rows = MarianMTModel.from_pretrained(tmp_path / "ours").generate(input_ids=ids, attention_mask=mask).tolist()
    written = [[token for token in row[1:] if token not in (PAD, END)] for row in rows]
    found = TorchGenerator(ours).generate(source, search)
    assert written == [hypothesis.ids for ranked in found for hypothesis in ranked]
    assert max(map(len, written)) > 20  # transformers' own limit where none is told


def test_a_directory_says_how_it_is_searched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What generation_config.json of others says, but for how many outputs they want; bertram.json comes first."""
    model = marian(0)
    model.generation_config.update(num_beams=3, length_penalty=0.5, num_return_sequences=2, no_repeat_ngram_size=4)
    model.save_pretrained(tmp_path)
    expected = Search(beam_size=3, length_penalty=0.5, no_repeat_ngram_size=4)
    assert ModelDirectory(tmp_path).search == expected
    write_json(tmp_path / MANIFEST, {"search": {"beam_size": 7}})
    assert ModelDirectory(tmp_path).search == Search(beam_size=7)
    (tmp_path / MANIFEST).unlink()
    for said, message in (
        ('{"num_beams": 0}', "beam-size 0"),
        ('{"num_beams": "3"}', "a whole number"),
        ("[", "JSON"),
    ):
        (tmp_path / "generation_config.json").write_text(said)
        with pytest.raises(BadInput, match=message):
            _ = ModelDirectory(tmp_path).search
    said = {"repetition_penalty": 1.2, "min_length": 0, "early_stopping": True, "do_sample": False}
    said |= {"pad_token_id": 7, "bad_words_ids": [[7]]}
    (tmp_path / "generation_config.json").write_text(json.dumps(said))
    assert ModelDirectory(tmp_path).search == Search()
    assert "generation_config.json: early_stopping, repetition_penalty would change" in caplog.text
    (tmp_path / "generation_config.json").write_text(json.dumps(said | {"bad_words_ids": [[7], [8]]}))
    assert ModelDirectory(tmp_path).search == Search()
    assert "early_stopping, repetition_penalty, bad_words_ids would change" in caplog.text
    (tmp_path / "generation_config.json").unlink()
    assert ModelDirectory(tmp_path).search == Search()
    config = json.loads((tmp_path / "config.json").read_text())  # where it stood before there was a file for it
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_beams": 4, "length_penalty": 0.8}))
    assert ModelDirectory(tmp_path).search == Search(beam_size=4, length_penalty=0.8)


def edit(directory: Path, **changes: torch.Tensor | None) -> None:
    """Set or take away tensors of a file."""
    path = directory / "model.safetensors"
    tensors = load_file(path) | changes
    save_file({name: tensor.clone() for name, tensor in tensors.items() if tensor is not None}, path)


TABLE = "model.decoder.embed_positions.weight"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_older_files(dtype: torch.dtype, tmp_path: Path) -> None:
    """They hold tied weights under each name, and tables of sinusoids."""
    theirs = marian(0)
    theirs.save_pretrained(tmp_path)
    names = [TABLE, *(f"{name}.weight" for name in ("model.encoder.embed_tokens", "lm_head"))]
    plain = read_transformer(tmp_path)
    state = theirs.state_dict()
    edit(tmp_path, **{name: state[name].to(dtype if name == TABLE else torch.float32) for name in names})
    again = read_transformer(tmp_path)
    assert all(map(torch.equal, again.parameters(), plain.parameters()))
    edit(tmp_path, final_logits_bias=None)
    assert not read_transformer(tmp_path).head.decoder.bias.any()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (TABLE, lambda table: table.flip(1), r"is not a sinusoidal position table of shape \[64, 16\]"),
        (TABLE, lambda table: table[:50], "is not a sinusoidal position table"),
        (TABLE, lambda table: table.long(), "is not a sinusoidal position table"),
        (TABLE, lambda table: table * torch.nan, "is not a sinusoidal position table"),
        ("lm_head.weight", lambda weight: weight + 1, "differs from what the configuration makes it share"),
        ("final_logits_bias", lambda bias: bias[0], r"is \[40\] but config.json makes it \[1, 40\]"),
        ("model.encoder.layers.0.fc1.bias", lambda bias: bias.double(), "must be F32, F16 or BF16"),
    ],
)
def test_tensors_that_do_not_fit(name: str, change: Callable[[Any], Any], message: str, tmp_path: Path) -> None:
    theirs = marian(0)
    theirs.save_pretrained(tmp_path)
    edit(tmp_path, **{name: change(theirs.state_dict()[name]).contiguous()})
    with pytest.raises(BadInput, match=message) as caught:
        read_transformer(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_pickle_is_read_where_that_is_allowed(tmp_path: Path) -> None:
    theirs = marian(0)
    theirs.save_pretrained(tmp_path)
    plain = read_transformer(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(BadInput, match="a pickle, which may hold code"):
        read_transformer(tmp_path)
    again = read_transformer(tmp_path, allow_pickle=True)
    assert all(map(torch.equal, again.parameters(), plain.parameters()))


def test_what_is_shared_is_written_one_by_one_and_shared_again(tmp_path: Path) -> None:
    config = dict(SIZES, num_hidden_groups=1, num_hidden_layers=2)
    data = write_pairs(tmp_path, 60)
    bertram.train("translation", data, model="transformer-tiny", config=config, out=tmp_path / "own", recipe=SHORT)
    bertram.export(tmp_path / "own", format="huggingface", out=tmp_path / "marian")
    ours, again = (artifacts.load_as(Generator, tmp_path / name) for name in ("own", "marian"))
    assert ours.write(["one two", "six"]) == again.write(["one two", "six"])
    network = ModelDirectory(tmp_path / "marian").read_transformer()
    assert network.decoder.layers[0].cross_attention is network.decoder.layers[1].cross_attention
    theirs = MarianMTModel.from_pretrained(tmp_path / "marian")
    assert sum(p.numel() for p in theirs.parameters()) > sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pre-norm, learned positions", "normalize_before"),
        ("groups, factorised", "embedding_size"),
        ("a BERT encoder of another width", "type_vocab_size"),
    ],
)
def test_what_the_format_cannot_represent_is_refused(name: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(
        BadInput, match=rf"cannot represent this model: (its encoder has|encoder and decoder differ in) {reason}"
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
        ({"eos_token_id": [0, 1]}, "eos_token_id must be a whole number"),
        ({"eos_token_id": 10**6}, "eos_token_id must be a token"),
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
    with pytest.raises(BadInput, match=r"which config.json does not have"):
        read_transformer(tmp_path)


def test_a_directory_as_it_is_published_translates_trains_and_is_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its SentencePiece models beside vocab.json; what it writes is what transformers writes, from texts to texts."""
    place = tmp_path / "published"
    place.mkdir()
    spm.write(place)
    numbers = json.loads((place / "vocab.json").read_text())
    special = {"pad_token_id": numbers["<pad>"], "decoder_start_token_id": numbers["<pad>"]}
    theirs = marian(0, vocab_size=max(numbers.values()) + 1, max_position_embeddings=128, **special)
    settings = {"max_new_tokens": 39, "early_stopping": False, "renormalize_logits": True}
    settings |= {"bad_words_ids": [[special["pad_token_id"]]]}
    theirs.generation_config.update(num_beams=2, **settings)
    theirs.save_pretrained(place)
    texts = [*spm.SOURCE, "a small dog"]
    tokenizer = spm.their_tokenizer(place)
    rows = theirs.generate(**tokenizer(texts, return_tensors="pt", padding=True))
    (tmp_path / "texts.en").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    assert tiny.run("translate", place, tmp_path / "texts.en", "--max-length", 39) == 0
    assert capsys.readouterr().out.splitlines() == tokenizer.batch_decode(rows, skip_special_tokens=True)
    assert tiny.run("translate", place, tmp_path / "texts.en", "--max-length", 39, "--beam-size", 1) == 0
    greedy = theirs.generate(**tokenizer(texts, return_tensors="pt", padding=True), num_beams=1)
    assert capsys.readouterr().out.splitlines() == tokenizer.batch_decode(greedy, skip_special_tokens=True)
    out = tmp_path / "published.ct2"
    assert tiny.run("export", place, "--format", "ctranslate2", "--precision", "fp32", "--out", out) == 0
    how = Search(beam_size=1, max_length=39)
    assert [found["text"] for found in bertram.load(out).predict(texts, how)] == tokenizer.batch_decode(
        greedy, skip_special_tokens=True
    )
    data = write_pairs(tmp_path, 40)
    bertram.train("translation", data, model=place, out=tmp_path / "trained", recipe=SHORT)
    assert tiny.run("export", tmp_path / "trained", "--format", "huggingface", "--out", tmp_path / "back") == 0
    again = spm.their_tokenizer(tmp_path / "back")
    assert again(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    theirs = MarianMTModel.from_pretrained(tmp_path / "back").eval()
    (row,) = theirs.generate(**again(["one"], return_tensors="pt"), num_beams=1, max_new_tokens=39)
    (ours,) = bertram.load(tmp_path / "trained").predict(["one"], how)
    assert ours["text"] == again.decode(row, skip_special_tokens=True)
