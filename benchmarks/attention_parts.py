"""Small operations that attention over short texts is made of, microseconds each: why models/attention.py is as it is.

    python benchmarks/attention_parts.py

Softmax and its gradient by width of the rows and precision, and two ways to bring packed rows into blocks by head.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch


def microseconds(work: Callable[[], object]) -> float:
    for _ in range(10):
        work()
    times = []
    for _ in range(30):
        began = time.perf_counter()
        for _ in range(20):
            work()
        times.append((time.perf_counter() - began) / 20)
    return statistics.median(times) * 1e6


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    for matrices, width in ((192, 14), (192, 16), (384, 22), (384, 32)):
        for precision in (torch.float32, torch.bfloat16):
            weights = torch.randn(matrices, width, width).to(precision)

            def backward(weights: torch.Tensor = weights) -> torch.Tensor:
                return torch.ops.aten._softmax_backward_data(weights, weights, -1, weights.dtype)

            forward = microseconds(lambda weights=weights: torch.softmax(weights, -1))
            gradient = microseconds(backward)
            print(f"softmax of {matrices} × {width} × {width} {precision}: {forward:.0f}, gradient {gradient:.0f}")
    sequences, slots, heads, d, rows = 16, 14, 12, 32, 220
    packed = torch.randn(rows, 3 * heads * d).bfloat16()
    by_row = torch.randint(rows, (sequences * slots,))
    by_head = torch.randint(rows * 3 * heads, (sequences * slots * 3 * heads,))

    def pad_then_turn() -> torch.Tensor:
        return packed[by_row].view(sequences, slots, 3, heads, d).permute(2, 0, 3, 1, 4).contiguous()

    print(f"rows into a block, then heads to the front: {microseconds(pad_then_turn):.0f}")
    print(f"one gather head by head: {microseconds(lambda: packed.view(-1, d).index_select(0, by_head)):.0f}")


if __name__ == "__main__":
    main()
