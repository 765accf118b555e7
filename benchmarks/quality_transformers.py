"""The peer's side of the SST-2 quality figure: transformers' Trainer, the same recipe as `bertram train`.

    python benchmarks/quality_transformers.py MINILM_DIRECTORY TRAIN.tsv.gz DEV.tsv.gz OUT

Recipe: 2 epochs, batches of 32, AdamW 5e-5, weight decay 0.01, linear warm-up over a tenth of the steps and linear
decay, gradient norm 1.0, bf16 autocast, sequences grouped by length. Prints one JSON line a seed.
"""

import argparse
import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)


class Sentences(torch.utils.data.Dataset[dict[str, Any]]):
    def __init__(self, path: Path, tokenizer: Any) -> None:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        encoded = tokenizer([row["sentence"] for row in rows], truncation=True, max_length=128)
        self.items = [
            {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": int(row["label"])}
            for ids, row in zip(encoded["input_ids"], rows, strict=True)
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.items[index]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("train", type=Path)
    parser.add_argument("dev", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    train, dev = Sentences(options.train, tokenizer), Sentences(options.dev, tokenizer)
    for seed in options.seeds:
        torch.manual_seed(seed)
        arguments = TrainingArguments(
            output_dir=str(options.out),
            seed=seed,
            num_train_epochs=2,
            per_device_train_batch_size=32,
            learning_rate=5e-5,
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
            model=AutoModelForSequenceClassification.from_pretrained(options.model),
            args=arguments,
            train_dataset=train,
            eval_dataset=dev,
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda output: {
                "accuracy": float(np.mean(output.predictions.argmax(-1) == output.label_ids))
            },
        )
        seconds = trainer.train().metrics["train_runtime"]
        print(
            json.dumps({"seed": seed, "accuracy": trainer.evaluate()["eval_accuracy"], "seconds": seconds}), flush=True
        )


if __name__ == "__main__":
    main()
