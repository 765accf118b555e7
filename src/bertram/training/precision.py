"""What products are computed in: what is asked for, or the type that this machine multiplies faster."""

import math
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

_ROWS, _WIDTH, _TRIALS = 256, 512, 50
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
    bfloat16, float32 = _product_seconds(torch.bfloat16, torch.float32)
    return bfloat16 < _WORTHWHILE * float32


def _product_seconds(*kinds: torch.dtype) -> list[float]:
    """The least that a product of each kind took. They take turns, so that what disturbs one disturbs the others."""
    operands = [(torch.ones(_ROWS, _WIDTH, dtype=kind), torch.ones(_WIDTH, _WIDTH, dtype=kind)) for kind in kinds]
    least = [math.inf] * len(kinds)
    for _ in range(_TRIALS):
        for index, (x, weight) in enumerate(operands):
            began = time.perf_counter()
            nn.functional.linear(x, weight)
            least[index] = min(least[index], time.perf_counter() - began)
    return least
