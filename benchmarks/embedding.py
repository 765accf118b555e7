"""Vectors of sentences: engines beside sentence-transformers on the original, from text to vectors.

    python benchmarks/embedding.py --original MINILM --engines minilm.engine bertram-english --texts FILE --rounds 5

FILE has a sentence a line; the first 1,024 are embedded, after a warming-up with some of them. sentence-transformers
runs as it comes (float32, its own sorting and batches of 32) and in bfloat16. Each is a process of its own, they take
turns, and medians over the rounds are printed, with the ratio to sentence-transformers as it comes. Memory is the peak
of another process that loads, and answers 8 sentences cut to 30 tokens or so. Nothing else may run meanwhile.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from turns import Worker

TEXTS, WARM_UP = 1024, 64
FEW, WORDS = 8, 24  # of the process whose memory is told; 24 words are some 30 tokens


def bertram(model: str) -> Callable[[list[str]], Any]:
    from bertram.artifacts import load_predictor

    return load_predictor(model).embed


def sentence_transformers(model: str, precision: str) -> Callable[[list[str]], Any]:
    from sentence_transformers import SentenceTransformer

    encoder = SentenceTransformer(model, device="cpu", model_kwargs={"dtype": precision})
    return lambda texts: encoder.encode(texts, show_progress_bar=False, convert_to_numpy=precision == "float32")


def load(kind: str, model: str) -> Callable[[list[str]], Any]:
    return bertram(model) if kind == "bertram" else sentence_transformers(model, kind)


def serve(kind: str, model: str) -> None:
    """Answer jobs that come as JSON lines: texts to embed; the seconds that took, and the peak memory."""
    from bertram.memory import peak_memory_mb

    answer = load(kind, model)
    for line in sys.stdin:
        began = time.perf_counter()
        answer(json.loads(line))
        print(json.dumps([time.perf_counter() - began, peak_memory_mb()]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--original", required=True)
    parser.add_argument("--engines", nargs="+", required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    texts = arguments.texts.read_text(encoding="utf-8").splitlines()[:TEXTS]
    few = [" ".join((text.split() * WORDS)[:WORDS]) for text in texts[:FEW]]
    contestants = {f"sentence-transformers, {kind}": (kind, arguments.original) for kind in ("float32", "bfloat16")}
    contestants |= {Path(engine).name: ("bertram", engine) for engine in arguments.engines}
    memory = {}
    for name, contestant in contestants.items():
        worker = Worker(__file__, *contestant)
        memory[name] = worker.ask(few)[1]
        worker.end()
    workers = {name: Worker(__file__, *contestant) for name, contestant in contestants.items()}
    for worker in workers.values():
        worker.ask(texts[:WARM_UP])
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for _ in range(arguments.rounds):
        for name, worker in workers.items():
            seconds[name].append(worker.ask(texts)[0])
    first = seconds[next(iter(contestants))]
    print(f"{len(texts):,} sentences, {arguments.rounds} rounds")
    for name, took in seconds.items():
        speed = len(texts) / statistics.median(took)
        ratio = statistics.median(a / b for a, b in zip(first, took, strict=True))
        print(f"{name:34}  {speed:7,.0f} a second  {ratio:5.2f} times  {memory[name]:5.0f} MB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
    else:
        main()
