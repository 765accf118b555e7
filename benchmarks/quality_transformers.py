"""The peer's side of quality figures: transformers' Trainer, the same recipe as `bertram train`.

    python benchmarks/quality_transformers.py MINILM_DIRECTORY TRAIN.tsv.gz DEV.tsv.gz OUT
    python benchmarks/quality_transformers.py MINILM_DIRECTORY TRAIN.txt.gz DEV.txt.gz OUT --task tagging --epochs 3

The first is SST-2, the second CoNLL 2003, whose words are labelled by their first token. Recipe: batches of 32, AdamW,
weight decay 0.01, linear warm-up over a tenth of the steps and linear decay, gradient norm 1.0, bf16 autocast, like
lengths together. Prints one JSON line a seed.
"""

import argparse
import csv
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

from bertram.batch import IGNORED
from bertram.tasks.registry import TASKS

MAX_LENGTH = 128
LONGEST = 512  # of labelled words, none of which may be cut off
CLASSES = {
    "classification": (AutoModelForSequenceClassification, DataCollatorWithPadding),
    "tagging": (AutoModelForTokenClassification, DataCollatorForTokenClassification),
}


class Items(torch.utils.data.Dataset[dict[str, Any]]):
    def __init__(self, items: list[dict[str, Any]]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.items[index]


def sentences(path: Path) -> tuple[list[str], list[str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["sentence"] for row in rows], [row["label"] for row in rows]


def tagged(path: Path) -> tuple[list[str], list[str]]:
    """Words and labels of every sentence, with spaces between them."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        parts = [[line.split() for line in part.splitlines()] for part in file.read().split("\n\n")]
    kept = [part for part in parts if part and part[0][0] != "-DOCSTART-"]
    texts, labels = ([" ".join(cells[column] for cells in part) for part in kept] for column in (0, -1))
    return texts, labels


def classified(tokenizer: Any, texts: list[str], targets: Any) -> Iterator[dict[str, Any]]:
    for ids, label in zip(tokenizer(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"], targets, strict=True):
        yield {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": int(label)}


def labelled(tokenizer: Any, texts: list[str], targets: Any) -> Iterator[dict[str, Any]]:
    start = 0
    for text in texts:
        words = text.split()
        encoded = tokenizer(words, is_split_into_words=True, truncation=True, max_length=LONGEST)
        numbers = encoded.word_ids()
        first = [
            number is not None and number != before
            for before, number in zip([None, *numbers[:-1]], numbers, strict=True)
        ]
        labels = [
            int(targets[start + number, 1]) if new else IGNORED for new, number in zip(first, numbers, strict=True)
        ]
        yield {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"], "labels": labels}
        start += len(words)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("train", type=Path)
    parser.add_argument("dev", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--task", choices=CLASSES, default="classification")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    read, encode = (tagged, labelled) if options.task == "tagging" else (sentences, classified)
    (texts, labels), (dev_texts, dev_labels) = read(options.train), read(options.dev)
    task = TASKS[options.task].from_labels(labels)
    train, dev = (
        Items(list(encode(tokenizer, side, task.targets(given))))
        for side, given in ((texts, labels), (dev_texts, dev_labels))
    )
    model_class, collator = CLASSES[options.task]

    def score(output: Any) -> dict[str, float]:
        logits, targets = output.predictions, output.label_ids  # of like lengths together, not in the file's order
        if options.task == "tagging":
            rows, places = np.nonzero(targets != IGNORED)
            logits, targets = logits[rows, places], np.stack([rows, targets[rows, places]], axis=1)
        return {task.metric: task.scores(logits, targets)[0].value}

    for seed in options.seeds:
        torch.manual_seed(seed)
        arguments = TrainingArguments(
            output_dir=str(options.out),
            seed=seed,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=32,
            learning_rate=options.learning_rate,
            weight_decay=0.01,
            warmup_steps=0.1,
            lr_scheduler_type="linear",
            max_grad_norm=1.0,
            bf16=True,
            use_cpu=True,
            train_sampling_strategy="group_by_length",
            save_strategy="no",
            report_to="none",
            logging_steps=200,
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=model_class.from_pretrained(options.model, num_labels=task.outputs),
            args=arguments,
            train_dataset=train,
            eval_dataset=dev,
            data_collator=collator(tokenizer),
            compute_metrics=score,
        )
        seconds = trainer.train().metrics["train_runtime"]
        value = trainer.evaluate()[f"eval_{task.metric}"]
        print(json.dumps({"seed": seed, task.metric: value, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
