"""Pre-training beside transformers: a step, the data path alone, and a corpus made ready.

    python benchmarks/pretraining.py step --data ../shared/data
    python benchmarks/pretraining.py gpu --data ../shared/data --models bert-mini albert-mini bert-base
    python benchmarks/pretraining.py data --data ../shared/data
    python benchmarks/pretraining.py corpus --data ../shared/data

step: real tokens a second of an optimizer step over about 8,192 tokens of the novels, in sequences of at most 128,
beside Bert- or AlbertForPreTraining on the very same sequences, padded to the longest of a batch, with logits of the
whole vocabulary at every position; both with fused AdamW, transformers in bfloat16 and Bertram too, unless it finds
float32 faster. data_share is the data path's share of our step: the feed, the tensors, and a step's part of building a
block, which serves many steps and is timed by itself, because the first one is built before the clock starts. gpu:
likewise over about 32,768 tokens on a GPU, each as it is and compiled, and with Bertram's attention in padded blocks as
on a CPU. data: the feed of a step alone, beside DataCollatorForLanguageModeling, which masks and pads the same
sequences, but neither cuts nor pairs them. corpus: learning a tokenizer and building the store for 100 MB of text, the
corpora repeated. Every run is a process of its own, and the contestants take turns. Nothing else may run meanwhile.
"""

import argparse
import gzip
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from turns import summary, take_turns

MODELS = ("bert-mini", "albert-mini")
WARM_UP, STEPS = 3, 10
GPU_BATCHES, GPU_WARM_UP, GPU_STEPS = 4, 20, 80
"""As many batches at once as are one on a CPU. Warm-up is longer: what is compiled meets new cases for a while."""
MAX_LENGTH, BATCH_SIZE = 128, 64
SEQUENCES = 16384


def prepare(data: Path, scratch: Path, models: Sequence[str]) -> None:
    """A tokenizer of each kind and a store of the novels for each."""
    from bertram.config import PRESETS
    from bertram.corpus import store
    from bertram.corpus.parts import corpus_files
    from bertram.corpus.source import Corpus
    from bertram.progress import silent
    from bertram.text.tokenizer import Tokenizer

    novels = Corpus(corpus_files([data / "corpus_en_novels"]), "file")
    for name in models:
        sizes = PRESETS[name]
        tokenizer = Tokenizer.train(novels.sentences(silent), sizes.model_type, sizes.vocab_size)
        tokenizer.save(scratch / name)
        store.build(novels.parts, tokenizer, scratch / name / "store", None)


def blocks(scratch: Path, model: str, batches: int = 1) -> Any:
    from bertram.config import PRESETS
    from bertram.corpus.blocks import Blocks
    from bertram.corpus.store import TokenStore
    from bertram.text.tokenizer import Tokenizer

    return Blocks(
        TokenStore.open(scratch / model / "store"),
        Tokenizer.load(scratch / model),
        PRESETS[model].sentence_objective,
        "token",
        max_length=MAX_LENGTH,
        batch_tokens=batches * BATCH_SIZE * MAX_LENGTH,
        seed=0,
    )


def settings(device: str) -> tuple[int, int, int]:
    """Batches of a CPU that a step takes, and steps before and while it is timed."""
    return (GPU_BATCHES, GPU_WARM_UP, GPU_STEPS) if device == "cuda" else (1, WARM_UP, STEPS)


def step_bertram(
    scratch: Path, model: str, device: str = "cpu", *, compiled: bool = True, padded: bool = False
) -> dict[str, float]:
    import torch

    from bertram.config import PRESETS
    from bertram.models import layout
    from bertram.models.heads import Model
    from bertram.training.distributed import Processes
    from bertram.training.loop import Loop
    from bertram.training.recipe import Recipe
    from bertram.training.setup import Evaluation, TrainingSetup

    marks: list[tuple[float, int]] = []
    shares: list[float] = []

    def report(line: dict[str, Any]) -> None:
        if "loss" in line:
            marks.append((time.perf_counter(), line["tokens"]))
            shares.append(line["data_share"])

    if padded:
        layout._HALVES = ()
    batches, warm_up, steps = settings(device)
    feed = blocks(scratch, model, batches=batches)
    config = replace(PRESETS[model], vocab_size=feed.tokenizer.vocab_size)
    a_pass = Recipe.max_tokens if device == "cpu" else feed.batch_tokens
    recipe = Recipe(
        **{"steps": warm_up + steps, "learning_rate": 1e-3, "evaluations": 1, "save_every": 10**6},
        **{
            "compile": compiled,
            "max_tokens": a_pass,
        },
    )
    setup = TrainingSetup(
        network=Model(config, {"masked_language_model": 0, "sentence_pair": 2}),
        feed=feed,
        evaluate=lambda: Evaluation(0.0, {}),
    )
    with tempfile.TemporaryDirectory() as out:
        Loop(setup, recipe, Path(out), Processes(0, 1, torch.device(device)), report).run()
    found, building = speed(marks, warm_up - 1), block_seconds(feed)
    seconds = found["median_step_seconds"]
    data = statistics.mean(shares[warm_up:]) * seconds + building
    return found | {"data_share": data / (seconds + building)}


def block_seconds(feed: Any) -> float:
    """What building a block of the next epoch takes for each batch in it."""
    began = time.perf_counter()
    feed.take((1, 0, 0))
    return (time.perf_counter() - began) * feed.blocks / feed.steps_per_epoch


def step_transformers(
    scratch: Path, model: str, device: str = "cpu", *, compiled: bool = False, bf16: bool = True
) -> dict[str, float]:
    import torch
    import transformers

    from bertram.config import PRESETS
    from bertram.formats.huggingface import write
    from bertram.models.heads import Model

    batches, warm_up, steps = settings(device)
    feed = blocks(scratch, model, batches=batches)
    config = replace(PRESETS[model], vocab_size=feed.tokenizer.vocab_size)
    with tempfile.TemporaryDirectory() as directory:
        write(Model(config, {"masked_language_model": 0, "sentence_pair": 2}), Path(directory))
        network = transformers.AutoModelForPreTraining.from_pretrained(directory)
    pair_label = "next_sentence_label" if config.model_type == "bert" else "sentence_order_label"
    network.train().to(device)
    if compiled:
        network.compile(dynamic=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    marks, position, tokens = [], feed.start, 0
    for _ in range(warm_up + steps):
        batch, position = feed.take(position)
        pairs = torch.from_numpy(batch.labels["sentence_pair"]).long()
        ids, segments, targets, pairs = (tensor.to(device) for tensor in (*padded(batch), pairs))
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = network(
                input_ids=ids,
                token_type_ids=segments,
                attention_mask=(ids != feed.tokenizer.pad_id).long(),
                labels=targets,
                **{pair_label: pairs},
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        tokens += len(batch.inputs.token_ids)
        loss.item()  # a GPU is waited for, as anyone who reports losses does
        marks.append((time.perf_counter(), tokens))
    return speed(marks, warm_up - 1)


def padded(batch: Any) -> tuple[Any, ...]:
    """Ids, segments and targets [B, S]; 0 is both vocabularies' padding."""
    import torch

    kinds = [
        (batch.inputs.token_ids, 0),
        (batch.inputs.segment_ids, 0),
        (batch.token_labels["masked_language_model"], -100),
    ]
    rows = [[torch.from_numpy(values[a:b]).long() for a, b in spans(batch.inputs.offsets)] for values, _ in kinds]
    return tuple(
        torch.nn.utils.rnn.pad_sequence(row, batch_first=True, padding_value=fill)
        for row, (_, fill) in zip(rows, kinds, strict=True)
    )


def spans(offsets: Any) -> list[tuple[int, int]]:
    return list(zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True))


def data_bertram(scratch: Path, model: str) -> dict[str, float]:
    feed = blocks(scratch, model)
    marks, position, tokens, sequences = [(time.perf_counter(), 0)], (1, 0, 0), 0, 0  # the first epoch's block is made
    while sequences < SEQUENCES:
        batch, position = feed.take(position)
        tokens, sequences = tokens + len(batch.inputs.token_ids), sequences + len(batch)
    marks.append((time.perf_counter(), tokens))
    return speed(marks, 0)


def data_collator(scratch: Path, model: str) -> dict[str, float]:
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling

    feed = blocks(scratch, model)
    sequences: list[dict[str, list[int]]] = []
    position = feed.start
    while len(sequences) < SEQUENCES:
        batch, position = feed.take(position)
        sequences += [{"input_ids": batch.inputs.token_ids[a:b].tolist()} for a, b in spans(batch.inputs.offsets)]
    collate = DataCollatorForLanguageModeling(AutoTokenizer.from_pretrained(scratch / model))
    batches = [sequences[i : i + BATCH_SIZE] for i in range(0, SEQUENCES, BATCH_SIZE)]
    collate(batches[0])
    began = time.perf_counter()
    for rows in batches:
        collate(rows)
    tokens = sum(len(row["input_ids"]) for rows in batches for row in rows)
    return speed([(began, 0), (time.perf_counter(), tokens)], 0)


def corpus_bertram(scratch: Path, model: str) -> dict[str, float]:
    """Seconds for the tokenizer and the store of SCRATCH/corpus, and this process's peak memory."""
    from bertram.config import PRESETS
    from bertram.corpus import store
    from bertram.corpus.parts import corpus_files
    from bertram.corpus.source import Corpus
    from bertram.memory import peak_memory_mb
    from bertram.progress import silent
    from bertram.text.tokenizer import Tokenizer

    text = Corpus(corpus_files([scratch / "corpus"]), "blank-line")
    sizes = PRESETS[model]
    began = time.perf_counter()
    tokenizer = Tokenizer.train(text.sentences(silent), sizes.model_type, sizes.vocab_size)
    learned = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        store.build(text.parts, tokenizer, Path(out), None)
        tokens = len(store.TokenStore.open(Path(out)).tokens)
    done = time.perf_counter()
    return {
        **{"megabytes": round(sum(file.stat().st_size for file in text.files) / 1e6, 1), "tokens": tokens},
        **{"tokenizer_seconds": learned - began, "store_seconds": done - learned, "peak_memory_mb": peak_memory_mb()},
    }


def make_corpus(data: Path, scratch: Path) -> None:
    """The novels and the unlabelled reviews, as many times over as 100 MB take."""
    files = [*sorted((data / "corpus_en_novels").glob("*.gz")), *sorted((data / "corpus_en_imdb").glob("*.gz"))]
    text = "\n\n".join(gzip.decompress(file.read_bytes()).decode() for file in files)
    times = -(-(10**8) // len(text.encode()))
    (scratch / "corpus").mkdir()
    (scratch / "corpus" / "all.txt").write_text("\n\n".join([text] * times)[: 10**8], encoding="utf-8")


def speed(marks: list[tuple[float, int]], first: int) -> dict[str, float]:
    """By the tokens seen at each mark, one a step; peak memory is the GPU's where one computes."""
    from bertram.memory import gpu_peak_memory_mb, peak_memory_mb

    (start, before), (end, after) = marks[first], marks[-1]
    seconds = [b - a for (a, _), (b, _) in pairwise(marks[first:])]
    return {
        "tokens_per_second": (after - before) / (end - start),
        "median_step_seconds": statistics.median(seconds),
        "peak_memory_mb": gpu_peak_memory_mb() or peak_memory_mb(),
    }


CONTESTS: dict[str, dict[str, Callable[..., dict[str, float]]]] = {
    "step": {
        "bertram": step_bertram,
        "transformers": step_transformers,
        "transformers, fp32": partial(step_transformers, bf16=False),
    },
    "gpu": {
        "bertram": partial(step_bertram, device="cuda"),
        "bertram, not compiled": partial(step_bertram, device="cuda", compiled=False),
        "bertram, padded": partial(step_bertram, device="cuda", compiled=False, padded=True),
        "transformers": partial(step_transformers, device="cuda"),
        "transformers, compiled": partial(step_transformers, device="cuda", compiled=True),
    },
    "data": {"bertram": data_bertram, "collator": data_collator},
    "corpus": {"bertram": corpus_bertram},
}


def contest(options: argparse.Namespace) -> None:
    contestants = options.contestants or list(CONTESTS[options.what])
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        if options.what == "corpus":
            make_corpus(options.data, scratch)
        else:
            prepare(options.data, scratch, options.models)
        for model in options.models:
            command = [sys.executable, __file__, options.what, "--models", model, "--scratch", name, "--run"]
            runs = {contestant: [*command, contestant] for contestant in contestants}
            found = summary(take_turns(runs, options.rounds))
            row = {"what": options.what, "model": model, "rounds": options.rounds} | found
            print(json.dumps(row), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=CONTESTS)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument(
        "--contestants", nargs="+", help="which to run; the others are compared with the first; default: all"
    )
    parser.add_argument("--run")
    parser.add_argument("--scratch", type=Path)
    options = parser.parse_args()
    if unknown := set(options.contestants or ()) - CONTESTS[options.what].keys():
        parser.error(f"--contestants {unknown.pop()!r}: there are {', '.join(CONTESTS[options.what])}")
    if options.run:
        print(json.dumps(CONTESTS[options.what][options.run](options.scratch, options.models[0])))
    else:
        contest(options)


if __name__ == "__main__":
    main()
