"""CTranslate2 directories: the same outputs as ours, written whole or refused, and run without torch."""

import json
import random
import struct
import sys
from dataclasses import replace
from itertools import pairwise
from multiprocessing import get_context

import numpy as np
import pytest
import torch

from bertram.batch import Batch
from bertram.config import EncoderConfig, TransformerConfig
from bertram.errors import BadInput
from bertram.formats.ctranslate2 import write_ctranslate2
from bertram.formats.ctranslate2_file import describe
from bertram.inference.ctranslate2_runner import CTranslate2Runner
from bertram.models.beam_search import search
from bertram.models.decoding import Decoding
from bertram.models.tensors import to_tensors
from bertram.models.transformer import Transformer
from bertram.search import Hypothesis, Search
from tiny import harm
from torchless import WITHOUT_TORCH, run_python

PAD, END, VOCABULARY = 0, 1, 50
GREEDY = Search(beam_size=1, max_length=16)

STACK = EncoderConfig(
    vocab_size=VOCABULARY,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=40,
    type_vocab_size=0,
    hidden_act="relu",
    layer_norm_eps=1e-5,
    sentence_objective="none",
    normalize_embedding=False,
    scale_embedding=True,
    static_position_embeddings=True,
)
BERT = replace(
    STACK,
    type_vocab_size=2,
    hidden_act="gelu",
    normalize_embedding=True,
    scale_embedding=False,
    static_position_embeddings=False,
)


def both(**settings):
    stack = replace(STACK, **settings)
    return TransformerConfig(encoder=stack, decoder=stack)


def two(encoder, decoder, **settings):
    return TransformerConfig(encoder=encoder, decoder=decoder, share_encoder_decoder_embeddings=False, **settings)


CONFIGS = {
    "post-norm, sinusoids": both(),
    "pre-norm, learned positions": both(normalize_before=True, static_position_embeddings=False),
    "GELU, embedding norm": both(hidden_act="gelu", normalize_embedding=True, scale_embedding=False),
    "GELU by tanh": both(hidden_act="gelu_new"),
    "two groups": both(num_hidden_layers=4, num_hidden_groups=2, hidden_act="silu"),
    "attention shared, inner layers": both(num_hidden_groups=1, inner_group_num=2, shared="attention"),
    "two vocabularies, untied": two(STACK, replace(STACK, vocab_size=45), tie_word_embeddings=False),
    "BERT with a decoder of its own": two(
        BERT, replace(STACK, hidden_size=24, num_attention_heads=3, num_hidden_layers=1, normalize_before=True)
    ),
    "factorised decoder": two(STACK, replace(STACK, embedding_size=8, static_position_embeddings=False)),
}

REFUSED = [
    (both(embedding_size=8), "projects embeddings from 8 to 16"),
    (two(STACK, replace(STACK, embedding_size=8, normalize_embedding=True)), "behind their layer norm"),
    (two(STACK, replace(STACK, layer_norm_eps=1e-6)), "layer_norm_eps is 1e-05 in the encoder and 1e-06"),
]


def transformer(config, seed=0):
    """Random weights, large enough that outputs differ and some end."""
    torch.manual_seed(seed)
    model = Transformer(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.normal_(1, 0.3)
            else:
                parameter.normal_(0, 0.1 if parameter.ndim == 1 else 2 * parameter.shape[1] ** -0.5)
        for stack in (model.encoder, model.decoder):
            stack.embeddings.tokens.weight.normal_()
        model.head.decoder.bias[PAD] = 30.0  # the likeliest wherever it may stand: its probability is the others'
        model.head.decoder.bias[END] = 1.0
    return model


def tokens(config):
    """Of the source and of the target."""
    stacks = (config.encoder, config.decoder)
    return [[f"{side}{place}" for place in range(stack.vocab_size)] for side, stack in zip("st", stacks, strict=True)]


def sources(number=200, seed=0):
    rng = np.random.default_rng(seed)
    return Batch.pack([[*rng.integers(2, 45, rng.integers(1, 12)).tolist(), END] for _ in range(number)])


def ours(model, batch, settings, never=(PAD,)):
    limits = settings.limits(batch.lengths, model.config.decoder.max_position_embeddings)
    with torch.inference_mode():
        decoding = Decoding(model, to_tensors(batch))
        return search(
            decoding,
            len(batch),
            start_id=PAD,
            eos_id=END,
            never=list(never),
            max_lengths=limits.tolist(),
            settings=settings,
        )


def exported(model, directory, precision="fp32", **options):
    directory.mkdir()
    write_ctranslate2(model, *tokens(model.config), directory, precision, **options)
    return CTranslate2Runner(directory, threads=1)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A model and its runner."""
    model = transformer(CONFIGS["post-norm, sinusoids"])
    return model, exported(model, tmp_path_factory.mktemp("plain") / "out")


@pytest.fixture
def directory(plain, tmp_path):
    """A copy of its directory, to harm."""
    for path in plain[1].directory.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def agreeing(found, expected):
    """Pairs of best hypotheses with the same ids."""
    bests = [(ours, theirs) for [ours, *_], [theirs, *_] in zip(found, expected, strict=True)]
    return [(ours, theirs) for ours, theirs in bests if ours.ids == theirs.ids]


class TestOutputs:
    @pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
    def test_greedy_outputs_are_ours(self, config, tmp_path):
        model, batch = transformer(config), sources()
        runner = exported(model, tmp_path / "out")
        equal = agreeing(runner.generate(batch, GREEDY), ours(model, batch, GREEDY))
        assert len(equal) >= 198
        assert all(found.score == pytest.approx(expected.score, abs=1e-4) for found, expected in equal)

        never_twice = replace(GREEDY, no_repeat_ngram_size=1)  # random weights go round in circles if they may
        expected = ours(model, batch, never_twice)
        assert len({tuple(best.ids) for [best] in expected}) > 50
        assert any(len(best.ids) < 15 for [best] in expected)
        assert len(agreeing(runner.generate(batch, never_twice), expected)) >= 198

    def test_what_greedy_outputs_are_of(self, plain, tmp_path):
        """Other weights give others, so that the test above could fail."""
        model, batch = transformer(plain[0].config, seed=1), sources()
        assert len(agreeing(plain[1].generate(batch, GREEDY), ours(model, batch, GREEDY))) < 50

    @pytest.mark.parametrize("length_penalty", [0.0, 1.0, 2.5])
    def test_beams_have_our_scores(self, plain, length_penalty):
        """What both find; CTranslate2 stops earlier, so that this is not all."""
        (model, runner), batch = plain, sources()
        settings = Search(beam_size=4, n_best=4, length_penalty=length_penalty, max_length=16)
        found, expected = runner.generate(batch, settings), ours(model, batch, settings)
        compared = 0
        for some, others in zip(found, expected, strict=True):
            assert len(some) == 4
            assert [each.score for each in some] == sorted((each.score for each in some), reverse=True)
            scores = {tuple(ids): score for ids, score in others}
            for ids, score in some:
                if tuple(ids) in scores:
                    assert score == pytest.approx(scores[tuple(ids)], rel=1e-4, abs=1e-4)
                    compared += 1
        assert compared > 400

    def test_beams_are_ours_where_nothing_ends_before_the_limit(self, tmp_path):
        model, batch = transformer(CONFIGS["pre-norm, learned positions"]), sources()
        with torch.no_grad():
            model.head.decoder.bias[END] = -30.0
        settings = Search(beam_size=4, n_best=4, max_length=12)
        found, expected = exported(model, tmp_path / "out").generate(batch, settings), ours(model, batch, settings)
        assert len(agreeing(found, expected)) >= 198
        assert all(len(best.ids) == 11 for best, *_ in expected)
        equal = [
            [ids for ids, _ in some] == [ids for ids, _ in others] for some, others in zip(found, expected, strict=True)
        ]
        assert sum(equal) >= 190  # the last of four are often nearly as good as the fifth

    def test_the_rules_of_a_search(self, plain):
        (_, runner), batch = plain, sources(40)
        [[first], *_] = runner.generate(batch, replace(GREEDY, min_length=12))
        assert len(first.ids) >= 12
        for [best] in runner.generate(batch, replace(GREEDY, no_repeat_ngram_size=2)):
            pairs = list(pairwise(best.ids))
            assert len(set(pairs)) == len(pairs)
        assert runner.generate(batch, Search(max_length=1)) == [[Hypothesis([], 0.0)]] * 40
        assert runner.generate(batch.select([]), GREEDY) == []

    def test_it_answers_in_a_fork(self, plain):
        """A fork has none of the threads, and must not wait for them when it needs the runner no more."""
        runner, batch = CTranslate2Runner(plain[1].directory, threads=2), sources(4)
        expected = runner.generate(batch, GREEDY)

        def answer():
            nonlocal runner
            equal = runner.generate(batch, GREEDY) == expected
            del runner
            sys.exit(not equal)

        child = get_context("fork").Process(target=answer)
        child.start()
        child.join(10)
        child.kill()  # if it waits for ever
        assert child.exitcode == 0

    def test_no_output_holds_the_padding(self, plain):
        assert not any(PAD in best.ids for [best] in plain[1].generate(sources(), GREEDY))

    def test_scores_are_ours_whatever_is_forbidden(self, plain):
        (model, runner), batch = plain, sources()
        settings = replace(GREEDY, min_length=6, no_repeat_ngram_size=2)
        equal = agreeing(runner.generate(batch, settings), ours(model, batch, settings))
        assert len(equal) >= 198
        assert all(found.score == pytest.approx(expected.score, abs=1e-4) for found, expected in equal)

    def test_no_output_is_longer_than_its_own_limit(self, plain):
        (_, runner), batch = plain, sources(40)
        found = runner.generate(batch, Search(beam_size=1, min_length=20))
        written = np.array([len(best.ids) for [best] in found])
        room = np.minimum(np.maximum(2 * batch.lengths + 16, 21), 41) - 1
        assert (written >= 20).all()
        assert (written <= room).all()
        assert len(set(room[written == room].tolist())) > 3

    def test_a_batch_answers_as_its_rows_do(self, plain):
        (_, runner), batch = plain, sources(20)
        alone = [runner.generate(batch.select([row]), GREEDY)[0][0].ids for row in range(20)]
        assert [best.ids for [best] in runner.generate(batch, GREEDY)] == alone

    def test_int8(self, plain, tmp_path):
        model, batch = plain[0], sources()
        before = [parameter.clone() for parameter in model.parameters()]
        runner = exported(model, tmp_path / "out", "int8")
        assert all(map(torch.equal, before, model.parameters()))  # CTranslate2 quantizes in place
        sizes = [(path / "model.bin").stat().st_size for path in (tmp_path / "out", plain[1].directory)]
        assert sizes[0] < 0.5 * sizes[1]
        first = [best.ids[:1] for [best] in runner.generate(batch, GREEDY)]
        expected = [best.ids[:1] for [best] in ours(model, batch, GREEDY)]
        assert sum(map(list.__eq__, first, expected)) > 150

    def test_pairs_and_long_texts_are_refused(self, plain):
        runner = plain[1]
        with pytest.raises(BadInput, match="not pairs of texts"):
            runner.generate(Batch.pack([[2, 3]], [[0, 1]]), GREEDY)
        with pytest.raises(BadInput, match="a text of 41 tokens is longer than the model's 40 positions"):
            runner.generate(Batch.pack([[2] * 41]), GREEDY)
        assert len(runner.generate(Batch.pack([[2] * 40]), GREEDY)) == 1


class TestFiles:
    @pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
    def test_shared_parts_are_written_once(self, config, tmp_path):
        model = transformer(config)
        exported(model, tmp_path / "out")
        tables = {  # sinusoids are written, and one table of both stacks once
            (stack.hidden_size, stack.embedding_size): stack.max_position_embeddings * stack.hidden_size
            for stack in (config.encoder, config.decoder)
            if stack.static_position_embeddings
        }
        numbers = sum(parameter.numel() for parameter in model.parameters()) + sum(tables.values())
        size = (tmp_path / "out" / "model.bin").stat().st_size
        assert size - 4 * numbers < 100 * len(list(model.named_parameters(remove_duplicate=False)))  # names
        assert size > 4 * 0.85 * numbers

    def test_one_group_is_as_large_as_one_layer(self, tmp_path):
        sizes = []
        for layers in (1, 6):
            model = transformer(both(num_hidden_layers=layers, num_hidden_groups=1))
            exported(model, tmp_path / str(layers))
            sizes.append((tmp_path / str(layers) / "model.bin").stat().st_size)
        assert 0 < sizes[1] - sizes[0] < 5 * 2 * 26 * 2 * 60  # aliases: two names for each array

    def test_odd_tokens(self, plain, tmp_path):
        """Tokens that stand twice, are empty or hold line breaks; ids in are ids out all the same."""
        model = plain[0]
        odd = [
            "<pad>",
            "</s>",
            "",
            "a",
            "a",
            "\n",
            "a\r\nb",
            "\0",
            " ",
            "x y",
            "\t",
            "<id 2>",
            "▁é",
            "\u2028",
            "😀",
            '"',
            "\\",
        ]
        (tmp_path / "out").mkdir()
        write_ctranslate2(model, odd, odd, tmp_path / "out")
        runner = CTranslate2Runner(tmp_path / "out", threads=1)
        assert [path.name for path in sorted((tmp_path / "out").iterdir())] == [
            *("config.json", "model.bin", "shared_vocabulary.json")
        ]
        assert runner.generate(sources(), GREEDY) == plain[1].generate(sources(), GREEDY)
        written = json.loads((tmp_path / "out" / "shared_vocabulary.json").read_text())
        assert len(set(written)) == VOCABULARY
        assert written[5:11] == odd[5:11]

    def test_a_vocabulary_map_limits_what_is_written(self, plain, tmp_path):
        (tmp_path / "map").write_text("\tt20 t21\n" + "".join(f"s{n}\tt{n} t{n + 1}\n" for n in range(2, 45)))
        runner = exported(plain[0], tmp_path / "out", vocabulary_map=tmp_path / "map")
        assert (tmp_path / "out" / "vmap.txt").read_text() == (tmp_path / "map").read_text()
        for row in range(40):  # the candidates are those of all sources in a batch
            source = sources().select([row])
            candidates = {END, 20, 21, *source.token_ids, *(source.token_ids[:-1] + 1)}
            expected = ours(plain[0], source, GREEDY, never={*range(VOCABULARY)} - candidates)
            assert runner.generate(source, GREEDY)[0][0].ids == expected[0][0].ids

    @pytest.mark.parametrize(("config", "reason"), REFUSED)
    def test_models_that_it_cannot_represent(self, config, reason, tmp_path):
        with pytest.raises(BadInput, match=reason):
            write_ctranslate2(Transformer(config), [], [], tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_what_cannot_be_written(self, plain, tmp_path):
        model, path = plain[0], tmp_path / "new"
        (tmp_path / "empty").write_text("")
        refusals = [
            ((["a"] * 51, [], path), {}, "the source tokenizer has 51 entries, the model only 50"),
            (([], ["a"] * 51, path), {}, "the target tokenizer has 51 entries, the model only 50"),
            (([], [], path), {"vocabulary_map": tmp_path / "none"}, "no vocabulary map, or an empty one"),
            (([], [], path), {"vocabulary_map": tmp_path / "empty"}, "no vocabulary map, or an empty one"),
        ]
        for arguments, options, reason in refusals:
            with pytest.raises(BadInput, match=reason):
                write_ctranslate2(model, *arguments, **options)
        assert not path.exists()


class TestDamage:
    @pytest.mark.parametrize("name", ["model.bin", "config.json", "source_vocabulary.json", "target_vocabulary.json"])
    @pytest.mark.parametrize("damage", ["torn", "gone"])
    def test_a_damaged_file(self, directory, name, damage):
        harm(directory / name, damage)
        with pytest.raises(BadInput, match=rf"{name}|missing"):
            CTranslate2Runner(directory)

    def test_every_byte_of_the_sizes_is_checked(self, directory):
        """Whatever byte of model.bin changes: it is refused, or only a value changed, and then it still runs."""
        path, rng = directory / "model.bin", random.Random(0)
        content = path.read_bytes()
        expected, refused = describe(directory), 0
        for place in [*range(200), *rng.sample(range(200, len(content)), 400)]:
            changed = bytearray(content)
            changed[place] ^= 1 << rng.randrange(8)
            path.write_bytes(changed)
            try:
                assert describe(directory) == expected
            except BadInput:
                refused += 1
        assert 150 < refused < 400

    def test_shapes_that_do_not_fit(self, directory):
        """Native code would read past the end of such a matrix."""
        path = directory / "model.bin"
        content = path.read_bytes()
        name = b"encoder/layer_1/ffn/linear_0/weight\0"
        place = content.index(name) + len(name) + 1
        assert struct.unpack_from("<2I", content, place) == (24, 16)
        path.write_bytes(content[:place] + struct.pack("<2I", 16, 24) + content[place + 8 :])
        with pytest.raises(BadInput, match="linear_0/weight' is \\[16, 24\\] and has no place among the others"):
            CTranslate2Runner(directory)

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"quantization_type": 1}, "'quantization_type' is missing, or stands where"),
            ({"eos_token": "other"}, "eos_token 'other' is not in the target vocabulary"),
            ({"pad_token": 3}, "pad_token 3 is not in"),
            ({"add_source_eos": True}, "must be false"),
            ({"layer_norm_epsilon": 2.0}, "must lie between 0 and 1, not 2.0"),
        ],
    )
    def test_settings(self, directory, change, reason):
        path = directory / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
        with pytest.raises(BadInput, match=reason):
            CTranslate2Runner(directory)

    @pytest.mark.parametrize(
        ("tokens", "reason"),
        [
            (["a"], "1 tokens, for which model.bin has 50 embeddings"),
            (["a"] * 50, "a token stands there twice"),
            ([0] * 50, "must be a list of tokens"),
            ({}, "must be a list of tokens"),
        ],
    )
    def test_vocabularies(self, directory, tokens, reason):
        (directory / "source_vocabulary.json").write_text(json.dumps(tokens))
        with pytest.raises(BadInput, match=reason):
            CTranslate2Runner(directory)

    def test_an_empty_vocabulary_map(self, directory):
        (directory / "vmap.txt").write_text("")
        with pytest.raises(BadInput, match=r"vmap\.txt: is empty"):
            CTranslate2Runner(directory)


def generating(directory):
    return f"""
import sys
from pathlib import Path
from bertram.batch import Batch
from bertram.search import Hypothesis, Search
from bertram.inference.ctranslate2_runner import CTranslate2Runner

runner = CTranslate2Runner(Path({str(directory)!r}), threads=1)
[[best]] = runner.generate(Batch.pack([[5, 9, 7, 1]]), Search(beam_size=2, max_length=16))
print(best.ids, "torch" in sys.modules)
"""


@pytest.mark.parametrize("before", [WITHOUT_TORCH, ""], ids=["not installed", "installed"])
def test_it_runs_without_torch(plain, before):
    runner = plain[1]
    [[best]] = runner.generate(Batch.pack([[5, 9, 7, 1]]), Search(beam_size=2, max_length=16))
    run = run_python(before + generating(runner.directory))
    assert (run.stdout, run.stderr) == (f"{best.ids} False\n", "")


def test_it_says_which_extra_brings_the_library(plain):
    program = """
import sys
sys.modules["ctranslate2"] = None
"""
    run = run_python(program + generating(plain[1].directory))
    assert "BadInput: ctranslate2 is not installed; it comes with: pip install 'bertram[ctranslate2]'" in run.stderr
