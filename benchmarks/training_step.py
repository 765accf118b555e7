"""Where the time of a training step goes: medians of its four phases, or the operators of forward and backward.

    python benchmarks/training_step.py --model MINILM_DIRECTORY --size 6x384 --set sst2 --steps 60 [--operators]

The model, texts and batches are those of finetune.py. Nothing else may run meanwhile.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from bertram.batch import Batch
from bertram.formats.huggingface import read
from bertram.memory import peak_memory_mb
from bertram.models.tensors import to_tensors
from bertram.training.allocator import keep_freed_memory
from bertram.training.distributed import alone
from bertram.training.optimizers import Optimizer
from bertram.training.precision import DTYPES, chosen
from bertram.training.recipe import Recipe
from finetune import BATCH_SIZE, WARM_UP, encode, make_model

T = TypeVar("T")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--size", default="6x384")
    parser.add_argument("--set", default="sst2")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--operators", action="store_true")
    options = parser.parse_args()
    keep_freed_memory()  # as the loop does
    ids, labels = encode(options.model, options.data, options.set, BATCH_SIZE * (WARM_UP + options.steps))
    data, targets = Batch.pack(ids), np.array(labels)
    with tempfile.TemporaryDirectory() as scratch:
        make_model(options.size, Path(scratch))
        model = read(Path(scratch), heads={"classification": 2}).train()
    optimizer = Optimizer(model, DTYPES[chosen(Recipe(), alone())])
    head: Any = model.heads["classification"]
    phases: dict[str, list[float]] = {name: [] for name in ("data", "forward", "backward", "optimizer")}

    def timed(phase: str, work: Callable[[], T]) -> T:
        began = time.perf_counter()
        result = work()
        phases[phase].append(1e3 * (time.perf_counter() - began))
        return result

    def step(rows: np.ndarray) -> int:
        rows = rows[np.argsort(data.lengths[rows], kind="stable")]
        batch = timed("data", lambda: to_tensors(data.select(rows)))
        labelled = torch.from_numpy(targets[rows])
        loss = timed("forward", lambda: head.loss(model(batch)["classification"], labelled))
        timed("backward", loss.backward)
        timed("optimizer", lambda: optimizer.step(1e-5, 1.0))
        return len(batch.token_ids)

    order = np.random.default_rng(0).permutation(len(data))
    batches = [order[start : start + BATCH_SIZE] for start in range(0, len(order), BATCH_SIZE)]
    for rows in batches[:WARM_UP]:
        step(rows)
    for times in phases.values():
        times.clear()
    with torch.profiler.profile() if options.operators else tempfile.TemporaryFile() as profiler:
        tokens = sum(step(rows) for rows in batches[WARM_UP:])
    medians = {name: statistics.median(times) for name, times in phases.items()}
    print("  ".join(f"{name} {value:.1f} ms" for name, value in medians.items()))
    speed = tokens / options.steps / sum(medians.values()) * 1e3
    print(f"{speed:.0f} tokens/s by medians, peak {peak_memory_mb():.0f} MB")
    if options.operators:
        print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=40))


if __name__ == "__main__":
    main()
