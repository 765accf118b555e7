"""Pairs of texts so easy that a small model learns them in seconds, and settings for one."""

import json
from pathlib import Path

import numpy as np

from bertram.training.recipe import Recipe

WORDS = {"one": "eins", "two": "zwei", "three": "drei", "four": "vier", "five": "fünf", "six": "sechs"}
SIZES = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48, "num_hidden_layers": 1}
TINY = ",".join(f"{name}={size}" for name, size in SIZES.items())
SHORT = Recipe(steps=4, evaluations=2, batch_tokens=64, save_every=2, log_every=1)


def write_pairs(directory: Path, number: int, seed: int = 0, name: str = "train") -> tuple[Path, Path]:
    """Numbers in English and in German, word for word."""
    random = np.random.default_rng(seed)
    sources = [" ".join(random.choice(list(WORDS), random.integers(1, 7))) for _ in range(number)]
    targets = [" ".join(WORDS[word] for word in source.split()) for source in sources]
    files = directory / f"{name}.en", directory / f"{name}.de"
    for file, texts in zip(files, (sources, targets), strict=True):
        file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return files


def write_documents(path: Path, number: int = 48) -> Path:
    random = np.random.default_rng(0)
    documents = [" ".join(random.choice(["film", "room", "book", "meal"], 6)) for _ in range(number)]
    rows = [{"document": document, "summary": document.split()[0]} for document in documents]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path
