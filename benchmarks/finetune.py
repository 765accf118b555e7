"""Fine-tuning speed and memory, Bertram beside transformers' Trainer.

    python benchmarks/finetune.py --model MINILM_DIRECTORY --data ../shared/data --out benchmarks/results

Random weights of two sizes, real texts: SST-2 (mean 13 tokens) and IMDB cut at 256. Every run is a process of its own;
the contestants take turns, and medians over the rounds are printed with ratios. The same examples a step (32), one
optimizer step a batch. Tokens are real ones, without padding. The Trainer's best is bfloat16, or float32 where the
processor is faster at that. Its grouping by length sorts the texts of a run of batches, longest first, and begins
again; the steps timed are one such run, so that all contestants are timed on texts of the same lengths (tokens a step
are printed). Nothing else may run meanwhile.
"""

import argparse
import csv
import gzip
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from turns import summary, take_turns

WARM_UP = 4
BATCH_SIZE = 32
STEPS = {("6x384", "sst2"): 50, ("bert-base", "sst2"): 14, ("6x384", "imdb"): 8, ("bert-base", "imdb"): 4}
RUNS = 4  # into which the Trainer's sampler divides few texts, of 50 batches at most
CONTESTANTS = ["bertram", "trainer-best", "trainer-best-fp32", "trainer-default"]


def texts(data: Path, name: str, count: int) -> tuple[list[str], list[int]]:
    path, column = {"sst2": (data / "sst2/train.tsv.gz", "sentence"), "imdb": (data / "imdb/train_10k.tsv.gz", "text")}[
        name
    ]
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    rows = rows[:count]
    return [row[column] for row in rows], [int(row["label"]) for row in rows]


def encode(model: Path, data: Path, name: str, count: int) -> tuple[list[list[int]], list[int]]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    sentences, labels = texts(data, name, count)
    return [encoding.ids for encoding in tokenizer.encode_batch(sentences)], labels


def make_model(size: str, directory: Path) -> None:
    import torch

    from bertram.config import PRESETS, bert
    from bertram.formats.huggingface import write
    from bertram.models.heads import Model

    torch.manual_seed(0)
    config = replace(bert(6, 384), num_attention_heads=12) if size == "6x384" else PRESETS[size]
    write(Model(config, {"classification": 2}), directory, labels=["0", "1"])


def run_bertram(directory: Path, ids: list[list[int]], labels: list[int], steps: int) -> dict[str, Any]:
    import numpy as np
    import torch

    from bertram.batch import Batch, Examples
    from bertram.formats.huggingface import read
    from bertram.training.distributed import Processes
    from bertram.training.feed import ShuffledRows
    from bertram.training.loop import Loop
    from bertram.training.recipe import Recipe
    from bertram.training.setup import Evaluation, TrainingSetup

    marks: list[tuple[float, int]] = []

    def report(line: dict[str, Any]) -> None:
        if "loss" in line:
            marks.append((time.perf_counter(), line["tokens"]))

    examples = Examples(Batch.pack(ids), {"classification": np.array(labels)})
    setup = TrainingSetup(
        network=read(directory, heads={"classification": 2}),
        feed=ShuffledRows(examples, batch_size=BATCH_SIZE, seed=0),
        evaluate=lambda: Evaluation(0.0, {}),
    )
    recipe = Recipe(steps=WARM_UP + steps, learning_rate=5e-5, evaluations=1, save_every=10**6)
    with tempfile.TemporaryDirectory() as out:
        Loop(setup, recipe, Path(out), Processes(0, 1, torch.device("cpu")), report).run()
    return _speed(marks)


def run_trainer(directory: Path, ids: list[list[int]], labels: list[int], steps: int, *, kind: str) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

    marks: list[tuple[float, int]] = []
    seen = 0

    def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
        nonlocal seen
        width = max(len(item["input_ids"]) for item in items)
        seen += sum(len(item["input_ids"]) for item in items)
        rows = [item["input_ids"] + [0] * (width - len(item["input_ids"])) for item in items]
        masks = [[1] * len(item["input_ids"]) + [0] * (width - len(item["input_ids"])) for item in items]
        labels = torch.tensor([item["labels"] for item in items])
        return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks), "labels": labels}

    class Clock(TrainerCallback):
        def on_step_end(self, *arguments: Any, **keywords: Any) -> None:
            marks.append((time.perf_counter(), seen))

    settings: dict[str, Any] = {}
    if kind != "default":
        settings = {"bf16": kind == "best", "train_sampling_strategy": "group_by_length", "optim": "adamw_torch_fused"}
    with tempfile.TemporaryDirectory() as out:
        Trainer(
            model=AutoModelForSequenceClassification.from_pretrained(directory),
            args=TrainingArguments(
                output_dir=out,
                max_steps=WARM_UP + steps,
                per_device_train_batch_size=BATCH_SIZE,
                use_cpu=True,
                report_to="none",
                save_strategy="no",
                disable_tqdm=True,
                weight_decay=0.01,
                **settings,
            ),
            train_dataset=[{"input_ids": i, "labels": label} for i, label in zip(ids, labels, strict=True)],
            data_collator=collate,
            callbacks=[Clock()],
        ).train()
    return _speed(marks)


def _speed(marks: list[tuple[float, int]]) -> dict[str, Any]:
    (start, before), (end, after) = marks[WARM_UP - 1], marks[-1]
    from bertram.memory import peak_memory_mb

    return {
        "tokens_per_second": (after - before) / (end - start),
        "tokens_per_step": (after - before) / (len(marks) - WARM_UP),
        "peak_memory_mb": peak_memory_mb(),
    }


def contest(options: argparse.Namespace) -> None:
    results = []
    for size, name in [(s, n) for s in options.sizes for n in options.sets]:
        with tempfile.TemporaryDirectory() as scratch:
            make_model(size, Path(scratch))
            command = [sys.executable, __file__, "--model", options.model, "--data", options.data]
            command += ["--size", size, "--set", name, "--weights", scratch, "--run"]
            runs = {contestant: [*command, contestant] for contestant in options.contestants}
            found = summary(take_turns(runs, options.rounds))
            row = {"size": size, "set": name, "rounds": options.rounds} | found
            print(json.dumps(row), flush=True)
            results.append(row)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "finetune.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", nargs="+", default=["6x384", "bert-base"])
    parser.add_argument("--sets", nargs="+", default=["sst2", "imdb"])
    parser.add_argument(
        "--contestants",
        nargs="+",
        choices=CONTESTANTS,
        default=CONTESTANTS,
        help="the others are compared with the first",
    )
    parser.add_argument("--run", choices=CONTESTANTS)
    parser.add_argument("--size")
    parser.add_argument("--set")
    parser.add_argument("--weights", type=Path)
    options = parser.parse_args()
    if not options.run:
        contest(options)
        return
    steps = STEPS[options.size, options.set]
    ids, labels = encode(options.model, options.data, options.set, RUNS * steps * BATCH_SIZE)
    if options.run == "bertram":
        print(json.dumps(run_bertram(options.weights, ids, labels, steps)))
    else:
        print(json.dumps(run_trainer(options.weights, ids, labels, steps, kind=options.run.removeprefix("trainer-"))))


if __name__ == "__main__":
    main()
