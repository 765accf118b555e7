"""The compiled kernels: every kind of processor's are held to torch and to plain numpy."""

import copy
import os
import platform
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from bertram.batch import Batch
from bertram.config import EncoderConfig
from bertram.errors import BadInput
from bertram.formats.engine import tensors_of
from bertram.formats.engine_layout import layer_names, layout_of
from bertram.formats.quantization import pack, unpack
from bertram.inference import kernels
from bertram.inference.kernels import NativeEncoder
from bertram.inference.numpy_encoder import ACTIVATIONS, NumpyEncoder
from bertram.models.heads import Model
from bertram.models.tensors import to_tensors
from tiny import random_batch, unsettle

pytestmark = pytest.mark.skipif(not kernels.fastest(), reason="no C++ compiler built the kernels here")

SIZES = {"vocab_size": 90, "num_hidden_layers": 3, "max_position_embeddings": 520}
CONFIGS = {  # no width of which is a round number of vectors
    "bert": EncoderConfig(**SIZES, hidden_size=44, num_attention_heads=4, intermediate_size=70),
    "albert": EncoderConfig(
        **SIZES | {"num_hidden_layers": 4, "hidden_act": "gelu_new", "num_hidden_groups": 2, "embedding_size": 19},
        **{"hidden_size": 72, "num_attention_heads": 2, "intermediate_size": 33, "shared": "attention"},
    ),
    "pre-norm": EncoderConfig(
        **SIZES | {"num_hidden_layers": 2, "inner_group_num": 2, "num_hidden_groups": 1, "embedding_size": 40},
        **{"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 130, "hidden_act": "silu"},
        **{"normalize_before": True, "normalize_embedding": False, "type_vocab_size": 0, "scale_embedding": True},
        static_position_embeddings=True,
    ),
    "wide": EncoderConfig(
        **SIZES, hidden_size=96, num_attention_heads=3, intermediate_size=128, hidden_act="relu", type_vocab_size=1
    ),
}
LENGTHS = [1, 5, 13, 70, 32, 33, 512, 16, 200, 3]


def usable():
    """The variants that this machine can run."""
    found = []
    for variant in kernels.VARIANTS:
        try:
            encoder("bert", "fp32", variant=variant)
            found.append(variant)
        except RuntimeError:
            continue
    return found


def model(name):
    torch.manual_seed(len(name))
    made = Model(CONFIGS[name]).eval()
    unsettle(made)
    return made


def encoder(name, precision, kind=NativeEncoder, **options):
    weights, vectors = tensors_of(model(name))
    return kind(CONFIGS[name], {key: pack(weight, precision) for key, weight in weights.items()}, vectors, **options)


USABLE = usable() if kernels.fastest() else []
AVX2 = {"avx2", "fma", "bmi2"}
NEEDS = {
    **{"avx512": {"avx512_vnni", "avx512bw", "avx512vl"}, "avxvnni": AVX2 | {"avx_vnni"}, "avx2": AVX2},
    "portable": set(),
}


@pytest.mark.skipif(not USABLE or platform.machine() != "x86_64", reason="no kernels for x86-64")
def test_each_variant_runs_where_the_processor_has_its_instructions():
    flags = set(Path("/proc/cpuinfo").read_text().partition("\nflags")[2].splitlines()[0].split())
    assert [name for name in kernels.VARIANTS if NEEDS[name] <= flags] == USABLE
    assert encoder("bert", "fp32").variant == USABLE[0]


@pytest.mark.parametrize("variant", USABLE)
@pytest.mark.parametrize("name", CONFIGS)
def test_states_are_those_of_torch(name, variant):
    given = random_batch(CONFIGS[name], LENGTHS)
    with torch.inference_mode():
        expected = model(name).encoder(to_tensors(given)).numpy()
    for threads in (1, 3):
        found = encoder(name, "fp32", variant=variant, threads=threads)
        assert found.variant == variant
        np.testing.assert_allclose(found.hidden(given), expected, atol=2e-5)
        np.testing.assert_allclose(found.first(given), expected[given.offsets[:-1]], atol=2e-5)


@pytest.mark.parametrize("name", CONFIGS)
def test_plain_numpy_says_the_same(name):
    given = random_batch(CONFIGS[name], [1, 7, 40])
    np.testing.assert_allclose(
        encoder(name, "fp32", NumpyEncoder).hidden(given), encoder(name, "fp32").hidden(given), atol=2e-5
    )
    np.testing.assert_allclose(
        encoder(name, "fp32", NumpyEncoder).hidden(given, 1), encoder(name, "fp32").hidden(given, 1), atol=2e-5
    )


@pytest.mark.parametrize("variant", USABLE)
@pytest.mark.parametrize("name", CONFIGS)
def test_int8_differs_by_its_rounding_alone(name, variant):
    """Weights and inputs are rounded likewise in numpy; what is left is attention in int16, and ties."""
    given = random_batch(CONFIGS[name], [1, 5, 40, 200])
    expected = encoder(name, "int8", NumpyEncoder).hidden(given)
    found = encoder(name, "int8", variant=variant).hidden(given)
    assert 0 < np.linalg.norm(found - expected) / np.linalg.norm(expected) < 0.01


@pytest.mark.parametrize("variant", USABLE)
def test_int8_products_are_exact(variant):
    """Inputs and weights of whole numbers up to 255 and 127, the highest there, are not rounded at all."""
    random = np.random.default_rng(0)
    config = CONFIGS["bert"]
    weights, vectors = tensors_of(model("bert"))
    weight = random.integers(-127, 128, weights["attention.0.output"].shape).astype(np.float32)
    weight[:, 0] = 127
    matrices = {key: pack(value, "int8") for key, value in weights.items()} | {
        "attention.0.output": pack(weight, "int8")
    }
    found = NativeEncoder(config, matrices, vectors, variant=variant)
    for rows in (1, 2, 11, 12, 13, 100):
        x = random.integers(0, 256, (rows, weight.shape[1])).astype(np.float32)
        x[:, :2] = 0, 255
        expected = x @ weight.T + vectors["attention.0.output.bias"]
        np.testing.assert_allclose(found.linear("attention.0.output", x), expected, rtol=1e-6)


@pytest.mark.parametrize("variant", USABLE)
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("factor", [1e-36, 1e-18, 0.001, 0.12])
def test_attention_of_int8_weights_loses_next_to_nothing(factor, extreme, heads, variant):
    """One layer that reads whole numbers, so that rounding them to 256 steps is exact, and writes in float32.

    With the smaller factors a text's tokens are attended to alike, with the largest a few of them; the smallest have no
    inverse, or their square has none. At the extreme scores are as large as their sums can be, or nothing.
    """
    random = np.random.default_rng(heads)
    config = EncoderConfig(
        **SIZES | {"num_hidden_layers": 1, "hidden_size": 44, "num_attention_heads": heads, "intermediate_size": 70},
        **{"normalize_embedding": False, "type_vocab_size": 0},
    )
    weights, vectors = tensors_of(Model(config).eval())
    weights["tokens"] = random.integers(0, 256, weights["tokens"].shape).astype(np.float32)
    weights["tokens"][:, :2] = 0, 255
    weights["positions"] = np.zeros_like(weights["positions"])
    weights["attention.0.query_key_value"][:88] *= factor  # queries and keys
    weights["attention.0.output"] *= 100  # so that what is read of other tokens weighs as much as the token itself
    if extreme:
        weights["tokens"][::2], weights["tokens"][1::2] = 0, 255
        weights["attention.0.query_key_value"][:88] = factor
    precision = {"attention.0.query_key_value": "int8"}
    matrices = {name: pack(weight, precision.get(name, "fp32")) for name, weight in weights.items()}
    given = random_batch(config, [1, 2, 15, 16, 17, 200, 350, 500, 512])
    expected = NumpyEncoder(config, matrices, vectors).hidden(given)
    encoder = NativeEncoder(config, matrices, vectors, variant=variant)
    for found, wanted in (
        (encoder.hidden(given), expected),
        (encoder.first(given), expected[given.offsets[:-1]]),
    ):
        assert np.linalg.norm(found - wanted) / np.linalg.norm(wanted) < 5e-4


@pytest.mark.parametrize("variant", USABLE)
def test_values_that_are_next_to_nothing_are_read_as_nothing(variant):
    found = []
    for factor in (0, 1e-36):
        weights, vectors = tensors_of(model("bert"))
        for layer in range(3):
            weights[f"attention.{layer}.query_key_value"][88:] *= factor
            vectors[f"attention.{layer}.query_key_value.bias"][88:] *= factor
        matrices = {key: pack(weight, "int8") for key, weight in weights.items()}
        encoder = NativeEncoder(CONFIGS["bert"], matrices, vectors, variant=variant)
        found.append(encoder.hidden(random_batch(CONFIGS["bert"], LENGTHS)))
    assert np.isfinite(found[0]).all()
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("activation", [name for name in kernels.ACTIVATIONS if name != "none"])
def test_activations_are_accurate_everywhere(activation):
    config = CONFIGS["bert"]
    weights, vectors = tensors_of(model("bert"))
    weights["attention.0.output"] = np.eye(44, dtype=np.float32)
    vectors["attention.0.output.bias"] = np.zeros(44, np.float32)
    found = NativeEncoder(config, {key: pack(value, "fp32") for key, value in weights.items()}, vectors)
    edges = [0, -0.0, 90, -90] * 11 + [np.nan] * 44
    x = np.concatenate([np.linspace(-12, 12, 44 * 100), edges]).astype(np.float32).reshape(-1, 44)
    np.testing.assert_allclose(found.linear("attention.0.output", x, activation), ACTIVATIONS[activation](x), atol=3e-6)


@pytest.mark.parametrize("variant", USABLE)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_text_with_a_token_that_is_no_number_has_no_other_states(value, name, precision, variant):
    weights, vectors = tensors_of(model(name))
    matrices = {key: pack(weight, precision) for key, weight in weights.items()}
    weights["tokens"][7, 3] = value
    matrices["tokens"] = pack(weights["tokens"], "fp32")
    found = NativeEncoder(CONFIGS[name], matrices, vectors, variant=variant)
    given = Batch.pack([[5, 6, 7, 8], [5, 6]])
    assert np.isnan(found.hidden(given)).any(1).tolist() == [True] * 4 + [False] * 2
    assert np.isnan(found.first(given)).any(1).tolist() == [True, False]
    x = np.ones((3, CONFIGS[name].hidden_size), np.float32)
    x[1, 2] = value
    assert np.isfinite(found.linear("attention.0.output", x)).any(1).tolist() == [True, False, True]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("shape", [(1, 1), (31, 3), (32, 4), (33, 130), (64, 65)])
def test_packing_loses_nothing_but_the_rounding(shape, precision):
    weight = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    half_a_step = 0 if precision == "fp32" else np.abs(weight).max(1, keepdims=True) / 127 / 2
    assert (np.abs(unpack(pack(weight, precision)) - weight) <= half_a_step * 1.0001).all()


def test_texts_do_not_see_one_another():
    given, found = random_batch(CONFIGS["albert"], LENGTHS), encoder("albert", "int8")
    together = found.hidden(given)
    for text in range(len(given)):
        alone = found.hidden(given.select([text]))
        np.testing.assert_allclose(together[given.offsets[text] : given.offsets[text + 1]], alone, atol=1e-5)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_is_an_encoder_of_its_own(copied):
    made, batch = encoder("albert", "int8", threads=1, variant=USABLE[-1]), Batch.pack([[1, 2, 3]])
    expected, other = made.hidden(batch), copied(made)
    assert other.variant == USABLE[-1]
    del made
    np.testing.assert_array_equal(other.hidden(batch), expected)


def test_many_tokens_are_taken_in_parts():
    lengths = [500, 3, 400, 130, 520, 1, 7] * 3
    given = random_batch(CONFIGS["bert"], lengths)
    with torch.inference_mode():
        expected = model("bert").encoder(to_tensors(given)).numpy()
    np.testing.assert_allclose(encoder("bert", "fp32").hidden(given), expected, atol=2e-5)


@pytest.mark.parametrize("busy", [False, True])
def test_it_answers_in_a_fork(busy):
    """A fork has none of the threads, nor one that was answering and held the lock."""
    found, given = encoder("bert", "int8", threads=3), random_batch(CONFIGS["bert"], [3, 40, 100])
    expected = found.hidden(given)
    reading, writing = os.pipe()
    long, done = random_batch(CONFIGS["bert"], [500] * 8), threading.Event()

    def answer():
        while not done.is_set():
            found.hidden(long)

    if busy:
        (other := threading.Thread(target=answer)).start()
        time.sleep(0.05)
    if not (child := os.fork()):
        try:
            signal.alarm(10)  # rather than for ever
            os.write(writing, np.array_equal(found.hidden(given), expected).to_bytes())
            another = encoder("bert", "int8", threads=3)  # whose threads may be called as the lost ones were
            del found  # which must not wait for those, nor let these go
            del another
            os._exit(0)
        finally:
            os._exit(1)  # rather than go on as a second pytest
    status = os.waitpid(child, 0)[1]
    done.set()
    if busy:
        other.join()
    assert status == 0
    assert os.read(reading, 1) == b"\x01"


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("outside the model's vocabulary of 90", {"token_ids": 90}),
        ("outside the model's vocabulary of 90", {"token_ids": -1}),
        ("longer than the model's 520 positions", {"positions": 520}),
        ("must not be negative", {"positions": -5}),
        ("outside the model's 2", {"segment_ids": 2}),
        ("outside the model's 2", {"segment_ids": -1}),
        ("must not be negative", {"offsets": 3}),
        ("its 8 tokens", {"offsets": 7}),
    ],
)
def test_what_the_model_does_not_know_never_reaches_it(what, change):
    given = random_batch(CONFIGS["bert"], [4, 4])
    arrays = {key: getattr(given, key).copy() for key in ("token_ids", "segment_ids", "positions", "offsets")}
    for name, value in change.items():
        arrays[name][-1] = value
    for kind in (NativeEncoder, NumpyEncoder):
        with pytest.raises(BadInput, match=what):
            encoder("bert", "fp32", kind).hidden(Batch(**arrays))


def test_offsets_whose_differences_wrap_are_refused():
    given = random_batch(CONFIGS["bert"], [3, 3, 4])
    wrapped = np.array([0, 2_000_000_000, -2_000_000_000, 10], np.int32)
    with pytest.raises(BadInput, match="must not be negative"):
        encoder("bert", "fp32").hidden(Batch(given.token_ids, given.segment_ids, given.positions, wrapped))


def test_a_text_of_no_tokens_is_refused():
    empty = np.zeros(0, np.int32)
    with pytest.raises(BadInput, match="no tokens"):
        encoder("bert", "fp32").hidden(Batch(empty, empty, empty, np.zeros(2, np.int32)))
    assert encoder("bert", "fp32").hidden(Batch.pack([])).shape == (0, 44)


def test_the_layout_counts_what_is_shared_once():
    layout = layout_of(CONFIGS["albert"], {}, pooler=False)
    assert layer_names(CONFIGS["albert"]) == [(f"attention.{i // 2}", f"feed_forward.{i}") for i in range(4)]
    assert layout.matrices["attention.1.query_key_value"] == (216, 72)
    assert "attention.2.output" not in layout.matrices
