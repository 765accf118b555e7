"""What products are computed in: what is asked for, or the type that this machine multiplies faster."""

import time
from collections.abc import Mapping
from functools import cache
from typing import Literal

import torch
from torch import nn

from bertram.training.distributed import Processes
from bertram.training.recipe import Recipe

Chosen = Literal["fp32", "bf16"]
DTYPES: Mapping[Chosen, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}

_ROWS, _WIDTH, _TRIALS = 256, 512, 6
_WORTHWHILE = 0.9
"""The share of float32's time in which bfloat16 must multiply to be taken: no chance decides near equality."""


def chosen(recipe: Recipe, processes: Processes) -> Chosen:
    """What the recipe asks for, else bfloat16 where every process gains by it."""
    if recipe.precision == "auto":
        return "fp32" if processes.any(not _gains_by_bfloat16(processes.device)) else "bf16"
    return recipe.precision


@cache
def _gains_by_bfloat16(device: torch.device) -> bool:
    """Tried out, for the instructions alone do not say: docs/experiments.md has a processor that loses by them."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if not torch.cpu._is_avx512_bf16_supported():
        return False
    return _product_seconds(torch.bfloat16) < _WORTHWHILE * _product_seconds(torch.float32)


def _product_seconds(kind: torch.dtype) -> float:
    x, weight = torch.ones(_ROWS, _WIDTH, dtype=kind), torch.ones(_WIDTH, _WIDTH, dtype=kind)
    taken = []
    for _ in range(_TRIALS):
        began = time.perf_counter()
        nn.functional.linear(x, weight)
        taken.append(time.perf_counter() - began)
    return min(taken)
