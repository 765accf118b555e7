"""Tables and models so small that a training takes a second."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from bertram import cli
from bertram.config import EncoderConfig
from bertram.formats.huggingface import write
from bertram.models.heads import Model
from bertram.text.tokenizer import Tokenizer

GOOD, BAD = ["fine", "lovely", "warm", "bright"], ["dull", "cold", "awful", "grey"]
NOUNS = ["film", "room", "book", "meal", "song", "trip", "hotel", "phone"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def rows(number: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts with labels that a word decides."""
    random = np.random.default_rng(seed)
    found = []
    for label in random.integers(0, 2, number):
        words = [random.choice(NOUNS) for _ in range(random.integers(2, 12))]
        words.insert(int(random.integers(len(words))), random.choice(GOOD if label else BAD))
        found.append((" ".join(words), "good" if label else "bad"))
    return found


def table(path: Path, number: int = 64, seed: int = 0) -> Path:
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows(number, seed)))
    return path


def model_directory(path: Path, heads: dict[str, int] | None = None, **settings: object) -> Path:
    """A model directory with random weights and a tokenizer for `rows`."""
    path.mkdir(parents=True)
    tokenizer = Tokenizer.train([text for text, _ in rows(200)], "bert", 200)
    torch.manual_seed(0)
    config = EncoderConfig(**SIZES | {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 32} | settings)
    write(Model(config, heads or {}), path)
    tokenizer.save(path)
    return path


def run(*arguments: object) -> object:
    """The command line in this process; its exit code."""
    try:
        cli.main([str(argument) for argument in arguments])
    except SystemExit as left:
        return left.code
    return 0


def bertram(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """The command line in a process of its own, on one thread: tests run side by side."""
    command = [sys.executable, "-m", "bertram.cli", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, env=environment, **pipes, **options)
