"""Translation beside its peers: training and JoeyNMT, decoding and transformers' generate, and the artifact's memory.

    python benchmarks/translation.py train --joeynmt JOEYNMT/bin/python --data ../shared/data --rounds 3
    python benchmarks/translation.py decode --model MODEL --artifact ARTIFACT --data ../shared/data --rounds 3
    python benchmarks/translation.py memory --artifact ARTIFACT --data ../shared/data --rounds 3
    python benchmarks/translation.py greedy --model MODEL --artifact ARTIFACT --data ../shared/data
    python benchmarks/translation.py score HYPOTHESES REFERENCES
    python benchmarks/translation.py words TEXT OUT --language de

train: target tokens a second and the loss by step of a Transformer-tiny (4 + 4 layers, 128 wide) on Multi30k English
to German, beside JoeyNMT 2.3.0, whose environment is its own:

    python -m venv JOEYNMT
    JOEYNMT/bin/pip install --no-deps joeynmt==2.3.0
    JOEYNMT/bin/pip install torch numpy tensorboard tqdm pyyaml packaging setuptools importlib_metadata sacrebleu \\
        sentencepiece subword-nmt matplotlib

What both count, and what they do not. A "4,096-token batch" is by JoeyNMT's rule: sentence pairs are added until the
longest side of any, its end token counted, times the number of pairs comes to 4,096. That counts padding, and of the
two sides only the longer. Drawn from shuffled text, as JoeyNMT does, such a batch holds far fewer real tokens than
drawn from text sorted by length, as other toolkits do; both are measured (`--orders`), and the table says how many.
Speed counts, on both sides, real target tokens with their end tokens: no padding, no start token, no source. The work
is the same: batches are drawn once, every contestant is given the same sentence pairs, as the same ids, in the same
steps, with the same dropout everywhere (0.3: embeddings, attention, feed-forward, residuals), label smoothing, rate
and Adam, and no gradient is clipped. JoeyNMT computes in float32, having no other on a CPU, Bertram in bfloat16 where
the processor has it. JoeyNMT's loss is a divergence from the smoothed targets; their entropy is added here, which makes
it the cross entropy a token that Bertram reports.

JoeyNMT runs as it comes but for two things: its sampler is given the batches (which spares it drawing them), and its
schedule is set before the first update, which would otherwise be taken at the peak rate.

decode: sentences and output tokens a second, beam 5, on test_2016_flickr, of one model in Marian's format: ours in
torch, our CTranslate2 artifact, and transformers' generate at its best of batches of 32 and 64, in arrival order and
sorted by length, in float32 and bfloat16. Ids in, ids out, loading and the first batch's warming up left out. Outputs
are compared, since a search that stops early is fast; the column "same" is the share of sentences whose best
hypothesis is that of generate in float32. memory: the peak of a process without torch that reads the artifact and the
test text and translates it.

greedy: for how many sentences of the test text the artifact, exported in float32, writes the same text by greedy search
as the model does in torch. score: sacreBLEU's BLEU (13a) and chrF2 of lines against lines, and, where sacremoses is
installed, BLEU of words cut by Moses, cased and in lower case. words: writes the words of a text as the published
figures of Multi30k count them, to train on: punctuation normalised, in lower case, cut by Moses, a space between.

Every run that is measured is a process of its own, the contestants take turns, and medians over the rounds are
printed, with the ratio of each round. Nothing else may run meanwhile.
"""

import argparse
import gzip
import itertools
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from turns import Figures, median, ratios, take_turns

Ids = list[list[int]]

SOURCE, TARGET, TEST = "en", "de", "test_2016_flickr"
VOCABULARY, SPECIAL = 10000, ["<pad>", "</s>", "<unk>"]
LAYERS, WIDTH, INTERMEDIATE, HEADS, DROPOUT = 4, 128, 256, 4, 0.3
LABEL_SMOOTHING, LEARNING_RATE, SCHEDULE_WARM_UP, BETAS = 0.1, 0.005, 2000, (0.9, 0.999)
BATCH_TOKENS, WARM_UP = 4096, 4
BEAM, LENGTH_PENALTY, MAX_LENGTH = 5, 1.0, 100
DECODED_TOKENS = 2048
ORDERS = ["shuffled", "by-length"]
SETTINGS = [
    f"{order}-{size}-{precision}"
    for order, size, precision in itertools.product(["arrival", "by-length"], [32, 64], ["float32", "bfloat16"])
]


# --- Training --------------------------------------------------------------------------------------------------------


def lines(data: Path, part: str, language: str) -> list[str]:
    return lines_of(data / f"multi30k_en_de/{part}.{language}.gz")


def lines_of(path: Path) -> list[str]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="\n") as file:
        return [line.rstrip("\n") for line in file]


def learn(texts: Iterable[str]) -> Any:
    """A byte-pair encoding of both languages; SPECIAL have the first ids."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[2]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=SPECIAL, show_progress=False)
    )
    return tokenizer


def prepare_training(data: Path, scratch: Path, steps: int) -> dict[str, dict[str, float]]:
    """The training text as ids (train.json, and as JoeyNMT reads it) and the batches of each order; their sizes."""
    texts = {language: lines(data, "train", language) for language in (SOURCE, TARGET)}
    tokenizer = learn([*texts[SOURCE], *texts[TARGET]])
    ids = {
        language: [row.ids for row in tokenizer.encode_batch(rows, add_special_tokens=False)]
        for language, rows in texts.items()
    }
    write(scratch / "train.json", {"vocabulary": tokenizer.get_vocab_size(), **ids})
    for language, rows in ids.items():
        words = "".join(" ".join(map(str, row)) + "\n" for row in rows)
        (scratch / f"train.{language}").write_text(words, encoding="utf-8")
    words = "".join(f"{number}\n" for number in range(len(SPECIAL), tokenizer.get_vocab_size()))
    (scratch / "vocabulary.txt").write_text(words, encoding="utf-8")
    lengths = [(len(source) + 1, len(target) + 1) for source, target in zip(ids[SOURCE], ids[TARGET], strict=True)]
    sizes = {}
    for order in ORDERS:
        batches = draw([max(pair) for pair in lengths], steps, order)
        write(scratch / f"batches-{order}.json", batches)
        targets = [[lengths[number][1] for number in batch] for batch in batches]
        sizes[order] = {
            "pairs a step": statistics.mean(map(len, batches)),
            "target tokens a step": statistics.mean(map(sum, targets)),
            "padded": statistics.mean(max(batch) * len(batch) for batch in targets),
        }
    return sizes


def draw(lengths: Sequence[int], steps: int, order: str) -> Ids:
    """Numbers of the pairs of each step, by JoeyNMT's rule; `lengths` are those of each pair's longer side."""
    generator, batches = random.Random(0), []
    while len(batches) < steps:
        numbers = list(range(len(lengths)))
        generator.shuffle(numbers)
        if order == "by-length":
            numbers.sort(key=lengths.__getitem__)
        epoch, batch, longest = [], [], 0
        for number in numbers:
            batch.append(number)
            longest = max(longest, lengths[number])
            if longest * len(batch) >= BATCH_TOKENS:
                epoch.append(batch)
                batch, longest = [], 0
        if order == "by-length":
            generator.shuffle(epoch)
        batches += epoch
    return batches[:steps]


def train_bertram(scratch: Path, order: str) -> dict[str, Any]:
    """Ours: batch i of batches-ORDER.json names the pairs of step i, whose ids without end tokens are in train.json."""
    import torch

    from bertram.batch import Batch, Examples
    from bertram.config import TRANSFORMERS, TransformerConfig
    from bertram.models.transformer import HEAD, Transformer
    from bertram.training.distributed import Processes
    from bertram.training.loop import Loop
    from bertram.training.recipe import Recipe
    from bertram.training.setup import Evaluation, TrainingSetup

    text, batches = read(scratch / "train.json"), read(scratch / f"batches-{order}.json")
    pad, end = SPECIAL.index("<pad>"), SPECIAL.index("</s>")
    examples = Examples(
        Batch.pack([[*row, end] for row in text[SOURCE]]),
        token_labels={HEAD: np.array([token for row in text[TARGET] for token in (*row, end)], np.int32)},
        inputs_b=Batch.pack([[pad, *row] for row in text[TARGET]]),
    )
    marks: list[tuple[float, int]] = []

    class Drawn:
        """The batches of all steps, whichever is asked for."""

        start, steps_per_epoch, tokens_per_step = (0, 0), len(batches), 1.0

        def take(self, position: tuple[int, ...]) -> tuple[Examples, tuple[int, ...]]:
            batch = examples.select(batches[position[1]])
            marks.append((time.perf_counter(), (marks[-1][1] if marks else 0) + batch.tokens))
            return batch, (0, position[1] + 1)

    stack = replace(
        TRANSFORMERS["transformer-tiny"].encoder,
        **{"vocab_size": text["vocabulary"], "attention_probs_dropout_prob": DROPOUT, "activation_dropout": DROPOUT},
    )
    recipe = Recipe(
        **{"steps": len(batches), "weight_decay": 0.0, "max_grad_norm": 1e9, "evaluations": 1},
        **{"log_every": 1, "save_every": 10**9, "schedule": "inverse-sqrt"},
        # A run shorter than the warm-up ends where JoeyNMT's rate stands by then, not at the highest.
        learning_rate=LEARNING_RATE * min(1.0, len(batches) / SCHEDULE_WARM_UP),
        warmup=min(1.0, SCHEDULE_WARM_UP / len(batches)),
    )
    losses: list[float] = []
    torch.manual_seed(0)
    network = Transformer(TransformerConfig(encoder=stack, decoder=stack))
    network.head.label_smoothing = LABEL_SMOOTHING
    setup = TrainingSetup(network=network, feed=Drawn(), evaluate=lambda: Evaluation(0.0, {}))

    def report(line: dict[str, Any]) -> None:
        if "loss" in line:
            losses.append(line["loss"])

    with tempfile.TemporaryDirectory() as out:
        Loop(setup, recipe, Path(out), Processes(0, 1, torch.device("cpu")), report).run()
    return training_figures(marks, losses)


def train_joeynmt(scratch: Path, order: str) -> dict[str, Any]:
    from joeynmt.config import parse_global_args, set_validation_args
    from joeynmt.datasets import TokenBatchSampler
    from joeynmt.prediction import prepare
    from joeynmt.training import TrainManager

    batches = read(scratch / f"batches-{order}.json")
    marks: list[tuple[float, int]] = []
    losses: list[float] = []

    class Trainer(TrainManager):
        def _train_step(self, batch: Any) -> tuple[float, int]:
            marks.append((time.perf_counter(), marks[-1][1] + batch.ntokens if marks else batch.ntokens))
            loss, correct = super()._train_step(batch)
            losses.append(loss)
            return loss, correct

    TokenBatchSampler.__iter__ = lambda sampler: iter(batches)  # one epoch of all the steps
    with tempfile.TemporaryDirectory() as out:
        settings = parse_global_args(joeynmt_settings(scratch, Path(out)), rank=0, mode="train")
        model, texts, _, _ = prepare(settings, rank=0, mode="train")
        trainer = Trainer(
            rank=0,
            model=model,
            model_dir=settings.model_dir,
            device=settings.device,
            autocast=settings.autocast,
            seed=settings.seed,
            train_args=settings.train,
            dev_args=set_validation_args(settings.test),
        )
        trainer.scheduler.step(0)
        trainer.train_and_validate(train_data=texts, valid_data=texts)  # it never comes to a validation
    pieces = len(model.trg_vocab)
    return training_figures(marks, [loss + smoothed_entropy(pieces) for loss in losses])


def joeynmt_settings(scratch: Path, out: Path) -> dict[str, Any]:
    def side(language: str) -> dict[str, Any]:
        return {"lang": language, "level": "word", "voc_file": str(scratch / "vocabulary.txt")}

    stack = {
        **{"type": "transformer", "num_layers": LAYERS, "num_heads": HEADS, "hidden_size": WIDTH},
        **{"ff_size": INTERMEDIATE, "dropout": DROPOUT, "layer_norm": "post", "activation": "relu"},
        "embeddings": {"embedding_dim": WIDTH, "scale": True, "dropout": DROPOUT},
    }
    return {
        **{"name": "tiny", "model_dir": str(out), "use_cuda": False, "random_seed": 0},
        "data": {
            **{"train": str(scratch / "train"), "dataset_type": "plain"},
            **{"src": side(SOURCE), "trg": side(TARGET)},
        },
        "training": {
            **{"optimizer": "adam", "adam_betas": list(BETAS), "learning_rate": LEARNING_RATE},
            **{"scheduling": "warmupinversesquareroot", "learning_rate_warmup": SCHEDULE_WARM_UP},
            **{"learning_rate_min": 1e-9, "label_smoothing": LABEL_SMOOTHING, "normalization": "tokens"},
            **{"batch_size": BATCH_TOKENS, "batch_type": "token", "epochs": 1},
            **{"logging_freq": 100, "validation_freq": 10**6},
        },
        "testing": {},
        "model": {"tied_embeddings": True, "tied_softmax": True, "encoder": stack, "decoder": stack},
    }


def smoothed_entropy(pieces: int) -> float:
    """Nats of a target smoothed as JoeyNMT does: over all pieces but itself and padding."""
    return -(1 - LABEL_SMOOTHING) * math.log(1 - LABEL_SMOOTHING) - LABEL_SMOOTHING * math.log(
        LABEL_SMOOTHING / (pieces - 2)
    )


def training_figures(marks: list[tuple[float, int]], losses: list[float]) -> dict[str, Any]:
    """`marks` are taken when each step begins: the time, and all target tokens up to that step's own."""
    from bertram.memory import peak_memory_mb

    (start, _), (end, _) = marks[WARM_UP], marks[-1]
    tokens = marks[-2][1] - marks[WARM_UP - 1][1]
    return {"tokens_per_second": tokens / (end - start), "losses": losses, "peak_memory_mb": peak_memory_mb()}


def contest_training(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    sizes = prepare_training(options.data, scratch, WARM_UP + options.steps + 1)
    rows = []
    for order in options.orders:
        found = contest(options, scratch, [(name, order) for name in options.contestants])
        for (name, _), runs in found.items():
            losses = runs[0]["losses"]
            quarter = -(-len(losses) // 4)
            rows.append(
                {
                    **{"batches": order, "contestant": name},
                    **{key: f"{value:,.0f}" for key, value in sizes[order].items()},
                    "target tokens/s": f"{median(runs, 'tokens_per_second'):,.0f}",
                    "ratio, each round": written(ratios(next(iter(found.values())), runs, "tokens_per_second")),
                    "loss by quarter": " ".join(
                        f"{statistics.mean(losses[i : i + quarter]):.3f}" for i in range(0, len(losses), quarter)
                    ),
                    "peak MB": f"{median(runs, 'peak_memory_mb'):,.0f}",
                }
            )
            keep(options, f"train-{order}-{name}", runs)
    return rows


# --- Decoding --------------------------------------------------------------------------------------------------------


def prepare_decoding(data: Path, model: Path, scratch: Path, sentences: int | None) -> None:
    """The test text's ids, end tokens included, in sources.json."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    ids = [row.ids for row in tokenizer.encode_batch(lines(data, TEST, SOURCE)[:sentences])]
    end = read(model / "config.json")["eos_token_id"]
    if any(row[-1] != end for row in ids):
        raise SystemExit(f"{model}: its tokenizer does not close a text with the model's end token, {end}")
    write(scratch / "sources.json", ids)


def decode_bertram(options: argparse.Namespace, sources: Ids) -> tuple[float, Ids]:
    """Ours in torch from --model: the seconds taken and the best hypotheses, without start and end tokens."""
    from bertram.model_directory import ModelDirectory
    from bertram.training.torch_runner import TorchGenerator

    return search(TorchGenerator(ModelDirectory(options.model).read_transformer()), sources)


def decode_ctranslate2(options: argparse.Namespace, sources: Ids) -> tuple[float, Ids]:
    """Ours from --artifact, without torch: the same."""
    from bertram.inference.ctranslate2_runner import CTranslate2Runner

    return search(CTranslate2Runner(options.artifact), sources)


def search(runner: Any, sources: Ids) -> tuple[float, Ids]:
    """All sources in the batches that `Generator` makes, the first of them once more before the clock runs."""
    from bertram.batch import Batch, budgeted
    from bertram.search import Search

    settings = Search(beam_size=BEAM, length_penalty=LENGTH_PENALTY, max_length=MAX_LENGTH)
    batch, found = Batch.pack(sources), [[] for _ in sources]
    runs = budgeted(batch.lengths, DECODED_TOKENS)
    runner.generate(batch.select(runs[0]), settings)
    began = time.perf_counter()
    for rows in runs:
        for row, (best, *_) in zip(rows, runner.generate(batch.select(rows), settings), strict=True):
            found[row] = best.ids
    return time.perf_counter() - began, found


def decode_transformers(options: argparse.Namespace, sources: Ids) -> tuple[float, Ids]:
    import torch
    from transformers import MarianMTModel

    order, size, precision = options.setting.rsplit("-", 2)
    network = MarianMTModel.from_pretrained(options.model, dtype=getattr(torch, precision)).eval()
    pad, end = network.config.pad_token_id, network.config.eos_token_id
    numbers = list(range(len(sources)))
    if order == "by-length":
        numbers.sort(key=lambda number: -len(sources[number]))
    batches = [numbers[i : i + int(size)] for i in range(0, len(numbers), int(size))]

    def generate(batch: list[int]) -> Ids:
        rows = [torch.tensor(sources[number]) for number in batch]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        return network.generate(
            input_ids=ids,
            attention_mask=mask,
            num_beams=BEAM,
            do_sample=False,
            early_stopping=False,
            length_penalty=LENGTH_PENALTY,
            max_new_tokens=MAX_LENGTH,
        ).tolist()

    generate(batches[0])
    began = time.perf_counter()
    answers = [generate(batch) for batch in batches]
    seconds = time.perf_counter() - began
    found: Ids = [[] for _ in sources]
    for number, row in zip(itertools.chain(*batches), itertools.chain(*answers), strict=True):
        found[number] = list(itertools.takewhile(lambda token: token not in (pad, end), row[1:]))
    return seconds, found


def decode(options: argparse.Namespace) -> dict[str, Any]:
    from bertram.memory import peak_memory_mb

    contestant = {"bertram": decode_bertram, "ctranslate2": decode_ctranslate2, "transformers": decode_transformers}
    seconds, hypotheses = contestant[options.run](options, read(options.scratch / "sources.json"))
    return {
        "sentences_per_second": len(hypotheses) / seconds,
        "tokens_per_second": sum(len(row) + 1 for row in hypotheses) / seconds,
        "hypotheses": hypotheses,
        "peak_memory_mb": peak_memory_mb(),
    }


def contest_decoding(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    prepare_decoding(options.data, options.model, scratch, options.sentences)
    runs_of = [
        (name, setting)
        for name in options.contestants
        for setting in (options.settings if name == "transformers" else [""])
    ]
    found = contest(options, scratch, runs_of)
    peers = {run: results for run, results in found.items() if run[0] == "transformers"}
    best = max(peers.values(), key=lambda runs: median(runs, "sentences_per_second"), default=None)
    exact = next((runs for (_, setting), runs in peers.items() if setting.endswith("float32")), None)
    rows = []
    for (name, setting), runs in found.items():
        hypotheses = runs[0]["hypotheses"]
        rows.append(
            {
                **{"contestant": name, "setting": setting},
                "sentences/s": f"{median(runs, 'sentences_per_second'):,.1f}",
                "output tokens/s": f"{median(runs, 'tokens_per_second'):,.0f}",
                "to generate's best, each round": written(ratios(runs, best, "sentences_per_second")) if best else "",
                "same": f"{same(hypotheses, exact[0]['hypotheses']):.1%}" if exact else "",
                "peak MB": f"{median(runs, 'peak_memory_mb'):,.0f}",
            }
        )
        keep(options, f"decode-{name}-{setting}".rstrip("-"), runs)
    return rows


def same(hypotheses: Ids, others: Ids) -> float:
    return statistics.mean(a == b for a, b in zip(hypotheses, others, strict=True))


# --- Memory ----------------------------------------------------------------------------------------------------------


def translate(artifact: Path, texts: list[str]) -> list[str]:
    """Ours, without torch."""
    from bertram.artifacts import load_generator

    return load_generator(artifact).write(texts)


def memory(options: argparse.Namespace) -> dict[str, Any]:
    from bertram.memory import peak_memory_mb

    translations = translate(options.artifact, lines(options.data, TEST, SOURCE)[: options.sentences])
    if "torch" in sys.modules:
        raise SystemExit("torch was imported: this process measures nothing")
    return {"translations": translations, "peak_memory_mb": peak_memory_mb()}


def contest_memory(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    (runs,) = contest(options, scratch, [("bertram", "")]).values()
    keep(options, "memory", runs)
    return [{"sentences": len(runs[0]["translations"]), "peak MB": f"{median(runs, 'peak_memory_mb'):,.1f}"}]


# --- Quality ----------------------------------------------------------------------------------------------------------


def compare_greedy(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    from bertram.artifacts import load_generator
    from bertram.search import Search

    texts = lines(options.data, TEST, SOURCE)[: options.sentences]
    ours, theirs = (
        load_generator(path).write(texts, Search(beam_size=1)) for path in (options.model, options.artifact)
    )
    return [{"sentences": len(texts), "the same text": sum(map(str.__eq__, ours, theirs))}]


def score(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    from bertram.tasks.sequence_to_sequence import Translation

    hypotheses, references = lines_of(options.hypotheses), lines_of(options.references)
    if len(hypotheses) != len(references):
        raise SystemExit(f"{options.hypotheses}: {len(hypotheses):,} lines, {options.references}: {len(references):,}")
    found = [(each.value, each.signature) for each in Translation().scores(hypotheses, [[text] for text in references])]
    if find_spec("sacremoses"):
        found += scores_by_moses(hypotheses, references, options.language)
    return [{"score": f"{value:.2f}", "signature": signature.replace("|", " ")} for value, signature in found]


def scores_by_moses(hypotheses: list[str], references: list[str], language: str) -> list[tuple[float, str]]:
    """BLEU of words cut by Moses, cased and in lower case, and how each was computed.

    The second is how the published figures of Multi30k are computed: its references of test_2016_flickr have 12,103
    words, as fairseq prints for them (Wu et al. 2021, https://github.com/LividWo/Revisit-MMT, README-baseline.md).
    """
    from sacrebleu.metrics import BLEU

    found = []
    for lower in (False, True):
        hypothesis, reference = (words_by_moses(side, language, lower=lower) for side in (hypotheses, references))
        metric = BLEU(tokenize="none", force=True)
        score = metric.corpus_score(hypothesis, [reference])
        kind = f"moses:sacremoses-{version('sacremoses')}|in lower case:{lower}"
        found.append((score.score, f"BLEU|{metric.get_signature()}|{kind}|reference words:{score.ref_len}"))
    return found


def words_by_moses(texts: list[str], language: str, *, lower: bool) -> list[str]:
    """Texts with their punctuation normalised and a space between words."""
    from sacremoses import MosesPunctNormalizer, MosesTokenizer

    normalizer, tokenizer = MosesPunctNormalizer(language), MosesTokenizer(language)
    normal = (normalizer.normalize(text.lower() if lower else text) for text in texts)
    return [tokenizer.tokenize(text, return_str=True, escape=False) for text in normal]


def cut_words(options: argparse.Namespace, scratch: Path) -> list[dict[str, Any]]:
    texts = words_by_moses(lines_of(options.text), options.language, lower=True)
    options.out.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return [{"lines": len(texts), "words": sum(len(text.split()) for text in texts)}]


# --- All of them -----------------------------------------------------------------------------------------------------


def contest(
    options: argparse.Namespace, scratch: Path, runs: list[tuple[str, str]]
) -> dict[tuple[str, str], list[Figures]]:
    """The results of each contestant and setting."""
    commands = {}
    for name, setting in runs:
        python = options.joeynmt if name == "joeynmt" else sys.executable
        command = [python, __file__, options.what, "--run", name, "--setting", setting, "--scratch", scratch]
        for option in ("data", "model", "artifact", "sentences"):
            if getattr(options, option, None) is not None:
                command += [f"--{option}", getattr(options, option)]
        commands[name, setting] = command
    # JoeyNMT's environment need not have Bertram installed.
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    return take_turns(commands, options.rounds, environment)


def written(times: list[float]) -> str:
    """The median ratio, and that of each round."""
    return f"{statistics.median(times):.2f} ({', '.join(f'{ratio:.2f}' for ratio in times)})"


def show(rows: list[dict[str, Any]]) -> None:
    print("| " + " | ".join(rows[0]) + " |\n|" + "---|" * len(rows[0]))
    for row in rows:
        print("| " + " | ".join(map(str, row.values())) + " |")


def keep(options: argparse.Namespace, name: str, runs: list[dict[str, Any]]) -> None:
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        write(options.out / f"{name}.json", runs)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value) + "\n", encoding="utf-8")


def arguments() -> argparse.ArgumentParser:
    text = argparse.ArgumentParser(add_help=False)
    text.add_argument("--data", type=Path, default=Path("../shared/data"))
    common = argparse.ArgumentParser(add_help=False, parents=[text])
    common.add_argument("--rounds", type=int, default=3)
    common.add_argument("--out", type=Path, help="a directory for every run's figures, losses and hypotheses")
    common.add_argument("--run", help=argparse.SUPPRESS)
    common.add_argument("--setting", default="", help=argparse.SUPPRESS)
    common.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    parser = argparse.ArgumentParser()
    parser.set_defaults(run=None)
    what = parser.add_subparsers(dest="what", required=True)
    train = what.add_parser("train", parents=[common])
    train.add_argument("--joeynmt", type=Path, help="the Python of the environment that JoeyNMT is installed in")
    train.add_argument("--steps", type=int, default=20)
    train.add_argument("--orders", nargs="+", choices=ORDERS, default=ORDERS)
    train.add_argument("--contestants", nargs="+", choices=["bertram", "joeynmt"], default=["bertram", "joeynmt"])
    decoding = what.add_parser("decode", parents=[common])
    decoding.add_argument("--model", type=Path, required=True, help="a directory in the format of MarianMTModel")
    decoding.add_argument("--artifact", type=Path, help="the same, exported to CTranslate2")
    decoding.add_argument("--settings", nargs="+", choices=SETTINGS, default=SETTINGS, help="of transformers")
    decoding.add_argument("--sentences", type=int, help="only the first so many")
    contestants = ["bertram", "ctranslate2", "transformers"]
    decoding.add_argument("--contestants", nargs="+", choices=contestants, default=contestants)
    remembering = what.add_parser("memory", parents=[common])
    remembering.add_argument("--artifact", type=Path, required=True)
    remembering.add_argument("--sentences", type=int, help="only the first so many")
    greedy = what.add_parser("greedy", parents=[text])
    greedy.add_argument("--model", type=Path, required=True)
    greedy.add_argument("--artifact", type=Path, required=True, help="the same, exported to CTranslate2 in fp32")
    greedy.add_argument("--sentences", type=int, help="only the first so many")
    scoring = what.add_parser("score")
    scoring.add_argument("hypotheses", type=Path, help="a translation a line")
    scoring.add_argument("references", type=Path, help="the right one a line, .gz or not")
    cutting = what.add_parser("words")
    cutting.add_argument("text", type=Path, help="a sentence a line, .gz or not")
    cutting.add_argument("out", type=Path)
    for command in (scoring, cutting):
        command.add_argument("--language", default=TARGET, help="whose rules sacremoses follows")
    return parser


def main() -> None:
    parser = arguments()
    options = parser.parse_args()
    if options.run:
        if options.what == "train":
            contestant = {"bertram": train_bertram, "joeynmt": train_joeynmt}[options.run]
            answer = contestant(options.scratch, options.setting)
        else:
            answer = {"decode": decode, "memory": memory}[options.what](options)
        print(json.dumps(answer))
        return
    if options.what == "train" and "joeynmt" in options.contestants and not options.joeynmt:
        parser.error("--joeynmt is missing, or leave JoeyNMT out by --contestants bertram")
    if options.what == "decode" and "ctranslate2" in options.contestants and not options.artifact:
        parser.error("--artifact is missing, or leave ctranslate2 out by --contestants")
    compared = {
        **{"train": contest_training, "decode": contest_decoding, "memory": contest_memory},
        **{"greedy": compare_greedy, "score": score, "words": cut_words},
    }[options.what]
    with tempfile.TemporaryDirectory() as scratch:
        show(compared(options, Path(scratch)))


if __name__ == "__main__":
    main()
